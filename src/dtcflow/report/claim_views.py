"""From the tables of the evidence to what is drawn of each claim; nothing is estimated here.

Every number comes from ``claims.tsv``, ``patients.tsv``, ``controls.tsv`` or ``verdict.json``; it is only brought to
the axis of the claim's kind (:mod:`dtcflow.report.claim_kinds`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtcflow.plot.claims import Beside, Dot, Endpoint, Pool
from dtcflow.report.claim_kinds import Kind, Scale, Second, as_number, kind_of, limits_of
from dtcflow.report.page import count, is_missing

Z95: Final = 1.959964
NAN: Final = float("nan")
PRIMARY: Final = ("primary", "main")
VARIANTS: Final[dict[str, str]] = {
    "adjusted": "adjusted for covariates",
    "confirmatory": "second signature",
    "purged": "without genes of a programme",
    "exceeds": "more than in",
    "reported": "for information",
    "negative_control": "negative control",
    "own_expression": "without shared errors",
}
"""Words for the analyses of ``patients.tsv`` that may stand beside the primary one."""
ESTIMATES: Final = {
    "adjusted": "adjusted",
    "confirmatory": "confirmatory_signature",
    "own_expression": "meta_analysis_low",
}
"""Where ``verdict.json`` keeps the estimate of an analysis."""
PURGES: Final = (
    ("_NOPROLIF_NOEMT", "without proliferation and EMT genes"),
    ("_NOPROLIF", "without proliferation genes"),
)


@dataclass(frozen=True)
class ClaimView:
    """A claim that was evaluated, ready to be shown.

    Attributes
    ----------
    claim_id, test, kind
        Which claim, its kind in the plan, and how that kind is shown.
    row, detail
        Its line of ``claims.tsv`` and its part of ``verdict.json``.
    patients
        Rows of the primary analysis, one per patient, in the order they are drawn.
    endpoints, beside
        What is drawn; limits are on the axis.
    """

    claim_id: str
    test: str
    kind: Kind
    row: Mapping[Any, Any]
    detail: Mapping[Any, Any]
    patients: pd.DataFrame
    endpoints: tuple[Endpoint, ...]
    beside: tuple[Beside, ...]

    @property
    def pool(self) -> Pool:
        """Estimate and intervals of the first endpoint."""
        return self.endpoints[0].pool if self.endpoints else Pool()

    @property
    def null(self) -> NDArray[np.float64] | None:
        """Estimates of random gene sets, on the axis."""
        return self.endpoints[0].null if self.endpoints else None

    @property
    def side(self) -> str:
        """Where support lies."""
        return "left" if self.detail.get("direction") == "less" else "right"


def evaluated(row: Mapping[Any, Any], verdict: Mapping[Any, Any]) -> bool:
    """Whether a claim was computed; a claim without any usable patient was, and says so."""
    open_ = "NOT_EVALUATED" in str(row.get("codes"))
    return not open_ and detail_of(verdict, str(row["claim_id"])).get("evaluated") is not False


def detail_of(verdict: Mapping[Any, Any], claim_id: str) -> Mapping[Any, Any]:
    """What ``verdict.json`` holds about a claim; empty when it holds nothing."""
    claims = verdict.get("claims")
    detail = claims.get(claim_id) if isinstance(claims, Mapping) else None
    return detail if isinstance(detail, Mapping) else {}


def claim_views(
    claims: pd.DataFrame, patients: pd.DataFrame, verdict: Mapping[Any, Any], controls: pd.DataFrame | None = None
) -> list[ClaimView]:
    """Return what is shown of every claim that was evaluated.

    Parameters
    ----------
    claims, patients, controls
        Tables of the evidence; ``controls`` may be None.
    verdict
        Content of ``verdict.json``.
    """
    rows = claims.drop_duplicates("claim_id").to_dict("records")
    return [claim_view(row, patients, verdict, controls) for row in rows if evaluated(row, verdict)]


def claim_view(
    row: Mapping[Any, Any], patients: pd.DataFrame, verdict: Mapping[Any, Any], controls: pd.DataFrame | None
) -> ClaimView:
    """Put together one claim; see :func:`claim_views`."""
    claim_id = str(row["claim_id"])
    own = patients[patients["claim_id"] == claim_id]
    detail = detail_of(verdict, claim_id)
    test, kind = kind_of(claim_id, verdict, own)
    primary = _ordered(_analysis(own, _primary_name(own)), kind)
    first = _endpoint(row, primary, detail, kind)
    endpoints: tuple[Endpoint, ...] = (first,)
    if kind.second is not None and len(primary):
        endpoints = (first, _second(kind.second, kind, own, primary, detail))
    beside: list[Beside] = []
    if kind.beside and len(primary):
        drawn = set(own.loc[own["analysis"].astype(str) == "negative_control", "signature"].astype(str))
        beside = [_itself(first), *_variants(own, detail, controls, claim_id, kind)]
        beside += _controls(controls, claim_id, drawn=drawn)
    # a claim alone beside itself says nothing
    return ClaimView(claim_id, test, kind, row, detail, primary, endpoints, tuple(beside if len(beside) > 1 else ()))


def _primary_name(own: pd.DataFrame) -> str:
    names = list(dict.fromkeys(own["analysis"].astype(str)))
    return next((name for name in PRIMARY if name in names), names[0] if names else "")


def _analysis(own: pd.DataFrame, name: str) -> pd.DataFrame:
    rows = own[own["analysis"].astype(str) == name].drop_duplicates("patient_id")
    return rows.assign(usable=_true(rows["usable"]))


def _true(values: pd.Series[Any]) -> pd.Series[Any]:
    return values.astype(str).str.lower().isin(["true", "1", "1.0"])


def _numbers(frame: pd.DataFrame, column: str) -> NDArray[np.float64]:
    if column not in frame:
        return np.full(len(frame), np.nan)
    return pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)


def _ordered(frame: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """Used patients first, by their value; the others by their name."""
    value = pd.Series(_numbers(frame, kind.value), index=frame.index)
    rank = value.where(frame["usable"]).fillna(-np.inf)
    ordered = frame.assign(_rank=rank).sort_values(
        ["usable", "_rank", "patient_id"], ascending=[False, False, True], kind="stable"
    )
    return ordered.drop(columns="_rank")


def _scaled(scale: Scale, value: float) -> float:
    return as_number(scale(value)) if math.isfinite(value) else NAN


def _dots(
    frame: pd.DataFrame, value: str, variance: str, limits: tuple[str, str] | None, scale: Scale, joint: str
) -> list[Dot]:
    values = _numbers(frame, value)
    if limits is None:
        half = Z95 * np.sqrt(np.maximum(_numbers(frame, variance), 0))
        lows, highs = values - half, values + half
        points = [[_scaled(scale, x) for x in column] for column in (values, lows, highs)]
    else:
        points = [[as_number(x) for x in column] for column in (values, *(_numbers(frame, name) for name in limits))]
    cells = zip(_numbers(frame, "n_cells_a"), _numbers(frame, "n_cells_b"), strict=True)
    return [
        Dot(f"{patient} · {count(a)}{joint}{count(b)}", x, low, high, bool(used), "" if is_missing(why) else str(why))
        for patient, (a, b), x, low, high, used, why in zip(
            frame["patient_id"].astype(str), cells, *points, frame["usable"], frame["reason"], strict=True
        )
    ]


def _endpoint(row: Mapping[Any, Any], primary: pd.DataFrame, detail: Mapping[Any, Any], kind: Kind) -> Endpoint:
    pool = _pool(row, detail, kind)
    sesoi = _scaled(kind.pooled, as_number(row.get("sesoi")))
    band = None
    if math.isfinite(sesoi):
        band = {"around": (-sesoi, sesoi), "below": (-math.inf, sesoi), "above": (sesoi, math.inf)}[kind.band]
    joint = " of " if kind.part else " / "
    return Endpoint(
        title=f"{kind.title} · {kind.cells}",
        axis=axis_label(row, kind),
        dots=_dots(primary, kind.value, "variance", kind.limits, kind.scale, joint),
        pool=pool,
        band=band,
        marks=kind.marks,
        log=kind.log,
        null=null_estimates(detail, kind),
    )


def axis_label(row: Mapping[Any, Any], kind: Kind) -> str:
    """What the axis shows, with the claim's unit and, for a difference, of what."""
    unit = "no unit recorded" if is_missing(row.get("unit")) else str(row["unit"])
    if kind.measure != "difference":
        return f"{kind.measure} (10⁶ × {unit}; logarithmic axis)" if kind.log else f"{kind.measure}: {unit}"
    sides = [part.strip() for part in str(row.get("contrast")).replace(" vs ", " - ").split(" - ")]
    return f"{sides[0]} minus {sides[1]}, {unit}" if len(sides) == 2 else f"difference, {unit}"


def _pool(row: Mapping[Any, Any], detail: Mapping[Any, Any], kind: Kind) -> Pool:
    estimate, low, high = (_scaled(kind.pooled, as_number(row.get(name))) for name in ("estimate", "ci_low", "ci_high"))
    found = detail.get("meta_analysis")
    meta = {} if kind.meta is None or not isinstance(found, Mapping) else found

    def of(name: str) -> float:
        return _scaled(kind.meta, as_number(meta.get(name))) if kind.meta is not None else NAN

    # details about another quantity than the row's must not be drawn on its axis
    agrees = math.isclose(of("estimate"), estimate, rel_tol=1e-3, abs_tol=1e-6)
    rest = ("ci90_low", "ci90_high", "prediction_low", "prediction_high")
    low90, high90, new_low, new_high = (of(name) if agrees else NAN for name in rest)
    ci90 = detail.get("ci90")
    if isinstance(ci90, list | tuple) and len(ci90) == 2:
        low90, high90 = (_scaled(kind.pooled, as_number(edge)) for edge in ci90)
    return Pool(estimate, low, high, low90, high90, new_low, new_high)


def null_estimates(detail: Mapping[Any, Any], kind: Kind) -> NDArray[np.float64] | None:
    """Estimates of random gene sets on the axis; None when the claim has none."""
    null = detail.get("gene_set_null")
    values = null.get("estimates") if isinstance(null, Mapping) else None
    if not isinstance(values, list):
        return None
    known = [value for value in (_scaled(kind.scale, as_number(one)) for one in values) if math.isfinite(value)]
    return np.array(known, dtype=np.float64) if known else None


def _second(
    second: Second, kind: Kind, own: pd.DataFrame, primary: pd.DataFrame, detail: Mapping[Any, Any]
) -> Endpoint:
    source = primary if second.analysis == "primary" else _analysis(own, second.analysis)
    # the rows of the first endpoint, whatever order and patients this one has
    frame = primary[["patient_id"]].merge(source, on="patient_id", how="left")
    frame["usable"] = _true(frame["usable"])
    if second.value != kind.value:
        frame["usable"] &= np.isfinite(_numbers(frame, second.value))
    found = detail.get(second.key)
    meta = found if isinstance(found, Mapping) else {}
    names = ("estimate", "ci_low", "ci_high", "ci90_low", "ci90_high", "prediction_low", "prediction_high")
    pool = Pool(*(as_number(meta.get(name)) for name in names))
    sesoi = as_number(meta.get("sesoi"))
    return Endpoint(
        title=second.title,
        axis=str(meta.get("unit") or second.axis) if second.key == "cycling" else second.axis,
        dots=_dots(frame, second.value, second.variance, None, _identity, " / "),
        pool=pool,
        band=(-sesoi, sesoi) if math.isfinite(sesoi) else None,
        marks=kind.marks[:1],
    )


def _identity(value: float) -> float:
    return value


# ---------------------------------------------------------------------------------------------------------------------
# Beside the patients
# ---------------------------------------------------------------------------------------------------------------------


def _itself(endpoint: Endpoint) -> Beside:
    pool = endpoint.pool
    values = [dot.value for dot in endpoint.dots if dot.used]
    return Beside("the claim", pool.estimate, pool.low, pool.high, values)


def signature_words(name: str) -> str:
    """A signature's name without underscores, its purges in words."""
    for suffix, words in PURGES:
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix)} {words}".replace("_", " ")
    return name.replace("_", " ")


def _label(analysis: str, signature: str) -> str:
    if analysis == "exceeds" and " - " in signature:
        other = signature.split(" - ", 1)[1].removesuffix("_ONLY")
        return f"more than in {signature_words(other)}"
    if analysis == "purged":
        return signature_words(signature)
    if signature.endswith(", adjusted"):
        return VARIANTS["adjusted"]
    lead = VARIANTS.get(analysis, analysis.replace("_", " "))
    return lead if analysis == "adjusted" or not signature else f"{lead}: {signature_words(signature)}"


def _variants(
    own: pd.DataFrame, detail: Mapping[Any, Any], controls: pd.DataFrame | None, claim_id: str, kind: Kind
) -> list[Beside]:
    """Components of the claim, else its other analyses: the patients' values, with the estimate where one was made."""
    parts = {str(one.get("name")): one for one in detail.get("components") or [] if isinstance(one, Mapping)}
    rows = []
    left_out = {kind.second.analysis} if kind.second is not None else set()
    for (analysis, signature), frame in own.assign(signature=own["signature"].fillna("")).groupby(
        ["analysis", "signature"], sort=False
    ):
        name, signature = str(analysis), str(signature)
        part = parts.get(signature)
        if (name in PRIMARY and part is None) or name in left_out - set(PRIMARY):
            continue
        used = frame[_true(frame["usable"])]
        found = part if part is not None else _estimated(name, signature, detail, controls, claim_id)
        rows.append(
            Beside(
                _label(name if part is None else str(part.get("kind", name)), signature),
                *limits_of(found),
                values=_numbers(used, kind.value).tolist(),
                minimum=as_number(part.get("minimum")) if part is not None else NAN,
                control=name == "negative_control",
            )
        )
    return rows


def _estimated(
    analysis: str, signature: str, detail: Mapping[Any, Any], controls: pd.DataFrame | None, claim_id: str
) -> Mapping[Any, Any]:
    """Estimate of an analysis, from wherever the evidence keeps it; empty when it keeps none."""
    key = ESTIMATES.get(analysis)
    found = detail.get(key) if key else None
    if analysis == "purged" and isinstance(detail.get("purged"), Mapping):
        found = detail["purged"].get(signature)
    if analysis == "negative_control" and controls is not None and {"signature", "control"} <= set(controls.columns):
        rows = controls[
            (controls["claim_id"].astype(str) == claim_id)
            & (controls["signature"].astype(str) == signature)
            & (controls["control"].astype(str) == "negative_signature")
        ]
        found = rows.iloc[0].to_dict() if len(rows) else None
    return found if isinstance(found, Mapping) else {}


def _controls(controls: pd.DataFrame | None, claim_id: str, *, drawn: Collection[str]) -> list[Beside]:
    """Controls with an estimate, without those whose patients are drawn already."""
    if controls is None or "estimate" not in controls or "claim_id" not in controls:
        return []
    rows = controls[controls["claim_id"].astype(str) == claim_id]
    return [
        Beside(
            control_words(row),
            *limits_of(row),
            control=True,
        )
        for row in rows.to_dict("records")
        if math.isfinite(as_number(row.get("estimate")))
        and not (row.get("control") == "negative_signature" and str(row.get("signature")) in drawn)
    ]


def control_words(row: Mapping[Any, Any]) -> str:
    """What a control is, from its line of ``controls.tsv``."""
    label = row.get("label") if not is_missing(row.get("label")) else row.get("control")
    return re.sub(r"^negative control (?=\S)", "negative control: ", str(label)).replace("_", " ")
