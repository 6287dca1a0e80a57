"""False-discovery rates: Benjamini-Hochberg within groups of cells, and target against decoy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

MIN_NULL_SHARE = 0.2


def benjamini_hochberg(p: Floats, *, adaptive: bool = False) -> Floats:
    """Benjamini-Hochberg adjusted p-values; NaN entries are not counted and stay NaN.

    ``adaptive`` multiplies by the estimated share of true nulls, ``(1 + #{p > 1/2}) / (n / 2)`` and at most 1, which
    keeps the false-discovery rate for finite n (Storey, Taylor & Siegmund 2004, J R Stat Soc B 66:187). The share is
    never taken for less than :data:`MIN_NULL_SHARE`: cells of one unseen type err together, which the estimate misses.
    """
    adjusted = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if known.any():
        estimate = (1.0 + np.sum(p[known] > 0.5)) / (0.5 * known.sum())
        share = float(np.clip(estimate, MIN_NULL_SHARE, 1.0)) if adaptive else 1.0
        adjusted[known] = share * stats.false_discovery_control(p[known], method="bh")
    return adjusted


def stratified_q(
    p: Floats, stratum: npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_], *, adaptive: bool = False
) -> Floats:
    """Benjamini-Hochberg within each stratum (candidates and other cells).

    Whether a cell looks epithelial is decided without its copy number, so under the null the strata are exchangeable
    and a few candidates need not pay for thousands of marrow cells.
    """
    q = np.full(p.shape, np.nan)
    for value in np.unique(stratum):
        q[stratum == value] = benjamini_hochberg(p[stratum == value], adaptive=adaptive)
    return q


def strata(candidate: Bools, *, lineage_normal: Bools, blood: Bools, marrow: Bools) -> Ints:
    """Groups of cells whose false-discovery rate is controlled on its own; decided without copy number.

    0 resident lineage; 1 resident lineage with epithelial evidence (ambient-coated cells, doublets), which must not
    profit from clear candidates; 2 clear candidates; 3 cells out of place: no lineage, or stroma among blood cells.
    The few of the marrow are kept apart from the many of the tissue (+4).
    """
    out_of_place = ~candidate & (~lineage_normal | (marrow & ~blood))
    group = np.where(candidate, np.where(lineage_normal, 1, 2), np.where(out_of_place, 3, 0))
    return np.asarray(group + 4 * marrow, dtype=np.int64)


def decoy_q(target: Floats, decoys: Floats) -> Floats:
    r"""False-discovery rate of every cell by competition of the target's score with the scores of decoys.

    With :math:`D` decoys the estimate at a threshold :math:`t` is

    .. math:: \widehat{\mathrm{FDR}}(t) = \frac{1 + \sum_d \#\{i: T^d_i \ge t,\ T^d_i > T_i\}}
              {D \, \max(1, \#\{i: T_i \ge t\})},

    and a cell's q-value is its minimum over the thresholds at which the cell is accepted. A cell counts for a decoy
    only where the decoy explains it better than the target, as in target-decoy competition of peptide spectra
    (Elias & Gygi 2007, Nat Methods 4:207).

    Parameters
    ----------
    target
        Score per cell; NaN cells take no part.
    decoys
        Cells x decoys.
    """
    q = np.full(target.shape, np.nan)
    known = np.flatnonzero(np.isfinite(target))
    if not len(known) or not decoys.shape[1]:
        return q
    score, other = target[known], decoys[known]
    wins = np.sort(other[(other > score[:, None]) & np.isfinite(other)])
    order = np.argsort(-score, kind="stable")
    accepted = len(score) - np.searchsorted(np.sort(score), score[order], side="left")
    false = len(wins) - np.searchsorted(wins, score[order], side="left")
    estimate = (1.0 + false) / (decoys.shape[1] * np.maximum(accepted, 1))
    q[known[order]] = np.minimum(np.minimum.accumulate(estimate[::-1])[::-1], 1.0)
    return q
