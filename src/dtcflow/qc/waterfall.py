"""What quality control did to each sample and lineage, as tables: all that ``snakemake qc`` needs to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from dtcflow.contracts import TABLES
from dtcflow.qc.lineage import LINEAGES
from dtcflow.qc.thresholds import QC_CLASSES, REMOVING, removing_reasons

ALL: Final = "all"
START: Final = "start"


def waterfall(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Cells removed per reason, for the sample and per lineage.

    Parameters
    ----------
    cells
        Table ``qc_cells`` of one sample.

    Returns
    -------
    One entry per lineage (first ``all``) and reason: ``n_with_reason`` counts every cell that has the reason,
    ``n_removed`` only those that no earlier reason had removed, ``n_left`` what is left after it. The entry ``start``
    holds the cells before.
    """
    reasons = [removing_reasons(text) for text in cells["qc_reasons"]]
    first = np.array([next((r for r in REMOVING if r in found), "") for found in reasons], dtype=object)
    entries: list[dict[str, Any]] = []
    for name in ("all", *LINEAGES):
        rows = np.ones(len(cells), dtype=bool) if name == "all" else (cells["lineage"] == name).to_numpy(bool)
        left = int(rows.sum())
        if name != "all" and not left:
            continue
        entries.append({"lineage": name, "reason": "start", "n_with_reason": 0, "n_removed": 0, "n_left": left})
        for reason in REMOVING:
            removed = int((first[rows] == reason).sum())
            having = sum(reason in found for found, inside in zip(reasons, rows, strict=True) if inside)
            left -= removed
            entries.append(
                {"lineage": name, "reason": reason, "n_with_reason": having, "n_removed": removed, "n_left": left}
            )
    return entries


def fates(cells: pd.DataFrame) -> pd.DataFrame:
    """Sample, decision and bare reasons of every cell, without values and remarks (``low_counts;high_mt``)."""
    reasons = [";".join(removing_reasons(str(value))) for value in cells["qc_reasons"].fillna("")]
    bare = pd.Series(reasons, index=cells.index, dtype=object)
    return cells[["sample_id", "pass_qc"]].assign(qc_reasons=bare)


def waterfall_table(samples: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Table ``qc_waterfall``: :func:`waterfall` of every sample, in the order given.

    Parameters
    ----------
    samples
        Tables ``qc_cells``, one per sample. A sample without cells has no row: ``qc_summary`` names it.
    """
    rows = [
        {**{key: str(cells[key].iloc[0]) for key in ("sample_id", "patient_id", "compartment")}, **entry}
        for cells in samples
        if len(cells)
        for entry in waterfall(cells)
    ]
    return pd.DataFrame(rows, columns=list(TABLES["qc_waterfall"]))


def summary_table(summaries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Table ``qc_summary``, one row per sample, from the summaries of :func:`dtcflow.qc.run.qc_sample`."""
    rows = []
    for summary in summaries:
        medians, epithelial = summary["medians_of_passing_cells"], summary["epithelial"]
        rows.append(
            {
                **{key: summary.get(key, "") for key in ("sample_id", "patient_id", "compartment")},
                "n_cells": summary["n_cells"],
                "n_pass": summary["n_pass"],
                **{f"n_{name}": summary["classes"][name] for name in QC_CLASSES},
                "median_counts": medians["n_counts"],
                "median_genes": medians["n_genes"],
                "median_pct_mt": medians["pct_mt"],
                "doublets": summary["doublets"]["status"],
                "n_doublets": summary["doublets"]["n_flagged"],
                "ambient": summary["ambient"]["status"],
                "ambient_fraction": summary["ambient"]["sample_estimate"],
                "n_epithelial_evidence": epithelial["n_evidence"],
                "n_epithelial_evidence_removed": epithelial["n_evidence_removed"],
                "warnings": "; ".join(summary["warnings"]),
            }
        )
    return pd.DataFrame(rows, columns=list(TABLES["qc_summary"]))
