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

from dtcflow.cnv.arms import ArmModel, ArmStatistics, BinStatistics, bin_statistics, fit_to_moments
from dtcflow.cnv.moments import TypeMeans, reference_moments
from dtcflow.order import stable_order

Floats = npt.NDArray[np.float64]

TAU_FLOOR = 0.045
"""Smallest systematic SD of an arm's log ratio between a type and its expectation (matched reference)."""
TAU_PRIOR, TAU_PRIOR_WEIGHT = 0.08, 2.0
"""Prior for the type-mismatch SD, worth two types (unseen types measured .06-.11)."""
TAU_FEW_TYPES = 0.16
"""Prior instead when fewer than three types are there: how far an unseen type may be off could not be measured."""
MIN_TYPES = 3
TAIL_FRACTION = 0.10
STRICT_TAIL_FRACTION = 0.05
"""Share of the null whose exceedances a p-value is extrapolated from, for a ranking and for a p-value that is reported.

With a tenth, .003 of held-out normal cells had p <= .001 (ovarian patients 11 and 13, each on its own reference): the
upper tenth of the burden is not of one shape. With a twentieth the QQ curve lies within its 95 % band down to .001."""
MIN_TAIL = 20
"""Exceedances without which nothing is extrapolated: p-values then end at ``1 / (1 + n)``."""


@dataclass(frozen=True)
class Noise:
    """Error of a log ratio beyond counting, per arm or per segment."""

    inflation: Floats
    """Variance of the matched z (1 for a perfect model), at least 1."""
    type_squares: Mapping[str, Floats]
    """Left-out type -> squared log ratio of its cells taken together, less sampling noise."""
    few_types_prior: float = TAU_FEW_TYPES
    """Prior SD with fewer than three types."""

    def tau_without(self, left_out: str | None = None) -> Floats:
        """SD of the systematic log-ratio error of an unseen type, judged by all types but ``left_out``."""
        squares = [value for name, value in self.type_squares.items() if name != left_out]
        total = np.sum(squares, axis=0) if squares else np.zeros(len(self.inflation))
        prior = TAU_PRIOR if len(self.type_squares) >= MIN_TYPES else self.few_types_prior
        tau = np.sqrt((total + TAU_PRIOR_WEIGHT * prior**2) / (len(squares) + TAU_PRIOR_WEIGHT))
        return np.asarray(np.maximum(tau, TAU_FLOOR))

    @property
    def tau(self) -> Floats:
        """:meth:`tau_without` nothing left out."""
        return self.tau_without()


@dataclass(frozen=True)
class ReferenceNull:
    """Statistics of held-out reference cells under both nulls, rows in the order of the reference."""

    matched: BinStatistics
    unseen: BinStatistics
    """Empty (0 rows) when the reference has one type only: nothing can be left out."""
    unseen_rows: npt.NDArray[np.int64]
    unseen_types: npt.NDArray[np.object_]
    """Type of each unseen row."""
    few_types_prior: float

    def noise(self, *, of: str = "arms") -> Noise:
        """Noise per arm (``of="arms"``) or per segment (``of="segments"``)."""
        matched, unseen = (getattr(part, of)().full for part in (self.matched, self.unseen))
        _, z = matched.centred()
        inflation = np.maximum(1.0, np.square(1.4826 * np.median(np.abs(z - np.median(z, axis=0)), axis=0)))
        squares = {
            str(name): _excess_square(unseen[self.unseen_types == name], inflation)
            for name in sorted(set(self.unseen_types.tolist()))
        }
        return Noise(inflation, squares, self.few_types_prior)


def _excess_square(statistics: ArmStatistics, inflation: Floats) -> Floats:
    """Squared log ratio of a group of cells taken together, less its sampling noise."""
    total = np.maximum(statistics.info.sum(axis=0), 1e-9)
    log_ratio = statistics.u.sum(axis=0) / total
    return np.asarray(np.maximum((log_ratio - np.median(log_ratio)) ** 2 - inflation / total, 0.0))


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
    few_types_prior: float = TAU_FEW_TYPES,
) -> ReferenceNull:
    """Score the reference cells by K-fold cross-fitting and by leaving whole types out.

    Folds depend on cell ids and ``seed`` only. All models share the segments of ``model``; ``few_types_prior`` is the
    SD assumed for an unseen type when fewer than three types are there to measure it.
    """

    n, n_bins = counts.shape[0], model.layout.n_bins
    u, info = (np.zeros((n, n_bins), dtype=np.float32) for _ in range(2))
    fold = np.empty(n, dtype=np.int64)
    order = stable_order(cell_ids, seed=seed + 1)
    names = sorted(set(types.tolist()))
    for name in names:
        members = np.flatnonzero(types == name)
        fold[members[np.argsort(order[members], kind="stable")]] = np.arange(len(members)) % folds
    moments = reference_moments(counts, types, fold)

    def score(reference: TypeMeans, rows: npt.NDArray[np.int64]) -> BinStatistics:
        return bin_statistics(fit_to_moments(reference, arms, usable, layout=model.layout), counts[rows])

    for k in range(folds):
        held = np.flatnonzero(fold == k)
        if len(held):
            part = score(moments.without(fold=k), held)
            u[held], info[held] = part.u, part.info
    blocks = [np.flatnonzero(types == name) for name in names] if len(names) > 1 else []
    unseen_rows = np.concatenate(blocks) if blocks else np.empty(0, dtype=np.int64)
    left_out = [score(moments.without(left_out=types[held[0]]), held) for held in blocks]
    unseen_u, unseen_info = (
        np.vstack([np.zeros((0, n_bins), dtype=np.float32), *(getattr(part, name) for part in left_out)])
        for name in ("u", "info")
    )
    return ReferenceNull(
        BinStatistics(u, info, model.layout),
        BinStatistics(unseen_u, unseen_info, model.layout),
        unseen_rows,
        types[unseen_rows],
        few_types_prior,
    )


def normal_tail_p_values(observed: Floats, null: Floats) -> Floats:
    """:func:`tail_p_values` of a statistic with a tail like a normal distribution's.

    The tail of a normal variable is exponential in its square. Extrapolated on its own scale it would be taken for
    exponential and p-values far out would be too large (at 4.3: 5e-4 from 976 null cells, 1e-5 as a normal).
    """
    return tail_p_values(*(np.sign(value) * np.square(value) for value in (observed, null)))


def tail_p_values(observed: Floats, null: Floats, *, fraction: float = TAIL_FRACTION) -> Floats:
    """Upper-tail p-values against an empirical null with a generalised-Pareto tail.

    Below the upper ``fraction`` of the null the p-value is ``(1 + #{null >= x}) / (1 + n)``; above it the exceedances
    are fitted by a generalised Pareto distribution (probability-weighted moments, Hosking & Wallis 1987) with a shape
    of at least 0, so that the tail is never shorter than exponential. NaN stays NaN.
    """
    null = np.sort(null[np.isfinite(null)])
    result = np.full(observed.shape, np.nan)
    finite = np.isfinite(observed)
    if not len(null):
        return result
    above = len(null) - np.searchsorted(null, observed[finite], side="left")
    p = (1.0 + above) / (1.0 + len(null))
    n_tail = int(len(null) * fraction)
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
