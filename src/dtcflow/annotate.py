"""Cell types from marker panels, with margins, an "unknown" class and no vote of the crowd on tumour cells.

Each panel is a gene set scored against random sets of genes that are expressed and detected alike
(:mod:`dtcflow.scores.calibrated`), so that a panel of abundant transcripts, or a deep cell, has no head start. "Alike"
is judged mostly in clusters that show little of the panel: in a sample made of one cell type, genes as abundant
as its markers are its markers, and the type would be compared with itself.

A cell is named by its best panel when that panel stands out; otherwise it may borrow the label that its cluster agrees
on. Epithelial cells are the exception: a few disseminated tumour cells sit in clusters of marrow cells, so that neither
is their label overruled by a cluster nor is it ever lent by one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.contracts import COUNTS, EPITHELIAL, HAEMATOPOIETIC_TYPES, LOGNORM, TABLES, UNKNOWN
from dtcflow.genes import gene_mask
from dtcflow.scores.calibrated import MatchedSets, apply_sets, draw_matched_sets
from dtcflow.scores.signatures import GeneSet

log = logging.getLogger(__name__)

Doubles = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]

N_NULL: Final = 250
"""Random sets per panel: their mean and SD are known to a few per cent, enough for a label."""
BACKGROUND_SHARE: Final = 0.25
"""The clusters that show least of a panel, up to this share of all cells, are its background."""
FOREGROUND_WEIGHT: Final = 0.1
"""All other clusters together have this weight: markers that the background lacks altogether keep a level to match."""
MIN_MARKERS: Final = 2
"""Markers a cell must show: one transcript is no identity."""
SOUP_FAMILIES: Final = ("haemoglobin", "immunoglobulin")
"""Families that fill the ambient RNA when red cells or plasma cells burst; they do not count as markers shown."""
CLUSTER_AGREEMENT: Final = 0.8
"""Share of a cluster's named cells that must have the same name for the cluster to lend it."""
CLUSTER_NAMED: Final = 0.3
"""Share of all cells of the cluster that must have this name by themselves."""
MIN_CLUSTER_LABELS: Final = 10
"""A cluster with fewer such cells lends nothing."""
SOURCES: Final = ("cell", "cluster", "none")


def annotate_cells(
    adata: ad.AnnData,
    panels: Mapping[str, GeneSet],
    *,
    settings: Mapping[str, Any],
    seed: int,
    n_null: int = N_NULL,
) -> pd.DataFrame:
    """Name the type of every cell.

    Parameters
    ----------
    adata
        Stage ``embedding``: counts and ``obs["leiden"]``.
    panels
        Marker panel of each cell type (:func:`dtcflow.scores.signatures.load_markers`).
    settings
        Section ``annotation`` of the configuration: ``min_z``, ``min_margin``, ``epithelial_z``.
    seed
        Seed of the random gene sets.
    n_null
        Random gene sets per panel.

    Returns
    -------
    DataFrame
        Table ``annotation``, one row per cell in the order of ``adata``; see :func:`label_cells` for the columns.
    """
    clusters = adata.obs["leiden"].astype(str).to_numpy(dtype=object)
    z = panel_z(adata, panels, clusters=clusters, seed=seed, n_null=n_null)
    computed = str(adata.uns.get("embedding_status", "ok")) == "ok"
    table = label_cells(z, clusters, settings=settings, clustered=computed)
    log.info("cell types: %s", ", ".join(f"{name} {n}" for name, n in table["cell_type"].value_counts().items()))
    return table


def panel_z(
    adata: ad.AnnData, panels: Mapping[str, GeneSet], *, clusters: Objects, seed: int, n_null: int = N_NULL
) -> pd.DataFrame:
    """Score every cell with every panel, all in one product.

    A panel's random sets match its genes in a mixture of cells: nine tenths from the quarter of the cells whose
    clusters have the lowest level of the panel, one tenth from the rest. A positive z of a cell
    with fewer than two markers (haemoglobin and immunoglobulin genes not counted) becomes 0.

    Parameters
    ----------
    adata
        Layers ``counts`` and ``lognorm``.
    panels
        Marker panels; their ``up`` genes are the markers.
    clusters
        Cluster of each cell.
    seed, n_null
        Of the random sets.

    Returns
    -------
    DataFrame
        Cells x panels, index ``cell_id``; NaN where fewer than three genes of a panel have counts.
    """
    lognorm, counts = sp.csr_matrix(adata.layers[LOGNORM]), sp.csr_matrix(adata.layers[COUNTS])
    genes = pd.Index(adata.var_names.astype(object))
    levels = _ClusterLevels.of(lognorm, clusters)
    soup = np.any([gene_mask(genes, family) for family in SOUP_FAMILIES], axis=0)
    drawn, n_markers = [], np.zeros((adata.n_obs, len(panels)), dtype=np.int64)
    for number, (name, panel) in enumerate(panels.items()):
        markers = np.flatnonzero(genes.isin(panel.up))
        statistics = levels.background(markers).set_index(genes)
        statistics.attrs["n_cells"] = adata.n_obs
        drawn.append(draw_matched_sets(statistics, {name: panel}, n_null=n_null, seed=seed, relaxed=True))
        n_markers[:, number] = counts[:, markers[~soup[markers]]].getnnz(axis=1)
    scored = apply_sets(lognorm, _stack(drawn, genes, n_null)).z
    names = [name for one in drawn for name in one.names]
    z = pd.DataFrame(scored.astype(float), index=adata.obs_names.astype(object), columns=names)
    z = z.reindex(columns=list(panels))
    return z.where((n_markers >= MIN_MARKERS) | ~(z > 0), 0.0)


@dataclass(frozen=True)
class _ClusterLevels:
    """Sums over the cells of each cluster (clusters x genes): log-normalised values, their squares, detection."""

    n_cells: Doubles
    total: Doubles
    squares: Doubles
    detected: Doubles

    @classmethod
    def of(cls, lognorm: sp.csr_matrix, clusters: Objects) -> _ClusterLevels:
        names, number = np.unique(clusters.astype(str), return_inverse=True)
        member = sp.csr_matrix(
            (np.ones(number.size), (number, np.arange(number.size))), shape=(names.size, number.size)
        )
        values = lognorm.data.astype(np.float64)
        parts = (values, values**2, (values > 0).astype(np.float64))
        sums = [
            (member @ sp.csr_matrix((part, lognorm.indices, lognorm.indptr), shape=lognorm.shape)).toarray()
            for part in parts
        ]
        return cls(np.bincount(number, minlength=names.size).astype(float), *sums)

    def background(self, markers: npt.NDArray[np.intp]) -> pd.DataFrame:
        """Mean, detection rate and variance of every gene in the cells a panel is compared with."""
        weight = self._weights(markers)
        n = max(float(weight @ self.n_cells), 1.0)
        mean = weight @ self.total / n
        return pd.DataFrame(
            {
                "mean": mean,
                "detection": weight @ self.detected / n,
                "variance": np.maximum(weight @ self.squares / n - mean**2, 0.0),
            }
        )

    def _weights(self, markers: npt.NDArray[np.intp]) -> Doubles:
        """Weight of a cell of each cluster: up to 1 in the background, little elsewhere."""
        mean = self.total[:, markers] / np.maximum(self.n_cells, 1.0)[:, None]
        highest = mean.max(axis=0, initial=0.0)
        # each marker counts alike, whatever its abundance
        level = np.divide(mean, highest, out=np.zeros_like(mean), where=highest > 0).sum(axis=1)
        order = np.argsort(np.round(level, 9), kind="stable")
        before = np.cumsum(self.n_cells[order]) - self.n_cells[order]
        # a cluster across the border belongs to the background with part of its cells
        background = np.zeros(self.n_cells.size)
        background[order] = np.clip(BACKGROUND_SHARE * self.n_cells.sum() - before, 0.0, self.n_cells[order])
        rest = self.n_cells - background
        share = FOREGROUND_WEIGHT / (1 - FOREGROUND_WEIGHT) * background.sum() / max(float(rest.sum()), 1.0)
        return np.asarray((background + min(1.0, share) * rest) / np.maximum(self.n_cells, 1.0), dtype=np.float64)


def _stack(drawn: Sequence[MatchedSets], genes: pd.Index, n_null: int) -> MatchedSets:
    """Sets that were drawn one panel at a time, for one product."""
    blocks = [one.transposed for one in drawn if one.names]
    coverage = [one.coverage for one in drawn]
    return MatchedSets(
        names=tuple(name for one in drawn for name in one.names),
        n_null=n_null,
        genes=genes,
        transposed=sp.csr_matrix(sp.vstack(blocks)) if blocks else sp.csr_matrix(np.zeros((0, len(genes)), np.float32)),
        coverage=pd.concat(coverage) if coverage else pd.DataFrame(columns=list(TABLES["signature_coverage"])),
    )


def label_cells(
    z: pd.DataFrame, clusters: Objects, *, settings: Mapping[str, Any], clustered: bool = True
) -> pd.DataFrame:
    """Turn panel scores into labels.

    A cell is named after its best panel when that panel's z is at least ``min_z`` and leads the second by at
    least ``min_margin``; "epithelial" also needs ``epithelial_z``. A cell without a name takes the label of its cluster
    if at least 80 % of the cluster's named cells agree on it, they are at least 30 % of the cluster (and 10 cells), and
    its own z for that label is not negative. Cells with epithelial evidence never do, and "epithelial" is never
    borrowed.

    Parameters
    ----------
    z
        Calibrated z, cells x panels, index ``cell_id``; NaN where a panel cannot be scored.
    clusters
        Cluster of each cell.
    settings
        ``min_z``, ``min_margin``, ``epithelial_z``.
    clustered
        False when ``clusters`` mean nothing (no embedding): nothing is borrowed.

    Returns
    -------
    DataFrame
        ``cell_id``; ``cell_type``; ``cell_type_margin`` (best minus second z, NaN with fewer than two scorable panels);
        ``runner_up`` (second panel); ``cell_type_source`` (``cell``, ``cluster`` or ``none``); ``best_z``;
        ``cluster``; ``epithelial_evidence`` (epithelial z of ``epithelial_z`` or more, or epithelial the best panel
        with ``min_z``); ``mixed_lineage`` (epithelial evidence, and a haematopoietic panel that reaches
        ``epithelial_z`` too: a doublet, or a cell coated with another's RNA).
    """
    names = np.asarray(z.columns, dtype=object)
    values = z.to_numpy(dtype=float)
    n = len(z)
    best, second, best_z, margin = _two_best(values)
    min_z, epithelial_z = float(settings["min_z"]), float(settings["epithelial_z"])
    own = np.full(n, UNKNOWN, dtype=object)
    named = (best_z >= min_z) & (margin >= float(settings["min_margin"]))
    own[named] = names[best[named]]
    epithelial = _columns(values, names, (EPITHELIAL,))
    is_best = (best >= 0) & (names[best] == EPITHELIAL) if names.size else np.zeros(n, dtype=bool)
    evidence = (epithelial >= epithelial_z) | (is_best & (best_z >= min_z))
    own[(own == EPITHELIAL) & ~(epithelial >= epithelial_z)] = UNKNOWN
    source = np.where(own == UNKNOWN, "none", "cell").astype(object)
    cell_type = own.copy()
    clusters = np.asarray(clusters, dtype=object)
    for cluster, label in (_agreed_labels(own, clusters) if clustered else {}).items():
        score = _columns(values, names, (label,))
        borrows = (clusters == cluster) & (own == UNKNOWN) & ~evidence & (score >= 0)
        cell_type[borrows] = label
        source[borrows] = "cluster"
    blood = _columns(values, names, HAEMATOPOIETIC_TYPES)
    return pd.DataFrame(
        {
            "cell_id": np.asarray(z.index, dtype=object),
            "cell_type": cell_type,
            "cell_type_margin": margin,
            "runner_up": np.where(second >= 0, names[second], "") if names.size else np.full(n, "", dtype=object),
            "cell_type_source": source,
            "best_z": best_z,
            "cluster": clusters,
            "epithelial_evidence": evidence,
            "mixed_lineage": evidence & (blood >= epithelial_z),
        }
    )


def _two_best(
    values: Doubles,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Doubles, Doubles]:
    """Best and second column of each row (-1: there is none), the best value, and its lead over the second."""
    n, k = values.shape
    missing = np.isnan(values)
    order = np.argsort(np.where(missing, np.inf, -values), axis=1, kind="stable")
    known = (~missing).sum(axis=1)
    rows = np.arange(n)
    best, second = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    best_z, margin = np.full(n, np.nan), np.full(n, np.nan)
    if k:
        best = np.where(known > 0, order[:, 0], -1)
        best_z = np.where(known > 0, values[rows, best], np.nan)
    if k > 1:
        second = np.where(known > 1, order[:, 1], -1)
        margin = np.where(known > 1, best_z - values[rows, second], np.nan)
    return best, second, best_z, margin


def _columns(values: Doubles, names: Objects, wanted: tuple[str, ...]) -> Doubles:
    """Largest value among the ``wanted`` columns of each row; -inf when there is none."""
    chosen = values[:, np.isin(names.astype(str), wanted)]
    filled = np.where(np.isnan(chosen), -np.inf, chosen)
    return np.asarray(filled.max(axis=1, initial=-np.inf), dtype=float)


def _agreed_labels(own: Objects, clusters: Objects) -> dict[str, str]:
    """Label that each cluster lends to its unnamed cells."""
    named = own != UNKNOWN
    size = pd.Series(clusters, dtype=object).value_counts().to_dict()
    table = pd.crosstab(pd.Series(clusters[named], dtype=object), pd.Series(own[named], dtype=object))
    agreed: dict[str, str] = {}
    for cluster, row in table.iterrows():
        label, n = str(row.idxmax()), int(row.max())
        agree = n >= CLUSTER_AGREEMENT * row.sum() and n >= max(MIN_CLUSTER_LABELS, CLUSTER_NAMED * size[cluster])
        if agree and label != EPITHELIAL:
            agreed[str(cluster)] = label
    return agreed
