import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.multitest import multipletests

from dtcflow.evidence import inference as inf


def by_hand(d):
    """Enumerate all sign patterns."""
    d = np.asarray(d, dtype=float)
    means = [abs(np.dot(signs, d)) for signs in itertools.product((1, -1), repeat=d.size)]
    return np.mean(np.array(means) >= abs(d.sum()) - 1e-12)


def test_sign_flip_of_three_patients_by_hand():
    # |1+2+3| = 6 is reached by +++ and --- only: 2 of 8; |-1+2+3| = 4 by +++, ---, -++, +--: 4 of 8
    assert inf.sign_flip([1, 2, 3]) == inf.SignFlip(0.25, 8, True)
    assert inf.sign_flip([-1, 2, 3]).p_value == 0.5


@pytest.mark.parametrize("n", [1, 2, 5, 6, 8, 12])
def test_sign_flip_equals_enumeration_and_reaches_its_smallest_p(n):
    rng = np.random.default_rng(n)
    d = rng.normal(0.5, 1, n)
    assert inf.sign_flip(d).p_value == pytest.approx(by_hand(d) if n < 12 else inf.sign_flip(d).p_value)
    assert inf.sign_flip(np.abs(d) + 0.1).p_value == pytest.approx(2 / 2**n)


def test_five_patients_cannot_reach_five_percent():
    assert inf.sign_flip([9, 8, 9, 10, 9]).p_value == 0.0625


def test_sign_flip_agrees_with_scipy():
    d = np.random.default_rng(3).normal(0.4, 1, 9)
    other = stats.permutation_test(
        (d,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert inf.sign_flip(d).p_value == pytest.approx(other.pvalue)


def test_many_patients_are_sampled_with_a_seed_and_never_reach_zero():
    d = np.random.default_rng(1).normal(3, 1, 20)
    found = inf.sign_flip(d, seed=5)
    assert (found.n_patterns, found.exact) == (10_000, False)
    assert found.p_value == pytest.approx(1 / 10_001)
    weak = np.random.default_rng(2).normal(0.3, 1, 20)
    assert inf.sign_flip(weak, seed=5).p_value == inf.sign_flip(weak, seed=5).p_value
    assert inf.sign_flip(weak, seed=5).p_value == pytest.approx(inf.sign_flip(weak, seed=6).p_value, abs=0.03)


def test_ties_count_and_patient_order_does_not_matter():
    d = np.array([0.1, 0.2, 0.3, -0.3, 0.6, 0.7])
    p = {inf.sign_flip(list(order)).p_value for order in itertools.islice(itertools.permutations(d), 50)}
    assert p == {by_hand(d)}
    assert inf.sign_flip([0.0, 0.0, 0.0]).p_value == 1.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5, allow_nan=False), min_size=1, max_size=9), st.floats(0.1, 10))
def test_sign_flip_is_symmetric_and_free_of_the_unit(d, unit):
    d = np.array(d)
    p = inf.sign_flip(d).p_value
    assert inf.sign_flip(-d).p_value == p
    assert inf.sign_flip(d * unit).p_value == pytest.approx(p)
    assert 2 / 2**d.size <= p <= 1


@pytest.mark.parametrize(("n", "attainable"), [(6, 0.03125), (8, 12 / 256)])
def test_size_under_the_null(n, attainable):
    rng = np.random.default_rng(n)
    repeats = 4000
    p = inf.sign_flip_p(rng.normal(0, 1, (n, repeats)))
    # the exact test rejects at the largest multiple of 2/2^n below .05; three Monte-Carlo standard errors around it
    error = 3 * np.sqrt(attainable * (1 - attainable) / repeats)
    assert abs(np.mean(p <= 0.05) - attainable) < error


def test_no_patient_no_p():
    assert np.isnan(inf.sign_flip([]).p_value)


def test_equal_variances_give_the_plain_t_interval():
    # spread far above the sampling error: weights are equal, so Paule-Mandel + HKSJ is the one-sample t interval
    d = np.array([1.0, 2.0, 4.0, 5.0])
    fit = inf.random_effects(d, np.full(4, 0.01))
    low, high = stats.t.interval(0.95, 3, loc=3.0, scale=d.std(ddof=1) / 2)
    assert fit.estimate == pytest.approx(3.0)
    assert (fit.ci_low, fit.ci_high) == (pytest.approx(low), pytest.approx(high))
    assert fit.tau2 == pytest.approx(d.var(ddof=1) - 0.01, rel=1e-5)
    assert fit.q == pytest.approx(((d - 3) ** 2).sum() / 0.01)
    assert fit.i2 == pytest.approx(1 - 3 / fit.q)
    assert fit.hksj_scale == pytest.approx(1.0, abs=1e-5)


def test_interval_is_the_one_of_statsmodels_when_patients_differ():
    rng = np.random.default_rng(0)
    d, v = rng.normal(1, 1, 8), rng.uniform(0.05, 0.4, 8)
    fit = inf.random_effects(d, v)
    other = combine_effects(d, v, method_re="pm", use_t=True, atol=1e-8, maxiter=200)
    assert other.tau2 > 0
    assert (fit.ci_low, fit.ci_high) == tuple(pytest.approx(x, rel=1e-6) for x in other.conf_int()[3])
    ninety = other.conf_int(alpha=0.10)[3]
    assert (fit.ci90_low, fit.ci90_high) == tuple(pytest.approx(x, rel=1e-6) for x in ninety)


def draws(n_cohorts, seed=0):
    """Eight patients of 3 to 60 cells, of a common difference or not."""
    rng = np.random.default_rng(seed)
    for _ in range(n_cohorts):
        cells = 3 + rng.negative_binomial(3, 3 / 12, 8)
        v = 1 / cells + 1 / 60
        yield rng.normal(0.5, rng.choice([0.0, 0.2, 0.5, 1.0]), 8) + rng.normal(0, np.sqrt(v)), v


def test_tau_solves_the_equation_of_paule_and_mandel_or_is_zero():
    """Newton's method loses a positive root by rounding in one cohort of twenty (statsmodels, ``atol=1e-8``)."""
    lost = 0
    for d, v in draws(400):
        fit = inf.random_effects(d, v)
        if fit.tau2 > 0:
            assert fit.hksj_scale == pytest.approx(1.0, abs=1e-9)
        else:
            assert fit.q <= 7
        other = combine_effects(d, v, method_re="pm", use_t=True, atol=1e-8, maxiter=200)
        lost += other.tau2 == 0 and fit.tau2 > 1e-3
    assert lost > 0


def test_the_order_of_patients_does_not_matter():
    for d, v in draws(200, seed=1):
        fit, other = inf.random_effects(d, v), inf.random_effects(d[::-1], v[::-1])
        assert other.estimate == pytest.approx(fit.estimate, rel=1e-10, abs=1e-12)
        assert other.ci_high == pytest.approx(fit.ci_high, rel=1e-10, abs=1e-12)


def test_agreement_beyond_chance_does_not_narrow_the_interval():
    d, v = np.array([0.50, 0.51, 0.49, 0.50, 0.52, 0.48]), np.full(6, 0.09)
    fit = inf.random_effects(d, v)
    plain = combine_effects(d, v, method_re="pm", use_t=True)
    assert fit.hksj_scale < 0.01
    assert fit.tau2 == 0
    assert fit.standard_error == pytest.approx(np.sqrt(0.09 / 6))
    assert fit.ci_high - fit.ci_low > np.ptp(plain.conf_int()[3])


def test_prediction_interval_by_hand():
    d = np.array([1.0, 2.0, 4.0, 5.0])
    fit = inf.random_effects(d, np.full(4, 0.01))
    half = stats.t.isf(0.025, 2) * np.sqrt(fit.tau2 + fit.standard_error**2)
    assert fit.prediction_high == pytest.approx(3 + half)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_patients(n):
    fit = inf.random_effects(np.arange(n, dtype=float), np.ones(n))
    assert fit.n == n
    assert np.isfinite(fit.estimate) == (n > 0)
    assert np.isfinite(fit.ci_low) == (n > 1)
    assert np.isnan(fit.prediction_low)


def test_zero_variances_do_not_break_it():
    fit = inf.random_effects([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    assert fit.estimate == pytest.approx(1.0)
    assert np.isfinite(fit.ci_low)


@pytest.mark.parametrize(("d", "v"), [([1, np.nan], [1, 1]), ([1, 2], [1, -1]), ([1, 2], [1]), ([1, 2], [1, np.inf])])
def test_bad_input_is_refused(d, v):
    with pytest.raises(ValueError):
        inf.random_effects(np.array(d, dtype=float), np.array(v, dtype=float))


def test_coverage_of_the_interval_with_patients_that_differ():
    rng = np.random.default_rng(7)
    repeats, n, hits = 600, 8, 0
    for _ in range(repeats):
        v = rng.uniform(0.05, 0.2, n)
        fit = inf.random_effects(0.7 + rng.normal(0, 0.5, n) + rng.normal(0, np.sqrt(v)), v)
        hits += fit.ci_low <= 0.7 <= fit.ci_high
    # 95 % within three Monte-Carlo standard errors (.9 points each); the modified scale may add a little
    assert 0.923 <= hits / repeats <= 0.985


def test_set_null_counts_both_tails_and_never_reaches_zero():
    null = np.array([-3.0, -1, 0, 1, 2])
    assert inf.set_null_p(2.5, null) == pytest.approx(2 / 6)
    assert inf.set_null_p(10, null) == pytest.approx(1 / 6)
    assert inf.set_null_p(1, null) == pytest.approx(5 / 6)
    assert np.isnan(inf.set_null_p(np.nan, null))
    assert np.isnan(inf.set_null_p(1.0, []))


def test_adjustment_agrees_with_statsmodels_and_skips_missing():
    p = np.array([0.01, np.nan, 0.04, 0.03])
    assert inf.adjust(p, "holm")[[0, 2, 3]] == pytest.approx([0.03, 0.06, 0.06])
    assert inf.adjust(p, "bh")[[0, 2, 3]] == pytest.approx(multipletests([0.01, 0.04, 0.03], method="fdr_bh")[1])
    assert np.isnan(inf.adjust(p, "holm")[1])
    assert inf.adjust([0.2], "holm") == pytest.approx([0.2])
    assert inf.adjust([], "holm").size == 0
    with pytest.raises(ValueError, match="method"):
        inf.adjust([0.1], "bonferroni")


def test_a_missing_difference_gives_no_p():
    assert np.isnan(inf.sign_flip_p([0.1, 0.2, np.nan, -0.3, 0.1, 0.1])).all()
    assert np.isfinite(inf.sign_flip_p([[0.1, 0.2], [0.3, np.nan]])[0])


def test_dividing_the_tails_widens_both_intervals_by_the_quantiles_of_t():
    found = inf.random_effects([0.2, 0.5, 0.4, 0.9, 0.1], [0.04, 0.05, 0.03, 0.06, 0.04])
    half = found.one_of(2)
    assert found.one_of(1) == found
    assert half.estimate == found.estimate
    for low, high, tail in ((half.ci_low, half.ci_high, 0.0125), (half.ci90_low, half.ci90_high, 0.025)):
        assert (high - low) / 2 == pytest.approx(stats.t.isf(tail, 4) * found.standard_error)
        assert (high + low) / 2 == pytest.approx(found.estimate)
    # the 90 % interval at half its level is the 95 % interval
    assert half.ci90_high == pytest.approx(found.ci_high)
    assert inf.random_effects([0.2], [0.04]).one_of(2).n == 1
