"""Calls of a cohort: classes of the cells (:mod:`dtcflow.classify`), arms of every clone, clones and their tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd

from dtcflow.cells import passed_cells, single_malignant
from dtcflow.classify import CLASSES, call_cells
from dtcflow.cnv.genome import Genome
from dtcflow.cnv.tables import CloneTables, clone_tables, stack_tables
from dtcflow.cnv.tree import CloneTree, newick_of
from dtcflow.contracts import (
    NORMAL_COMPARTMENTS,
    join_side_car,
    read_json,
    read_stage,
    read_table,
)

__all__ = ["CLASSES", "Calls", "call_cells", "call_cohort", "call_patient", "read_patients"]


@dataclass(frozen=True)
class Calls:
    """Tables ``calls``, ``arms``, ``clones`` and ``clone_events`` of the cohort and its clone tree in Newick."""

    cells: pd.DataFrame
    arms: pd.DataFrame
    clones: pd.DataFrame
    events: pd.DataFrame
    tree: str


def call_patient(
    cells: pd.DataFrame,
    packed: ad.AnnData,
    *,
    patient_id: str,
    status: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> tuple[pd.DataFrame, CloneTables]:
    """Calls and clone tables of one patient.

    ``cells`` is in the row order of ``packed`` (stage ``cnv``); ``settings`` is the ``copy_number`` configuration.
    """
    genome = Genome.read(packed, min_abs_log_ratio=settings["min_abs_log_ratio"])
    calls = call_cells(cells, fdr=settings["fdr"], tumour_lineage=settings["tumour_lineage"], genome=genome)
    # droplets of two cells would dilute the profile of their clone
    tables = clone_tables(
        cells,
        packed,
        malignant=single_malignant(calls),
        is_dtc=calls["is_dtc"].to_numpy(dtype=bool),
        patient_id=patient_id,
        status=status,
        effect=settings["min_abs_log_ratio"],
    )
    calls["clone_id"] = tables.clone_id
    calls["clone_posterior"] = tables.clone_posterior
    return calls, tables


def call_cohort(
    patients: Mapping[str, tuple[pd.DataFrame, ad.AnnData, Mapping[str, Any]]], *, settings: Mapping[str, Any]
) -> Calls:
    """Calls for every patient: ``patient_id -> (cells, stage cnv object, status)``."""
    calls, tables = [], []
    trees: dict[str, tuple[CloneTree, Sequence[str]]] = {}
    for patient_id, (cells, packed, status) in patients.items():
        called, found = call_patient(cells, packed, patient_id=patient_id, status=status, settings=settings)
        calls.append(called)
        tables.append(found)
        if len(cells) and not cells["compartment"].isin(NORMAL_COMPARTMENTS).all():
            trees[patient_id] = (found.tree, found.names)
    return Calls(
        stack_tables(calls, "calls"),
        stack_tables([t.arms for t in tables], "arms"),
        stack_tables([t.clones for t in tables], "clones"),
        stack_tables([t.events for t in tables], "clone_events"),
        newick_of(trees),
    )


def read_patients(
    qc_cells: Sequence[str | Path],
    annotation: str | Path,
    cnv_cells: Sequence[str | Path],
    windows: Sequence[str | Path],
    statuses: Sequence[str | Path],
) -> dict[str, tuple[pd.DataFrame, ad.AnnData, Mapping[str, Any]]]:
    """Read what :func:`call_cohort` needs; the three per-patient lists are in the same order."""
    everything = passed_cells(qc_cells, {"annotation": annotation})
    patients = {}
    for table, packed_path, status_path in zip(cnv_cells, windows, statuses, strict=True):
        status = read_json(status_path)
        of_patient = everything[(everything["patient_id"] == status["patient_id"]).to_numpy(dtype=bool)]
        cells = join_side_car(of_patient, read_table(table, "cnv_cells"), name=str(table))
        packed = read_stage(packed_path, "cnv")
        if list(packed.obs_names) != cells["cell_id"].tolist():
            cells = cells.set_index("cell_id", drop=False).loc[list(packed.obs_names)].reset_index(drop=True)
        patients[str(status["patient_id"])] = (cells.reset_index(drop=True), packed, status)
    return patients
