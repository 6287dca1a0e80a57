"""Two endpoints that must both hold: shares at equal numbers of cells, and the joint decision."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dtcflow.evidence.composite import (
    Composite,
    angle,
    compare_shares,
    evaluate_composite,
    expected_angle,
    joint_p,
    judge_composite,
)
from dtcflow.evidence.decide import refutes
from dtcflow.evidence.inference import random_effects, sign_flip
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.run import cohort_of
from dtcflow.evidence.within import leave_one_out


@pytest.mark.parametrize(("cycling", "cells", "size"), [(0, 6, 3), (2, 6, 3), (6, 6, 4), (3, 7, 7), (1, 5, 1)])
def test_expectation_over_subsets_is_the_enumeration(cycling, cells, size):
    flags = [1] * cycling + [0] * (cells - cycling)
    values = [float(angle(float(sum(chosen)), float(size))) for chosen in itertools.combinations(flags, size)]
    assert expected_angle(cycling, cells, size) == pytest.approx(np.mean(values))


def shares(cycling, patient, side, sign=-1):
    return compare_shares([np.asarray(cycling, float)], np.array(patient), np.array(side), minimum=3, sign=sign)


def simulated(rng, n_patients, share_a, share_b, n_a=(5, 40), n_b=150):
    cycling, patient, side = [], [], []
    for p in range(n_patients):
        for k, (n, share) in enumerate(((int(rng.integers(*n_a)), share_a), (n_b, share_b))):
            cycling.append((rng.random(n) < share).astype(float))
            patient.append(np.full(n, p))
            side.append(np.full(n, k))
    return np.concatenate(cycling), np.concatenate(patient), np.concatenate(side)


def test_equal_shares_differ_by_nothing_on_average_at_any_number_of_cells():
    """A plain difference of arcsines would not: with ten cells and a share of .05 it is off by a third of its range."""
    rng = np.random.default_rng(1)
    found, plain = [], []
    for _ in range(300):
        cycling, patient, side = simulated(rng, 4, 0.05, 0.05, n_a=(8, 9))
        one = shares(cycling, patient, side)
        found += one.difference.tolist()
        k = [[cycling[(patient == p) & (side == s)].sum() for s in (0, 1)] for p in range(4)]
        plain += [float(angle(a, 8.0) - angle(b, 150.0)) for a, b in k]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error
    assert abs(np.mean(plain)) > 10 * error


def test_exchanged_sides_turn_the_sign_and_order_does_not_matter():
    cycling, patient, side = simulated(np.random.default_rng(2), 6, 0.1, 0.4)
    one, other = shares(cycling, patient, side), shares(cycling, patient, 1 - side)
    assert other.difference == pytest.approx(-one.difference)
    assert other.variance == pytest.approx(one.variance)
    order = np.random.default_rng(3).permutation(cycling.size)
    again = shares(cycling[order], patient[order], side[order])
    assert np.array_equal(again.difference, one.difference)
    assert sign_flip(again.difference[::-1]).p_value == sign_flip(one.difference).p_value


def test_patient_with_too_few_scored_cells_has_no_value():
    found = shares([1, 0, np.nan, 1, 1, 0, 0], [0] * 7, [0, 0, 0, 1, 1, 1, 1])
    assert np.isnan(found.difference).all()
    assert found.n.tolist() == [[2, 4]]


def test_room_is_what_no_cycling_cell_would_give():
    found = shares([1] * 5 + [1, 0, 0, 0, 0], [0] * 10, [0] * 5 + [1] * 5)
    assert found.room[0] == pytest.approx(float(angle(1.0, 5.0) - angle(0.0, 5.0)))
    # nothing cycles in the reference: the share cannot fall
    assert shares([0] * 10, [0] * 10, [0] * 5 + [1] * 5).room[0] == pytest.approx(0)


def test_joint_p_is_the_largest_and_unknown_where_one_is():
    assert joint_p([0.01, 0.04]) == 0.04
    assert np.isnan(joint_p([0.01, float("nan")]))


@pytest.mark.parametrize("share", [0.03, 0.2])
def test_type_one_error_of_the_cycling_endpoint(share):
    """400 cohorts of eight patients without a difference, few cells on one side: at most .05 within binomial bounds."""
    rng = np.random.default_rng(4)
    p = [sign_flip(shares(*simulated(rng, 8, share, share)).difference).p_value for _ in range(400)]
    hits = int((np.array(p) <= 0.05).sum())
    assert hits <= stats.binom.ppf(0.999, 400, 0.05)


@pytest.mark.parametrize("effects", [(0.0, -1.5), (1.5, 0.0), (0.0, 0.0)])
def test_type_one_error_of_both_endpoints_together(effects):
    """One endpoint without an effect is enough for the null; the other may be as strong as it likes."""
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(400):
        d = [rng.normal(effect, 1.0, 8) for effect in effects]
        hits += joint_p([sign_flip(one).p_value for one in d]) <= 0.05
    assert hits <= stats.binom.ppf(0.999, 400, 0.05)


def test_five_patients_can_never_be_significant():
    d = np.array([0.9, 1.1, 1.0, 1.2, 0.8])
    assert joint_p([sign_flip(d).p_value, sign_flip(-d).p_value]) == 0.0625


@pytest.fixture(scope="module")
def resting(lab):
    """Eight patients whose DTCs have the G0 programme up and no cycling cells, against a tenth in the primary."""
    adata, cells = lab.simulate(
        lab.scenario(n_dtc=16, n_pt=60, effect=0.6, raised=("WIECEK_G0_ARREST",), slope_sd=0.02, seed=12)
    )
    return adata, cells


def evaluated(lab, adata, cells, **changes):
    plan = load_plan(lab.plan_values(context=True))
    claim = replace(plan.claim("C4"), **changes)
    cohort = cohort_of(adata, cells, lab.panel, synonyms=lab.no_synonyms)
    settings = {"depth_repeats": 2, "max_cells_per_group": 60, "self_check_repeats": 20}
    return plan, evaluate_composite(cohort, claim, plan.rules, settings=settings, seed=1)


def judged(plan, found, p=None):
    p = found.p_value if p is None else p
    return judge_composite(found, plan.rules, p_adjusted=p, gates={"C0": "SUPPORTED"})


def with_cycling(found: Composite, d, room=0.3) -> Composite:
    d = np.asarray(d, float)
    variance = np.full(d.size, 0.002)
    shares_ = replace(
        found.shares,
        difference=d,
        variance=variance,
        room=np.full(d.size, room),
        n=np.full((d.size, 2), 60),
    )
    return replace(found, shares=shares_, fit=random_effects(d, variance), test=sign_flip(d))


ENDS = (("low", -1), ("high", 1))
DOWN = [-0.25, -0.3, -0.28, -0.33, -0.24, -0.27, -0.31, -0.26]
FLAT = [0.01, -0.02, 0.0, 0.02, -0.01, 0.01, -0.02, 0.0]


def test_both_endpoints_must_hold(lab, resting):
    plan, found = evaluated(lab, *resting)
    assert found.contrast.fit.estimate > 0.5
    assert judged(plan, with_cycling(found, DOWN)).decision.verdict == "SUPPORTED"
    # the score is up, the share of cycling cells has not moved: refuted, although the estimate shown is large
    refuted = judged(plan, with_cycling(found, FLAT))
    assert refuted.decision.verdict == "NOT_SUPPORTED"
    assert refuted.row["estimate"] == found.contrast.fit.estimate
    # the share rises
    assert judged(plan, with_cycling(found, [-d for d in DOWN])).decision.verdict == "NOT_SUPPORTED"


def test_either_of_two_endpoints_refutes_at_half_the_level(lab, resting):
    """An upper 90 % limit below the smallest effect is enough for a claim of one endpoint, not of two."""
    plan, found = evaluated(lab, *resting)
    cycling = with_cycling(found, FLAT)
    sesoi, n = found.claim.cycling_sesoi, len(FLAT)
    for tail, expected in ((0.05, "INCONCLUSIVE"), (0.025, "NOT_SUPPORTED")):
        error = 0.99 * sesoi / float(stats.t.isf(tail, n - 1))
        quantiles = {"ci_": stats.t.isf(0.025, n - 1), "ci90_": stats.t.isf(0.05, n - 1)}
        limits = {f"{name}{end}": sign * q * error for name, q in quantiles.items() for end, sign in ENDS}
        fit = replace(cycling.fit, estimate=0.0, standard_error=error, **limits)
        assert refutes(fit, sign=-1, sesoi=sesoi)
        assert judged(plan, replace(cycling, fit=fit)).decision.verdict == expected


def test_support_needs_the_cycling_endpoint_to_reach_its_smallest_effect_without_any_patient(lab, resting):
    plan, found = evaluated(lab, *resting)
    one = judged(plan, with_cycling(found, [-0.13, -0.135, -0.125, -0.132, -0.128, -0.129, -0.131, -0.3]))
    assert one.decision.verdict == "INCONCLUSIVE"
    assert "FRAGILE" in one.decision.codes


def test_more_evidence_against_undoes_no_refutation(lab, resting):
    """A score that is refuted stays so when the share of cycling cells speaks against the claim as well."""
    plan, found = evaluated(lab, *resting)
    n = len(found.contrast.layout.patients)
    flat = random_effects(np.linspace(-0.03, 0.03, n), np.full(n, 0.002))
    names = list(found.contrast.layout.patients)
    loo = leave_one_out(names, np.linspace(-0.03, 0.03, n), np.full(n, 0.002))
    robustness = replace(found.contrast.robustness, leave_one_out=loo, below_sesoi=1.0)
    refuted = replace(found, contrast=replace(found.contrast, fit=flat, robustness=robustness))
    assert judged(plan, with_cycling(refuted, DOWN)).decision.verdict == "NOT_SUPPORTED"
    # up in most, in one patient not: refuted at half the level, but only by some of the patients
    assert judged(plan, with_cycling(refuted, [0.35, 0.3, 0.28, 0.33, 0.4, 0.3, 0.31, -0.5])).decision.verdict == (
        "NOT_SUPPORTED"
    )
    # and with a share that rises everywhere, an imprecise score does not stand in the way
    wide = replace(found, contrast=replace(found.contrast, fit=random_effects([3.0, -3.0] * 4, np.full(8, 0.01))))
    assert judged(plan, with_cycling(wide, [-d for d in DOWN])).decision.verdict == "NOT_SUPPORTED"


def test_primary_at_rest_leaves_no_room_and_refutes_nothing(lab, resting):
    plan, found = evaluated(lab, *resting)
    one = judged(plan, with_cycling(found, FLAT, room=0.05))
    assert one.decision.verdict == "INCONCLUSIVE"
    assert "IMPRECISE" in one.decision.codes


def test_effect_of_cell_cycle_genes_alone_is_not_dormancy(lab, resting):
    plan, found = evaluated(lab, *resting)
    gone = {name: replace(fit, estimate=0.1) for name, fit in found.purged.items()}
    one = judged(plan, replace(with_cycling(found, DOWN), purged=gone))
    assert one.decision.verdict == "INCONCLUSIVE"
    assert one.decision.codes == ("NOT_ROBUST_TO_COVARIATES",)


def test_too_large_an_adjusted_p_is_no_support(lab, resting):
    plan, found = evaluated(lab, *resting)
    assert judged(plan, with_cycling(found, DOWN), p=0.06).decision.verdict == "INCONCLUSIVE"


def test_rows_of_the_shares_stand_beside_those_of_the_score(lab, resting):
    _, found = evaluated(lab, *resting)
    rows = found.patients[found.patients["analysis"] == "cycling"]
    assert len(rows) == 8
    assert rows["usable"].all()
    assert rows["value_b"].between(0, 1).all()
    assert found.fit.n == 8


def test_a_cell_without_a_score_in_one_repeat_takes_no_part():
    first = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    second = first.copy()
    second[1] = np.nan
    patient, side = np.zeros(6, dtype=np.int64), np.array([0, 0, 0, 1, 1, 1])
    found = compare_shares([first, second], patient, side, minimum=2, sign=-1)
    assert found.n.tolist() == [[2, 3]]
    assert found.share[0].tolist() == pytest.approx([0.5, 2 / 3])
