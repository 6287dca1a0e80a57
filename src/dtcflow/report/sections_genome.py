"""Copy number: statuses, heatmaps, arms, clones, and how infercnvpy compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from dtcflow.contracts import ARM_STATES
from dtcflow.plot import copy_number as plot
from dtcflow.report.assets import Assets, read_windows
from dtcflow.report.page import (
    NONE,
    Block,
    Cell,
    Column,
    Details,
    Heading,
    Paragraph,
    Section,
    Table,
    count,
    estimate,
    frame_table,
    is_missing,
    num,
    number,
    p_value,
    plural,
    short,
    text,
    words,
)
from dtcflow.report.pictures import Pictures

MAX_ARM_ROWS: Final = 150
OPEN_HEATMAPS: Final = 3
"""Patients whose heatmap is open at once; the others unfold."""

_CLONE_WORDS: Final = {
    "ok": "learned and replicated",
    "weak_profile": "too weak to be believed",
    "no_candidates": "no candidate cells",
    "no_profile": "none consistent",
    "not_assessed": "not assessed",
}
_STATUS_WORDS: Final = {
    "ok": "assessed",
    "no_reference": "not assessable: no normal reference cells",
    "small_reference": "not assessable: too few normal reference cells",
    "too_few_genes": "not assessable: too few measured genes",
}


def genome_section(assets: Assets, pictures: Pictures, *, max_rows: int, block_rows: int) -> Section:
    """Copy-number section; ``max_rows`` cells to aim for per heatmap, ``block_rows`` rows to draw a group with."""
    blocks: list[Block] = _statuses(assets)
    blocks += _heatmaps(assets, pictures, max_rows=max_rows, block_rows=block_rows)
    blocks += _arms(assets, pictures)
    blocks += _clones(assets)
    return Section("copy-number", "Copy number and malignant calls", blocks)


# ---------------------------------------------------------------------------------------------------------------------


def concordance(cnv_cells: pd.DataFrame, cells: pd.DataFrame) -> pd.Series[float]:
    """Spearman correlation, per sample, of our copy-number burden with infercnvpy's per-cell score.

    Parameters
    ----------
    cnv_cells
        Table ``cnv_cells`` of all patients.
    cells
        Table ``cells`` (for the sample of a cell).

    Returns
    -------
    Index ``sample_id``; NaN for samples with fewer than 20 cells that carry both numbers or without any variation.
    """
    both = cnv_cells[["cell_id", "cnv_burden", "cnv_score_infercnvpy"]].merge(
        cells[["cell_id", "sample_id"]], on="cell_id", how="inner", validate="one_to_one"
    )
    both = both[np.isfinite(both["cnv_burden"]) & np.isfinite(both["cnv_score_infercnvpy"])]
    found = {}
    for sample, rows in both.groupby("sample_id", sort=True):
        a, b = rankdata(rows["cnv_burden"]), rankdata(rows["cnv_score_infercnvpy"])
        varied = len(rows) >= 20 and a.std() > 0 and b.std() > 0
        found[str(sample)] = float(np.corrcoef(a, b)[0, 1]) if varied else float("nan")
    return pd.Series(found, dtype=float, name="concordance")


def _stated_concordance(status: Mapping[str, Any]) -> dict[str, float]:
    for key, value in status.items():
        if "concordance" in str(key):
            if isinstance(value, Mapping):
                return {str(sample): float(v) for sample, v in value.items() if isinstance(v, int | float)}
            if isinstance(value, int | float):
                return {"": float(value)}
    return {}


def _statuses(assets: Assets) -> list[Block]:
    if not assets.cnv_statuses:
        return [Paragraph("Copy-number statuses are not part of this run.", "missing")]
    computed = concordance(assets.cnv_cells, assets.cells) if assets.cnv_cells is not None else pd.Series(dtype=float)
    samples_of = assets.cells.groupby("patient_id", sort=True)["sample_id"].unique()
    rows, failed = [], []
    references = {
        patient: status["reference"]
        for patient, status in assets.cnv_statuses.items()
        if isinstance(status.get("reference"), Mapping)
    }
    types = sorted({str(name) for own in references.values() for name in own})
    for patient, status in assets.cnv_statuses.items():
        name = str(status.get("status", "not recorded"))
        if name != "ok":
            failed.append(patient)
        reference = status.get("reference")
        n_reference = sum(int(v) for v in reference.values()) if isinstance(reference, Mapping) else None
        kinds = (
            ", ".join(f"{text(kind, 24)} {int(n):,}" for kind, n in sorted(reference.items()))
            if isinstance(reference, Mapping)
            else ""
        )
        stated = _stated_concordance(status)
        agreement = [
            f"{text(sample, 30)} {number(stated.get(sample, computed.get(sample)))}"
            for sample in sorted(map(str, samples_of.get(patient, [])))
            if not is_missing(stated.get(sample, computed.get(sample)))
        ] or ([short(stated[""])] if "" in stated else [])
        clone = status.get("clone_status")
        rows.append(
            [
                words(patient, tone="strong"),
                Cell(
                    text(_STATUS_WORDS.get(name, name)),
                    tone="" if name == "ok" else "warn",
                    sub="" if is_missing(status.get("reason")) else text(status.get("reason")),
                ),
                num(count(n_reference), hint=kinds),
                num(count(status.get("n_genes"))),
                words(_CLONE_WORDS.get(str(clone), clone) if clone is not None else None),
                words(_detectable(status.get("smallest_detectable"))),
                words("; ".join(agreement) or None),
            ]
        )
    table = Table(
        f"Copy-number status of every patient (n = {len(rows):,}).",
        [
            Column("Patient"),
            Column("Status"),
            Column("Reference cells", True, "normal cells that copy number is compared with; types below"),
            Column("Genes", True, "expressed genes with a position"),
            Column(
                "Tumour profile",
                hint="shared arm-level profile of the candidates; replicated in both halves of the genes",
            ),
            Column(
                "Smallest detectable",
                hint="arms changed by one copy that a tumour of so many cells must carry to be seen",
            ),
            Column("infercnvpy concordance", hint="Spearman correlation of its per-cell score with ours, per sample"),
        ],
        rows,
        note="infercnvpy is a second opinion and draws the heatmap; its score decides nothing.",
    )
    blocks: list[Block] = [table]
    if types:
        columns = [Column("Patient"), *(Column(name.replace("_", " "), True) for name in types)]
        by_type = [
            [words(patient, tone="strong"), *(num(count(own.get(name, 0))) for name in types)]
            for patient, own in references.items()
        ]
        caption = f"Reference cells by type (n = {plural(len(by_type), 'patient')})."
        blocks.append(Details("Reference cells by type", [Table(caption, columns, by_type)]))
    if failed:
        blocks.insert(
            0,
            Paragraph(
                f"Copy number was not assessable in {plural(len(failed), 'patient')}: "
                f"{', '.join(text(p, 40) for p in failed)}. Not assessable is not the same as normal; the table says "
                "why.",
                "warn",
            ),
        )
    return blocks


def _detectable(value: Any) -> str | None:
    if isinstance(value, Mapping):
        parts = []
        for key, n_arms in value.items():
            digits = "".join(filter(str.isdigit, str(key)))
            if digits and not is_missing(n_arms):
                parts.append((int(digits), short(n_arms)))
        words_ = [f"{n_arms} in {n_cells}" for n_cells, n_arms in sorted(parts)]
        return ", ".join(words_).replace(" in ", " arms in ", 1).replace(",", " cells,", 1) if words_ else None
    return None if is_missing(value) else short(value)


# ---------------------------------------------------------------------------------------------------------------------


def _annotated(assets: Assets, ids: Any) -> pd.DataFrame:
    """Rows of the table of cells in the order of ``ids``; a cell that is not in it is left out by the caller."""
    columns = ["sample_id", "compartment", "cell_type", "malignant_call", "clone_id", "is_dtc"]
    frame: pd.DataFrame = assets.cells.set_index("cell_id")[columns].loc[ids].reset_index(names="cell_id")
    if assets.cnv_cells is None:
        frame["is_reference"] = False
    else:
        flags = assets.cnv_cells.set_index("cell_id")["is_reference"]
        frame["is_reference"] = frame["cell_id"].map(flags).fillna(False).astype(bool)
    return frame


def _heatmaps(assets: Assets, pictures: Pictures, *, max_rows: int, block_rows: int) -> list[Block]:
    blocks: list[Block] = [Heading("Cells by genome")]
    panels, silent = [], []
    known = pd.Index(assets.cells["cell_id"])
    for patient, path in assets.cnv_windows.items():
        windows = read_windows(path)
        inside = np.flatnonzero(known.get_indexer(pd.Index(windows.cell_ids)) >= 0)
        if windows.values.shape[1] == 0 or len(inside) == 0:
            silent.append(patient)
            continue
        cells = _annotated(assets, windows.cell_ids[inside])
        rows, chosen = plot.gather(plot.choose_rows(cells, max_rows=max_rows))
        matrix, bins = plot.bin_windows(windows.values[inside[rows]], windows.layout)
        panels.append(plot.Heatmap(patient, matrix, bins, chosen))
    limit = plot.colour_limit([panel.matrix for panel in panels])
    pictures.keep("cnv_heatmap.png", plot.heatmaps(panels, limit=limit, block_rows=block_rows), dpi=120)
    if not panels:
        blocks.append(
            Paragraph(
                "No patient has copy-number windows, so there is no heatmap; the table above says why.", "missing"
            )
        )
        return blocks
    if silent:
        blocks.append(Paragraph(f"No windows, so no heatmap: {', '.join(text(p, 40) for p in silent)}.", "missing"))
    if assets.cnv_cells is None:
        blocks.append(
            Paragraph(
                "Which cells were the reference is not part of this run; they are among the normal cells.", "missing"
            )
        )
    for i, panel in enumerate(panels):
        figure = _heatmap(panel, pictures, limit=limit, block_rows=block_rows, prefix=f"heatmap-{i}")
        blocks.append(figure if i < OPEN_HEATMAPS else Details(f"Patient {text(panel.patient_id, 40)}", [figure]))
    return blocks


def _heatmap(panel: plot.Heatmap, pictures: Pictures, *, limit: float, block_rows: int, prefix: str) -> Block:
    total = sum(block.total for block in panel.blocks)
    drawn = sum(len(block.rows) for block in panel.blocks)
    malignant = sum(block.total for block in panel.blocks if block.is_malignant)
    dtc = sum(block.total for block in panel.blocks if block.is_dtc)
    patient = text(panel.patient_id, 60)
    caption = (
        f"Patient {patient}: {drawn:,} of {total:,} cells (rows) by {panel.matrix.shape[1]:,} bins of neighbouring "
        f"windows (columns, genome order). Reference on top, then by call and clone; every one of the {malignant:,} "
        f"malignant cells ({dtc:,} DTCs) is drawn, others are an even sample. Red: more, blue: less expression than "
        f"the reference (log ratio, colours end at ±{limit:.2f}, the same for all patients). How to read it: a gain "
        "or loss is a block of one colour that fills a chromosome arm in all cells of a clone; the bar at the left is "
        f"the call. Groups of more than {block_rows:,} cells are drawn as averages of neighbouring rows. "
        + ("No malignant cell was called in this patient." if malignant == 0 else "")
    )
    return pictures.inline(
        plot.heatmaps([panel], limit=limit, block_rows=block_rows),
        prefix=prefix,
        alt=f"Copy-number heatmap of patient {patient} with {malignant} malignant cells among {total}.",
        caption=caption.strip(),
    )


# ---------------------------------------------------------------------------------------------------------------------


def _arms(assets: Assets, pictures: Pictures) -> list[Block]:
    blocks: list[Block] = [Heading("Chromosome arms")]
    arms = assets.arms
    if arms is None:
        return [*blocks, Paragraph("The arm table is not part of this run.", "missing")]
    if not len(arms):
        return [
            *blocks,
            Paragraph("No arm was tested: no malignant cell was called or copy number was not assessable.", "missing"),
        ]
    states = arms["state"].astype(str).value_counts()
    summary = "; ".join(f"{state.replace('_', ' ')} {int(states.get(state, 0)):,}" for state in ARM_STATES)
    groups = arms[["sample_id", "clone_id"]].fillna("").drop_duplicates()
    cut = f", the first {plot.MAX_GROUPS} drawn" if len(groups) > plot.MAX_GROUPS else ""
    blocks.append(
        pictures.inline(
            plot.arm_grid(arms),
            prefix="arms",
            alt=f"Grid of chromosome-arm states of {len(groups)} groups of cells: {summary}.",
            caption=(
                f"State of every chromosome arm in {plural(len(groups), 'sample-and-clone group')}{cut} ({summary}); "
                "the number behind a group is its cells. How to read it: compare a clone's marrow row with its "
                "primary row; an empty grey tile is tested and neutral, a dot is not assessable with these cells."
            ),
        )
    )
    altered = arms[arms["state"].isin(["gain", "loss"])].copy()
    altered["_order"] = [plot.arm_order(arm) for arm in altered["arm"].astype(str)]
    altered = altered.sort_values(["patient_id", "sample_id", "clone_id", "_order"], kind="stable")
    table = _arm_table(
        altered,
        f"Altered arms (n = {len(altered):,}"
        + (f", first {MAX_ARM_ROWS} shown)." if len(altered) > MAX_ARM_ROWS else ").")
        + " Log ratio against the reference with 95 % CI; q by Benjamini-Hochberg.",
        note=f"Whole table: {assets.names.get('arms', 'arms.tsv')}.",
        empty="No arm is called gained or lost.",
    )
    blocks.append(Details(f"Altered arms with confidence intervals ({len(altered):,})", [table]))
    others = arms[~arms["state"].isin(["gain", "loss"])].copy()
    others["_order"] = [plot.arm_order(arm) for arm in others["arm"].astype(str)]
    others = others.sort_values(["state", "patient_id", "sample_id", "clone_id", "_order"], kind="stable")
    if len(others):
        table = _arm_table(
            others,
            f"Arms that are neutral or not assessable (n = {len(others):,}"
            + (f", first {MAX_ARM_ROWS} shown)." if len(others) > MAX_ARM_ROWS else ").")
            + " For these the smallest detectable log ratio says what could have been missed.",
            note=f"Whole table: {assets.names.get('arms', 'arms.tsv')}.",
            empty="",
        )
        blocks.append(Details(f"Neutral and not assessable arms ({len(others):,})", [table]))
    return blocks


def _arm_table(arms: pd.DataFrame, caption: str, *, note: str, empty: str) -> Table:
    columns = [
        Column("Patient"),
        Column("Sample"),
        Column("Clone"),
        Column("Arm"),
        Column("State"),
        Column("Log ratio (95\u00a0%\u00a0CI)", True),
        Column("q", True),
        Column("Cells", True),
        Column("Genes", True),
        Column("Power", True, "to see a single-copy change with these cells"),
        Column("Smallest detectable", True, "log ratio"),
    ]
    marks = {"gain": "+ gain", "loss": "– loss", "neutral": "neutral", "not_assessable": "· not assessable"}
    rows = [
        [
            words(row.patient_id),
            words(row.sample_id),
            words(row.clone_id),
            Cell(text(row.arm), tone="strong"),
            words(marks.get(str(row.state), row.state)),
            num(estimate(row.log_ratio, row.ci_low, row.ci_high)),
            num(p_value(row.q_value)),
            num(count(row.n_cells)),
            num(count(row.n_genes)),
            num(short(row.power)),
            num(short(row.smallest_detectable)),
        ]
        for row in arms.head(MAX_ARM_ROWS).itertuples(index=False)
    ]
    return Table(caption, columns, rows, note, empty)


def _clones(assets: Assets) -> list[Block]:
    blocks: list[Block] = [Heading("Clones")]
    if assets.clones is None:
        return [*blocks, Paragraph("The table of clones is not part of this run.", "missing")]
    return [
        *blocks,
        frame_table(
            assets.clones,
            f"Clones (n = {len(assets.clones):,}). Gains and losses are chromosome arms.",
            max_rows=200,
            note=f"Whole table: {assets.names.get('clones', 'clones.tsv')}. {NONE} means none or not computed.",
            empty="No clone was found.",
        ),
    ]
