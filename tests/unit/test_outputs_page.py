"""docs/outputs.md names every column of the public contract tables, in the section of its file, and every code."""

import re
from pathlib import Path

import pytest

from dtcflow.contracts import ARM_STATES, CODES, MALIGNANT_CALLS, STAGES, TABLE_MAKERS, TABLES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "outputs.md").read_text(encoding="utf-8")
HEADING = re.compile(r"^(##+) (.+)$", re.MULTILINE)
FILES = {
    "cells": "cells.tsv.gz",
    "claims": "evidence/claims.tsv",
    "patients": "evidence/patients.tsv",
    "arms": "cnv/arms.tsv",
    "clones": "cnv/clones.tsv",
    "clone_events": "cnv/events.tsv",
    "comparison": "cnv/comparison.tsv",
    "segments": "cnv/segments.seg",
    "loss_audit": "qc/loss_audit.tsv",
    "qc_summary": "qc/summary.tsv",
    "qc_waterfall": "qc/waterfall.tsv",
    "signature_coverage": "scores/signatures.tsv",
    "identity": "intake/identity.tsv",
}
VALUES = {"Verdict codes": CODES, "malignant_call": MALIGNANT_CALLS, "Arm state": ARM_STATES}


def section(title):
    """Text below a heading, up to the next one of its level or above."""
    found = [(len(match[1]), match[2], match.start(), match.end()) for match in HEADING.finditer(PAGE)]
    (number,) = [i for i, (_, text, *_) in enumerate(found) if text == title]
    level, _, _, start = found[number]
    return PAGE[start : next((first for depth, _, first, _ in found[number + 1 :] if depth <= level), len(PAGE))]


def tables(text):
    """Names in the first cell of every row, a list per table."""
    found = []
    for block in re.findall(r"^\|.+\n\|[-|]+\n((?:\|.+\n?)*)", text, re.MULTILINE):
        found.append([name for row in block.splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])])
    return found


def names(text):
    return [name for table in tables(text) for name in table]


@pytest.mark.parametrize("table", FILES)
def test_every_contract_column_has_a_row_in_the_section_of_its_file(table):
    text = section(FILES[table])
    assert set(TABLES[table]) <= set(names(text)), "columns without a row"
    assert tables(text)[0] == list(TABLES[table]), "the first table is the contract: its columns, in its order"
    assert len(names(text)) == len(set(names(text))), "a column is explained twice"


@pytest.mark.parametrize("table", FILES)
def test_a_section_names_the_rule_that_makes_the_file(table):
    assert f"Rule `{TABLE_MAKERS[table]}`" in section(FILES[table])
    assert f"](#{re.sub('[^a-z0-9_-]', '', FILES[table])}) |" in PAGE, "the file is missing from the list at the top"


def test_every_key_of_the_cohort_object_has_a_row():
    stage = STAGES["cohort"]
    missing = {*stage.layers, *stage.var, *stage.obsm, *stage.uns} - set(names(section("cohort.h5ad")))
    assert not missing


@pytest.mark.parametrize("title", VALUES)
def test_every_value_of_a_vocabulary_has_a_row(title):
    assert set(names(section(title))) == set(VALUES[title])


def test_a_column_that_is_explained_elsewhere_does_not_count():
    assert "malignant_call" not in names(section("evidence/claims.tsv"))
    assert "estimate" not in names(section("cells.tsv.gz"))


def test_links_within_the_page_lead_to_a_heading():
    anchors = {re.sub(r"[^\w\- ]", "", match[2].lower()).replace(" ", "-") for match in HEADING.finditer(PAGE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
