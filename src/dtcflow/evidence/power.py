"""What a number of patients can show: smallest detectable effect, patients needed, attainable p."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

MAX_PATIENTS = 10_000


def paired_power(effect: float, sd: float, n: int, *, alpha: float = 0.05) -> float:
    """Power of the two-sided paired t test over ``n`` patients, from the noncentral t distribution.

    Parameters
    ----------
    effect, sd
        Mean and standard deviation of the patient-level differences, in one unit.
    n
        Patients.
    alpha
        Two-sided level.

    Notes
    -----
    The sign-flip test that decides is exact; with five patients or fewer it cannot reach .05 at all, which the minimum
    of six patients covers.
    """
    if n < 2 or sd <= 0 or not (math.isfinite(effect) and math.isfinite(sd)):
        return float("nan")
    critical = float(stats.t.isf(alpha / 2, n - 1))
    shift = effect / sd * math.sqrt(n)
    power = stats.nct.sf(critical, n - 1, abs(shift)) + stats.nct.cdf(-critical, n - 1, abs(shift))
    # scipy's noncentral t gives up (NaN) in the far tail, where the power is 1
    return 1.0 if math.isnan(power) else float(min(1.0, power))


def minimum_detectable_effect(sd: float, n: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest mean difference found with the given power; in the unit of ``sd``. NaN below two patients.

    In units of the standard deviation of patient differences: 1.44 with 6 patients, 1.16 with 8, 1.00 with 10.
    """
    if n < 2 or not math.isfinite(sd) or sd <= 0:
        return float("nan")

    def miss(standardised: float) -> float:
        return paired_power(standardised, 1.0, n, alpha=alpha) - power

    high = 1.0
    while miss(high) < 0:
        high *= 2
    return float(sd * optimize.brentq(miss, 0.0, high, xtol=1e-6))


def patients_needed(
    effect: float, sd: float, *, power: float = 0.8, alpha: float = 0.05, minimum: int = 6
) -> int | None:
    """Smallest number of patients that finds ``effect`` with the given power, at least ``minimum``.

    ``None`` when it is unknown (no spread known, no effect) or above 10,000.
    """
    if not (math.isfinite(effect) and math.isfinite(sd)) or sd <= 0 or effect == 0:
        return None
    low, high = max(2, minimum), max(2, minimum)
    while paired_power(effect, sd, high, alpha=alpha) < power:
        low, high = high + 1, high * 2
        if high > 2 * MAX_PATIENTS:
            return None
    while low < high:
        middle = (low + high) // 2
        if paired_power(effect, sd, middle, alpha=alpha) >= power:
            high = middle
        else:
            low = middle + 1
    return high if high <= MAX_PATIENTS else None


def smallest_p(n: int) -> float:
    """Smallest two-sided p a sign-flip test can give with ``n`` patients (``2 / 2^n``)."""
    return min(1.0, 2.0 / 2.0**n) if n > 0 else float("nan")


def spread(differences: ArrayLike) -> float:
    """Observed standard deviation of patient-level differences; NaN below two patients."""
    d = np.asarray(differences, dtype=float)
    return float(np.std(d, ddof=1)) if d.size > 1 else float("nan")
