"""Contrasts between groups of different people."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dtcflow.evidence.design import find_unpaired_aliasing
from dtcflow.evidence.unpaired import People, exchange_labels, welch


def people(a, b, study=None):
    value = np.array([*a, *b], float)
    side = np.array([0] * len(a) + [1] * len(b))
    return People(value, side, np.array(study if study is not None else ["s"] * value.size))


def test_one_study_is_welchs_t_test():
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 1, 7), rng.normal(0, 2, 11)
    found = welch(people(a, b))
    expected = stats.ttest_ind(a, b, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert found.estimate == pytest.approx(a.mean() - b.mean())
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high))
    assert (found.ci90_low, found.ci90_high) == pytest.approx(tuple(expected.confidence_interval(0.90)))
    assert found.n == 18


def test_exchanging_labels_is_the_enumeration():
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.8, 1, 4), rng.normal(0, 1, 5)
    values = np.concatenate([a, b])
    means = []
    for chosen in itertools.combinations(range(9), 4):
        mask = np.isin(np.arange(9), chosen)
        means.append(abs(values[mask].mean() - values[~mask].mean()))
    found = exchange_labels(people(a, b))
    assert found.exact
    assert found.n_patterns == 126
    assert found.p_value == pytest.approx(np.mean(np.array(means) >= abs(a.mean() - b.mean()) - 1e-12))


def test_labels_stay_within_their_study():
    """A study with high values in all its patients says nothing about the groups."""
    value_a, value_b = [0.0, 0.1, 10.0, 10.1, 10.2, 10.3], [0.05, 0.15, 0.2, 0.1, 10.15, 10.05]
    study = ["x", "x", "y", "y", "y", "y", "x", "x", "x", "x", "y", "y"]
    found = exchange_labels(people(value_a, value_b, study))
    assert found.n_patterns == 15 * 15
    assert found.p_value > 0.1
    assert abs(welch(people(value_a, value_b, study)).estimate) < 0.2
    assert welch(people(value_a, value_b)).estimate == pytest.approx(10 / 3)


def test_study_with_one_group_takes_no_part():
    one = people([1.0, 1.2, 0.8], [0.0, 0.2, 0.1, 99.0], ["x"] * 6 + ["y"])
    assert one.counting().tolist() == [True] * 6 + [False]
    assert welch(one).n == 6
    assert welch(one).estimate == pytest.approx(1.0 - 0.1)
    nothing = people([1.0, 2.0], [0.0, 0.1], ["x", "x", "y", "y"])
    assert welch(nothing).n == 0
    assert np.isnan(exchange_labels(nothing).p_value)


def test_missing_values_do_not_count():
    found = welch(people([1.0, np.nan, 1.2], [0.0, 0.2]))
    assert found.n == 4


def test_exchanged_groups_turn_the_sign_and_order_does_not_matter():
    rng = np.random.default_rng(3)
    one = People(rng.normal(0, 1, 16), rng.permutation([0, 1] * 8), rng.permutation(["x", "y"] * 8))
    other = People(one.value, 1 - one.side, one.study)
    assert welch(other).estimate == pytest.approx(-welch(one).estimate)
    assert welch(other).standard_error == pytest.approx(welch(one).standard_error)
    assert exchange_labels(other).p_value == pytest.approx(exchange_labels(one).p_value)
    order = rng.permutation(16)
    again = People(one.value[order], one.side[order], one.study[order])
    assert exchange_labels(again).p_value == exchange_labels(one).p_value
    assert welch(again).estimate == pytest.approx(welch(one).estimate, abs=1e-12)


def test_many_people_are_sampled_with_a_seed_and_never_reach_zero():
    rng = np.random.default_rng(4)
    one = people(rng.normal(9, 1, 15), rng.normal(0, 1, 15))
    found = exchange_labels(one, seed=1)
    assert not found.exact
    assert found.p_value == 1 / 10_001
    level = people(rng.normal(0.3, 1, 15), rng.normal(0, 1, 15))
    assert exchange_labels(level, seed=1).p_value == exchange_labels(level, seed=1).p_value


@pytest.mark.parametrize(("n_a", "n_b", "studies"), [(6, 6, 1), (6, 14, 2)])
def test_type_one_error(n_a, n_b, studies):
    """400 cohorts without a difference, studies at different levels: at most .05 within binomial bounds."""
    rng = np.random.default_rng(5)
    hits = excluded = 0
    for _ in range(400):
        study = np.array([f"s{i % studies}" for i in range(n_a)] + [f"s{i % studies}" for i in range(n_b)])
        level = {name: rng.normal(0, 3) for name in set(study)}
        value = rng.normal(0, 1, n_a + n_b) + np.array([level[name] for name in study])
        one = People(value, np.array([0] * n_a + [1] * n_b), study)
        hits += exchange_labels(one).p_value <= 0.05
        fit = welch(one)
        excluded += fit.ci_low > 0 or fit.ci_high < 0
    assert hits <= stats.binom.ppf(0.999, 400, 0.05)
    assert excluded <= stats.binom.ppf(0.999, 400, 0.05)


# ---------------------------------------------------------------------------------------------------------------------
# Design
# ---------------------------------------------------------------------------------------------------------------------


def samples(rows, names=("study", "batch")):
    return pd.DataFrame(rows, columns=["patient_id", "side", *names])


def test_group_that_is_the_study_is_confounded():
    found = find_unpaired_aliasing(samples([(f"P{i}", i % 2, f"study{i % 2}", "b") for i in range(12)]))
    assert found.factors == ("study",)


def test_group_that_is_the_batch_within_its_study_is_confounded():
    rows = [(f"P{i}", i % 2, "s", f"batch{i % 2}") for i in range(12)]
    assert find_unpaired_aliasing(samples(rows)).factors == ("batch",)
    # one patient who crosses does not make up for eleven
    rows[0] = ("P0", 0, "s", "batch1")
    assert find_unpaired_aliasing(samples(rows)).factors == ("batch",)


def test_mixed_batches_and_batches_of_a_study_are_fine():
    rows = [(f"P{i}", i % 2, f"study{i // 6}", f"batch{i // 6}") for i in range(12)]
    assert not find_unpaired_aliasing(samples(rows)).confounded
    rows = [(f"P{i}", i % 2, "s", f"batch{i // 2 % 2}") for i in range(12)]
    assert not find_unpaired_aliasing(samples(rows)).confounded


def test_a_study_with_two_platforms_cannot_be_brought_to_one_depth():
    rows = [(f"P{i}", i % 2, "s", "plate" if i < 2 else "droplet") for i in range(12)]
    assert find_unpaired_aliasing(samples(rows, ("study", "platform"))).factors == ("platform",)
    apart = [(name, side, f"s{platform}", platform) for name, side, _, platform in rows]
    assert not find_unpaired_aliasing(samples(apart, ("study", "platform"))).confounded


def test_nothing_to_compare():
    assert not find_unpaired_aliasing(samples([("P0", 0, "s", "b")])).confounded
    assert not find_unpaired_aliasing(samples([])).confounded


# ---------------------------------------------------------------------------------------------------------------------
# The whole claim
# ---------------------------------------------------------------------------------------------------------------------


def unpaired_plan(lab, **changes):
    values = lab.plan_values()
    values["claims"] = [claim for claim in values["claims"] if claim["id"] != "P3"]
    values["hypothesis"]["necessary"] = ["P1", "P2"]
    p2 = next(claim for claim in values["claims"] if claim["id"] == "P2")
    p2 |= {"design": "unpaired", **changes}
    return values


def halves(lab, **scenario):
    """Sixteen patients: eight with marrow only, eight with a primary only."""
    adata, cells = lab.simulate(lab.scenario(n_patients=16, **scenario))
    keep = ((cells["compartment"] == "marrow") == cells["patient_id"].isin([f"P{i}" for i in range(8)])).to_numpy()
    return adata[keep].copy(), cells[keep].reset_index(drop=True)


def test_unpaired_claim_from_cells_to_verdict(lab):
    adata, cells = halves(lab, effect=0.9, seed=5)
    result = lab.evaluate(adata, cells, plan=unpaired_plan(lab))
    row = result.claims.set_index("claim_id").loc["P2"]
    assert row["estimate"] > 0.5
    assert row["n_patients"] == 16
    assert row["p_value"] <= 2 / 12870 * 20
    own = result.patients.query("claim_id == 'P2' and analysis == 'primary'")
    assert own["usable"].sum() == 16
    assert own["value_a"].notna().sum() == own["value_b"].notna().sum() == 8
    detail = result.verdict["claims"]["P2"]
    assert "within study" in detail["method"]
    assert detail["adjusted"]["n"] == 16
    assert np.isfinite(row["sensitivity_agreement"])
    order = np.random.default_rng(1).permutation(len(cells))
    again = lab.evaluate(adata[order].copy(), cells.iloc[order].reset_index(drop=True), plan=unpaired_plan(lab))
    pd.testing.assert_frame_equal(again.claims, result.claims)


def test_unpaired_groups_of_two_studies_are_confounded(lab):
    adata, cells = halves(lab, effect=0.9, seed=5)
    cells["study"] = "study_" + cells["compartment"]
    result = lab.evaluate(adata, cells, plan=unpaired_plan(lab))
    row = result.claims.set_index("claim_id").loc["P2"]
    assert row["verdict"] == "INCONCLUSIVE"
    assert "CONFOUNDED" in row["codes"]
    assert np.isnan(row["estimate"])


def test_unpaired_claim_without_the_other_group_has_no_data(lab):
    adata, cells = lab.simulate(lab.scenario(n_patients=3))
    keep = (cells["compartment"] == "marrow").to_numpy()
    result = lab.evaluate(adata[keep].copy(), cells[keep].reset_index(drop=True), plan=unpaired_plan(lab))
    assert "NO_DATA" in result.claims.set_index("claim_id").loc["P2", "codes"]
