"""Controls of all claims: the same procedure where the answer is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dtcflow.plot.controls import ControlGroup, ControlRow, controls_figure
from dtcflow.report.assets import Assets
from dtcflow.report.claim_kinds import as_number, limits_of
from dtcflow.report.claim_views import control_words
from dtcflow.report.page import (
    Block,
    Cell,
    Column,
    Paragraph,
    Section,
    Table,
    count,
    effect,
    is_missing,
    num,
    number,
    p_value,
    percent,
    plural,
    words,
)
from dtcflow.report.page import text as shown
from dtcflow.report.pictures import Pictures

CONTROLS_CAPTION: Final = (
    "Controls of the claims, each in the unit of its claim: estimate with 95 % interval. Beside it: whether it is as "
    "expected (filled square) or not (open square), and the share of repeats that the test calls. Shaded: smaller than "
    "the claim's smallest effect of interest. How to read it: a negative control belongs into the shaded band, a "
    "planted effect outside it."
)


def controls_section(assets: Assets, pictures: Pictures) -> Section:
    """Headline, figure and table of all controls."""
    blocks: list[Block] = [
        Paragraph(
            "A control is the same procedure where the answer is known beforehand: nothing in a negative control, an "
            "effect where one was planted. A claim is worth no more than its controls."
        )
    ]
    controls = assets.controls
    if controls is None:
        blocks.append(Paragraph("The table of controls is not part of this run.", "missing"))
        return Section("controls", "Controls", blocks)
    blocks += _headline(controls)
    groups = control_groups(controls, assets.claims)
    if groups:
        n = sum(len(group.rows) for group in groups)
        alt = f"{plural(n, 'control')} of {plural(len(groups), 'claim')}. " + " ".join(
            f"{group.claim_id}: " + "; ".join(_in_words(row) for row in group.rows) + "." for group in groups
        )
        caption = f"n = {n:,}. {CONTROLS_CAPTION}"
        blocks.append(pictures.inline(controls_figure(groups), prefix="controls", alt=alt, caption=caption))
    blocks.append(controls_table(controls, assets.names.get("controls", "controls.tsv")))
    return Section("controls", "Controls", blocks)


def holds(value: Any) -> bool | None:
    """Whether a control is as expected; None when that was not checked."""
    if is_missing(value):
        return None
    return bool(value) if isinstance(value, bool | np.bool_) else str(value).strip().lower() in {"true", "1", "1.0"}


def _headline(controls: pd.DataFrame) -> list[Block]:
    records = controls.to_dict("records")
    states = [holds(row.get("ok")) for row in records]
    broken = [
        f"{shown(row.get('claim_id'), 20)} {shown(control_words(row), 100)}"
        for row, state in zip(records, states, strict=True)
        if state is False
    ]
    checked = sum(state is not None for state in states)
    if not checked:
        return [Paragraph("No control could be checked in this run.", "missing")]
    if broken:
        sentence = f"{len(broken):,} of {checked:,} controls are not as expected: {'; '.join(broken)}."
        return [Paragraph(sentence, "warn")]
    return [Paragraph(f"All {plural(checked, 'control')} that could be checked are as expected.")]


def _rate(row: Mapping[Any, Any]) -> str:
    rate = as_number(row.get("rate"))
    return "" if math.isnan(rate) else f"rate {percent(rate, 1)}"


def _in_words(row: ControlRow) -> str:
    state = {True: "as expected", False: "not as expected", None: "not checked"}[row.holds]
    return f"{row.label} {effect(row.estimate, row.low, row.high)}, {state}"


def control_groups(controls: pd.DataFrame, claims: pd.DataFrame) -> list[ControlGroup]:
    """Controls with an estimate, by claim in the order of the plan; those of no claim come last."""
    if "estimate" not in controls or "claim_id" not in controls:
        return []
    order = {str(claim): k for k, claim in enumerate(claims["claim_id"])}
    found = {str(name): own for name, own in controls.groupby(controls["claim_id"].astype(str), sort=True)}
    groups = []
    for name in sorted(found, key=lambda one: (order.get(one, len(order)), one)):
        claim = claims[claims["claim_id"].astype(str) == name]
        unit = claim["unit"].iloc[0] if len(claim) else None
        rows = [
            ControlRow(
                control_words(row),
                *limits_of(row),
                seen=_rate(row),
                holds=holds(row.get("ok")),
            )
            for row in found[name].to_dict("records")
            if math.isfinite(as_number(row.get("estimate")))
        ]
        if rows:
            sesoi = as_number(claim["sesoi"].iloc[0]) if len(claim) else float("nan")
            groups.append(ControlGroup(name, "no unit recorded" if is_missing(unit) else str(unit), rows, sesoi))
    return groups


def draw_controls(controls: pd.DataFrame, claims: pd.DataFrame) -> Figure:
    """Draw all controls."""
    return controls_figure(control_groups(controls, claims))


def controls_table(controls: pd.DataFrame, name: str) -> Table:
    """All controls: expected, observed, whether they hold."""
    rows = []
    for row in controls.to_dict("records"):
        rate = number(row.get("rate"), 3)
        if not is_missing(row.get("rate")) and not is_missing(row.get("rate_se")):
            rate += f" ± {number(row.get('rate_se'), 3)}"
        state = holds(row.get("ok"))
        rows.append(
            [
                words(control_words(row), tone="strong"),
                words(row.get("claim_id")),
                words(row.get("expectation")),
                Cell(
                    {True: "✓ yes", False: "✕ no", None: "? not checked"}[state], tone="warn" if state is False else ""
                ),
                num(effect(row.get("estimate"), row.get("ci_low"), row.get("ci_high"))),
                num(rate),
                num(p_value(row.get("p_value"))),
                num(count(row.get("n_patients"))),
                num(count(row.get("n_repeats"))),
            ]
        )
    columns = [
        Column("Control"),
        Column("Claim"),
        Column("Expected"),
        Column("As expected"),
        Column("Observed (95\u00a0%\u00a0CI)", True, "in the unit of the claim"),
        Column("Rate ± SE", True, "share of repeats that the patient-level test calls"),
        Column("p", True),
        Column("Patients", True),
        Column("Repeats", True),
    ]
    caption = f"Controls run with the analysis (n = {len(rows):,}): the same procedure where the answer is known."
    return Table(caption, columns, rows, note=f"Whole table: {name}.", empty="No control could be computed.")
