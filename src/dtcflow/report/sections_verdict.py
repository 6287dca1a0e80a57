"""The first screen: the verdict in words, and the totals a reader must not miss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from dtcflow.contracts import VERDICTS
from dtcflow.qc.loss_audit import NOT_ASSESSABLE, STRONG, WEAK
from dtcflow.report import text
from dtcflow.report.assets import Assets
from dtcflow.report.claim_views import evaluated
from dtcflow.report.page import NONE, Badge, anchor, count, effect, is_missing, listed, plural
from dtcflow.report.page import text as shown

MAIN_CLAIM: Final = "P2"
VOTING: Final = ("gate", "necessary")
"""Roles that decide the hypothesis; all others stand beside it."""
LOSSES: Final = (
    ("cell_calling", "removed", "droplets with strong tumour evidence taken for empty"),
    ("qc", "removed", "cells with strong tumour evidence removed by quality control"),
    ("qc", "flagged", "doublets with strong tumour evidence called normal"),
    ("call", "indeterminate", "cells with strong tumour evidence left undecided"),
)
"""Stage, status and words of the totals of the loss audit on the first screen."""
ALWAYS_SHOWN: Final = (("qc", "removed"), ("call", "indeterminate"))
"""Totals that are shown when they are 0, too."""


@dataclass(frozen=True)
class Tile:
    """A number of the first screen."""

    value: str
    label: str
    alarm: bool = False


@dataclass(frozen=True)
class Code:
    """A reason code and what it means."""

    code: str
    meaning: str


@dataclass(frozen=True)
class Step:
    """A claim on the first screen; ``link`` is the id of its panel, empty when it has none."""

    claim_id: str
    title: str
    badge: Badge
    why: str
    role: str = ""
    codes: Sequence[Code] = ()
    link: str = ""


@dataclass(frozen=True)
class Verdict:
    """The first screen."""

    hypothesis: str
    badge: Badge
    sentence: str
    reasons: Sequence[str]
    codes: Sequence[str]
    changes: Sequence[str]
    ceiling: str
    steps: Sequence[Step]
    beside: Sequence[Step]
    tiles: Sequence[Tile]


def badge(verdict: Any) -> Badge:
    """Return the badge of a verdict; anything that is not one of the three is shown as it is, undecided."""
    name = str(verdict)
    known = name if name in VERDICTS else "INCONCLUSIVE"
    label = text.VERDICT_WORDS[name] if name in VERDICTS else shown(verdict, 30)
    return Badge(name, text.VERDICT_MARKS[known], label, known.lower().replace("_", "-"))


def verdict(assets: Assets) -> Verdict:
    """Put the verdict into words: what, why, what would change it, and the limit of the claim.

    The words of ``verdict.json`` are used where it has them.
    """
    found = assets.verdict
    name = str(found.get("verdict", "INCONCLUSIVE"))
    claims = assets.claims
    voting = claims[claims["role"].isin(VOTING)]
    undecided = voting if name == "INCONCLUSIVE" else voting[voting["verdict"] == name]
    codes: dict[str, list[str]] = {code: [] for code in text.split_codes(found.get("codes"))}
    for row in undecided.itertuples(index=False):
        for code in text.split_codes(row.codes):
            codes.setdefault(code, []).append(str(row.claim_id))
    main = claims[claims["claim_id"] == MAIN_CLAIM]
    changes = _sentences(found.get("what_would_change_it"))
    if not changes and name == "INCONCLUSIVE":
        needed, n_patients = (
            (float(main[column].iloc[0]) if len(main) else float("nan")) for column in ("patients_needed", "n_patients")
        )
        changes = text.remedies(list(codes), patients_needed=needed, n_patients=n_patients)
    return Verdict(
        hypothesis=_words(found.get("statement")) or text.HYPOTHESIS,
        badge=badge(name),
        sentence=_words(found.get("sentence"))
        or text.VERDICT_SENTENCES.get(name, text.VERDICT_SENTENCES["INCONCLUSIVE"]),
        reasons=_sentences(found.get("why")) or _reasons_of(name, voting),
        codes=[text.code_sentence(code, where) for code, where in codes.items()],
        changes=changes or [text.OVERTURNED_BY[name if name in VERDICTS else "INCONCLUSIVE"]],
        ceiling=_ceiling(found.get("ceiling")),
        steps=_steps(assets, voting),
        beside=_steps(assets, claims[~claims["role"].isin(VOTING)]),
        tiles=_tiles(assets),
    )


def _words(value: Any) -> str:
    return shown(value, 600) if isinstance(value, str) and value.strip() else ""


def _sentences(value: Any) -> list[str]:
    items = value if isinstance(value, list | tuple) else [value]
    return [found for found in map(_words, items) if found]


def _ceiling(words: Any) -> str:
    """Return the limit of every such result: the words of the run, and never without the sentence itself."""
    given = _words(words)
    return given if text.LIMIT in given else f"{text.CEILING} {given}".strip()


def _steps(assets: Assets, rows: pd.DataFrame) -> list[Step]:
    """One tile per claim: verdict, estimate in one line, and each reason code in words."""
    anchors = claim_anchors(assets.claims)
    return [
        Step(
            claim_id=shown(row["claim_id"], 16),
            title=shown(row["title"], 140),
            badge=badge(row["verdict"]),
            why=_in_short(row),
            role=text.ROLE_WORDS.get(str(row["role"]), shown(row["role"], 30)),
            codes=[Code(shown(code, 40), text.code_meaning(code)) for code in text.split_codes(row["codes"])],
            link=anchors[index] if evaluated(row, assets.verdict) else "",
        )
        for index, row in zip(rows.index, rows.to_dict("records"), strict=True)
    ]


def claim_anchors(claims: pd.DataFrame) -> dict[Any, str]:
    """Id of each claim's panel in the page, by the row's index."""
    return {
        index: anchor("claim", claim_id, number)
        for number, (index, claim_id) in enumerate(claims["claim_id"].items(), start=1)
    }


def _in_short(row: Mapping[Any, Any]) -> str:
    """Return what a claim came to, in one line; empty when nothing was estimated."""
    if is_missing(row["estimate"]):
        return ""
    unit = "" if is_missing(row.get("unit")) else f" {shown(row['unit'], 80)}"
    return f"{effect(row['estimate'], row['ci_low'], row['ci_high'])}{unit}, n = {count(row['n_patients'])}"


def _reasons_of(name: str, voting: pd.DataFrame) -> list[str]:
    if name == "SUPPORTED":
        return ["Every gate and every necessary claim is supported."]
    against = voting.loc[voting["verdict"] == name, "claim_id"].astype(str).tolist()
    if against:
        return [f"{listed(against)}: {text.VERDICT_WORDS.get(name, name).lower()}."]
    return ["No reason was recorded."]


def _tiles(assets: Assets) -> list[Tile]:
    cells, audit = assets.cells, assets.loss_audit
    dtc = int(cells["is_dtc"].sum())
    carriers = int(cells.loc[cells["is_dtc"], "patient_id"].nunique())
    malignant = int((cells["malignant_call"] == "malignant").sum())
    n_patients = int(cells["patient_id"].nunique())
    tiles = [
        Tile(
            f"{n_patients:,}",
            f"{'patient or donor' if n_patients == 1 else 'patients and donors'}, "
            f"{plural(cells['sample_id'].nunique(), 'sample')}",
        ),
        Tile(f"{len(cells):,}", f"cells read, {int(cells['pass_qc'].sum()):,} passed quality control"),
        Tile(f"{malignant:,}", "cells called malignant, all compartments"),
        Tile(f"{dtc:,}", f"disseminated tumour cells, in {plural(carriers, 'patient')}", alarm=dtc == 0),
    ]
    if audit is None:
        tiles.append(Tile(NONE, "cells with tumour evidence lost: no loss audit in this run", alarm=True))
    else:
        tiles += _loss_tiles(audit)
    return tiles


def _loss_tiles(audit: pd.DataFrame) -> list[Tile]:
    """Totals of the loss audit by stage: cells with strong evidence as the number, all others in words."""
    found = []
    for stage, status, label in LOSSES:
        rows = audit[(audit["stage"] == stage) & (audit["status"] == status)]
        strong = rows["evidence_level"] == STRONG
        n, marrow = int(strong.sum()), int((strong & (rows["compartment"] == "marrow")).sum())
        if not len(rows) and (stage, status) not in ALWAYS_SHOWN:
            continue
        weak, neither = (int((rows["evidence_level"] == level).sum()) for level in (WEAK, NOT_ASSESSABLE))
        label += f", {marrow:,} in marrow (and {weak:,} with weak, {neither:,} without evidence)"
        found.append(Tile(f"{n:,}", label, alarm=marrow > 0))
    return found
