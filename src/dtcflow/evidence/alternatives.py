"""The signatures of a contrast scored in other ways: other random sets, pseudobulks, other scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from dtcflow.evidence.contrasts import Aggregation, Floats, GroupValues, Layout, average, group_values
from dtcflow.scores.calibrated import OK, MatchedSets, apply_sets, draw_matched_sets, gene_statistics, log_normalise
from dtcflow.scores.sensitivity import RAW_SCORERS, raw_scores
from dtcflow.scores.signatures import GeneSet, Synonyms

CALIBRATED: Final = "calibrated_z"
BOTH: Final = "both"
REFERENCE: Final = "reference"
NO_REFERENCE: Final = "none"
MATCHED: Final = "matched"
FULL: Final = "full"
PSEUDOBULK: Final = "pseudobulk"
CELL_AGGREGATIONS: Final[tuple[Aggregation, ...]] = ("trimmed_mean", "median")
CALLS: Final = ("loose", "strict")
ALTERNATIVE_REPEATS: Final = 3
"""Depth repeats of the alternatives: ranks of single cells take a thousand times longer than one matrix product."""

Key = tuple[str, str, str]
"""Depth, aggregation, call."""


@dataclass(frozen=True)
class Alternative:
    """Patient-level values of the signatures under one score.

    Attributes
    ----------
    score
        ``calibrated_z``, or one of :data:`dtcflow.scores.sensitivity.RAW_SCORERS`.
    reference
        Cells whose gene statistics the random sets are matched on: ``both`` compartments or the ``reference`` only;
        ``none`` for a score without matched sets.
    names
        Signatures, last axis of the values.
    groups
        Values per patient and side by depth, aggregation and call.
    reasons
        Why a signature has no value.
    """

    score: str
    reference: str
    names: tuple[str, ...]
    groups: dict[Key, GroupValues]
    reasons: dict[str, str]


@dataclass(frozen=True)
class CellCounts:
    """Counts of the cells of a contrast: ``matched`` at one depth per patient (one matrix a repeat), and ``full``."""

    matched: tuple[sp.csr_matrix, ...]
    full: sp.csr_matrix
    genes: pd.Index


def cell_groups(matched: Sequence[Floats], full: Floats, layout: Layout, *, trim: float) -> dict[Key, GroupValues]:
    """Reduce cell scores to patients under every depth, aggregation and call.

    Parameters
    ----------
    matched, full
        Cells x scores, one array per depth repeat, and at the original depth.
    """
    strict = layout.table["strict"].to_numpy(dtype=bool)
    return {
        (depth, aggregation, call): average(
            [group_values(z, layout, aggregation=aggregation, trim=trim, cells=cells) for z in arrays]
        )
        for aggregation in CELL_AGGREGATIONS
        for call, cells in zip(CALLS, (None, strict), strict=True)
        for depth, arrays in ((MATCHED, matched), (FULL, [full]))
    }


def _sums(counts: sp.csr_matrix, layout: Layout, cells: NDArray[np.bool_] | None) -> sp.csr_matrix:
    """Summed counts, two rows a patient (side 0, side 1)."""
    used = np.flatnonzero(np.ones(counts.shape[0], dtype=bool) if cells is None else cells)
    row = 2 * layout.patient[used] + layout.side[used]
    shape = (2 * len(layout.patients), counts.shape[0])
    return sp.csr_matrix(sp.csr_matrix((np.ones(used.size), (row, used)), shape=shape) @ counts)


def _bulk_groups(
    counts: Sequence[sp.csr_matrix],
    centred: Floats,
    layout: Layout,
    sets: MatchedSets,
    *,
    trim: float,
    cells: NDArray[np.bool_] | None,
) -> GroupValues:
    """Score the summed counts of each patient and side.

    The value is the mean log expression of the signature less that of its random sets. It is not divided by their
    spread, which shrinks when cells are summed: the unit is, as everywhere, the standard deviation between cells, here
    of the same difference in single cells (``centred``), and so is the sampling variance.
    """
    found = group_values(centred, layout, trim=trim, cells=cells)
    shape = (len(layout.patients), 2, len(sets.names))
    values = []
    for matrix in counts:
        applied = apply_sets(log_normalise(_sums(matrix, layout, cells)), sets)
        values.append((applied.value.astype(np.float64) - applied.null_mean).reshape(shape))
    value = np.where(found.n[:, :, None] > 0, np.mean(values, axis=0), np.nan)
    return GroupValues(value, found.variance, found.n, found.freedom)


def _calibrated(
    counts: CellCounts, layout: Layout, sets: MatchedSets, reasons: dict[str, str], reference: str, trim: float
) -> list[Alternative]:
    """Cells (unless the random sets are those of the main analysis) and pseudobulks with one family of random sets."""
    strict = layout.table["strict"].to_numpy(dtype=bool)
    cells = [apply_sets(log_normalise(matrix), sets) for matrix in (*counts.matched, counts.full)]
    centred = [one.value.astype(np.float64) - one.null_mean for one in (cells[0], cells[-1])]
    bulk: dict[Key, GroupValues] = {
        (depth, PSEUDOBULK, call): _bulk_groups(own, centre, layout, sets, trim=trim, cells=chosen)
        for call, chosen in zip(CALLS, (None, strict), strict=True)
        for depth, own, centre in ((MATCHED, counts.matched, centred[0]), (FULL, [counts.full], centred[1]))
    }
    groups = bulk
    if reference != BOTH:
        z = [one.z.astype(np.float64) for one in cells]
        groups = cell_groups(z[:-1], z[-1], layout, trim=trim) | bulk
    return [Alternative(CALIBRATED, reference, sets.names, groups, reasons)]


def _reasons(coverage: pd.DataFrame) -> dict[str, str]:
    return {
        str(row.signature): str(row.reason) for row in coverage.itertuples() if row.status != OK
    }  # fmt: skip


def _only(sets: MatchedSets, names: Sequence[str]) -> MatchedSets:
    """Return the blocks of these signatures."""
    kept = [name for name in sets.names if name in names]
    blocks = [sets.block(name) for name in kept]
    weights = sp.csr_matrix(sp.vstack(blocks, format="csr")) if blocks else sets.transposed[:0]
    coverage = sets.coverage[sets.coverage["signature"].isin(list(names))]
    return MatchedSets(tuple(kept), sets.n_null, sets.genes, weights, coverage)


def alternative_scores(
    counts: CellCounts,
    layout: Layout,
    panel: Mapping[str, GeneSet],
    sets: MatchedSets,
    *,
    n_null: int,
    trim: float,
    minimum_coverage: float,
    synonyms: Synonyms | pd.DataFrame | None,
    seed: int,
) -> tuple[Alternative, ...]:
    """Score the signatures of a contrast in every way the specification table lists, beside the main one.

    Calibrated z with random sets matched on the reference compartment only; pseudobulks with either family of random
    sets; ``score_genes``, AUCell and UCell (:mod:`dtcflow.scores.sensitivity`).

    Parameters
    ----------
    counts
        Cells x genes, rows in the order of ``layout.table``.
    layout
        The cells.
    panel
        Signatures to score.
    sets
        Random sets of the main analysis.
    n_null, minimum_coverage, synonyms, seed
        See :func:`dtcflow.scores.calibrated.draw_matched_sets`.
    trim
        Share that the trimmed mean leaves out at either end.
    """
    counts = CellCounts(counts.matched[:ALTERNATIVE_REPEATS], counts.full, counts.genes)
    own = _only(sets, list(panel))
    found = _calibrated(counts, layout, own, _reasons(own.coverage), BOTH, trim)
    reference = gene_statistics(log_normalise(counts.matched[0]), counts.genes, rows=np.flatnonzero(layout.side == 1))
    drawn = draw_matched_sets(
        reference, panel, n_null=n_null, seed=seed, min_coverage=minimum_coverage, synonyms=synonyms
    )
    found += _calibrated(counts, layout, drawn, _reasons(drawn.coverage), REFERENCE, trim)
    for scorer in RAW_SCORERS:
        parts = [
            raw_scores(matrix, counts.genes, panel, scorer, synonyms=synonyms)
            for matrix in (*counts.matched, counts.full)
        ]
        reasons = {name: reason for part in reversed(parts) for name, reason in part.reasons.items()}
        values = [part.values for part in parts]
        groups = cell_groups(values[:-1], values[-1], layout, trim=trim)
        found.append(Alternative(scorer, NO_REFERENCE, tuple(panel), groups, reasons))
    return tuple(found)
