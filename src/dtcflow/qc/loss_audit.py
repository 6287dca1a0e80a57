"""Every cell with tumour evidence that was removed, flagged or left undecided, with stage and reason.

The file answers one question: which tumour cells might we have lost, and where? A cell that passed quality control and
was called malignant is not lost and not listed, whatever else was noted about it. In primary tumours the list is long.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from dtcflow import contracts

MIN_MARKERS: Final = 2
"""Distinct epithelial panel genes a cell must show besides its score; one stray transcript is not evidence."""
STAGES: Final = ("qc", "call")
STATUSES: Final = ("removed", "flagged", "indeterminate")

_NUMBERS: Final = ("epithelial_z", "n_epithelial_markers", "cnv_burden_q", "malignancy_q", "n_counts")


def epithelial_evidence(qc_cells: pd.DataFrame, *, epithelial_z: float) -> pd.Series:
    """Whether each cell shows epithelial evidence (bool, index of ``qc_cells``).

    A calibrated epithelial z of at least ``epithelial_z`` and at least :data:`MIN_MARKERS` distinct panel genes. Where
    the score could not be computed (a small panel) the markers alone decide: a missing score is not a low score.
    """
    z = qc_cells["epithelial_z"].astype(float)
    markers = qc_cells["n_epithelial_markers"].fillna(0) >= MIN_MARKERS
    return markers & (z.isna() | (z >= epithelial_z))


def audit_losses(
    qc_cells: pd.DataFrame, calls: pd.DataFrame, *, epithelial_z: float, fdr: float = 0.05
) -> pd.DataFrame:
    """List the cells with epithelial or tumour evidence that did not end as malignant, for a reason of ours.

    Parameters
    ----------
    qc_cells
        Table ``qc_cells`` of all samples, one row per input cell.
    calls
        Table ``calls``; cells that failed quality control need no row in it. A cell that passed and has no row is
        listed as undecided.
    epithelial_z
        Calibrated z from which a cell counts as epithelial (``config["annotation"]["epithelial_z"]``).
    fdr
        Largest ``malignancy_q`` or ``cnv_burden_q`` that counts as tumour evidence.

    Returns
    -------
    Table ``loss_audit``, one row per listed cell, ordered by stage, sample and cell, with all its columns also when it
    is empty. ``stage``/``status`` is ``qc``/``removed``, ``call``/``indeterminate`` (undecided, whether or not also
    flagged as doublet) or ``qc``/``flagged`` (flagged as doublet and called normal). ``evidence`` says which values are
    meant.

    Raises
    ------
    dtcflow.contracts.ContractError
        When ``calls`` names a cell that is in no input, or a cell twice.
    """
    called = calls[["cell_id", "malignant_call", "malignancy_q", "cnv_burden_q", "call_reasons"]]
    own = qc_cells.drop(columns=[c for c in called.columns if c != "cell_id" and c in qc_cells.columns])
    cells = contracts.join_side_car(own, called, name="calls", how="subset")

    epithelial = epithelial_evidence(cells, epithelial_z=epithelial_z)
    tumour = (cells["malignancy_q"].astype(float) <= fdr) | (cells["cnv_burden_q"].astype(float) <= fdr)
    passed = cells["pass_qc"].astype(bool)
    doublet = cells["is_doublet"].astype(bool)
    call = cells["malignant_call"].fillna("").astype(str)

    removed = ~passed
    undecided = passed & ~call.isin(["malignant", "normal"])
    flagged = passed & doublet & (call == "normal")
    lost = (epithelial | tumour) & (removed | undecided | flagged)

    cells = cells.assign(
        stage=np.where(undecided, "call", "qc"),
        status=np.select([removed, undecided], ["removed", "indeterminate"], "flagged"),
    )[lost]
    cells["reason"] = [_reason(row) for row in cells.to_dict("records")]
    cells["evidence"] = [
        _evidence(row, epithelial_z=epithelial_z, fdr=fdr, epithelial=bool(is_epithelial))
        for row, is_epithelial in zip(cells.to_dict("records"), epithelial[lost], strict=True)
    ]
    order = cells["stage"].map({stage: rank for rank, stage in enumerate(STAGES)})
    cells = cells.assign(_order=order).sort_values(["_order", "sample_id", "cell_id"], kind="stable")
    audit = cells[list(contracts.TABLES["loss_audit"])].reset_index(drop=True)
    for column in audit.columns:
        audit[column] = audit[column].astype(float if column in _NUMBERS else object)
    return audit


def loss_totals(audit: pd.DataFrame) -> pd.DataFrame:
    """Listed cells per compartment, stage and status, for the report's first screen.

    Parameters
    ----------
    audit
        Table ``loss_audit``.

    Returns
    -------
    Frame with ``compartment``, ``stage``, ``status``, ``n_cells``, ``n_samples``; empty when nothing is listed.
    """
    groups = audit.groupby(["compartment", "stage", "status"], sort=True)["sample_id"]
    return groups.agg(n_cells="size", n_samples="nunique").reset_index()


def _reason(row: dict[Any, Any]) -> str:
    flag = f"flagged as doublet (score {row['doublet_score']:.3g})" if bool(row["is_doublet"]) else ""
    if row["status"] == "removed":
        return contracts.join_reasons(filter(None, [str(row["qc_reasons"]), flag]))
    if row["status"] == "flagged":
        return flag
    called = row["malignant_call"]
    missing = not isinstance(called, str) or not called
    reasons = row["call_reasons"]
    text = "no entry in the calls table" if missing else str(reasons) if isinstance(reasons, str) else ""
    return contracts.join_reasons(filter(None, [text or "left indeterminate", flag]))


def _evidence(row: dict[Any, Any], *, epithelial_z: float, fdr: float, epithelial: bool) -> str:
    parts: list[str] = []
    if epithelial:
        n = int(row["n_epithelial_markers"])
        z = float(row["epithelial_z"])
        score = "epithelial_z not computable" if np.isnan(z) else f"epithelial_z {z:.2f} >= {epithelial_z:g}"
        parts.append(f"{score} with {n} markers")
    for column in ("malignancy_q", "cnv_burden_q"):
        q = float(row[column])
        if q <= fdr:
            parts.append(f"{column} {q:.3g} <= {fdr:g}")
    return contracts.join_reasons(parts)
