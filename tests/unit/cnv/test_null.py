from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dtcflow.cnv.arms import ArmStatistics
from dtcflow.cnv.null import MIN_NULL_SHARE, align_arms, benjamini_hochberg, tail_p_values


def test_empirical_p_values_by_hand() -> None:
    null = np.array([1.0, 2.0, 3.0, 4.0])
    p = tail_p_values(np.array([0.0, 2.5, 9.0, np.nan]), null)
    # (1 + number at least as large) / (1 + 4)
    assert p[:3] == pytest.approx([1.0, 0.6, 0.2])
    assert np.isnan(p[3])


def test_tail_extrapolates_an_exponential_null() -> None:
    rng = np.random.default_rng(1)
    null = rng.exponential(1.0, 4000)
    p = tail_p_values(np.array([5.0, 9.0]), null)
    # exp(-5) and exp(-9), within the sampling error of a tail of 400
    assert p[0] == pytest.approx(np.exp(-5), rel=0.5)
    assert np.exp(-9) / 12 < p[1] < np.exp(-9) * 12


def test_p_values_of_fresh_null_cells_are_uniform() -> None:
    rng = np.random.default_rng(2)
    null, fresh = stats.chi2.rvs(20, size=1500, random_state=rng), stats.chi2.rvs(20, size=4000, random_state=rng)
    p = tail_p_values(fresh, null)
    for level in (0.5, 0.1, 0.05, 0.01, 0.002):
        # 4 binomial standard errors of both samples
        error = 4 * np.sqrt(level * (1 - level) * (1 / 1500 + 1 / 4000))
        assert abs((p <= level).mean() - level) < error
    assert (np.diff(p[np.argsort(fresh)]) <= 1e-12).all()


def test_benjamini_hochberg_keeps_missing_missing() -> None:
    q = benjamini_hochberg(np.array([0.01, np.nan, 0.04, 0.03]))
    assert np.isnan(q[1])
    assert q[[0, 2, 3]] == pytest.approx([0.03, 0.04, 0.04])


def test_adaptive_benjamini_hochberg_by_hand() -> None:
    p = np.array([0.001, 0.01, 0.02, 0.6])
    # one of four above 1/2: share of nulls (1 + 1) / 2 = 1; with none above: (1 + 0) / 2 = 0.5
    assert benjamini_hochberg(p, adaptive=True) == pytest.approx(benjamini_hochberg(p))
    p[3] = 0.4
    assert benjamini_hochberg(np.full(100, 0.01), adaptive=True) == pytest.approx(MIN_NULL_SHARE * 0.01)
    assert benjamini_hochberg(p, adaptive=True) == pytest.approx(0.5 * benjamini_hochberg(p))


def test_adaptive_benjamini_hochberg_keeps_its_level() -> None:
    """Realised false-discovery proportion over 400 sets of 15 true and 15 null p-values."""
    rng = np.random.default_rng(0)
    proportions = []
    for _ in range(400):
        p = np.concatenate([rng.beta(0.05, 3, 15), rng.random(15)])
        called = benjamini_hochberg(p, adaptive=True) <= 0.05
        proportions.append(called[15:].sum() / max(called.sum(), 1))
    # nominal .05, Monte-Carlo error of the mean about .003
    assert np.mean(proportions) <= 0.06


def test_align_arms_gives_no_information_to_missing_arms() -> None:
    statistics = ArmStatistics(np.array([[1.0]]), np.array([[2.0]]), ("1q",))
    aligned = align_arms(statistics, ("1p", "1q"))
    assert aligned.u.tolist() == [[0.0, 1.0]]
    assert aligned.info.tolist() == [[0.0, 2.0]]
