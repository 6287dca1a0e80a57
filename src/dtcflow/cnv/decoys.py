"""Decoys of a learned profile: what the seed loop would find if the profile said nothing about the cells.

Every decoy runs through the same loop as the target, seeding included (:func:`dtcflow.cnv.profile.learn_clone`), but
each profile it learns is spoilt before cells are scored with it: its sign is flipped, or its arms change places among
arms of similar information. The scores of decoys give a false-discovery rate that owes nothing to the reference cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from dtcflow.cnv.arms import SplitStatistics
from dtcflow.cnv.profile import learn_clone, score_against

Floats = npt.NDArray[np.float64]

N_PERMUTED = 19
"""Permuted decoys beside the flipped one; 20 in all, so that three called cells can reach a rate of .05 / 3."""
STRATUM = 6
"""Arms of similar information that change places with one another."""


def decoy_profiles(info: Floats, *, n_permuted: int = N_PERMUTED, seed: int) -> dict[str, Callable[[Floats], Floats]]:
    """Functions that spoil a profile: ``flipped`` and ``permuted_00`` ...

    Parameters
    ----------
    info
        Information per arm, which decides the arms that may change places.
    """
    rng = np.random.default_rng(seed)
    by_size = np.argsort(-info, kind="stable")
    spoil: dict[str, Callable[[Floats], Floats]] = {"flipped": np.negative}
    for k in range(n_permuted):
        source = np.arange(len(info))
        for first in range(0, len(info), STRATUM):
            group = by_size[first : first + STRATUM]
            # a cycle through the shuffled group: every arm gets another's value
            shuffled = rng.permutation(group)
            source[shuffled] = np.roll(shuffled, 1)
        spoil[f"permuted_{k:02d}"] = _taken_from(source)
    return spoil


def _taken_from(source: npt.NDArray[np.int64]) -> Callable[[Floats], Floats]:
    return lambda profile: np.asarray(profile[source])


def decoy_scores(
    statistics: SplitStatistics,
    candidates: npt.NDArray[np.bool_],
    burden_p: Floats,
    fold: npt.NDArray[np.int64],
    target: Floats,
    *,
    inflation: Floats,
    tau: Floats,
    min_abs_log_ratio: float,
    seed: int,
) -> Mapping[str, Floats]:
    """Score of every cell with every decoy; arguments as for :func:`dtcflow.cnv.profile.learn_clone`.

    A decoy whose loop ends without a profile is replaced by the target's spoilt profile, so that every decoy competes.

    Parameters
    ----------
    target
        The learned (or given) profile.
    """
    pooled = statistics.full.info[candidates].sum(axis=0)
    scores = {}
    for name, decoy in decoy_profiles(pooled, seed=seed).items():
        found = learn_clone(
            statistics,
            candidates,
            burden_p,
            fold,
            inflation=inflation,
            tau=tau,
            min_abs_log_ratio=min_abs_log_ratio,
            decoy=decoy,
        )
        looped = found.status == "ok" and np.isfinite(found.t).any()
        scores[name] = found.t if looped else score_against(decoy(target), statistics.full, inflation)[0]
    return scores
