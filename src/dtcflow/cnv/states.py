r"""Loss, neutral or gain of every clone in every arm, with posterior probabilities.

Clones of one tumour share the error of its expression, and an event they share has one size. For an arm with log ratios
:math:`y_k` of the clones the states :math:`s \in \{-1, 0, 1\}^K` are judged together: :math:`y = a\,s + e 1 +
\epsilon`, with the size :math:`a` of the event (averaged over a grid), the common error :math:`e \sim N(0, \tau^2)` and
independent noise. The difference between clones is thus known better than the level of either, and what cannot be told
apart gets the same state.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from dtcflow.cnv.arms import SplitStatistics
from dtcflow.cnv.clone_arms import arm_members, estimate_arms, halves_agree, systematic_error
from dtcflow.cnv.mixture import Bools
from dtcflow.cnv.null import Floats

States = npt.NDArray[np.int64]

GAINS = (0.20, 0.27, 0.34, 0.45, 0.65)
LOSSES = (0.20, 0.28, 0.36, 0.45, 0.60)
"""Sizes of an event, as relative change of expression: one copy is +.38 and -.43 at a dosage slope of 0.8."""
ALTERED_PRIOR = 0.25
"""Share of the arms that are altered in some clone."""
PRIVATE_SHARE = 0.3
"""Share of the altered arms that are not altered alike in all clones."""
OPPOSITE = 0.02
"""Relative prior of a gain in one clone and a loss of the same arm in another."""
DIFFERENCE_TAU = 0.05
"""SD of an arm's log ratio between clones that no event explains."""
MIN_POSTERIOR = 0.5
"""Posterior probability from which on an event is called (simulated and ovarian seeds 1 and 2)."""


@dataclass(frozen=True)
class CloneStates:
    """States of all clones in all arms."""

    arms: tuple[str, ...]
    state: States
    """clones x arms: -1, 0 or 1."""
    posterior: Floats
    """clones x arms: probability of that state."""

    def events(self, k: int) -> frozenset[str]:
        """Events of a clone, such as ``1q+``."""
        return frozenset(f"{a}{'+' if s > 0 else '-'}" for a, s in zip(self.arms, self.state[k], strict=True) if s)


def _vectors(k: int) -> tuple[States, Floats]:
    """All state vectors of ``k`` clones and their log prior."""
    found = np.array(list(itertools.product((0, 1, -1), repeat=k)), dtype=np.int64)
    prior = np.empty(len(found))
    same = (found == found[:, :1]).all(axis=1)
    prior[same] = np.where(found[same, 0] == 0, 1 - ALTERED_PRIOR, ALTERED_PRIOR / 2)
    if k > 1:
        prior[same & (found[:, 0] != 0)] *= 1 - PRIVATE_SHARE
        weight = np.where((found > 0).any(axis=1) & (found < 0).any(axis=1), OPPOSITE, 1.0)
        prior[~same] = ALTERED_PRIOR * PRIVATE_SHARE * weight[~same] / weight[~same].sum()
    return found, np.log(prior)


def infer_states(log_ratio: Floats, noise: Floats, tau: Floats, agree: Bools) -> tuple[States, Floats]:
    """States and their posterior probabilities.

    Parameters
    ----------
    log_ratio, noise
        clones x arms: estimate and its SD from counting.
    tau
        Per arm: SD of the error that all clones share.
    agree
        clones x arms: whether both halves of the genes support an event there; without it the state is neutral.
    """
    k, n_arms = log_ratio.shape
    vectors, log_prior = _vectors(k)
    sizes = np.array(list(itertools.product(GAINS, LOSSES)))
    means = np.where(vectors[None] > 0, sizes[:, :1, None], 0.0) - np.where(vectors[None] < 0, sizes[:, 1:, None], 0.0)
    state, posterior = np.zeros((k, n_arms), dtype=np.int64), np.ones((k, n_arms))
    for a in range(n_arms):
        y = log_ratio[:, a]
        if not np.all(np.isfinite(y)) or not np.all(np.isfinite(noise[:, a])):
            continue
        covariance = np.diag(noise[:, a] ** 2 + DIFFERENCE_TAU**2) + tau[a] ** 2
        left = y - means
        square = np.einsum("svk,kj,svj->sv", left, np.linalg.inv(covariance), left)
        joint = log_prior + special.logsumexp(-0.5 * square, axis=0) - np.log(len(sizes))
        belief = special.softmax(joint)
        best = vectors[np.argmax(belief)]
        for j in range(k):
            sure = float(belief[vectors[:, j] == best[j]].sum())
            if best[j] == 0 or (sure >= MIN_POSTERIOR and agree[j, a]):
                state[j, a], posterior[j, a] = best[j], sure
            else:
                posterior[j, a] = float(belief[vectors[:, j] == 0].sum())
    return state, posterior


def clone_states(
    statistics: SplitStatistics,
    label: npt.NDArray[np.int64],
    *,
    inflation: Floats,
    tau: Floats,
    effect: float,
    times: Floats | None = None,
) -> CloneStates:
    """States of all clones from their cells.

    ``times`` (halves x segments) counts how often each half-segment is drawn in a bootstrap replicate.
    """
    k = int(label.max(initial=-1)) + 1
    names = statistics.full.arms
    arms, _ = arm_members(names)
    counted = np.ones((2, len(names))) if times is None else times
    if k == 0:
        return CloneStates(arms, np.zeros((0, len(arms)), dtype=np.int64), np.zeros((0, len(arms))))
    log_ratio, noise = np.empty((k, len(arms))), np.empty((k, len(arms)))
    spread = np.empty((k, len(arms)))
    agree = np.zeros((k, len(arms)), dtype=bool)
    for j in range(k):
        part = statistics[label == j]
        sums = [(h.u.sum(axis=0) * t, h.info.sum(axis=0) * t) for h, t in zip(part.halves, counted, strict=True)]
        whole = estimate_arms(sums[0][0] + sums[1][0], sums[0][1] + sums[1][1], names, inflation)
        sides = [estimate_arms(u, info, names, inflation).log_ratio for u, info in sums]
        log_ratio[j], noise[j] = whole.log_ratio, whole.noise
        spread[j] = systematic_error(whole, names, tau)
        agree[j] = halves_agree(whole.log_ratio, sides[0], sides[1], effect)
    state, posterior = infer_states(log_ratio, noise, np.median(spread, axis=0), agree)
    return CloneStates(arms, state, posterior)
