"""What the numbers of a matrix are: raw counts, estimated counts, or something already normalised.

Every count-based step of the workflow is wrong on normalised values without any sign of it, so a matrix is accepted
only when its numbers can be raw counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from dtcflow.sparse import pieces, times

Kind = Literal["counts", "estimated", "empty", "zero", "not_finite", "negative", "overflow", "log", "normalised"]

MAX_EXACT: Final = 2**24
"""Whole numbers up to here are exact in float32, in which counts are kept."""
LOG_MAX: Final = 50.0
"""Fractional values that stay below this are on a log scale: e**50 reads in one cell do not exist."""
ESTIMATED_MAX: Final = 100.0
"""Estimated counts of a plate experiment reach far beyond this in at least one gene."""
USE_PLATE: Final = (
    "set platform to plate in the sample sheet if these are estimated counts of full-length reads; "
    "else give the uncorrected counts"
)
"""What to do about fractional counts of a droplet experiment."""
_EQUAL_TOTALS: Final = 0.02
_CHECKED_CELLS: Final = 200


@dataclass(frozen=True)
class Values:
    """The kind of a matrix's numbers and the words that say how it was recognised."""

    kind: Kind
    words: str
    warnings: tuple[str, ...] = ()


def whole_numbers(data: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Values rounded to whole numbers in single precision; beyond the result only a piece of them is held."""
    whole = np.empty(data.size, dtype=np.float32)
    for piece in pieces(data.size):
        whole[piece] = np.rint(data[piece].astype(np.float64))
    return whole


def _totals(matrix: sp.csr_matrix) -> npt.NDArray[np.float64]:
    totals = times(matrix, np.ones(matrix.shape[1]))
    return totals[totals > 0]


def _equal(totals: npt.NDArray[np.float64]) -> bool:
    """Whether all cells have the same total (within 2 %), which sequencing never yields but normalisation does."""
    totals = totals[np.isfinite(totals)]
    if totals.size < 5:
        round_numbers = np.array([1e4, 1e5, 1e6])
        near = np.abs(totals[:, None] / round_numbers - 1).min(axis=1, initial=np.inf) < 1e-3
        return bool(totals.size and near.all())
    low, middle, high = np.quantile(totals, [0.05, 0.5, 0.95])
    return bool((high - low) / middle < _EQUAL_TOTALS)


def _some_cells(matrix: sp.csr_matrix) -> sp.csr_matrix:
    step = max(1, matrix.shape[0] // _CHECKED_CELLS)
    return matrix[::step]


def _log_words(matrix: sp.csr_matrix, largest: float) -> str:
    """Name the scale whose inverse gives every cell the same total, if there is one."""
    some = _some_cells(matrix).astype(np.float64)
    for name, inverse in (("log1p", np.expm1), ("log2(x + 1)", lambda x: np.exp2(x) - 1)):
        undone = some.copy()
        undone.data = inverse(undone.data)
        totals = _totals(undone)
        if totals.size >= 5 and _equal(totals):
            return f"log-normalised values ({name} of counts scaled to {np.median(totals):,.0f} per cell)"
    return f"log-like values (fractions, none above {largest:.3g})"


def _has_size_factors(matrix: sp.csr_matrix) -> bool:
    """Whether each cell's values are whole multiples of its smallest one: counts divided by a size factor."""
    some = _some_cells(matrix)
    shares = []
    for start, stop in zip(some.indptr[:-1], some.indptr[1:], strict=True):
        values = np.asarray(some.data[start:stop], dtype=np.float64)
        values = values[values > 0]
        if values.size < 10:
            continue
        ratio = values / values.min()
        # float32 resolves the remainder of small ratios only
        ratio = ratio[ratio < 500]
        shares.append(np.mean(np.abs(ratio - np.rint(ratio)) < 2e-3))
    return bool(shares) and float(np.median(shares)) > 0.95


def classify(matrix: Any) -> Values:
    """Tell what the values of a sparse matrix (cells x genes) are.

    Returns
    -------
    ``counts`` (whole numbers >= 0) or ``estimated`` (fractional, large, unequal totals: RSEM, Salmon, kallisto, or
    counts corrected for ambient RNA); anything else must be refused. ``words`` describe what was found.
    """
    matrix = sp.csr_matrix(matrix)
    if 0 in matrix.shape:
        return Values("empty", f"{matrix.shape[0]:,} cells x {matrix.shape[1]:,} genes")
    data = matrix.data
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        bad = int((~np.isfinite(data)).sum())
        cell = int(np.searchsorted(matrix.indptr, int(np.flatnonzero(~np.isfinite(data))[0]), side="right"))
        return Values("not_finite", f"{bad:,} values that are NaN or infinite (the first in cell {cell})")
    if data.size == 0 or not data.any():
        return Values("zero", "only zeros")
    smallest, largest = float(data.min()), float(data.max())
    if smallest < 0:
        return Values("negative", f"negative values (down to {smallest:.3g}): scaled or centred data")
    if largest > MAX_EXACT:
        return Values("overflow", f"values up to {largest:.4g}, more than a cell's RNA can give")
    parts = [data[piece] for piece in pieces(data.size)]
    is_whole = data.dtype.kind != "f" or all(np.abs(part - np.rint(part)).max() <= 1e-4 for part in parts)
    totals = _totals(matrix)
    if is_whole:
        equal = totals.size >= 5 and _equal(totals)
        if equal and min(float(part[part > 0.5].min(initial=np.inf)) for part in parts) > 1.5:
            return Values(
                "normalised",
                f"whole numbers without a 1, and every cell sums to about {np.median(totals):,.0f}: rounded CPM or TPM",
            )
        warnings = []
        if equal:
            warnings.append(f"every cell has about {np.median(totals):,.0f} counts: down-sampled or rounded data")
        if largest <= 1.5 and matrix.shape[0] >= 20 and float(np.median(totals)) > 500:
            warnings.append("no count is larger than 1: the matrix may have been binarised")
        return Values("counts", "raw counts", tuple(warnings))
    if largest < LOG_MAX:
        return Values("log", _log_words(matrix, largest))
    if _equal(totals):
        total = float(np.median(totals))
        name = "CPM or TPM" if abs(total / 1e6 - 1) < 0.05 else "normalised values"
        return Values("normalised", f"{name}: fractions, and every cell sums to about {total:,.0f}")
    if _has_size_factors(matrix):
        return Values(
            "normalised", "counts divided by a size factor per cell (whole multiples of each cell's smallest value)"
        )
    if largest < ESTIMATED_MAX:
        return Values("normalised", f"fractions, none above {largest:.3g}: normalised values")
    return Values(
        "estimated",
        f"fractional values up to {largest:,.0f} with unequal totals, like estimated counts (RSEM, Salmon, kallisto) "
        "or counts corrected for ambient RNA",
    )
