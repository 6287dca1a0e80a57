"""Scrublet without dense matrices, in parts of bounded size, with exact neighbours.

The method is Scrublet's (Wolock 2019, PMID 30954476), step by step as scanpy implements it: variable genes, simulated
doublets, counts per million of these genes, z-scores, 30 principal components, the share of simulated doublets among
the nearest neighbours. scanpy holds cells and simulated doublets as dense matrices of all variable genes (measured:
0.25 MB a cell), and takes approximate neighbours of many cells, which fails with some versions and differs between
machines. Here centring stays implicit, so that nothing dense but the components is held.

A larger sample is scored in parts of equal size, drawn at random without replacement: every part is a sample of
:data:`MAX_PART` cells at most with the same composition, and one threshold is found for all of them.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.sparse import cells_per_gene

Floats = npt.NDArray[np.float64]

logger = logging.getLogger(__name__)

MAX_PART: Final = 20_000
"""Most cells that are compared with each other; time grows with the square of it, memory in proportion."""
N_COMPONENTS: Final = 30
SIMULATED_PER_CELL: Final = 2.0
MIN_GENE_CELLS: Final = 3
_QUERIES: Final = 2_048


def scrublet_scores(
    counts: sp.csr_matrix,
    *,
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
    rate: float,
    seed: int,
    max_part: int = MAX_PART,
) -> tuple[Floats, float | None]:
    """Doublet score of the chosen cells and the automatic threshold.

    Parameters
    ----------
    counts
        Raw counts, cells x genes.
    rows, columns
        Cells and genes to use, in an order that does not depend on that of the input.
    rate
        Expected share of doublets.
    seed
        Seed of the parts, the simulated doublets and the principal components.
    max_part
        Most cells of a part.

    Returns
    -------
    ``(scores, threshold)``: scores in the order of ``rows``; the threshold is the minimum between the two modes of the
    simulated doublets' scores, None where there is no such minimum.

    Raises
    ------
    ValueError
        When a part has too few cells or variable genes for the principal components.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    scores = np.full(rows.size, np.nan)
    simulated: list[Floats] = []
    parts = split(rows.size, max_part=max_part, seed=seed)
    # sums over cells are taken in one order only when one thread takes them
    with threadpool_limits(limits=1):
        for number, part in enumerate(parts):
            scores[part], of_simulated = _score_part(sp.csr_matrix(counts[rows[part]][:, columns]), rate, seed)
            simulated.append(of_simulated)
            if len(parts) > 1:
                logger.info("Scrublet: part %d of %d (%d cells)", number + 1, len(parts), part.size)
    return scores, automatic_threshold(np.concatenate(simulated))


def split(n: int, *, max_part: int, seed: int) -> list[npt.NDArray[np.intp]]:
    """Positions 0..n-1 in as few random parts of equal size (give or take one) as ``max_part`` allows, each sorted."""
    n_parts = max(1, -(-n // max_part))
    order = np.arange(n) if n_parts == 1 else np.random.default_rng(seed).permutation(n)
    return [np.sort(part) for part in np.array_split(order, n_parts)]


def automatic_threshold(simulated: Floats) -> float | None:
    """Minimum between the two modes of the simulated doublets' scores, or None."""
    from skimage.filters import threshold_minimum

    try:
        return float(threshold_minimum(simulated))
    except RuntimeError:  # the histogram has one mode, or more than two
        return None


def _score_part(counts: sp.csr_matrix, rate: float, seed: int) -> tuple[Floats, Floats]:
    """Scores of the observed cells and of the simulated doublets of one part."""
    from sklearn.decomposition import PCA

    variable = sp.csr_matrix(counts[:, _variable_genes(counts)], dtype=np.float64)
    simulated = _simulate(variable, seed)
    observed, simulated = _per_million(variable), _per_million(simulated)
    n = observed.shape[0]
    mean = np.asarray(observed.mean(axis=0)).ravel()
    square = np.asarray(observed.multiply(observed).mean(axis=0)).ravel()
    sd = np.sqrt(np.maximum(square - mean**2, 0.0) * n / max(n - 1, 1))
    scale = sp.diags(np.divide(1.0, sd, out=np.ones_like(sd), where=sd > 0))
    observed, simulated = sp.csr_matrix(observed @ scale), sp.csr_matrix(simulated @ scale)
    model = PCA(n_components=N_COMPONENTS, svd_solver="arpack", random_state=seed).fit(observed)
    components, centre = model.components_.T, model.mean_ @ model.components_.T
    place = np.vstack([observed @ components, simulated @ components]) - centre
    return _neighbour_scores(place, n, rate)


def _variable_genes(counts: sp.csr_matrix) -> npt.NDArray[np.intp]:
    """Genes whose dispersion stands out among genes of the same mean, by scanpy's default."""
    import anndata as ad
    import scanpy as sc

    seen = np.flatnonzero(cells_per_gene(counts) >= MIN_GENE_CELLS)
    adata = ad.AnnData(sp.csr_matrix(counts[:, seen], dtype=np.float32))
    adata.obs_names = pd.Index([str(i) for i in range(adata.n_obs)])
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata)
    return np.asarray(seen[adata.var["highly_variable"].to_numpy(bool)])


def _simulate(counts: sp.csr_matrix, seed: int) -> sp.csr_matrix:
    """Sums of random pairs of cells; no pair is drawn twice."""
    import anndata as ad
    import scanpy as sc

    names = pd.Index([str(i) for i in range(counts.shape[0])])
    drawn = sc.pp.scrublet_simulate_doublets(
        ad.AnnData(counts, obs=pd.DataFrame(index=names)), sim_doublet_ratio=SIMULATED_PER_CELL, random_seed=seed
    )
    matrix: Any = drawn.X
    return sp.csr_matrix(matrix)


def _per_million(counts: sp.csr_matrix) -> sp.csr_matrix:
    totals = np.asarray(counts.sum(axis=1)).ravel()
    return sp.csr_matrix(sp.diags(np.divide(1e6, totals, out=np.zeros_like(totals), where=totals > 0)) @ counts)


def _neighbour_scores(place: Floats, n: int, rate: float) -> tuple[Floats, Floats]:
    """Scrublet's likelihood of being a doublet, from the share of simulated ones among the neighbours."""
    from sklearn.neighbors import NearestNeighbors

    ratio = (len(place) - n) / n
    k = round(round(0.5 * np.sqrt(n)) * (1 + ratio))
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(place)
    found = np.empty(len(place))
    for start in range(0, len(place), _QUERIES):
        nearest = search.kneighbors(place[start : start + _QUERIES], return_distance=False)
        found[start : start + _QUERIES] = (nearest >= n).sum(axis=1)
    found[n:] -= 1  # itself, its own nearest neighbour
    q = (found + 1) / (k + 2)
    score = q * rate / ratio / (1 - rate - q * (1 - rate - rate / ratio))
    return score[:n], score[n:]
