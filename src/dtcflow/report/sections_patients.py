"""One card per patient: what came in, what was called, and what each claim made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from dtcflow.qc.loss_audit import STRONG
from dtcflow.report.assets import Assets
from dtcflow.report.claim_kinds import as_number
from dtcflow.report.claim_views import ClaimView, claim_views
from dtcflow.report.page import (
    NONE,
    Block,
    Cell,
    Column,
    Details,
    Paragraph,
    Section,
    Table,
    anchor,
    count,
    effect,
    is_missing,
    listed,
    natural,
    num,
    percent,
    plural,
    words,
)
from dtcflow.report.page import text as shown
from dtcflow.report.sections_verdict import claim_anchors

MAX_CARDS: Final = 400
MAX_CLONES: Final = 8


def patients_section(assets: Assets) -> Section:
    """Overview with one line per patient, each leading to a card."""
    names = sorted(assets.cells["patient_id"].astype(str).unique(), key=natural)
    if not names:
        return Section("patients", "Patients one by one", [Paragraph("No sample was read.", "missing")])
    views = claim_views(assets.claims, assets.patients, assets.verdict, assets.controls)
    values = {view.claim_id: _by_patient(view) for view in views}
    cells = {str(name): own for name, own in assets.cells.groupby("patient_id", sort=False)}
    losses = _losses(assets.loss_audit)
    anchors = {str(assets.claims.loc[at, "claim_id"]): link for at, link in claim_anchors(assets.claims).items()}
    rows: list[list[Cell]] = []
    cards: list[Block] = []
    for position, name in enumerate(names[:MAX_CARDS], start=1):
        own, here = cells[name], anchor("patient", name, position)
        lost = losses.get(name, (0, 0)) if losses is not None else None
        usable = [claim for claim, found in values.items() if name in found and found[name][0]]
        rows.append(_line(name, here, own, lost, usable, len(values)))
        cards.append(_card(name, here, own, lost, assets, views, values, anchors))
    blocks: list[Block] = [
        Table(
            f"Patients and donors (n = {len(names):,}). Every name leads to a card with samples, clones and values.",
            [
                Column("Patient"),
                Column("Samples", True),
                Column("Cells read", True),
                Column("Passed", True, "cells that passed quality control"),
                Column("Tumour cells", True, "called malignant, all compartments"),
                Column("DTCs", True, "malignant cells of the marrow; a dash: no marrow sample"),
                Column("Median genes", True, "per cell that passed"),
                Column("Lost or left open", True, "cells in the loss audit; in brackets those with strong evidence"),
                Column("Claims with a value", True, "of the claims that were evaluated"),
            ],
            rows,
        ),
        *cards,
    ]
    if len(names) > MAX_CARDS:
        blocks.append(Paragraph(f"{len(names) - MAX_CARDS:,} more patients have no card here.", "missing"))
    return Section("patients", "Patients one by one", blocks)


def _by_patient(view: ClaimView) -> dict[str, tuple[bool, str, str]]:
    """Patient to whether it was used, its value with interval, and why it was not used."""
    found = {}
    dots = view.endpoints[0].dots if view.endpoints else ()
    for row, dot in zip(view.patients.to_dict("records"), dots, strict=True):
        reason = "" if is_missing(row.get("reason")) else shown(row["reason"], 160)
        found[str(row["patient_id"])] = (dot.used, effect(dot.value, dot.low, dot.high), reason)
    return found


def _losses(audit: pd.DataFrame | None) -> dict[str, tuple[int, int]] | None:
    """Patient to cells in the loss audit and those with strong evidence; None without an audit."""
    if audit is None:
        return None
    strong = audit["evidence_level"] == STRONG
    return {
        str(name): (len(own), int(strong.loc[own.index].sum())) for name, own in audit.groupby("patient_id", sort=False)
    }


def _lost(lost: tuple[int, int] | None) -> str:
    return NONE if lost is None else f"{lost[0]:,} ({lost[1]:,})"


def _median(values: pd.Series[Any]) -> str:
    known = pd.to_numeric(values, errors="coerce").dropna()
    return count(known.median()) if len(known) else NONE


def _dtcs(own: pd.DataFrame) -> str:
    return count(int(own["is_dtc"].sum())) if (own["compartment"] == "marrow").any() else NONE


def _line(
    name: str, here: str, own: pd.DataFrame, lost: tuple[int, int] | None, usable: Sequence[str], n_claims: int
) -> list[Cell]:
    passed = own[own["pass_qc"]]
    return [
        Cell(shown(name, 60), tone="strong", link=here),
        num(count(own["sample_id"].nunique())),
        num(count(len(own))),
        num(count(len(passed)), tone="" if len(passed) else "warn"),
        num(count(int((own["malignant_call"] == "malignant").sum()))),
        num(_dtcs(own)),
        num(_median(passed["n_genes"])),
        num(_lost(lost), tone="warn" if lost and lost[1] else ""),
        num(f"{len(usable)} of {n_claims}" if n_claims else NONE),
    ]


def _card(
    name: str,
    here: str,
    own: pd.DataFrame,
    lost: tuple[int, int] | None,
    assets: Assets,
    views: Sequence[ClaimView],
    values: Mapping[str, Mapping[str, tuple[bool, str, str]]],
    anchors: Mapping[str, str],
) -> Details:
    n_dtc = _dtcs(own)
    usable = sum(name in found and found[name][0] for found in values.values())
    note = "; ".join(
        [
            plural(own["sample_id"].nunique(), "sample"),
            "no marrow sample" if n_dtc == NONE else f"{n_dtc} DTC{'' if n_dtc == '1' else 's'}",
            f"{usable} of {len(values)} claims with a value",
            "no loss audit" if lost is None else f"{plural(lost[0], 'cell')} lost or left open",
        ]
    )
    blocks: list[Block] = [
        _samples(name, own),
        Paragraph(_status(name, assets)),
        _clones(name, assets),
        _claims(name, views, values, anchors),
    ]
    if lost is not None:
        sentence = (
            f"Loss audit: {plural(lost[0], 'cell')} with tumour evidence removed, flagged or left undecided, "
            f"{lost[1]:,} of them with strong evidence."
            if lost[0]
            else "Loss audit: no cell with tumour evidence was removed, flagged or left undecided."
        )
        blocks.append(Paragraph(sentence, "warn" if lost[1] else ""))
    return Details(shown(name, 60), blocks, id=here, note=note)


def _samples(name: str, own: pd.DataFrame) -> Table:
    rows = []
    for sample, cells in own.groupby("sample_id", sort=True):
        passed = cells[cells["pass_qc"]]
        call = cells["malignant_call"]
        marrow = str(cells["compartment"].iloc[0]) == "marrow"
        rows.append(
            [
                words(sample, tone="strong"),
                words(str(cells["compartment"].iloc[0]).replace("_", " ")),
                num(count(len(cells))),
                num(f"{count(len(passed))} ({percent(len(passed), len(cells), 0)})"),
                num(_median(passed["n_counts"])),
                num(_median(passed["n_genes"])),
                num(count(int((call == "malignant").sum()))),
                num(count(int((call == "indeterminate").sum()))),
                num(count(int(cells["is_dtc"].sum())) if marrow else NONE),
            ]
        )
    columns = [
        Column("Sample"),
        Column("Compartment"),
        Column("Cells read", True),
        Column("Passed", True),
        Column("Median counts", True),
        Column("Median genes", True),
        Column("Tumour cells", True),
        Column("Undecided", True),
        Column("DTCs", True),
    ]
    return Table(f"Samples of {shown(name, 60)} (n = {len(rows):,}).", columns, rows)


def _status(name: str, assets: Assets) -> str:
    """Return in words whether copy number could be assessed, and against how many normal cells."""
    status = assets.cnv_statuses.get(name)
    if status is None:
        return "Copy number: no record in this run."
    if status.get("status") != "ok":
        state = shown(str(status.get("status", "unknown")).replace("_", " "), 60)
        reason = f": {shown(status['reason'], 200)}" if status.get("reason") else ""
        return f"Copy number: not assessable, {state}{reason}."
    reference = status.get("reference")
    n = (
        sum(int(as_number(k) if as_number(k) == as_number(k) else 0) for k in reference.values())
        if isinstance(reference, Mapping)
        else 0
    )
    return f"Copy number: assessed against {n:,} normal cells of the same patient."


def _clones(name: str, assets: Assets) -> Block:
    if assets.clones is None:
        return Paragraph("The table of clones is not part of this run.", "missing")
    own = assets.clones[assets.clones["patient_id"].astype(str) == name]
    if not len(own):
        return Paragraph("No clone was found.", "missing")
    own = own.sort_values(["n_cells", "clone_id"], ascending=[False, True], kind="stable")
    rows = [
        [
            words(row["clone_id"], tone="strong"),
            num(count(row["n_cells"])),
            num(count(row["n_dtc"])),
            words(str(row["status"]).replace("_", " ")),
            words(_arms(row["gains"])),
            words(_arms(row["losses"])),
        ]
        for row in own.head(MAX_CLONES).to_dict("records")
    ]
    shared = int((pd.to_numeric(own["n_dtc"], errors="coerce") > 0).sum())
    columns = [
        Column("Clone"),
        Column("Cells", True),
        Column("DTCs", True),
        Column("State"),
        Column("Gains"),
        Column("Losses"),
    ]
    more = f" The {len(own) - MAX_CLONES:,} smallest are left out." if len(own) > MAX_CLONES else ""
    return Table(f"Clones (n = {len(own):,}), {shared:,} of them with DTCs.{more}", columns, rows)


def _arms(value: Any) -> str:
    return NONE if is_missing(value) else listed(part for part in re.split("[;,]", str(value)) if part)


def _claims(
    name: str,
    views: Sequence[ClaimView],
    values: Mapping[str, Mapping[str, tuple[bool, str, str]]],
    anchors: Mapping[str, str],
) -> Block:
    if not views:
        return Paragraph("No claim was evaluated in this run.", "missing")
    rows = []
    for view in views:
        used, value, reason = values[view.claim_id].get(name, (False, NONE, "not among the patients of this claim"))
        rows.append(
            [
                Cell(shown(view.claim_id, 40), tone="strong", link=anchors.get(view.claim_id, "")),
                words(view.row["title"], limit=140),
                num(value),
                words(view.endpoints[0].axis if view.endpoints else NONE, limit=120),
                words("used" if used else f"not used: {reason or 'no reason recorded'}", tone="" if used else "muted"),
            ]
        )
    columns = [
        Column("Claim"),
        Column("Says"),
        Column("Value (95\u00a0%\u00a0CI)", True),
        Column("Measured as"),
        Column("State"),
    ]
    return Table(f"What each claim takes from {shown(name, 60)} (n = {len(rows):,}).", columns, rows)
