"""Quality control of one sample: everything the rule ``qc_sample`` does, as one pure function."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from dtcflow import contracts
from dtcflow.qc.ambient import Ambient, estimate_ambient
from dtcflow.qc.doublets import Doublets, score_doublets
from dtcflow.qc.droplets import called_mask, uncalled_table
from dtcflow.qc.lineage import LINEAGES, UNKNOWN, FirstPass, count_markers, first_pass_lineage
from dtcflow.qc.loss_audit import epithelial_evidence
from dtcflow.qc.metrics import METRICS, counts_csr, gene_symbols, qc_metrics
from dtcflow.qc.mixed import mixed_droplets
from dtcflow.qc.thresholds import (
    MIN_SAMPLE,
    QC_CLASSES,
    Rule,
    Threshold,
    apply_thresholds,
    find_thresholds,
    qc_classes,
)
from dtcflow.qc.waterfall import waterfall
from dtcflow.scores.signatures import GeneSet, load_markers

logger = logging.getLogger(__name__)

PLATE: Final = "plate"
FEW_GENES: Final = 2000
"""Genes in the matrix below which lineage and epithelial scores rest on few random sets: said in the summary."""


def qc_sample(
    adata: ad.AnnData,
    *,
    settings: Mapping[str, Any],
    epithelial_z_threshold: float,
    seed: int = 0,
    n_null: int = 200,
    markers: Mapping[str, GeneSet] | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Metrics, first-pass lineage, doublets, ambient share and the pass/fail decision of every cell of one sample.

    Parameters
    ----------
    adata
        One sample at stage ``intake`` (raw counts in ``layers["counts"]``, index = ``cell_id``).
    settings
        ``config["qc"]``: ``n_mads``, ``min_counts``, ``min_genes``, ``max_pct_mt``, ``max_pct_mt_cap``, ``lineages``,
        ``expected_doublet_rate``.
    epithelial_z_threshold
        Calibrated z from which a cell has epithelial evidence; it decides nothing here, it is counted and reported.
    seed
        Seed of the random gene sets and of the simulated doublets.
    n_null
        Random gene sets per marker panel.
    markers
        Marker panels by cell type; the shipped ones without it.

    Returns
    -------
    ``(cells, summary)``. ``cells`` is the table ``qc_cells``, every input cell in input order, with one more column,
    ``first_pass_type``. Droplets that intake did not call as cells fail with the reason ``empty_droplet``; they take no
    part in any threshold or estimate. ``summary`` holds ``n_cells``, ``n_pass``, ``n_uncalled``, ``classes``,
    ``lineages``, ``waterfall``, ``thresholds`` (value and origin), ``doublets``, ``two_types``, ``arbitration``,
    ``ambient``, ``epithelial``, ``panels_not_scored`` and ``warnings``.

    Raises
    ------
    dtcflow.contracts.InputError
        When a setting is out of its range.
    """
    rule = Rule.from_settings(settings)
    everything = adata
    if not (called := called_mask(adata.obs)).all():
        adata = adata[called].copy()
    counts = counts_csr(adata)
    symbols = gene_symbols(adata)
    metrics = qc_metrics(adata)
    first = first_pass_lineage(
        counts, adata.var_names, cell_ids=adata.obs_names, markers=markers, n_null=n_null, seed=seed
    )
    lineage = first.cells
    thresholds = find_thresholds(metrics, lineage["lineage"], rule=rule)
    decision = apply_thresholds(metrics, lineage["lineage"], thresholds, rule=rule)
    doublets, ambient = _droplet_steps(adata, counts, symbols, lineage, settings=settings, seed=seed)
    panels = load_markers() if markers is None else markers
    measured = adata.var.get(contracts.AMBIENT_COUNT)
    # on one thread: sums in another order differ in the last digits
    with threadpool_limits(limits=1):
        mixed, mixed_summary = mixed_droplets(
            counts,
            adata.var_names,
            lineage,
            doublets,
            cell_ids=adata.obs_names,
            panel=tuple(panels[contracts.EPITHELIAL].up) if contracts.EPITHELIAL in panels else (),
            ambient_mean=ambient.sample_estimate,
            ambient_counts=None if measured is None else np.nan_to_num(measured.to_numpy(np.float64)),
            plate=_is_plate(adata),
        )

    cells = pd.DataFrame({"cell_id": adata.obs_names.to_numpy(object)}, index=adata.obs_names)
    for key in ("sample_id", "patient_id", "compartment"):
        cells[key] = adata.obs[key].astype(str).to_numpy(object)
    cells = cells.join(decision).join(metrics)
    cells["doublet_score"] = doublets.score
    cells["ambient_fraction"] = ambient.fraction
    cells = cells.join(mixed).join(lineage).reset_index(drop=True)
    cells["qc_class"] = qc_classes(cells["qc_reasons"], cells["pass_qc"], cells["is_doublet"])
    columns = list(contracts.TABLES["qc_cells"])
    cells = cells[[*columns, *(c for c in cells.columns if c not in columns)]]
    if not called.all():
        cells = _add_uncalled(cells, everything, ~called, markers=markers)
        cells["qc_class"] = qc_classes(cells["qc_reasons"], cells["pass_qc"], cells["is_doublet"])

    summary = summarise(
        cells,
        thresholds,
        first_pass=first,
        doublets=doublets,
        ambient=ambient,
        epithelial_z=epithelial_z_threshold,
        n_genes=adata.n_vars,
        mixed=mixed_summary,
    )
    for warning in summary["warnings"]:
        logger.warning("%s: %s", summary.get("sample_id", "empty sample"), warning)
    return cells, summary


def _add_uncalled(
    cells: pd.DataFrame,
    everything: ad.AnnData,
    uncalled: npt.NDArray[np.bool_],
    *,
    markers: Mapping[str, GeneSet] | None,
) -> pd.DataFrame:
    """Table of the called cells with the rows of the droplets that were not called, in the order of the input."""
    droplets = everything[uncalled].copy()
    panels = load_markers() if markers is None else markers
    epithelial = {name: panel for name, panel in panels.items() if name == contracts.EPITHELIAL}
    shown = count_markers(counts_csr(droplets), droplets.var_names, epithelial)
    n_markers = shown.sum(axis=1).to_numpy(np.float64)
    rows = uncalled_table(droplets, qc_metrics(droplets), n_markers, cells.columns)
    joined = pd.concat([cells, rows.astype({c: t for c, t in cells.dtypes.items() if t != np.int64})])
    order = pd.Index(joined["cell_id"]).get_indexer(everything.obs_names.astype(object))
    ordered: pd.DataFrame = joined.iloc[order].reset_index(drop=True)
    return ordered


def _droplet_steps(
    adata: ad.AnnData,
    counts: Any,
    symbols: pd.Index,
    lineage: pd.DataFrame,
    *,
    settings: Mapping[str, Any],
    seed: int,
) -> tuple[Doublets, Ambient]:
    """Doublets and ambient share; plate data have no soup, and a doublet rate only when the user gives one."""
    plate, n = _is_plate(adata), adata.n_obs
    rate = settings.get("expected_doublet_rate")
    if plate and rate is None:
        why = "not_run: plate data; set qc.expected_doublet_rate to run it"
        doublets = Doublets(np.full(n, np.nan), np.zeros(n, dtype=bool), why, np.nan)
    else:
        doublets = score_doublets(
            counts, cell_ids=adata.obs_names, genes=adata.var_names, expected_rate=rate, seed=seed
        )
    if plate:
        return doublets, Ambient(np.full(n, np.nan), "not_estimated: plate data")
    soup = adata.var[contracts.AMBIENT_COUNT].to_numpy(np.float64) if contracts.AMBIENT_COUNT in adata.var else None
    return doublets, estimate_ambient(counts, symbols, lineage["first_pass_type"], soup=soup)


def _is_plate(adata: ad.AnnData) -> bool:
    return "platform" in adata.obs and adata.n_obs > 0 and bool((adata.obs["platform"].astype(str) == PLATE).all())


def summarise(
    cells: pd.DataFrame,
    thresholds: list[Threshold],
    *,
    first_pass: FirstPass,
    doublets: Doublets,
    ambient: Ambient,
    epithelial_z: float,
    n_genes: int,
    mixed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the report says about one sample's quality control (plain values, ready for JSON)."""
    evidence = epithelial_evidence(cells, epithelial_z=epithelial_z).to_numpy(bool)
    passed = cells["pass_qc"].to_numpy(bool)
    flagged = cells["is_doublet"].to_numpy(bool)
    lineages = {
        name: {"n_cells": int(rows.sum()), "n_pass": int((rows & passed).sum())}
        for name in LINEAGES
        if (rows := (cells["lineage"] == name).to_numpy(bool)).any()
    }
    kept = cells.loc[passed]
    summary: dict[str, Any] = {
        **{key: str(cells[key].iloc[0]) for key in ("sample_id", "patient_id", "compartment") if len(cells)},
        "n_cells": len(cells),
        "n_pass": int(passed.sum()),
        "n_uncalled": int(cells["qc_reasons"].str.startswith("empty_droplet(").sum()),
        "classes": {name: int((cells["qc_class"] == name).sum()) for name in QC_CLASSES},
        "lineages": lineages,
        "panels_not_scored": list(first_pass.not_scored),
        "waterfall": waterfall(cells),
        "thresholds": [threshold.as_dict() for threshold in thresholds],
        "medians_of_passing_cells": {
            name: float(kept[name].median()) if kept[name].notna().any() else None for name in METRICS
        },
        "doublets": doublets.as_dict(),
        "ambient": ambient.as_dict(),
        **(mixed or {}),
        "epithelial": {
            "z_threshold": epithelial_z,
            "n_evidence": int(evidence.sum()),
            "n_evidence_removed": int((evidence & ~passed).sum()),
            "n_evidence_flagged_doublet": int((evidence & passed & flagged).sum()),
            "reference": first_pass.epithelial_reference,
            "scorable": bool(cells["epithelial_z"].notna().any()),
        },
    }
    summary["warnings"] = _warnings(cells, summary, thresholds, n_genes=n_genes)
    return summary


def _warnings(
    cells: pd.DataFrame, summary: Mapping[str, Any], thresholds: list[Threshold], *, n_genes: int
) -> list[str]:
    """Everything about this sample that a reader must know before trusting it."""
    if not len(cells):
        return ["no cells in this sample"]
    found: list[str] = []
    n_filled = int((cells["n_counts"] > 0).sum())
    if n_filled < MIN_SAMPLE:
        found.append(f"{n_filled} cells with counts: no MAD rule is used, only fixed limits and the mitochondrial cap")
    if n_filled < len(cells):
        found.append(f"{len(cells) - n_filled} cells without any count")
    if n_filled and not cells["pct_mt"].notna().any():
        found.append("no mitochondrial genes in the matrix: pct_mt is empty and dying cells cannot be told")
    if n_genes < FEW_GENES:
        found.append(f"{n_genes} genes: lineages and epithelial scores are rough")
    if not summary["epithelial"]["scorable"]:
        found.append(
            "too few epithelial panel genes have counts: epithelial_z is empty, marker genes alone are evidence"
        )
    if not summary["n_pass"]:
        found.append("no cell passed quality control")
    for name, counts in summary["lineages"].items():
        if name != UNKNOWN and counts["n_cells"] >= MIN_SAMPLE and counts["n_pass"] < counts["n_cells"] / 2:
            fixed = sorted({t.metric for t in thresholds if t.lineage == name and t.origin == "fixed" and t.removes})
            hint = f" (fixed limits: {', '.join(fixed)})" if fixed else ""
            found.append(f"{counts['n_cells'] - counts['n_pass']} of {counts['n_cells']} {name} cells removed{hint}")
    if lost := summary["epithelial"]["n_evidence_removed"]:
        found.append(f"{lost} cells with epithelial evidence removed: see the loss audit")
    for step in ("doublets", "ambient"):
        status = summary[step]["status"]
        if status.startswith("not_"):
            found.append(f"{step} {status}")
    arbitration = summary.get("arbitration", {})
    if arbitration.get("n_candidates") and str(arbitration["status"]).startswith("not_"):
        found.append(f"arbitration {arbitration['status']}")
    if summary["doublets"]["message"]:
        found.append(f"doublets: {summary['doublets']['message']}")
    return found
