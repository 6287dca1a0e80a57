r"""Copy-number burden of one cell: how much better altered arms explain it than a flat genome, whatever the arms.

Every arm is in one of three states, with prior probabilities :math:`\pi, 1 - 2\pi, \pi` and the log ratios
:math:`\delta_- < 0 < \delta_+` of a single-copy loss and gain. With :math:`L` the centred log ratio and
:math:`V = v / I + \tau^2` its variance, an arm adds

.. math:: h(L, V) = \log\Bigl(1 - 2\pi + \pi e^{(\delta_+ L - \delta_+^2 / 2) / V}
                                      + \pi e^{(\delta_- L - \delta_-^2 / 2) / V}\Bigr).

Unlike a sum of squares, an arm that carries no information adds no noise. The mean and the variance of :math:`h` under
a flat genome depend on :math:`V` only; the sum over arms is standardised by them, so that cells of different depth can
be compared.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from dtcflow.cnv.arms import ArmStatistics

Floats = npt.NDArray[np.float64]

ALTERED_PRIOR = 0.15
"""Prior probability of a gain, and of a loss, of an arm. Between .1 and .25 the ROC of planted cells changed by less
than .01 (random halves of the ovarian normals); carcinomas lose or gain about a third of their arms."""
DOSAGE_SLOPE = 0.8
"""Share of a change of copy number that reaches expression (COPY_NUMBER plan)."""
LOSS = float(np.log1p(-0.5 * DOSAGE_SLOPE))
GAIN = float(np.log1p(0.5 * DOSAGE_SLOPE))
"""Log ratios of a single-copy loss and gain in a diploid genome."""
MAX_EXPONENT = 50.0
_GRID = np.geomspace(1e-4, 1e4, 400)


def arm_evidence(log_ratio: Floats, variance: Floats) -> Floats:
    """Log Bayes factor of an altered arm, elementwise; 0 where there is no information."""
    gain, loss = (
        np.exp(np.clip((delta * log_ratio - 0.5 * delta**2) / variance, -MAX_EXPONENT, MAX_EXPONENT))
        for delta in (GAIN, LOSS)
    )
    return np.asarray(np.log(1.0 - 2.0 * ALTERED_PRIOR + ALTERED_PRIOR * (gain + loss)))


@functools.cache
def _flat_moments() -> tuple[Floats, Floats]:
    """Mean and variance of :func:`arm_evidence` under a flat genome, on a grid of variances (Gauss-Hermite)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    value = arm_evidence(nodes[None, :] * np.sqrt(_GRID)[:, None], _GRID[:, None])
    mean = value @ weights
    return mean, np.square(value) @ weights - mean**2


def burden(statistics: ArmStatistics, inflation: Floats, tau: Floats) -> Floats:
    """Standardised copy-number burden per cell: about mean 0 and variance 1 in a cell with a flat genome.

    Parameters
    ----------
    statistics
        Cells x arms.
    inflation, tau
        Per arm: variance of z in matched reference cells, and SD of the systematic error of the log ratio.
    """
    log_ratio, _ = statistics.centred()
    variance = np.clip(inflation / np.maximum(statistics.info, 1e-9) + tau**2, _GRID[0], _GRID[-1])
    mean, spread = (np.interp(np.log(variance), np.log(_GRID), moment) for moment in _flat_moments())
    total = (arm_evidence(log_ratio, variance) - mean).sum(axis=1)
    return np.asarray(total / np.sqrt(np.maximum(spread.sum(axis=1), 1e-12)))
