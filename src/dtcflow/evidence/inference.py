"""Tests and intervals over patients: exact sign-flip, random-effects meta-analysis, multiplicity.

Everything here takes one number per patient. Cells have been reduced to patients before (``contrasts``).
"""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import brentq
from statsmodels.stats.multitest import multipletests

Floats = NDArray[np.float64]

MAX_ENUMERATED = 12
"""Up to this many patients every one of the 2^n sign patterns is looked at."""
N_RANDOM_FLIPS = 10_000
_TIE = 1e-9
"""Relative slack when flipped means are compared with the observed one: ties must count as ties."""


@dataclass(frozen=True)
class MetaAnalysis:
    """Random-effects mean of patient-level differences.

    Attributes
    ----------
    n
        Patients.
    estimate, standard_error
        Random-effects mean and its Hartung-Knapp-Sidik-Jonkman standard error.
    ci_low, ci_high, ci90_low, ci90_high
        95 % and 90 % t intervals with ``n - 1`` degrees of freedom.
    prediction_low, prediction_high
        Where the true difference of a new patient is expected (95 %, ``n - 2`` degrees of freedom).
    tau2, i2
        Variance of the true differences between patients, and its share of the observed variance.
    q
        Cochran's Q.
    hksj_scale
        The estimated scale before it is kept from falling below 1.
    """

    n: int
    estimate: float
    standard_error: float
    ci_low: float
    ci_high: float
    ci90_low: float
    ci90_high: float
    prediction_low: float
    prediction_high: float
    tau2: float
    i2: float
    q: float
    hksj_scale: float

    def one_of(self, parts: int) -> MetaAnalysis:
        """The same mean with the tails of both intervals divided by ``parts`` (Bonferroni).

        Where one refuted part of several refutes a claim, this keeps the error of the refutation at its level.
        """
        if parts == 1 or self.n < 2 or not math.isfinite(self.standard_error):
            return self
        half, half90 = (_t_quantile(tail / parts, self.n - 1) * self.standard_error for tail in (0.025, 0.05))
        return replace(
            self,
            ci_low=self.estimate - half,
            ci_high=self.estimate + half,
            ci90_low=self.estimate - half90,
            ci90_high=self.estimate + half90,
        )

    def as_dict(self) -> dict[str, float | int]:
        """Plain mapping, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class SignFlip:
    """Two-sided sign-flip p value, the number of sign patterns looked at, and whether these were all."""

    p_value: float
    n_patterns: int
    exact: bool


@functools.lru_cache(maxsize=256)
def _t_quantile(tail: float, freedom: int) -> float:
    return float(stats.t.isf(tail, freedom))


def _weighted(d: Floats, v: Floats, tau2: float) -> tuple[float, float, float]:
    """Weighted mean at this tau^2, the sum of the weights, and the weighted sum of squares Q about the mean."""
    weight = 1.0 / (v + tau2)
    information = float(weight.sum())
    mean = float(weight @ d) / information
    return mean, information, float(weight @ (d - mean) ** 2)


def _paule_mandel(d: Floats, v: Floats) -> float:
    """The root of Q(tau^2) = n - 1, where Q(0) is larger: Q falls, and is at most S / tau^2 with S about the mean."""
    highest = float(((d - d.mean()) ** 2).sum()) / (d.size - 1)
    return float(brentq(lambda tau2: _weighted(d, v, tau2)[2] - (d.size - 1), 0.0, 2 * highest, xtol=1e-15 * highest))


def random_effects(difference: ArrayLike, variance: ArrayLike) -> MetaAnalysis:
    """Combine patient-level differences by Paule-Mandel with a modified Hartung-Knapp-Sidik-Jonkman interval.

    tau^2 is the root of the Paule-Mandel equation Q(tau^2) = n - 1, found by Brent's method.
    (The Newton iteration of ``statsmodels.stats.meta_analysis.combine_effects`` sets tau^2 to 0 when its last step
    lands below the root by rounding: with ``atol=1e-8`` in one of twenty heterogeneous cohorts. The tests compare the
    two where it does not; of its intervals ``ci_eff_re_wls`` is this one.) Where tau^2 > 0 the scale is 1 by
    construction of the equation. Where tau^2 is cut at 0 the scale is below 1 and the
    plain HKSJ interval would be *narrower* than the one of a fixed-effect analysis, because the patients happen to
    agree better than their own sampling errors allow. The scale is therefore kept from falling below 1 (the "modified
    Knapp-Hartung" interval), which is the recommended form for few patients of unequal precision.

    Parameters
    ----------
    difference, variance
        One value per patient; variances are those of the differences, > 0. Pairs with a missing or non-finite entry
        are refused, not dropped.

    Returns
    -------
    MetaAnalysis
        With one patient only the estimate is known, with none nothing is (NaN).

    Raises
    ------
    ValueError
        Shapes differ, or a value is not finite, or a variance is negative.

    References
    ----------
    Paule and Mandel 1982, J Res Natl Bur Stand 87:377. IntHout 2014, BMC Med Res Methodol 14:25 (PMID 24548571).
    Roever 2015, BMC Med Res Methodol 15:99 (doi 10.1186/s12874-015-0091-1), for the modification.
    Veroniki 2016, Res Synth Methods 7:55 (PMID 26332144), for Paule-Mandel.
    """
    d = np.asarray(difference, dtype=float)
    v = np.asarray(variance, dtype=float)
    if d.shape != v.shape or d.ndim != 1:
        raise ValueError(f"difference and variance must be two vectors of one length, found {d.shape} and {v.shape}")
    if not (np.isfinite(d).all() and np.isfinite(v).all() and (v >= 0).all()):
        raise ValueError("differences must be finite and variances finite and not negative")
    n = d.size
    nan = float("nan")
    if n == 0:
        return MetaAnalysis(0, *[nan] * 12)
    if n == 1:
        return MetaAnalysis(1, float(d[0]), *[nan] * 11)
    # a zero variance would weigh infinitely much; the floor keeps such patients equal to each other
    v = np.maximum(v, max(float(v.max()), float(np.var(d)), 1e-12) * 1e-9)
    q = _weighted(d, v, 0.0)[2]
    tau2 = _paule_mandel(d, v) if q > n - 1 else 0.0
    estimate, information, left = _weighted(d, v, tau2)
    scale = left / (n - 1)
    error = (max(1.0, scale) / information) ** 0.5
    t95, t90 = (_t_quantile(alpha / 2, n - 1) for alpha in (0.05, 0.10))
    spread = (tau2 + error**2) ** 0.5
    reach = _t_quantile(0.025, n - 2) * spread if n > 2 else nan
    return MetaAnalysis(
        n=n,
        estimate=estimate,
        standard_error=error,
        ci_low=estimate - t95 * error,
        ci_high=estimate + t95 * error,
        ci90_low=estimate - t90 * error,
        ci90_high=estimate + t90 * error,
        prediction_low=estimate - reach,
        prediction_high=estimate + reach,
        tau2=tau2,
        i2=max(0.0, 1.0 - (n - 1) / q) if q > 0 else 0.0,
        q=q,
        hksj_scale=scale,
    )


@functools.lru_cache(maxsize=16)
def _patterns(n: int, seed: int) -> Floats:
    """Sign patterns, one per row: all 2^n, or seeded random ones for more than :data:`MAX_ENUMERATED` patients."""
    if n <= MAX_ENUMERATED:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)[None, :]) & 1
        return np.asarray(1.0 - 2.0 * bits, dtype=np.float64)
    rng = np.random.default_rng([seed, n])
    return np.asarray(rng.integers(0, 2, size=(N_RANDOM_FLIPS, n)) * 2.0 - 1.0, dtype=np.float64)


def sign_patterns(n: int, *, seed: int = 0) -> Floats:
    """Return the sign patterns a test over ``n`` patients looks at, shape (patterns, n), entries -1 and 1."""
    return _patterns(n, seed if n > MAX_ENUMERATED else 0).copy()


def sign_flip_p(differences: ArrayLike, *, seed: int = 0) -> Floats:
    """Two-sided sign-flip p of each column.

    Under the null a patient's difference is as likely positive as negative, so all sign patterns are equally likely;
    p is the share of patterns whose mean is at least as far from zero as the observed one. With ``n`` patients it
    cannot fall below ``2 / 2^n``: .0625 with five, .03125 with six.

    Parameters
    ----------
    differences
        Shape (patients,) or (patients, tests).
    seed
        Only used with more than 12 patients, where 10,000 random patterns are drawn and p is ``(1 + hits) / (1 +
        10,000)``.

    Returns
    -------
    numpy.ndarray
        Shape (tests,); NaN without patients and where a difference is missing.
    """
    d = np.asarray(differences, dtype=float)
    d = d[:, None] if d.ndim == 1 else d
    n = d.shape[0]
    if n == 0:
        return np.full(d.shape[1], np.nan)
    # each sum is taken over patients sorted by size: the order in which patients come must not decide a tie
    d = np.take_along_axis(d, np.argsort(np.abs(d), axis=0, kind="stable"), axis=0)
    patterns = _patterns(n, seed if n > MAX_ENUMERATED else 0)
    flipped = np.abs(patterns @ d)
    observed = np.abs(d.sum(axis=0))
    slack = _TIE * np.abs(d).sum(axis=0)
    hits = (flipped >= observed - slack).sum(axis=0)
    p = hits / patterns.shape[0] if n <= MAX_ENUMERATED else (1 + hits) / (1 + patterns.shape[0])
    # a missing difference has no sign; comparing it would give no hits, and p = 0
    return np.asarray(np.where(np.isfinite(d).all(axis=0), p, np.nan), dtype=float)


def sign_flip(difference: ArrayLike, *, seed: int = 0) -> SignFlip:
    """Two-sided sign-flip test of one vector of patient-level differences; see :func:`sign_flip_p`."""
    d = np.asarray(difference, dtype=float)
    n = d.size
    exact = n <= MAX_ENUMERATED
    return SignFlip(float(sign_flip_p(d, seed=seed)[0]), 2**n if exact else N_RANDOM_FLIPS, exact)


def set_null_p(observed: float, null: ArrayLike) -> float:
    """Two-sided p of an estimate against those of random gene sets: ``(1 + #{|null| >= |observed|}) / (1 + n)``.

    Two-sided although the claims have a direction: a set that differs as much the other way is as much a reason to
    doubt. NaN without an estimate or without a null.
    """
    values = np.asarray(null, dtype=float)
    values = values[np.isfinite(values)]
    if not np.isfinite(observed) or values.size == 0:
        return float("nan")
    return float((1 + (np.abs(values) >= abs(observed) * (1 - _TIE)).sum()) / (1 + values.size))


def adjust(p_values: ArrayLike, method: str) -> Floats:
    """Adjust p values by ``"holm"`` or ``"bh"``; missing ones stay missing and do not count as tests."""
    p = np.asarray(p_values, dtype=float)
    if method not in ("holm", "bh", "none"):
        raise ValueError(f"method must be 'holm', 'bh' or 'none', found {method!r}")
    out = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if method == "none":
        out[known] = p[known]
    elif known.any():
        out[known] = multipletests(p[known], method={"holm": "holm", "bh": "fdr_bh"}[method])[1]
    return out
