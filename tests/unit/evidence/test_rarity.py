import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dtcflow.evidence import rarity as ra


def study(spec):
    """(patient, compartment, enrichment, screened, normal cells, tumour cells) -> samples and cells."""
    samples, cells = [], []
    for i, (patient, compartment, enrichment, screened, normal, tumour) in enumerate(spec):
        one = {"sample_id": f"s{i}", "patient_id": patient, "compartment": compartment}
        samples.append(one | {"enrichment": enrichment, "nucleated_cells_screened": screened})
        cells += [one | {"malignant_call": "normal", "malignant_class": "normal"}] * normal
        cells += [one | {"malignant_call": "malignant", "malignant_class": "malignant_confirmed"}] * tumour
    columns = ["sample_id", "patient_id", "compartment", "malignant_call", "malignant_class"]
    return pd.DataFrame(samples), pd.DataFrame(cells, columns=columns)


def test_denominator_of_every_kind_of_sample():
    samples, cells = study(
        [
            ("A", "marrow", "none", "", 97, 3),
            ("A", "primary", "none", "", 10, 10),
            ("B", "marrow", "depletion", "50000", 5, 5),
            ("C", "marrow", "selection", "", 5, 5),
            ("D", "marrow", "none", "", 100, 0),
            ("D", "marrow", "depletion", "900", 10, 9),
            ("E", "marrow", "", "", 5, 1),
            ("F", "primary", "none", "", 5, 5),
            ("G", "marrow", "depletion", "2", 5, 5),
            ("H", "normal_marrow", "none", "", 50, 0),
        ]
    )
    table = ra.evaluate_rarity(samples, cells).patients.set_index("patient_id")
    assert list(table.index) == list("ABCDEFG")
    assert table["usable"].to_dict() == dict(
        zip("ABCDEFG", [True, True, False, True, False, False, False], strict=True)
    )
    assert table.loc["A", ["n_cells_a", "n_cells_b", "denominator"]].tolist() == [3, 100, "captured"]
    assert table.loc["B", ["n_cells_a", "n_cells_b", "denominator"]].tolist() == [5, 50000, "screened"]
    assert table.loc["D", ["n_cells_a", "n_cells_b", "denominator"]].tolist() == [9, 1000, "captured+screened"]
    assert table.loc["B", "rate_per_million"] == pytest.approx(100)
    assert table.loc["C", "reason"].startswith("enriched or depleted marrow")
    assert table.loc["E", "reason"].startswith("enriched or depleted marrow")
    assert table.loc["F", "reason"] == "no marrow sample"
    assert table.loc["G", "reason"].startswith("5 tumour cells among 2")
    assert table.loc["C", ["value_a", "difference", "rate_per_million", "rate_low"]].isna().all()


def test_no_denominator_is_no_estimate():
    found = ra.evaluate_rarity(*study([(p, "marrow", "depletion", "", 9, 1) for p in "ABC"]))
    assert np.isnan([found.rate, found.low, found.high, found.p_value]).all()
    assert found.n_called == 3
    assert found.in_range is None


def test_patients_without_a_tumour_cell_count():
    spec = [(p, "marrow", "depletion", "1000000", 5, k) for p, k in zip("ABCDEF", [12, 8, 0, 0, 10, 0], strict=True)]
    found = ra.evaluate_rarity(*study(spec))
    assert found.n_positive == 3
    assert found.rate == pytest.approx(5e-6, rel=0.05)
    assert found.low < found.low90 < found.rate < found.high90 < found.high < 1e-3
    assert found.in_range
    assert found.fit.n == 6
    assert found.p_value < 0.05
    assert found.leave_one_out["patient_id"].tolist() == list("ABCDEF")
    assert (found.leave_one_out["ci_high"] > found.high * 0.5).all()


@pytest.mark.parametrize("seed", range(8))
def test_p_and_interval_say_the_same(seed):
    rng = np.random.default_rng(seed)
    k = rng.poisson(rng.gamma(0.5, 2e-3, 8) * 4000).astype(float)
    k[0] += k.sum() == 0
    found = ra.beta_binomial(k, np.full(8, 4000.0))
    for limit, p in ((found["low"], 0.05), (found["high"], 0.05), (found["low90"], 0.1), (found["high90"], 0.1)):
        told = ra.beta_binomial(k, np.full(8, 4000.0), threshold=limit)["p_value"]
        assert told == pytest.approx(p, rel=0.02) or limit in (0.0, 0.5) or limit < 1e-7


def test_few_cells_without_a_tumour_cell_show_nothing():
    """Log rates with half a cell added would all lie on one side of the threshold, by the number of cells alone."""
    found = ra.evaluate_rarity(*study([(p, "marrow", "none", "", 490, 0) for p in "ABCDEFGHIJKLMN"]))
    assert found.rate == 0
    assert found.high > 0
    assert (found.p_value < 0.05) == (found.high < ra.SESOI)


def test_common_tumour_cells_are_not_rare():
    found = ra.evaluate_rarity(*study([(p, "marrow", "none", "", 970, 30) for p in "ABCDEF"]))
    assert found.rate == pytest.approx(0.03, rel=0.01)
    assert found.low90 > ra.SESOI
    assert not found.in_range


def test_no_tumour_cell_at_all_has_an_upper_limit():
    found = ra.beta_binomial(np.zeros(8), np.full(8, 1e6))
    assert found["rate"] == found["low"] == 0
    assert 3e-8 < found["high"] < 1e-5


def test_rate_without_spread_is_the_binomial_one():
    k = np.array([10.0, 10, 10, 10, 10, 10])
    found = ra.beta_binomial(k, np.full(6, 1000.0))
    assert found["rate"] == pytest.approx(0.01, rel=1e-3)
    # the likelihood of 60 of 6,000 falls by t^2 / 2 at its limits
    drop = stats.t.isf(0.025, 5) ** 2 / 2
    top = stats.binom.logpmf(60, 6000, 0.01)
    for limit in (found["low"], found["high"]):
        assert top - stats.binom.logpmf(60, 6000, limit) == pytest.approx(drop, rel=0.05)


def test_likelihood_is_scipys():
    k, n = np.array([3.0, 0.0, 7.0]), np.array([100.0, 50.0, 200.0])
    expected = stats.betabinom.logpmf(k, n, 2.0, 2.0 * 0.97 / 0.03).sum()
    assert ra.log_likelihood(0.03, 2.0, k, n) == pytest.approx(expected)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 1000)])
def test_jeffreys_contains_the_share(k, n):
    low, high = ra.jeffreys(k, n)
    assert low <= k / n <= high
    assert (low == 0) == (k == 0)
    assert (high == 1) == (k == n)


def test_interval_covers_the_mean_rate():
    misses = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        k = rng.poisson(rng.gamma(1.0, 1e-4, 8) * 1e5)
        found = ra.beta_binomial(k.astype(float), np.full(8, 1e5))
        misses += not found["low"] <= 1e-4 <= found["high"]
    assert misses <= 8  # 60 draws at .05: more than 8 have a probability below .01


def test_more_cells_than_screened_does_not_crash():
    found = ra.evaluate_rarity(*study([(p, "marrow", "none", "1", 5, 5) for p in "ABC"]))
    assert not found.patients["usable"].any()


def test_result_does_not_depend_on_order():
    spec = [(p, "marrow", "none", "", 500, k) for p, k in zip("ABCD", [1, 4, 0, 2], strict=True)]
    samples, cells = study(spec)
    first = ra.evaluate_rarity(samples, cells)
    again = ra.evaluate_rarity(samples.iloc[::-1], cells.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(first.patients, again.patients)
    assert (first.rate, first.high) == (again.rate, again.high)


def test_a_cohort_without_marrow_has_no_data():
    found = ra.evaluate_rarity(*study([("A", "primary", "none", "", 5, 5), ("B", "primary", "none", "", 5, 5)]))
    assert found.patients["reason"].tolist() == ["no marrow sample"] * 2
    assert not found.patients["usable"].any()
    assert np.isnan([found.rate, found.low, found.high]).all()
