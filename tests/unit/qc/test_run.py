from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow import contracts
from dtcflow.qc.run import qc_sample, waterfall
from dtcflow.qc.thresholds import removing_reasons

SETTINGS: dict[str, Any] = {
    "n_mads": 5,
    "min_counts": None,
    "min_genes": None,
    "max_pct_mt": None,
    "max_pct_mt_cap": 50,
    "expected_doublet_rate": None,
}
TYPES = ("T_NK", "monocyte", "B", "erythroid", "HSPC", "plasma")


def run(adata: ad.AnnData, **options: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    settings = {**SETTINGS, **options.pop("settings", {})}
    return qc_sample(adata, settings=settings, epithelial_z_threshold=3.0, seed=1, n_null=100, **options)


@pytest.fixture(scope="module")
def sample(marrow):
    """400 marrow cells, 8 tumour cells with 5 x their counts and more mitochondria, 20 dying cells, 10 of debris."""
    parts = [
        marrow.draw({**dict.fromkeys(TYPES, 65), "megakaryocyte": 10}, counts=3000.0, ambient=0.05, seed=11),
        marrow.draw({"epithelial": 8}, counts=15000.0, pct_mt=14.0, seed=12),
        marrow.draw({"T_NK": 10, "monocyte": 10}, counts=900.0, pct_mt=60.0, seed=13),
        marrow.draw({"plain": 10}, counts=40.0, seed=14),
    ]
    kind = np.repeat(["living", "tumour", "dying", "debris"], [part.n_obs for part in parts])
    joined = ad.concat(dict(enumerate(parts)), merge="same", index_unique="-")
    joined.obs_names = [f"S1:cell{i:05d}" for i in range(joined.n_obs)]
    joined.obs["kind"] = kind
    return joined


@pytest.fixture(scope="module")
def result(sample):
    return run(sample)


def test_the_table_meets_its_contract_and_holds_every_cell(sample, result, tmp_path: Path) -> None:
    cells, summary = result
    assert tuple(cells.columns[: len(contracts.TABLES["qc_cells"])]) == contracts.TABLES["qc_cells"]
    assert cells["cell_id"].tolist() == sample.obs_names.tolist()
    contracts.write_table(cells, tmp_path / "S1.tsv.gz", "qc_cells")
    again = contracts.read_table(tmp_path / "S1.tsv.gz", "qc_cells")
    assert (again["pass_qc"] == cells["pass_qc"]).all()
    assert (again["qc_reasons"] == cells["qc_reasons"]).all()
    contracts.write_json(tmp_path / "S1.json", summary)
    assert json.loads((tmp_path / "S1.json").read_text())["n_cells"] == len(cells)


def test_tumour_cells_stay_dying_cells_and_debris_go(sample, result) -> None:
    cells, _ = result
    passed = cells["pass_qc"].groupby(sample.obs["kind"].to_numpy()).mean()
    assert passed["tumour"] == 1
    assert passed["dying"] == 0
    assert passed["debris"] == 0
    assert passed["living"] > 0.97
    assert cells.loc[(sample.obs["truth"] == "erythroid").to_numpy(), "pass_qc"].mean() > 0.97
    tumour = (sample.obs["kind"] == "tumour").to_numpy()
    assert (cells.loc[tumour, "lineage"] == "epithelial").all()
    assert (cells.loc[tumour, "epithelial_z"] >= 3).all()
    assert cells.loc[~tumour, "n_epithelial_markers"].max() <= 8


def test_removed_cells_have_a_reason_and_only_they(result) -> None:
    cells, _ = result
    has_reason = np.array([bool(removing_reasons(text)) for text in cells["qc_reasons"]])
    np.testing.assert_array_equal(has_reason, ~cells["pass_qc"].to_numpy())


def test_summary_adds_up(result) -> None:
    cells, summary = result
    assert summary["n_cells"] == len(cells)
    assert summary["n_pass"] == int(cells["pass_qc"].sum())
    assert sum(entry["n_cells"] for entry in summary["lineages"].values()) == len(cells)
    assert sum(entry["n_pass"] for entry in summary["lineages"].values()) == summary["n_pass"]
    for lineage in {entry["lineage"] for entry in summary["waterfall"]}:
        steps = [entry for entry in summary["waterfall"] if entry["lineage"] == lineage]
        assert steps[0]["reason"] == "start"
        assert steps[0]["n_left"] - sum(step["n_removed"] for step in steps) == steps[-1]["n_left"]
        assert all(step["n_with_reason"] >= step["n_removed"] for step in steps)
    assert [e for e in summary["waterfall"] if e["lineage"] == "all"][-1]["n_left"] == summary["n_pass"]
    assert {entry["origin"] for entry in summary["thresholds"]} <= {"mad", "fixed", "borrowed", "none"}
    assert summary["doublets"]["status"] == "run"
    assert summary["ambient"]["status"] == "estimated"
    assert summary["epithelial"]["n_evidence"] >= 8
    assert (summary["sample_id"], summary["patient_id"], summary["compartment"]) == ("S1", "P1", "marrow")


def test_waterfall_by_hand() -> None:
    cells = pd.DataFrame(
        {
            "lineage": ["erythroid", "erythroid", "unknown"],
            "qc_reasons": ["low_counts(1<2);high_mt(60.00>50.00)", "note:low_complexity(0.1<0.2)", "empty(0 counts)"],
        }
    )
    table = pd.DataFrame(waterfall(cells)).set_index(["lineage", "reason"])
    assert table.loc[("all", "high_mt")].tolist() == [1, 0, 1]
    assert table.loc[("all", "low_counts")].tolist() == [1, 1, 1]
    assert table.loc[("erythroid", "high_mt"), "n_left"] == 1
    assert table.loc[("unknown", "empty")].tolist() == [1, 1, 0]
    assert "stromal" not in table.index.get_level_values("lineage")


def test_order_of_cells_and_genes_does_not_matter(sample, result) -> None:
    rng = np.random.default_rng(2)
    shuffled = sample[rng.permutation(sample.n_obs), rng.permutation(sample.n_vars)].copy()
    again = run(shuffled)[0].set_index("cell_id").loc[result[0]["cell_id"]].reset_index()
    # the only sums in single precision are those of the random gene sets
    pd.testing.assert_frame_equal(again, result[0], rtol=1e-3, atol=1e-3)


def test_same_input_same_table(sample, result) -> None:
    pd.testing.assert_frame_equal(run(sample)[0], result[0])


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20])
def test_small_samples_end_with_a_full_table_and_a_warning(sample, n: int) -> None:
    cells, summary = run(sample[:n].copy())
    assert len(cells) == n
    assert set(contracts.TABLES["qc_cells"]) <= set(cells.columns)
    assert cells["pass_qc"].all()
    assert cells["doublet_score"].isna().all()
    assert summary["doublets"]["status"].startswith("not_run")
    if n == 0:
        assert summary["warnings"] == ["no cells in this sample"]
    elif n < 20:
        assert any("no MAD rule" in warning for warning in summary["warnings"])
    json.dumps(contracts._plain(summary), allow_nan=False)


def test_a_sample_without_any_count(marrow, as_cells) -> None:
    cells, summary = run(as_cells(np.zeros((4, len(marrow.genes))), marrow.genes))
    assert not cells["pass_qc"].any()
    assert cells["epithelial_z"].isna().all()
    assert cells["pct_mt"].isna().all()
    assert "no cell passed quality control" in summary["warnings"]
    assert summary["medians_of_passing_cells"]["n_counts"] is None


def test_empty_genes_change_nothing(sample, result) -> None:
    genes = pd.Index([*sample.var_names, "ZZ_EMPTY1", "ZZ_EMPTY2"])
    wide = ad.AnnData(obs=sample.obs, var=pd.DataFrame({"symbol": genes}, index=genes))
    counts = sample.layers["counts"]
    wide.layers["counts"] = sp.csr_matrix((counts.data, counts.indices, counts.indptr), shape=wide.shape)
    pd.testing.assert_frame_equal(run(wide)[0], result[0])


def test_without_mitochondrial_genes(sample) -> None:
    cells, summary = run(sample[:, ~sample.var_names.str.startswith("MT-")].copy())
    assert cells["pct_mt"].isna().all()
    assert not cells["qc_reasons"].str.contains("high_mt").any()
    assert any("no mitochondrial genes" in warning for warning in summary["warnings"])


def test_fixed_limits_are_used_and_a_harsh_one_is_pointed_out(sample) -> None:
    cells, summary = run(sample, settings={"min_counts": 6000})
    assert not cells.loc[cells["n_counts"] < 6000, "pass_qc"].any()
    assert {t["origin"] for t in summary["thresholds"] if t["metric"] == "n_counts"} == {"fixed"}
    assert any("haematopoietic cells removed (fixed limits: n_counts)" in warning for warning in summary["warnings"])


def test_plate_data_have_no_soup_and_no_doublet_rate(sample) -> None:
    plate = sample[:100].copy()
    plate.obs["platform"] = "plate"
    cells, summary = run(plate)
    assert summary["ambient"]["status"] == "not_estimated: plate data"
    assert summary["doublets"]["status"].startswith("not_run: plate data")
    assert cells["ambient_fraction"].isna().all()
    assert run(plate, settings={"expected_doublet_rate": 0.05})[1]["doublets"]["status"] == "run"


def test_wrong_settings_are_refused(sample) -> None:
    with pytest.raises(contracts.InputError, match=r"qc\.n_mads"):
        run(sample, settings={"n_mads": -1})


def test_uncalled_droplets_fail_and_change_nothing_for_the_cells(sample, result) -> None:
    mixed = sample.copy()
    mixed.obs["droplet_class"], mixed.obs["droplet_q"] = "cell", np.nan
    tiny = sample[sample.obs["kind"] == "tumour"][:3].copy()
    tiny.layers["counts"] = sp.csr_matrix(np.floor(tiny.layers["counts"].toarray() / 60).astype(np.float32))
    tiny.obs_names = [f"S1:tiny{i}" for i in range(3)]
    tiny.obs["droplet_class"], tiny.obs["droplet_q"] = "uncalled", [0.2, 0.5, np.nan]
    mixed = ad.concat([tiny, mixed], merge="same")
    cells, summary = run(mixed)
    assert cells["cell_id"].tolist() == mixed.obs_names.tolist()
    uncalled = cells.iloc[:3]
    assert uncalled["qc_reasons"].str.startswith("empty_droplet(q").all()
    assert uncalled["qc_reasons"].iloc[0] == "empty_droplet(q=0.2)"
    assert not uncalled["pass_qc"].any()
    assert uncalled["epithelial_z"].isna().all()
    assert (uncalled["n_epithelial_markers"] >= 2).all()
    assert summary["n_uncalled"] == 3
    assert next(e for e in summary["waterfall"] if e["reason"] == "empty_droplet")["n_removed"] == 3
    pd.testing.assert_frame_equal(cells.iloc[3:].reset_index(drop=True), result[0], check_dtype=False)


def test_the_measured_soup_is_used(sample) -> None:
    with_soup = sample.copy()
    with_soup.var["ambient_count"] = np.asarray(sample.layers["counts"].sum(axis=0)).ravel().astype(float)
    assert run(with_soup)[1]["ambient"]["soup"] == "empty droplets"
    assert run(sample)[1]["ambient"]["soup"] == "pooled cells"


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_a_sample_of_uncalled_droplets_alone_is_a_result(sample, n) -> None:
    droplets = sample[:n].copy()
    droplets.obs["droplet_class"], droplets.obs["droplet_q"] = "uncalled", 0.5
    cells, summary = run(droplets)
    assert cells["cell_id"].tolist() == droplets.obs_names.tolist()
    assert not cells["pass_qc"].any()
    assert (summary["n_cells"], summary["n_uncalled"], summary["n_pass"]) == (n, n, 0)
