"""Words: every code is explained, every number of the methods comes from the configuration."""

from __future__ import annotations

import pytest

from dtcflow.contracts import CODES, VERDICTS
from dtcflow.report import text


@pytest.mark.parametrize(
    ("value", "codes"),
    [
        ("LOW_N;LOW_CELLS", ["LOW_N", "LOW_CELLS"]),
        ("INCONCLUSIVE:LOW_N", ["LOW_N"]),
        ("A, B;A", ["A", "B"]),
        (["LOW_N", None], ["LOW_N"]),
        (float("nan"), []),
        ("", []),
        (None, []),
    ],
)
def test_codes_are_read_from_lists_and_text(value: object, codes: list[str]) -> None:
    assert text.split_codes(value) == codes


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_has_a_meaning_and_a_remedy(code: str) -> None:
    assert CODES[code] in text.code_sentence(code)
    assert len(text.remedies([code])) == 1


def test_unknown_codes_are_shown_and_not_swallowed() -> None:
    assert text.code_sentence("NEW_CODE", ["P2"]).startswith("NEW_CODE (P2): ")


def test_remedy_names_the_patients_that_are_needed() -> None:
    (sentence,) = text.remedies(["LOW_N", "LOW_N"], patients_needed=17, n_patients=4)
    assert "about 17 patients" in sentence
    assert "there are 4" in sentence
    (plain,) = text.remedies(["LOW_N"], patients_needed=float("nan"))
    assert "about" not in plain


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_has_mark_words_and_sentence(verdict: str) -> None:
    for table in (text.VERDICT_WORDS, text.VERDICT_MARKS, text.VERDICT_SENTENCES, text.OVERTURNED_BY):
        assert table[verdict]
    assert len(set(text.VERDICT_MARKS.values())) == 3


def test_methods_quote_the_configuration() -> None:
    config = {
        "seed": 4711,
        "qc": {"n_mads": 3, "max_pct_mt_cap": 42, "min_counts": 777, "min_genes": None},
        "embedding": {"n_top_genes": 1234, "n_pcs": 17, "harmony": True, "exclude_receptor_genes": True},
        "copy_number": {"fdr": 0.01, "min_abs_log_ratio": 0.22, "folds": 7, "window_size": 77},
    }
    found = text.methods_text(config, {"scanpy": "9.9.9", "infercnvpy": "not installed"})
    numbers = ("4711", "minus 3 scaled", "42 %", "777 counts", "1234", "17 principal", "rate 0.01", "0.22", "7-fold")
    for value in (*numbers, "77 genes", "Harmony", "scanpy 9.9.9"):
        assert value in found, value
    assert "not installed" not in found


def test_methods_do_not_claim_what_was_switched_off() -> None:
    found = text.methods_text({"embedding": {"harmony": False, "exclude_receptor_genes": False}})
    assert "Harmony" not in found
    assert "without immunoglobulin" not in found


def test_every_citation_is_used() -> None:
    found = text.methods_text({"embedding": {"harmony": True}})
    assert [key for key, citation in text.CITATIONS.items() if citation not in found] == []
