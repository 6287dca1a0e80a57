"""The reasons of a call: every number that led to a cell's class, one field per kind of evidence.

Fields are separated by ``;`` and come in a fixed order: the class; why copy number could not be assessed; lineage
(``lineage:``, ``epithelial_z=``); burden (``burden_p=``); clone (``clone_p=,llr=,fraction=``); the
deciding ``q=``; ``arms=`` the cell's own altered arms; ``passed:`` and ``missed:`` the thresholds; remarks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow.contracts import join_reasons

Floats = npt.NDArray[np.float64]

SUGGESTIVE_EPITHELIAL_Z = 3.0
"""From here on the epithelial score of a cell is part of its reasons."""


def write_reasons(
    cells: pd.DataFrame,
    *,
    klass: npt.NDArray[np.object_],
    q: Floats,
    clone_q: Floats,
    other_q: Floats,
    altered_arms: Sequence[str],
    mosaic_arms: Sequence[str],
    refusal: npt.NDArray[np.object_],
    coated: npt.NDArray[np.bool_],
    thresholds: Mapping[str, float],
) -> list[str]:
    """Reasons of every cell.

    Parameters
    ----------
    cells
        As :func:`dtcflow.classify.call_cells` reads them.
    klass, q, clone_q, other_q
        Class, deciding q, and q of the clone and of the burden of cells that the clone does not explain.
    altered_arms, mosaic_arms
        Per cell, ``1q+,16q-`` or empty.
    refusal
        Why the clone that a cell is like was not accepted, or empty.
    coated
        Cells taken for ambient-coated ones.
    thresholds
        ``fdr``, ``own_p``, ``fraction`` (of the clone's profile), ``arms``.
    """
    columns = {name: cells[name].to_numpy() for name in _READ}
    return [
        join_reasons(
            _one(
                {name: values[i] for name, values in columns.items()},
                klass=str(klass[i]),
                q=float(q[i]),
                clone_q=float(clone_q[i]),
                other_q=float(other_q[i]),
                arms=altered_arms[i],
                mosaic=mosaic_arms[i],
                refusal=str(refusal[i]),
                coated=bool(coated[i]),
                thresholds=thresholds,
            )
        )
        for i in range(len(cells))
    ]


_READ = (
    *("cell_type", "cnv_status", "is_candidate", "is_reference", "left_reference", "is_doublet", "epithelial_z"),
    *("n_epithelial_markers", "cnv_burden_p", "clone_llr", "clone_llr_p", "clone_fraction", "n_arms_altered"),
)


def _one(
    cell: Mapping[str, object],
    *,
    klass: str,
    q: float,
    clone_q: float,
    other_q: float,
    arms: str,
    mosaic: str,
    refusal: str,
    coated: bool,
    thresholds: Mapping[str, float],
) -> list[str]:
    number = {name: float(np.nan_to_num(np.float64(str(cell[name])), nan=np.nan)) for name in _NUMBERS}
    parts = [klass]
    if cell["cnv_status"] != "ok":
        parts.append(f"cnv_not_assessable:{cell['cnv_status']}")
    parts.append(f"lineage:{cell['cell_type'] or 'unknown'}")
    if cell["is_candidate"] or np.nan_to_num(number["epithelial_z"]) >= SUGGESTIVE_EPITHELIAL_Z:
        parts.append(f"epithelial_z={number['epithelial_z']:.1f}({number['n_epithelial_markers']:.0f}_markers)")
    if np.isfinite(number["cnv_burden_p"]):
        parts.append(f"burden_p={number['cnv_burden_p']:.2g}")
    has_clone = bool(np.isfinite(number["clone_llr_p"]))
    if has_clone:
        share = f"llr={number['clone_llr']:.1f},fraction={number['clone_fraction']:.2f}"
        parts.append(f"clone_p={number['clone_llr_p']:.2g},{share}")
    if np.isfinite(q):
        parts.append(f"q={q:.2g}")
    if arms:
        parts.append(f"arms={arms}")
    if klass != "normal":
        parts += _thresholds(number, clone_q, other_q, has_clone=has_clone, thresholds=thresholds)
    if refusal:
        parts.append(f"clone_refused:{refusal}")
    if mosaic:
        parts.append(f"possible_mosaic:{mosaic}")
    if cell["is_doublet"]:
        parts.append("doublet_flag")
    if coated:
        parts.append("epithelial_transcripts_in_normal_lineage")
    if cell["is_reference"]:
        parts.append("reference_cell_scored_held_out")
    if cell["left_reference"]:
        parts.append("left_reference:shares_a_genome_with_others_of_its_type")
    return parts


_NUMBERS = (
    *("epithelial_z", "n_epithelial_markers", "cnv_burden_p", "clone_llr", "clone_llr_p", "clone_fraction"),
    "n_arms_altered",
)


def _thresholds(
    number: Mapping[str, float], clone_q: float, other_q: float, *, has_clone: bool, thresholds: Mapping[str, float]
) -> list[str]:
    """Fields ``passed:`` and ``missed:`` with the thresholds on copy number that applied to the cell."""
    tests = []
    if has_clone:
        tests.append((clone_q <= thresholds["fdr"], f"clone_q<={thresholds['fdr']:g}"))
        tests.append((number["clone_llr_p"] <= thresholds["own_p"], f"clone_p<={thresholds['own_p']:g}"))
        tests.append((number["clone_fraction"] >= thresholds["fraction"], f"fraction>={thresholds['fraction']:.2f}"))
    if np.isfinite(other_q):
        tests.append((other_q <= thresholds["fdr"], f"burden_q<={thresholds['fdr']:g}"))
        tests.append((number["n_arms_altered"] >= thresholds["arms"], f"arms>={thresholds['arms']:g}"))
    found = []
    for wanted, name in ((True, "passed"), (False, "missed")):
        listed = [text for reached, text in tests if bool(reached) == wanted]
        if listed:
            found.append(f"{name}:{','.join(listed)}")
    return found
