"""Clones of one patient and the order in which their events arose, as far as the data resolve them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from dtcflow.cnv.arms import ArmStatistics, SplitStatistics
from dtcflow.cnv.fdr import benjamini_hochberg
from dtcflow.cnv.null import Floats
from dtcflow.cnv.profile import ALPHA

MIN_CELLS_PER_CLONE = 10
MAX_CLONES = 4
ROUNDS = 25
MIN_POSTERIOR_MARGIN = 2.0
"""Mean log-likelihood lead of a clone's cells for their own clone; below it the split is not resolved."""


@dataclass(frozen=True)
class Clones:
    """``label`` per cell (0, 1, ...; -1 outside the tumour), number of clones and what was found."""

    label: npt.NDArray[np.int64]
    n_clones: int
    status: str
    """``single_clone``, ``resolved`` or ``too_few_cells``."""
    support: tuple[float, ...]
    """Per clone: mean posterior probability of its cells for it."""


def _group_profile(statistics: ArmStatistics, members: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    info = np.maximum(statistics.info[members].sum(axis=0), 1e-9)
    log_ratio = statistics.u[members].sum(axis=0) / info
    return log_ratio - np.median(log_ratio), info


def _log_likelihood(profile: Floats, statistics: ArmStatistics, inflation: Floats) -> Floats:
    """Quadratic log likelihood of each cell under a profile, against a flat genome, centred per cell."""
    info = statistics.info
    centred = profile - (info @ profile / np.maximum(info.sum(axis=1), 1e-9))[:, None]
    return np.asarray(((centred * statistics.u - 0.5 * np.square(centred) * info) / inflation).sum(axis=1))


def _split(
    statistics: SplitStatistics, members: npt.NDArray[np.bool_], inflation: Floats, min_abs_log_ratio: float
) -> npt.NDArray[np.bool_] | None:
    """Split a group in two on one half of the genes; keep the split only if the other half shows it too."""
    rows = np.flatnonzero(members)
    train, test = statistics.halves[0][rows], statistics.halves[1][rows]
    _, z = train.centred()
    scaled = (z - z.mean(axis=0)) / np.sqrt(inflation)
    _, _, components = np.linalg.svd(scaled, full_matrices=False)
    side = scaled @ components[0] > 0
    for _ in range(ROUNDS):
        if min(side.sum(), (~side).sum()) < MIN_CELLS_PER_CLONE:
            return None
        lead = _log_likelihood(_group_profile(train, side)[0], train, inflation) - _log_likelihood(
            _group_profile(train, ~side)[0], train, inflation
        )
        updated = lead > 0
        if np.array_equal(updated, side):
            break
        side = updated
    if min(side.sum(), (~side).sum()) < MIN_CELLS_PER_CLONE:
        return None
    (first, info_first), (second, info_second) = _group_profile(test, side), _group_profile(test, ~side)
    difference = first - second
    # both groups are tumour cells of one compartment: the systematic error of their type cancels
    z_test = difference / np.sqrt(inflation / info_first + inflation / info_second)
    q = benjamini_hochberg(2.0 * stats.norm.sf(np.abs(z_test)))
    seen = (q < ALPHA) & (np.abs(difference) >= min_abs_log_ratio)
    trained = _group_profile(train, side)[0] - _group_profile(train, ~side)[0]
    if not np.any(seen & (np.sign(trained) == np.sign(difference)) & (np.abs(trained) >= min_abs_log_ratio)):
        return None
    lead = _log_likelihood(_group_profile(statistics.full[rows], side)[0], statistics.full[rows], inflation)
    lead -= _log_likelihood(_group_profile(statistics.full[rows], ~side)[0], statistics.full[rows], inflation)
    if np.mean(np.where(side, lead, -lead)) < MIN_POSTERIOR_MARGIN:
        return None
    whole = np.zeros(len(members), dtype=bool)
    whole[rows[side]] = True
    return whole


def find_clones(
    statistics: SplitStatistics,
    malignant: npt.NDArray[np.bool_],
    compartment: npt.NDArray[np.object_],
    *,
    inflation: Floats,
    min_abs_log_ratio: float,
) -> Clones:
    """Divide a patient's malignant cells into clones.

    Clones are learned in the compartment with most malignant cells, because cells of different compartments also
    differ in expression, and the other cells join the clone they are most likely of. A group is split on one half
    of the genes and the split stands only when an arm differs on the other half too; clones are numbered by size.
    """
    label = np.full(len(malignant), -1, dtype=np.int64)
    if malignant.sum() < 2 * MIN_CELLS_PER_CLONE:
        label[malignant] = 0
        n = int(malignant.any())
        return Clones(label, n, "too_few_cells", (1.0,) * n)
    names, sizes = np.unique(compartment[malignant].astype(str), return_counts=True)
    learned_in = malignant & (compartment.astype(str) == names[np.argmax(sizes)])
    groups = [learned_in]
    closed: list[npt.NDArray[np.bool_]] = []
    while groups and len(groups) + len(closed) < MAX_CLONES:
        groups.sort(key=lambda g: -int(g.sum()))
        group = groups.pop(0)
        part = (
            _split(statistics, group, inflation, min_abs_log_ratio) if group.sum() >= 2 * MIN_CELLS_PER_CLONE else None
        )
        if part is None:
            closed.append(group)
        else:
            groups += [part, group & ~part]
    final = sorted([*groups, *closed], key=lambda g: (-int(g.sum()), int(np.flatnonzero(g)[0])))
    likelihood = np.column_stack(
        [_log_likelihood(_group_profile(statistics.full, g)[0], statistics.full, inflation) for g in final]
    )
    label[malignant] = np.argmax(likelihood[malignant], axis=1)
    posterior = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    support = tuple(
        float(posterior[label == k, k].mean()) if (label == k).any() else float("nan") for k in range(len(final))
    )
    return Clones(label, len(final), "resolved" if len(final) > 1 else "single_clone", support)


def newick(events: dict[str, dict[str, frozenset[str]]]) -> str:
    """Newick trees of all patients under one diploid root.

    Parameters
    ----------
    events
        patient -> clone -> events (``"1q+"``). Branch lengths are numbers of events. Clones of a patient hang from a
        trunk node when they share events; otherwise directly from the root.
    """
    patients = []
    for patient in sorted(events):
        clones = events[patient]
        if not clones:
            continue
        trunk = frozenset.intersection(*clones.values())
        leaves = [f"{_quote(name)}:{len(found - trunk)}" for name, found in sorted(clones.items())]
        if len(leaves) == 1:
            name, found = next(iter(clones.items()))
            patients.append(f"{_quote(name)}:{len(found)}")
        elif trunk:
            patients.append(f"({','.join(leaves)}){_quote(patient + '_trunk')}:{len(trunk)}")
        else:
            patients.extend(leaves)
    return f"({','.join(patients)})diploid;\n" if patients else "diploid;\n"


def _quote(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
