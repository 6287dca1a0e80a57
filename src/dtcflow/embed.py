"""The picture of a cohort: normalisation, variable genes, PCA, neighbours, UMAP and Leiden clusters.

The picture never decides anything: copy number, scores and tests read the uncorrected counts. Clusters are used
to draw, and to lend a label to cells that carry none of their own (:mod:`dtcflow.annotate`).

Everything here is computed on cells sorted by ``cell_id`` and genes sorted by symbol, with one thread, and put back
into the caller's order afterwards: the result depends neither on the order of samples, cells or genes nor on the
number of processor cores.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.contracts import COUNTS, LOGNORM
from dtcflow.genes import gene_mask
from dtcflow.merge import merge_samples
from dtcflow.scores.calibrated import log_normalise

__all__ = ["cluster_stability", "embed_cohort", "merge_samples", "most_stable", "single_thread"]

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]

MIN_CELLS: Final = 10
"""Fewer cells than this have no neighbourhoods to speak of: the embedding is NaN and the status says so."""
MIN_GENES: Final = 10
MIN_CELLS_PER_BATCH: Final = 50
"""A batch with fewer cells takes no part in choosing variable genes and is no reason to run Harmony."""
MIN_CELLS_PER_GENE: Final = 3
MIN_SHARED_GENES: Final = 200
"""With this many genes measured in all samples no others are used: a gene that was not measured is not a difference."""
UMAP_EPOCHS: Final = 200
LEIDEN_ITERATIONS: Final = 2
SUBSAMPLE: Final = 0.9
MAX_SILHOUETTE_CELLS: Final = 3000
STABILITY_COLUMNS: Final = ("resolution", "n_clusters", "ari_mean", "ari_sd", "silhouette")


# ---------------------------------------------------------------------------------------------------------------------
# Embedding
# ---------------------------------------------------------------------------------------------------------------------


def embed_cohort(
    adata: ad.AnnData, *, settings: Mapping[str, Any], seed: int, n_stability_runs: int = 10
) -> ad.AnnData:
    """Normalise, embed and cluster the cells of a cohort.

    Variable genes are chosen within batches (scanpy's Seurat flavour), so that a gene that differs only between
    batches does not lead. UMAP (Becht et al. 2019, doi:10.1038/nbt.4314) starts from the first two principal
    components: an informative start is what keeps the global arrangement (Kobak & Linderman 2021,
    doi:10.1038/s41587-020-00809-z). Clusters are Leiden communities (Traag et al. 2019, PMID 30914743). Neighbours are
    exact: time grows with the square of the number of cells, memory does not.

    Parameters
    ----------
    adata
        Result of :func:`merge_samples`.
    settings
        Section ``embedding`` of the configuration: ``n_top_genes``, ``exclude_receptor_genes``, ``n_pcs``,
        ``n_neighbors``, ``harmony``, ``resolutions``.
    seed
        Seed of every random step.
    n_stability_runs
        Clusterings of 90 % of the cells per resolution, for the stability table.

    Returns
    -------
    AnnData
        Stage ``embedding``. ``layers``: ``counts`` (not copied), ``lognorm`` (CSR float32, log1p of counts per
        10,000; shares the index arrays of ``counts``). ``obsm``: ``X_pca`` (cells x PCs), ``X_umap`` (cells x 2),
        with Harmony also ``X_pca_harmony``; float32. ``obs``: ``leiden_r<resolution>`` and ``leiden``, the most stable
        of them with more than one cluster. ``obsp``: ``connectivities``. ``uns``: ``embedding_status`` (``"ok"``, else
        why it was not computed; then embeddings are NaN and the only cluster is ``"0"``), ``embedding`` (what was
        used) and ``leiden_stability``.
    """
    counts = sp.csr_matrix(adata.layers[COUNTS], dtype=np.float32)
    if not counts.has_sorted_indices:
        counts = counts.sorted_indices()  # the layers share these arrays: they must not be sorted one without the other
    result = ad.AnnData(
        X=None,
        obs=adata.obs.copy(),
        var=adata.var.copy(),
        layers={COUNTS: counts, LOGNORM: log_normalise(counts)},
    )
    if "in_all_samples" not in result.var:
        result.var["n_samples"], result.var["in_all_samples"] = 1, True
    cell_order = np.argsort(np.asarray(result.obs_names, dtype=str), kind="stable")
    gene_order = np.argsort(np.asarray(result.var_names, dtype=str), kind="stable")
    resolutions = [float(resolution) for resolution in settings["resolutions"]]
    batch = result.obs["batch"].astype(str).to_numpy()
    status, eligible = _eligible(result, exclude_receptor_genes=bool(settings["exclude_receptor_genes"]))
    if status != "ok":
        log.warning("No embedding: %s", status)
        return _without_embedding(result, status, resolutions, n_pcs=int(settings["n_pcs"]), seed=seed)
    genes = gene_order[eligible[gene_order]]
    with single_thread():
        work = ad.AnnData(
            X=sp.csr_matrix(result.layers[LOGNORM])[cell_order][:, genes],
            obs=pd.DataFrame({"batch": batch[cell_order]}, index=cell_order.astype(str)),
            var=pd.DataFrame(index=genes.astype(str)),
        )
        batches = _large_batches(work.obs["batch"])
        variable = _variable_genes(work, n_top=int(settings["n_top_genes"]), batches=batches)
        pca, loadings, ratio = _principal_components(work.X[:, variable], n_pcs=int(settings["n_pcs"]), seed=seed)
        basis = {"X_pca": pca}
        if settings["harmony"] and len(batches) > 1:
            basis["X_pca_harmony"] = _harmony(pca, work.obs, seed=seed)
        display = list(basis)[-1]
        connectivities = _neighbours(work, basis[display], n_neighbors=int(settings["n_neighbors"]), seed=seed)
        umap = _umap(work, basis[display], seed=seed)
        clusters, stability = cluster_stability(
            connectivities, basis[display], resolutions=resolutions, seed=seed, n_runs=n_stability_runs
        )
    rank = np.empty_like(cell_order)
    rank[cell_order] = np.arange(cell_order.size)
    for key, values in {**basis, "X_umap": umap}.items():
        result.obsm[key] = np.ascontiguousarray(values[rank], dtype=np.float32)
    result.obsp["connectivities"] = sp.csr_matrix(connectivities[rank][:, rank])
    chosen = genes[variable]
    result.var["highly_variable"] = np.isin(np.arange(result.n_vars), chosen)
    result.varm["PCs"] = np.zeros((result.n_vars, pca.shape[1]), dtype=np.float32)
    result.varm["PCs"][chosen] = loadings
    for resolution, labels in zip(resolutions, clusters, strict=True):
        result.obs[_key(resolution)] = _as_categories(labels[rank])
    best = most_stable(stability)
    result.obs["leiden"] = result.obs[_key(best)].copy()
    result.uns |= {
        "embedding_status": "ok",
        "leiden_stability": stability,
        "embedding": {
            "seed": seed,
            "n_cells": result.n_obs,
            "n_highly_variable": int(chosen.size),
            "n_pcs": pca.shape[1],
            "variance_ratio": ratio,
            "basis": display,
            "batches": ";".join(batches) if len(batches) > 1 else "",
            "resolution": best,
        },
    }
    return result


@contextmanager
def single_thread() -> Iterator[None]:
    """Run BLAS, OpenMP and numba with one thread: sums in another order round differently."""
    import numba
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    before = numba.get_num_threads()
    with threadpool_limits(limits=1):
        numba.set_num_threads(1)
        try:
            yield
        finally:
            numba.set_num_threads(before)


def _key(resolution: float) -> str:
    return f"leiden_r{resolution}"


def _as_categories(labels: Integers) -> pd.Categorical:
    return pd.Categorical(labels.astype(str), categories=[str(i) for i in range(int(labels.max(initial=-1)) + 1)])


def _eligible(adata: ad.AnnData, *, exclude_receptor_genes: bool) -> tuple[str, npt.NDArray[np.bool_]]:
    """Status, and the genes that may be variable genes: detected, and not those of one clone or one lineage."""
    n_detected = np.bincount(adata.layers[COUNTS].indices, minlength=adata.n_vars)
    eligible = n_detected >= MIN_CELLS_PER_GENE
    shared = eligible & adata.var["in_all_samples"].to_numpy(dtype=bool)
    eligible = shared if shared.sum() >= MIN_SHARED_GENES else eligible
    if exclude_receptor_genes:
        for kind in ("immunoglobulin", "tcr", "haemoglobin"):
            eligible &= ~np.asarray(gene_mask(adata.var_names, kind), dtype=bool)
    if adata.n_obs < MIN_CELLS:
        return f"not computed: {adata.n_obs} cells, at least {MIN_CELLS} are needed", eligible
    if eligible.sum() < MIN_GENES:
        return (
            f"not computed: {int(eligible.sum())} genes detected in {MIN_CELLS_PER_GENE} cells or more, "
            f"at least {MIN_GENES} are needed"
        ), eligible
    return "ok", eligible


def _without_embedding(
    adata: ad.AnnData, status: str, resolutions: Sequence[float], *, n_pcs: int, seed: int
) -> ad.AnnData:
    """A complete object that says why there is no embedding."""
    n = adata.n_obs
    adata.obsm["X_pca"] = np.full((n, n_pcs), np.nan, dtype=np.float32)
    adata.obsm["X_umap"] = np.full((n, 2), np.nan, dtype=np.float32)
    adata.obsp["connectivities"] = sp.csr_matrix((n, n), dtype=np.float32)
    adata.var["highly_variable"] = False
    for key in (*map(_key, resolutions), "leiden"):
        adata.obs[key] = pd.Categorical(["0"] * n, categories=["0"])
    stability = pd.DataFrame({"resolution": resolutions, "n_clusters": int(n > 0)})
    adata.uns |= {
        "embedding_status": status,
        "leiden_stability": stability.reindex(columns=list(STABILITY_COLUMNS)).astype({"ari_mean": float}),
        "embedding": {"seed": seed, "n_cells": n, "n_highly_variable": 0, "n_pcs": 0, "basis": "", "batches": ""},
    }
    return adata


def _large_batches(batch: pd.Series) -> list[str]:
    sizes = batch.value_counts()
    return sorted(str(name) for name, size in sizes.items() if size >= MIN_CELLS_PER_BATCH)


def _variable_genes(work: ad.AnnData, *, n_top: int, batches: Sequence[str]) -> Integers:
    """Positions of the variable genes in ``work``, ascending."""
    import scanpy as sc

    if work.n_vars <= n_top:
        return np.arange(work.n_vars)
    by_batch = len(batches) > 1
    cells = work[work.obs["batch"].isin(list(batches))].copy() if by_batch else work
    if by_batch:
        cells.obs["batch"] = pd.Categorical(cells.obs["batch"], categories=list(batches))
    table = sc.pp.highly_variable_genes(
        cells, flavor="seurat", n_top_genes=n_top, batch_key="batch" if by_batch else None, inplace=False
    )
    return np.flatnonzero(table.loc[work.var_names, "highly_variable"].to_numpy(dtype=bool))


def _principal_components(matrix: sp.csr_matrix, *, n_pcs: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Scores (cells x PCs), loadings (genes x PCs), share of variance; each component's largest loading is positive."""
    from sklearn.decomposition import PCA

    n_pcs = min(n_pcs, min(matrix.shape) - 1)
    model = PCA(n_components=n_pcs, svd_solver="arpack", random_state=seed)
    scores = model.fit_transform(sp.csr_matrix(matrix, dtype=np.float64))
    largest = np.abs(model.components_).argmax(axis=1)
    sign = np.where(model.components_[np.arange(n_pcs), largest] < 0, -1.0, 1.0)
    loadings = (model.components_ * sign[:, None]).T
    return (scores * sign).astype(np.float32), loadings.astype(np.float32), model.explained_variance_ratio_


def _harmony(pca: Floats, obs: pd.DataFrame, *, seed: int) -> Floats:
    """Principal components without batch differences (Korsunsky et al. 2019, doi:10.1038/s41592-019-0619-0)."""
    import harmonypy

    model = harmonypy.run_harmony(pca.astype(np.float64), obs, ["batch"], random_state=seed, verbose=False, ncores=1)
    corrected = np.asarray(model.Z_corr)
    # older releases return PCs x cells; there are always more cells than PCs
    corrected = corrected if corrected.shape[0] == pca.shape[0] else corrected.T
    return corrected.astype(np.float32)


def _neighbours(work: ad.AnnData, basis: Floats, *, n_neighbors: int, seed: int) -> sp.csr_matrix:
    """Symmetric UMAP weights of the exact nearest neighbours (cells x cells); kept in ``work`` for the layout."""
    import scanpy as sc
    from sklearn.neighbors import KNeighborsTransformer

    # scanpy's own choice for many cells, pynndescent, fails with scanpy 1.12 and needs a compiler at first use
    n_neighbors = min(n_neighbors, work.n_obs - 1)
    transformer = KNeighborsTransformer(n_neighbors=n_neighbors, algorithm="brute", n_jobs=1)
    work.obsm["basis"] = basis
    sc.pp.neighbors(
        work, n_neighbors=n_neighbors, use_rep="basis", transformer=transformer, method="umap", random_state=seed
    )
    weights = sp.csr_matrix(work.obsp["connectivities"], dtype=np.float32)
    weights.sort_indices()
    return weights


def _umap(work: ad.AnnData, basis: Floats, *, seed: int) -> Floats:
    import scanpy as sc

    start = basis[:, :2] if basis.shape[1] > 1 else np.column_stack([basis[:, 0], np.zeros(len(basis))])
    sc.tl.umap(work, init_pos=np.ascontiguousarray(start, dtype=np.float32), maxiter=UMAP_EPOCHS, random_state=seed)
    return np.asarray(work.obsm["X_umap"])


# ---------------------------------------------------------------------------------------------------------------------
# Clusters and their stability
# ---------------------------------------------------------------------------------------------------------------------


def cluster_stability(
    connectivities: sp.csr_matrix, basis: Floats, *, resolutions: Sequence[float], seed: int, n_runs: int = 10
) -> tuple[list[Integers], pd.DataFrame]:
    """Leiden clusters at each resolution, and how far they come back when a tenth of the cells is left out.

    Parameters
    ----------
    connectivities
        Symmetric weights, cells x cells.
    basis
        Coordinates the silhouette is measured in, cells x dimensions.
    resolutions
        Leiden (modularity) resolutions.
    seed
        The same sub-samples are drawn for every resolution.
    n_runs
        Number of sub-samples of 90 % of the cells.

    Returns
    -------
    tuple
        Labels per resolution (``0`` is the largest cluster) and a table: ``resolution``, ``n_clusters``, mean and SD
        over sub-samples of the adjusted Rand index against the clusters of all cells, mean ``silhouette`` width (on at
        most 3,000 cells; NaN with a single cluster).
    """
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    n = connectivities.shape[0]
    rng = np.random.default_rng(seed)
    subsets = [np.sort(rng.permutation(n)[: max(1, round(SUBSAMPLE * n))]) for _ in range(n_runs)]
    shown = np.sort(rng.permutation(n)[:MAX_SILHOUETTE_CELLS])
    graph = _graph(connectivities)
    parts = [graph.induced_subgraph(subset.tolist()) for subset in subsets]
    clusters, rows = [], []
    for resolution in resolutions:
        labels = _leiden(graph, resolution, seed)
        agreement = [
            adjusted_rand_score(labels[subset], _leiden(part, resolution, seed + 1 + run))
            for run, (subset, part) in enumerate(zip(subsets, parts, strict=True))
        ]
        n_shown = len(np.unique(labels[shown]))
        silhouette = silhouette_score(basis[shown], labels[shown]) if 1 < n_shown < shown.size else np.nan
        clusters.append(labels)
        rows.append(
            {
                "resolution": float(resolution),
                "n_clusters": int(labels.max()) + 1,
                "ari_mean": float(np.mean(agreement)) if agreement else np.nan,
                "ari_sd": float(np.std(agreement, ddof=1)) if len(agreement) > 1 else np.nan,
                "silhouette": float(silhouette),
            }
        )
    return clusters, pd.DataFrame(rows, columns=list(STABILITY_COLUMNS))


def most_stable(stability: pd.DataFrame) -> float:
    """The resolution with the largest mean adjusted Rand index among those with more than one cluster.

    A single cluster always comes back and says nothing. Ties, and tables without any index, go to the first row.
    """
    several = stability[stability["n_clusters"] > 1]
    rows = several if len(several) else stability
    score = rows["ari_mean"].fillna(-np.inf).to_numpy(dtype=float)
    return float(rows["resolution"].iloc[int(np.argmax(score))])


def _graph(connectivities: sp.csr_matrix) -> Any:
    import igraph

    upper = sp.triu(connectivities, k=1, format="csr").tocoo()
    edges = np.column_stack([upper.row, upper.col])
    graph = igraph.Graph(n=connectivities.shape[0], edges=edges.tolist(), directed=False)
    graph.es["weight"] = upper.data.astype(float).tolist()
    return graph


def _leiden(graph: Any, resolution: float, seed: int) -> Integers:
    """Leiden communities, numbered by size (largest first), then by their first cell."""
    import igraph

    igraph.set_random_number_generator(random.Random(seed))
    try:
        partition = graph.community_leiden(
            objective_function="modularity", weights="weight", resolution=resolution, n_iterations=LEIDEN_ITERATIONS
        )
    finally:
        igraph.set_random_number_generator(random)
    labels = np.asarray(partition.membership, dtype=np.int64)
    _, first, inverse, size = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -size))
    number = np.empty_like(order)
    number[order] = np.arange(order.size)
    return number[inverse]
