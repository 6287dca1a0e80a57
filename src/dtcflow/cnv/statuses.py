"""When copy number cannot be assessed, and settings that make no sense: a status or a message, never a number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dtcflow.cnv.arms import ArmStatistics
from dtcflow.cnv.null import Noise
from dtcflow.cnv.profile import MIN_PROFILE_ARMS, MIN_PROFILE_STRENGTH
from dtcflow.contracts import InputError, Problem

MANY_CELLS: Final = 50
"""A sample is too shallow when a clone of this many cells (or of all candidates, if they are more) could not be seen
even with every arm altered."""

NUMBERS: Final[Mapping[str, tuple[float, float, str]]] = {
    "max_reference_per_type": (1, math.inf, "a whole number from 1 on"),
    "min_reference_cells": (1, math.inf, "a whole number from 1 on"),
    "min_genes": (1, math.inf, "a whole number from 1 on"),
    "window_size": (1, math.inf, "a whole number from 1 on"),
    "step": (1, math.inf, "a whole number from 1 on"),
    "folds": (2, math.inf, "a whole number from 2 on"),
    "fdr": (0.0, 1.0, "a number above 0 and below 1"),
    "min_abs_log_ratio": (0.0, math.inf, "a number from 0 on"),
}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings that are missing, not numbers (NaN included) or out of range, all at once.

    Raises
    ------
    InputError
        Names every such key of section ``copy_number``, what was found and what is allowed.
    """
    problems = []
    for key, (low, high, allowed) in NUMBERS.items():
        value = settings.get(key)
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        good = math.isfinite(number) and low <= number <= high
        if key == "fdr":
            good = good and 0.0 < number < 1.0
        if not good:
            problems.append(Problem("configuration", repr(value), allowed, "correct it", key=f"copy_number.{key}"))
    lineage = settings.get("tumour_lineage")
    if lineage not in ("epithelial", "any"):
        allowed = "epithelial | any"
        problems.append(
            Problem("configuration", repr(lineage), allowed, "correct it", key="copy_number.tumour_lineage")
        )
    if problems:
        raise InputError("settings of the copy-number step that cannot be used", problems)


def shallow_reason(arms_needed: float, n_arms: int, *, n_cells: int) -> str:
    """Why the cells are too shallow, or empty when they are not.

    Parameters
    ----------
    arms_needed
        Smallest number of arms, altered by one copy, that a clone of ``n_cells`` must have to be seen.
    n_arms
        Arms that can be assessed at all.
    n_cells
        Cells of that clone: the candidates, and not fewer than :data:`MANY_CELLS`.
    """
    if not math.isnan(arms_needed) and arms_needed <= n_arms:
        return ""
    return (
        f"a clone of {n_cells} cells would need {arms_needed:.0f} altered arms to be seen at this depth, "
        f"{n_arms} can be assessed"
    )


def smallest_detectable(
    statistics: ArmStatistics,
    candidate: npt.NDArray[np.bool_],
    noise: Noise,
    sizes: tuple[int, ...] = (5, 10, 20, 50),
    strength: float = MIN_PROFILE_STRENGTH,
) -> dict[str, float]:
    """What a clone of so many cells would have needed to be seen: arms altered by a single copy.

    Uses the median information of the candidates (of all cells when there are none): the smallest number of arms with a
    log ratio of 0.32 whose pooled z squared reaches the required profile strength.
    """
    group = candidate if candidate.sum() >= 3 else np.ones(len(statistics.u), dtype=bool)
    info = np.median(statistics.info[group], axis=0)
    result = {}
    for n in sizes:
        z2 = np.sort(0.32**2 / (noise.inflation / np.maximum(n * info, 1e-9) + noise.tau**2))[::-1]
        typical = float(np.median(z2))
        result[f"arms_at_{n}_cells"] = float(max(MIN_PROFILE_ARMS, np.ceil(strength / typical)))
    return result
