"""How much the arms of one patient's cells vary beyond events and counting: errors that these cells share."""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dtcflow.evidence.contrasts import Floats

LEVELS: Final = ((0.5,), (0.05, 0.5), (0.5, 0.95), (0.05, 0.5, 0.95))
"""Quantiles of the arms that the search for their levels starts from: no events, losses, gains, both."""


def shared_variance(ratio: Floats, noise: Floats, groups: NDArray[np.object_]) -> float:
    """Variance of arms around their levels that does not come from counting.

    Parameters
    ----------
    ratio, noise
        Log ratios and their variances, cells x arms.
    groups
        Clone of each cell; the arms of a clone are pooled over its cells.

    Notes
    -----
    Normal mixtures with one variance and one to three levels, the best by Akaike's criterion. The clones of a patient
    repeat the same errors, so that the sample size is the number of arms, and a level takes a degree of freedom.
    With few shallow cells events cannot be told from noise and count as errors.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    levels, sampling = [], []
    for group in sorted(set(groups.tolist())):
        information = 1.0 / noise[groups == group]
        pooled = (ratio[groups == group] * information).sum(axis=0) / information.sum(axis=0)
        levels.append(pooled - np.median(pooled))
        sampling.append(1.0 / information.sum(axis=0))
    arms, n = np.concatenate(levels)[:, None], ratio.shape[1]
    best, variance = np.inf, float("nan")
    for start in LEVELS:
        k = len(start)
        mixture = GaussianMixture(
            k,
            covariance_type="tied",
            weights_init=np.full(k, 1.0 / k),
            means_init=np.quantile(arms, start)[:, None],
            precisions_init=np.array([[1.0 / max(float(arms.var()), 1e-6)]]),
            tol=1e-5,
            max_iter=500,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the variance is what it is after 500 steps
            mixture.fit(arms)
        criterion = 4 * k - 2 * n * float(mixture.score(arms))
        if criterion < best:
            best, variance = criterion, float(mixture.covariances_[0, 0]) * n / (n - k)
    return max(variance - float(np.mean(sampling)), 0.0)
