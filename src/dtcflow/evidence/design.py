"""Can the compartments be told apart from study, platform and batch? Decided by the rank of the design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FACTORS = ("study", "platform", "batch")
PROTOCOL = "platform"


@dataclass(frozen=True)
class Aliasing:
    """Factors the compartment cannot be told from, in words a report can show.

    Attributes
    ----------
    factors
        Factors that alone, or all together (``"study + platform + batch"``), carry the same information as the
        compartment.
    n_unmixed
        For each factor present, patients whose two compartments share no level of it.
    """

    factors: tuple[str, ...]
    n_unmixed: dict[str, int]

    @property
    def confounded(self) -> bool:
        """Whether the compartment is not estimable."""
        return bool(self.factors)


def _dummies(values: pd.Series, patients: pd.Series) -> NDArray[np.float64]:
    """One column per level that at least two patients share.

    A level seen in one patient only (a batch per sample, say) cannot bring the *same* artefact into several patients:
    it adds to the differences between patients, which the test accounts for. Such levels form the common baseline.
    """
    shared = [level for level in sorted(set(values)) if patients[values == level].nunique() > 1]
    return (
        np.column_stack([values == level for level in shared]).astype(float) if shared else np.zeros((len(values), 0))
    )


def _leans(samples: pd.DataFrame, factor: str, patients: pd.Series) -> bool:
    """Whether most patients have their two sides in the same two shared levels, the same way round.

    One patient with both sides in one level makes the compartment estimable in a model with the factor, but the claims
    average all patients: a shift between the levels would go into the average nearly undiminished.
    """
    level = samples[factor].astype(str)
    shared = {name for name in set(level) if patients[level == name].nunique() > 1}
    both, net = 0, dict[tuple[str, str], int]()
    for patient in sorted(set(patients)):
        sides = [set(level[(patients == patient) & (samples["side"] == side)]) for side in (0, 1)]
        if not all(sides):
            continue
        both += 1
        if sides[0] & sides[1] or not (sides[0] | sides[1]) <= shared:
            continue
        for a in sides[0]:
            for b in sides[1]:
                key, sign = ((a, b), 1) if a < b else ((b, a), -1)
                net[key] = net.get(key, 0) + sign
    return any(abs(n) > both / 2 for n in net.values())


def _separated(samples: pd.DataFrame, factor: str, patients: pd.Series) -> bool:
    """Whether the factor carries the compartment in most patients: in those whose two sides share no level of it.

    A few patients with both sides in one level make the compartment estimable in a model with the factor, also where
    either side of the others is spread over several levels; the average over patients keeps most of a shift.
    """
    level = samples[factor].astype(str)
    both, apart = 0, set()
    for patient in sorted(set(patients)):
        sides = [set(level[(patients == patient) & (samples["side"] == side)]) for side in (0, 1)]
        if all(sides):
            both += 1
            if not sides[0] & sides[1]:
                apart.add(patient)
    if len(apart) <= both / 2:
        return False
    kept = patients.isin(apart)
    columns = _dummies(level[kept], patients[kept])
    blocks = pd.get_dummies(patients[kept]).to_numpy(dtype=float)
    return columns.shape[1] > 0 and _spans(samples.loc[kept, "side"], blocks, columns)


def _spans(side: pd.Series, *matrices: NDArray[np.float64]) -> bool:
    """Whether the compartment is a combination of these columns: it adds nothing to their rank."""
    known = np.column_stack(matrices)
    with_it = np.column_stack([known, side.to_numpy(dtype=float)])
    return bool(np.linalg.matrix_rank(with_it) == np.linalg.matrix_rank(known))


def _differs_within(samples: pd.DataFrame, patients: pd.Series) -> bool:
    """Whether the two sides of any patient come from different platforms."""
    level = samples[PROTOCOL].astype(str)
    for patient in sorted(set(patients)):
        sides = [set(level[(patients == patient) & (samples["side"] == side)]) for side in (0, 1)]
        if all(sides) and sides[0] != sides[1]:
            return True
    return False


def mixes_protocols(samples: pd.DataFrame) -> bool:
    """Whether the side a claim is about is measured with another platform than the side that sets its unit.

    Parameters
    ----------
    samples
        One row per sample and side: ``patient_id side`` and, where it is known, ``platform``. Patients may have one
        side only.

    Notes
    -----
    Reads and molecules cannot be brought to one depth: within a patient both sides must have the same platforms, and
    no platform of side 0 may be missing from side 1.
    """
    if PROTOCOL not in samples or samples["side"].nunique() < 2:
        return False
    level = samples[PROTOCOL].astype(str)
    sides = [set(level[samples["side"] == side]) for side in (0, 1)]
    return bool(sides[0] - sides[1]) or _differs_within(samples, samples["patient_id"].astype(str))


def find_aliasing(samples: pd.DataFrame, factors: Sequence[str] = FACTORS) -> Aliasing:
    """Check whether the compartment is estimable within patients given each factor, and given all of them.

    Parameters
    ----------
    samples
        One row per sample that enters the contrast: ``patient_id``, ``side`` (0, 1) and any of ``factors``.
    factors
        Columns to check; absent ones, and those with one level only, are skipped.

    Notes
    -----
    With patients as blocks, the compartment is estimable if and only if its column adds to the rank of
    [patients, factor levels].
    """
    if samples.empty or samples["side"].nunique() < 2:
        return Aliasing((), {})
    patients = samples["patient_id"].astype(str)
    blocks = pd.get_dummies(patients).to_numpy(dtype=float)
    columns = {name: _dummies(samples[name].astype(str), patients) for name in factors if name in samples}
    columns = {name: matrix for name, matrix in columns.items() if matrix.shape[1]}

    side = samples["side"]
    found = [name for name, matrix in columns.items() if _spans(side, blocks, matrix)]
    if not found and len(columns) > 1 and _spans(side, blocks, *columns.values()):
        found = [" + ".join(columns)]
    for name in columns:
        if name not in found and (_leans(samples, name, patients) or _separated(samples, name, patients)):
            found.append(name)
    unmixed = {}
    for name in columns:
        levels = samples.assign(level=samples[name].astype(str)).groupby(["patient_id", "side"])["level"].agg(set)
        both = [p for p in sorted(set(patients)) if (p, 0) in levels.index and (p, 1) in levels.index]
        unmixed[name] = sum(not (levels[(p, 0)] & levels[(p, 1)]) for p in both)
    # protocols are never mixed inside one contrast: reads and molecules cannot be brought to one depth
    if PROTOCOL in samples and PROTOCOL not in found and _differs_within(samples, patients):
        found.append(PROTOCOL)
    return Aliasing(tuple(found), unmixed)


MAX_SHIFT = 0.5
"""From this distance between the two groups' shares of platforms or batches on, most of a difference may be theirs."""


def find_unpaired_aliasing(samples: pd.DataFrame, factors: Sequence[str] = FACTORS) -> Aliasing:
    """Check whether the group of an unpaired contrast is estimable within studies given platform and batch.

    Parameters
    ----------
    samples
        One row per sample: ``patient_id``, ``side`` (0, 1) and any of ``factors``; ``study`` is what patients are
        compared within.
    factors
        Columns to check.

    Notes
    -----
    Study: aliased when no study has both groups. The others: aliased when the group's column does not add to the rank
    of [studies, levels], or when the two groups of the studies that have both are spread so differently over the levels
    that more than half of one would have to change places (total variation distance), even if a few patients cross.
    Levels that one patient only has are no shared artefact and form the baseline, as in :func:`find_aliasing`.
    Platform: aliased, too, when a study that has both groups has more than one.
    """
    if samples.empty or samples["side"].nunique() < 2:
        return Aliasing((), {})
    study = samples["study"].astype(str) if "study" in samples else pd.Series("", index=samples.index)
    sides = samples["side"].groupby(study).nunique()
    both = study.isin(sides.index[sides == 2])
    if not both.any():
        return Aliasing(("study",), {})
    kept = samples[both].reset_index(drop=True)
    patients = kept["patient_id"].astype(str)
    own_study = study[both].reset_index(drop=True)
    blocks = pd.get_dummies(own_study).to_numpy(dtype=float)
    side = kept["side"]
    found = []
    columns = {name: _dummies(kept[name].astype(str), patients) for name in factors if name in kept and name != "study"}
    columns = {name: matrix for name, matrix in columns.items() if matrix.shape[1]}

    for name, matrix in columns.items():
        if _spans(side, blocks, matrix) or _shifted(matrix, own_study, side.to_numpy(dtype=float)):
            found.append(name)
    if not found and len(columns) > 1 and _spans(side, blocks, *columns.values()):
        found = [" + ".join(columns)]
    # protocols are never mixed inside one contrast: the people of a study are brought to one depth
    if PROTOCOL in kept and PROTOCOL not in found and kept[PROTOCOL].astype(str).groupby(own_study).nunique().max() > 1:
        found.append(PROTOCOL)
    return Aliasing(tuple(found), {})


def _shifted(levels: NDArray[np.float64], study: pd.Series, side: NDArray[np.float64]) -> bool:
    """Whether the groups of a study sit on different levels, averaged over studies by their size."""
    full = np.column_stack([levels, 1.0 - levels.sum(axis=1)])
    distances, weights = [], []
    for name in sorted(set(study)):
        own = (study == name).to_numpy(dtype=bool)
        shares = [full[own & (side == k)].mean(axis=0) for k in (0, 1)]
        n = [int((own & (side == k)).sum()) for k in (0, 1)]
        distances.append(float(np.abs(shares[0] - shares[1]).sum() / 2))
        weights.append(n[0] * n[1] / sum(n))
    return bool(np.average(distances, weights=weights) > MAX_SHIFT)
