"""Null distributions: reference cells that took no part in the model that scores them.

Two nulls are kept apart because they answer different questions. The *matched* null scores every reference cell with
a model fitted on the other folds: it holds for a cell whose type is in the reference. The *unseen* null scores the
cells of a type with a model fitted without that type: it holds for a cell, such as a tumour cell, that no reference
type matches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy import stats

from dtcflow.cnv.arms import ArmModel, ArmStatistics, arm_statistics, fit_arm_model
from dtcflow.order import stable_order

Floats = npt.NDArray[np.float64]

TAU_FLOOR = 0.045
"""Smallest systematic SD of an arm's log ratio between a type and its expectation (matched reference)."""
TAU_PRIOR, TAU_PRIOR_WEIGHT = 0.08, 2.0
"""Prior for the type-mismatch SD, worth two types (unseen types measured .06-.11)."""
TAU_FEW_TYPES = 0.16
"""Prior instead when fewer than three types are there: how far an unseen type may be off could not be measured."""
MIN_TYPES = 3
MIN_NULL_SHARE = 0.2
TAIL_FRACTION = 0.10
MIN_TAIL = 20


def align_arms(statistics: ArmStatistics, arms: tuple[str, ...]) -> ArmStatistics:
    """Arrange the columns by ``arms``; an arm that this model could not assess carries no information."""
    where = {arm: i for i, arm in enumerate(statistics.arms)}
    u = np.zeros((len(statistics.u), len(arms)))
    info = np.zeros_like(u)
    for j, arm in enumerate(arms):
        if arm in where:
            u[:, j], info[:, j] = statistics.u[:, where[arm]], statistics.info[:, where[arm]]
    return ArmStatistics(u, info, arms)


@dataclass(frozen=True)
class ReferenceNull:
    """Arm statistics of held-out reference cells under both nulls, rows in the order of the reference."""

    matched: ArmStatistics
    unseen: ArmStatistics
    """Empty (0 rows) when the reference has one type only: nothing can be left out."""
    unseen_rows: npt.NDArray[np.int64]
    unseen_types: npt.NDArray[np.object_]
    """Type of each unseen row."""
    inflation: Floats
    """Per arm: variance of the matched z (1 for a perfect model), at least 1."""
    type_squares: Mapping[str, Floats]
    """Left-out type -> squared log ratio per arm of its cells taken together, less sampling noise."""
    few_types_prior: float = TAU_FEW_TYPES
    """Prior SD with fewer than three types."""

    def tau_without(self, left_out: str | None = None) -> Floats:
        """Per arm: SD of the systematic log-ratio error of an unseen type, judged by all types but ``left_out``."""
        squares = [value for name, value in self.type_squares.items() if name != left_out]
        total = np.sum(squares, axis=0) if squares else np.zeros(len(self.inflation))
        prior = TAU_PRIOR if len(self.type_squares) >= MIN_TYPES else self.few_types_prior
        tau = np.sqrt((total + TAU_PRIOR_WEIGHT * prior**2) / (len(squares) + TAU_PRIOR_WEIGHT))
        return np.asarray(np.maximum(tau, TAU_FLOOR))

    @property
    def tau(self) -> Floats:
        """:meth:`tau_without` nothing left out."""
        return self.tau_without()


def cross_fit(
    counts: sp.csr_matrix,
    types: npt.NDArray[np.object_],
    cell_ids: list[str],
    arms: npt.NDArray[np.object_],
    usable: npt.NDArray[np.bool_],
    model: ArmModel,
    *,
    folds: int,
    seed: int,
    half: int | None = None,
    few_types_prior: float = TAU_FEW_TYPES,
) -> ReferenceNull:
    """Score the reference cells by K-fold cross-fitting and by leaving whole types out.

    Folds depend on cell ids and ``seed`` only. ``half`` restricts the sums to every second gene; ``few_types_prior`` is
    the SD assumed for an unseen type when fewer than three types are there to measure it.
    """

    def score(fitted: ArmModel, rows: npt.NDArray[np.int64]) -> ArmStatistics:
        mask = None if half is None else half_mask(fitted, half)
        return align_arms(arm_statistics(fitted, sp.csr_matrix(counts[rows]), gene_mask_in_use=mask), model.arms)

    n, n_arms = counts.shape[0], len(model.arms)
    matched = ArmStatistics(np.zeros((n, n_arms)), np.zeros((n, n_arms)), model.arms)
    fold = np.empty(n, dtype=np.int64)
    order = stable_order(cell_ids, seed=seed + 1)
    for name in set(types.tolist()):
        members = np.flatnonzero(types == name)
        fold[members[np.argsort(order[members], kind="stable")]] = np.arange(len(members)) % folds
    for k in range(folds):
        held = np.flatnonzero(fold == k)
        if not len(held):
            continue
        rest = np.flatnonzero(fold != k)
        part = score(fit_arm_model(sp.csr_matrix(counts[rest]), types[rest], arms, usable), held)
        matched.u[held], matched.info[held] = part.u, part.info
    _, z = matched.centred()
    inflation = np.maximum(1.0, np.square(1.4826 * np.median(np.abs(z - np.median(z, axis=0)), axis=0)))

    names = sorted(set(types.tolist()))
    blocks: list[ArmStatistics] = []
    rows_of: list[npt.NDArray[np.int64]] = []
    squares: dict[str, Floats] = {}
    if len(names) > 1:
        for name in names:
            held, rest = np.flatnonzero(types == name), np.flatnonzero(types != name)
            part = score(fit_arm_model(sp.csr_matrix(counts[rest]), types[rest], arms, usable), held)
            blocks.append(part)
            rows_of.append(held)
            total_info = part.info.sum(axis=0)
            log_ratio = part.u.sum(axis=0) / np.maximum(total_info, 1e-9)
            log_ratio = log_ratio - np.median(log_ratio)
            squares[str(name)] = np.maximum(log_ratio**2 - inflation / np.maximum(total_info, 1e-9), 0.0)
    empty = ArmStatistics(np.zeros((0, n_arms)), np.zeros((0, n_arms)), model.arms)
    unseen = (
        ArmStatistics(np.vstack([b.u for b in blocks]), np.vstack([b.info for b in blocks]), model.arms)
        if blocks
        else empty
    )
    unseen_rows = np.concatenate(rows_of) if rows_of else np.empty(0, dtype=np.int64)
    return ReferenceNull(matched, unseen, unseen_rows, types[unseen_rows], inflation, squares, few_types_prior)


def half_mask(model: ArmModel, half: int) -> npt.NDArray[np.bool_]:
    """Mask of every second *column of the count matrix*, so that halves agree between models of different genes."""
    return np.asarray(model.genes % 2 == half)


def tail_p_values(observed: Floats, null: Floats) -> Floats:
    """Upper-tail p-values against an empirical null with a generalised-Pareto tail.

    Below the null's 90th percentile the p-value is ``(1 + #{null >= x}) / (1 + n)``; above it the exceedances are
    fitted by a generalised Pareto distribution (probability-weighted moments, Hosking & Wallis 1987) with a shape of
    at least 0, so that the tail is never shorter than exponential. NaN stays NaN.
    """
    null = np.sort(null[np.isfinite(null)])
    result = np.full(observed.shape, np.nan)
    finite = np.isfinite(observed)
    if not len(null):
        return result
    above = len(null) - np.searchsorted(null, observed[finite], side="left")
    p = (1.0 + above) / (1.0 + len(null))
    n_tail = int(len(null) * TAIL_FRACTION)
    if n_tail >= MIN_TAIL:
        threshold = null[-n_tail - 1]
        excess = null[-n_tail:] - threshold
        first = excess.mean()
        weight = 1.0 - (np.arange(1, n_tail + 1) - 0.35) / n_tail
        second = float(np.mean(weight * excess))
        denominator = first - 2.0 * second
        shape = max(0.0, 2.0 - first / denominator) if denominator > 0 else 0.0
        shape = min(shape, 0.5)
        scale = first * (1.0 - shape)
        beyond = observed[finite] > threshold
        if scale > 0 and beyond.any():
            tail = stats.genpareto.sf(observed[finite][beyond] - threshold, shape, scale=scale)
            p[beyond] = np.maximum(tail * (n_tail + 1.0) / (len(null) + 1.0), 1e-12)
    result[finite] = np.minimum(p, 1.0)
    return result


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
