r"""Mixture of copy-number profiles of tumour cells on segment statistics.

The tumour cells of one compartment share their lineage's expression, so every clone is described by how it differs from
their mean: with :math:`\bar u_s = \sum_i U_{is} / \sum_i I_{is}` the residual :math:`r_{is} = U_{is} - \bar u_s I_{is}`
of a cell of clone :math:`k` has mean :math:`d_{ks} I_{is}` and variance :math:`v_s I_{is}`. The profile :math:`d_k` is
piecewise constant: in each arm one region, the whole arm or a run of segments, either differs between the clones or
does not (spike and slab). What differs in scattered segments, as an expression programme does, fits no region.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from dtcflow.cnv.arms import ArmStatistics
from dtcflow.cnv.null import Floats

Bools = npt.NDArray[np.bool_]

MIN_RUN = 3
"""Segments of the shortest region within an arm (about 120 genes)."""
ARM_PRIOR = 0.10
"""Prior probability that a whole arm differs between clones."""
RUN_PRIOR = 0.02
"""Prior probability that some run of an arm differs; shared by all runs of the arm."""
SLAB = 0.35
"""SD of the difference where there is one: a copy more or less is 0.3 to 0.4 (dosage slope 0.8)."""
SEGMENT_TAU = 0.08
"""SD over segments of the expression difference of two groups of cells of one lineage."""
PRIOR_CELLS = 30.0
"""Weight, in cells, of the genome-wide variance when that of a segment is estimated."""
MIN_VARIANCE = 0.3
ROUNDS = 30
TOLERANCE = 1e-4
MAX_COMPONENTS, MAX_ARM_STARTS = 4, 16


def arm_of(name: str) -> str:
    """Arm of a segment (``1q:03``) or an arm (``1q``)."""
    return name.split(":")[0]


@dataclass(frozen=True)
class Regions:
    """Candidate regions in rows: whole arms and runs of segments within an arm."""

    member: Floats
    """regions x segments, 0 or 1."""
    arm: npt.NDArray[np.int64]
    """Index of the arm of each region."""
    log_prior: Floats
    arms: tuple[str, ...]


def candidate_regions(names: tuple[str, ...]) -> Regions:
    """Whole arms and all runs of at least :data:`MIN_RUN` segments of arms whose segments are in genome order."""
    owner = [arm_of(name) for name in names]
    arms = tuple(dict.fromkeys(owner))
    rows, index, prior = [], [], []
    for a, arm in enumerate(arms):
        columns = np.array([i for i, o in enumerate(owner) if o == arm])
        n = len(columns)
        runs = [(i, j) for i in range(n) for j in range(i + MIN_RUN, n + 1) if j - i < n]
        for i, j in [(0, n), *runs]:
            row = np.zeros(len(names))
            row[columns[i:j]] = 1.0
            rows.append(row)
            index.append(a)
            share = ARM_PRIOR if j - i == n else RUN_PRIOR / len(runs)
            prior.append(np.log(share / (1.0 - share)))
    return Regions(np.vstack(rows), np.array(index, dtype=np.int64), np.array(prior), arms)


@dataclass(frozen=True)
class Residuals:
    """Cells x segments against the mean of their group, in units of the noise: ``r`` / v and ``info`` / v."""

    r: Floats
    """Centred by the cell's own level: the total of a cell carries no evidence."""
    info: Floats

    def __getitem__(self, rows: npt.NDArray[np.int64] | Bools) -> Residuals:
        return Residuals(self.r[rows], self.info[rows])


def segment_variance(r: Floats, info: Floats, inflation: Floats) -> Floats:
    """Variance of the residuals over their information, per segment, drawn towards that of the genome."""
    total = np.maximum(info.sum(axis=0), 1e-9)
    ratio = np.square(r).sum(axis=0) / total / inflation
    assessed = info.sum(axis=0) > 0
    typical = float(np.median(ratio[assessed])) if assessed.any() else 1.0
    n = len(r)
    return np.asarray(np.maximum((n * ratio + PRIOR_CELLS * typical) / (n + PRIOR_CELLS) * inflation, MIN_VARIANCE))


def mean_profile(statistics: ArmStatistics) -> Floats:
    """Pooled log ratio per segment; 0 where nothing is known."""
    total = statistics.info.sum(axis=0)
    return np.asarray(np.where(total > 0, statistics.u.sum(axis=0) / np.maximum(total, 1e-9), 0.0))


def residuals(statistics: ArmStatistics, expected: Floats, variance: Floats) -> Residuals:
    """Residuals against ``expected`` (one profile, or one row per cell)."""
    info = statistics.info / variance
    r = (statistics.u - statistics.info * expected) / variance
    level = r.sum(axis=1, keepdims=True) / np.maximum(info.sum(axis=1, keepdims=True), 1e-9)
    return Residuals(r - level * info, info)


def group_residuals(statistics: ArmStatistics, inflation: Floats) -> Residuals:
    """Residuals of cells against their own mean, with the variance that they show."""
    expected = mean_profile(statistics)
    raw = statistics.u - statistics.info * expected
    return residuals(statistics, expected, segment_variance(raw, statistics.info, inflation))


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture."""

    profiles: Floats
    """clones x segments, difference from the mean of the cells."""
    shares: Floats
    responsibility: Floats
    """cells x clones."""
    included: Floats
    """Per arm: posterior probability that the clones differ there."""
    region: npt.NDArray[np.int64]
    """Per arm: the region that differs, if one does."""
    objective: float
    """Penalised log likelihood against a single clone."""


def cell_likelihood(data: Residuals, profiles: Floats) -> Floats:
    """Log likelihood of every cell (rows) under every profile (columns), against the common mean."""
    linear = data.r @ profiles.T
    square = data.info @ np.square(profiles).T
    cross = data.info @ profiles.T
    return np.asarray(linear - 0.5 * (square - np.square(cross) / np.maximum(data.info.sum(axis=1), 1e-9)[:, None]))


def region_means(data: Residuals, weights: Floats, regions: Regions, tau: float) -> tuple[Floats, Floats]:
    """Mean difference and its precision per clone (rows) and region (columns)."""
    information = weights.T @ data.info
    mean = (weights.T @ data.r) / np.maximum(information, 1e-9)
    precision = np.where(information > 0, 1.0 / (1.0 / np.maximum(information, 1e-9) + tau**2), 0.0)
    total = precision @ regions.member.T
    return (precision * mean) @ regions.member.T / np.maximum(total, 1e-9), total


def _profiles(
    data: Residuals, weights: Floats, regions: Regions, tau: float
) -> tuple[Floats, Floats, npt.NDArray[np.int64], float]:
    mean, precision = region_means(data, weights, regions, tau)
    share = weights.mean(axis=0)
    mean = mean - share @ mean
    shrink = SLAB**2 / (SLAB**2 + 1.0 / np.maximum(precision, 1e-9))
    k = len(mean)
    evidence = 0.5 * (precision * np.square(mean) * shrink).sum(axis=0)
    evidence -= 0.5 * (k - 1) / k * np.log1p(SLAB**2 * precision).sum(axis=0)
    odds = evidence + regions.log_prior
    n_arms = len(regions.arms)
    best = np.zeros(n_arms, dtype=np.int64)
    for a in range(n_arms):
        rows = np.flatnonzero(regions.arm == a)
        best[a] = rows[np.argmax(odds[rows])]
    included = special.expit(np.clip(odds[best], -50, 50))
    profiles = (mean[:, best] * shrink[:, best] * included) @ regions.member[best]
    penalty = float((included * (0.5 * (k - 1) / k * np.log1p(SLAB**2 * precision[:, best]).sum(axis=0))).sum())
    penalty -= float((included * regions.log_prior[best]).sum())
    return profiles, included, best, penalty


def fit_mixture(
    data: Residuals, start: Floats, regions: Regions, *, tau: float = SEGMENT_TAU, rounds: int = ROUNDS
) -> Mixture:
    """Expectation-maximisation from starting responsibilities (cells x clones)."""
    weights = start
    for _ in range(rounds):
        profiles, included, best, penalty = _profiles(data, weights, regions, tau)
        shares = (weights.sum(axis=0) + 1.0) / (len(weights) + weights.shape[1])
        joint = cell_likelihood(data, profiles) + np.log(shares)
        updated = special.softmax(joint, axis=1)
        change = float(np.abs(updated - weights).max(initial=0.0))
        weights = updated
        if change < TOLERANCE:
            break
    objective = float(special.logsumexp(joint, axis=1).sum()) - penalty
    return Mixture(profiles, shares, weights, included, best, objective)


def arm_scores(data: Residuals, regions: Regions) -> Floats:
    """Standardised residual per cell and whole arm."""
    member = np.zeros((len(regions.arms), data.r.shape[1]))
    np.maximum.at(member, regions.arm, regions.member)
    return np.asarray((data.r @ member.T) / np.sqrt(np.maximum(data.info @ member.T, 1e-9)))


def starts(data: Residuals, regions: Regions) -> list[Floats]:
    """Starting divisions in two that depend on the cells' data only: principal components, and single arms."""
    z = arm_scores(data, regions)
    n = len(z)
    centred = z - z.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    directions = [centred @ axis for axis in axes[:MAX_COMPONENTS]]
    spread = centred.var(axis=0)
    directions += [centred[:, a] for a in np.argsort(-spread, kind="stable")[:MAX_ARM_STARTS]]
    found = []
    for i, direction in enumerate(directions):
        for quantile in (0.5, 0.2, 0.8) if i < MAX_COMPONENTS else (0.5,):
            upper = direction > np.quantile(direction, quantile)
            if 0 < upper.sum() < n:
                found.append(np.column_stack([np.where(upper, 0.05, 0.95), np.where(upper, 0.95, 0.05)]))
    return found


def best_split(
    data: Residuals, regions: Regions, *, extra: tuple[Floats, ...] = (), tau: float = SEGMENT_TAU
) -> Mixture | None:
    """The best division of cells in two over all starts; None when no start exists."""
    fits = [fit_mixture(data, start, regions, tau=tau) for start in (*starts(data, regions), *extra)]
    return max(fits, key=lambda fit: fit.objective) if fits else None
