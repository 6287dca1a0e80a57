from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp


@pytest.fixture(scope="session")
def cohort() -> Callable[..., tuple[sp.csr_matrix, pd.Index]]:
    """Counts of ``n_cells`` independent gamma-Poisson cells, depth varying fivefold, and gene names in random order."""

    def make(n_cells: int = 200, n_genes: int = 1500, *, seed: int = 0, depth: float = 3000.0):
        rng = np.random.default_rng(seed)
        share = np.exp(np.random.default_rng(99).normal(0, 1.5, n_genes))
        share /= share.sum()
        size = depth * np.exp(rng.uniform(-0.8, 0.8, n_cells))
        counts = rng.poisson(rng.gamma(2.0, size[:, None] * share / 2.0))
        genes = pd.Index([f"G{i:05d}" for i in np.random.default_rng(98).permutation(n_genes)])
        return sp.csr_matrix(counts.astype(np.float32)), genes

    return make
