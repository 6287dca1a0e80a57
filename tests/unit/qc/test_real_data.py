"""Quality control on real samples, which had passed their authors' filters. Labels are never shown to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.io import mmread

from dtcflow.qc.loss_audit import epithelial_evidence
from dtcflow.qc.run import qc_sample

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
pytestmark = [
    pytest.mark.validation,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets (../shared/data) are absent"),
]


def prepare(counts: Any, cells: list[str], genes: list[str]) -> ad.AnnData:
    identity = {"sample_id": "S", "patient_id": "P", "compartment": "primary", "batch": "", "platform": "droplet"}
    adata = ad.AnnData(obs=pd.DataFrame(identity, index=cells), var=pd.DataFrame({"symbol": genes}, index=genes))
    adata.var_names_make_unique()
    adata.layers["counts"] = sp.csr_matrix(counts, dtype=np.float32)
    return adata


def run(adata: ad.AnnData) -> tuple[pd.DataFrame, dict[str, Any]]:
    return qc_sample(adata, settings={}, epithelial_z_threshold=3.0, seed=0)


@pytest.fixture(scope="module")
def ovarian() -> ad.AnnData:
    return ad.read_h5ad(DATA / "ovarian_qian2020_swiftcnv" / "ovarian_qian2020_swiftcnv.h5ad")


@pytest.mark.parametrize("patient", ["11", "12", "13", "14"])
def test_ovarian_tumours_lose_no_cell(ovarian: ad.AnnData, patient: str) -> None:
    part = ovarian[ovarian.obs["sample"].astype(str) == patient]
    cells, summary = run(prepare(part.X, list(part.obs_names), list(part.var_names)))
    assert cells["pass_qc"].all()
    assert summary["doublets"]["status"] == "run"
    assert 0.01 < summary["ambient"]["sample_estimate"] < 0.2
    evidence = epithelial_evidence(cells, epithelial_z=3.0).to_numpy()
    carcinoma = (part.obs["cell_type"] == "Epithelial").to_numpy()
    blood = part.obs["cell_type"].isin(["Macrophage", "T_cell", "B_cell"]).to_numpy()
    # patient 14's carcinoma hardly transcribes keratins or EPCAM
    assert evidence[carcinoma].mean() > (0.2 if patient == "14" else 0.9)
    assert evidence[blood].mean() < 0.05


def test_a_few_thinned_carcinoma_cells_among_blood_cells_all_pass_and_stand_out(ovarian: ad.AnnData) -> None:
    part = ovarian[ovarian.obs["sample"].astype(str) == "13"]
    blood = np.flatnonzero(part.obs["cell_type"].isin(["Macrophage", "T_cell", "B_cell"]))
    carcinoma = np.flatnonzero(part.obs["cell_type"] == "Epithelial")[:20]
    counts = sp.csr_matrix(part.X[np.concatenate([blood, carcinoma])]).astype(int)
    thinned = counts[len(blood) :].copy()
    thinned.data = np.random.default_rng(0).binomial(thinned.data, 0.4)
    names = [f"S:{i}" for i in range(counts.shape[0])]
    cells, _ = run(prepare(sp.vstack([counts[: len(blood)], thinned]), names, list(part.var_names)))
    tumour = cells.iloc[len(blood) :]
    assert tumour["pass_qc"].all()
    assert epithelial_evidence(tumour, epithelial_z=3.0).mean() >= 0.9
    assert epithelial_evidence(cells.iloc[: len(blood)], epithelial_z=3.0).mean() < 0.05


def test_triple_negative_tumour() -> None:
    adata = ad.read_h5ad(DATA / "tnbc_copykat" / "tnbc_copykat.h5ad")
    cells, _ = run(prepare(adata.X, list(adata.obs_names), list(adata.var_names)))
    aneuploid = (adata.obs["copykat_prediction"] == "aneuploid").to_numpy()
    assert cells["pct_mt"].notna().all()
    assert cells.loc[aneuploid, "pass_qc"].mean() >= 0.99
    assert epithelial_evidence(cells, epithelial_z=3.0).to_numpy()[~aneuploid].mean() < 0.02


@pytest.mark.parametrize("number", [1, 2])
def test_normal_breast(number: int) -> None:
    folder = DATA / "breast_normal_10x_scdeconr" / f"sample{number}"
    counts = sp.csr_matrix(mmread(folder / "matrix.mtx.gz")).T
    barcodes = pd.read_csv(folder / "barcodes.tsv.gz", header=None)[0].tolist()
    genes = pd.read_csv(folder / "features.tsv.gz", header=None, sep="\t")[1].tolist()
    labels = pd.read_csv(folder.parent / f"phenodata_sample{number}.txt", sep="\t", index_col=0)
    cells, _ = run(prepare(counts, barcodes, genes))
    epithelial = labels["celltype"].reindex(barcodes).eq("Epithelial cells").to_numpy()
    assert epithelial.sum() == 20
    assert cells.loc[epithelial, "pass_qc"].all()
    assert cells["pass_qc"].mean() > 0.95
