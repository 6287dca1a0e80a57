"""From evidence to a class: which cells are malignant, which are normal, and which cannot be decided.

Three kinds of evidence stay apart until here: lineage (epithelial markers), copy-number burden (is this genome unlike
that of held-out normal cells?) and clone likelihood (is it like the profile learned from *other* cells of this
patient?). No cell is called malignant on markers alone, and none is called normal because nothing could be measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow.cells import passed_cells, single_malignant
from dtcflow.cnv.fdr import stratified_q
from dtcflow.cnv.run import cell_strata
from dtcflow.cnv.tables import CloneTables, clone_tables, stack_tables
from dtcflow.cnv.tree import CloneTree, newick_of
from dtcflow.contracts import (
    EPITHELIAL,
    HAEMATOPOIETIC_TYPES,
    MALIGNANT_DOUBLET,
    NORMAL_COMPARTMENTS,
    UNKNOWN,
    join_reasons,
    join_side_car,
    read_json,
    read_stage,
    read_table,
)

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

MIN_FRACTION = 1 / 3
"""Least share of the tumour's profile in a called cell. A tumour cell in 20 % ambient RNA still carries about 0.8."""
HALF_PROFILE = 0.5
"""Share of the tumour's profile that a doublet of one tumour cell and one normal cell carries."""
HALF_PROFILE_Z = 1.645
"""One-sided 5 %: a cell with a normal lineage's markers must carry significantly more than a doublet would."""
MIN_ARMS = 2
"""Altered arms, seen in both halves of the genes, without which burden alone decides nothing."""
SUGGESTIVE_P = 0.05
"""An epithelial-looking cell of normal lineage stays undecided while its copy-number p-value is below this."""
MAX_COATED_Z = 6.0
"""A cell of resident lineage with a stronger epithelial score is no ambient-coated cell; it stays undecided."""
TWO_IN_ONE_P = 0.95
"""Probability from expression (the arbitration of quality control) from which a droplet holds two cells."""
SUGGESTIVE_EPITHELIAL_Z = 3.0
"""From here on the epithelial score of a cell is part of its reasons."""

CLASSES = {
    "malignant_confirmed": "malignant",
    MALIGNANT_DOUBLET: "malignant",
    "aneuploid_only": "indeterminate",
    "epithelial_cnv_neutral": "indeterminate",
    "possible_tumour_doublet": "indeterminate",
    "unassessable": "indeterminate",
    "normal": "normal",
}


@dataclass(frozen=True)
class Calls:
    """Tables ``calls``, ``arms``, ``clones`` and ``clone_events`` of the cohort and its clone tree in Newick."""

    cells: pd.DataFrame
    arms: pd.DataFrame
    clones: pd.DataFrame
    events: pd.DataFrame
    tree: str


def call_cells(cells: pd.DataFrame, *, fdr: float, tumour_lineage: str) -> pd.DataFrame:
    """Classify the cells of one patient.

    Parameters
    ----------
    cells
        ``cnv_cells`` joined with annotation and QC (``cell_type epithelial_z is_doublet compartment`` ...).
    fdr
        False-discovery rate per patient, within clear candidates, candidates of a resident lineage and other cells,
        separately for marrow (or blood) and tissue.
    tumour_lineage
        ``epithelial``: markers and copy number together; ``any``: copy number decides alone.

    Returns
    -------
    pandas.DataFrame
        ``cell_id cnv_burden_q clone_llr malignancy_q malignant_call malignant_class call_reasons is_dtc``.
    """
    assessed = (cells["cnv_status"] == "ok").to_numpy()
    candidate = cells["is_candidate"].to_numpy(dtype=bool)
    suspect = cells["left_reference"].to_numpy(dtype=bool)
    cell_type = cells["cell_type"].to_numpy(dtype=object)
    lineage_normal = ~np.isin(cell_type, [EPITHELIAL, UNKNOWN, ""])
    blood = np.isin(cell_type, list(HAEMATOPOIETIC_TYPES))
    clone_p = cells["clone_llr_p"].to_numpy(dtype=float)
    burden_p = cells["cnv_burden_p"].to_numpy(dtype=float)
    stratum = cell_strata(cells, candidate)
    # two nulls that owe nothing to each other have to agree: held-out reference cells, and decoys of the profile
    clone_q = np.fmax(stratified_q(clone_p, stratum, adaptive=True), cells["clone_decoy_q"].to_numpy(dtype=float))
    has_profile = np.isfinite(clone_p)
    # where nearly all candidates are tumour cells any q is small: the cell's own data must favour the clone, too
    fraction = cells["clone_fraction"].to_numpy(dtype=float)
    like_clone = (np.nan_to_num(clone_q, nan=1.0) <= fdr) & (np.nan_to_num(fraction) >= MIN_FRACTION)
    # second look, only at cells that the clone does not explain: is their genome abnormal in another way?
    unexplained_p = np.where(like_clone, np.nan, burden_p)
    other_q = stratified_q(unexplained_p, stratum)
    abnormal = (np.nan_to_num(other_q, nan=1.0) <= fdr) & (cells["n_arms_altered"].to_numpy() >= MIN_ARMS)
    q = np.where(has_profile, clone_q, other_q)
    z_half = (fraction - HALF_PROFILE) / cells["clone_fraction_se"].to_numpy(dtype=float)
    more_than_half = np.nan_to_num(z_half, nan=-np.inf) > HALF_PROFILE_Z

    if tumour_lineage == "any":
        looks_epithelial = np.zeros(len(cells), dtype=bool)
        # without markers a single abnormal genome is no tumour: only a clone that several cells share is
        confirmed = assessed & candidate & like_clone
    else:
        looks_epithelial = (candidate & ~suspect) | (cell_type == EPITHELIAL)
        plain = looks_epithelial & ~lineage_normal
        # a blood cell needs epithelial evidence: a clone among blood cells is no carcinoma, whatever its genome
        mislabelled = lineage_normal & more_than_half & ((candidate & ~suspect) | ~blood)
        bare = (cell_type == UNKNOWN) & (np.nan_to_num(fraction) >= HALF_PROFILE)
        confirmed = assessed & like_clone & (plain | mislabelled | bare)
        confirmed |= assessed & ~has_profile & plain & abnormal
    klass = np.full(len(cells), "normal", dtype=object)
    neutral = assessed & looks_epithelial & ~like_clone & ~abnormal
    # ambient-coated cells: resident lineage, some epithelial transcripts, a genome that gives no hint of a tumour
    coated = neutral & lineage_normal & ~(np.fmin(clone_p, burden_p) < SUGGESTIVE_P)
    coated &= ~(cells["epithelial_z"].to_numpy(dtype=float) >= MAX_COATED_Z)
    klass[neutral & ~coated] = "epithelial_cnv_neutral"
    beyond = assessed & (like_clone | abnormal) & ~confirmed
    klass[beyond] = "aneuploid_only"
    # a cell with significantly more of the profile than a doublet's half is not normal, even if its p-value cannot say
    # so (a small reference bounds p from below)
    hint = assessed & (klass == "normal") & more_than_half & (cells["clone_llr"].to_numpy(dtype=float) > 0)
    klass[hint] = "aneuploid_only"
    # what a suspect shared with its type was no tumour's genome after all; what it was is open
    klass[assessed & suspect & ~confirmed] = "aneuploid_only"
    doublet = cells["is_doublet"].to_numpy(dtype=bool)
    klass[beyond & like_clone & lineage_normal & (doublet | looks_epithelial)] = "possible_tumour_doublet"
    klass[confirmed] = "malignant_confirmed"
    # expression says two cells, one of them epithelial beyond any coating with ambient RNA: of such a droplet half the
    # share of the profile is asked for
    two_in_one = _two_in_one(cells)
    half = (np.nan_to_num(clone_q, nan=1.0) <= fdr) & (np.nan_to_num(fraction) >= MIN_FRACTION / 2)
    half &= cells["epithelial_z"].to_numpy(dtype=float) >= MAX_COATED_Z
    klass[two_in_one & (confirmed | (assessed & half & looks_epithelial & ~suspect))] = MALIGNANT_DOUBLET
    klass[~assessed & (~lineage_normal | looks_epithelial | candidate)] = "unassessable"
    call = np.array([CLASSES[k] for k in klass], dtype=object)
    reasons = _reasons(cells, klass, q, lineage_normal, coated)
    return pd.DataFrame(
        {
            "cell_id": cells["cell_id"].to_numpy(dtype=object),
            "cnv_burden_q": cells["cnv_burden_q"].to_numpy(dtype=float),
            "clone_llr": cells["clone_llr"].to_numpy(dtype=float),
            "clone_llr_p": clone_p,
            "clone_fraction": fraction,
            "malignancy_q": q,
            "malignant_call": call,
            "malignant_class": klass,
            "call_reasons": reasons,
            "is_dtc": (call == "malignant") & (cells["compartment"] == "marrow").to_numpy(),
        }
    )


def _two_in_one(cells: pd.DataFrame) -> Bools:
    """Droplets that the arbitration takes for an epithelial cell and a resident cell; none where it was not run."""
    if not {"arbitration", "p_doublet"} <= set(cells.columns):
        return np.zeros(len(cells), dtype=bool)
    sure = cells["p_doublet"].to_numpy(dtype=float) >= TWO_IN_ONE_P
    return np.asarray((cells["arbitration"] == "doublet").to_numpy(dtype=bool) & sure)


def _reasons(
    cells: pd.DataFrame, klass: npt.NDArray[np.object_], q: Floats, lineage_normal: Bools, coated: Bools
) -> list[str]:
    """Every number that led to a cell's class, readable by a person."""
    found = []
    rows: Iterable[Any] = cells.itertuples(index=False)
    for i, row in enumerate(rows):
        parts = [str(klass[i])]
        if row.cnv_status != "ok":
            parts.append(f"cnv_not_assessable:{row.cnv_status}")
        if row.is_candidate or np.nan_to_num(row.epithelial_z) >= SUGGESTIVE_EPITHELIAL_Z:
            parts.append(f"epithelial_z={row.epithelial_z:.1f}({row.n_epithelial_markers:.0f}_markers)")
        if np.isfinite(row.cnv_burden_p) and klass[i] != "normal":
            parts.append(f"burden_p={row.cnv_burden_p:.2g}")
        if np.isfinite(row.clone_llr_p) and klass[i] != "normal":
            parts.append(f"clone_p={row.clone_llr_p:.2g},llr={row.clone_llr:.1f},fraction={row.clone_fraction:.2f}")
        if np.isfinite(q[i]) and klass[i] != "normal":
            parts.append(f"q={q[i]:.2g}")
        if row.is_doublet:
            parts.append("doublet_flag")
        if coated[i]:
            parts.append("epithelial_transcripts_in_normal_lineage")
        if row.is_reference:
            parts.append("reference_cell_scored_held_out")
        if row.left_reference:
            parts.append("left_reference:shares_a_genome_with_others_of_its_type")
        if klass[i] == "normal" and lineage_normal[i]:
            parts.append(f"lineage:{row.cell_type}")
        found.append(join_reasons(parts))
    return found


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
    calls = call_cells(cells, fdr=settings["fdr"], tumour_lineage=settings["tumour_lineage"])
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
