"""Build the one-page report: read, draw, write. Same inputs, same bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

from dtcflow.contracts import DtcflowError, write_bytes
from dtcflow.report import (
    sections,
    sections_controls,
    sections_evidence,
    sections_genome,
    sections_patients,
    sections_qc,
    sections_verdict,
)
from dtcflow.report.assets import Assets, load
from dtcflow.report.inputs import FIGURES, ReportInputs
from dtcflow.report.page import Section, text
from dtcflow.report.pictures import Pictures

__all__ = ["FIGURES", "ReportInputs", "render", "write_report"]

log = logging.getLogger(__name__)

MAX_BYTES: Final = 10_000_000
MAX_POINTS: Final = 20_000
HEATMAP_ROWS: Final = 240
HEATMAP_ROWS_TOTAL: Final = 6_000
"""Cells that are not malignant, per heatmap and over all of them."""
BLOCK_ROWS: Final = 90
BLOCK_ROWS_TOTAL: Final = 2_000
"""Rows that a group of cells is drawn with, per patient and over all patients."""


def write_report(inputs: ReportInputs, output: str | Path, *, figures: str | Path | None = None) -> None:
    """Write the self-contained page, and the figures that Snakemake's own report shows.

    Parameters
    ----------
    inputs
        Paths of the results; see :class:`~dtcflow.report.inputs.ReportInputs`.
    output
        The HTML page. It opens offline, needs no script and is smaller than 10 MB.
    figures
        Folder that gets :data:`FIGURES`, always all of them: a figure with nothing to show says so. Default:
        ``figures`` beside ``output``.

    Raises
    ------
    dtcflow.contracts.ContractError
        When an input is absent or is not what its contract says.
    dtcflow.contracts.DtcflowError
        When the page cannot be made smaller than 10 MB.
    """
    output = Path(output)
    folder = Path(figures) if figures is not None else output.parent / "figures"
    assets = load(inputs)
    points = int((inputs.config.get("report") or {}).get("max_points", MAX_POINTS))
    page, pictures = render(assets, max_points=points)
    for share in (0.5, 0.2, 0.05):
        if len(page) < MAX_BYTES:
            break
        log.warning("The report has %.1f MB; drawing fewer cells.", len(page) / 1e6)
        page, pictures = render(assets, max_points=int(points * share), detail=share)
    if len(page) >= MAX_BYTES:
        raise DtcflowError(
            f"{output}: the page would have {len(page) / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.0f} MB; lower "
            "report.max_points or split the study"
        )
    missing = set(FIGURES) - set(pictures.files)
    if missing:
        raise RuntimeError(f"figures that no section made: {', '.join(sorted(missing))}")
    for name in FIGURES:
        write_bytes(folder / name, pictures.files[name])
    write_bytes(output, page)
    log.info("%s: %.1f MB, %d figures beside it", output, len(page) / 1e6, len(FIGURES))


def render(assets: Assets, *, max_points: int = MAX_POINTS, detail: float = 1.0) -> tuple[bytes, Pictures]:
    """Render the page (UTF-8) and its figures.

    Parameters
    ----------
    assets
        Everything to show.
    max_points
        Cells drawn per UMAP panel.
    detail
        Share of the usual heatmap rows, and of the patients whose arms and cells are drawn large.
    """
    pictures = Pictures()
    patients = max(len(assets.cnv_windows), 1)
    rows = max(int(detail * min(HEATMAP_ROWS, HEATMAP_ROWS_TOTAL / patients)), 60)
    block_rows = max(int(detail * min(BLOCK_ROWS, BLOCK_ROWS_TOTAL / patients)), 6)
    full = max(int(detail * sections_genome.FULL_PATIENTS), 1)
    makers: list[Callable[[], Section]] = [
        lambda: sections_evidence.claims_section(assets, pictures),
        lambda: sections_controls.controls_section(assets, pictures),
        lambda: sections_patients.patients_section(assets),
        lambda: sections.cohort_section(assets),
        lambda: sections_qc.qc_section(assets, pictures),
        lambda: sections.embedding_section(assets, pictures, max_points=max_points),
        lambda: sections_genome.genome_section(assets, pictures, max_rows=rows, block_rows=block_rows, full=full),
        lambda: sections_qc.loss_section(assets),
        lambda: sections.scores_section(assets),
        lambda: sections.methods_section(assets),
    ]
    study = assets.config.get("study") or {}
    content: dict[str, Any] = {
        "title": text(study.get("title") or "Disseminated tumour cells", 300),
        "notice": text(study["notice"], 1000) if study.get("notice") else "",
        "verdict": sections_verdict.verdict(assets),
        "sections": [make() for make in makers],
        "version": text(assets.provenance.get("dtcflow", ""), 40) if assets.provenance.get("dtcflow") else "",
        "date": text(assets.provenance["date"], 40) if isinstance(assets.provenance.get("date"), str) else "",
        "style": Markup(_resource("page.css")),
    }
    page = _environment().from_string(_resource("template.html.j2")).render(content)
    return page.encode("utf-8"), pictures


def _resource(name: str) -> str:
    return files("dtcflow.report").joinpath(name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
