import numpy as np
import pandas as pd
import pytest

from dtcflow.evidence.contrasts import Differences
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.robustness import SPECIFICATION_COLUMNS, assess, fragile, studies_of


@pytest.fixture
def plan(lab):
    return load_plan(lab.plan_path)


def values_of(d, v=0.01):
    d = np.asarray(d, dtype=float)[:, None]
    n = d.shape[0]
    return Differences(
        d, np.zeros_like(d), d, np.full_like(d, v), np.ones(1), np.ones(n, dtype=bool), np.full((n, 2), 9)
    )


def specifications(estimates, votes=True):
    frame = pd.DataFrame(index=range(len(estimates)), columns=list(SPECIFICATION_COLUMNS))
    return frame.assign(estimate=np.asarray(estimates, dtype=float), votes=votes)


def robustness(plan, d, estimates=None, estimate=None):
    claim, values = plan.claim("P2"), values_of(d)
    names = [f"P{i}" for i in range(len(d))]
    mean = float(np.mean(d)) if estimate is None else estimate
    table = specifications([mean] * 10 if estimates is None else estimates)
    return claim, mean, assess(claim, mean, table, values, 0, names)


def test_summary_counts_votes_that_can_be_computed(plan):
    claim, values = plan.claim("P2"), values_of([1.0] * 6)
    table = pd.concat([specifications([1, 0.2, -0.1, np.nan]), specifications([-9], votes=False)], ignore_index=True)
    found = assess(claim, 1.0, table, values, 0, list("ABCDEF"))
    assert (found.n_specifications, found.n_computable) == (4, 3)
    assert found.agreement == pytest.approx(2 / 3)
    assert found.below_sesoi == pytest.approx(2 / 3)
    assert found.median == 0.2


def test_leave_one_out_is_the_analysis_of_the_others(plan):
    _, _, found = robustness(plan, [1, 2, 3, 4, 5, 9.0])
    row = found.leave_one_out.set_index("patient_id").loc["P5"]
    assert row["estimate"] == pytest.approx(3.0)
    assert len(found.leave_one_out) == 6


def test_six_equal_patients_are_robust_although_five_cannot_reach_significance(plan):
    claim, mean, found = robustness(plan, [0.9, 1.0, 1.1, 1.0, 0.95, 1.05])
    assert fragile(claim, plan.rules, "SUPPORTED", mean, found) == []


def test_one_patient_that_carries_the_support_is_named(plan):
    claim, mean, found = robustness(plan, [0.5, 0.5, 0.5, 0.5, 0.45, 1.2])
    assert mean > claim.sesoi
    assert fragile(claim, plan.rules, "SUPPORTED", mean, found) == ["without patient P5 the support goes away"]


def test_choices_that_disagree_are_counted(plan):
    claim, mean, found = robustness(plan, [1.0] * 6, [1.0] * 7 + [-1.0] * 3)
    assert fragile(claim, plan.rules, "SUPPORTED", mean, found) == ["70% of the specifications agree in sign"]
    claim, mean, found = robustness(plan, [1.0] * 6, [0.2] * 10)
    assert "median specification" in fragile(claim, plan.rules, "SUPPORTED", mean, found)[0]


def test_missing_half_of_the_table_is_fragile(plan):
    claim, mean, found = robustness(plan, [1.0] * 6, [1.0] * 4 + [np.nan] * 6)
    assert fragile(claim, plan.rules, "SUPPORTED", mean, found) == ["only 4 of 10 specifications are computable"]


def test_refutation_asks_for_small_estimates_not_for_one_sign(plan):
    claim, mean, found = robustness(plan, [0.05, -0.05, 0.02, -0.02, 0.0, 0.01], [0.1, -0.1] * 5)
    assert fragile(claim, plan.rules, "NOT_SUPPORTED", mean, found) == []
    claim, mean, found = robustness(plan, [0.05, -0.05, 0.02, -0.02, 0.0, 0.01], [0.1, 0.7] * 5)
    assert fragile(claim, plan.rules, "NOT_SUPPORTED", mean, found) != []


def test_an_undecided_result_is_fragile_only_when_one_patient_lifts_it(plan):
    claim, mean, found = robustness(plan, [0.0, 0.1, -0.1, 0.0, 0.05, 6.0])
    assert fragile(claim, plan.rules, "INCONCLUSIVE", mean, found) == ["the effect comes from patient P5"]
    claim, mean, found = robustness(plan, [0.0, 0.1, -0.1, 0.0, 0.05, 0.3])
    assert fragile(claim, plan.rules, "INCONCLUSIVE", mean, found) == []


def test_predicted_decrease_is_the_mirror_image(plan, lab):
    values = load_plan(lab.plan_path).values
    values["claims"][2]["direction"] = "less"
    mirrored = load_plan(values)
    for d in ([0.9, 1.0, 1.1, 1.0, 0.95, 1.05], [0.5, 0.5, 0.5, 0.5, 0.45, 1.2]):
        claim, mean, found = robustness(plan, d)
        other, other_mean, other_found = robustness(mirrored, [-x for x in d])
        assert fragile(claim, plan.rules, "SUPPORTED", mean, found) == fragile(
            other, mirrored.rules, "SUPPORTED", other_mean, other_found
        )


def test_studies_of_patients():
    cells = pd.DataFrame({"patient_id": ["A", "A", "B", "C", "C"], "study": ["one", "one", "two", "two", "three"]})
    assert studies_of(cells, ["A", "B", "C"]) == ("one", "two", "three+two")
    assert studies_of(cells, ["B"]) == ()
    assert studies_of(cells.drop(columns="study"), ["A", "B"]) == ()
    assert studies_of(cells.assign(study=None), ["A", "B"]) == ()
    assert studies_of(cells.replace("two", None), ["A", "B"]) == ()


def test_one_study_that_carries_the_support_is_named(plan):
    claim, values = plan.claim("P2"), values_of([0.1, 0.2, 0.15, 1.3, 1.2, 1.25, 1.2])
    names, studies = list("ABCDEFG"), ["X", "X", "X", "Y", "Y", "Y", "Y"]
    table = specifications([0.8] * 10)
    found = assess(claim, 0.8, table, values, 0, names, studies)
    assert found.leave_one_study_out["study"].tolist() == ["X", "Y"]
    assert found.leave_one_study_out["estimate"].tolist() == pytest.approx([1.2375, 0.15], abs=1e-6)
    reasons = fragile(claim, plan.rules, "SUPPORTED", 0.8, found)
    assert [r for r in reasons if "study" in r] == ["without study Y the support goes away"]
    alone = assess(claim, 0.8, table, values, 0, names)
    assert not [r for r in fragile(claim, plan.rules, "SUPPORTED", 0.8, alone) if "study" in r]
    one = assess(claim, 0.8, table, values, 0, names, ["X"] * 7)
    assert one.leave_one_study_out.empty


def test_one_study_that_carries_the_refutation_is_named(plan):
    claim, values = plan.claim("P2"), values_of([0.8, 0.9, -0.5, -0.6, -0.4, -0.5])
    found = assess(claim, 0.0, specifications([0.0] * 10), values, 0, list("ABCDEF"), ["X"] * 2 + ["Y"] * 4)
    reasons = fragile(claim, plan.rules, "NOT_SUPPORTED", 0.0, found)
    assert "without study Y the refutation goes away" in reasons
    assert "without study X the refutation goes away" not in reasons
