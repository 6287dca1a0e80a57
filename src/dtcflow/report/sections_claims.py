"""A panel for every claim that was evaluated, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dtcflow.plot.claims import claim_figure
from dtcflow.plot.evidence import Synthesis, specification_curve
from dtcflow.plot.style import language, sentence_figure
from dtcflow.report import text
from dtcflow.report.assets import Assets
from dtcflow.report.claim_kinds import as_number
from dtcflow.report.claim_views import ClaimView, claim_views, evaluated
from dtcflow.report.page import (
    Block,
    Bullets,
    Cell,
    Column,
    Details,
    Heading,
    Paragraph,
    Status,
    Table,
    count,
    effect,
    frame_table,
    interval,
    is_missing,
    listed,
    number,
    p_value,
    percent,
    plural,
    short,
    words,
)
from dtcflow.report.page import text as shown
from dtcflow.report.pictures import Pictures
from dtcflow.report.sections_verdict import MAIN_CLAIM, badge, claim_anchors

BESIDE: Final = "Its parts and controls"
MAX_ROWS: Final = 80
_SPECIFICATION_VALUES: Final = frozenset(
    {
        *("claim_id", "estimate", "ci_low", "ci_high", "p_value", "n_patients", "votes", "verdict", "specification"),
        *("status", "reason"),
    }
)
"""Columns of the table of specifications that are no analysis choice."""


def claim_blocks(assets: Assets, pictures: Pictures) -> list[Block]:
    """Panels of all evaluated claims, and the names of the others; keeps the main claim's figure as a file."""
    anchors = {assets.claims.loc[index, "claim_id"]: name for index, name in claim_anchors(assets.claims).items()}
    views = claim_views(assets.claims, assets.patients, assets.verdict, assets.controls)
    blocks: list[Block] = []
    for view in views:
        figure = draw(view)
        if view.claim_id == MAIN_CLAIM:
            pictures.keep("patients.svg", figure)
        blocks += _panel(view, figure, assets, pictures, anchors.get(view.row["claim_id"], ""))
    if not any(view.claim_id == MAIN_CLAIM for view in views):
        sentence = f"The analysis plan of this run has no claim {MAIN_CLAIM}, so there is no patient figure."
        if (assets.claims["claim_id"] == MAIN_CLAIM).any():
            sentence = f"The claim {MAIN_CLAIM} was not evaluated in this run, so there is no patient figure."
        blocks.append(Paragraph(sentence, "missing"))
        with language():
            pictures.keep("patients.svg", sentence_figure(sentence))
    rest = [str(row["claim_id"]) for row in assets.claims.to_dict("records") if not evaluated(row, assets.verdict)]
    if rest:
        verb = "has no panel: it was" if len(rest) == 1 else "have no panel: they were"
        blocks.append(Paragraph(f"{shown(listed(rest), 300)} {verb} not evaluated in this run.", "missing"))
    return blocks


def draw(view: ClaimView) -> Figure:
    """Draw a claim."""
    return claim_figure(view.endpoints, view.beside, beside_title=BESIDE)


def slug(claim_id: str) -> str:
    """Prefix for the ids inside a figure."""
    return "c-" + "-".join(f"{ord(c):x}" if not c.isascii() or not c.isalnum() else c for c in claim_id[:40])


def _panel(view: ClaimView, figure: Figure, assets: Assets, pictures: Pictures, anchor: str) -> list[Block]:
    claim_id, row = shown(view.claim_id, 40), view.row
    role = text.ROLE_WORDS.get(str(row["role"]), shown(row["role"], 30))
    codes = text.split_codes(row["codes"])
    blocks: list[Block] = [
        Heading(f"{claim_id}: {shown(row['title'], 200)}", anchor),
        Status(badge(row["verdict"]), f"{role}.", estimate_sentence(view)),
    ]
    if codes:
        blocks.append(Bullets([text.code_sentence(shown(code, 60)) for code in codes]))
    blocks += [
        Paragraph(view.kind.what),
        *(
            [pictures.inline(figure, prefix=slug(view.claim_id), alt=alt_text(view), caption=caption(view))]
            if len(view.patients)
            else []
        ),
        *_used(view),
        _values(view, assets.names.get("patients", "patients.tsv")),
        *_rules(view),
        *_specifications(view, assets, pictures),
    ]
    return blocks


def estimate_sentence(view: ClaimView) -> str:
    """Return what the claim came to, with its interval, its p values and its number of patients."""
    row, pool = view.row, view.pool
    patients = plural(int(as_number(row["n_patients"]) or 0) if not is_missing(row["n_patients"]) else 0, "patient")
    if is_missing(row["estimate"]):
        return f"No estimate could be made ({patients})."
    unit = shown(row["unit"], 90) if not is_missing(row["unit"]) else "no unit recorded"
    if view.kind.log:
        unit = "in a million cells"
    parts = [f"{effect(pool.estimate, pool.low, pool.high)} {unit}; 95 % confidence interval in brackets"]
    if not is_missing(pool.low90):
        parts.append(f"90 % interval {_span(pool.low90, pool.high90)}")
    if not is_missing(pool.prediction_low):
        parts.append(f"a new patient is expected at {_span(pool.prediction_low, pool.prediction_high)}")
    parts.append(patients)
    if not is_missing(row["p_value"]):
        adjusted = "" if is_missing(row["p_adjusted"]) else f", {p_value(row['p_adjusted'])} after adjustment"
        parts.append(f"p {_is(p_value(row['p_value']))}{adjusted}")
    if not is_missing(row["p_gene_set"]):
        parts.append(f"p against random gene sets {_is(p_value(row['p_gene_set']))}")
    return "; ".join(parts) + "."


def _is(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"


def _span(low: float, high: float) -> str:
    if 0.1 <= max(abs(low), abs(high)) < 1000:
        return interval(low, high)
    return f"{short(low)} to {short(high)}"


def caption(view: ClaimView) -> str:
    """Caption of a claim's figure: what each part is, with n."""
    used = int(view.patients["usable"].sum()) if len(view.patients) else 0
    sesoi = view.row.get("sesoi")
    parts = [
        f"{shown(view.claim_id, 40)}, {shown(view.row['title'], 200)}. Dots: one per patient (n = "
        f"{plural(used, 'patient')} used of {len(view.patients):,}), lines: 95 % confidence interval from the spread "
        "of the patient's cells; the numbers beside the id are cells. Diamond: random-effects estimate over patients, "
        "its width the 95 % interval; below it the 90 % interval and where a new patient is expected."
    ]
    if view.kind.part:
        parts[0] = parts[0].replace("from the spread of the patient's cells", "of a share")
    if view.kind.log:
        parts[0] = parts[0].replace("random-effects estimate", "beta-binomial mean")
    if not is_missing(sesoi):
        shaded = {
            "around": f"smaller than the smallest effect of interest (±{short(sesoi)})",
            "below": f"not above the threshold ({short(sesoi)})",
            "above": f"not below the threshold ({short(sesoi)})",
        }[view.kind.band]
        parts.append(f"Shaded: {shaded}.")
    if view.null is not None:
        parts.append(
            f"Bars: the same estimate for {len(view.null):,} random gene sets; a signature that only looks like any "
            "other set lies among them."
        )
    elif view.detail.get("of"):
        parts.append(f"Random gene sets: those of claim {shown(view.detail['of'], 20)}.")
    elif not is_missing(view.row.get("primary_signature")):
        parts.append("The random gene sets' estimates are not part of this run.")
    if view.beside:
        parts.append(
            f"{BESIDE}: diamonds are versions or parts of the claim, squares are controls with a known answer, small "
            "dots are patients; a red tick is what a part must reach."
        )
    parts.append(f"How to read it: {view.kind.how.format(side=view.side)}")
    return " ".join(parts)


def alt_text(view: ClaimView) -> str:
    """Return what a reader who cannot see the figure should know."""
    used = int(view.patients["usable"].sum()) if len(view.patients) else 0
    pool = view.pool
    found = [dot.value for dot in (view.endpoints[0].dots if view.endpoints else ()) if dot.used]
    spread = f" Patients lie between {number(min(found))} and {number(max(found))}." if found else ""
    extra = "".join(
        f" {endpoint.title}: {effect(endpoint.pool.estimate, endpoint.pool.low, endpoint.pool.high)}."
        for endpoint in view.endpoints[1:]
    )
    beside = [
        f"{one.label} {effect(one.estimate, one.low, one.high)}" for one in view.beside if one.estimate == one.estimate
    ]
    return (
        f"Forest plot of {plural(used, 'patient')}. All patients together {number(pool.estimate)} with 95 % confidence "
        f"interval {interval(pool.low, pool.high)}.{spread}{extra}"
        + (f" Beside it: {'; '.join(beside)}." if beside else "")
    )


def _used(view: ClaimView) -> list[Block]:
    """How many patients and cells were used, and why the others were not."""
    frame = view.patients
    if not len(frame):
        if not is_missing(view.row["estimate"]):
            return [Paragraph("The patients' values of this claim are not part of this run.", "missing")]
        return [Paragraph("No patient has a value for this claim; no estimate was made.", "missing")]
    used = frame[frame["usable"]]
    cells = [pd.to_numeric(used[name], errors="coerce").sum() for name in ("n_cells_a", "n_cells_b")]
    sentence = (
        f"{len(used):,} of {plural(len(frame), 'patient')} used, with {count(cells[0])} and {count(cells[1])} cells "
        f"({view.kind.cells})."
    )
    why: dict[str, list[str]] = {}
    for row in frame[~frame["usable"]].to_dict("records"):
        reason = "no reason recorded" if is_missing(row["reason"]) else shown(row["reason"], 160)
        why.setdefault(reason, []).append(shown(row["patient_id"], 60))
    blocks: list[Block] = [Paragraph(sentence)]
    if not len(used):
        blocks = [
            Paragraph("No patient has enough cells for this claim; no estimate was made.", "missing"),
        ]
    elif len(used) == 1:
        blocks.append(
            Paragraph("One patient: an estimate over patients needs at least two, a verdict at least six.", "missing")
        )
    if why:
        blocks.append(Paragraph("Not used:"))
        blocks.append(Bullets([f"{listed(sorted(names))}: {reason}." for reason, names in sorted(why.items())]))
    return blocks


def _values(view: ClaimView, name: str) -> Details:
    frame, claim_id = view.patients, shown(view.claim_id, 40)
    what = {key: ", ".join(sorted({shown(v, 80) for v in frame[key]})) for key in ("contrast", "signature")}
    skipped = {"claim_id", "analysis", "contrast", "signature"}
    first = ["patient_id", "n_cells_a", "n_cells_b", "value_a", "value_b", "difference", "variance", "usable", "reason"]
    columns = [*first, *(c for c in frame.columns if c not in {*first, *skipped} and frame[c].notna().any())]
    table = frame_table(
        frame,
        f"Patient-level values of {claim_id} (n = {len(frame):,} patients), primary analysis. Contrast "
        f"{what['contrast'] or 'none'}, signature {what['signature'] or 'none'}; a is the first group, b the second.",
        columns=columns,
        max_rows=MAX_ROWS,
        note=f"All claims and analyses: {name}.",
        empty="No patient has a value for this claim.",
    )
    return Details(f"{claim_id}: values of the patients ({len(frame):,})", [table])


def _rules(view: ClaimView) -> list[Block]:
    """Return the rules of the plan as they were applied to the claim, and the estimate without each patient."""
    detail, claim_id = view.detail, shown(view.claim_id, 40)
    rules = [rule for rule in detail.get("rules") or [] if isinstance(rule, Mapping)]
    blocks: list[Block] = []
    if rules:
        broken = sum(not rule.get("holds") for rule in rules)
        rows = [
            [
                words(rule.get("name"), tone="strong"),
                Cell("holds" if rule.get("holds") else "broken", tone="" if rule.get("holds") else "warn"),
                words(rule.get("sentence")),
                words(None if rule.get("holds") else rule.get("code")),
                words("either verdict" if rule.get("blocks") == "verdict" else "support only"),
            ]
            for rule in rules
        ]
        columns = [Column("Rule"), Column("State"), Column("In words"), Column("Code"), Column("Needed for")]
        caption = f"Rules of the analysis plan as applied to {claim_id} (n = {len(rules):,}, {broken:,} broken)."
        table = Table(caption, columns, rows)
        against = [row for row, rule in zip(rows, rules, strict=True) if not rule.get("holds")]
        if against:
            blocks.append(Table(f"Rules of the analysis plan that {claim_id} breaks.", columns, against))
        blocks.append(Details(f"All rules as applied to {claim_id} ({len(rules):,}, {broken:,} broken)", [table]))
    robustness = detail.get("robustness")
    left_out = (robustness if isinstance(robustness, Mapping) else detail).get("leave_one_out")
    if isinstance(left_out, list) and left_out:
        table = frame_table(
            pd.DataFrame(left_out),
            f"{claim_id} estimated without each patient in turn (n = {len(left_out):,}).",
            max_rows=60,
        )
        blocks.append(Details(f"{claim_id} without each patient in turn", [table]))
    return blocks


def _specifications(view: ClaimView, assets: Assets, pictures: Pictures) -> list[Block]:
    """Specification curve of a claim that has one; for the main claim the page says when it has none."""
    claim_id = shown(view.claim_id, 40)
    table = assets.sensitivity
    if table is None or "estimate" not in table:
        missing = Paragraph("Alternative analyses are not part of this run.", "missing")
        return [missing] if view.claim_id == MAIN_CLAIM else []
    rows = specifications_of(table, view.claim_id)
    known = rows[np.isfinite(pd.to_numeric(rows["estimate"], errors="coerce"))]
    if not len(rows):
        missing = Paragraph("None of the 0 alternative analyses could be computed with these data.", "missing")
        return [missing] if view.claim_id == MAIN_CLAIM else []
    if not len(known):
        sentence = f"None of the {len(rows):,} alternative analyses could be computed with these data."
        return [Paragraph(sentence, "missing")]
    figure, agree = draw_specifications(view, known)
    words_ = specification_caption(view, rows, known, agree)
    share = f"{100 * agree:.0f} per cent of those that vote with the sign of the primary estimate"
    values = pd.to_numeric(known["estimate"]).to_numpy(dtype=float)
    alt = (
        f"Specification curve of {len(known)} analyses, {share}; estimates from {number(values.min())} to "
        f"{number(values.max())}."
    )
    blocks: list[Block] = [
        Heading(f"{claim_id}: specification curve"),
        pictures.inline(figure, prefix=f"{slug(view.claim_id)}-specifications", alt=alt, caption=words_),
    ]
    if "reason" in rows and len(known) < len(rows):
        why = rows.loc[~rows.index.isin(known.index), "reason"].fillna("no reason recorded").astype(str)
        counts = why.replace("", "no reason recorded").value_counts().sort_index()
        blocks.append(Paragraph("Specifications that could not be computed:"))
        blocks.append(
            Bullets([f"{plural(int(n), 'specification')}: {shown(reason, 200)}." for reason, n in counts.items()])
        )
    return blocks


def specification_caption(view: ClaimView, rows: pd.DataFrame, known: pd.DataFrame, agree: float) -> str:
    """Caption of a specification curve; ``known`` are the rows with an estimate, ``agree`` as drawn."""
    return (
        f"{shown(view.claim_id, 40)}, every analysis choice, never a pick: {len(known):,} of {len(rows):,} "
        f"specifications could be computed, {int(_voting(known).sum()):,} of them vote on robustness (filled dots; "
        f"open dots are shown only); {percent(agree, 1, 0)} of the voting ones have the sign of the primary estimate "
        "(dashed line). Upper panel: estimate with 95 % confidence interval, sorted; shaded: smaller than the smallest "
        "effect of interest. Lower panel: the choices behind each estimate. How to read it: a robust result stays on "
        "one side of the band whatever is chosen."
    )


def specifications_of(table: pd.DataFrame, claim_id: str) -> pd.DataFrame:
    """Rows of a claim."""
    return table[table["claim_id"].astype(str) == claim_id] if "claim_id" in table else table


def _voting(known: pd.DataFrame) -> pd.Series[bool]:
    if "votes" not in known:
        return pd.Series(True, index=known.index)
    return known["votes"].astype(str).str.lower().isin(["true", "1", "1.0"])


def factors_of(known: pd.DataFrame) -> list[str]:
    """Columns that name a choice and vary: text or whole numbers, none of the results."""
    return [
        name
        for name in known.columns
        if name not in _SPECIFICATION_VALUES
        and not pd.api.types.is_float_dtype(known[name])
        and known[name].astype(str).nunique() > 1
    ]


def draw_specifications(view: ClaimView, known: pd.DataFrame) -> tuple[Figure, float]:
    """Specification curve and the share of voting specifications with the sign of the claim's estimate."""
    primary = as_number(view.row["estimate"])
    endpoint = view.endpoints[0]
    voting = pd.to_numeric(known.loc[_voting(known), "estimate"])
    agree = float(np.mean(np.sign(voting) == np.sign(primary))) if len(voting) else float("nan")
    figure = specification_curve(
        known, factors_of(known), Synthesis(primary, as_number(view.row["sesoi"]), endpoint.axis)
    )
    return figure, agree
