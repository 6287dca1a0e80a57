"""Calls of a cohort: classes of the cells (:mod:`dtcflow.classify`), arms of every clone, clones and their tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from dtcflow.cells import passed_cells, single_malignant
from dtcflow.classify import CLASSES, call_cells
from dtcflow.cnv.clones import Clones, find_clones, newick
from dtcflow.cnv.genome import Genome
from dtcflow.cnv.profile import arm_table
from dtcflow.cnv.run import unpack
from dtcflow.contracts import (
    NORMAL_COMPARTMENTS,
    TABLES,
    join_side_car,
    read_json,
    read_stage,
    read_table,
)

__all__ = ["CLASSES", "Calls", "call_cells", "call_cohort", "call_patient", "read_patients"]


@dataclass(frozen=True)
class Calls:
    """Tables ``calls``, ``arms`` and ``clones`` of the cohort and its clone tree in Newick."""

    cells: pd.DataFrame
    arms: pd.DataFrame
    clones: pd.DataFrame
    tree: str


def call_patient(
    cells: pd.DataFrame,
    packed: ad.AnnData,
    *,
    patient_id: str,
    status: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, frozenset[str]]]:
    """Calls, arm table, clone table and clone events of one patient.

    ``cells`` is in the row order of ``packed`` (stage ``cnv``); ``settings`` is the ``copy_number`` configuration.
    """
    genome = Genome.read(packed, min_abs_log_ratio=settings["min_abs_log_ratio"])
    calls = call_cells(
        cells,
        fdr=settings["fdr"],
        tumour_lineage=settings["tumour_lineage"],
        genome=genome,
        clone_given=status.get("profile_source") == "given",
    )
    # droplets of two cells would dilute the profile of their clone
    malignant = single_malignant(calls)
    samples = cells["sample_id"].to_numpy(dtype=object)
    compartment = cells["compartment"].to_numpy(dtype=object)
    statistics, inflation, tau = unpack(packed)
    effect = settings["min_abs_log_ratio"]
    if malignant.any():
        clones = find_clones(statistics, malignant, compartment, inflation=inflation, min_abs_log_ratio=effect)
    else:
        clones = Clones(np.full(len(cells), -1, dtype=np.int64), 0, "none", ())
    names = [f"{patient_id}_c{k + 1}" for k in range(clones.n_clones)]
    calls["clone_id"] = [names[k] if k >= 0 else "" for k in clones.label]
    n_genes = _genes_per_arm(packed)
    arm_rows: list[pd.DataFrame] = []
    for sample in sorted(set(samples.tolist())):
        present = [k for k in range(clones.n_clones) if ((clones.label == k) & (samples == sample)).any()]
        for k in present:
            members = (clones.label == k) & (samples == sample)
            table = arm_table(statistics[members], inflation=inflation, tau=tau, min_abs_log_ratio=effect)
            arm_rows.append(_label(table, patient_id, sample, names[k], int(members.sum()), n_genes))
        if not present:
            arm_rows.append(_unassessed(patient_id, sample, statistics.full.arms, n_genes))
    events: dict[str, frozenset[str]] = {}
    clone_rows = []
    for k, name in enumerate(names):
        members = clones.label == k
        table = arm_table(statistics[members], inflation=inflation, tau=tau, min_abs_log_ratio=effect)
        gains = [str(a) for a in table.index[table["state"] == "gain"]]
        losses = [str(a) for a in table.index[table["state"] == "loss"]]
        events[name] = frozenset([*(f"{a}+" for a in gains), *(f"{a}-" for a in losses)])
        clone_rows.append(
            {
                "patient_id": patient_id,
                "clone_id": name,
                "n_cells": int(members.sum()),
                "n_dtc": int((members & calls["is_dtc"].to_numpy(dtype=bool)).sum()),
                "status": clones.status,
                "gains": ",".join(gains),
                "losses": ",".join(losses),
                "support": clones.support[k],
            }
        )
    if not clone_rows:
        state = "no_tumour_cells" if status["status"] == "ok" else f"not_assessable:{status['status']}"
        clone_rows.append(
            dict.fromkeys(TABLES["clones"], "")
            | {"patient_id": patient_id, "n_cells": 0, "n_dtc": 0, "status": state, "support": np.nan}
        )
    return calls, _stack(arm_rows, "arms"), pd.DataFrame(clone_rows), events


def _genes_per_arm(packed: ad.AnnData) -> dict[str, int]:
    noise = packed.uns["arm_noise"]
    return dict(zip(noise["arm"].astype(str), noise["n_genes"].astype(int), strict=True))


def _label(
    table: pd.DataFrame, patient: str, sample: str, clone: str, n_cells: int, n_genes: Mapping[str, int]
) -> pd.DataFrame:
    labelled = table.reset_index()
    labelled.insert(0, "patient_id", patient)
    labelled.insert(1, "sample_id", sample)
    labelled.insert(2, "clone_id", clone)
    labelled["n_cells"] = n_cells
    labelled["n_genes"] = [n_genes[a] for a in labelled["arm"]]
    return labelled[list(TABLES["arms"])]


def _unassessed(patient: str, sample: str, arms: Sequence[str], n_genes: Mapping[str, int]) -> pd.DataFrame:
    """Rows that say that this sample has no clone whose arms could be assessed."""
    table = pd.DataFrame({"arm": list(arms)}, dtype=object)
    for column in ("log_ratio", "ci_low", "ci_high", "q_value", "power", "smallest_detectable"):
        table[column] = np.nan
    table["power"] = 0.0
    table["state"] = "not_assessable"
    return _label(table.set_index("arm"), patient, sample, "", 0, n_genes)


def call_cohort(
    patients: Mapping[str, tuple[pd.DataFrame, ad.AnnData, Mapping[str, Any]]], *, settings: Mapping[str, Any]
) -> Calls:
    """Calls for every patient: ``patient_id -> (cells, stage cnv object, status)``."""
    calls, arms, clones = [], [], []
    events: dict[str, dict[str, frozenset[str]]] = {}
    for patient_id, (cells, packed, status) in patients.items():
        called, arm_rows, clone_rows, found = call_patient(
            cells, packed, patient_id=patient_id, status=status, settings=settings
        )
        calls.append(called)
        arms.append(arm_rows)
        clones.append(clone_rows)
        donor = cells["compartment"].isin(NORMAL_COMPARTMENTS).all() if len(cells) else False
        events[patient_id] = {} if donor else found
    return Calls(
        _stack(calls, "calls"),
        _stack(arms, "arms"),
        _stack(clones, "clones"),
        newick(events),
    )


def _stack(frames: Sequence[pd.DataFrame], table: str) -> pd.DataFrame:
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame({column: pd.Series([], dtype=object) for column in TABLES[table]})
    return pd.concat(filled, ignore_index=True)


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
