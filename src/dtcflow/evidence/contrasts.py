"""From cells to one value per patient and compartment, and to within-patient differences.

The order is fixed: choose the cells, bring both compartments of a patient to one depth, score each cell
(``scoring``), reduce the cells of a patient to a trimmed mean, take the difference, express it in standard deviations
between reference cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from dtcflow.evidence.layout import SMALL_SAMPLES, Layout, lay_out, stream, tumour_patients
from dtcflow.scores.thinning import Thinning

__all__ = [
    "SMALL_SAMPLES",
    "Aggregation",
    "Differences",
    "Floats",
    "GroupValues",
    "Layout",
    "ThinnedDraws",
    "average",
    "depth_fractions",
    "differences",
    "group_values",
    "lay_out",
    "stream",
    "trimmed_mean",
    "tumour_patients",
]

Floats = NDArray[np.float64]
Aggregation = Literal["trimmed_mean", "median"]

MEDIAN_VARIANCE: Final = np.pi / 2
"""Variance of a median relative to that of a mean, for normal cells."""


# ---------------------------------------------------------------------------------------------------------------------
# Depth
# ---------------------------------------------------------------------------------------------------------------------


def depth_fractions(totals: Floats, layout: Layout) -> Floats:
    """Share of its transcripts each cell keeps so that both sides of a patient have one median depth.

    The deeper side's cells all keep ``lower median / higher median``, the other side's cells keep everything: the
    spread of depths within the compartment stays as it is. In an unpaired layout people are compared within their
    study: its depth is the lower of its two sides' medians over patients, and every patient deeper than that is brought
    to it, on either side. Nobody is thinned below it; those who are shallower stay so.

    Parameters
    ----------
    totals
        UMIs per cell of ``layout.table``.
    layout
        The cells.

    Returns
    -------
    numpy.ndarray
        One share in (0, 1] per cell.
    """
    shares = np.ones(totals.size)
    patient, side = layout.patient, layout.side
    if not layout.paired:
        study = layout.block
        for name in np.unique(study):
            here = study == name
            middle = [
                {
                    int(p): float(np.median(totals[here & (patient == p)]))
                    for p in np.unique(patient[here & (side == k)])
                }
                for k in (0, 1)
            ]
            if all(middle):
                depth = min(float(np.median(list(own.values()))) for own in middle)
                for p, median in (middle[0] | middle[1]).items():
                    shares[here & (patient == p)] = min(1.0, depth / max(median, 1.0))
        return shares
    for index in range(len(layout.patients)):
        own = [(patient == index) & (side == k) for k in (0, 1)]
        medians = [float(np.median(totals[mask])) for mask in own]
        deeper = int(medians[1] > medians[0])
        if medians[deeper] > 0 and medians[0] != medians[1]:
            shares[own[deeper]] = medians[1 - deeper] / medians[deeper]
    return shares


class ThinnedDraws:
    """Counts at harmonised depth, drawn anew for each depth repeat.

    Parameters
    ----------
    counts
        Cells x genes, whole numbers without stored zeros, rows in the order of ``layout.table``, genes by name.
    share
        Probability with which each transcript of a cell is kept.
    layout
        The cells; each patient has a random stream of their own.
    seed
        Start of the streams.

    Attributes
    ----------
    again
        Rows that lose transcripts; the others are the same in every draw.
    """

    def __init__(self, counts: sp.csr_matrix, share: Floats, layout: Layout, *, seed: int) -> None:
        self.again: NDArray[np.int64] = np.flatnonzero(share < 1.0)
        self._counts, self._patients, self._seed = counts, layout.patients, seed
        self._thinning = Thinning(counts[self.again], share[self.again], layout.patient[self.again])

    def part(self, repeat: int) -> sp.csr_matrix:
        """Rows :attr:`again` of a draw, float32."""
        return self._thinning.draw(lambda patient: stream(self._seed, "thin", self._patients[patient], repeat))

    def whole(self, repeat: int) -> sp.csr_matrix:
        """All rows of a draw, float32."""
        return self.filled(self.part(repeat))

    def filled(self, part: sp.csr_matrix) -> sp.csr_matrix:
        """All rows, with ``part`` in the place of the rows :attr:`again`."""
        if not self.again.size:
            return self._counts
        n = self._counts.shape[0]
        place = np.arange(n)
        place[self.again] = n + np.arange(self.again.size)
        return sp.csr_matrix(sp.vstack([self._counts, part], format="csr")[place])


# ---------------------------------------------------------------------------------------------------------------------
# Values of patients
# ---------------------------------------------------------------------------------------------------------------------


def trimmed_mean(values: Floats, trim: float = 0.1) -> Floats:
    """Mean of each column without the ``floor(trim * n)`` smallest and largest entries."""
    n = values.shape[0]
    cut = int(np.floor(trim * n))
    return np.asarray(np.sort(values, axis=0)[cut : n - cut].mean(axis=0), dtype=float)


def _reduce(block: Floats, aggregation: Aggregation, trim: float) -> tuple[Floats, Floats]:
    """Centre and sum of squares of each column; a missing score (a cell without a null) does not count."""
    if np.isnan(block).any():
        parts = [column[np.isfinite(column)][:, None] for column in block.T]
        pairs = [_reduce(part, aggregation, trim) if part.size else (np.array([np.nan]), np.zeros(1)) for part in parts]
        return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
    centre = np.asarray(np.median(block, axis=0), dtype=float) if aggregation == "median" else trimmed_mean(block, trim)
    return centre, np.asarray(((block - block.mean(axis=0)) ** 2).sum(axis=0), dtype=float)


@dataclass(frozen=True)
class GroupValues:
    """Values per patient and side.

    Attributes
    ----------
    value
        Patients x 2 x scores.
    variance
        Patients x 2 x scores: variance between the cells of one sample, pooled over the samples.
    n
        Patients x 2: cells.
    freedom
        Patients x 2: degrees of freedom of the variance (cells minus samples).
    """

    value: Floats
    variance: Floats
    n: NDArray[np.int64]
    freedom: NDArray[np.int64]


def group_values(
    z: Floats,
    layout: Layout,
    *,
    aggregation: Aggregation = "trimmed_mean",
    trim: float = 0.1,
    cells: NDArray[np.bool_] | None = None,
    side: NDArray[np.int64] | None = None,
) -> GroupValues:
    """Reduce cells to patients.

    Parameters
    ----------
    z
        Cells x scores, rows in the order of ``layout.table``.
    layout
        The cells.
    aggregation, trim
        How the cells of one sample are reduced.
    cells
        Use only these cells.
    side
        Another assignment of the cells to the two sides (controls); -1 leaves a cell out.

    Notes
    -----
    Several samples of a patient are averaged with weights proportional to their cells, which is precision weighting
    under one variance between cells. Patients without a cell on a side get NaN there.
    """
    n_patients, n_scores = len(layout.patients), z.shape[1]
    value = np.full((n_patients, 2, n_scores), np.nan)
    variance = np.zeros((n_patients, 2, n_scores))
    n = np.zeros((n_patients, 2), dtype=np.int64)
    freedom = np.zeros((n_patients, 2), dtype=np.int64)
    used = np.ones(len(layout.table), dtype=bool) if cells is None else cells
    sides = layout.side if side is None else side
    patient = layout.patient
    sample = layout.table["sample"].to_numpy()
    for p in range(n_patients):
        for k in (0, 1):
            rows = np.flatnonzero((patient == p) & (sides == k) & used)
            if rows.size == 0:
                continue
            total = np.zeros(n_scores)
            squares = np.zeros(n_scores)
            names = sorted(set(sample[rows]))
            for name in names:
                block = z[rows[sample[rows] == name]]
                centre, own_squares = _reduce(block, aggregation, trim)
                total += len(block) * centre
                squares += own_squares
            n[p, k], freedom[p, k] = rows.size, rows.size - len(names)
            value[p, k] = total / rows.size
            variance[p, k] = squares / freedom[p, k] if freedom[p, k] > 0 else np.nan
    return GroupValues(value, variance, n, freedom)


def average(parts: Sequence[GroupValues]) -> GroupValues:
    """Average values and variances over depth repeats."""
    return GroupValues(
        np.mean([part.value for part in parts], axis=0),
        np.mean([part.variance for part in parts], axis=0),
        parts[0].n,
        parts[0].freedom,
    )


@dataclass(frozen=True)
class Differences:
    """Standardised within-patient differences, patients x scores.

    ``difference = value_a - value_b`` and its ``variance``, everything in units of ``scale`` (one per score): the
    median over patients of the standard deviation between reference cells. ``usable`` marks patients (patients,).
    """

    value_a: Floats
    value_b: Floats
    difference: Floats
    variance: Floats
    scale: Floats
    usable: NDArray[np.bool_]
    n: NDArray[np.int64]


def differences(
    groups: GroupValues, *, minimum: int = 3, scale: Floats | None = None, aggregation: Aggregation = "trimmed_mean"
) -> Differences:
    """Take the difference a - b of each patient.

    The variance of a patient's difference is ``s_a^2 / n_a + s_b^2 / n_b``, with ``s_k^2`` the variance between cells
    of side k pooled over patients by degrees of freedom: with five cells a patient's own variance says little.

    Parameters
    ----------
    groups
        Values per patient and side.
    minimum
        Cells a patient needs on either side.
    scale
        Use this unit (one per score) instead of the one of these data, for results that are compared with each other.
    aggregation
        ``"median"`` multiplies the variance by pi/2.
    """
    usable: NDArray[np.bool_] = np.all(groups.n >= minimum, axis=1)
    n_scores = groups.value.shape[2]
    if not usable.any():
        empty = np.full((groups.n.shape[0], n_scores), np.nan)
        return Differences(empty, empty, empty, empty, np.full(n_scores, np.nan), usable, groups.n)
    freedom = np.where(usable[:, None], groups.freedom, 0).astype(float)
    spread = np.where(np.isfinite(groups.variance), groups.variance, 0.0)
    pooled = (freedom[:, :, None] * spread).sum(axis=0) / np.maximum(freedom.sum(axis=0), 1.0)[:, None]
    reference = usable & (groups.freedom[:, 1] > 0)
    unit = np.median(np.sqrt(spread[reference, 1]), axis=0) if scale is None else np.asarray(scale, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = np.where(unit > 0, unit, np.nan)
        sampling = (pooled[None] / groups.n[:, :, None]).sum(axis=1) * (
            MEDIAN_VARIANCE if aggregation == "median" else 1.0
        )
        value = np.where(usable[:, None, None], groups.value, np.nan) / unit
        variance = np.where(usable[:, None], sampling, np.nan) / unit**2
    return Differences(value[:, 0], value[:, 1], value[:, 0] - value[:, 1], variance, unit, usable, groups.n)
