"""Clones of one patient: a mixture of copy-number profiles, grown as long as held-out genes and cells support it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import special

from dtcflow.cnv.arms import ArmStatistics, SplitStatistics
from dtcflow.cnv.mixture import (
    Bools,
    Mixture,
    Regions,
    best_split,
    candidate_regions,
    cell_likelihood,
    fit_mixture,
    group_residuals,
    mean_profile,
    region_means,
    residuals,
    segment_variance,
)
from dtcflow.cnv.null import Floats
from dtcflow.cnv.tree import newick

__all__ = ["Clones", "find_clones", "newick"]

MIN_CELLS_PER_CLONE = 10
MAX_CLONES = 5
MIN_OBJECTIVE = 6.0
"""Penalised log likelihood by which two clones must be better than one.

Normal cells of one type and donor reach 3.3 at most where no mosaic is known (ovarian patients 11 and 13)."""
MIN_HELD_OUT = 3.0
"""Predictive log likelihood that a division must gain on genes that took no part in it."""
CELL_FOLDS = 5
INCLUDED = 0.9
"""Posterior probability from which on an arm counts as different between two clones."""
OFFSET_TAU = 0.15
"""SD over segments of the expression difference between compartments, before any cell of the second is seen."""
PRIVATE_EFFECT = 0.2
"""Smallest difference of an arm between two compartments that makes two clones of one."""
BOOTSTRAPS = 50
MIN_JACCARD = 0.6
"""Overlap from which on a clone counts as found again in a bootstrap replicate (Hennig 2007, Comput Stat Data Anal
52:258: below 0.6 a cluster is not to be trusted)."""
MIN_SUPPORT = 0.3
"""A clone that fewer replicates find again is dissolved."""


@dataclass(frozen=True)
class Clones:
    """``label`` per cell (0, 1, ...; -1 outside the tumour), number of clones and what was found."""

    label: npt.NDArray[np.int64]
    n_clones: int
    status: str
    """``single_clone``, ``resolved`` or ``too_few_cells`` (``none`` without any malignant cell)."""
    support: tuple[float, ...]
    """Per clone: share of bootstrap replicates that find it again (without bootstrap: mean posterior of its cells)."""
    posterior: Floats = field(default_factory=lambda: np.empty(0))
    """Per cell: posterior probability of its own clone; NaN outside the tumour."""
    n_bootstrap: int = 0


def _one_hot(label: npt.NDArray[np.int64], k: int) -> Floats:
    return np.eye(k)[label]


def held_out_gain(statistics: SplitStatistics, mixture: Mixture, regions: Regions, inflation: Floats) -> float:
    """Predictive log likelihood of a division on genes and cells that took no part in it, against a single clone.

    In turn a fifth of the cells is left out and the profiles are learned from the others. One half of the genes of a
    left-out cell says which clone it belongs to, the other half is predicted. Both halves serve in turn.
    """
    n = len(statistics.full.u)
    whole = group_residuals(statistics.full, inflation)
    halves = [group_residuals(half, inflation) for half in statistics.halves]
    fold = np.arange(n) % CELL_FOLDS
    gain = 0.0
    for k in range(CELL_FOLDS):
        held, rest = fold == k, fold != k
        if not held.any() or rest.sum() < 2:
            continue
        fit = fit_mixture(whole[rest], mixture.responsibility[rest], regions)
        sides = [cell_likelihood(half[held], fit.profiles) for half in halves]
        prior = np.log(fit.shares)
        for judge, judged in (sides, sides[::-1]):
            belief = special.log_softmax(judge + prior, axis=1)
            gain += float(special.logsumexp(belief + judged, axis=1).sum())
    return gain


def gene_half_gain(statistics: SplitStatistics, regions: Regions, inflation: Floats) -> float:
    """Predictive log likelihood of the division found on one half of the genes, on the other half; both ways summed.

    Neither the profile nor the membership knows the judging genes, so expression programmes do not replicate.
    """
    halves = [group_residuals(half, inflation) for half in statistics.halves]
    gain = 0.0
    for judge, judged in (halves, halves[::-1]):
        fit = best_split(judge, regions)
        if fit is not None:
            belief = np.log(np.maximum(fit.responsibility, 1e-12))
            gain += float(special.logsumexp(belief + cell_likelihood(judged, fit.profiles), axis=1).sum())
    return gain


def differing_arms(
    statistics: SplitStatistics, mixture: Mixture, regions: Regions, inflation: Floats, effect: float
) -> Bools:
    """Arms (of ``regions.arms``) in which two clones differ: by posterior, effect size and both halves of the genes."""
    chosen = mixture.region

    def difference(part: ArmStatistics) -> Floats:
        mean, _ = region_means(group_residuals(part, inflation), mixture.responsibility, regions, 0.0)
        return np.asarray((mean[1] - mean[0])[chosen])

    full = difference(statistics.full)
    first, second = (difference(half) for half in statistics.halves)
    agree = (np.sign(first) == np.sign(full)) & (np.sign(second) == np.sign(full))
    agree &= np.minimum(np.abs(first), np.abs(second)) >= effect / 2
    return np.asarray((mixture.included >= INCLUDED) & (np.abs(full) >= effect) & agree)


def _split(
    statistics: SplitStatistics, regions: Regions, inflation: Floats, effect: float
) -> npt.NDArray[np.int64] | None:
    """Divide cells in two where all of it stands: likelihood, an arm that differs, and held-out genes."""
    data = group_residuals(statistics.full, inflation)
    mixture = best_split(data, regions)
    if mixture is None or mixture.objective < MIN_OBJECTIVE:
        return None
    side = np.asarray(mixture.responsibility[:, 1] > 0.5, dtype=np.int64)
    if min(side.sum(), len(side) - side.sum()) < MIN_CELLS_PER_CLONE:
        return None
    if not differing_arms(statistics, mixture, regions, inflation, effect).any():
        return None
    if (
        max(held_out_gain(statistics, mixture, regions, inflation), gene_half_gain(statistics, regions, inflation))
        < MIN_HELD_OUT
    ):
        return None
    return side


def _grow(
    statistics: SplitStatistics, regions: Regions, inflation: Floats, effect: float
) -> list[npt.NDArray[np.int64]]:
    """Rows of each clone of the cells of one compartment."""
    groups = [np.arange(len(statistics.full.u))]
    closed: list[npt.NDArray[np.int64]] = []
    while groups and len(groups) + len(closed) < MAX_CLONES:
        groups.sort(key=lambda g: (-len(g), int(g[0])))
        group = groups.pop(0)
        side = _split(statistics[group], regions, inflation, effect) if len(group) >= 2 * MIN_CELLS_PER_CLONE else None
        if side is None:
            closed.append(group)
        else:
            groups += [group[side == 0], group[side == 1]]
    return [*groups, *closed]


@dataclass(frozen=True)
class _Fit:
    responsibility: Floats
    profiles: Floats


def refine(
    full: ArmStatistics,
    start: Floats,
    place: npt.NDArray[np.int64],
    regions: Regions,
    inflation: Floats,
    *,
    rounds: int = 4,
) -> _Fit:
    """Fit all clones in all compartments together.

    Every compartment but the first (``place`` 0) has its own offset per segment, drawn towards 0, so that differences
    of expression between compartments are not taken for clones.
    """
    weights = start
    profiles = np.zeros((start.shape[1], full.u.shape[1]))
    offset = np.zeros((int(place.max(initial=0)) + 1, full.u.shape[1]))
    base = mean_profile(full[place == 0])
    first = np.flatnonzero(place == 0)
    raw = full.u - full.info * (base + offset[place])
    variance = segment_variance(raw[first], full.info[first], inflation)
    for _ in range(rounds):
        data = residuals(full, base + offset[place], variance)
        fit = fit_mixture(data, weights, regions, rounds=10)
        weights, profiles = fit.responsibility, fit.profiles
        raw = full.u - full.info * (weights @ profiles)
        base = mean_profile(ArmStatistics((raw - full.info * offset[place]), full.info, full.arms))
        for c in range(1, len(offset)):
            mine = place == c
            information = full.info[mine].sum(axis=0)
            left = (raw[mine] - full.info[mine] * base).sum(axis=0)
            offset[c] = left / (information + variance / OFFSET_TAU**2)
    return _Fit(weights, profiles)


def _private(
    statistics: SplitStatistics, first: Bools, second: Bools, regions: Regions, inflation: Floats, effect: float
) -> bool:
    """Whether one clone has an event in one compartment only.

    Compartments differ in expression: how much a segment and an arm differ without any event is measured on the other
    arms of the very same comparison.
    """
    label = np.where(second, 1, 0)[first | second]
    part = statistics[first | second]
    weights = _one_hot(label, 2)
    raw, information = _difference(part.full, weights)
    owner = regions.member[[int(np.flatnonzero(regions.arm == a)[0]) for a in range(len(regions.arms))]]
    weight = information * owner
    mean = (weight @ raw) / np.maximum(weight.sum(axis=1), 1e-9)
    mean -= np.median(mean)
    noise = 1.0 / np.maximum(weight.sum(axis=1), 1e-9)
    spread = 1.4826 * float(np.median(np.abs(mean)))
    sides = []
    for half in part.halves:
        half_raw, half_information = _difference(half, weights)
        half_weight = half_information * owner
        half_mean = (half_weight @ half_raw) / np.maximum(half_weight.sum(axis=1), 1e-9)
        sides.append(half_mean - np.median(half_mean))
    agree = np.minimum(sides[0] * np.sign(mean), sides[1] * np.sign(mean)) >= max(effect, PRIVATE_EFFECT) / 2
    typical = np.sqrt(np.median(noise))
    z = np.abs(mean) / np.sqrt(noise * inflation.mean() + max(spread**2 - typical**2, 0.05**2))
    return bool(np.any((np.abs(mean) >= max(effect, PRIVATE_EFFECT)) & agree & (z >= 5.0)))


def _difference(part: ArmStatistics, weights: Floats) -> tuple[Floats, Floats]:
    """Difference of two groups' log ratios per segment, and its information."""
    info = weights.T @ part.info
    ratio = (weights.T @ part.u) / np.maximum(info, 1e-9)
    return ratio[1] - ratio[0], 1.0 / np.maximum(1.0 / np.maximum(info, 1e-9), 1e-12).sum(axis=0)


def _elsewhere(
    statistics: SplitStatistics,
    label: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    regions: Regions,
    inflation: Floats,
    effect: float,
) -> npt.NDArray[np.int64]:
    """Clones of the smaller compartments that the largest one does not hold."""
    label = label.copy()
    for c in range(1, int(place.max(initial=0)) + 1):
        for k in range(int(label.max()) + 1):
            n_clones = int(label.max()) + 1
            mine = np.flatnonzero((label == k) & (place == c))
            if n_clones >= MAX_CLONES or len(mine) < MIN_CELLS_PER_CLONE:
                continue
            side = (
                _split(statistics[mine], regions, inflation, effect) if len(mine) >= 2 * MIN_CELLS_PER_CLONE else None
            )
            home = (label == k) & (place == 0)
            if side is not None:
                fewer = int(side.sum() * 2 <= len(side))
                label[mine[side == fewer]] = n_clones
            elif home.sum() >= MIN_CELLS_PER_CLONE and _private(
                statistics, home, (label == k) & (place == c), regions, inflation, effect
            ):
                label[mine] = n_clones
    return label


def _bootstrap(
    statistics: SplitStatistics,
    label: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    regions: Regions,
    inflation: Floats,
    *,
    replicates: int,
    seed: int,
) -> tuple[float, ...]:
    """Share of replicates in which each clone is found again when the genes of every arm are resampled.

    The units are the halves of the segments (about 20 genes each); the mixture is fitted anew from the clones found.
    """
    rng = np.random.default_rng(seed)
    k = int(label.max()) + 1
    found = np.zeros(k)
    first, second = statistics.halves
    for _ in range(replicates):
        times = resampled_units(regions, rng)
        u = first.u * times[0] + second.u * times[1]
        info = first.info * times[0] + second.info * times[1]
        fit = refine(ArmStatistics(u, info, first.arms), _one_hot(label, k), place, regions, inflation, rounds=2)
        again = np.argmax(fit.responsibility, axis=1)
        for j in range(k):
            both = np.sum((label == j) & (again == j))
            found[j] += both / max(1, np.sum((label == j) | (again == j))) >= MIN_JACCARD
    return tuple(float(x) for x in found / replicates)


def _stable(
    statistics: SplitStatistics,
    label: npt.NDArray[np.int64],
    own: Floats,
    place: npt.NDArray[np.int64],
    regions: Regions,
    inflation: Floats,
    replicates: int,
    seed: int,
) -> tuple[npt.NDArray[np.int64], Floats, tuple[float, ...]]:
    """Labels, posteriors and bootstrap support once clones that do not come back are dissolved, the weakest first."""
    while True:
        support = _bootstrap(statistics, label, place, regions, inflation, replicates=replicates, seed=seed)
        weakest = int(np.argmin(support))
        if len(support) == 1 or support[weakest] >= MIN_SUPPORT:
            return label, own, support
        if len(support) == 2:
            return np.zeros_like(label), np.ones(len(label)), (1.0,)
        fit = refine(statistics.full, _one_hot(label, len(support)), place, regions, inflation, rounds=1)
        left = np.delete(fit.responsibility, weakest, axis=1)
        again = np.where(label > weakest, label - 1, label)
        again = np.where(label == weakest, np.argmax(left, axis=1), again)
        label = _by_size(np.asarray(again, dtype=np.int64), statistics.full)
        fit = refine(statistics.full, _one_hot(label, len(support) - 1), place, regions, inflation, rounds=1)
        own = fit.responsibility[np.arange(len(label)), label]


def resampled_units(regions: Regions, rng: np.random.Generator) -> Floats:
    """Halves x segments: how often each half-segment is drawn when an arm's are resampled with replacement."""
    times = np.zeros((2, regions.member.shape[1]))
    for a in range(len(regions.arms)):
        columns = np.flatnonzero(regions.member[np.flatnonzero(regions.arm == a)].any(axis=0))
        drawn = rng.integers(0, 2 * len(columns), 2 * len(columns))
        np.add.at(times, (drawn % 2, columns[drawn // 2]), 1.0)
    return times


def find_clones(
    statistics: SplitStatistics,
    malignant: npt.NDArray[np.bool_],
    compartment: npt.NDArray[np.object_],
    *,
    inflation: Floats,
    min_abs_log_ratio: float,
    bootstraps: int = 0,
    seed: int = 0,
) -> Clones:
    """Divide a patient's malignant cells into clones.

    Clones are learned in the compartment with most malignant cells against the mean of its own cells; the cells of the
    other compartments join the clone they are most likely of, with an expression offset of their compartment. A clone
    is divided only when held-out genes of held-out cells, an arm (or a run of segments) that differs in both halves of
    the genes, and the penalised likelihood ask for it. The result does not depend on the order of the cells; clones are
    numbered by size.

    Parameters
    ----------
    statistics
        Segments (``1q:03``) or whole arms (``1q``) of all cells.
    malignant, compartment
        Per cell.
    inflation
        Per segment or arm.
    min_abs_log_ratio
        Smallest difference of a region between two clones.
    bootstraps, seed
        Replicates for ``support`` and the seed of their draws.
    """
    n = len(malignant)
    label = np.full(n, -1, dtype=np.int64)
    posterior = np.full(n, np.nan)
    rows = np.flatnonzero(malignant)
    if len(rows) < 2 * MIN_CELLS_PER_CLONE:
        label[rows], posterior[rows] = 0, 1.0
        return Clones(label, int(len(rows) > 0), "too_few_cells", (1.0,) * int(len(rows) > 0), posterior)
    u, info = statistics.full.u, statistics.full.info
    rows = rows[np.lexsort((u[rows, -1], u[rows, 0], info[rows, 0], compartment[rows].astype(str)))]
    part = statistics[rows]
    names, code, sizes = np.unique(compartment[rows].astype(str), return_inverse=True, return_counts=True)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.lexsort((names, -sizes))] = np.arange(len(names))
    place = rank[code]
    regions = candidate_regions(statistics.full.arms)
    home = np.flatnonzero(place == 0)
    groups = _grow(part[home], regions, inflation, min_abs_log_ratio)
    start = np.full((len(rows), len(groups)), 1.0 / len(groups))
    for k, group in enumerate(groups):
        start[home[group]] = np.eye(len(groups))[k]
    current = np.argmax(start, axis=1)
    if len(groups) > 1:
        start[place > 0] = _assign(part.full, start, place, regions, inflation)[place > 0]
        current = np.argmax(refine(part.full, start, place, regions, inflation).responsibility, axis=1)
        if np.bincount(current[home], minlength=len(groups)).min() < MIN_CELLS_PER_CLONE:
            current = np.argmax(start, axis=1)
    current = _by_size(_elsewhere(part, current, place, regions, inflation, min_abs_log_ratio), part.full)
    n_clones = int(current.max()) + 1
    own = np.ones(len(rows))
    support: tuple[float, ...] = (1.0,) * n_clones
    if n_clones > 1:
        fit = refine(part.full, _one_hot(current, n_clones), place, regions, inflation, rounds=1)
        own = fit.responsibility[np.arange(len(rows)), current]
        support = tuple(float(own[current == k].mean()) for k in range(n_clones))
        if bootstraps:
            current, own, support = _stable(part, current, own, place, regions, inflation, bootstraps, seed)
            n_clones = len(support)
    label[rows], posterior[rows] = current, own
    status = "resolved" if n_clones > 1 else "single_clone"
    return Clones(label, n_clones, status, support, posterior, bootstraps)


def _assign(
    full: ArmStatistics, start: Floats, place: npt.NDArray[np.int64], regions: Regions, inflation: Floats
) -> Floats:
    """Responsibilities of all cells under the profiles of the first compartment's clones."""
    home = place == 0
    expected = mean_profile(full[home])
    raw = full.u[home] - full.info[home] * expected
    data = residuals(full, expected, segment_variance(raw, full.info[home], inflation))
    fit = fit_mixture(data[home], start[home], regions, rounds=1)
    return np.asarray(special.softmax(cell_likelihood(data, fit.profiles) + np.log(fit.shares), axis=1))


def _by_size(label: npt.NDArray[np.int64], full: ArmStatistics) -> npt.NDArray[np.int64]:
    """Number the clones by size; equal ones by their mean profile."""
    present = np.unique(label)
    key = [(-int(np.sum(label == k)), tuple(np.round(mean_profile(full[label == k]), 6))) for k in present]
    order = sorted(range(len(present)), key=lambda i: key[i])
    new = np.empty(int(label.max()) + 1, dtype=np.int64)
    for position, i in enumerate(order):
        new[present[i]] = position
    return np.asarray(new[label])
