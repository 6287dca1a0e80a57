"""Which cells a claim is about: the cells of two groups, by patient, side and sample."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtcflow.cells import single_malignant
from dtcflow.contracts import NORMAL_COMPARTMENTS
from dtcflow.evidence.plan import POPULATIONS, Population

SMALL_SAMPLES: Final = "(small samples)"
"""Label under which the cells of a patient's samples with too few cells are taken together."""


@dataclass(frozen=True)
class Layout:
    """Which cell belongs to which patient, side of the contrast and sample.

    Attributes
    ----------
    table
        One row per scored cell, sorted by patient, side and cell id: ``cell_id row patient_id side sample strict``;
        ``row`` is the cell's row in the matrix, ``side`` 0 (a) or 1 (b), ``strict`` whether the cell meets the strict
        call.
    patients
        Patients with enough cells on both sides, sorted.
    overview
        One row per patient of the cohort: ``patient_id n_cells_a n_cells_b usable reason samples_left_out`` (samples of
        a time point that the claim does not ask about).
    paired
        Whether every patient has both sides. In an unpaired layout a patient is on one side.
    study
        Study of each of :attr:`patients`; empty in a paired layout, where every patient is its own block.
    """

    table: pd.DataFrame
    patients: tuple[str, ...]
    overview: pd.DataFrame
    paired: bool = True
    study: tuple[str, ...] = ()

    @property
    def patient(self) -> NDArray[np.int64]:
        """Index into :attr:`patients` per cell."""
        order = {name: i for i, name in enumerate(self.patients)}
        return np.asarray([order[name] for name in self.table["patient_id"]], dtype=np.int64)

    @property
    def block(self) -> NDArray[np.int64]:
        """Per cell, what it is compared within: its patient, or in an unpaired layout its study."""
        if self.paired:
            return self.patient
        order = {name: i for i, name in enumerate(sorted(set(self.study)))}
        return np.asarray([order[name] for name in self.study], dtype=np.int64)[self.patient]

    @property
    def side(self) -> NDArray[np.int64]:
        """0 or 1 per cell."""
        return self.table["side"].to_numpy(dtype=np.int64)


def stream(seed: int, *names: object) -> np.random.Generator:
    """Return the random stream of (seed, names): what one patient draws never depends on which others there are."""
    return np.random.default_rng([seed, *(zlib.crc32(str(name).encode()) for name in names)])


def capped(cells: pd.DataFrame, limit: int, seed: int, *names: object) -> pd.DataFrame:
    """At most ``limit`` cells in the order of their ids: a random choice whose stream has these names."""
    chosen = cells.sort_values("cell_id", kind="stable")
    if len(chosen) <= limit:
        return chosen
    rng = stream(seed, "cap", *names)
    return chosen.iloc[np.sort(rng.choice(len(chosen), size=limit, replace=False))]


def tumour_patients(cells: pd.DataFrame) -> list[str]:
    """Patients of the cohort, sorted; donors who only have normal samples are no patients."""
    kept = cells.loc[~cells["compartment"].isin(NORMAL_COMPARTMENTS), "patient_id"]
    return sorted(set(kept.astype(str)))


def cells_of(cells: pd.DataFrame, group: str) -> NDArray[np.bool_]:
    """Which cells belong to a group, a key of :data:`dtcflow.evidence.plan.POPULATIONS`."""
    population = POPULATIONS[group]
    here = cells["compartment"].isin(population.compartments).to_numpy(dtype=bool)
    if population.malignant:
        return np.asarray(here & single_malignant(cells))
    normal = (cells["malignant_call"] == "normal").to_numpy(dtype=bool)
    typed = cells["cell_type"].isin(population.cell_types).to_numpy(dtype=bool) if "cell_type" in cells else False
    return np.asarray(here & normal & typed)


def at_timepoint(cells: pd.DataFrame, timepoint: str) -> NDArray[np.bool_]:
    """Which cells come from samples of a time point.

    ``pre`` are all samples that the sheet does not call ``post`` (most sheets name no time point), ``post`` only those
    it does, ``any`` all.
    """
    if timepoint == "any" or "timepoint" not in cells:
        return np.full(len(cells), timepoint != "post")
    post = (cells["timepoint"].fillna("").astype(str) == "post").to_numpy(dtype=bool)
    return np.asarray(post if timepoint == "post" else ~post)


def _left_out(cells: pd.DataFrame, kept: NDArray[np.bool_], groups: tuple[str, str]) -> dict[str, str]:
    """Samples of a claim's compartments that another time point leaves out, by patient."""
    wanted = {name for group in groups for name in POPULATIONS[group].compartments}
    rest = cells[~kept & cells["compartment"].isin(wanted).to_numpy(dtype=bool)]
    found: dict[str, set[str]] = {}
    for patient, sample in zip(rest["patient_id"].astype(str), rest["sample_id"].astype(str), strict=True):
        found.setdefault(patient, set()).add(sample)
    return {patient: ";".join(sorted(samples)) for patient, samples in found.items()}


def why_unusable(n: int, sampled: bool, population: Population, minimum: int) -> str:
    """Say why a patient has no value on a side; empty when there is one."""
    if not sampled:
        return f"no {population.place} sample"
    if n == 0:
        return f"no {population.cell} in {population.place}"
    if n < minimum:
        return f"{n} {population.cell}{'s' if n > 1 else ''} in {population.place}, {minimum} needed"
    return ""


@dataclass(frozen=True)
class _Side:
    """The cells of one patient on one side."""

    cells: pd.DataFrame
    sampled: bool


def _sides(cells: pd.DataFrame, groups: tuple[str, str], timepoint: str) -> dict[tuple[str, int], _Side]:
    """Cells by patient and side, for every patient or donor with a sample of that side."""
    out: dict[tuple[str, int], _Side] = {}
    there = at_timepoint(cells, timepoint)
    for side, group in enumerate(groups):
        here = cells["compartment"].isin(POPULATIONS[group].compartments).to_numpy(dtype=bool) & there
        sampled = set(cells.loc[here, "patient_id"].astype(str))
        own = cells[cells_of(cells, group) & there]
        parts = {str(name): part for name, part in own.groupby(own["patient_id"].astype(str), sort=True)}
        for patient in sampled:
            out[patient, side] = _Side(parts.get(patient, own.iloc[:0]), True)
    return out


def _rows(
    part: pd.DataFrame, patient: str, side: int, group: str, *, strict_q: float, minimum: int, max_cells: int, seed: int
) -> pd.DataFrame:
    """Rows of the layout for the cells of one patient and side."""
    chosen = capped(part, max_cells, seed, patient, group)
    sample = chosen["sample_id"].astype(str)
    sizes = sample.map(sample.value_counts())
    # a q-value depends on a cell's company, the strict call on its own evidence wherever that is known
    own = next((name for name in ("clone_llr_p", "malignancy_q") if name in chosen), None)
    q = pd.Series(np.nan, index=chosen.index) if own is None else chosen[own].fillna(chosen["malignancy_q"])
    strict = (q <= strict_q).to_numpy(dtype=bool)
    return pd.DataFrame(
        {
            "cell_id": chosen["cell_id"].astype(str),
            "row": chosen.index.to_numpy(dtype=np.int64),
            "patient_id": patient,
            "side": side,
            "sample": sample.where(sizes >= minimum, SMALL_SAMPLES),
            # the strict call is one of malignancy: it says nothing about normal cells
            "strict": strict if POPULATIONS[group].malignant else np.ones(len(chosen), dtype=bool),
        }
    )


OVERVIEW: Final = ("patient_id", "n_cells_a", "n_cells_b", "usable", "reason", "samples_left_out")


def lay_out(
    cells: pd.DataFrame,
    *,
    a: str,
    b: str,
    strict_q: float,
    minimum: int = 3,
    max_cells: int = 150,
    seed: int = 0,
    timepoint: str = "any",
    paired: bool = True,
) -> Layout:
    """Choose the cells of a contrast.

    Parameters
    ----------
    cells
        One row per QC-passed cell: ``cell_id sample_id patient_id compartment malignant_call``, for the strict call
        ``malignancy_q``, for groups of normal cells ``cell_type``, and where known ``timepoint`` and ``study``. The
        index is the cell's row in the count matrix.
    a, b
        Groups, keys of :data:`dtcflow.evidence.plan.POPULATIONS`.
    strict_q
        Largest p of the strict call: the cell's own clone p where there is one, else its malignancy q.
    minimum
        Cells a patient needs on either side.
    max_cells
        Most cells of one patient and side; of more, a seeded random choice that does not depend on their order.
    seed
        Start of the random choice.
    timepoint
        See :func:`at_timepoint`.
    paired
        Whether a patient needs both sides. If not, a patient (or donor) who has both counts once, on the side that
        fewer others have (side a in a tie), so that the two sides hold different people.

    Notes
    -----
    Samples of a patient with fewer than ``minimum`` cells are taken together instead of being dropped: rare tumour
    cells spread over several aspirates still count. Droplets of a tumour cell and another cell take no part: half of
    what they express is the other cell's.
    """
    groups = (a, b)
    sides = _sides(cells, groups, timepoint)
    left_out = _left_out(cells, at_timepoint(cells, timepoint), groups)
    patients = tumour_patients(cells) if paired else sorted({name for name, _ in sides} | set(tumour_patients(cells)))
    nothing = _Side(cells.iloc[:0], False)
    enough = {key for key, part in sides.items() if len(part.cells) >= minimum}
    alone = [sum((name, side) in enough and (name, 1 - side) not in enough for name in patients) for side in (0, 1)]
    fewer = int(alone[1] < alone[0])
    parts: list[pd.DataFrame] = []
    overview: list[dict[str, object]] = []
    usable: list[str] = []
    for patient in patients:
        found = [sides.get((patient, side), nothing) for side in (0, 1)]
        whys = [
            why_unusable(len(one.cells), one.sampled, POPULATIONS[group], minimum)
            for one, group in zip(found, groups, strict=True)
        ]
        used = [side for side in (0, 1) if not whys[side]]
        if paired:
            used = used if len(used) == 2 else []
        elif len(used) == 2:
            used = [fewer]
        overview.append(
            {
                "patient_id": patient,
                "n_cells_a": len(found[0].cells),
                "n_cells_b": len(found[1].cells),
                "usable": bool(used),
                "reason": "" if used else "; ".join(dict.fromkeys(why for why in whys if why)),
                "samples_left_out": left_out.get(patient, ""),
            }
        )
        if used:
            usable.append(patient)
        for side in used:
            part = found[side].cells
            options: dict[str, Any] = {"strict_q": strict_q, "minimum": minimum, "max_cells": max_cells, "seed": seed}
            parts.append(_rows(part, patient, side, groups[side], **options))
    columns = ["cell_id", "row", "patient_id", "side", "sample", "strict"]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({name: [] for name in columns})
    return Layout(
        table,
        tuple(usable),
        pd.DataFrame(overview, columns=list(OVERVIEW)),
        paired=paired,
        study=() if paired else _studies(cells, usable),
    )


def _studies(cells: pd.DataFrame, patients: Sequence[str]) -> tuple[str, ...]:
    """Study of each patient; one for all where the sheet names none."""
    if "study" not in cells:
        return ("",) * len(patients)
    first = cells.assign(p=cells["patient_id"].astype(str), s=cells["study"].fillna("").astype(str))
    found = first.groupby("p")["s"].min()
    return tuple(str(found[name]) for name in patients)
