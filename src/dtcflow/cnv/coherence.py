r"""Tell a clone from a cell type: is the shift of an arm the same all along the arm?

A copy-number change moves every segment of its arm alike. A cell type that the reference lacks moves segments one by
one, because its genes differ one by one; the mean over an arm is then off as well, and a caller that knows only arms
takes a whole type for a clone. The scatter of neighbouring segments within arms measures how far the expression of
*this* group of cells is from what the reference expects, without any reference type to compare with, and gives the
error of its arm means:

.. math:: r_s = m_{a(s)} + e_s + \epsilon_s, \qquad \epsilon_s \sim (0, v_s),\; v_s = \kappa_s / I_s, \qquad
          \hat\sigma^2 = \overline{\tfrac12 (r_{s+1} - r_s)^2 - \tfrac12 (v_s + v_{s+1})},

with :math:`r_s` the pooled log ratio of segment :math:`s`, :math:`\kappa` the inflation and the mean taken over
neighbours on one arm (difference-based variance, Rice 1984, doi:10.1214/aos/1176346788: a breakpoint within the arm
enters one difference only; the largest twentieth is winsorised). An arm's mean then has the variance
:math:`1 / \sum_{s \in a} (\hat\sigma^2 + v_s)^{-1}`. Nothing here looks at labels of cell types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow.cnv.arms import ArmStatistics, SplitStatistics, arm_sort_key
from dtcflow.cnv.null import Floats

Integers = npt.NDArray[np.int64]

MIN_COHERENT_Z = 3.0
"""An arm counts from here on. Arm z of left-out normal types have a standard deviation of 0.8 to 1.5 (ovarian patients
11 and 13): up to p = .05 for an arm of the worst type, so that :data:`MIN_COHERENT_STRENGTH` asks for more."""
MIN_COHERENT_STRENGTH = 75.0
"""Sum of squared z over the arms that count, from which on a group is taken for a clone.

Chosen on ovarian patients 11 and 13: normal types, all cells of one together and scored without that type, reach 53 (B
cells; the others 19); 5 carcinoma cells reach 136 and more, 20 reach 269."""
MIN_POOL_STRENGTH = 100.0
"""The same for the best of all pools of neighbours (:func:`strongest_pool`), where left-out types reach 91."""
MIN_CHROMOSOMES = 2
"""A single altered chromosome is what benign mosaicism looks like; a tumour's genome has more than one."""
WINSORISED = 0.05
MIN_DIFFERENCES = 20
"""Fewer pairs of neighbouring segments do not measure a scatter; nothing is called then."""
POOL_SIZES = (4, 8, 16)
"""Neighbours pooled with a cell when clones are looked for: a clone of five cells must fill the smallest pool."""
MAX_POOL_Z = 6.0


@dataclass(frozen=True)
class Coherence:
    """What the segments of a group of cells say about its arms."""

    arms: pd.DataFrame
    """Index arm; ``log_ratio se z n_segments counts`` (``counts``: strong and large enough to be part of a genome)."""
    scatter: float
    """SD of a segment's log ratio around its arm beyond sampling noise; NaN when it cannot be measured."""
    strength: float
    """Sum of squared z over the arms that count."""
    n_chromosomes: int
    """Chromosomes with such an arm."""

    @property
    def is_clone(self) -> bool:
        """Whether the group has a genome of its own: strong enough and on more than one chromosome."""
        return self.strength >= MIN_COHERENT_STRENGTH and self.n_chromosomes >= MIN_CHROMOSOMES


def arm_of_segments(segments: Sequence[str]) -> npt.NDArray[np.object_]:
    """Arm of each segment name (``1q:03`` -> ``1q``)."""
    return np.array([name.split(":")[0] for name in segments], dtype=object)


@lru_cache(maxsize=8)
def _layout(segments: tuple[str, ...]) -> tuple[Integers, Integers, list[str]]:
    """Order that puts the segments of an arm side by side, number of the arm per ordered segment, and all arms."""
    arm = arm_of_segments(segments)
    names = sorted(set(arm.tolist()), key=arm_sort_key)
    rank = {name: k for k, name in enumerate(names)}
    order = np.array(sorted(range(len(segments)), key=lambda i: (rank[arm[i]], segments[i])), dtype=np.int64)
    return order, np.array([rank[a] for a in arm[order]], dtype=np.int64), names


def segment_scatter(log_ratio: Floats, variance: Floats, arm: npt.NDArray[np.object_] | Integers) -> float:
    """Standard deviation of segments around their arm beyond sampling noise (see the module).

    One standard error is added to the variance: a few cells do not show that there is no scatter.

    Parameters
    ----------
    log_ratio, variance
        Per segment in genome order: pooled log ratio and its sampling variance (infinite: not measured).
    arm
        Arm of each segment.

    Returns
    -------
    float
        NaN with fewer than 20 pairs of neighbours.
    """
    rows = np.flatnonzero(np.isfinite(variance) & np.isfinite(log_ratio))
    first, second = rows[:-1], rows[1:]
    pair = arm[first] == arm[second]
    first, second = first[pair], second[pair]
    if len(first) < MIN_DIFFERENCES:
        return float("nan")
    squares = 0.5 * np.square(log_ratio[second] - log_ratio[first])
    squares = np.minimum(squares, np.quantile(squares, 1.0 - WINSORISED))
    excess = float(np.mean(squares - 0.5 * (variance[first] + variance[second])))
    # SD of a mean of squares of normal differences, every second pair sharing a segment: sqrt(3 / n) of the mean
    return float(np.sqrt(max(0.0, excess) + np.sqrt(3.0 / len(squares)) * float(squares.mean())))


def coherence(
    segments: ArmStatistics, *, inflation: Floats, min_abs_log_ratio: float, weights: Floats | None = None
) -> Coherence:
    """Arm means of a group of cells with the error that its own segments show.

    Parameters
    ----------
    segments
        Score and information of the group's cells, cells x segments named ``arm:number`` in genome order per arm.
    inflation
        Per segment: variance of the matched z (1 for a perfect model).
    min_abs_log_ratio
        Smallest log ratio of an arm that counts.
    weights
        Weight per cell (membership); 1 without it.

    Returns
    -------
    Coherence
        With no cell, or too few segments, nothing counts and ``scatter`` is NaN.
    """
    weights = np.ones(len(segments.u)) if weights is None else weights
    u, info = weights @ segments.u, weights @ segments.info
    square = np.square(weights) @ segments.info
    measured = info > 0
    log_ratio = np.where(measured, u / np.where(measured, info, 1.0), np.nan)
    variance = np.where(measured, inflation * square / np.where(measured, np.square(info), 1.0), np.inf)
    order, position, names = _layout(segments.arms)
    return _arm_means(log_ratio[order], variance[order], position, names, min_abs_log_ratio)


def _arm_means(
    log_ratio: Floats, variance: Floats, position: Integers, names: list[str], min_abs_log_ratio: float
) -> Coherence:
    scatter = segment_scatter(log_ratio, variance, position)
    total = variance + scatter**2
    weight = np.where(np.isfinite(total) & (total > 0), 1.0 / np.where(total > 0, total, 1.0), 0.0)
    sums = np.bincount(position, weights=weight, minlength=len(names))
    means = np.bincount(position, weights=weight * np.nan_to_num(log_ratio), minlength=len(names))
    known = sums > 0
    mean = np.where(known, means / np.where(known, sums, 1.0), np.nan)
    mean = mean - (np.median(mean[known]) if known.any() else 0.0)
    se = np.where(known, 1.0 / np.sqrt(np.where(known, sums, 1.0)), np.inf)
    z = np.where(known, mean / se, 0.0)
    counts = (np.abs(z) >= MIN_COHERENT_Z) & (np.abs(np.nan_to_num(mean)) >= min_abs_log_ratio)
    table = pd.DataFrame(
        {
            "log_ratio": mean,
            "se": se,
            "z": z,
            "n_segments": np.bincount(position, minlength=len(names)),
            "counts": counts,
        },
        index=pd.Index(names, name="arm"),
    )
    chromosomes = {str(a)[:-1] for a in table.index[counts]}
    return Coherence(table, scatter, float(np.square(z[counts]).sum()), len(chromosomes))


def permutation_p(
    segments: ArmStatistics, *, inflation: Floats, min_abs_log_ratio: float, n_permutations: int, seed: int
) -> float:
    """P-value of the group's strength when its segments are dealt to the arms at random.

    Segments change places within five strata of equal information. A cell type keeps its strength (its segments know
    nothing of arms); a clone loses it. The scatter is measured again on every permutation, where a true arm's
    shift has become scatter, so that the test asks for coherence and not for size.
    """
    u, info = segments.u.sum(axis=0), segments.info.sum(axis=0)
    measured = info > 0
    log_ratio = np.where(measured, u / np.where(measured, info, 1.0), np.nan)
    variance = np.where(measured, inflation / np.where(measured, info, 1.0), np.inf)
    layout, position, names = _layout(segments.arms)
    log_ratio, variance, info = log_ratio[layout], variance[layout], info[layout]
    observed = _arm_means(log_ratio, variance, position, names, min_abs_log_ratio).strength
    stratum = np.argsort(np.argsort(info, kind="stable"), kind="stable") * 5 // max(1, len(info))
    rng = np.random.default_rng(seed)
    reached = 0
    for _ in range(n_permutations):
        order = np.arange(len(info))
        for value in np.unique(stratum):
            inside = np.flatnonzero(stratum == value)
            order[inside] = rng.permutation(inside)
        reached += (
            _arm_means(log_ratio[order], variance[order], position, names, min_abs_log_ratio).strength >= observed
        )
    return (1.0 + reached) / (1.0 + n_permutations)


@dataclass(frozen=True)
class Pool:
    """The cells that look most like one clone: ``rows`` of the statistics, and what unseen genes say about them."""

    rows: Integers
    """Members that the genome of the other members fits better than a flat one."""
    coherence: Coherence
    """Of the whole pool, on genes that had no part in choosing it."""

    @property
    def is_clone(self) -> bool:
        """Whether the best of all pools has a genome of its own."""
        return self.coherence.strength >= MIN_POOL_STRENGTH and self.coherence.n_chromosomes >= MIN_CHROMOSOMES


def strongest_pool(
    segments: SplitStatistics,
    *,
    inflation: Floats,
    min_abs_log_ratio: float,
    sizes: Sequence[int] = POOL_SIZES,
) -> Pool | None:
    """Look for a clone among candidate cells of any types: pools of neighbours, chosen and judged on different genes.

    Every cell is pooled with the cells whose arms deviate like its own on one half of the genes; how coherent the pool
    is, is then measured on the other half. The strongest of all pools (both ways round, all sizes; those of two
    chromosomes and more first) is returned: the seeds of a clone when it :attr:`~Pool.is_clone`, and otherwise evidence
    that there is none to be seen. Members of a clone's pool that the genome of the other members does not fit are left
    out: they filled up a pool that was larger than the clone.

    Parameters
    ----------
    segments
        The candidates, cells x segments.
    inflation, min_abs_log_ratio
        See :func:`coherence`.
    sizes
        Neighbours per pool.

    Returns
    -------
    Pool or None
        None with fewer candidates than the smallest pool has.
    """
    n = len(segments.full.u)
    arm = arm_of_segments(segments.full.arms)
    best: Pool | None = None
    judge = 0
    for chosen, judged in ((0, 1), (1, 0)):
        similarity = _similarity(segments.halves[chosen], arm)
        order = np.argsort(-similarity, axis=1, kind="stable")
        for size in sizes:
            if size >= n:
                continue
            for i in range(n):
                rows = np.sort(np.append(order[i, :size], i)).astype(np.int64)
                found = coherence(
                    segments.halves[judged][rows], inflation=inflation, min_abs_log_ratio=min_abs_log_ratio
                )
                pool = Pool(rows, found)
                # mosaicism of one chromosome may be the strongest there is and must not hide a clone
                if best is None or (pool.is_clone, found.strength) > (best.is_clone, best.coherence.strength):
                    best, judge = pool, judged
    if best is None or not best.is_clone:
        return best
    return Pool(_fitting(segments.halves[judge], best.rows, inflation, min_abs_log_ratio), best.coherence)


def _fitting(segments: ArmStatistics, rows: Integers, inflation: Floats, min_abs_log_ratio: float) -> Integers:
    """Members of a pool whose own likelihood ratio for the genome of the other members is positive."""
    arm = arm_of_segments(segments.arms)
    kept = []
    for row in rows:
        others = coherence(segments[rows[rows != row]], inflation=inflation, min_abs_log_ratio=min_abs_log_ratio)
        profile = others.arms["log_ratio"].where(others.arms["counts"], 0.0).loc[arm.tolist()].to_numpy(dtype=float)
        info = segments.info[row] / inflation
        profile = profile - float(info @ profile) / max(float(info.sum()), 1e-9)
        if float(profile @ (segments.u[row] / inflation) - 0.5 * np.square(profile) @ info) > 0:
            kept.append(row)
    return np.asarray(kept, dtype=np.int64)


def _similarity(segments: ArmStatistics, arm: npt.NDArray[np.object_]) -> Floats:
    """Products of the cells' arm z (clipped); the diagonal is lowest."""
    names = list(dict.fromkeys(arm.tolist()))
    member = (arm[:, None] == np.array(names, dtype=object)[None, :]).astype(float)
    whole = ArmStatistics(segments.u @ member, segments.info @ member, tuple(names))
    z = np.clip(whole.centred()[1], -MAX_POOL_Z, MAX_POOL_Z)
    similarity = z @ z.T
    np.fill_diagonal(similarity, -np.inf)
    return np.asarray(similarity)
