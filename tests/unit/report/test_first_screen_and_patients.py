"""The first screen with many claims, and the cards of the patients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtcflow.report import build, sections_patients, sections_verdict, text
from dtcflow.report.assets import Assets, load
from dtcflow.report.page import Details, Paragraph, Section, Table

SMALL = {"n_patients": 3, "n_cells": 40, "per_arm": 1}
EVIL = '<img src=x onerror="alert(1)">'


@pytest.fixture
def assets_of(tmp_path: Path) -> Callable[[Any], Assets]:
    """Assets of a study, read the way the report reads them."""
    return lambda study: load(study.write(tmp_path / "in"))


def html(section: Section) -> str:
    """Markup of a section, by the template of the page."""
    source = build._resource("template.html.j2")
    start, end = source.index("{% macro badge"), source.index("{% macro claims")
    loop = "{% for b in s.blocks %}{{ block(b) }}{% endfor %}"
    return build._environment().from_string(source[start:end] + loop).render(s=section)


def many_claims(study: Any) -> None:
    """Add context and supporting claims, decided and undecided."""
    line = study.claims[study.claims["claim_id"] == "P2"].iloc[0].to_dict()
    more = [
        line | {"claim_id": "C3", "role": "context", "verdict": "NOT_SUPPORTED", "codes": "", "title": "unlike"},
        line | {"claim_id": "C4", "role": "context", "verdict": "INCONCLUSIVE", "codes": "LOW_N;IMPRECISE"},
        line | {"claim_id": "P4", "role": "supporting", "verdict": "SUPPORTED", "codes": ""},
    ]
    study.claims = pd.concat([study.claims, pd.DataFrame(more)], ignore_index=True)


def test_what_decides_and_what_stands_beside_are_apart(make: Any, assets_of: Any) -> None:
    study = make(**SMALL)
    many_claims(study)
    found = sections_verdict.verdict(assets_of(study))
    assert [step.claim_id for step in found.steps] == ["C0", "P1", "P2", "P3"]
    assert [step.claim_id for step in found.beside] == ["C3", "C4", "P4"]
    assert "never votes" in found.beside[0].role
    assert [step.link for step in found.steps] == ["claim-C0", "", "claim-P2", ""], "no panel for what was not tested"
    assert [(code.code, code.meaning) for code in found.beside[1].codes] == [
        ("LOW_N", "fewer paired patients than the rule asks for"),
        ("IMPRECISE", "confidence interval wider than the smallest effect of interest"),
    ]
    assert found.steps[2].why == "1.02 (0.71 to 1.33) SD between primary tumour cells, n = 7"
    assert found.steps[1].why == ""
    assert found.beside[0].badge.label == "Not supported"


def test_beside_claims_never_reach_the_reasons_and_codes(make: Any, assets_of: Any) -> None:
    study = make(**SMALL)
    many_claims(study)
    del study.verdict["why"]
    found = sections_verdict.verdict(assets_of(study))
    assert not [code for code in found.codes if code.startswith(("LOW_N", "IMPRECISE"))]
    assert not [reason for reason in found.reasons if "C4" in reason or "C3" in reason]


@pytest.mark.parametrize("given", [None, "", "Something else.", text.LIMIT + ", which only an assay can."])
def test_the_limit_is_always_said(make: Any, assets_of: Any, given: str | None) -> None:
    study = make(**SMALL)
    study.verdict["ceiling"] = given
    ceiling = sections_verdict.verdict(assets_of(study)).ceiling
    assert "Expression can be consistent with a progenitor state; it cannot show self-renewal" in ceiling
    assert ceiling.count("cannot show self-renewal") == 1


def test_a_card_for_every_patient_with_the_right_numbers(make: Any, assets_of: Any) -> None:
    study = make(**SMALL)
    section = sections_patients.patients_section(assets_of(study))
    overview, *cards = section.blocks
    assert isinstance(overview, Table)
    assert [card.summary for card in cards if isinstance(card, Details)] == ["PAT01", "PAT02", "PAT03"]
    cells, audit = study.cells, study.loss_audit
    for line, card in zip(overview.rows, cards, strict=True):
        assert isinstance(card, Details)
        name = card.summary
        own, lost = cells[cells["patient_id"] == name], audit[audit["patient_id"] == name]
        strong = int((lost["evidence_level"] == "strong").sum())
        assert [cell.text for cell in line][:6] == [
            *(name, "2", f"{len(own):,}", f"{int(own['pass_qc'].sum()):,}"),
            *(f"{int((own['malignant_call'] == 'malignant').sum()):,}", f"{int(own['is_dtc'].sum()):,}"),
        ]
        assert line[7].text == f"{len(lost)} ({strong})"
        assert line[0].link == card.id == f"patient-{name}"
    values = [block for block in cards[2].blocks if isinstance(block, Table)][-1]
    found = {line[0].text: (line[2].text, line[4].text) for line in values.rows}
    assert found["P2"] == ("–", "not used: 0 DTC, 3 needed")
    assert found["C0"] == ("–", "not used: not among the patients of this claim")
    first = study.patients[(study.patients["analysis"] == "primary") & (study.patients["patient_id"] == "PAT01")]
    values = [block for block in cards[0].blocks if isinstance(block, Table)][-1]
    shown = {line[0].text: (line[2].text, line[4].text) for line in values.rows}["P2"]
    assert shown[0].startswith(f"{first['difference'].iloc[0]:.2f} (")
    assert shown[1] == "used"


def test_cards_say_what_is_missing(make: Any, assets_of: Any) -> None:
    study = make(**SMALL)
    study.clones = study.clones[study.clones["patient_id"] != "PAT01"]
    study.statuses = {"PAT02": {"patient_id": "PAT02", "status": "no_reference", "reason": "no normal cell"}}
    study.cells = study.cells[(study.cells["patient_id"] != "PAT03") | (study.cells["compartment"] != "marrow")]
    study.loss_audit = study.loss_audit.iloc[:0]
    cards = [
        block for block in sections_patients.patients_section(assets_of(study)).blocks if isinstance(block, Details)
    ]
    words = [" ".join(block.text for block in card.blocks if isinstance(block, Paragraph)) for card in cards]
    assert "No clone was found." in words[0]
    assert "Copy number: no record in this run." in words[0]
    assert "not assessable, no reference: no normal cell" in words[1]
    assert "no marrow sample" in cards[2].note
    assert all("no cell with tumour evidence was removed" in one for one in words)


def test_no_sample_and_no_claim_and_no_audit(make: Any, tmp_path: Path) -> None:
    study = make(**SMALL)
    study.claims = study.claims.iloc[:0]
    inputs = study.write(tmp_path)
    bare = load(type(inputs)({}, inputs.cells, inputs.claims, inputs.patients, inputs.verdict))
    section = sections_patients.patients_section(bare)
    source = html(section)
    for sentence in ("No claim was evaluated", "no loss audit", "The table of clones is not part of this run."):
        assert sentence in source
    study.cells = study.cells.iloc[:0]
    empty = load(study.write(tmp_path / "empty"))
    assert "No sample was read." in html(sections_patients.patients_section(empty))


def test_cards_escape_everything(make: Any, assets_of: Any) -> None:
    study = make(**SMALL)
    for frame in (study.cells, study.patients, study.clones, study.loss_audit):
        frame["patient_id"] = frame["patient_id"].replace("PAT01", EVIL)
    study.cells["sample_id"] = study.cells["sample_id"].str.replace("PAT02-BM", EVIL)
    study.clones["gains"] = EVIL
    study.claims["title"] = EVIL
    study.patients["reason"] = EVIL
    study.statuses = {EVIL: {"patient_id": EVIL, "status": EVIL, "reason": EVIL}}
    source = html(sections_patients.patients_section(assets_of(study)))
    assert "<img" not in source
    assert source.count("&lt;img") > 8
    assert 'id="patient_1"' in source, "an id of its own for a name that is none"


@pytest.mark.parametrize("n", [1, 60])
def test_sixty_patients_are_sorted_linked_and_small(make: Any, assets_of: Any, n: int) -> None:
    study = make(n_patients=n, n_cells=12, per_arm=1)
    for frame in (study.cells, study.patients, study.clones, study.loss_audit):
        frame["patient_id"] = frame["patient_id"].str.replace("PAT0", "PAT")
    order = np.random.default_rng(1).permutation(len(study.cells))
    study.cells = study.cells.iloc[order]
    section = sections_patients.patients_section(assets_of(study))
    overview = section.blocks[0]
    assert isinstance(overview, Table)
    names = [line[0].text for line in overview.rows]
    assert names == [f"PAT{k + 1}" for k in range(n)]
    source = html(section)
    assert source.count("<details") == n
    assert all(f'id="patient-{name}"' in source for name in names)
    assert len(source) < 15_000 * n + 10_000
