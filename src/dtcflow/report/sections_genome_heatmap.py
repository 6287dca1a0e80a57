"""Copy number: cells by genome."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from dtcflow.plot import copy_number as plot
from dtcflow.report.assets import Assets, read_windows
from dtcflow.report.page import Block, Details, Heading, Paragraph, text
from dtcflow.report.pictures import Pictures

OPEN_HEATMAPS: Final = 3
"""Patients whose heatmap is open at once; the others unfold."""


def heatmap_blocks(assets: Assets, pictures: Pictures, *, max_rows: int, block_rows: int) -> list[Block]:
    """One heatmap per patient: rows by clone, the reference below, what the model called above each clone."""
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
        panels.append(plot.Heatmap(patient, matrix, bins, chosen, called_arms(assets.clones)))
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


def called_arms(clones: pd.DataFrame | None) -> Mapping[str, Mapping[str, str]]:
    """Clone -> arm -> ``gain`` or ``loss`` from the table of clones; clone names are unique in a study."""
    found: dict[str, dict[str, str]] = {}
    if clones is None:
        return found
    for clone, gains, losses in zip(clones["clone_id"], clones["gains"], clones["losses"], strict=True):
        if isinstance(clone, str) and clone:
            own = found.setdefault(clone, {})
            for state, arms in (("gain", gains), ("loss", losses)):
                own.update(dict.fromkeys(re.findall(r"[^,;\s]+", arms if isinstance(arms, str) else ""), state))
    return found


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


def _heatmap(panel: plot.Heatmap, pictures: Pictures, *, limit: float, block_rows: int, prefix: str) -> Block:
    total = sum(block.total for block in panel.blocks)
    drawn = sum(len(block.rows) for block in panel.blocks)
    malignant = sum(block.total for block in panel.blocks if block.is_malignant)
    dtc = sum(block.total for block in panel.blocks if block.is_dtc)
    patient = text(panel.patient_id, 60)
    strips = (
        "The strip above a clone shows the arms that the count model called in it (red + gained, blue – lost): the "
        "call does not come from this picture, and where the two disagree, believe the strip. "
        if panel.strips
        else ""
    )
    caption = (
        f"Patient {patient}: {drawn:,} of {total:,} cells (rows) by {panel.matrix.shape[1]:,} bins of neighbouring "
        f"windows (columns, genome order). Malignant cells by clone on top, then undecided and other normal cells, the "
        f"reference below; every one of the {malignant:,} malignant cells ({dtc:,} DTCs) is drawn, others are an even "
        "sample. Side bars: call, clone, and site (compartment). Red: more, blue: less expression than the reference "
        f"(natural-log ratio, colours end at ±{limit:.2f}, the same for all patients). {strips}"
        "How to read it: a gain or loss is a block of one colour that fills a chromosome arm in all cells of a clone "
        "and is absent from the reference; a stripe that runs through clone and reference alike is expression, not "
        f"copy number. Groups of more than {block_rows:,} cells are drawn as averages of neighbouring rows. "
        + ("No malignant cell was called in this patient." if malignant == 0 else "")
    )
    return pictures.inline(
        plot.heatmaps([panel], limit=limit, block_rows=block_rows),
        prefix=prefix,
        alt=f"Copy-number heatmap of patient {patient} with {malignant} malignant cells among {total}.",
        caption=caption.strip(),
    )
