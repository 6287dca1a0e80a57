"""The kinds of claims, as a reader needs them: scale of the axis, what its marks mean, and how to read the figure.

A kind that is not listed here is drawn as it stands in ``patients.tsv``: the difference, in the claim's own unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from dtcflow.plot.claims import Mark
from dtcflow.report.page import is_missing

Scale = Callable[[float], float]


def _same(value: float) -> float:
    return value


def _share(value: float) -> float:
    """Share from log-odds."""
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def _million(value: float) -> float:
    """Cells in a million from a share."""
    return 1e6 * value


@dataclass(frozen=True)
class Second:
    """A second endpoint of the same claim, from the rows of another analysis or from other columns.

    Attributes
    ----------
    title, axis
        Heading and axis label.
    key
        Where ``verdict.json`` has its estimate.
    analysis, value, variance
        Rows (column ``analysis``) and columns of ``patients.tsv``.
    """

    title: str
    axis: str
    key: str
    analysis: str = "primary"
    value: str = "difference"
    variance: str = "variance"


@dataclass(frozen=True)
class Kind:
    """How a kind of claim is shown.

    Attributes
    ----------
    measure
        What is on the axis; the unit of the claim is added.
    what
        What was measured, for a reader who has not read the methods.
    how
        How to read the figure; ``{side}`` is where support lies.
    title
        Heading of the patients' panel.
    cells
        What the two numbers of cells beside a patient are.
    value
        Column of ``patients.tsv`` with a patient's value; its interval comes from ``variance`` on the same scale,
        unless ``limits`` names two columns.
    scale
        From that column to the axis.
    pooled
        From the estimate and limits of ``claims.tsv`` to the axis.
    meta
        From the meta-analysis of ``verdict.json`` to the axis; None: it is about something else.
    band
        What is shaded: around zero up to the smallest effect of interest, or the wrong side of a threshold.
    marks
        Values with a meaning.
    second
        The other endpoint, if the claim has one.
    part
        Whether the first number of cells is a part of the second.
    beside
        Whether other analyses of the claim have the same unit and may stand beside it.
    """

    measure: str
    what: str
    how: str
    title: str = "Patients"
    cells: str = "cells in first / second group"
    value: str = "difference"
    limits: tuple[str, str] | None = None
    scale: Scale = _same
    pooled: Scale = _same
    meta: Scale | None = _same
    band: Literal["around", "below", "above"] = "around"
    marks: tuple[Mark, ...] = (Mark(0.0, "no difference"),)
    log: bool = False
    second: Second | None = None
    part: bool = False
    beside: bool = True


KINDS: Final[dict[str, Kind]] = {
    "paired_contrast": Kind(
        measure="difference",
        what="Each dot is one patient: the mean signature score of the cells of the first group minus that of "
        "the second.",
        how="support needs the diamond's whole width {side} of zero and its centre {side} of the band.",
    ),
    "composite_contrast": Kind(
        measure="difference",
        what="Two things must both hold: the score differs in the predicted direction, and the share of cycling cells "
        "moves the other way.",
        how="support needs the score's diamond whole {side} of zero with its centre {side} of the band, and the "
        "cycling cells' diamond on the other side of its own zero and band.",
        title="Score",
        second=Second(
            "Share of cycling cells",
            "difference of arcsines of square-root shares",
            "cycling",
            analysis="cycling",
        ),
    ),
    "specificity": Kind(
        measure="difference",
        what="Could the difference be something else than stemness? Every part beside the patients must hold on its "
        "own. The patients shown are those of the weakest part, because that one decides.",
        how="support needs every part's line {side} of zero and its diamond at or beyond its red tick.",
    ),
    "existence": Kind(
        measure="coherence of the signature's two halves beyond random sets",
        what="Are the cells of a patient unlike each other in this programme? Cells that score high on one half of "
        "the signature's genes should score high on the other half (left); the third of the cells that is highest on "
        "one half should lie above the rest on the other (right).",
        how="both are zero when cells differ by chance only; support needs both diamonds whole right of zero and the "
        "coherence's centre right of its band.",
        title="Coherence",
        cells="DTCs / reference cells",
        marks=(Mark(0.0, "chance"),),
        second=Second(
            "Upper tail of the cells",
            "upper tail beyond random sets (SD between reference cells)",
            "tail",
            value="tail",
            variance="tail_variance",
        ),
    ),
    "duality": Kind(
        measure="stemness with dormancy",
        what="Each dot is one patient: the rank correlation, over the disseminated cells of that patient, of stemness "
        "with dormancy, less what random pairs of gene sets show.",
        how="at zero the two have nothing to do with each other; support needs the diamond's whole width {side} of "
        "zero and its centre {side} of the band.",
        cells="DTCs / reference cells",
        scale=math.tanh,
        meta=math.tanh,
        marks=(Mark(0.0, "unrelated"),),
    ),
    "dissimilarity": Kind(
        measure="genomes of a patient's DTCs",
        what="How alike are the genomes of two disseminated cells of one patient? 0: no more than those of cells of "
        "different patients (strangers). 1: as alike as primary tumour cells of one clone.",
        how="support for dissimilarity needs the diamond's whole width left of the shaded part; a refutation must also "
        "hold when the patient's own expression may have made her cells alike.",
        cells="DTCs / primary tumour cells",
        value="value_a",
        band="above",
        marks=(Mark(0.0, "strangers"), Mark(1.0, "same clone")),
    ),
    "rarity": Kind(
        measure="disseminated tumour cells in a million",
        what="Each dot is one patient; a patient without any tumour cell counts and is drawn as an arrow at the left "
        "edge.",
        how="support for rarity needs the diamond's whole width left of the shaded part.",
        cells="tumour cells / nucleated cells",
        value="rate_per_million",
        limits=("rate_low", "rate_high"),
        pooled=_million,
        meta=None,
        band="above",
        marks=(Mark(1.0, "1 in 10⁶"), Mark(1000.0, "1 in 10³")),
        log=True,
        part=True,
    ),
    "identity_share": Kind(
        measure="cells that look like tumour cells and carry tumour copy-number changes",
        what="Each dot is one patient (half a cell is added to either side, so that shares of 0 and 1 have an "
        "interval).",
        how="the gate is passed when the diamond's whole width lies right of the shaded part; about one half is what "
        "the look of marrow cells alone reaches.",
        cells="called / putative tumour cells",
        scale=_share,
        meta=_share,
        band="below",
        marks=(Mark(0.0, "none"), Mark(1.0, "all")),
        part=True,
    ),
}
UNKNOWN: Final = Kind(
    measure="value",
    what="Each dot is one patient. This version of the report has no special words for this kind of claim.",
    how="read the axis with its unit, and the table below.",
    beside=False,
)


def kind_of(claim_id: str, verdict: Mapping[str, Any], patients: pd.DataFrame) -> tuple[str, Kind]:
    """Name and appearance of a claim's kind, from the plan in ``verdict.json`` or else from the columns it filled.

    Parameters
    ----------
    claim_id
        The claim.
    verdict
        Content of ``verdict.json``.
    patients
        Its rows of ``patients.tsv``.
    """
    plan = verdict.get("plan")
    for claim in (plan.get("claims") if isinstance(plan, Mapping) else None) or []:
        if isinstance(claim, Mapping) and claim.get("id") == claim_id:
            name = str(claim.get("test", ""))
            return (name, KINDS[name]) if name in KINDS else (name, UNKNOWN)
    for column, name in (("rate_per_million", "rarity"), ("similarity", "dissimilarity"), ("tail", "existence")):
        if column in patients and pd.to_numeric(patients[column], errors="coerce").notna().any():
            return name, KINDS[name]
    if patients["contrast"].astype(str).str.contains("putative").any():
        return "identity_share", KINDS["identity_share"]
    return "paired_contrast", KINDS["paired_contrast"]


def limits_of(row: Mapping[Any, Any]) -> tuple[float, float, float]:
    """Estimate and 95 % limits of a line or an object; NaN where there is none."""
    return as_number(row.get("estimate")), as_number(row.get("ci_low")), as_number(row.get("ci_high"))


def as_number(value: Any) -> float:
    """A finite number, or NaN."""
    if is_missing(value) or isinstance(value, bool | np.bool_):
        return float("nan")
    try:
        found = float(value)
    except (TypeError, ValueError):
        return float("nan")
    return found if math.isfinite(found) else float("nan")
