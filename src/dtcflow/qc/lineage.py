"""First-pass lineage of every cell, before quality control.

Thresholds are set per lineage, so a rough lineage is needed before any cell is removed; and epithelial evidence is
measured on every cell, also on those that will fail, so that the loss audit can name them. The full annotation comes
later and only for the cells that pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow import contracts
from dtcflow.qc.metrics import counts_per_cell
from dtcflow.scores.calibrated import calibrated_z
from dtcflow.scores.signatures import GeneSet, load_markers
from dtcflow.sparse import cells_per_gene

HAEMATOPOIETIC: Final = "haematopoietic"
ERYTHROID: Final = "erythroid"
EPITHELIAL: Final = contracts.EPITHELIAL
STROMAL: Final = "stromal"
UNKNOWN: Final = contracts.UNKNOWN
LINEAGES: Final = (HAEMATOPOIETIC, ERYTHROID, EPITHELIAL, STROMAL, UNKNOWN)

MIN_Z: Final = 2.0
"""Best panel's calibrated z from which a cell has a lineage."""
MIN_MARKERS: Final = 2
"""Distinct genes of that panel the cell must show: one abundant ambient transcript is not a lineage."""

COMMON_SHARE: Final = 0.05
"""Share of epithelial cells from which the sample's own average is no longer a non-epithelial background."""
REFERENCE_Z: Final = 3.0
"""Another lineage's z from which a cell may serve as that background."""
MIN_REFERENCE: Final = 50
MIN_KEPT_GENES: Final = 0.75
"""Share of the epithelial panel that the background must also show, else genes only tumour cells have would be lost."""

ALL_CELLS: Final = "all cells"
OTHER_LINEAGES: Final = "cells of other lineages"

COLUMNS: Final = ("lineage", "first_pass_type", "epithelial_z", "n_epithelial_markers", "lineage_z")


@dataclass(frozen=True)
class FirstPass:
    """Result of :func:`first_pass_lineage`.

    ``cells``: one row per cell, :data:`COLUMNS`; ``epithelial_reference``: which cells the random sets of the
    epithelial panel were matched on; ``not_scored``: panels with too few genes with counts in this matrix.
    """

    cells: pd.DataFrame
    epithelial_reference: str = ALL_CELLS
    not_scored: tuple[str, ...] = ()


def lineage_of(cell_type: str) -> str:
    """Lineage of a cell type; red cells are apart from other blood cells because few genes are normal for them."""
    if cell_type == ERYTHROID:
        return ERYTHROID
    if cell_type in contracts.HAEMATOPOIETIC_TYPES:
        return HAEMATOPOIETIC
    if cell_type in contracts.STROMAL_TYPES:
        return STROMAL
    return EPITHELIAL if cell_type == contracts.EPITHELIAL else UNKNOWN


def count_markers(counts: sp.csr_matrix, genes: pd.Index, markers: Mapping[str, GeneSet]) -> pd.DataFrame:
    """Distinct panel genes with at least one count, cells x panels (int).

    A symbol that occurs in several columns counts once.
    """
    named = pd.Index(sorted({gene for panel in markers.values() for gene in panel.up}))
    position = named.get_indexer(genes)
    columns = np.flatnonzero(position >= 0)
    to_gene = sp.csr_matrix(
        (np.ones(columns.size), (np.arange(columns.size), position[columns])), shape=(columns.size, len(named))
    )
    seen = sp.csr_matrix((counts[:, columns] > 0).astype(np.float64) @ to_gene)
    seen.data = (seen.data > 0).astype(np.float64)
    in_panel = np.column_stack([named.isin(panel.up) for panel in markers.values()]).astype(np.float64)
    return pd.DataFrame(np.asarray(seen @ in_panel, dtype=np.int64), columns=list(markers))


def first_pass_lineage(
    counts: sp.csr_matrix,
    genes: pd.Index,
    *,
    cell_ids: pd.Index | None = None,
    markers: Mapping[str, GeneSet] | None = None,
    n_null: int = 200,
    seed: int = 0,
) -> FirstPass:
    """Lineage and epithelial evidence of every cell of one sample.

    Each marker panel is scored as a calibrated z (against random gene sets matched on expression and detection rate,
    see :func:`dtcflow.scores.calibrated.calibrated_z`). The best panel decides when its z is at least :data:`MIN_Z` and
    the cell shows at least :data:`MIN_MARKERS` of its genes; otherwise the cell is ``unknown``.

    Where epithelial cells are common (a primary tumour), genes matched on the average of all cells are tumour genes
    themselves and the epithelial z shrinks. The epithelial panel is then matched again on cells of other lineages.

    Parameters
    ----------
    counts
        Raw counts, cells x genes.
    genes
        Unique gene symbols of the columns.
    cell_ids
        Index of the result; 0..n-1 without it.
    markers
        Panels by cell type; the shipped ones without it.
    n_null
        Random sets per panel; 200 suffice for a first pass.
    seed
        Seed of the random sets.

    Returns
    -------
    :class:`FirstPass`; its ``cells`` hold ``lineage`` (:data:`LINEAGES`), ``first_pass_type``
    (:data:`dtcflow.contracts.CELL_TYPES`), ``epithelial_z`` (float, NaN for an empty cell or where the panel cannot be
    scored), ``n_epithelial_markers`` (int) and ``lineage_z`` (z of the panel that gave the lineage, NaN for
    ``unknown``).
    """
    markers = load_markers() if markers is None else markers
    n = counts.shape[0]
    cell_type = np.full(n, contracts.UNKNOWN, dtype=object)
    epithelial_z = np.full(n, np.nan)
    n_epithelial = np.zeros(n, dtype=np.int64)
    lineage_z = np.full(n, np.nan)
    reference, not_scored = ALL_CELLS, tuple(markers)

    # empty cells say nothing and would only dilute the expression the random sets are matched on
    filled = np.flatnonzero(counts_per_cell(counts) > 0)
    if filled.size and markers:
        used = counts if filled.size == n else sp.csr_matrix(counts[filled])
        first = calibrated_z(used, genes, markers, n_null=n_null, seed=seed, relaxed=True)
        z = first.z.reindex(columns=list(markers)).astype(np.float64)
        not_scored = tuple(name for name in markers if name not in first.matched.names)
        if contracts.EPITHELIAL in markers:
            again = _epithelial_against_others(used, genes, z, markers[contracts.EPITHELIAL], n_null=n_null, seed=seed)
            if again is not None:
                z[contracts.EPITHELIAL], reference = again, OTHER_LINEAGES
        shown = count_markers(used, genes, markers)
        cell_type[filled], lineage_z[filled] = _best_type(z, shown)
        if contracts.EPITHELIAL in markers:
            epithelial_z[filled] = z[contracts.EPITHELIAL].to_numpy()
            n_epithelial[filled] = shown[contracts.EPITHELIAL].to_numpy()

    cells = pd.DataFrame(
        {
            "lineage": pd.array([lineage_of(name) for name in cell_type], dtype=object),
            "first_pass_type": cell_type,
            "epithelial_z": epithelial_z,
            "n_epithelial_markers": n_epithelial,
            "lineage_z": lineage_z,
        },
        index=pd.RangeIndex(n) if cell_ids is None else cell_ids,
    )
    return FirstPass(cells[list(COLUMNS)], reference, not_scored)


def _best_type(z: pd.DataFrame, shown: pd.DataFrame) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.float64]]:
    """Cell type and z of the best panel per cell, ``unknown`` and NaN where none is good enough."""
    types = list(z.columns)
    values = z.to_numpy(np.float64)
    good = np.isfinite(values) & (values >= MIN_Z) & (shown[types].to_numpy() >= MIN_MARKERS)
    candidate = np.where(good, values, -np.inf)
    best = np.array(types, dtype=object)[candidate.argmax(axis=1)]
    found = good.any(axis=1)
    return np.where(found, best, contracts.UNKNOWN).astype(object), np.where(found, candidate.max(axis=1), np.nan)


def _epithelial_against_others(
    counts: sp.csr_matrix,
    genes: pd.Index,
    z: pd.DataFrame,
    panel: GeneSet,
    *,
    n_null: int,
    seed: int,
) -> npt.NDArray[np.float64] | None:
    """Epithelial z with random sets matched on cells of other lineages, or None where that would not be better."""
    others = z.drop(columns=contracts.EPITHELIAL).max(axis=1).to_numpy(np.float64)
    own = z[contracts.EPITHELIAL].to_numpy(np.float64)
    background = np.isfinite(others) & (others >= REFERENCE_Z) & ~(own >= others)
    is_epithelial = (own >= MIN_Z) & ~(others > own)
    if is_epithelial.mean() < COMMON_SHARE or background.sum() < MIN_REFERENCE:
        return None
    present = genes.isin(panel.up)
    # only the panel's own columns: a copy of the whole background would be as large as the sample
    panel_counts = sp.csr_matrix(counts[:, np.flatnonzero(present)])
    n_used = int((cells_per_gene(panel_counts) > 0).sum())
    if (cells_per_gene(panel_counts[background]) > 0).sum() < MIN_KEPT_GENES * n_used:
        return None
    again = calibrated_z(
        counts, genes, {panel.name: panel}, n_null=n_null, seed=seed, reference_rows=background, relaxed=True
    )
    return again.z[panel.name].to_numpy(np.float64) if panel.name in again.matched.names else None
