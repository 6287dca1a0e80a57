import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dtcflow import cli
from dtcflow.contracts import InputError
from dtcflow.evidence import planning
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.power import paired_power
from dtcflow.plot import style
from dtcflow.plot.planning import draw_power

MANY = planning.Design(10, dtcs=40, dtc_floor=20)


@pytest.fixture(scope="module")
def plan(lab):
    return load_plan(lab.plan_path)


@pytest.fixture(scope="module")
def claim(plan):
    return planning.contrast_of(plan, "P2")


def rate(found, what):
    return np.mean([what(one) for one in found])


def test_the_test_keeps_its_level_and_has_the_power_of_the_closed_form(plan, claim):
    n = 200
    null = planning.outcomes(plan, claim, MANY, 0.0, cohorts=n, seed=3)
    # attainable level of the exact test with ten patients: .049
    assert rate(null, lambda one: one.p_value <= 0.05) <= stats.binom.ppf(0.999, n, 0.049) / n
    assert rate(null, lambda one: one.decision.verdict == "SUPPORTED") <= stats.binom.ppf(0.999, n, 0.05) / n
    shifted = planning.outcomes(plan, claim, MANY, 0.6, cohorts=n, seed=3)
    sd = planning.closed_form(MANY, claim, plan.rules)["sd"]
    # the sign-flip test is a little weaker than the t test; standard error .03
    assert rate(shifted, lambda one: one.p_value <= 0.05) == pytest.approx(paired_power(0.6, sd, 10), abs=0.1)
    assert np.mean([one.estimate for one in shifted]) == pytest.approx(0.6, abs=0.06)
    covered = rate(shifted, lambda one: one.ci_low <= 0.6 <= one.ci_high)
    assert stats.binom.ppf(0.001, n, 0.95) / n <= covered <= 1.0


def test_a_large_effect_is_supported_and_none_refuted(plan, claim):
    large = planning.outcomes(plan, claim, MANY, 1.5, cohorts=40, seed=4)
    assert rate(large, lambda one: one.decision.verdict == "SUPPORTED") >= 0.9
    none = planning.outcomes(plan, claim, replace(MANY, slope_sd=0.1, patients=15), 0.0, cohorts=40, seed=4)
    assert rate(none, lambda one: one.decision.verdict == "NOT_SUPPORTED") >= 0.9


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"patients": 4}, "LOW_N"),
        ({"depth": 600.0}, "LOW_QUALITY"),
        ({"dtcs": 1.0, "dtc_floor": 3}, "LOW_CELLS"),
        ({"slope_sd": 2.5}, "IMPRECISE"),
        ({"called_share": 0.4}, "GATE_FAILED"),
    ],
)
def test_what_a_design_lacks_is_named(plan, claim, change, code):
    found = planning.outcomes(plan, claim, replace(MANY, **change), 0.3, cohorts=10, seed=5)
    assert rate(found, lambda one: code in one.decision.codes) >= 0.8
    assert rate(found, lambda one: one.decision.verdict == "SUPPORTED") == 0


def test_patients_without_enough_cells_drop_out(plan, claim):
    few = replace(MANY, dtcs=0.5, dtc_floor=1)
    found = planning.outcomes(plan, claim, few, 1.0, cohorts=5, seed=6)
    assert all("LOW_N" in one.decision.codes for one in found)
    assert all(np.isnan(one.p_value) for one in found)


def test_a_claim_in_the_other_direction(plan, claim):
    down = replace(claim, direction="less")
    found = planning.outcomes(plan, down, MANY, 1.5, cohorts=10, seed=7)
    assert rate(found, lambda one: one.decision.verdict == "SUPPORTED") >= 0.8
    assert np.mean([one.estimate for one in found]) == pytest.approx(-1.5, abs=0.3)


def test_more_confirmatory_claims_cost_power(plan, claim):
    values = json.loads(json.dumps(plan.values))
    for one in values["claims"]:
        if one["id"] != "P2" and one["family"] == "confirmatory":
            one["family"] = "none"
    lone = load_plan(values)
    design = replace(MANY, patients=6)
    alone = planning.outcomes(lone, lone.claim("P2"), design, 1.5, cohorts=10, seed=8)
    beside = planning.outcomes(plan, claim, design, 1.5, cohorts=10, seed=8)
    assert rate(alone, lambda one: one.decision.verdict == "SUPPORTED") > 0.5
    # with six patients the smallest p is .031: times the claims of the family it decides nothing
    assert rate(beside, lambda one: one.decision.verdict == "SUPPORTED") == 0


def test_depth_tables():
    assert planning.Design(8, depth=500).genes_per_cell() == 340
    assert planning.Design(8, depth=250).genes_per_cell() == 170
    assert planning.Design(8, depth=1e6).genes_per_cell() == 3296
    assert 986 < planning.Design(8, depth=2400).genes_per_cell() < 1321
    assert planning.Design(8, depth=4500).effect_factor() == 1.0
    assert planning.Design(8, depth=1000).effect_factor() == 0.74


def test_where_a_share_reaches_a_level():
    assert planning.crossing([0, 1, 2], [0.0, 0.6, 1.0]) == pytest.approx(1.5)
    assert planning.crossing([2, 0, 1], [1.0, 0.9, 0.7]) == 0  # in any order; at the first effect already
    assert np.isnan(planning.crossing([0, 1], [0.1, 0.7]))
    assert planning.crossing([0, 1, 2, 3], [0.0, 0.7, 0.5, 0.9]) == pytest.approx(2.5)  # a dip is noise


def test_the_table_of_a_design(plan, claim):
    table = planning.plan_design(plan, claim, replace(MANY, patients=8), effects=(0.0, 1.5), cohorts=10, seed=1)
    assert list(table.columns) == list(planning.COLUMNS)
    total = table[["supported", "not_supported", "inconclusive"]].sum(axis=1)
    np.testing.assert_allclose(total, 1.0)
    again = planning.plan_design(plan, claim, replace(MANY, patients=8), effects=(0.0, 1.5), cohorts=10, seed=1)
    pd.testing.assert_frame_equal(table, again)
    # 40 DTCs, 60 primary cells and slopes of .5: SD .54, for which 12 patients are needed (TTestPower: 11.2)
    assert table["patients_needed"].tolist() == [12, 12]
    text = planning.design_report(table)
    assert "8 patients, 40 DTCs each" in text
    assert "SUPPORTED in 80 % of cohorts: from" in text
    with style.language():
        assert "INCONCLUSIVE" in style.svg_file(draw_power(table))
        assert "two true effects" in style.svg_file(draw_power(table.head(1)))


def test_only_a_paired_contrast_can_be_planned_for(plan):
    assert planning.contrast_of(plan, "P2", sesoi=0.8).sesoi == 0.8
    for name in ("C0", "nothing"):
        with pytest.raises(InputError) as caught:
            planning.contrast_of(plan, name)
        assert "P2" in caught.value.problems[0].allowed


def test_the_command(tmp_path, capsys):
    out = tmp_path / "new"
    arguments = ["power", "--patients", "7", "6", "--effects", "0", "1", "--cohorts", "3", "--out", str(out)]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    assert shown.index("6 patients") < shown.index("7 patients")
    table = pd.read_csv(out / "power.tsv", sep="\t")
    assert table[["patients", "effect"]].to_numpy().tolist() == [[6, 0], [6, 1], [7, 0], [7, 1]]
    assert (out / "power.svg").read_text().startswith("<?xml")
    assert cli.main(["power", "--claim", "C0", "--cohorts", "1"]) == 2
    assert "paired contrast" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"), [("--patients", "0"), ("--dtcs", "0"), ("--depth", "-1"), ("--slope-sd", "x")]
)
def test_wrong_values_of_the_command(option, value, capsys):
    with pytest.raises(SystemExit):
        cli.main(["power", option, value])
    assert value in capsys.readouterr().err
