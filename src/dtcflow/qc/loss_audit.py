"""Every cell that may be a tumour cell and was removed, flagged or left undecided, with stage, reason and evidence.

The file answers one question: which tumour cells might we have lost, and where? A cell that passed quality control and
was called malignant is not lost and not listed, whatever else was noted about it. In primary tumours the list is long.

Absence of evidence does not take a cell off the list. A dying tumour cell of 100 transcripts may show no keratin at
all, so that:

* every cell that was left undecided is listed;
* a removed cell is off the list only when another lineage is positively shown (a calibrated z of at least
  :data:`SHOWN_Z` with two of its markers) and no epithelial transcript is seen beside it although the cell has enough
  counts to show one (in a cell of 80 counts the soup's haemoglobin passes for a lineage);
* a doublet that was called normal is listed when its evidence is strong.

``evidence_level`` says how much there is, and the list is in that order: ``strong`` (epithelial score and markers, a
copy-number q, or an arbitration in favour of a tumour cell), ``weak`` (some epithelial transcripts, a first-pass
epithelial lineage, a genome that is unlike normal ones without reaching the threshold), ``not_assessable`` (nothing
speaks for a tumour cell and nothing excludes one).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from dtcflow import contracts

MIN_MARKERS: Final = 2
"""Distinct epithelial panel genes a cell must show besides its score; one stray transcript is not evidence."""
SHOWN_Z: Final = 3.0
"""Calibrated z of a non-epithelial panel from which on a cell's lineage is positively shown."""
SHOWN_COUNTS: Final = 300.0
"""Counts, mitochondrial ones aside, from which on the absence of epithelial transcripts says something: with 1 % of
its counts on the panel a carcinoma cell shows none of them with probability exp(-3) = 5 %."""
ARBITRATED: Final = 0.5
"""Probability of a tumour cell, alone or with a marrow cell, from which on the arbitration speaks for one."""
STAGES: Final = ("cell_calling", "qc", "call")
STATUSES: Final = ("removed", "flagged", "indeterminate")
STRONG: Final = "strong"
WEAK: Final = "weak"
NOT_ASSESSABLE: Final = "not_assessable"
EVIDENCE_LEVELS: Final = (STRONG, WEAK, NOT_ASSESSABLE)
EMPTY_DROPLET: Final = "empty_droplet"
"""Reason of a droplet that the cell calling took for empty."""
UNUSUAL_CLASSES: Final = ("aneuploid_only", "possible_tumour_doublet", "epithelial_cnv_neutral")
"""Classes of undecided cells that say what is unusual about them (:mod:`dtcflow.call`)."""

_NUMBERS: Final = ("epithelial_z", "n_epithelial_markers", "cnv_burden_q", "malignancy_q", "n_counts")
_OPTIONAL: Final = ("lineage_z", "p_single", "p_doublet", "p_coated")


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
    Table ``loss_audit``, one row per listed cell, strongest evidence first, then by stage, sample and cell, with all
    its columns also when it is empty. ``stage``/``status`` is ``cell_calling``/``removed`` (taken for an empty
    droplet), ``qc``/``removed``, ``call``/``indeterminate`` (undecided, whether or not also flagged as doublet) or
    ``qc``/``flagged`` (flagged as doublet and called normal). ``evidence`` says which values are meant.

    Raises
    ------
    dtcflow.contracts.ContractError
        When ``calls`` names a cell that is in no input, or a cell twice.
    """
    wanted = ["cell_id", "malignant_call", "malignancy_q", "cnv_burden_q", "call_reasons", "malignant_class"]
    called = calls[wanted]
    own = qc_cells.drop(columns=[c for c in called.columns if c != "cell_id" and c in qc_cells.columns])
    cells = contracts.join_side_car(own, called, name="calls", how="subset")
    cells = cells.assign(**{name: np.nan for name in _OPTIONAL if name not in cells})

    epithelial = epithelial_evidence(cells, epithelial_z=epithelial_z)
    tumour = (cells["malignancy_q"].astype(float) <= fdr) | (cells["cnv_burden_q"].astype(float) <= fdr)
    arbitrated = cells["p_single"].astype(float) + cells["p_doublet"].astype(float) >= ARBITRATED
    strong = epithelial | tumour | arbitrated
    unusual = cells["malignant_class"].fillna("").isin(UNUSUAL_CLASSES)
    n_markers = cells["n_epithelial_markers"].fillna(0)
    weak = (n_markers > 0) | (cells["lineage"] == contracts.EPITHELIAL) | unusual
    other = ~cells["lineage"].isin([contracts.EPITHELIAL, contracts.UNKNOWN, ""]) & cells["lineage"].notna()
    enough = cells["n_counts"].astype(float) * (1 - cells["pct_mt"].astype(float).fillna(0) / 100) >= SHOWN_COUNTS
    excluded = other & (cells["lineage_z"].astype(float) >= SHOWN_Z) & enough & ~weak & ~strong

    passed = cells["pass_qc"].astype(bool)
    doublet = cells["is_doublet"].astype(bool)
    call = cells["malignant_call"].fillna("").astype(str)
    removed = ~passed
    undecided = passed & ~call.isin(["malignant", "normal"])
    flagged = passed & doublet & (call == "normal")
    lost = (removed & ~excluded) | undecided | (flagged & strong)

    empty = cells["qc_reasons"].fillna("").astype(str).str.startswith(EMPTY_DROPLET)
    cells = cells.assign(
        stage=np.select([undecided, removed & empty], ["call", "cell_calling"], "qc"),
        status=np.select([removed, undecided], ["removed", "indeterminate"], "flagged"),
        evidence_level=np.select([strong, weak], [STRONG, WEAK], NOT_ASSESSABLE),
        _epithelial=epithelial,
    )[lost]
    records = cells.to_dict("records")
    cells["reason"] = [_reason(row) for row in records]
    cells["evidence"] = [_evidence(row, epithelial_z=epithelial_z, fdr=fdr) for row in records]
    keys = {"_level": ("evidence_level", EVIDENCE_LEVELS), "_stage": ("stage", STAGES)}
    ranks = {key: cells[column].map({name: i for i, name in enumerate(names)}) for key, (column, names) in keys.items()}
    cells = cells.assign(**ranks).sort_values([*ranks, "sample_id", "cell_id"], kind="stable")
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
    Frame with ``compartment``, ``stage``, ``status``, ``n_cells``, ``n_samples``, and one column ``n_<level>`` per
    evidence level; empty when nothing is listed.
    """
    levels = {f"n_{name}": (audit["evidence_level"] == name).astype(np.int64) for name in EVIDENCE_LEVELS}
    groups = audit.assign(**levels).groupby(["compartment", "stage", "status"], sort=True)
    sums: dict[str, Any] = {name: (name, "sum") for name in levels}
    totals: pd.DataFrame = groups.agg(
        n_cells=("sample_id", "size"), n_samples=("sample_id", "nunique"), **sums
    ).reset_index()
    return totals


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


def _evidence(row: dict[Any, Any], *, epithelial_z: float, fdr: float) -> str:
    """The values that speak for a tumour cell; else why none can be excluded."""
    parts: list[str] = []
    n = 0 if np.isnan(row["n_epithelial_markers"]) else int(row["n_epithelial_markers"])
    z = float(row["epithelial_z"])
    if row["_epithelial"]:
        score = "epithelial_z not computable" if np.isnan(z) else f"epithelial_z {z:.2f} >= {epithelial_z:g}"
        parts.append(f"{score} with {n} markers")
    for column in ("malignancy_q", "cnv_burden_q"):
        q = float(row[column])
        if q <= fdr:
            parts.append(f"{column} {q:.3g} <= {fdr:g}")
    if not np.isnan(float(row["p_single"])):
        names = ("single", "doublet", "coated")
        parts.append("arbitration " + " ".join(f"{name}={float(row[f'p_{name}']):.2f}" for name in names))
    if row["evidence_level"] == WEAK:
        if n:
            score = "no epithelial score" if np.isnan(z) else f"epithelial_z {z:.2f}"
            parts.append(f"{score} with {n} {'marker' if n == 1 else 'markers'}")
        if row["lineage"] == contracts.EPITHELIAL:
            parts.append("epithelial first-pass lineage")
        if row["malignant_class"] in UNUSUAL_CLASSES:
            parts.append(f"class {row['malignant_class']}")
    if row["evidence_level"] == NOT_ASSESSABLE:
        counts = f"{row['n_counts']:.0f} counts"
        what = "undecided" if row["status"] == "indeterminate" else "lineage not assessable"
        parts.append(f"{what} ({counts}): a tumour cell cannot be excluded")
    return contracts.join_reasons(parts)
