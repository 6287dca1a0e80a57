from __future__ import annotations

from collections.abc import Callable, Mapping

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.scores.signatures import load_markers

MITO = tuple(f"MT-{name}" for name in ("ND1", "ND2", "CO1", "CO2", "ATP6", "CO3", "ND3", "ND4", "CYB"))
RIBO = tuple(f"RPL{i}" for i in (3, 4, 5, 6, 7, 8, 9, 10)) + tuple(f"RPS{i}" for i in (2, 3, 5, 6, 7, 8, 9))
N_FILLER = 4000


def wrap(counts: np.ndarray | sp.spmatrix, genes: list[str], *, sample: str = "S1", **obs: object) -> ad.AnnData:
    """An AnnData as rule read_sample leaves it (only what quality control reads)."""
    matrix = sp.csr_matrix(counts, dtype=np.float32)
    names = pd.Index([f"{sample}:cell{i:05d}" for i in range(matrix.shape[0])])
    identity = {"sample_id": sample, "patient_id": "P1", "compartment": "marrow", "batch": "", "platform": "droplet"}
    frame = pd.DataFrame({**identity, **obs}, index=names)
    adata = ad.AnnData(obs=frame, var=pd.DataFrame({"symbol": genes}, index=pd.Index(genes)))
    adata.layers["counts"] = matrix
    return adata


class Marrow:
    """Simulated cells with known type, depth, mitochondrial share and ambient share."""

    def __init__(self) -> None:
        panels = load_markers()
        markers = sorted({gene for panel in panels.values() for gene in panel.up})
        self.genes = [*markers, *MITO, *RIBO, *(f"FILL{i:04d}" for i in range(N_FILLER))]
        self.mito = np.isin(self.genes, MITO)
        # types differ in most genes a little and in their markers a lot; no marker is all or nothing or like another
        rng = np.random.default_rng(7)
        base = rng.gamma(0.7, 1.0, len(self.genes)) + 1e-3
        base[: len(markers)] = 0.01
        base[self.mito] = 0.0
        self.profiles: dict[str, np.ndarray] = {"plain": base / base.sum()}
        for name, panel in panels.items():
            typical = base * np.exp(rng.normal(0.0, 0.7, base.size))
            own = np.isin(self.genes, panel.up) * rng.gamma(2.0, 1.0, base.size)
            self.profiles[name] = 0.95 * typical / typical.sum() + 0.05 * own / own.sum()

    def draw(
        self,
        cells: Mapping[str, int],
        *,
        counts: float | Mapping[str, float] = 3000.0,
        spread: float = 0.3,
        pct_mt: float | Mapping[str, float] = 4.0,
        ambient: float = 0.0,
        seed: int = 0,
    ) -> ad.AnnData:
        rng = np.random.default_rng(seed)
        types = np.repeat(list(cells), list(cells.values()))
        depth = np.array([counts[t] if isinstance(counts, Mapping) else counts for t in types])
        depth = depth * np.exp(rng.normal(0.0, spread, types.size))
        share = np.array([pct_mt[t] if isinstance(pct_mt, Mapping) else pct_mt for t in types]) / 100
        share = np.clip(share * np.exp(rng.normal(0.0, 0.25, types.size)), 0, 0.95)
        mean = np.vstack([self.profiles[t] for t in types])
        mean = (1 - share)[:, None] * mean + share[:, None] * (self.mito / self.mito.sum())
        soup = (depth[:, None] * mean).sum(axis=0)
        mean = (1 - ambient) * mean + ambient * soup / soup.sum()
        return wrap(rng.poisson(depth[:, None] * mean), self.genes, truth=types)


@pytest.fixture(scope="session")
def marrow() -> Marrow:
    return Marrow()


@pytest.fixture
def as_cells() -> Callable[..., ad.AnnData]:
    return wrap
