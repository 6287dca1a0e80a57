"""The claims, and the figures behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtcflow.plot.evidence import Synthesis, patient_effects, specification_curve
from dtcflow.plot.style import language, sentence_figure
from dtcflow.report import text
from dtcflow.report.assets import Assets
from dtcflow.report.page import (
    NONE,
    Block,
    Cell,
    Column,
    Details,
    Heading,
    Paragraph,
    Section,
    Table,
    count,
    estimate,
    frame_table,
    interval,
    is_missing,
    num,
    number,
    p_value,
    plural,
    short,
    words,
)
from dtcflow.report.page import text as shown
from dtcflow.report.pictures import Pictures
from dtcflow.report.sections_verdict import MAIN_CLAIM, badge

_SPECIFICATION_VALUES: Final = frozenset(
    {
        "claim_id",
        "estimate",
        "ci_low",
        "ci_high",
        "p_value",
        "n_patients",
        "votes",
        "verdict",
        "specification",
        "status",
    }
)


def claims_section(assets: Assets, pictures: Pictures) -> Section:
    """Claims table, the patient-level figure with its controls, and the specification curve."""
    blocks: list[Block] = [_claims_table(assets)]
    blocks += _main_claim(assets, pictures)
    blocks += _specifications(assets, pictures)
    return Section("claims", "Claims and patient-level evidence", blocks)


def _claims_table(assets: Assets) -> Table:
    columns = [
        Column("Claim"),
        Column("Verdict", hint="with its reason codes"),
        Column("Patients", True),
        Column("Estimate (95\u00a0%\u00a0CI)", True, "in the unit of the claim"),
        Column("p", True, "exact sign-flip over patients"),
        Column("p adj.", True, "adjusted over the confirmatory family (Holm)"),
        Column("p sets", True, "share of random gene sets of the same kind that show as much"),
        Column("SESOI", True, "smallest effect size of interest"),
        Column("MDE 80 %", True, "smallest effect these patients would show with 80 % power"),
        Column("n needed", True, "patients for 80 % power at the SESOI"),
        Column("Sign agrees", True, "share of alternative analyses with the same sign"),
        Column(
            "Self-check",
            True,
            "false positives of the test on this study's primary cells, split at random; nominal 0.05",
        ),
    ]
    rows = []
    for row in assets.claims.itertuples(index=False):
        found = badge(row.verdict)
        rows.append(
            [
                Cell(
                    shown(f"{row.claim_id}: {row.title}"),
                    tone="strong",
                    sub=shown(text.ROLE_WORDS.get(str(row.role), row.role)),
                ),
                Cell(
                    f"{found.mark} {found.label}",
                    tone="verdict",
                    hint=found.css,
                    sub="; ".join(text.split_codes(row.codes)),
                ),
                num(count(row.n_patients)),
                num(estimate(row.estimate, row.ci_low, row.ci_high)),
                num(p_value(row.p_value)),
                num(p_value(row.p_adjusted)),
                num(p_value(row.p_gene_set)),
                num(short(row.sesoi)),
                num(short(row.mde80)),
                num(count(row.patients_needed)),
                num(_share(row.sensitivity_agreement)),
                num(short(row.self_check_type1)),
            ]
        )
    units = sorted({shown(unit) for unit in assets.claims["unit"] if not is_missing(unit)})
    return Table(
        f"The claims of the analysis plan (n = {len(rows):,}). A dash means that the value was not computed or does "
        f"not apply. Estimates are in: {'; '.join(units) or 'no unit recorded'}.",
        columns,
        rows,
        note="Only gate and necessary claims decide the verdict. No p-value here counts cells: every test counts "
        f"patients. All values: {assets.names.get('claims', 'claims.tsv')}.",
        empty="The analysis plan names no claim.",
    )


def _share(value: Any) -> str:
    return NONE if is_missing(value) else f"{100 * float(value):.0f} %"


def _main_patients(assets: Assets) -> pd.DataFrame:
    """Rows of the main claim's primary analysis, one per patient."""
    rows = assets.patients[assets.patients["claim_id"] == MAIN_CLAIM]
    analyses = list(dict.fromkeys(rows["analysis"].astype(str)))
    if not analyses:
        return rows
    primary = next((name for name in ("primary", "main") if name in analyses), analyses[0])
    return rows[rows["analysis"] == primary].drop_duplicates("patient_id")


def _synthesis(assets: Assets) -> Synthesis | None:
    claim = assets.claims[assets.claims["claim_id"] == MAIN_CLAIM]
    if not len(claim):
        return None
    row = claim.iloc[0]

    def value(name: str) -> float:
        return float(row[name]) if not is_missing(row[name]) else float("nan")

    sides = [part.strip() for part in str(row["contrast"]).replace(" vs ", " - ").split(" - ")]
    direction = f"higher in {sides[0]} than in {sides[1]}" if len(sides) == 2 else "in the first group"
    unit = str(row["unit"]) if not is_missing(row["unit"]) else "no unit recorded"
    return Synthesis(value("estimate"), value("ci_low"), value("ci_high"), value("sesoi"), unit, direction)


def control_rows(controls: pd.DataFrame | None, claim_id: str = MAIN_CLAIM) -> pd.DataFrame:
    """Controls of a claim as ``label estimate ci_low ci_high``, in their own order; empty when there are none."""
    empty = pd.DataFrame({"label": [], "estimate": [], "ci_low": [], "ci_high": [], "variant": []})
    if controls is None or "estimate" not in controls:
        return empty
    rows = controls
    if "claim_id" in rows:
        rows = rows[rows["claim_id"].isin([claim_id, ""])]
    name = next((column for column in ("label", "control", "title", "name", "signature") if column in rows), None)
    rows = rows[pd.to_numeric(rows["estimate"], errors="coerce").notna()]
    if name is None or not len(rows):
        return empty
    label = rows[name].astype(str)
    return pd.DataFrame(
        {
            "label": label.str.replace("_", " ").to_numpy(),
            **{
                column: pd.to_numeric(rows[column], errors="coerce").to_numpy() if column in rows else np.nan
                for column in ("estimate", "ci_low", "ci_high")
            },
            "variant": False,
        }
    )


def variant_rows(found: Mapping[str, Any], claim_id: str = MAIN_CLAIM) -> pd.DataFrame:
    """Return the claim's own variants from the verdict file: adjusted for covariates, and with the second signature."""
    claim = _detail(found, claim_id)
    rows = []
    for key, words_ in (
        ("adjusted", "the claim, adjusted for covariates"),
        ("confirmatory_signature", "the claim, second signature"),
    ):
        value = claim.get(key)
        if isinstance(value, Mapping) and isinstance(value.get("estimate"), int | float):
            label = f"{words_} {value['signature']}" if value.get("signature") else words_
            limits = [
                value[name] if isinstance(value.get(name), int | float) else np.nan for name in ("ci_low", "ci_high")
            ]
            rows.append((label.replace("_", " "), float(value["estimate"]), *map(float, limits), True))
    return pd.DataFrame(rows, columns=["label", "estimate", "ci_low", "ci_high", "variant"])


def _detail(found: Mapping[str, Any], claim_id: str) -> Mapping[str, Any]:
    claims = found.get("claims")
    detail = claims.get(claim_id) if isinstance(claims, Mapping) else None
    return detail if isinstance(detail, Mapping) else {}


def null_estimates(found: Mapping[str, Any], claim_id: str = MAIN_CLAIM) -> NDArray[np.float64] | None:
    """Estimates of random gene sets from the verdict file; None when they were not computed."""
    null = _detail(found, claim_id).get("gene_set_null")
    values = null.get("estimates") if isinstance(null, Mapping) else null
    if not isinstance(values, list) or not values:
        return None
    numbers = np.array([float(value) for value in values if isinstance(value, int | float)], dtype=np.float64)
    return numbers if len(numbers) else None


def _main_claim(assets: Assets, pictures: Pictures) -> list[Block]:
    synthesis = _synthesis(assets)
    blocks: list[Block] = [Heading(f"{MAIN_CLAIM}: effect in every patient")]
    if synthesis is None:
        sentence = f"The analysis plan of this run has no claim {MAIN_CLAIM}, so there is no patient figure."
        with language():
            pictures.keep("patients.svg", sentence_figure(sentence))
        return [*blocks, Paragraph(sentence, "missing")]
    patients = _main_patients(assets)
    controls = control_rows(assets.controls)
    beside = [frame for frame in (variant_rows(assets.verdict), controls) if len(frame)]
    null = null_estimates(assets.verdict)
    figure = patient_effects(
        patients, synthesis, pd.concat(beside, ignore_index=True) if beside else controls, null=null
    )
    pictures.keep("patients.svg", figure)
    used = int(patients["usable"].sum())
    row = assets.claims[assets.claims["claim_id"] == MAIN_CLAIM].iloc[0]
    self_check = (
        f"Self-check of the test on this study's primary cells, split at random: {short(row['self_check_type1'])} of "
        "the runs came out significant (nominal 0.05). "
        if not is_missing(row["self_check_type1"])
        else "The self-check for false positives was not computed in this run. "
    )
    side = "left" if _detail(assets.verdict, MAIN_CLAIM).get("direction") == "less" else "right"
    caption = (
        f"{MAIN_CLAIM}, {shown(row['title'])}. A: one dot per patient (n = {plural(used, 'patient')} used of "
        f"{len(patients):,}), line: 95 % confidence interval from the spread of its cells; numbers beside the id are "
        "its cells. The diamond is the random-effects estimate, "
        f"{estimate(synthesis.estimate, synthesis.low, synthesis.high)} {synthesis.unit}. Green band: smaller than "
        f"the smallest effect of interest (±{short(synthesis.sesoi)}). How to read it: support needs the diamond's "
        f"whole width {side} of zero and its centre {side} of the band. "
        + (
            f"B: the same estimate for {len(null):,} random gene sets; a signature that only looks like any other set "
            "lies within them. "
            if null is not None and len(null)
            else "B: the random gene sets' estimates are not part of this run. "
        )
        + (
            f"C: variants of the claim (diamonds) and the same procedure for {plural(len(controls), 'control')} "
            "(squares); a negative control should stay within the band, a planted effect should be found. "
            if len(controls)
            else "C: no control was computed in this run. "
        )
        + self_check
    )
    alt = (
        f"Forest plot of {used} patients. Combined difference {number(synthesis.estimate)} with 95 % confidence "
        f"interval {interval(synthesis.low, synthesis.high)}."
    )
    blocks.append(pictures.inline(figure, prefix="patients", alt=alt, caption=caption))
    if used == 0:
        blocks.append(
            Paragraph("No patient has enough cells on both sides of the contrast; no estimate was made.", "missing")
        )
    elif used == 1:
        blocks.append(
            Paragraph("One patient: an estimate over patients needs at least two, a verdict at least six.", "missing")
        )
    what = {name: ", ".join(sorted({shown(v, 80) for v in patients[name]})) for name in ("contrast", "signature")}
    blocks.append(
        frame_table(
            patients,
            f"Patient-level values of {MAIN_CLAIM} (n = {len(patients):,} patients). Contrast {what['contrast']} (a "
            f"is the first group), signature {what['signature']}.",
            columns=[
                *("patient_id", "n_cells_a", "n_cells_b", "value_a", "value_b", "difference", "variance", "usable"),
                "reason",
            ],
            max_rows=60,
            note=f"All claims and analyses: {assets.names.get('patients', 'patients.tsv')}.",
            empty="No patient has a value for this claim.",
        )
    )
    blocks += _rules(assets)
    if assets.controls is None:
        blocks.append(Paragraph("The table of controls is not part of this run.", "missing"))
    else:
        blocks.append(_controls_table(assets.controls, assets.names.get("controls", "controls.tsv")))
    return blocks


def _controls_table(controls: pd.DataFrame, name: str) -> Table:
    several = "claim_id" in controls and controls["claim_id"].nunique() > 1
    rows = []
    for record in controls.to_dict("records"):
        rate = number(record.get("rate"), 3)
        if not is_missing(record.get("rate")) and not is_missing(record.get("rate_se")):
            rate += f" ± {number(record.get('rate_se'), 3)}"
        holds = record.get("ok")
        rows.append(
            [
                words(record.get("label") or record.get("control"), tone="strong"),
                *([words(record.get("claim_id"))] if several else []),
                words(record.get("expectation")),
                Cell(NONE) if is_missing(holds) else Cell("yes" if holds else "no", tone="" if holds else "warn"),
                num(count(record.get("n_patients"))),
                num(estimate(record.get("estimate"), record.get("ci_low"), record.get("ci_high"))),
                num(p_value(record.get("p_value"))),
                num(rate),
                num(count(record.get("n_repeats"))),
            ]
        )
    columns = [
        Column("Control"),
        *([Column("Claim")] if several else []),
        Column("Expected"),
        Column("Holds"),
        Column("Patients", True),
        Column("Estimate (95\u00a0%\u00a0CI)", True),
        Column("p", True),
        Column("Rate ± SE", True, "share of repeats that a patient-level test calls"),
        Column("Repeats", True),
    ]
    caption = f"Controls run with the analysis (n = {len(rows):,}): the same procedure where the answer is known."
    return Table(caption, columns, rows, note=f"Whole table: {name}.", empty="No control could be computed.")


def _rules(assets: Assets) -> list[Block]:
    """Return the rules of the plan as they were applied to the main claim, and the estimate without each patient."""
    detail = _detail(assets.verdict, MAIN_CLAIM)
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
        caption = f"Rules of the analysis plan as applied to {MAIN_CLAIM} (n = {len(rules):,}, {broken:,} broken)."
        table = Table(caption, columns, rows)
        against = [row for row, rule in zip(rows, rules, strict=True) if not rule.get("holds")]
        if against:
            blocks.append(Table(f"Rules of the analysis plan that {MAIN_CLAIM} breaks.", columns, against))
        blocks.append(Details(f"All rules as applied to {MAIN_CLAIM} ({len(rules):,}, {broken:,} broken)", [table]))
    robustness = detail.get("robustness")
    left_out = robustness.get("leave_one_out") if isinstance(robustness, Mapping) else None
    if isinstance(left_out, list) and left_out:
        table = frame_table(
            pd.DataFrame(left_out),
            f"{MAIN_CLAIM} estimated without each patient in turn (n = {len(left_out):,}).",
            max_rows=60,
        )
        blocks.append(Details("Without each patient in turn", [table]))
    return blocks


def _specifications(assets: Assets, pictures: Pictures) -> list[Block]:
    blocks: list[Block] = [Heading("Specification curve")]
    table, synthesis = assets.sensitivity, _synthesis(assets)
    if table is None or synthesis is None or "estimate" not in table:
        return [*blocks, Paragraph("Alternative analyses are not part of this run.", "missing")]
    rows = table[table["claim_id"] == MAIN_CLAIM] if "claim_id" in table else table
    known = rows[np.isfinite(pd.to_numeric(rows["estimate"], errors="coerce"))]
    if not len(known):
        sentence = f"None of the {len(rows):,} alternative analyses could be computed with these data."
        return [*blocks, Paragraph(sentence, "missing")]
    factors = [
        name
        for name in known.columns
        if name not in _SPECIFICATION_VALUES and not pd.api.types.is_float_dtype(known[name])
    ]
    voting = known["votes"].astype(str).str.lower().isin(["true", "1"]) if "votes" in known else None
    agree = float(np.mean(np.sign(known["estimate"]) == np.sign(synthesis.estimate)))
    caption = (
        f"Every analysis choice, never a pick: {len(known):,} of {len(rows):,} specifications could be computed"
        + (f", {int(voting.sum()):,} of them vote on robustness (filled dots)" if voting is not None else "")
        + f"; {100 * agree:.0f} % have the sign of the primary estimate (dashed line). Upper panel: estimate with 95 % "
        "confidence interval, sorted; green band: smaller than the smallest effect of interest. Lower panel: the "
        "choices behind each estimate. How to read it: a robust result stays on one side of the band whatever is "
        "chosen."
    )
    figure = specification_curve(known, factors, synthesis)
    share = f"{100 * agree:.0f} per cent with the sign of the primary estimate"
    alt = f"Specification curve of {len(known)} analyses, {share}."
    return [*blocks, pictures.inline(figure, prefix="specifications", alt=alt, caption=caption)]
