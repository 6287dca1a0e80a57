import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dtcflow.evidence import controls
from dtcflow.evidence.contrasts import Differences, lay_out
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.scoring import Scored


@pytest.fixture
def plan(lab):
    return load_plan(lab.plan_path)


@pytest.mark.parametrize(
    ("low", "high", "sign", "expected"),
    [
        (-0.1, 0.9, 1, False),  # includes 0
        (0.1, 0.4, 1, False),  # above 0, below the SESOI
        (0.1, 0.6, 1, True),
        (-0.9, -0.6, 1, False),  # the other way
        (-0.9, -0.6, -1, True),
        (0.6, 0.9, -1, True),  # blood raises its own sets, whatever the claim predicts
        (0.1, 0.4, -1, False),
        (float("nan"), float("nan"), 1, False),
    ],
)
def test_contamination_rule(low, high, sign, expected):
    assert controls.contaminated(low, high, sign=sign, sesoi=0.5) is expected


def cohort(n_patients, n_a=8, n_b=40):
    rows = []
    for p in range(n_patients):
        for compartment, n in (("marrow", n_a), ("primary", n_b)):
            rows += [
                {"cell_id": f"{p}{compartment}{i}", "sample_id": f"{p}{compartment}", "patient_id": f"P{p}",
                 "compartment": compartment, "malignant_call": "malignant", "malignancy_q": 0.0}
                for i in range(n)
            ]  # fmt: skip
    return lay_out(pd.DataFrame(rows), a="DTC", b="PT", strict_q=0.01)


def scored(layout, seed=0, repeats=2, share=None):
    rng = np.random.default_rng(seed)
    n = len(layout.table)
    matched = tuple(rng.normal(layout.side[:, None] * -3.0, 1, (n, 1)) for _ in range(repeats))
    return Scored(
        names=("S",),
        matched=matched,
        full=matched[0] + 0.2,
        depth=(np.zeros((n, 2)),),
        null={},
        coverage=pd.DataFrame(),
        share=np.ones(n) if share is None else share,
        n_counts=np.ones(n),
        n_genes=np.ones(n),
        n_genes_used=1,
    )


def test_splits_use_reference_cells_only_and_keep_their_number(plan):
    layout = cohort(8)
    check = controls.split_reference(layout, scored(layout), 0, plan.rules, repeats=200, scale=1.0, seed=1)
    # the compartments differ by 3; splits of one compartment do not
    assert check.differences.shape == (8, 200)
    assert abs(check.differences.mean()) < 0.1
    # sd of a mean of 8 against a mean of 32 cells
    assert check.differences.std() == pytest.approx(np.sqrt(1 / 8 + 1 / 32), rel=0.1)


def test_split_rejects_at_the_attainable_level_and_finds_what_is_planted(plan):
    layout = cohort(8)
    check = controls.split_reference(layout, scored(layout), 0, plan.rules, repeats=400, scale=1.0, seed=1)
    split, planted = controls.split_controls(plan.claim("P2"), plan.rules, check, seed=1)
    # 12/256 is attainable; splits of one cohort share their cells, so the band is wide
    assert split["rate"] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert split["ok"]
    assert planted["rate"] > 0.9
    assert planted["estimate"] == pytest.approx(1.0 + split["estimate"])
    assert planted["ok"]


def test_patients_with_few_reference_cells_are_halved_or_left_out(plan):
    layout = cohort(4, n_a=8, n_b=7)
    check = controls.split_reference(layout, scored(layout), 0, plan.rules, repeats=5, scale=1.0, seed=1)
    assert check.patients.tolist() == [0, 1, 2, 3]
    layout = cohort(4, n_a=8, n_b=5)
    check = controls.split_reference(layout, scored(layout), 0, plan.rules, repeats=5, scale=1.0, seed=1)
    assert check.patients.size == 0
    rows = controls.split_controls(plan.claim("P2"), plan.rules, check, seed=1)
    assert [row["ok"] for row in rows] == [False, False]
    assert np.isnan(rows[0]["rate"])


def test_split_that_finds_an_effect_is_reported(plan):
    check = controls.SelfCheck(np.full((8, 50), 1.0), np.arange(8))
    split, _ = controls.split_controls(plan.claim("P2"), plan.rules, check, seed=1)
    assert split["rate"] == 1.0
    assert not split["ok"]


def test_a_test_that_cannot_reject_has_no_rate(plan):
    """With five patients no p is below .0625: a rate of 0 would look like a perfect test."""
    check = controls.SelfCheck(np.random.default_rng(0).normal(0, 5, (5, 200)), np.arange(5))
    for row in controls.split_controls(plan.claim("P2"), plan.rules, check, seed=1):
        assert np.isnan([row["rate"], row["rate_se"], row["rate_high"]]).all()
        assert row["expectation"].endswith("with 5 patients the test cannot reject")
    null = controls.GeneSetNull(np.zeros(9), None)
    assert np.isnan(controls.random_set_control(plan.claim("P2"), null, 1.0, 5)["rate"])


def test_differences_without_a_unit_have_no_rate(plan):
    check = controls.SelfCheck(np.full((8, 50), np.nan), np.arange(8))
    for row in controls.split_controls(plan.claim("P2"), plan.rules, check, seed=1):
        assert np.isnan(row["rate"])
        assert not row["ok"]


@pytest.mark.parametrize(("hits", "high"), [(0, 0.0149), (10, 0.0833), (200, 1.0)])
def test_nothing_rejected_is_a_small_rate_and_not_none(hits, high):
    found = controls.rejections(hits, 200)
    assert found["rate"] == hits / 200
    assert found["rate_high"] == pytest.approx(high, abs=1e-4)
    if hits < 200:  # the chance of so few at the limit is 5 %
        assert stats.binom.cdf(hits, 200, found["rate_high"]) == pytest.approx(0.05)
    assert found["rate_se"] > 0


def test_depth_control_measures_the_shift_of_thinned_cells(plan):
    layout = cohort(6)
    share = np.where(layout.side == 1, 0.4, 1.0)
    row = controls.depth_control(plan.claim("P2"), plan.rules, layout, scored(layout, repeats=1, share=share), 0, 0.5)
    assert row["estimate"] == pytest.approx(-0.4)  # 0.2 lower, in units of .5
    assert not row["ok"]
    assert row["n_patients"] == 6
    same = controls.depth_control(plan.claim("P2"), plan.rules, layout, scored(layout), 0, 0.5)
    assert same["ok"]
    assert same["n_patients"] == 0


def differences_of(d, v=0.01):
    d = np.asarray(d, dtype=float)[:, None]
    n = len(d)
    return Differences(d, d, d, np.full_like(d, v), np.ones(1), np.ones(n, dtype=bool), np.full((n, 2), 9))


def test_label_flips_enumerate_and_centre_on_zero(plan):
    row = controls.flip_control(plan.claim("P2"), differences_of([1.0, 1.1, 0.9, 1.0, 1.05, 0.95]), 0, seed=1)
    assert row["n_repeats"] == 64
    assert row["estimate"] == pytest.approx(0, abs=1e-9)
    # only the pattern observed and its mirror image exclude zero
    assert row["rate"] == pytest.approx(2 / 64)
    assert row["ok"]
    assert controls.flip_control(plan.claim("P2"), differences_of([1.0] * 14), 0, seed=1)["n_repeats"] == 256
    assert not controls.flip_control(plan.claim("P2"), differences_of([1.0, 1.0]), 0, seed=1)["ok"]


def test_random_sets_as_a_control(plan):
    null = controls.GeneSetNull(np.array([-0.2, 0.0, 0.1]), 0.05)
    row = controls.random_set_control(plan.claim("P2"), null, 0.25, 8)
    assert (row["estimate"], row["p_value"], row["ok"], row["n_repeats"]) == (0.0, 0.25, True, 3)
    off = controls.GeneSetNull(np.array([0.8, 0.9, 1.0]), 1.0)
    assert not controls.random_set_control(plan.claim("P2"), off, 0.25, 8)["ok"]
    assert not controls.random_set_control(plan.claim("P2"), controls.NO_NULL, np.nan, 8)["ok"]


def test_control_that_cannot_be_scored_does_not_hold(plan):
    layout = cohort(6)
    rows = controls.negative_controls(plan.claim("P2"), scored(layout), differences_of([0.0] * 6))
    assert [row["ok"] for row in rows] == [False, False]
    assert all(np.isnan(row["estimate"]) for row in rows)
