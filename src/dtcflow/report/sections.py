"""The sections around the evidence: cohort, embedding, scores, and how it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from dtcflow.plot.embedding import umap_panels
from dtcflow.plot.style import language, sentence_figure
from dtcflow.report import text
from dtcflow.report.assets import Assets
from dtcflow.report.page import (
    NONE,
    Block,
    Column,
    Details,
    Heading,
    Paragraph,
    Section,
    Table,
    count,
    frame_table,
    num,
    percent,
    plural,
    short,
    words,
)
from dtcflow.report.page import text as shown
from dtcflow.report.pictures import Pictures
from dtcflow.report.sections_intake import identity_blocks, intake_blocks

MAX_SAMPLE_ROWS: Final = 300


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
