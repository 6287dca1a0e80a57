"""The sections around the evidence: cohort, quality control, embedding, losses, scores, and how it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from dtcflow.plot.embedding import umap_panels
from dtcflow.plot.qc import waterfall, waterfall_table
from dtcflow.plot.style import language, sentence_figure
from dtcflow.qc.thresholds import removing_reasons
from dtcflow.report import text
from dtcflow.report.assets import Assets
from dtcflow.report.page import (
    NONE,
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
    num,
    percent,
    plural,
    short,
    spaced,
    words,
)
from dtcflow.report.page import text as shown
from dtcflow.report.pictures import Pictures
from dtcflow.report.sections_intake import identity_blocks, intake_blocks, listed

MAX_LOSS_ROWS: Final = 40
MAX_SAMPLE_ROWS: Final = 300
MAX_OPEN_WARNINGS: Final = 6


def cohort_section(assets: Assets) -> Section:
    """One row per sample: what went in, what passed, what was called."""
    cells = assets.cells
    rows = []
    for sample, own in cells.groupby("sample_id", sort=True):
        passed = own[own["pass_qc"]]
        malignant = int((own["malignant_call"] == "malignant").sum())
        undecided = int((own["malignant_call"] == "indeterminate").sum())
        dtc = int(own["is_dtc"].sum())
        marrow = str(own["compartment"].iloc[0]) == "marrow"
        rows.append(
            [
                words(sample, tone="strong"),
                words(own["patient_id"].iloc[0]),
                words(str(own["compartment"].iloc[0]).replace("_", " ")),
                num(count(len(own))),
                num(count(len(passed)), tone="" if len(passed) else "warn"),
                num(percent(len(passed), len(own))),
                num(_median(passed["n_counts"])),
                num(_median(passed["n_genes"])),
                num(count(malignant)),
                num(count(undecided)),
                num(count(dtc) if marrow else NONE, tone="strong" if dtc else "muted"),
                num(percent(dtc, len(passed), 2) if marrow else NONE),
            ]
        )
    columns = [
        Column("Sample"),
        Column("Patient"),
        Column("Compartment"),
        Column("Cells", True),
        Column("Passed QC", True),
        Column("Passed", True),
        Column("Median counts", True, "per cell that passed"),
        Column("Median genes", True, "per cell that passed"),
        Column("Malignant", True),
        Column("Undecided", True, "neither malignant nor normal can be said"),
        Column("DTCs", True, "malignant cells of a marrow sample"),
        Column(
            "DTC share",
            True,
            "of the cells that passed; not a rate per nucleated cell unless the sample was unenriched",
        ),
    ]
    n_patients = cells["patient_id"].nunique()
    blocks: list[Block] = [
        Table(
            f"Samples (n = {plural(len(rows), 'sample')}, "
            f"{plural(n_patients, 'patient or donor', 'patients and donors')}, {len(cells):,} cells). A dash in the "
            "DTC columns means that the sample is not marrow.",
            columns,
            rows[:MAX_SAMPLE_ROWS],
            note=f"One row per cell: {assets.names.get('cells', 'cells.tsv.gz')}.",
            empty="No sample was read.",
        )
    ]
    if not bool(cells["is_dtc"].any()):
        blocks.insert(
            0,
            Paragraph(
                "No disseminated tumour cell was found in any marrow sample. The smallest change that would have been "
                "seen is in the copy-number section; cells that came close are in the loss audit.",
                "warn",
            ),
        )
    if n_patients == 1:
        blocks.append(Paragraph("One patient: nothing here can be generalised, whatever the number of cells.", "warn"))
    blocks += identity_blocks(assets)
    return Section("cohort", "Cohort", blocks)


def _median(values: pd.Series[Any]) -> str:
    known = pd.to_numeric(values, errors="coerce").dropna()
    return count(known.median()) if len(known) else NONE


def qc_section(assets: Assets, pictures: Pictures) -> Section:
    """What quality control removed, per sample and reason."""
    reasons = [";".join(removing_reasons(str(value))) for value in assets.cells["qc_reasons"].fillna("")]
    table = waterfall_table(assets.cells.assign(qc_reasons=reasons))
    lost = None
    if assets.loss_audit is not None:
        removed = assets.loss_audit[assets.loss_audit["status"] == "removed"]
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
        for warning in listed(summary.get("warnings"))
    ]
    if not assets.qc_summaries:
        blocks.append(Paragraph("Summaries of quality control are not part of this run.", "missing"))
    if len(warnings) > MAX_OPEN_WARNINGS:
        blocks.append(Details(f"Warnings from quality control ({len(warnings):,})", [Bullets(warnings)]))
    elif warnings:
        blocks += [Heading("Warnings from quality control"), Bullets(warnings)]
    thresholds = _thresholds(assets)
    if thresholds is not None:
        blocks.append(Details("Limits in each sample", [thresholds]))
    return Section("qc", "Quality control", blocks)


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


def embedding_section(assets: Assets, pictures: Pictures, *, max_points: int) -> Section:
    """UMAP panels and the stability of the clusters."""
    blocks: list[Block] = []
    sentence = ""
    umap = assets.umap
    if umap is None:
        sentence = "The embedding is not part of this run."
    elif len(umap.cell_ids) == 0:
        sentence = f"There is no embedding: {shown(umap.status, 200)}."
    if umap is None or sentence:
        with language():
            pictures.keep("umap.png", sentence_figure(sentence))
        blocks.append(Paragraph(sentence, "missing"))
    else:
        blocks.append(_umap(assets, pictures, max_points))
    if assets.stability is None:
        blocks.append(Paragraph("The stability of the clusters is not part of this run.", "missing"))
    else:
        blocks.append(
            frame_table(
                assets.stability,
                f"Stability of Leiden clusters (n = {plural(len(assets.stability), 'resolution')}). ARI: agreement "
                "with clusters of random 90 % of the cells, 1 is perfect; silhouette: separation, -1 to 1. Clusters "
                "decide nothing here.",
                empty="No clustering was made.",
            )
        )
    return Section("embedding", "Embedding and cell types", blocks)


def _umap(assets: Assets, pictures: Pictures, max_points: int) -> Block:
    assert assets.umap is not None
    known = assets.cells.set_index("cell_id")
    inside = known.index.get_indexer(pd.Index(assets.umap.cell_ids))
    keep = inside >= 0
    cells = assets.cells.iloc[inside[keep]][
        ["cell_id", "cell_type", "compartment", "sample_id", "malignant_call", "is_dtc"]
    ].reset_index(drop=True)
    cells["cell_type"] = cells["cell_type"].replace("", "unknown")
    cells["malignant_call"] = cells["malignant_call"].replace("", "indeterminate")
    figure = umap_panels(assets.umap.coordinates[keep], cells, max_points=max_points)
    pictures.keep("umap.png", figure)
    n, dtc = int(keep.sum()), int(cells["is_dtc"].sum())
    kept = min(n, max(max_points, int((cells["malignant_call"] != "normal").sum())))
    return pictures.inline(
        figure,
        prefix="umap",
        alt=f"Four views of one UMAP of {n} cells: cell type, compartment, sample and malignant call with {dtc} DTCs.",
        caption=(
            f"UMAP of {n:,} cells that passed quality control, {kept:,} drawn (the keys count all of them; every "
            f"malignant and undecided cell is drawn, last and bigger, n = {dtc:,} DTCs). {text.NOTICE_RASTER} How to "
            "read it: neighbours have similar expression; distances between islands, their sizes and their shapes "
            "mean nothing. Tumour cells of different patients usually lie apart, normal cell types should mix over "
            "samples. Nothing is called or tested on this picture."
        ),
    )


def loss_section(assets: Assets) -> Section:
    """Every cell with tumour evidence that did not end as malignant."""
    audit = assets.loss_audit
    title = "Loss audit: tumour evidence that was removed or left undecided"
    if audit is None:
        return Section("losses", title, [Paragraph("The loss audit is not part of this run.", "missing")])
    if not len(audit):
        sentence = "No cell with tumour evidence was removed, flagged or left undecided."
        return Section("losses", title, [Paragraph(sentence)])
    totals = (
        audit.groupby(["compartment", "stage", "status"], sort=True)
        .agg(cells=("cell_id", "size"), samples=("sample_id", "nunique"), patients=("patient_id", "nunique"))
        .reset_index()
    )
    marrow_first = audit.assign(_rank=(audit["compartment"] != "marrow").astype(int))
    ordered = marrow_first.sort_values(["_rank", "stage", "sample_id", "cell_id"], kind="stable")
    blocks: list[Block] = [
        Paragraph(
            "A cell is listed when it shows epithelial or copy-number evidence and was removed by quality control, "
            "flagged as a doublet and called normal, or left undecided. A marrow cell here may be a tumour cell that "
            "was lost."
        ),
        frame_table(totals, f"Totals (n = {plural(len(audit), 'cell')})."),
        _lost_cells(ordered, assets.names.get("loss_audit", "loss_audit.tsv")),
    ]
    return Section("losses", title, blocks)


def _lost_cells(audit: pd.DataFrame, name: str) -> Table:
    rows = [
        [
            Cell(shown(row.cell_id, 80), sub=shown(f"{row.compartment}, {row.stage}: {row.status}")),
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


def scores_section(assets: Assets) -> Section:
    """Signature coverage and the pathway screen."""
    blocks: list[Block] = [Heading("Signature coverage")]
    coverage = assets.signature_coverage
    if coverage is None:
        blocks.append(Paragraph("Signature coverage is not part of this run.", "missing"))
    else:
        low = coverage[~coverage["status"].astype(str).isin(["ok", "scored", ""])]
        if len(low):
            blocks.append(
                Paragraph(
                    f"{plural(len(low), 'signature')} could not be scored as planned: see the status column.", "warn"
                )
            )
        blocks.append(
            frame_table(
                coverage,
                f"Genes of every signature (n = {plural(len(coverage), 'signature')}): in the set, measured, detected "
                "in at least 2 % of cells, found under a newer name; the effective number counts dominated genes "
                "less; depth correlation is what calibration leaves.",
                max_rows=200,
                note=f"Whole table: {assets.names.get('signature_coverage', 'signatures.tsv')}.",
                empty="No signature was scored.",
            )
        )
    blocks.append(Heading("Pathways (screening only)"))
    if assets.pathways is None:
        blocks.append(Paragraph("Pathways are not part of this run.", "missing"))
    else:
        blocks.append(
            Paragraph(
                "Screening: no row here supports a claim. A screening p permutes genes; a patient p, where there is "
                "one, flips the signs of patients, and none of these sets was named by the analysis plan. They "
                "suggest what to test next."
            )
        )
        pathways = assets.pathways
        keys = [name for name in ("patient_p_adjusted", "patient_p", "screening_q", "fdr") if name in pathways]
        pathways = pathways.sort_values(keys, kind="stable") if keys else pathways
        blocks.append(
            frame_table(
                pathways,
                f"Gene sets of the pseudobulk contrast: first {min(len(pathways), 25)} of {len(pathways):,}, smallest "
                "p first.",
                columns=[name for name in pathways.columns if name not in {"leading_edge", "lead_genes"}],
                max_rows=25,
                note=f"Whole table, with the leading genes: {assets.names.get('pathways', 'pathways.tsv')}.",
                empty="No gene set was tested: the pseudobulk contrast needs patients with cells on both sides.",
            )
        )
    return Section("scores", "Signatures and pathways", blocks)


# ---------------------------------------------------------------------------------------------------------------------


def methods_section(assets: Assets) -> Section:
    """Methods text, parameters, versions, inputs and their warnings."""
    versions = _versions(assets.provenance)
    blocks: list[Block] = [Heading("Methods text")]
    blocks += [Paragraph(paragraph) for paragraph in text.methods(assets.config, versions)]
    blocks += intake_blocks(assets)
    parameters = [[words(key, tone="strong"), words(_plain(value), limit=300)] for key, value in _flat(assets.config)]
    blocks.append(
        Details(
            f"Parameters ({len(parameters):,})",
            [
                Table(
                    f"Configuration with defaults (n = {len(parameters):,}).",
                    [Column("Key"), Column("Value")],
                    parameters,
                )
            ],
        )
    )
    if not assets.provenance:
        blocks.append(Paragraph("The record of inputs, versions and seeds is not part of this run.", "missing"))
    else:
        if versions:
            rows = [[words(name, tone="strong"), words(value)] for name, value in sorted(versions.items())]
            table = Table(f"Packages (n = {len(rows):,}).", [Column("Package"), Column("Version")], rows)
            blocks.append(Details(f"Versions ({len(rows):,})", [table]))
        skip = {"parameters", "packages", "versions", "methods", "samples", "config"}
        rest = [
            [words(key, tone="strong"), words(_plain(value), limit=300)]
            for key, value in _flat({k: v for k, v in assets.provenance.items() if k not in skip})
        ]
        blocks.append(
            Details(
                f"Inputs, resources and seeds ({len(rest):,})",
                [
                    Table(
                        f"Record of the run (n = {len(rest):,} entries). Hashes are SHA-256.",
                        [Column("Entry"), Column("Value")],
                        rest[:600],
                        note=f"Everything: {assets.names.get('provenance', 'provenance.json')}.",
                    )
                ],
            )
        )
    return Section("methods", "How this was made", blocks)


def _versions(provenance: Mapping[str, Any]) -> dict[str, str]:
    found = provenance.get("packages") or provenance.get("versions") or {}
    if not isinstance(found, Mapping):
        return {}
    return {str(name): str(value) for name, value in found.items() if str(value) != "not installed"}


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key in sorted(value, key=str):
        name = f"{prefix}{key}"
        if isinstance(value[key], Mapping) and value[key]:
            yield from _flat(value[key], f"{name}.")
        else:
            yield name, value[key]


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) if value else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, Mapping) and not value):
        return "none"
    if isinstance(value, float):
        return short(value) if np.isfinite(value) else NONE
    return str(value)
