r"""Arm calls of a group of cells whose error is measured on the group itself.

An arm that gained or lost a copy is shifted along its whole length; expression that differs from that of the reference
differs gene by gene. With :math:`y_s` the log ratio of segment :math:`s`, the spread of the segments around the mean of
their arm, beyond counting noise, is the segment-level error :math:`\tau_{seg}` of these very cells against this very
reference (DerSimonian & Laird 1986, Control Clin Trials 7:177, pooled over the arms), and an arm of :math:`n` segments
is known to about :math:`\tau_{seg} / \sqrt n`. The spread of the middle of the arms gives what is left between arms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from dtcflow.cnv.arms import SplitStatistics
from dtcflow.cnv.fdr import benjamini_hochberg
from dtcflow.cnv.mixture import arm_of
from dtcflow.cnv.null import TAU_FLOOR, Floats
from dtcflow.cnv.profile import ALPHA, NOT_ASSESSABLE_FROM, SINGLE_COPY_GAIN

NEUTRAL_WITHIN = 0.15
"""Arms within this log ratio of the centre take part in the next estimate of the centre."""
SPREAD_FACTOR = 1.2
"""Arms vary a little more than independent segments would. Chosen on the normal types of ovarian patients 11 and 13."""


@dataclass(frozen=True)
class ArmEstimates:
    """Log ratio per arm of one group of cells and how well it is known (all arrays one entry per arm)."""

    arms: tuple[str, ...]
    log_ratio: Floats
    """Centred on the neutral arms; NaN where the arm holds no information."""
    noise: Floats
    """SD from counting."""
    spread: Floats
    """SD from genes of this group that differ from the reference."""


def arm_members(names: tuple[str, ...]) -> tuple[tuple[str, ...], Floats]:
    """Arms in their order of appearance, and arms x segments membership (0 or 1)."""
    owner = [arm_of(name) for name in names]
    arms = tuple(dict.fromkeys(owner))
    return arms, np.array([[float(o == arm) for o in owner] for arm in arms]).reshape(len(arms), len(names))


def neutral_centre(log_ratio: Floats) -> float:
    """Level of the unaltered arms: median, repeated on the arms near it."""
    known = log_ratio[np.isfinite(log_ratio)]
    if not len(known):
        return 0.0
    centre = float(np.median(known))
    for _ in range(5):
        near = known[np.abs(known - centre) <= NEUTRAL_WITHIN]
        if len(near) < max(3, len(known) // 4):
            break
        centre = float(np.median(near))
    return centre


def estimate_arms(u: Floats, info: Floats, names: tuple[str, ...], inflation: Floats) -> ArmEstimates:
    """Estimates per arm from pooled segment sums ``u`` and ``info`` (one entry per segment)."""
    arms, member = arm_members(names)
    known = info > 0
    y = np.where(known, u / np.maximum(info, 1e-9), 0.0)
    noise = np.where(known, inflation / np.maximum(info, 1e-9), np.inf)
    tau2 = segment_tau(y, noise, member) ** 2
    weight = np.where(known, 1.0 / (noise + tau2), 0.0)
    total = member @ weight
    with np.errstate(invalid="ignore", divide="ignore"):
        log_ratio = np.where(total > 0, (member @ (weight * y)) / total, np.nan)
        counting = np.where(total > 0, np.sqrt(member @ (weight**2 * np.where(known, noise, 0.0))) / total, np.inf)
        spread = np.where(total > 0, np.sqrt(member @ weight**2 * tau2) / total, np.inf)
    return ArmEstimates(arms, log_ratio - neutral_centre(log_ratio), counting, spread)


def segment_tau(y: Floats, noise: Floats, member: Floats) -> float:
    """SD of segments around the mean of their arm beyond noise, pooled over the arms by their median."""
    found, sizes = [], []
    for row in member:
        columns = np.flatnonzero((row > 0) & np.isfinite(noise))
        if len(columns) < 2:
            continue
        w = 1.0 / noise[columns]
        mean = (w @ y[columns]) / w.sum()
        q = float(w @ np.square(y[columns] - mean))
        scale = float(w.sum() - np.square(w).sum() / w.sum())
        found.append((q - (len(columns) - 1)) / scale)
        sizes.append(len(columns) - 1)
    if not found:
        return 0.0
    order = np.argsort(found, kind="stable")
    cumulated = np.cumsum(np.array(sizes, dtype=float)[order])
    middle = float(np.array(found)[order][np.searchsorted(cumulated, cumulated[-1] / 2)])
    return float(np.sqrt(max(middle, 0.0)))


def clone_arm_table(
    statistics: SplitStatistics, *, inflation: Floats, tau: Floats, min_abs_log_ratio: float
) -> pd.DataFrame:
    """Arm calls of a group of cells from its segments.

    Parameters
    ----------
    statistics
        The group's cells x segments (``1q:03``). With whole arms (``1q``) instead the error cannot be measured on the
        group, and ``tau`` stands for it.
    inflation, tau
        Per segment (or arm), from the reference null.
    min_abs_log_ratio
        Smallest log ratio that is called.

    Returns
    -------
    pandas.DataFrame
        Indexed by arm; columns as :func:`dtcflow.cnv.profile.arm_table`.
    """
    names = statistics.full.arms
    whole = estimate_arms(statistics.full.u.sum(axis=0), statistics.full.info.sum(axis=0), names, inflation)
    sides = [estimate_arms(h.u.sum(axis=0), h.info.sum(axis=0), names, inflation).log_ratio for h in statistics.halves]
    se = np.sqrt(whole.noise**2 + systematic_error(whole, names, tau) ** 2)
    log_ratio = whole.log_ratio
    z = np.where(np.isfinite(se) & np.isfinite(log_ratio), log_ratio / se, np.nan)
    q = benjamini_hochberg(2.0 * stats.norm.sf(np.abs(z)))
    called = (np.nan_to_num(q, nan=1.0) < ALPHA) & (np.abs(np.nan_to_num(log_ratio)) >= min_abs_log_ratio)
    called &= halves_agree(log_ratio, sides[0], sides[1], min_abs_log_ratio)
    critical = stats.norm.isf(ALPHA / 2)
    smallest = np.maximum((critical + stats.norm.isf(0.2)) * se, min_abs_log_ratio)
    quiet = np.where(smallest > NOT_ASSESSABLE_FROM, "not_assessable", "neutral")
    return pd.DataFrame(
        {
            "log_ratio": log_ratio,
            "se": se,
            "ci_low": log_ratio - critical * se,
            "ci_high": log_ratio + critical * se,
            "q_value": q,
            "state": np.where(called, np.where(log_ratio > 0, "gain", "loss"), quiet),
            "power": np.where(np.isfinite(se), stats.norm.sf(critical - SINGLE_COPY_GAIN / se), 0.0),
            "smallest_detectable": np.where(np.isfinite(smallest), smallest, np.nan),
        },
        index=pd.Index(whole.arms, name="arm"),
    )


def systematic_error(whole: ArmEstimates, names: tuple[str, ...], tau: Floats) -> Floats:
    """SD of an arm's log ratio that more cells do not reduce: from the group's own segments, or ``tau`` without any."""
    if len(names) == len(whole.arms):
        return np.asarray(tau, dtype=np.float64)
    return np.maximum(SPREAD_FACTOR * whole.spread, TAU_FLOOR)


def halves_agree(log_ratio: Floats, first: Floats, second: Floats, effect: float) -> npt.NDArray[np.bool_]:
    """Arms whose two halves of the genes have the sign of the whole and at least half of the smallest effect."""
    sign = np.sign(log_ratio)
    with np.errstate(invalid="ignore"):
        return np.asarray((np.minimum(first * sign, second * sign) >= effect / 2), dtype=bool)
