from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dtcflow.cnv.null import STRICT_TAIL_FRACTION, tail_p_values


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


def test_nothing_is_extrapolated_from_a_handful_of_exceedances() -> None:
    null = np.random.default_rng(3).exponential(1.0, 300)
    far = np.array([50.0])
    # a tenth of 300 makes a tail of 30, a twentieth one of 15
    assert tail_p_values(far, null)[0] < 1e-3
    assert tail_p_values(far, null, fraction=STRICT_TAIL_FRACTION)[0] == pytest.approx(1 / 301)
