"""The sections on quality control: what was removed and why, and which tumour cells may have been lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pandas as pd

from dtcflow.plot.qc import waterfall, waterfall_table
from dtcflow.qc.loss_audit import EVIDENCE_LEVELS, STRONG, loss_totals
from dtcflow.qc.waterfall import START, fates
from dtcflow.report.assets import Assets
from dtcflow.report.page import (
    Block,
    Bullets,
    Cell,
    Column,
    Details,
    Heading,
    Paragraph,
    Section,
    Table,
    count,
    frame_table,
    is_missing,
    listed_texts,
    num,
    percent,
    plural,
    spaced,
    words,
)
from dtcflow.report.page import text as shown
from dtcflow.report.pictures import Pictures

MAX_LOSS_ROWS: Final = 40
MAX_OPEN_WARNINGS: Final = 6


def qc_section(assets: Assets, pictures: Pictures) -> Section:
    """What quality control removed, per sample and reason."""
    table = waterfall_table(fates(assets.cells))
    lost = None
    if assets.loss_audit is not None:
        audit = assets.loss_audit
        removed = audit[(audit["status"] == "removed") & (audit["evidence_level"] == STRONG)]
        lost = removed.groupby(removed["sample_id"].astype(str)).size()
    figure = waterfall(table, lost)
    pictures.keep("qc_waterfall.svg", figure)
    total, kept = int(table.to_numpy().sum()), int(table["kept"].sum()) if len(table) else 0
    blocks: list[Block] = [
        pictures.inline(
            figure,
            prefix="qc",
            alt=f"Share of cells kept and removed, by reason, in {len(table)} samples; {kept} of {total} cells kept.",
            caption=(
                f"Fate of all {total:,} cells of {plural(len(table), 'sample')}; {kept:,} kept "
                f"({percent(kept, total)}). Every cell is counted once; a cell with more than one reason is in the "
                "last colour. Doublets are annotated, never removed here, and nothing is removed for having many "
                "counts. How to read it: a long coloured end in one sample only points to the preparation of that "
                "sample"
                + ("." if lost is None else "; the red note counts removed cells that looked like tumour cells.")
            ),
        )
    ]
    if total and not kept:
        blocks.insert(
            0, Paragraph("No cell passed quality control; every later section is empty for that reason.", "warn")
        )
    warnings = [
        f"{shown(sample, 60)}: {shown(warning)}"
        for sample, summary in assets.qc_summaries.items()
        for warning in listed_texts(summary.get("warnings"))
    ]
    if not assets.qc_summaries:
        blocks.append(Paragraph("Summaries of quality control are not part of this run.", "missing"))
    if len(warnings) > MAX_OPEN_WARNINGS:
        blocks.append(Details(f"Warnings from quality control ({len(warnings):,})", [Bullets(warnings)]))
    elif warnings:
        blocks += [Heading("Warnings from quality control"), Bullets(warnings)]
    steps = _steps(assets)
    if steps is not None:
        blocks.append(Details("Waterfall per sample and lineage", [steps]))
    thresholds = _thresholds(assets)
    if thresholds is not None:
        blocks.append(Details("Limits in each sample", [thresholds]))
    return Section("qc", "Quality control", blocks)


def _steps(assets: Assets) -> Table | None:
    """Cells of every sample and lineage before quality control and removed by each reason."""
    found = [
        {"sample": sample, **{str(k): v for k, v in entry.items()}}
        for sample, summary in assets.qc_summaries.items()
        for entry in summary.get("waterfall") or []
        if isinstance(entry, Mapping) and {"lineage", "reason", "n_removed", "n_left"} <= set(entry)
    ]
    if not found:
        return None
    frame = pd.DataFrame(found)
    groups = frame.groupby(["sample", "lineage"], sort=False)
    table = groups["n_left"].first().to_frame("cells")
    reasons = [name for name in frame["reason"].unique() if name != START]
    removed = frame.pivot_table(index=["sample", "lineage"], columns="reason", values="n_removed", aggfunc="sum")
    for name in reasons:
        if removed[name].sum() > 0:
            table[name.replace("_", " ")] = removed[name].astype(int)
    table["passed"] = groups["n_left"].last()
    return frame_table(
        table.reset_index(),
        "Cells per sample and first-pass lineage, removed by each reason in this order (a cell is counted at its first "
        f"reason), and left (n = {plural(frame['sample'].nunique(), 'sample')}). The row 'all' is the sample.",
        max_rows=300,
        note="Also cells that have a reason but were removed by an earlier one: qc/waterfall.tsv.",
    )


def _thresholds(assets: Assets) -> Table | None:
    found = [
        {"sample": sample, **{str(k): v for k, v in entry.items()}}
        for sample, summary in assets.qc_summaries.items()
        for entry in summary.get("thresholds") or []
        if isinstance(entry, Mapping) and not is_missing(entry.get("value"))
    ]
    if not found:
        return None
    frame = pd.DataFrame(found)
    return frame_table(
        frame,
        f"Limits that were applied (n = {len(frame):,}), by cell lineage; 'mad' comes from the sample itself, 'fixed' "
        "from the configuration.",
        columns=["sample", "metric", "lineage", "side", "value", "origin", "n_cells", "median", "removes"],
        max_rows=200,
    )


def loss_section(assets: Assets) -> Section:
    """Every cell with tumour evidence that did not end as malignant."""
    audit = assets.loss_audit
    title = "Loss audit: tumour evidence that was removed or left undecided"
    if audit is None:
        return Section("losses", title, [Paragraph("The loss audit is not part of this run.", "missing")])
    if not len(audit):
        sentence = "No cell that may be a tumour cell was removed, flagged or left undecided."
        return Section("losses", title, [Paragraph(sentence)])
    totals = loss_totals(audit).rename(
        columns={"n_cells": "cells", "n_samples": "samples", **{f"n_{name}": name for name in EVIDENCE_LEVELS}}
    )
    ranks = {name: rank for rank, name in enumerate(EVIDENCE_LEVELS)}
    level = audit["evidence_level"].map(ranks)
    marrow_first = audit.assign(_level=level, _rank=(audit["compartment"] != "marrow").astype(int))
    ordered = marrow_first.sort_values(["_level", "_rank", "stage", "sample_id", "cell_id"], kind="stable")
    blocks: list[Block] = [
        Paragraph(
            "A cell is listed when it may be a tumour cell and was taken for an empty droplet, removed by quality "
            "control, flagged as a doublet and called normal, or left undecided. Strong: epithelial score and markers, "
            "a copy-number q, or an arbitration in favour of a tumour cell. Weak: some sign of one. Not assessable: no "
            "sign, but nothing that excludes one either; only a removed cell whose other lineage is plain is not "
            "listed. A marrow cell here may be a tumour cell that was lost."
        ),
        frame_table(totals, f"Totals (n = {plural(len(audit), 'cell')})."),
        _lost_cells(ordered, assets.names.get("loss_audit", "loss_audit.tsv")),
    ]
    return Section("losses", title, blocks)


def _lost_cells(audit: pd.DataFrame, name: str) -> Table:
    rows = [
        [
            Cell(
                shown(row.cell_id, 80),
                sub=shown(f"{row.compartment}, {_plain(row.stage)}: {row.status}, {_plain(row.evidence_level)}"),
            ),
            words(spaced(row.reason)),
            words(spaced(row.evidence)),
            num(count(row.n_counts)),
        ]
        for row in audit.head(MAX_LOSS_ROWS).itertuples(index=False)
    ]
    return Table(
        f"Cells with tumour evidence that did not end as malignant: first {len(rows):,} of {len(audit):,}, marrow "
        "first.",
        [Column("Cell"), Column("Reason"), Column("Evidence"), Column("Counts", True)],
        rows,
        note=f"All of them, with every number: {name}.",
    )


def _plain(value: object) -> str:
    return str(value).replace("_", " ")
