"""Can the compartments be told apart from study, platform and batch? Decided by the rank of the design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FACTORS = ("study", "platform", "batch")


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
    compartment = samples["side"].to_numpy(dtype=float)[:, None]
    columns = {name: _dummies(samples[name].astype(str), patients) for name in factors if name in samples}
    columns = {name: matrix for name, matrix in columns.items() if matrix.shape[1]}

    def aliased(*matrices: NDArray[np.float64]) -> bool:
        known = np.column_stack([blocks, *matrices])
        with_it = np.column_stack([known, compartment])
        return bool(np.linalg.matrix_rank(with_it) == np.linalg.matrix_rank(known))

    found = [name for name, matrix in columns.items() if aliased(matrix)]
    if not found and len(columns) > 1 and aliased(*columns.values()):
        found = [" + ".join(columns)]
    found += [name for name in columns if name not in found and _leans(samples, name, patients)]
    unmixed = {}
    for name in columns:
        levels = samples.assign(level=samples[name].astype(str)).groupby(["patient_id", "side"])["level"].agg(set)
        both = [p for p in sorted(set(patients)) if (p, 0) in levels.index and (p, 1) in levels.index]
        unmixed[name] = sum(not (levels[(p, 0)] & levels[(p, 1)]) for p in both)
    return Aliasing(tuple(found), unmixed)
