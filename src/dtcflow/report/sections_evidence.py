"""The claims of the plan in one table, and the words of this report."""

from __future__ import annotations

from typing import Any

from dtcflow.report import text
from dtcflow.report.assets import Assets
from dtcflow.report.claim_views import evaluated
from dtcflow.report.page import (
    NONE,
    Block,
    Bullets,
    Cell,
    Column,
    Details,
    Section,
    Table,
    count,
    effect,
    is_missing,
    num,
    p_value,
    short,
)
from dtcflow.report.page import text as shown
from dtcflow.report.pictures import Pictures
from dtcflow.report.sections_claims import claim_blocks
from dtcflow.report.sections_verdict import badge, claim_anchors


def claims_section(assets: Assets, pictures: Pictures) -> Section:
    """Claims table with the words it uses, and a panel for every claim that was evaluated."""
    words = Details(
        "Words used here",
        [Bullets([f"{word}: {meaning}." for word, meaning in text.WORDS.items()])],
    )
    blocks: list[Block] = [_claims_table(assets), words, *claim_blocks(assets, pictures)]
    return Section("claims", "Claims and patient-level evidence", blocks)


def _claims_table(assets: Assets) -> Table:
    columns = [
        Column("Claim"),
        Column("Verdict", hint="with its reason codes"),
        Column("Patients", True),
        Column("Estimate (95\u00a0%\u00a0CI)", True, "in the unit of the claim"),
        Column("p", True, "exact sign-flip over patients; of a rate (C1) from its likelihood"),
        Column("p adj.", True, "adjusted within the family (confirmatory: Holm; secondary: Benjamini-Hochberg)"),
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
    anchors = claim_anchors(assets.claims)
    rows = []
    for index, row, record in zip(
        assets.claims.index, assets.claims.itertuples(index=False), assets.claims.to_dict("records"), strict=True
    ):
        found = badge(row.verdict)
        shown_below = evaluated(record, assets.verdict)
        rows.append(
            [
                Cell(
                    shown(f"{row.claim_id}: {row.title}"),
                    tone="strong",
                    sub=shown(text.ROLE_WORDS.get(str(row.role), row.role)),
                    link=anchors[index] if shown_below else "",
                ),
                Cell(
                    f"{found.mark} {found.label}",
                    tone="verdict",
                    hint=found.css,
                    sub="; ".join(text.split_codes(row.codes)),
                ),
                num(count(row.n_patients)),
                num(effect(row.estimate, row.ci_low, row.ci_high)),
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
    units = list(dict.fromkeys(shown(unit) for unit in assets.claims["unit"] if not is_missing(unit)))
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
