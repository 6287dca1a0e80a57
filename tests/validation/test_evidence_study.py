"""The study of ``benchmarks/evidence`` in small: a test over cells fails where the tests over patients hold."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from evidence import size
from evidence.comparators import dersimonian_laird, patient_intercept
from evidence.extras import shuffled
from evidence.figure import draw
from evidence.grid import GRID, Entry, truth
from evidence.measure import Bench, cohort_row, permute_labels
from evidence.run import to_make
from evidence.store import append, read
from evidence.summary import (
    TYPE1_BAND,
    acceptance,
    claims_summary,
    hypothesis_supported,
    limit_line,
    markdown,
    rejection_rates,
    rejects,
    share,
    share_line,
)
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.meta_analysis import combine_effects

from dtcflow.evidence.plan import load_plan
from dtcflow.simulate.evidence import EvidenceScenario, simulate_evidence

pytestmark = pytest.mark.validation

N = 30


@pytest.fixture(scope="module")
def bench() -> Bench:
    """The plan with fewer signatures and random sets: the same rules in a quarter of the time."""
    values = json.loads(json.dumps(Bench().plan.values))
    values["rules"]["random_sets"] = 150
    for claim in values["claims"]:
        if claim["id"] == "P2":
            claim |= {"sensitivity_signatures": [claim["primary_signature"]], "purges": ["none"]}
            claim |= {"reported_signatures": [], "covariates": ["log_genes"], "confirmatory_signature": ""}
            claim["negative_controls"] = ["EPPERT_HSC_R"]
        elif claim["id"] != "C0":
            claim |= {"evaluated": False, "family": "none"}
    return Bench(plan=load_plan(values))


@pytest.fixture(scope="module")
def null_rows(bench):
    entry = Entry(EvidenceScenario("null, slope SD 1", slope_sd=1.0, pt_cells=30), N)
    return [cohort_row(bench, entry, replicate) for replicate in range(N)]


def test_cells_as_replicates_reject_far_too_often_and_patients_do_not(null_rows):
    rates = {
        test: share([bool(rejects(row, test, 0.05)) for row in null_rows])[0]
        for test in ("p_sign_flip", "ci_excludes_0", "p_wilcoxon_cells", "p_patient_intercept")
    }
    most = stats.binom.ppf(0.999, N, TYPE1_BAND[1]) / N
    assert rates["p_sign_flip"] <= most
    assert rates["ci_excludes_0"] <= most
    assert rates["p_wilcoxon_cells"] > 0.25
    assert rates["p_patient_intercept"] > 0.25
    false = share([row["claims"]["P2"]["verdict"] == "SUPPORTED" for row in null_rows])[0]
    assert false <= stats.binom.ppf(0.999, N, 0.05) / N


def test_a_contaminated_cohort_and_an_aliased_one_say_so(bench):
    for change, code in (({"contamination": 0.2}, "CONTAMINATION"), ({"aliased": True}, "CONFOUNDED")):
        row = cohort_row(bench, Entry(EvidenceScenario("t", **change), 1), 0)
        assert code in row["claims"]["P2"]["codes"].split(";")
        assert row["claims"]["P2"]["verdict"] == "INCONCLUSIVE"


def test_a_true_effect_is_supported_and_goes_away_with_the_labels(bench):
    strong = Entry(EvidenceScenario("t", n_patients=10, dtc_floor=12, effects={"stemness": 1.5}), 1)
    found = cohort_row(bench, strong, 1)["claims"]["P2"]
    assert found["verdict"] == "SUPPORTED"
    assert found["ci_low"] < 1.5 < found["ci_high"] + 0.2
    permuted = cohort_row(bench, replace(strong, permuted=True), 1)["claims"]["P2"]
    assert permuted["verdict"] != "SUPPORTED"
    assert abs(permuted["estimate"]) < 0.5


def test_labels_are_exchanged_within_patients_only():
    cells = simulate_evidence(EvidenceScenario("t", n_patients=3, false_putative=2.0), 1).cells
    moved = permute_labels(cells, seed=1)
    key = ["patient_id", "compartment", "malignant_call"]
    pd.testing.assert_series_equal(cells.groupby(key).size(), moved.groupby(key).size())
    assert (moved["sample_id"] == moved["patient_id"] + "_" + moved["compartment"]).all()
    normal = cells["malignant_call"] == "normal"
    assert (moved["compartment"] == cells["compartment"])[normal].all()
    assert (moved["compartment"] != cells["compartment"]).sum() > 10


@pytest.mark.parametrize("what", ["cells", "patients"])
def test_the_verdict_does_not_depend_on_order(bench, what):
    cohort = simulate_evidence(EvidenceScenario("t", n_patients=6, pt_cells=30, depth_ratio=0.6), 2)
    first = bench.evaluate(cohort, seed=1).verdict
    assert json.dumps(bench.evaluate(shuffled(cohort, what), seed=1).verdict) == json.dumps(first)


def test_the_closed_forms_of_the_comparators():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(8), 40)
    side = np.tile(np.repeat([0, 1], [10, 30]), 8)
    y = 3 * rng.standard_normal(8)[patient] + 0.3 * (side == 0) + rng.standard_normal(patient.size)
    beta, p = patient_intercept(y, side, patient)
    design = np.column_stack([np.ones(y.size), side == 0])
    fit = MixedLM(y, design, groups=patient).fit(reml=True)
    assert beta == pytest.approx(fit.params[1], rel=0.01)
    assert p == pytest.approx(fit.pvalues[1], rel=0.2)  # t against z
    d, v = rng.normal(0.3, 1.0, 9), rng.uniform(0.05, 0.2, 9)
    reference = combine_effects(d, v, method_re="chi2", use_t=False)
    assert reference.tau2 > 0
    expected = 2 * stats.norm.sf(abs(reference.mean_effect_re) / reference.sd_eff_w_re)
    assert dersimonian_laird(d, v) == pytest.approx(expected)
    assert dersimonian_laird(np.full(5, 0.1), np.full(5, 1.0)) == pytest.approx(2 * stats.norm.sf(0.1 * 5**0.5))


def test_rows_survive_a_kill_and_are_made_once(tmp_path):
    path = tmp_path / "rows.jsonl"
    append(path, {"scenario": "a", "replicate": 0, "plan_sha256": "x"})
    with path.open("a") as handle:
        handle.write('{"scenario": "a", "repl')  # a run was killed here
    append(path, {"scenario": "a", "replicate": 1, "plan_sha256": "x"})
    append(path, {"scenario": "a", "replicate": 0, "plan_sha256": "other"})
    assert [row["replicate"] for row in read(path, plan_sha256="x")] == [0, 1]
    assert read(tmp_path / "none.jsonl") == []


def test_every_cohort_of_the_grid_is_made_once():
    made = list(to_make(small=False, only=None))
    assert len(made) == len({(entry.name, r) for entry, r in made}) == sum(entry.full for entry in GRID)
    assert len({entry.name for entry in GRID}) == len(GRID)
    only = {entry.name for entry, _ in to_make(small=True, only=["depth"])}
    assert only == {"null, depth .3", "d 1.0, depth .3"}


def test_what_is_true_is_said_for_every_claim_and_scenario():
    plan = Bench().plan
    states = {(e.name, c.id): truth(e, c) for e in GRID for c in plan.claims if c.evaluated}
    assert states["null", "P2"] == "absent"
    assert states["d 0.5", "P2"] == "present"
    assert states["null, 20 % haematopoietic", "P2"] == "absent"
    assert states["d 1.0, 10 patients, labels permuted", "P2"] == "absent"
    assert states["subset .1, log2FC 1", "P2"] == "undefined"


def test_tables_of_a_few_rows(bench, null_rows):
    rows = [row | {"scenario": "null"} for row in null_rows[:4]]
    claims = claims_summary(rows, bench.plan, {})
    line = claims.set_index("claim").loc["P2"]
    assert line["cohorts"] == 4
    assert line["supported"] + line["not_supported"] + line["inconclusive"] == pytest.approx(1.0)
    assert line["bias"] == pytest.approx(np.mean([row["claims"]["P2"]["estimate"] for row in rows]))
    assert set(rejection_rates(rows, 0.05)["scenario"]) == {"null"}
    assert "Wilcoxon over cells" in draw(claims, rejection_rates(rows, 0.05))  # any scenario gives a picture
    text = markdown(claims)
    assert text.count("\n") == 2 + len(claims)
    assert "nan" not in text
    figures = acceptance(rows, bench.plan).set_index("figure")
    assert figures.loc["P2 false SUPPORTED, null", "n"] == 4
    assert (figures.loc[figures["n"] == 0, "met"] == "not measured").all()


@pytest.mark.parametrize(
    ("value", "error", "n", "met"),
    [(0.05, 0.01, 9, "yes"), (0.03, 0.01, 9, "open"), (0.07, 0.003, 9, "no"), (0.0, 0.0, 0, "not measured")],
)
def test_a_figure_beyond_its_limit_is_open_only_within_its_error(value, error, n, met):
    assert limit_line("f", "", value, error, n, 0.0375, 0.0635)["met"] == met
    assert limit_line("f", "", value, error, n)["met"] == ("" if n else "not measured")


def test_the_study_of_size_computes_what_the_claim_computes(tmp_path):
    """Score, contrast and test alone give the p value and the interval of P2 in the same cohort; a run is resumable."""
    bench, path = Bench(), tmp_path / "size.jsonl"
    size.make(bench, path, cohorts={"null": 2})
    [first, second] = read(path)
    size.make(bench, path, cohorts={"null": 2, "d 0.5": 1})
    assert read(path)[:2] == [first, second]
    assert [row["scenario"] for row in read(path)] == ["null", "null", "d 0.5"]
    claim = cohort_row(bench, GRID[0], 1)["claims"]["P2"]
    assert second[size.SIGNATURES[0]] == pytest.approx([claim["p_value"], claim["ci_low"], claim["ci_high"]])
    table = size.table(path, 0.05, {"null": 0.0, "d 0.5": 0.484})
    assert table["cohorts"].tolist() == [2] * 9
    assert table["rate"].between(0, 1).all()
    covers = table.set_index("measure")["rate"]
    own = table[(table["measure"] == size.EXCLUDES) & (table["signature"] == size.SIGNATURES[0])]
    assert covers[size.COVERS] == pytest.approx(1 - own["rate"].item())


@pytest.mark.parametrize(
    ("hits", "n", "limits", "met"),
    [
        (0, 17, {"most": 0.05}, "open"),
        (0, 100, {"most": 0.05}, "yes"),
        (1, 100, {"most": 0.05}, "yes"),
        (2, 100, {"most": 0.05}, "open"),
        (20, 100, {"most": 0.05}, "no"),
        (100, 100, {"least": 0.95}, "yes"),
        (91, 100, {"least": 0.95}, "open"),
        (60, 100, {"least": 0.95}, "no"),
        (0, 0, {"most": 0.05}, "not measured"),
    ],
)
def test_a_share_meets_its_limit_only_when_its_interval_does(hits, n, limits, met):
    line = share_line("f", [True] * hits + [False] * (n - hits), **limits)
    assert line["met"] == met
    assert line["n"] == n
    if (hits, n) == (0, 17):
        assert line["high95"] == pytest.approx(1 - 0.05 ** (1 / 17))


@pytest.mark.parametrize(
    ("judged", "p2", "found"),
    [("SUPPORTED", "SUPPORTED", True), ("INCONCLUSIVE", "SUPPORTED", False), (None, "INCONCLUSIVE", False)],
)
def test_a_claim_that_fails_settles_the_hypothesis(bench, judged, p2, found):
    claims = {name: {"verdict": "SUPPORTED"} for name in ("C0", "P3")} | {"P2": {"verdict": p2}}
    row = {"hypothesis": {"verdict": judged} if judged else None, "claims": claims}
    assert hypothesis_supported(row, bench.plan) is found
    assert hypothesis_supported(row | {"hypothesis": None, "claims": {"C0": claims["C0"]}}, bench.plan) is None
