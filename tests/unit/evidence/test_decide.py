from types import SimpleNamespace

import pytest

from dtcflow.contracts import CODES
from dtcflow.evidence.decide import CODE_ORDER, Rule, candidate, decide, order_codes, refutes, supports


def rule(code, holds=False, blocks="verdict"):
    return Rule("r", 0.0, 0.0, holds, code, "s", blocks)


def ask(question, values):
    limits = {name: value for name, value in values.items() if name.startswith("ci") or name == "estimate"}
    return question(SimpleNamespace(**limits), **{name: values[name] for name in values.keys() - limits.keys()})


SOUND = {"estimate": 0.9, "ci_low": 0.4, "ci_high": 1.4, "p_adjusted": 0.01, "sign": 1, "sesoi": 0.5, "alpha": 0.05}


def test_every_code_of_the_contract_has_a_place():
    assert sorted(CODE_ORDER) == sorted(CODES)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"p_adjusted": 0.05}, False),
        ({"p_adjusted": float("nan")}, False),
        ({"ci_low": 0.0}, False),
        ({"estimate": 0.49}, False),
        ({"estimate": 0.5}, True),
        ({"sign": -1}, False),
        ({"sign": -1, "estimate": -0.9, "ci_low": -1.4, "ci_high": -0.4}, True),
        ({"ci_low": float("nan")}, False),
    ],
)
def test_support_needs_all_three(change, expected):
    assert ask(supports, SOUND | change) is expected


NULL = {"ci90_high": 0.3, "ci90_low": -0.3, "ci_low": -0.4, "ci_high": 0.4, "sign": 1, "sesoi": 0.5}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"ci90_high": 0.5}, False),
        ({"ci90_high": 0.49}, True),
        ({"ci90_high": 0.6, "ci_high": -0.1}, True),
        ({"ci90_high": float("nan"), "ci_high": float("nan")}, False),
        ({"sign": -1}, True),
        ({"sign": -1, "ci90_low": -0.6}, False),
    ],
)
def test_refutation(change, expected):
    assert ask(refutes, NULL | change) is expected


def test_candidates():
    assert candidate(supports=True, refutes=False) == "SUPPORTED"
    assert candidate(supports=False, refutes=True) == "NOT_SUPPORTED"
    assert candidate(supports=False, refutes=False) == "INCONCLUSIVE"


def test_decisions():
    fine = rule("LOW_N", holds=True)
    assert decide("SUPPORTED", [fine]).verdict == "SUPPORTED"
    assert decide("NOT_SUPPORTED", [fine]).verdict == "NOT_SUPPORTED"
    assert decide("INCONCLUSIVE", [fine]).codes == ("NO_EFFECT_SHOWN",)
    # no number and no broken rule: an undecided claim has a code all the same
    assert decide("INCONCLUSIVE", [fine], tested=False).codes == ("NO_DATA",)


def test_broken_rules_give_codes_in_order_and_once():
    broken = [rule("FRAGILE"), rule("LOW_CELLS"), rule("LOW_CELLS"), rule("CONFOUNDED")]
    found = decide("SUPPORTED", broken)
    assert found.verdict == "INCONCLUSIVE"
    assert found.codes == ("CONFOUNDED", "LOW_CELLS", "FRAGILE")
    assert decide("NOT_SUPPORTED", broken).codes == found.codes


def test_rules_about_support_do_not_block_a_refutation():
    soft = [rule("GENE_SET_NULL", blocks="support")]
    assert decide("NOT_SUPPORTED", soft).verdict == "NOT_SUPPORTED"
    assert decide("SUPPORTED", soft).codes == ("GENE_SET_NULL",)
    assert decide("INCONCLUSIVE", soft, effect=True).codes == ("GENE_SET_NULL", "NO_EFFECT_SHOWN")


def test_an_effect_that_was_not_shown_is_not_qualified():
    """Nothing that is not there goes away with a covariate, or comes from blood; what is missing stays missing."""
    soft = [rule(code, blocks="support") for code in ("NOT_ROBUST_TO_COVARIATES", "CONTAMINATION", "NO_DATA")]
    assert decide("INCONCLUSIVE", soft).codes == ("NO_DATA", "NO_EFFECT_SHOWN")
    assert "CONTAMINATION" in decide("INCONCLUSIVE", [rule("CONTAMINATION")]).codes


def test_with_too_few_patients_the_test_is_not_blamed():
    assert decide("INCONCLUSIVE", [rule("LOW_N")]).codes == ("LOW_N",)


def test_unknown_codes_are_refused():
    with pytest.raises(ValueError, match="NONSENSE"):
        order_codes(["NONSENSE"])
