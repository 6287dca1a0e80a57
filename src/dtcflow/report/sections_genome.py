"""Copy number: statuses, heatmaps, arms, clones, and how infercnvpy compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from dtcflow.report.assets import Assets
from dtcflow.report.page import (
    Block,
    Cell,
    Column,
    Details,
    Paragraph,
    Section,
    Table,
    count,
    is_missing,
    num,
    number,
    plural,
    short,
    text,
    words,
)
from dtcflow.report.pictures import Pictures
from dtcflow.report.sections_genome_arms import (
    arm_blocks,
    clone_blocks,
    given_blocks,
    given_comparisons,
    least_log_ratio,
)
from dtcflow.report.sections_genome_cells import arms_needed, cell_blocks
from dtcflow.report.sections_genome_heatmap import heatmap_blocks

FULL_PATIENTS: Final = 12
"""Patients whose arms and cells are drawn large: the page must stay small."""

_CLONE_WORDS: Final = {
    "ok": "learned and replicated",
    "given": "given by the user",
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
    "too_shallow": "not assessable: too few counts per cell",
}


def genome_section(
    assets: Assets, pictures: Pictures, *, max_rows: int, block_rows: int, full: int = FULL_PATIENTS
) -> Section:
    """Copy-number section.

    Parameters
    ----------
    assets, pictures
        What to show, and where figures go.
    max_rows, block_rows
        Cells to aim for per heatmap, and rows to draw a group of cells with.
    full
        Patients whose arms and cells are drawn large; the others are drawn small or named.
    """
    blocks: list[Block] = _statuses(assets)
    blocks += heatmap_blocks(assets, pictures, max_rows=max_rows, block_rows=block_rows)
    blocks += arm_blocks(assets, pictures, full=full)
    blocks += given_blocks(
        given_comparisons(assets), assets.cnv_statuses, pictures, effect=least_log_ratio(assets), full=full
    )
    blocks += cell_blocks(assets, pictures, full=full)
    blocks += clone_blocks(assets)
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
                words(arms_needed(status.get("smallest_detectable"))),
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
