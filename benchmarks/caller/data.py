"""Cells of the caller benchmark: real cells with the authors' labels, and samples made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.genes import load_aliases, load_positions, place_genes

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
DEVELOPMENT = ("11", "13")
"""Patients on which thresholds of the caller were chosen; the others are the test half."""
PATIENTS = ("11", "12", "13", "14")
CARCINOMA = "Epithelial"
NAMES = {
    "T_cell": "T_NK",
    "B_cell": "B",
    "Macrophage": "macrophage",
    "Fibroblast": "fibroblast",
    "Endothelial": "endothelial",
    CARCINOMA: "epithelial",
}
"""The authors' labels in the words of :data:`dtcflow.contracts.CELL_TYPES`."""

Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Objects = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Pool:
    """Real cells to draw samples from: counts, placed genes, and what the authors say of each cell."""

    counts: sp.csr_matrix
    var: pd.DataFrame
    donor: Objects
    kind: Objects

    def __getitem__(self, rows: Integers | Bools) -> Pool:
        return Pool(sp.csr_matrix(self.counts[rows]), self.var, self.donor[rows], self.kind[rows])

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def normals(self) -> Integers:
        """Rows of the normal cells."""
        return np.flatnonzero(self.kind != NAMES[CARCINOMA])

    def carcinoma(self, donor: str) -> Integers:
        """Rows of one patient's carcinoma cells."""
        return np.flatnonzero((self.kind == NAMES[CARCINOMA]) & (self.donor == donor))


def stack(pools: Sequence[Pool]) -> Pool:
    """Cells of several pools over the same genes, one below the other."""
    return Pool(
        sp.csr_matrix(sp.vstack([pool.counts for pool in pools])),
        pools[0].var,
        np.concatenate([pool.donor for pool in pools]),
        np.concatenate([pool.kind for pool in pools]),
    )


def place(names: pd.Index) -> pd.DataFrame:
    """Current symbols and places of genes, as intake gives them."""
    genes = place_genes(pd.DataFrame(index=pd.Index(names.astype(str), dtype=object)), load_positions(), load_aliases())
    genes["in_all_samples"] = True
    return genes


def ovarian(folder: Path = DATA) -> Pool:
    """Four ovarian cancers of Qian et al. 2020 (Cell Res, PMID 32561858), 1,000 cells each."""
    cells = ad.read_h5ad(folder / "ovarian_qian2020_swiftcnv" / "ovarian_qian2020_swiftcnv.h5ad")
    return Pool(
        sp.csr_matrix(cells.X, dtype=np.float32),
        place(cells.var_names),
        cells.obs["sample"].astype(str).to_numpy(dtype=object),
        cells.obs["cell_type"].astype(str).map(NAMES).to_numpy(dtype=object),
    )


def immune(folder: Path = DATA) -> Pool:
    """Normal immune cells of several donors (no labels, no tumour)."""
    cells = ad.read_h5ad(folder / "normal_immune_celltypist_sample" / "normal_immune_celltypist_sample.h5ad")
    n = cells.n_obs
    return Pool(
        sp.csr_matrix(cells.X, dtype=np.float32),
        place(cells.var_names),
        np.full(n, "IMM", dtype=object),
        np.full(n, "unknown", dtype=object),
    )


@dataclass(frozen=True)
class Sample:
    """One sample as the copy-number stage reads it, with the truth beside it."""

    adata: ad.AnnData
    cells: pd.DataFrame
    tumour: Bools
    """Truth per cell."""

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, rows: Integers) -> Sample:
        return Sample(self.adata[rows].copy(), self.cells.iloc[rows].reset_index(drop=True), self.tumour[rows])


REFERENCE = "benchmark_reference"
"""Column that names the reference cells of a design by their type; empty for all other cells."""


def sample_of(pool: Pool, *, reference: Bools | None = None, tumour: Bools | None = None, name: str = "S") -> Sample:
    """Make a sample of a pool's cells; cell ids are numbers in the order of the pool.

    Parameters
    ----------
    pool
        The cells.
    reference
        Cells that a user would name as normal; ``None``: the caller chooses.
    tumour
        Truth; ``None``: the carcinoma cells.
    """
    ids = [f"{name}:c{i:06d}" for i in range(len(pool))]
    cells = pd.DataFrame(
        {
            "cell_id": ids,
            "sample_id": name,
            "patient_id": name,
            "compartment": "marrow",
            "cell_type": pool.kind,
            "epithelial_z": 0.0,
            "n_epithelial_markers": 0,
            "is_doublet": False,
        }
    )
    if reference is not None:
        cells[REFERENCE] = np.where(reference, pool.kind, "")
    adata = ad.AnnData(
        obs=pd.DataFrame({"sample_id": name, "batch": name}, index=pd.Index(ids, dtype=object)), var=pool.var.copy()
    )
    adata.layers["counts"] = sp.csr_matrix(pool.counts, dtype=np.float32)
    truth = pool.kind == NAMES[CARCINOMA] if tumour is None else tumour
    return Sample(adata, cells, np.asarray(truth, dtype=bool))


def thin_to(counts: sp.csr_matrix, total: float, rng: np.random.Generator) -> sp.csr_matrix:
    """Binomial thinning of every cell to ``total`` expected counts; smaller cells stay as they are."""
    sums = np.asarray(counts.sum(axis=1), dtype=float).ravel()
    share = np.minimum(1.0, total / np.maximum(sums, 1.0))
    thinned = sp.csr_matrix(counts, dtype=np.float32, copy=True)
    thinned.data = rng.binomial(thinned.data.astype(np.int64), np.repeat(share, np.diff(thinned.indptr))).astype(
        np.float32
    )
    thinned.eliminate_zeros()
    return thinned
