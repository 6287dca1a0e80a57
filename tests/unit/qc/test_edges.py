"""Every size and every oddity ends in a complete result or a status."""

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
from dtcflow.qc.run import qc_sample
from dtcflow.qc.thresholds import QC_CLASSES
from dtcflow.qc.waterfall import summary_table, waterfall_table

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def complete(adata: ad.AnnData, folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The result of quality control, after it was written and read back as the workflow does."""
    cells, summary = qc_sample(adata, settings={}, epithelial_z_threshold=3.0, seed=1, n_null=50)
    contracts.write_table(cells, folder / "S.tsv.gz", "qc_cells")
    contracts.write_json(folder / "S.json", {"sample_id": "S1", **summary})
    again = contracts.read_table(folder / "S.tsv.gz", "qc_cells")
    summary = json.loads((folder / "S.json").read_text())
    contracts.write_table(waterfall_table([again]), folder / "waterfall.tsv", "qc_waterfall")
    contracts.write_table(summary_table([summary]), folder / "summary.tsv", "qc_summary")
    assert len(again) == adata.n_obs
    assert set(again["qc_class"]) <= set(QC_CLASSES)
    assert ((again["qc_class"] == "poor") == ~again["pass_qc"]).all()
    assert summary["doublets"]["status"]
    assert summary["ambient"]["status"]
    return again, summary


@pytest.fixture(scope="module")
def hundred(marrow) -> ad.AnnData:
    return marrow.draw({"T_NK": 40, "monocyte": 40, "epithelial": 20}, seed=5)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20, 100])
@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_any_number_of_cells(hundred, n: int, form: str, tmp_path: Path) -> None:
    part = hundred[np.linspace(0, 99, n).astype(int)].copy()
    counts = part.layers["counts"]
    part.layers["counts"] = {"csr": counts, "csc": sp.csc_matrix(counts), "dense": counts.toarray()}[form]
    cells, summary = complete(part, tmp_path)
    assert summary["n_cells"] == n
    if 0 < n < 20:
        assert (cells["qc_class"] == "ambiguous").all()
        assert cells["qc_reasons"].str.contains("note:not_judged").all()
    if n >= 20:
        assert not cells["qc_reasons"].str.contains("not_judged").any()
    assert summary["doublets"]["status"].startswith("run" if n == 100 else "not_run")


@pytest.mark.parametrize("n", [1, 5, 100])
def test_nothing_but_zeros(marrow, as_cells, n: int, tmp_path: Path) -> None:
    cells, summary = complete(as_cells(np.zeros((n, len(marrow.genes))), marrow.genes), tmp_path)
    assert (cells["qc_reasons"] == "empty(0 counts)").all()
    assert summary["n_pass"] == 0


def test_empty_cells_and_genes_among_others(hundred, tmp_path: Path) -> None:
    counts = hundred.layers["counts"].tolil(copy=True)
    counts[::10] = 0
    counts[:, ::7] = 0
    holed = hundred.copy()
    holed.layers["counts"] = sp.csr_matrix(counts)
    cells, _ = complete(holed, tmp_path)
    assert (cells["qc_reasons"].iloc[::10] == "empty(0 counts)").all()
    assert cells["pass_qc"].drop(cells.index[::10]).all()


def test_no_genes(tmp_path: Path) -> None:
    identity = {"sample_id": "S1", "patient_id": "P1", "compartment": "marrow", "platform": "droplet"}
    adata = ad.AnnData(
        obs=pd.DataFrame(identity, index=["S1:A", "S1:B"]),
        var=pd.DataFrame({"symbol": pd.Series([], dtype=object)}),
        layers={"counts": sp.csr_matrix((2, 0), dtype=np.float32)},
    )
    cells, _ = complete(adata, tmp_path)
    assert not cells["pass_qc"].any()


def test_one_gene_and_identical_cells(as_cells, tmp_path: Path) -> None:
    cells, _ = complete(as_cells(np.full((60, 1), 7.0), ["KRT8"]), tmp_path)
    assert cells["pass_qc"].all()
    assert (cells["n_counts"] == 7).all()


def test_the_same_cell_a_hundred_times(marrow, as_cells, tmp_path: Path) -> None:
    one = marrow.draw({"T_NK": 1}, seed=1).layers["counts"].toarray()
    cells, _ = complete(as_cells(np.repeat(one, 100, axis=0), marrow.genes), tmp_path)
    assert cells["pass_qc"].all()


@pytest.mark.validation
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets (../shared/data) are absent")
def test_a_panel_of_462_genes(tmp_path: Path) -> None:
    path = next((DATA / "normal_bone_marrow_triana_scuba").glob("*.h5ad"))
    panel = ad.read_h5ad(path)
    identity = {"sample_id": "S1", "patient_id": "P1", "compartment": "marrow", "platform": "droplet"}
    adata = ad.AnnData(
        obs=pd.DataFrame(identity, index=panel.obs_names),
        var=pd.DataFrame({"symbol": panel.var_names}, panel.var_names),
    )
    adata.layers["counts"] = sp.csr_matrix(panel.X, dtype=np.float32)
    cells, summary = complete(adata, tmp_path)
    assert adata.shape == (250, 462)
    assert cells["pct_mt"].isna().all()
    assert any("462 genes" in warning for warning in summary["warnings"])
    assert any("no mitochondrial genes" in warning for warning in summary["warnings"])
    assert cells["pass_qc"].mean() > 0.95
