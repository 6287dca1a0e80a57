r"""Learn a clone's arm profile from candidate cells and score every cell against it.

The profile :math:`m_a` of a group of cells is its pooled log ratio on the arms that pass the clone rule (effect size,
false-discovery rate, agreement of two halves of the genes) and 0 elsewhere. With :math:`\theta_{ia} = \log(1 + m_a)`
centred by the cell's own information, a cell is scored by

.. math:: T_i = \frac{\sum_a \theta_{ia} U_{ia}}{\sqrt{\sum_a \theta_{ia}^2 I_{ia} v_a}}, \qquad
          \mathrm{LLR}_i = \sum_a \frac{\theta_{ia} U_{ia} - (e^{\theta_{ia}} - 1 - \theta_{ia}) I_{ia}}{v_a},

where :math:`v_a` is the inflation of the reference null. ``T`` is compared with held-out reference cells scored by the
same profile; a profile learned *without* a cell scores that cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from dtcflow.cnv.arms import ArmStatistics, SplitStatistics
from dtcflow.cnv.fdr import benjamini_hochberg
from dtcflow.cnv.null import Floats

ALPHA = 0.05
SINGLE_COPY_GAIN = 0.8 * np.log(1.5)
"""Log ratio of a single-copy gain at a dosage slope of 0.8: the effect that ``power`` refers to."""
NOT_ASSESSABLE_FROM = 0.55
"""An arm whose smallest detectable log ratio exceeds a single-copy loss (0.8 ln 2) cannot be assessed."""
MIN_RELATIVE_CHANGE = -0.9
"""A profile may not predict a larger loss than this: the log ratio of a homozygous loss is not estimable."""
SEED_SIZES = (3, 5, 10, 20, 50)
SEED_P = (0.001, 0.01, 0.05)
"""Clones are grown from the candidates of largest burden, and from all below a p-value: five tumour cells among a
thousand candidates drown in the fifty normal cells below .05."""
NEIGHBOUR_POOL, GROUP_SIZE, N_GROUPS = 150, 4, 6
"""Four cells of like genome among the 150 candidates of largest burden: the six groups most alike are starts."""
RESEMBLANCE_CLIP = 4.0
MIN_SCATTER_SEGMENTS = 20
MIN_SEEDS = 3
MIN_PROFILE_ARMS = 2
MIN_PROFILE_CHROMOSOMES = 2
"""Altered chromosomes of a tumour: one alone may be a benign mosaic, such as trisomy 7 or 12 of normal fibroblasts."""
MIN_MISLABELLED_CHROMOSOMES = 3
"""The same for cells that are known only as members of a normal type."""
MANY_CHROMOSOMES = 4
"""No benign mosaic has as many altered chromosomes: a clone with them is a tumour's, whatever it expresses. The
carcinoma of ovarian patient 14 shows next to no epithelial marker and has altered arms on a dozen chromosomes."""
MIN_PROFILE_STRENGTH = 60.0
"""Sum of squared z over the called arms below which a learned profile is not believed.

Chosen on left-out normal types of ovarian patients 11 and 13, where what an unseen type expresses reaches 43 when every
cell is a candidate, and five tumour cells 68; on patients 12 and 14 the same are 53 and 89."""
MIN_EPITHELIAL_STRENGTH = 45.0
"""The same where every candidate has epithelial evidence, so that no resident type stands behind what they share, and
the scatter of segments is not asked ..."""
MIN_BEYOND_ONE_CHROMOSOME, MIN_SHARE_BEYOND_ONE = 25.0, 0.4
"""... if the arms off the strongest chromosome reach this, and this share of the whole: what a mosaic trisomy shows
beside itself is its expression. Simulated tumours reach 28 and more, at shares from .47 (demo cohort, seed 1); a benign
epithelium with trisomy 7 has 32, a share of .32."""


def _pooled(statistics: ArmStatistics, weights: Floats) -> tuple[Floats, Floats]:
    info = weights @ statistics.info
    with np.errstate(invalid="ignore", divide="ignore"):
        log_ratio = np.where(info > 0, (weights @ statistics.u) / info, np.nan)
    centre = np.nanmedian(log_ratio) if np.isfinite(log_ratio).any() else 0.0
    return log_ratio - centre, info


def scatter_tau(statistics: SplitStatistics, weights: Floats, inflation: Floats) -> Floats:
    r"""SD of an arm's log ratio that the scatter of its own segments explains; 0 where it cannot be told.

    A copy-number change moves all segments of an arm together. What a cell type expresses more or less than the
    reference is scattered over the genome, and an arm's mean then is an average of unrelated deviations. With :math:`s`
    the SD of segments around the mean of their arm (median absolute deviation over the genome, less counting noise)
    the mean of an arm has the SD :math:`s \sqrt{\sum_k I_k^2} / \sum_k I_k` without any copy-number change.

    Parameters
    ----------
    statistics
        A group of cells, with segments.
    weights
        One per cell.
    inflation
        Per arm.
    """
    n_arms = statistics.full.u.shape[1]
    if statistics.segments is None or statistics.segment_arm is None:
        return np.zeros(n_arms)
    arm = statistics.segment_arm
    info = weights @ statistics.segments.info
    per_arm = np.bincount(arm, minlength=n_arms)
    usable = (info > 0) & (per_arm[arm] > 1)
    if usable.sum() < MIN_SCATTER_SEGMENTS:
        return np.zeros(n_arms)
    u = weights @ statistics.segments.u
    size = np.maximum(np.bincount(arm, weights=info, minlength=n_arms), 1e-12)
    mean = np.bincount(arm, weights=u, minlength=n_arms) / size
    deviation = (u / np.maximum(info, 1e-12) - mean[arm]) * np.sqrt(per_arm / np.maximum(per_arm - 1.0, 1.0))[arm]
    effective = (np.square(weights) @ statistics.segments.info) / np.maximum(info, 1e-12)
    counting = inflation[arm] * effective / np.maximum(info, 1e-12)
    square = (1.4826 * np.median(np.abs(deviation[usable]))) ** 2 - np.median(counting[usable])
    share = np.sqrt(np.bincount(arm, weights=np.square(info), minlength=n_arms)) / size
    return np.asarray(np.sqrt(max(square, 0.0)) * share)


def arm_table(
    statistics: SplitStatistics,
    *,
    inflation: Floats,
    tau: Floats,
    min_abs_log_ratio: float,
    weights: Floats | None = None,
) -> pd.DataFrame:
    """Pooled arm calls of a group of cells.

    Returns
    -------
    pandas.DataFrame
        Indexed by arm: ``log_ratio se ci_low ci_high q_value state power smallest_detectable``. An arm is a gain or
        loss when ``q < .05``, ``|log_ratio| >= min_abs_log_ratio`` and both halves of the genes agree in sign and
        reach half that size; otherwise it is ``neutral``, or ``not_assessable`` when a single-copy loss could not have
        been seen.
    """
    n_cells = len(statistics.full.u)
    weights = np.ones(n_cells) if weights is None else weights
    log_ratio, info = _pooled(statistics.full, weights)
    effective = np.where(info > 0, (np.square(weights) @ statistics.full.info) / np.maximum(info, 1e-12), 1.0)
    tau = np.maximum(tau, scatter_tau(statistics, weights, inflation))
    se = np.sqrt(np.where(info > 0, inflation * effective / np.maximum(info, 1e-12), np.inf) + tau**2)
    z = np.where(np.isfinite(se) & np.isfinite(log_ratio), log_ratio / se, np.nan)
    q = benjamini_hochberg(2.0 * stats.norm.sf(np.abs(z)))
    sides = [_pooled(half, weights)[0] for half in statistics.halves]
    agree = (
        (np.sign(sides[0]) == np.sign(sides[1]))
        & (np.sign(sides[0]) == np.sign(log_ratio))
        & (np.minimum(np.abs(sides[0]), np.abs(sides[1])) >= min_abs_log_ratio / 2)
    )
    called = np.nan_to_num(q, nan=1.0) < ALPHA
    called &= (np.abs(np.nan_to_num(log_ratio)) >= min_abs_log_ratio) & agree
    critical = stats.norm.isf(ALPHA / 2)
    smallest = np.maximum((critical + stats.norm.isf(0.2)) * se, min_abs_log_ratio)
    power = np.where(np.isfinite(se), stats.norm.sf(critical - SINGLE_COPY_GAIN / se), 0.0)
    state = np.where(
        called,
        np.where(log_ratio > 0, "gain", "loss"),
        np.where(smallest > NOT_ASSESSABLE_FROM, "not_assessable", "neutral"),
    )
    return pd.DataFrame(
        {
            "log_ratio": log_ratio,
            "se": se,
            "ci_low": log_ratio - critical * se,
            "ci_high": log_ratio + critical * se,
            "q_value": q,
            "state": state,
            "power": power,
            "smallest_detectable": np.where(np.isfinite(smallest), smallest, np.nan),
        },
        index=pd.Index(statistics.full.arms, name="arm"),
    )


def profile_of(table: pd.DataFrame) -> Floats:
    """The profile of an arm table: log ratios of the called arms, 0 elsewhere."""
    called = table["state"].isin(["gain", "loss"]).to_numpy()
    return np.where(called, table["log_ratio"].to_numpy(), 0.0)


def _effect(profile: Floats, info: Floats) -> Floats:
    """Log ratio per cell and arm that the profile predicts, relative to the cell's own total (cells x arms).

    A pooled ``U / I`` estimates the relative change of expression, ``exp(theta) - 1``; ``theta`` is what a likelihood
    weighs counts with.
    """
    theta = np.log1p(np.maximum(profile, MIN_RELATIVE_CHANGE))
    return np.asarray(theta - (info @ theta / np.maximum(info.sum(axis=1), 1e-9))[:, None])


def score_against(
    profile: Floats, statistics: ArmStatistics, inflation: Floats, tau: Floats | None = None
) -> tuple[Floats, Floats]:
    """Score statistic ``T`` and log-likelihood ratio of every cell against a profile; NaN for an empty profile.

    ``tau`` adds the systematic arm error of a cell type that the reference does not hold.
    """
    n = len(statistics.u)
    if not np.any(profile):
        return np.full(n, np.nan), np.full(n, np.nan)
    info = statistics.info
    effect = _effect(profile, info)
    variance = np.square(effect) * info * inflation
    if tau is not None:
        variance = variance + np.square(effect * info * tau)
    denominator = np.sqrt(variance.sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(denominator > 0, (effect * statistics.u).sum(axis=1) / denominator, np.nan)
    llr = ((effect * statistics.u - (np.expm1(effect) - effect) * info) / inflation).sum(axis=1)
    return t, llr


def clone_fraction(profile: Floats | None, statistics: ArmStatistics, inflation: Floats) -> tuple[Floats, Floats]:
    """Least-squares share of the clone's profile in each cell, and its standard error.

    About 1 in a tumour cell, 0.5 in a doublet of a tumour and a marrow cell of equal size, 0 in a marrow cell.
    """
    n = len(statistics.u)
    if profile is None or not np.any(profile):
        return np.full(n, np.nan), np.full(n, np.nan)
    info = statistics.info
    centred = profile - (info @ profile / np.maximum(info.sum(axis=1), 1e-9))[:, None]
    size = np.maximum((np.square(centred) * info).sum(axis=1), 1e-9)
    error = np.sqrt((np.square(centred) * info * inflation).sum(axis=1)) / size
    return np.asarray((centred * statistics.u).sum(axis=1) / size), np.asarray(error)


@dataclass(frozen=True)
class BestMatch:
    """Every cell against the best fitting of several profiles (all arrays one entry per cell)."""

    profiles: Floats
    """profiles x arms."""
    t: Floats
    llr: Floats
    fraction: Floats
    fraction_se: Floats


def best_match(profiles: Floats, statistics: ArmStatistics, inflation: Floats) -> BestMatch:
    """Score cells against several profiles and keep, per cell, the one with the largest ``T``."""
    scores = [score_against(p, statistics, inflation) for p in profiles]
    shares = [clone_fraction(p, statistics, inflation) for p in profiles]
    t = np.column_stack([score[0] for score in scores])
    best = np.argmax(np.nan_to_num(t, nan=-np.inf), axis=1)

    def chosen(columns: list[Floats]) -> Floats:
        return np.asarray(np.column_stack(columns)[np.arange(len(best)), best])

    return BestMatch(
        profiles,
        chosen([score[0] for score in scores]),
        chosen([score[1] for score in scores]),
        chosen([share[0] for share in shares]),
        chosen([share[1] for share in shares]),
    )


@dataclass(frozen=True)
class LearnedProfile:
    """Outcome of the seed loop: who took part, what was learned, and how each cell scored without itself."""

    table: pd.DataFrame | None
    membership: Floats
    """Posterior weight of every cell in the clone; 0 for cells that are not candidates."""
    t: Floats
    llr: Floats
    fold_profiles: Floats
    """folds x arms: the profile learned without each fold's candidates."""
    status: str


def learn_clone(
    statistics: SplitStatistics,
    candidates: npt.NDArray[np.bool_],
    burden_p: Floats,
    fold: npt.NDArray[np.int64],
    *,
    inflation: Floats,
    tau: Floats,
    min_abs_log_ratio: float,
    rounds: int = 8,
    decoy: Callable[[Floats], Floats] | None = None,
    starts: Sequence[npt.NDArray[np.bool_]] | None = None,
) -> LearnedProfile:
    """Seeds -> profile -> likelihood ratio, repeated, with every candidate scored by a profile it had no part in.

    Parameters
    ----------
    statistics
        All cells of a patient.
    candidates
        Cells that may belong to the clone (epithelial evidence; or every non-reference cell).
    burden_p
        Burden p-value per cell against the unseen-type null: the first seeds are the candidates with small values.
    fold
        Fold per cell (from cell ids), for the leave-out profiles.
    decoy
        Turns every learned profile into a decoy before cells are scored with it (:mod:`dtcflow.cnv.decoys`).
    starts
        First members among the candidates, instead of those of large burden.

    Returns
    -------
    LearnedProfile
        ``status`` is ``ok``, ``no_candidates`` or ``no_profile``; ``t``/``llr`` are NaN unless ``ok``.
    """
    n = len(candidates)
    nothing = np.full(n, np.nan)
    n_folds = int(fold.max()) + 1 if n else 1
    blank = np.zeros((n_folds, len(inflation)))
    rows = np.flatnonzero(candidates)
    if len(rows) < MIN_SEEDS:
        return LearnedProfile(None, np.zeros(n), nothing, nothing.copy(), blank, "no_candidates")
    part = statistics[rows]
    p = np.nan_to_num(burden_p[rows], nan=1.0)

    def learn(weights: Floats) -> pd.DataFrame:
        return arm_table(part, inflation=inflation, tau=tau, min_abs_log_ratio=min_abs_log_ratio, weights=weights)

    def learned_profile(weights: Floats) -> Floats:
        profile = profile_of(learn(weights))
        return profile if decoy is None else decoy(profile)

    weight, best_gain = np.zeros(len(rows)), -np.inf
    for start in _starts(p, part.full, inflation, tau) if starts is None else starts:
        found, gain = _grow(start.astype(np.float64), learned_profile, part.full, inflation, rounds)
        if gain > best_gain:
            weight, best_gain = found, gain
    table = learn(weight)
    membership = np.zeros(n)
    if not np.any(profile_of(table)) or (weight > 0.5).sum() < MIN_SEEDS:
        return LearnedProfile(table, membership, nothing, nothing.copy(), blank, "no_profile")
    membership[rows] = weight
    full_profile = learned_profile(weight)
    t, llr = score_against(full_profile, statistics.full, inflation)
    profiles = np.tile(full_profile, (n_folds, 1))
    for k in range(n_folds):
        inside = fold[rows] == k
        if not inside.any():
            continue
        profiles[k] = learned_profile(np.where(inside, 0.0, weight))
        t[rows[inside]], llr[rows[inside]] = score_against(profiles[k], part.full[inside], inflation)
    return LearnedProfile(table, membership, t, llr, profiles, "ok")


def _starts(p: Floats, statistics: ArmStatistics, inflation: Floats, tau: Floats) -> list[npt.NDArray[np.bool_]]:
    """First members to grow a clone from: cells of large burden, a few of many or most of them, and small groups."""
    by_burden = np.argsort(p, kind="stable")
    rank = np.argsort(by_burden, kind="stable")
    starts = [rank < size for size in SEED_SIZES if size < len(p)]
    starts += [p <= limit for limit in SEED_P if (p <= limit).sum() >= MIN_SEEDS]
    starts.append(np.ones(len(p), dtype=bool))
    top = by_burden[:NEIGHBOUR_POOL]
    for group in neighbour_groups(statistics[top], inflation, tau):
        start = np.zeros(len(p), dtype=bool)
        start[top[group]] = True
        starts.append(start)
    unique = {start.tobytes(): start for start in starts}
    return list(unique.values())


def neighbour_groups(statistics: ArmStatistics, inflation: Floats, tau: Floats) -> list[npt.NDArray[np.int64]]:
    """Small groups of cells whose genomes resemble one another, most alike first; no cell is in two of them.

    The resemblance of cell j to cell i is the product of their z over the arms, in units of its standard deviation when
    j has a flat genome; of the two directions the smaller counts.
    """
    if len(statistics.u) < 2 * GROUP_SIZE:
        return []
    log_ratio, _ = statistics.centred()
    z = log_ratio / np.sqrt(inflation / np.maximum(statistics.info, 1e-9) + tau**2)
    z = np.clip(z, -RESEMBLANCE_CLIP, RESEMBLANCE_CLIP)
    alike = (z @ z.T) / np.maximum(np.linalg.norm(z, axis=1), 1e-9)[:, None]
    alike = np.minimum(alike, alike.T)
    np.fill_diagonal(alike, -np.inf)
    partners = np.argsort(-alike, axis=1, kind="stable")[:, : GROUP_SIZE - 1]
    worth = np.take_along_axis(alike, partners, axis=1).mean(axis=1)
    groups: list[npt.NDArray[np.int64]] = []
    taken = np.zeros(len(z), dtype=bool)
    for i in np.argsort(-worth, kind="stable"):
        group = np.r_[i, partners[i]]
        if not taken[group].any():
            taken[group] = True
            groups.append(group)
        if len(groups) == N_GROUPS:
            break
    return groups


def _grow(
    weight: Floats,
    learned_profile: Callable[[Floats], Floats],
    statistics: ArmStatistics,
    inflation: Floats,
    rounds: int,
) -> tuple[Floats, float]:
    """Repeat profile -> likelihood ratio -> membership; the log-likelihood gain of the last profile is the yardstick.

    Returns
    -------
    numpy.ndarray
        Membership per candidate.
    float
        Gain of the mixture of tumour and flat genomes over flat genomes alone; 0 without a profile or members.
    """
    gain = 0.0
    for _ in range(rounds):
        profile = learned_profile(weight)
        if not np.any(profile):
            return weight, 0.0
        _, llr = score_against(profile, statistics, inflation)
        prior = float(np.clip(weight.mean(), MIN_SEEDS / max(len(weight), 2 * MIN_SEEDS), 0.98))
        odds = np.clip(llr + np.log(prior / (1 - prior)), -50, 50)
        updated = 1.0 / (1.0 + np.exp(-odds))
        gain = float(np.logaddexp(np.log1p(-prior), np.log(prior) + llr).sum())
        done = np.abs(updated - weight).max() < 1e-3
        weight = updated
        if done:
            break
    return weight, gain if (weight > 0.5).sum() >= MIN_SEEDS else 0.0


def profile_strength(table: pd.DataFrame) -> float:
    """Sum of squared z over the called arms of an arm table."""
    called = table["state"].isin(["gain", "loss"])
    return float(np.square(table["log_ratio"] / table["se"])[called].sum())


def strength_beyond_one(table: pd.DataFrame) -> float:
    """:func:`profile_strength` without the chromosome that contributes most."""
    called = table[table["state"].isin(["gain", "loss"])]
    if called.empty:
        return 0.0
    square = (called["log_ratio"] / called["se"]) ** 2
    per_chromosome = square.groupby([str(arm)[:-1] for arm in called.index]).sum()
    return float(per_chromosome.sum() - per_chromosome.max())


def n_chromosomes(table: pd.DataFrame) -> int:
    """Chromosomes with a called arm: both arms of a trisomy are one event."""
    called = table.index[table["state"].isin(["gain", "loss"])]
    return len({str(arm)[:-1] for arm in called})


def believable(
    table: pd.DataFrame,
    *,
    min_chromosomes: int = MIN_PROFILE_CHROMOSOMES,
    min_strength: float = MIN_PROFILE_STRENGTH,
) -> bool:
    """Whether an arm table is strong enough to be a tumour's genome, and neither a cell type nor a mosaic trisomy."""
    n_arms = int(table["state"].isin(["gain", "loss"]).sum())
    strong = profile_strength(table) >= min_strength
    if min_strength < MIN_PROFILE_STRENGTH:
        beyond = strength_beyond_one(table)
        strong &= beyond >= max(MIN_BEYOND_ONE_CHROMOSOME, MIN_SHARE_BEYOND_ONE * profile_strength(table))
    return n_arms >= MIN_PROFILE_ARMS and n_chromosomes(table) >= min_chromosomes and strong


def believable_profile(
    learned: LearnedProfile,
    *,
    min_chromosomes: int = MIN_PROFILE_CHROMOSOMES,
    min_strength: float = MIN_PROFILE_STRENGTH,
) -> tuple[Floats | None, float]:
    """The learned profile when it can be believed, and its strength."""
    if learned.table is None:
        return None, 0.0
    strength = profile_strength(learned.table)
    if learned.status != "ok" or not believable(
        learned.table, min_chromosomes=min_chromosomes, min_strength=min_strength
    ):
        return None, strength
    return profile_of(learned.table), strength
