"""Build the one-page report."""

from __future__ import annotations

from pathlib import Path

from dtcflow.report.inputs import FIGURES, ReportInputs

__all__ = ["FIGURES", "ReportInputs", "write_report"]


def write_report(inputs: ReportInputs, output: str | Path, *, figures: str | Path | None = None) -> None:
    """Write the self-contained page ``output`` and the files :data:`FIGURES` into ``figures``.

    ``figures`` is ``<folder of output>/figures`` unless given. Same inputs, same bytes.
    """
    raise NotImplementedError
