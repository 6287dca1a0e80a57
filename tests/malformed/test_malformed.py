"""Each malformed input ends in one message with its key words, exit code 2, no traceback, and nothing written."""

from __future__ import annotations

import cases_files
import cases_sheets
import cases_values
import pytest

from dtcflow.contracts import Problem

CASES = [*cases_files.CASES, *cases_values.CASES, *cases_sheets.CASES]


def test_the_corpus_is_as_large_as_promised():
    assert len({case.name for case in CASES}) == len(CASES) >= 100


def test_the_sound_study_has_no_problem(study, check):
    study.write()
    code, problems, printed = check(study, read=True)
    assert code == 0, printed
    assert problems == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_message_and_nothing_else(case, study, check):
    if case.raw:
        case.make(study)
    else:
        case.make(study)
        study.write()
    if case.read:
        header_code, _, _ = check(study)
        assert header_code in (0, 2)
    code, problems, printed = check(study, read=case.read)
    assert code == 2, printed
    assert "Traceback" not in printed
    assert "unexpected error" not in printed
    assert len(problems) == case.n, printed
    shown = " ".join(str(Problem(where=p["file"], **{k: v for k, v in p.items() if k != "file"})) for p in problems)
    for words in (*case.words, "found ", "allowed: ", "fix: "):
        assert words in shown, shown
    assert not (study.folder / "unpickled").exists(), "something was unpickled"
    assert not (study.folder / "ran").exists(), "code was run"
