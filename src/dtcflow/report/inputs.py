"""What the report is made of: the paths of the public outputs, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FIGURES: Final = ("patients.svg", "umap.png", "qc_waterfall.svg", "cnv_heatmap.png")
"""Files that :func:`dtcflow.report.build.write_report` always writes into its figures folder."""


@dataclass(frozen=True)
class ReportInputs:
    """Paths of everything the report shows.

    Only ``config``, ``cells``, ``claims``, ``patients`` and ``verdict`` are needed. Each other field may stay ``None``
    or empty: its section then says that the result was not part of this run. A path that is given must exist.

    Attributes
    ----------
    config
        The validated configuration (defaults filled in).
    cells
        ``cells.tsv.gz``, table ``cells``, one row per input cell.
    claims, patients, verdict
        ``evidence/claims.tsv``, ``evidence/patients.tsv``, ``evidence/verdict.json``.
    sensitivity, controls
        ``evidence/sensitivity.tsv`` (the multiverse), ``evidence/controls.tsv`` (negative and positive controls).
    pathways
        ``evidence/pathways.tsv`` (screening only).
    arms, clones
        ``cnv/arms.tsv``, ``cnv/clones.tsv``.
    loss_audit
        ``qc/loss_audit.tsv``.
    identity
        ``intake/identity.tsv`` (swapped, mixed and repeated samples).
    signature_coverage
        ``scores/signatures.tsv``.
    stability
        ``embedding/stability.tsv``.
    embedding
        An ``.h5ad`` with ``obsm["X_umap"]`` and the cell ids as ``obs`` index; only these two are read.
    qc_summaries, intake_reports
        One JSON per sample: ``qc/samples/{sample}.json``, ``intake/{sample}.json``.
    cnv_statuses, cnv_windows, cnv_cells
        One per patient: ``cnv/patients/{patient}.json``, ``{patient}.h5ad`` and ``{patient}.cells.tsv.gz`` (which cells
        were the reference, and infercnvpy's score beside ours).
    provenance
        ``provenance.json``.
    """

    config: Mapping[str, Any]
    cells: Path
    claims: Path
    patients: Path
    verdict: Path
    sensitivity: Path | None = None
    controls: Path | None = None
    pathways: Path | None = None
    arms: Path | None = None
    clones: Path | None = None
    loss_audit: Path | None = None
    identity: Path | None = None
    signature_coverage: Path | None = None
    stability: Path | None = None
    embedding: Path | None = None
    provenance: Path | None = None
    qc_summaries: Sequence[Path] = field(default_factory=tuple)
    intake_reports: Sequence[Path] = field(default_factory=tuple)
    cnv_statuses: Sequence[Path] = field(default_factory=tuple)
    cnv_windows: Sequence[Path] = field(default_factory=tuple)
    cnv_cells: Sequence[Path] = field(default_factory=tuple)
