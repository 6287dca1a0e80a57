"""A tiny genome with planted arm changes, shared by the copy-number tests."""

from __future__ import annotations

from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

GENES_PER_ARM = 60
ARMS = [f"{chromosome}{arm}" for chromosome in range(1, 11) for arm in "pq"]
TYPES = ("T_NK", "B", "monocyte")


@dataclass
class Planted:
    """Cells of one patient: three normal types, tumour cells with a known karyotype."""

    adata: ad.AnnData
    cells: pd.DataFrame
    tumour: np.ndarray
    gains: tuple[str, ...]
    losses: tuple[str, ...]


def gene_table() -> pd.DataFrame:
    rows = []
    for a, arm in enumerate(ARMS):
        for g in range(GENES_PER_ARM):
            start = 1_000_000 + (a % 2) * 100_000_000 + g * 100_000
            rows.append((f"G{arm}x{g}", f"chr{arm[:-1]}", start, start + 5000, arm))
    var = pd.DataFrame(rows, columns=["symbol", "chromosome", "start", "end", "arm"])
    var["gene_id"] = [f"ENSG{i:011d}" for i in range(len(var))]
    var["in_all_samples"] = True
    var.index = pd.Index(var["symbol"].to_numpy(dtype=object))
    return var


def make_patient(
    *,
    n_normal: int = 80,
    n_marrow_tumour: int = 12,
    n_primary_tumour: int = 40,
    depth: int = 3000,
    gains: tuple[str, ...] = ("1q", "3q", "8q"),
    losses: tuple[str, ...] = ("2q", "6q", "9p"),
    seed: int = 0,
) -> Planted:
    rng = np.random.default_rng(seed)
    var = gene_table()
    base = rng.lognormal(0, 1.0, len(var))
    profiles = {t: base * rng.lognormal(0, 0.35, len(var)) for t in (*TYPES, "epithelial")}
    dosage = np.ones(len(var))
    dosage[var["arm"].isin(gains)] = 1.45
    dosage[var["arm"].isin(losses)] = 0.58
    blocks, kinds, compartments = [], [], []
    for kind, n, compartment in (
        *((t, n_normal, "marrow") for t in TYPES),
        ("epithelial", n_marrow_tumour, "marrow"),
        ("epithelial", n_primary_tumour, "primary"),
    ):
        mean = profiles[kind] * (dosage if kind == "epithelial" else 1.0)
        mean = mean / mean.sum()
        size = rng.lognormal(np.log(depth), 0.35, n)[:, None]
        blocks.append(rng.poisson(rng.gamma(1 / 0.2, 0.2, (n, len(var))) * mean * size))
        kinds += [kind] * n
        compartments += [compartment] * n
    counts = sp.csr_matrix(np.vstack(blocks).astype(np.float32))
    ids = [f"P1_{c}:c{i:04d}" for i, c in enumerate(compartments)]
    kind_array = np.array(kinds, dtype=object)
    tumour = kind_array == "epithelial"
    cells = pd.DataFrame(
        {
            "cell_id": ids,
            "sample_id": [f"P1_{c}" for c in compartments],
            "patient_id": "P1",
            "compartment": compartments,
            "cell_type": kind_array,
            "epithelial_z": np.where(tumour, 8.0, 0.0),
            "n_epithelial_markers": np.where(tumour, 6, 0),
            "is_doublet": False,
        }
    )
    adata = ad.AnnData(obs=pd.DataFrame(index=pd.Index(ids, dtype=object)), var=var)
    adata.layers["counts"] = counts
    return Planted(adata, cells, tumour, gains, losses)


SETTINGS = {
    "reference_key": None,
    "reference_labels": [],
    "max_reference_per_type": 300,
    "min_reference_cells": 50,
    "min_genes": 500,
    "window_size": 20,
    "step": 5,
    "folds": 5,
    "fdr": 0.05,
    "min_abs_log_ratio": 0.15,
    "tumour_lineage": "epithelial",
}


@pytest.fixture(scope="session")
def planted() -> Planted:
    return make_patient()


@pytest.fixture(scope="session")
def settings() -> dict:
    return dict(SETTINGS)


@pytest.fixture(scope="session")
def inferred(planted: Planted, settings: dict):
    from dtcflow.cnv.run import infer_copy_number

    return infer_copy_number(planted.adata, planted.cells, patient_id="P1", settings=settings, epithelial_z=3.0, seed=1)
