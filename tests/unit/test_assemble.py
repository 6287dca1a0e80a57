"""The public table and object."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.assemble import FAILED_QC, assemble_cells, assemble_cohort
from dtcflow.contracts import (
    CELLS_COLUMNS,
    COUNTS,
    LOGNORM,
    TABLES,
    VAR_GENES,
    X_CNV,
    ContractError,
    read_stage,
    read_table,
    write_stage,
    write_table,
)

WINDOWS = pd.DataFrame({"chromosome": ["chr1", "chr2"], "start": [1, 5], "end": [9, 8], "arm": ["1p", "2q"]})


def parts(passed=(True, False, True, True), compartments=("marrow", "marrow", "marrow", "primary")):
    """QC tables of two samples, annotation, calls and scores; the first passing marrow cell is malignant."""
    n = len(passed)
    sample = ["A" if c == "marrow" else "B" for c in compartments]
    qc = pd.DataFrame(
        {
            "cell_id": [f"{s}:c{i}" for i, s in enumerate(sample)],
            "sample_id": sample,
            "patient_id": "P1",
            "compartment": list(compartments),
            "pass_qc": list(passed),
            "qc_reasons": ["" if ok else "low_counts" for ok in passed],
            **{c: np.arange(n) + 0.5 for c in ("n_counts", "n_genes", "pct_mt", "pct_ribo", "pct_hb")},
            "log10_genes_per_count": 0.8,
            "doublet_score": 0.1,
            "is_doublet": False,
            "ambient_fraction": np.nan,
            "epithelial_z": np.arange(n, dtype=float),
            "n_epithelial_markers": 1,
            "lineage": "T_NK",
            **dict.fromkeys(("doublet_methods", "arbitration", "doublet_partner"), ""),
            **dict.fromkeys(("p_single", "p_doublet", "p_coated"), np.nan),
        }
    ).astype({"is_doublet": bool, "pass_qc": bool, **dict.fromkeys(("cell_id", "sample_id", "compartment"), object)})
    good = qc.loc[qc["pass_qc"], ["cell_id", "compartment"]].reset_index(drop=True)
    annotation = pd.DataFrame(
        {
            "cell_id": good["cell_id"],
            "cell_type": "T_NK",
            "cell_type_margin": 2.5,
            "runner_up": "B",
            "cell_type_source": "cell",
            "best_z": 4.0,
            "cluster": np.arange(len(good)) % 2,
        }
    )
    malignant = np.arange(len(good)) == 0
    calls = pd.DataFrame(
        {
            "cell_id": good["cell_id"],
            "cnv_burden_q": 0.5,
            "clone_llr": 1.0,
            "malignancy_q": 0.2,
            "malignant_call": np.where(malignant, "malignant", "normal"),
            "malignant_class": np.where(malignant, "malignant_confirmed", "normal"),
            "clone_id": np.where(malignant, "P1.1", ""),
            "call_reasons": "cnv",
            "is_dtc": malignant & (good["compartment"] == "marrow").to_numpy(),
        }
    )
    scores = pd.DataFrame({"cell_id": good["cell_id"], "LIM": np.arange(len(good), dtype=float), "PECE": np.nan})
    return [qc[qc["sample_id"] == s].copy() for s in ("A", "B")], annotation, calls, scores


def cohort_parts(n=6, n_windows=2):
    qc, annotation, calls, scores = parts((True,) * n, ("marrow",) * (n - n // 2) + ("primary",) * (n // 2))
    cells = assemble_cells(qc, annotation, calls, scores, primary_scores=["LIM", "PECE"])
    obs = cells.set_index("cell_id")[["sample_id", "patient_id", "compartment"]].copy()
    obs["batch"], obs["platform"], obs["leiden"] = "b", "droplet", pd.Categorical(["0"] * n, categories=["0"])
    obs["cell_type"] = "author label"
    counts = sp.csr_matrix(np.arange(n * 3, dtype=np.float32).reshape(n, 3))
    var = pd.DataFrame(index=["G1", "G2", "G3"]).assign(**dict.fromkeys(VAR_GENES, "x"))
    embedded = ad.AnnData(X=None, obs=obs, var=var, layers={COUNTS: counts, LOGNORM: counts.copy()})
    embedded.obsm["X_pca"] = embedded.obsm["X_umap"] = np.zeros((n, 2), dtype=np.float32)
    cnv = ad.AnnData(X=None, obs=obs[["patient_id"]].copy())
    cnv.obsm[X_CNV] = np.arange(n * n_windows, dtype=float).reshape(n, n_windows)
    cnv.uns["cnv_windows"] = WINDOWS.iloc[:n_windows].copy()
    return embedded, cells, cnv


# --- table -----------------------------------------------------------------------------------------------------------


def test_every_input_cell_has_a_row_and_removed_cells_are_not_assessed(tmp_path):
    qc, annotation, calls, scores = parts()
    cells = assemble_cells(qc, annotation, calls, scores, primary_scores=["LIM", "PECE"])
    assert list(cells.columns[: len(CELLS_COLUMNS)]) == list(CELLS_COLUMNS)
    assert list(cells.columns[len(CELLS_COLUMNS) :]) == [
        *("LIM", "PECE", "is_doublet", "lineage", "malignant_class", "cell_type_margin", "leiden"),
        *("doublet_methods", "arbitration", "p_single", "p_doublet", "p_coated", "doublet_partner"),
    ]
    assert cells["cell_id"].tolist() == ["A:c0", "A:c1", "A:c2", "B:c3"]
    removed = cells.iloc[1]
    assert (removed["malignant_call"], removed["call_reasons"]) == ("indeterminate", FAILED_QC)
    assert (removed["cell_type"], removed["clone_id"], removed["leiden"]) == ("", "", "")
    assert removed["malignant_class"] == "unassessable"
    assert removed["is_dtc"] is False or removed["is_dtc"] == np.False_
    assert removed[["cnv_burden_q", "clone_llr", "malignancy_q", "LIM", "cell_type_margin"]].isna().all()
    assert removed["epithelial_z"] == 1
    assert cells["is_dtc"].tolist() == [True, False, False, False]
    assert cells["is_dtc"].dtype == bool
    assert cells["leiden"].tolist() == ["0", "", "1", "0"]
    assert cells["LIM"].tolist()[2:] == [1, 2]
    write_table(cells, tmp_path / "cells.tsv.gz", "cells")
    again = read_table(tmp_path / "cells.tsv.gz", "cells")
    assert again["is_dtc"].tolist() == cells["is_dtc"].tolist()
    assert again["cell_type"].tolist() == ["T_NK", "", "T_NK", "T_NK"]


def test_side_cars_in_another_order_are_joined_by_id():
    qc, annotation, calls, scores = parts()
    one = assemble_cells(qc, annotation, calls, scores, primary_scores=["LIM"])
    two = assemble_cells(qc, annotation[::-1], calls[::-1], scores[::-1], primary_scores=["LIM"])
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize("table", [1, 2, 3])
@pytest.mark.parametrize("change", ["missing", "removed cell", "stranger", "twice"])
def test_other_id_sets_are_refused(table, change):
    tables = list(parts())
    frame = tables[table]
    if change == "missing":
        frame = frame.iloc[1:]
    else:
        row = frame.iloc[:1].copy()
        row["cell_id"] = {"removed cell": "A:c1", "stranger": "Z:c9", "twice": row["cell_id"].iloc[0]}[change]
        frame = pd.concat([frame, row])
    tables[table] = frame
    with pytest.raises(ContractError, match=("annotation", "calls", "scores")[table - 1]):
        assemble_cells(*tables, primary_scores=["LIM"])


def test_missing_and_colliding_scores_are_all_named():
    qc, annotation, calls, scores = parts()
    with pytest.raises(ContractError) as error:
        assemble_cells(qc, annotation, calls, scores.assign(n_counts=1.0), primary_scores=["NOPE", "n_counts"])
    assert "column NOPE" in str(error.value)
    assert "a signature called n_counts" in str(error.value)


def test_contradicting_calls_are_refused():
    qc, annotation, calls, scores = parts()
    with pytest.raises(ContractError, match="is_dtc"):
        assemble_cells(qc, annotation, calls.assign(is_dtc=False), scores, primary_scores=[])
    with pytest.raises(ContractError, match="'maybe'"):
        assemble_cells(qc, annotation, calls.assign(malignant_call="maybe"), scores, primary_scores=[])


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20])
def test_all_sizes_and_nothing_passed(n):
    qc, annotation, calls, scores = parts((False,) * n, ("marrow",) * n)
    cells = assemble_cells(qc, annotation, calls, scores, primary_scores=["LIM"])
    assert len(cells) == n
    assert set(cells["malignant_call"]) <= {"indeterminate"}
    assert not cells["is_dtc"].any()
    assert set(TABLES["cells"]) <= set(cells.columns)


# --- object ----------------------------------------------------------------------------------------------------------


def test_cohort_holds_everything_and_survives_the_file(tmp_path):
    embedded, cells, cnv = cohort_parts()
    provenance = {"a/b": {"x": None, "mixed": [1, "two", None]}, "seed": 3}
    cohort = assemble_cohort(embedded, cells, [cnv[:2].copy(), cnv[3:].copy()], provenance=provenance)
    write_stage(cohort, tmp_path / "c.h5ad", "cohort")
    again = read_stage(tmp_path / "c.h5ad", "cohort")
    assert json.loads(again.uns["provenance"]) == provenance
    x = again.obsm[X_CNV]
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[[0, 1, 3, 4, 5]], cnv.obsm[X_CNV][[0, 1, 3, 4, 5]])
    assert np.isnan(x[2]).all()
    pd.testing.assert_frame_equal(
        again.uns["cnv_windows"].astype(str).reset_index(drop=True), WINDOWS.astype(str), check_dtype=False
    )
    assert again.obs["is_dtc"].dtype == bool
    assert again.obs["is_dtc"].sum() == 1
    assert again.obs["cell_type"].astype(str).unique().tolist() == ["T_NK"]
    assert again.obs["input_cell_type"].astype(str).unique().tolist() == ["author label"]
    assert again.obs["PECE"].isna().all()
    assert {"batch", "platform", "leiden", "LIM"} <= set(again.obs.columns)
    np.testing.assert_array_equal(again.layers[COUNTS].toarray(), embedded.layers[COUNTS].toarray())


def test_rows_follow_the_cell_ids_not_the_order():
    embedded, cells, cnv = cohort_parts()
    shuffled = assemble_cohort(
        embedded, cells.iloc[::-1], [cnv[[5, 0, 3, 1, 4, 2]].copy()], provenance={}
    )  # fmt: skip
    np.testing.assert_array_equal(shuffled.obsm[X_CNV], cnv.obsm[X_CNV].astype(np.float32))
    assert shuffled.obs["LIM"].tolist() == cells["LIM"].tolist()


def test_sparse_windows_and_a_patient_without_any():
    embedded, cells, cnv = cohort_parts()
    first, second = cnv[:3].copy(), cnv[3:].copy()
    first.obsm[X_CNV] = sp.csr_matrix(first.obsm[X_CNV])
    second.obsm[X_CNV] = np.zeros((3, 0))
    second.uns["cnv_windows"] = WINDOWS.iloc[:0]
    cohort = assemble_cohort(embedded, cells, iter([second, first]), provenance={})
    assert cohort.obsm[X_CNV].shape == (6, 2)
    assert np.isnan(cohort.obsm[X_CNV]).all(axis=1).tolist() == [False] * 3 + [True] * 3


def test_infercnvpy_draws_its_heatmap_from_the_file(tmp_path):
    import matplotlib as mpl

    mpl.use("Agg")
    import infercnvpy
    import matplotlib.pyplot as plt

    n, chromosomes = 20, [f"chr{i}" for i in (1, 2, 10, 21)]
    layout = pd.DataFrame({"chromosome": np.repeat(chromosomes, 3), "start": range(12), "end": range(1, 13)})
    embedded, cells, cnv = cohort_parts(n, n_windows=2)
    cnv.obsm[X_CNV] = np.random.default_rng(0).normal(size=(n, 12)).astype(np.float32)
    cnv.uns["cnv_windows"] = layout.assign(arm="1p")
    # one cell without windows
    write_stage(assemble_cohort(embedded, cells, [cnv[1:].copy()], provenance={}), tmp_path / "c.h5ad", "cohort")
    cohort = read_stage(tmp_path / "c.h5ad", "cohort")
    starts = {name: int(first) for name, first in cohort.uns["cnv"]["chr_pos"].items()}
    assert starts == {"chr1": 0, "chr2": 3, "chr10": 6, "chr21": 9}
    axes = infercnvpy.pl.chromosome_heatmap(cohort, groupby="compartment", show=False)
    assert axes["heatmap_ax"].images[0].get_array().shape == (n, 12)
    labels = [text.get_text() for axis in axes.values() for text in axis.texts]
    assert set(chromosomes) <= set(labels)
    plt.close("all")


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20])
def test_no_windows_at_all_in_every_size(n, tmp_path):
    embedded, cells, cnv = cohort_parts(n, n_windows=0)
    cohort = assemble_cohort(embedded, cells, [cnv], provenance={})
    assert cohort.obsm[X_CNV].shape == (n, 0)
    write_stage(cohort, tmp_path / "c.h5ad", "cohort")
    again = read_stage(tmp_path / "c.h5ad", "cohort")
    assert again.obsm[X_CNV].shape == (n, 0)
    assert len(again.uns["cnv_windows"]) == 0
    assert assemble_cohort(embedded, cells, [], provenance={}).obsm[X_CNV].shape == (n, 0)


def test_disagreeing_parts_are_refused():
    embedded, cells, cnv = cohort_parts()
    with pytest.raises(ContractError, match="A:c0"):
        assemble_cohort(embedded, cells.iloc[1:], [], provenance={})
    with pytest.raises(ContractError, match="A:c0"):
        assemble_cohort(embedded[1:].copy(), cells, [], provenance={})
    with pytest.raises(ContractError, match="another patient"):
        assemble_cohort(embedded, cells, [cnv, cnv[:1].copy()], provenance={})
    stranger = cnv.copy()
    stranger.obs_names = ["Z:c9", *stranger.obs_names[1:]]
    with pytest.raises(ContractError, match="Z:c9"):
        assemble_cohort(embedded, cells, [stranger], provenance={})
    wrong = embedded.copy()
    wrong.obs["patient_id"] = "P2"
    with pytest.raises(ContractError, match="patient_id"):
        assemble_cohort(wrong, cells, [], provenance={})


def ambient_parts(embedded):
    """Corrected counts of the two samples, genes and cells in another order."""
    for sample in ("B", "A"):
        rows = embedded[embedded.obs["sample_id"] == sample, ["G3", "G1"]]
        part = ad.AnnData(obs=pd.DataFrame(index=rows.obs_names[::-1]), var=pd.DataFrame(index=rows.var_names))
        part.layers["ambient_corrected"] = sp.csr_matrix(rows.layers[COUNTS].toarray()[::-1] / 2)
        part.uns["ambient"] = {"status": "corrected", "soup": "pooled cells", "n_borrowed": np.int64(sample == "B")}
        yield part


def test_corrected_counts_are_a_layer_beside_the_counts(tmp_path):
    embedded, cells, cnv = cohort_parts(5)
    cohort = assemble_cohort(embedded, cells, [cnv], provenance={}, ambient=ambient_parts(embedded))
    expected = embedded.layers[COUNTS].toarray() / 2
    expected[:, 1] = 0  # a gene that no sample's file holds
    np.testing.assert_array_equal(cohort.layers["ambient_corrected"].toarray(), expected)
    assert (cohort.layers[COUNTS] != embedded.layers[COUNTS]).nnz == 0
    assert json.loads(cohort.uns["ambient"])["B"] == {"n_borrowed": 1, "soup": "pooled cells", "status": "corrected"}
    write_stage(cohort, tmp_path / "cohort.h5ad", "cohort")
    assert "ambient_corrected" in read_stage(tmp_path / "cohort.h5ad", "cohort").layers
    assert "ambient_corrected" not in assemble_cohort(embedded, cells, [cnv], provenance={}).layers


def test_corrected_counts_of_other_cells_or_genes_are_refused():
    embedded, cells, cnv = cohort_parts(5)
    with pytest.raises(ContractError, match="5 passed QC"):
        assemble_cohort(embedded, cells, [cnv], provenance={}, ambient=list(ambient_parts(embedded))[:1])
    part = next(ambient_parts(embedded))
    part.var_names = ["G3", "other"]
    with pytest.raises(ContractError, match="gene 'other' is not in the cohort"):
        assemble_cohort(embedded, cells, [cnv], provenance={}, ambient=[part])
    part.obs_names = [f"Z:{i}" for i in range(part.n_obs)]
    with pytest.raises(ContractError, match="cell 'Z:0' is not in the cohort"):
        assemble_cohort(embedded, cells, [cnv], provenance={}, ambient=[part])


def test_other_windows_are_refused():
    embedded, cells, cnv = cohort_parts()
    first, second = cnv[:3].copy(), cnv[3:].copy()
    second.uns["cnv_windows"] = WINDOWS.assign(end=[9, 9])
    with pytest.raises(ContractError, match="windows"):
        assemble_cohort(embedded, cells, [first, second], provenance={})
    second.uns["cnv_windows"] = WINDOWS.iloc[:1]
    with pytest.raises(ContractError, match="1 rows"):
        assemble_cohort(embedded, cells, [second], provenance={})
