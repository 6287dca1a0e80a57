"""What the numbers of a matrix are: raw counts, estimated counts, or something already normalised.

Every count-based step of the workflow is wrong on normalised values without any sign of it, so a matrix is accepted
only when its numbers can be raw counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from dtcflow.sparse import pieces, times

Kind = Literal[
    "counts",
    "estimated",
    "empty",
    "zero",
    "not_finite",
    "negative",
    "overflow",
    "log",
    "normalised",
    "rounded",
    "binarised",
    "scaled",
]

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
BINARISED_GENES: Final = 200
"""A cell with as many detected genes has a count above 1 somewhere (mitochondrial or ribosomal genes, MALAT1)."""
_EQUAL_TOTALS: Final = 0.02
_NEAR_TOTALS: Final = 0.25
"""Totals of fractional values whose 5-95 % range is narrower than this, relative to the median, were made equal."""
_CHECKED_CELLS: Final = 200
_WHOLE_GENES: Final = 30
"""Detected genes from which on a cell's values show whether small whole numbers are left out."""
_LAST: Final = 10
_ABSENT: Final = 12
_EXCESS: Final = 5.0

_INVERSES: Final[tuple[tuple[str, Callable[[Any], Any]], ...]] = (
    ("log1p", np.expm1),
    ("log2(x + 1)", lambda x: np.exp2(x) - 1),
    ("log10(x + 1)", lambda x: np.power(10.0, x) - 1),
)


@dataclass(frozen=True)
class Values:
    """The kind of a matrix's numbers and the words that say how it was recognised."""

    kind: Kind
    words: str
    warnings: tuple[str, ...] = ()


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


def _spread(totals: npt.NDArray[np.float64]) -> float:
    """Width of the 5-95 % range of the totals, relative to their median."""
    low, middle, high = np.quantile(totals, [0.05, 0.5, 0.95])
    return float((high - low) / middle)


def _undone(matrix: sp.csr_matrix, inverse: Callable[[Any], Any]) -> sp.csr_matrix:
    undone = matrix.astype(np.float64)
    with np.errstate(over="ignore"):
        undone.data = inverse(undone.data)
    return undone


def _is_whole(matrix: sp.csr_matrix) -> bool:
    """Whether values that an inverse was applied to are whole: float32 keeps seven digits, errors are relative."""
    values = matrix.data
    return float(np.mean(np.abs(values - np.rint(values)) <= 2e-6 * values + 1e-4)) > 0.99


def _log_words(matrix: sp.csr_matrix, largest: float) -> str:
    """Name the scale whose inverse gives whole numbers, equal totals, or multiples of a size factor, if any."""
    some = _some_cells(matrix)
    for name, inverse in _INVERSES:
        undone = _undone(some, inverse)
        values = undone.data[undone.data > 0]
        if not np.isfinite(values).all() or float(values.max(initial=0)) > MAX_EXACT:
            continue
        if _is_whole(undone):
            return f"{name} of counts, without scaling"
        totals = _totals(undone)
        if totals.size and _equal(totals):
            return f"log-normalised values ({name} of counts scaled to {np.median(totals):,.0f} per cell)"
        if _has_size_factors(undone):
            return f"log-normalised values ({name} of counts divided by a size factor per cell)"
    return f"log-like values (fractions, none above {largest:.3g})"


def _has_size_factors(matrix: sp.csr_matrix) -> bool:
    """Whether each cell's values are whole multiples of its smallest one: counts divided by a size factor.

    The values equal to the smallest say nothing, so that a shallow cell, which has hardly any other, is not judged.
    """
    some = _some_cells(matrix)
    shares = []
    for start, stop in zip(some.indptr[:-1], some.indptr[1:], strict=True):
        values = np.asarray(some.data[start:stop], dtype=np.float64)
        values = values[values > 0]
        if values.size < 10:
            continue
        ratio = values / values.min()
        # float32 resolves the remainder of small ratios only
        ratio = ratio[(ratio > 1.2) & (ratio < 500)]
        if ratio.size >= 5:
            shares.append(np.mean(np.abs(ratio - np.rint(ratio)) < 2e-3))
    return bool(shares) and float(np.median(shares)) > 0.95


def _left_out(matrix: sp.csr_matrix) -> str:
    """Say how the small whole numbers show that they are rounded multiples of a factor; "" when they do not.

    With a factor above 1 numbers are left out, with one below 1 two counts fall on one number. Counts do neither: how
    many genes n(k) of a cell have count k follows a mixture of Poisson distributions, for which
    n(k)**2 <= n(k - 1) * n(k + 1) * (k + 1) / k in expectation (moments of the mixing distribution are log-convex).
    A cell is odd when it has no 1, when a number is absent that both neighbours let expect 12 times, or when one is
    more frequent than the bound by five standard errors. In eight real matrices none of 5,975 cells was.
    """
    some = _some_cells(matrix)
    odd, n_cells = 0, 0
    for start, stop in zip(some.indptr[:-1], some.indptr[1:], strict=True):
        values = np.rint(some.data[start:stop])
        values = values[values > 0]
        if values.size >= _WHOLE_GENES:
            n_cells += 1
            odd += int(_is_odd(np.bincount(values[values <= _LAST + 1].astype(np.int64), minlength=_LAST + 2)))
    return f"the small ones are as after rounding in {odd} of {n_cells} cells" if odd and 10 * odd >= n_cells else ""


def _pairs_counted_twice(matrix: sp.csr_matrix) -> bool:
    """Whether most values of most cells are even, 2 the most frequent: both reads of each pair were counted."""
    some = _some_cells(matrix)
    shares = []
    for start, stop in zip(some.indptr[:-1], some.indptr[1:], strict=True):
        values = np.rint(some.data[start:stop])
        if values.size >= _WHOLE_GENES:
            shares.append(np.mean(values % 2 == 0) if 2 * np.sum(values == 2) >= np.sum(values <= 3) else 0.0)
    return len(shares) >= 5 and float(np.mean(np.array(shares) > 0.7)) > 0.8


def _is_odd(often: npt.NDArray[np.int64]) -> bool:
    """Whether the frequencies of 0, 1, 2, ... in a cell cannot be those of counts; see :func:`_left_out`."""
    below, here, above = (often[start : len(often) - 2 + start].astype(np.float64) for start in (0, 1, 2))
    if often[1] == 0:
        return True
    below, here, above = below[1:], here[1:], above[1:]
    number = np.arange(2, len(often) - 1)
    if bool(((here == 0) & (below * above >= _ABSENT**2)).any()):
        return True
    known = (below >= 5) & (above >= 5) & (here > 0)
    below, here, above, number = below[known], here[known], above[known], number[known]
    excess = np.log(here) - 0.5 * (np.log(below) + np.log(above) + np.log((number + 1) / number))
    return bool((excess > _EXCESS * np.sqrt(1 / here + 0.25 / below + 0.25 / above)).any())


def _is_scaled(matrix: sp.csr_matrix) -> bool:
    """Whether the genes have a standard deviation of 1, as after scaling without centring."""
    n_cells = matrix.shape[0]
    if n_cells < 2:
        return False
    mean = np.asarray(matrix.mean(axis=0, dtype=np.float64)).ravel()
    square = np.asarray(matrix.astype(np.float64).power(2).mean(axis=0)).ravel()
    sd = np.sqrt(np.maximum(square - mean**2, 0))
    sd = sd[sd > 1e-3]
    # scanpy divides by n - 1, others by n
    ones = max(float(np.mean(np.abs(sd * factor - 1) < 0.03)) for factor in (1, np.sqrt(n_cells / (n_cells - 1))))
    return bool(sd.size >= 10) and ones > 0.5


def _judge_whole(matrix: sp.csr_matrix, largest: float, totals: npt.NDArray[np.float64]) -> Values:
    """Whole numbers: counts, unless they are rounded normalised values or only say which genes were detected."""
    middle = float(np.median(totals))
    genes = np.diff(matrix.indptr)
    if largest <= 1.5 and int(genes.max()) >= BINARISED_GENES:
        return Values("binarised", f"no value above 1 in cells of up to {genes.max():,} genes: binarised")
    if _pairs_counted_twice(matrix):
        return Values("counts", "raw counts", ("most counts are even: both reads of each pair seem to be counted",))
    equal = totals.size >= 5 and _equal(totals)
    same = float(np.max(np.unique(totals, return_counts=True)[1])) / totals.size
    if left_out := _left_out(matrix):
        about = f", every cell sums to about {middle:,.0f}" if equal else ""
        return Values("rounded", f"whole numbers, but {left_out}{about}: rounded CPM or other normalised values")
    if equal and same < 0.5:
        return Values("rounded", f"whole numbers, but every cell sums to about {middle:,.0f}: rounded CPM or TPM")
    warnings = []
    if equal:
        warnings.append(f"every cell has {middle:,.0f} counts: down-sampled data")
    if largest <= 1.5 and matrix.shape[0] >= 20:
        warnings.append("no count is larger than 1: the matrix may have been binarised, or is very shallow")
    return Values("counts", "raw counts", tuple(warnings))


def _judge_fractions(matrix: sp.csr_matrix, largest: float, totals: npt.NDArray[np.float64]) -> Values:
    """Fractions: name what was done to the counts, or take them for estimated counts."""
    if largest**2 <= MAX_EXACT and _is_whole(_undone(matrix, np.square)):
        return Values("log", "square root of counts, without scaling")
    if _is_scaled(matrix):
        return Values("scaled", "every gene has a standard deviation of 1: scaled data")
    if _has_size_factors(matrix) and not _equal(totals):
        return Values(
            "normalised", "counts divided by a size factor per cell (whole multiples of each cell's smallest value)"
        )
    if largest < LOG_MAX and not _equal(totals):
        return Values("log", _log_words(matrix, largest))
    if _equal(totals):
        total = float(np.median(totals))
        name = "CPM or TPM" if abs(total / 1e6 - 1) < 0.05 else "normalised values"
        return Values("normalised", f"{name}: fractions, and every cell sums to about {total:,.0f}")
    if largest < ESTIMATED_MAX:
        return Values("normalised", f"fractions, none above {largest:.3g}: normalised values")
    if totals.size >= 20 and _spread(totals) < _NEAR_TOTALS:
        return Values(
            "normalised",
            f"fractions, and the cells' totals differ by {_spread(totals):.0%} only (median {np.median(totals):,.0f}): "
            "CPM or TPM of which genes were removed",
        )
    return Values(
        "estimated",
        f"fractional values up to {largest:,.0f} with unequal totals, like estimated counts (RSEM, Salmon, kallisto) "
        "or counts corrected for ambient RNA",
    )


def classify(matrix: Any) -> Values:
    """Tell what the values of a sparse matrix (cells x genes) are.

    Returns
    -------
    ``counts`` (whole numbers >= 0, also when stored as floats) or ``estimated`` (fractional, large, unequal totals:
    RSEM, Salmon, kallisto, or counts corrected for ambient RNA); anything else must be refused. ``words`` describe
    what was found.

    What cannot be told from counts: values rounded to whole numbers after division by a factor above the depth of
    every cell (such as CP10k of cells with more than 10,000 UMI, when genes were removed afterwards), and counts
    corrected to a common depth by a model (SCTransform's corrected counts).
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
    parts = (data[piece] for piece in pieces(data.size))
    is_whole = data.dtype.kind != "f" or all(np.abs(part - np.rint(part)).max() <= 1e-4 for part in parts)
    totals = _totals(matrix)
    return _judge_whole(matrix, largest, totals) if is_whole else _judge_fractions(matrix, largest, totals)
