"""Intersection-union over the components of a specificity claim."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dtcflow.evidence.paired import evaluate_paired
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.run import cohort_of
from dtcflow.evidence.specificity import component, evaluate_specificity, judge_specificity, weakest

FAMILIES = {"EPPERT_HSC_R": "haematopoietic", "JAATINEN_HEMATOPOIETIC_STEM_CELL_UP": "haematopoietic"}


def part(values, *, kind="purged", name="part", minimum=0.25, variance=0.02, code="NOT_ROBUST_TO_COVARIATES"):
    d = np.asarray(values, float)
    return component(kind, name, d, np.full(d.size, variance), minimum=minimum, code=code, least=3, seed=0)


STRONG = [0.9, 1.1, 1.0, 1.2, 0.8, 1.0, 1.1, 0.95]


def test_weakest_has_the_largest_p_and_then_the_lowest_limit():
    strong, near = part(STRONG, name="strong"), part([d - 0.5 for d in STRONG], name="near")
    mixed = part([0.9, -0.2, 1.0, 0.3, -0.4, 1.0, 0.1, 0.2], name="mixed")
    assert weakest((strong, near), 1) is near  # both unanimous, p = 2/256
    assert weakest((strong, near, mixed), 1) is mixed
    unknown = part([0.5], name="unknown")
    assert weakest((strong, mixed, unknown), 1) is unknown


def test_unanimous_five_patients_reach_no_level():
    assert part(STRONG[:5]).test.p_value == 0.0625


def test_turned_signs_turn_estimate_and_limits_and_keep_p():
    one, other = part([0.9, -0.2, 1.0, 0.3, 0.4, 1.0]), part([-0.9, 0.2, -1.0, -0.3, -0.4, -1.0])
    assert other.test.p_value == one.test.p_value
    assert other.fit.estimate == pytest.approx(-one.fit.estimate)
    assert (other.fit.ci_low, other.fit.ci_high) == pytest.approx((-one.fit.ci_high, -one.fit.ci_low))
    assert one.holds(1, p=0.03, alpha=0.05) is other.holds(-1, p=0.03, alpha=0.05)


def test_order_of_patients_does_not_matter():
    d = np.array([0.9, -0.2, 1.0, 0.3, 0.4, 1.0])
    one, other = part(d), part(d[::-1])
    assert other.test.p_value == one.test.p_value
    assert other.fit.estimate == pytest.approx(one.fit.estimate, abs=1e-12)


@pytest.mark.parametrize("nulls", [1, 3])
def test_type_one_error(nulls):
    """400 cohorts with components without an effect beside strong ones: the largest p stays at the level or below."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(400):
        shared = rng.normal(0, 0.5, 8)
        parts = [part(shared + rng.normal(0, 0.5, 8)) for _ in range(nulls)]
        parts += [part(shared + rng.normal(2, 0.5, 8)) for _ in range(3)]
        hits += max(one.test.p_value for one in parts) <= 0.05
    assert hits <= stats.binom.ppf(0.999, 400, 0.05)


@pytest.fixture(scope="module")
def enriched(lab):
    plan = load_plan(lab.plan_values())
    adata, cells = lab.simulate(lab.scenario(effect=0.45, slope_sd=0.05, seed=3))
    cohort = cohort_of(adata, cells, lab.panel, synonyms=lab.no_synonyms)
    settings = {"depth_repeats": 2, "max_cells_per_group": 60, "self_check_repeats": 20}
    contrast = evaluate_paired(cohort, plan.claim("P2"), plan.rules, settings=settings, seed=1)
    found = evaluate_specificity(contrast, plan.claim("P3"), plan.rules, families=FAMILIES, seed=1)
    return plan, found


def judged(plan, found, p=0.01):
    return judge_specificity(found, plan.rules, p_adjusted=p, gates={"C0": "SUPPORTED"})


def test_components_of_the_shipped_plan(enriched):
    plan, found = enriched
    claim = plan.claim("P3")
    assert (claim.a, claim.b, claim.primary_signature) == ("DTC", "PT", plan.claim("P2").primary_signature)
    assert [one.kind for one in found.components] == ["adjusted", "purged", "purged", "exceeds", "exceeds", "exceeds"]
    assert [one.minimum for one in found.components] == [0.25, 0.25, 0.25, 0, 0, 0]
    assert found.components[3].code == "CONTAMINATION"
    one = judged(plan, found)
    assert one.decision.verdict == "SUPPORTED"
    assert one.row["p_value"] == max(part.test.p_value for part in found.components)
    assert one.row["primary_signature"] == one.detail["weakest"] == weakest(found.components, 1).name
    primary = found.patients[found.patients["analysis"] == "primary"]
    assert primary["difference"].to_numpy() == pytest.approx(weakest(found.components, 1).difference)


def test_purged_component_is_the_contrast_itself(enriched):
    """P2 is tested without proliferation genes: that component repeats it exactly."""
    _, found = enriched
    assert found.components[1].fit.estimate == pytest.approx(found.contrast.fit.estimate)
    assert found.components[1].test.p_value == found.contrast.test.p_value


def replaced(found, index, values, **kinds):
    old = found.components[index]
    new = part(values, kind=old.kind, name=old.name, minimum=old.minimum, code=old.code, **kinds)
    parts = (*found.components[:index], new, *found.components[index + 1 :])
    return replace(found, components=parts)


def test_component_below_its_smallest_effect_refutes(enriched):
    plan, found = enriched
    flat = [0.02, -0.03, 0.0, 0.01, -0.02, 0.03, 0.0, -0.01]
    one = judged(plan, replaced(found, 2, flat, variance=0.001))
    assert one.decision.verdict == "NOT_SUPPORTED"
    assert one.detail["refuted"] == [found.components[2].name]


def test_control_that_rises_as_much_refutes_nothing_but_supports_nothing(enriched):
    """The difference to the control is around 0: its upper 90 % limit is not below 0."""
    plan, found = enriched
    level = [0.2, -0.25, 0.1, 0.15, -0.2, 0.3, -0.1, -0.05]
    one = judged(plan, replaced(found, 3, level))
    assert one.decision.verdict == "INCONCLUSIVE"
    assert "CONTAMINATION" in one.decision.codes
    assert judged(plan, replaced(found, 3, [-d for d in STRONG])).decision.verdict == "NOT_SUPPORTED"


def test_contaminated_cells_refute_nothing(enriched):
    plan, found = enriched
    refuted = replaced(found, 3, [-d for d in STRONG])
    controls = refuted.contrast.controls.copy()
    negative = controls["control"] == "negative_signature"
    assert negative.any()
    controls.loc[negative, "ok"] = False
    dirty = replace(refuted, contrast=replace(refuted.contrast, controls=controls))
    one = judged(plan, dirty)
    assert one.decision.verdict == "INCONCLUSIVE"
    assert "CONTAMINATION" in one.decision.codes


def test_wide_component_is_undecided_not_refuted(enriched):
    plan, found = enriched
    wide = [2.0, -1.5, 1.8, -1.0, 0.5, -0.4, 2.2, -1.9]
    one = judged(plan, replaced(found, 0, wide))
    assert one.decision.verdict == "INCONCLUSIVE"
    assert "IMPRECISE" in one.decision.codes


def test_component_that_cannot_be_scored_leaves_the_claim_open(enriched):
    plan, found = enriched
    one = judged(plan, replaced(found, 5, []), p=float("nan"))
    assert one.decision.verdict == "INCONCLUSIVE"
    assert "LOW_COVERAGE" in one.decision.codes
    assert np.isnan(one.row["p_value"])


def test_support_that_hangs_on_one_patient_is_fragile(enriched):
    plan, found = enriched
    lifted = [0.05, 0.4, 0.35, 0.3, 0.42, 0.38, 0.33, 0.1]
    one = judged(plan, replaced(found, 4, lifted, variance=0.001))
    assert one.decision.verdict == "SUPPORTED"
    one = judged(plan, replaced(found, 0, [0.1, 0.2, 0.2, 0.25, 0.2, 0.2, 0.22, 0.75], variance=0.001))
    assert one.decision.verdict == "INCONCLUSIVE"
    assert "FRAGILE" in one.decision.codes


def test_refutation_needs_one_component_that_no_patient_carries(enriched):
    plan, found = enriched
    # below the control, but not without the patients who are furthest below
    shaky = [-0.47, -0.39, -0.24, -0.68, -0.02, -0.23, -0.2, -0.1]
    one = judged(plan, replaced(found, 4, shaky, variance=0.01))
    assert one.detail["refuted"] == [found.components[4].name]
    assert (one.decision.verdict, one.decision.codes[-1]) == ("INCONCLUSIVE", "FRAGILE")
    flat = [0.02, -0.03, 0.0, 0.01, -0.02, 0.03, 0.0, -0.01]
    both = replaced(replaced(found, 0, flat, variance=0.001), 4, shaky, variance=0.01)
    assert judged(plan, both).decision.verdict == "NOT_SUPPORTED"


def test_more_evidence_against_undoes_no_refutation(enriched):
    """One precisely refuted component; a second one refuted as well, with a wide interval."""
    plan, found = enriched
    flat = replaced(found, 0, [0.02, -0.03, 0.0, 0.01, -0.02, 0.03, 0.0, -0.01], variance=0.001)
    assert judged(plan, flat).decision.verdict == "NOT_SUPPORTED"
    wide = replaced(flat, 4, [-4.0, -3.0, -5.0, -2.5, -6.0, -3.5, -2.0, -4.5], variance=0.5)
    one = judged(plan, wide)
    assert len(one.detail["refuted"]) == 2
    assert one.decision.verdict == "NOT_SUPPORTED"


def test_a_component_that_cannot_be_scored_does_not_switch_the_rules_off(enriched):
    """Contaminated cells, one refuted component, one unscorable: undecided, with the codes of both."""
    plan, found = enriched
    refuted = replaced(replaced(found, 3, [-d for d in STRONG]), 2, [])
    assert judged(plan, refuted).decision.verdict == "NOT_SUPPORTED"
    controls = refuted.contrast.controls.assign(ok=False)
    one = judged(plan, replace(refuted, contrast=replace(refuted.contrast, controls=controls)))
    assert one.decision.verdict == "INCONCLUSIVE"
    assert "CONTAMINATION" in one.decision.codes


def test_a_component_that_goes_the_wrong_way_is_the_weakest(enriched):
    plan, found = enriched
    one = judged(plan, replaced(replaced(found, 1, [0.1, 0.5, 0.6, 0.2, 0.4, 0.3, -0.1, 0.2]), 4, [-d for d in STRONG]))
    assert one.row["estimate"] < 0


def test_covariates_of_the_plan_must_be_measured(enriched):
    plan, found = enriched
    assert judged(plan, found).decision.verdict == "SUPPORTED"
    lacking = replace(found, contrast=replace(found.contrast, covariates_missing=("pct_mt",)))
    one = judged(plan, lacking)
    assert one.decision.verdict == "INCONCLUSIVE"
    assert "NO_DATA" in one.decision.codes


def test_refuting_levels_are_divided_by_the_number_of_components():
    """Six true effects, each at its smallest effect of interest: one of them is refuted in at most 5 % of cohorts."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(400):
        shared = rng.normal(0, 0.5, 8)
        parts = [part((0.25 + shared + rng.normal(0, 0.5, 8)).tolist(), minimum=0.25, variance=0.05) for _ in range(6)]
        hits += any(one.refuted(1, of=6) for one in parts)
    assert hits / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
