import json
from dataclasses import replace

import pytest

from dtcflow.contracts import write_json
from dtcflow.evidence.claims import Judged, adjust_families, claims_table, not_evaluated
from dtcflow.evidence.decide import Decision
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.verdict import (
    CEILING,
    REMEDIES,
    hypothesis_decision,
    sentence,
    verdict_document,
    what_would_change_it,
    why,
)


@pytest.fixture
def plan(lab):
    return load_plan(lab.plan_path)


def judged(plan, **verdicts):
    """Claims with the given verdict, or code(s) for an inconclusive one; the rest is not evaluated."""
    out = {}
    for claim in plan.claims:
        one = not_evaluated(claim)
        said = verdicts.get(claim.id)
        if said in ("SUPPORTED", "NOT_SUPPORTED"):
            one = Judged(claim, Decision(said, ()), one.row | {"verdict": said, "codes": ""}, {}, ())
        elif said:
            one = Judged(claim, Decision("INCONCLUSIVE", tuple(said.split(";"))), one.row | {"codes": said}, {}, ())
        out[claim.id] = one
    return out


ALL = {"C0": "SUPPORTED", "P1": "SUPPORTED", "P2": "SUPPORTED", "P3": "SUPPORTED"}


@pytest.mark.parametrize(
    ("verdicts", "expected", "codes"),
    [
        (ALL, "SUPPORTED", ()),
        (ALL | {"P1": "", "P3": ""}, "INCONCLUSIVE", ("NOT_EVALUATED",)),
        (ALL | {"P2": "NOT_SUPPORTED"}, "NOT_SUPPORTED", ()),
        # the hypothesis needs each of them: one refuted claim is enough, whatever the others say
        (ALL | {"P1": "", "P2": "NOT_SUPPORTED"}, "NOT_SUPPORTED", ()),
        (ALL | {"P1": "LOW_CELLS", "P3": "NOT_SUPPORTED"}, "NOT_SUPPORTED", ()),
        (ALL | {"C0": "LOW_N", "P2": "NOT_SUPPORTED"}, "INCONCLUSIVE", ("LOW_N", "GATE_FAILED")),
        (ALL | {"C0": "NOT_SUPPORTED"}, "INCONCLUSIVE", ("GATE_FAILED",)),
        (ALL | {"P2": "FRAGILE", "P3": "LOW_N;IMPRECISE"}, "INCONCLUSIVE", ("LOW_N", "IMPRECISE", "FRAGILE")),
    ],
)
def test_hypothesis(plan, verdicts, expected, codes):
    found = hypothesis_decision(plan, judged(plan, **verdicts))
    assert (found.verdict, found.codes) == (expected, codes)


def test_every_code_has_a_remedy_without_gaps(plan):
    from dtcflow.contracts import CODES

    assert set(REMEDIES) == set(CODES)
    everything = judged(plan, P2=";".join(code for code in CODES if code != "NOT_EVALUATED"))
    decision = hypothesis_decision(plan, everything)
    lines = what_would_change_it(plan, everything, decision)
    assert len(lines) == len(decision.codes)
    assert not any("{" in line for line in lines)


def test_why_names_each_gate_and_necessary_claim(plan):
    lines = why(plan, judged(plan, **ALL))
    assert [line.split(" ")[0] for line in lines] == ["C0", "P1", "P2", "P3"]
    assert "not evaluated" not in lines[0]


def test_the_sentence_names_the_fewest_patients_a_claim_rests_on(plan):
    found = judged(plan, **ALL)
    for name, n in (("P1", 12), ("P2", 7), ("P3", 7)):
        found[name] = replace(found[name], row=found[name].row | {"n_patients": n})
    decision = hypothesis_decision(plan, found)
    assert sentence(plan, found, decision).startswith("Across 7 to 12 patients the expression")
    found["P1"] = judged(plan)["P1"]  # not evaluated: rests on nobody
    assert "over 7 patients" in sentence(plan, found, hypothesis_decision(plan, found))


def test_a_claim_that_is_not_evaluated_says_so(plan):
    one = not_evaluated(replace(plan.claim("P1"), evaluated=False))
    assert one.decision.codes == ("NOT_EVALUATED",)
    assert [(rule.code, rule.holds) for rule in one.rules] == [("NOT_EVALUATED", False)]
    assert "does not test it" in one.rules[0].sentence


def test_holm_counts_evaluated_confirmatory_claims_only(plan, lab):
    assert adjust_families(plan, {"P2": 0.03}) == {"P2": 0.03}
    values = load_plan(lab.plan_path).values
    values["claims"].append(values["claims"][2] | {"id": "S1", "role": "context", "family": "secondary"})
    both = adjust_families(load_plan(values), {"P2": 0.03, "C4": 0.04, "S1": 0.02, "P1": 0.5, "C3": float("nan")})
    assert both == {"P2": 0.06, "C4": 0.06, "S1": 0.02, "P1": 0.5}


def test_document_is_plain_json_and_says_what_was_counted(plan, progenitor, tmp_path):
    write_json(tmp_path / "verdict.json", progenitor.verdict)
    read = json.loads((tmp_path / "verdict.json").read_text())
    assert read["ceiling"] == CEILING
    assert read["plan_sha256"] == load_plan(read["plan"]).sha256
    assert read["multiplicity"] == {
        "method": "Holm over the evaluated confirmatory claims",
        "counted": ["P2", "P3", "C4"],
        "not_counted": ["P1", "C3", "C1", "P4"],
        "other_families": {"secondary": "Benjamini-Hochberg over P4", "none": "not adjusted"},
    }
    own = read["claims"]["P2"]
    assert len(own["gene_set_null"]["estimates"]) == 150
    assert len(own["patients"]) == 8
    assert {rule["code"] for rule in own["rules"]} >= {"LOW_N", "CONFOUNDED", "CONTAMINATION", "FRAGILE", "GATE_FAILED"}
    assert all(rule["holds"] for rule in own["rules"])
    assert own["meta_analysis"]["n"] == 8
    assert read["seed"] == 1


def test_claims_table_without_any_number(plan):
    table = claims_table(list(judged(plan).values()))
    assert table["n_patients"].tolist() == [0] * 8
    assert table["patients_needed"].isna().all()
    document = verdict_document(plan, list(judged(plan).values()), settings={}, seed=0, adjusted={})
    assert document["verdict"] == "INCONCLUSIVE"


def test_patients_for_a_verdict_grow_with_the_family(plan):
    """Six unanimous patients reach .031, which one test may have and four may not: these need eight."""
    alone = judged(plan, P2="LOW_N")
    alone["P2"].row["p_value"] = 0.03
    lines = what_would_change_it(plan, alone, hypothesis_decision(plan, alone))
    assert any("a verdict needs 6" in line for line in lines)
    for name in ("P3", "C3", "C4"):
        alone[name].row["p_value"] = 0.03
    lines = what_would_change_it(plan, alone, hypothesis_decision(plan, alone))
    assert any("a verdict needs 8" in line for line in lines)
