"""What the lab gave us: count matrices as they were read, and whether samples belong to whom the sheet says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dtcflow.report.assets import Assets
from dtcflow.report.page import (
    NONE,
    Block,
    Bullets,
    Cell,
    Column,
    Heading,
    Paragraph,
    Table,
    count,
    listed_texts,
    num,
    percent,
    plural,
    words,
)
from dtcflow.report.page import text as shown

MAX_INTAKE_ROWS: Final = 300
MAX_FINDINGS: Final = 40
_SEX: Final = {"not_assessable": "not assessable"}


def identity_blocks(assets: Assets) -> list[Block]:
    """Findings about swapped, mixed and repeated samples."""
    findings = assets.identity
    if findings is None:
        return [Paragraph("The comparison of samples with each other is not part of this run.", "missing")]
    if not len(findings):
        return [Paragraph("No cell is in two samples, and no sex contradicts the sheet or another sample.")]
    sentences = []
    for row in findings.head(MAX_FINDINGS).to_dict("records"):
        both = " and ".join(name for name in (row["sample_id"], row["other_sample_id"]) if name)
        sentences.append(f"{shown(both, 160)}: {shown(row['detail'])}; {shown(row['advice'])}.")
    n_warnings = int((findings["severity"] == "warning").sum())
    lead = "Samples may be swapped, mixed or repeated" if n_warnings else "A sample needs a look"
    return [
        Paragraph(
            f"{lead}: {plural(len(findings), 'finding')}. Settle them before any result below is believed.", "warn"
        ),
        Bullets(sentences),
        *(
            [Paragraph(f"All of them: {assets.names.get('identity', 'identity.tsv')}.")]
            if len(findings) > MAX_FINDINGS
            else []
        ),
    ]


def _hashes(report: Mapping[str, Any]) -> Cell:
    digests = report.get("sha256")
    hashes = digests if isinstance(digests, Mapping) else {"": digests} if isinstance(digests, str) else {}
    names = "; ".join(f"{name} {digest}".strip() for name, digest in sorted(hashes.items()))
    first = next((str(hashes[name]) for name in sorted(hashes)), "")
    more = f" and {len(hashes) - 1} more" if len(hashes) > 1 else ""
    return Cell(f"{shown(first, 12)}{more}", hint=shown(names))


def _row(sample: str, report: Mapping[str, Any], n_warnings: int) -> list[Cell]:
    sex = report.get("sex")
    call = str(sex.get("call", "")) if isinstance(sex, Mapping) else ""
    source = report.get("source")
    return [
        words(sample, tone="strong"),
        Cell(
            shown(report.get("input")) if report.get("input") else NONE,
            sub=shown(f"{report.get('format', '')}, {source}") if source else shown(report.get("format") or ""),
        ),
        words(report.get("values")),
        num(count(report.get("n_cells"))),
        num(count(report.get("n_genes"))),
        num(percent(report.get("fraction_placed"), 1)),
        num(count(report.get("n_renamed"))),
        words(_SEX.get(call, call) or None),
        num(count(n_warnings), tone="warn" if n_warnings else "muted"),
        _hashes(report),
    ]


def intake_blocks(assets: Assets) -> list[Block]:
    """One row per sample: file, values, cells, genes, placed, renamed; then every warning."""
    blocks: list[Block] = [Heading("Inputs")]
    if not assets.intake_reports:
        return [*blocks, Paragraph("Intake reports are not part of this run.", "missing")]
    rows, warnings = [], []
    for sample, report in assets.intake_reports.items():
        own = listed_texts(report.get("warnings"))
        rows.append(_row(sample, report, len(own)))
        warnings += [f"{shown(sample, 60)}: {shown(item)}" for item in own]
    blocks.append(
        Table(
            f"Count matrices as they were read (n = {len(rows):,}).",
            [
                Column("Sample"),
                Column("File", hint="below it the format, and the part of the file that held the counts"),
                Column("Values"),
                Column("Cells", True),
                Column("Genes", True),
                Column("Placed", True, "share of expressed genes with a position on the genome"),
                Column("Renamed", True, "genes under a superseded symbol that were mapped to their current one"),
                Column("Sex", hint="from XIST and genes of Y in all cells; nothing is decided by it"),
                Column("Warnings", True, "listed below"),
                Column("SHA-256", hint="first 12 characters; whole hashes are in the record below"),
            ],
            rows[:MAX_INTAKE_ROWS],
        )
    )
    if warnings:
        blocks += [Heading("Warnings from intake"), Bullets(warnings)]
    else:
        blocks.append(Paragraph("Intake had no warnings."))
    return blocks
