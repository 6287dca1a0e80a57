from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats
from scipy.special import gammaln

from dtcflow.qc.soup import (
    SOFTENING,
    Soup,
    SoupNull,
    _simulate,
    droplet_totals,
    fit_concentration,
    monte_carlo_p,
    observed_statistics,
    soup_counts,
    soup_share,
)
from dtcflow.simulate.droplets import draw_empty

SHARE = np.array([0.4, 0.3, 0.2, 0.06, 0.03, 0.01])


def csr(values) -> sp.csr_matrix:
    return sp.csr_matrix(np.asarray(values, dtype=np.float32))


def test_the_soup_is_the_sum_of_droplets_of_1_to_100_counts():
    counts = csr([[0, 0, 0], [1, 0, 2], [50, 50, 0], [51, 50, 0], [3, 0, 0]])
    totals = droplet_totals(counts)
    assert totals.tolist() == [0, 3, 100, 101, 3]
    soup = soup_counts(counts, totals)
    assert soup.counts.tolist() == [54, 50, 2]
    assert soup.n_droplets == 3
    assert not soup.enough()
    assert soup_counts(counts, totals, exclude=np.array([0, 0, 1, 0, 0], bool)).counts.tolist() == [4, 0, 2]


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_totals_of_few_droplets(n):
    assert droplet_totals(csr(np.ones((n, 3)))).tolist() == [3.0] * n


def test_what_was_not_seen_gets_the_share_of_what_was_seen_once():
    soup = Soup(np.array([17.0, 1.0, 2.0, 0.0, 0.0, 0.0]), 200)
    share = soup_share(soup, np.array([1, 1, 1, 1, 1, 0], bool))
    # one of 20 counts is of a gene seen once: 5 % for two genes that larger droplets show
    np.testing.assert_allclose(share, [17 / 20 * 0.95, 1 / 20 * 0.95, 0.1 * 0.95, 0.025, 0.025, 0])
    np.testing.assert_allclose(soup_share(soup, np.array([1, 1, 1, 0, 0, 0], bool))[:3], soup.counts[:3] / 20)


@pytest.mark.parametrize("alpha", [20.0, 200.0])
def test_concentration_is_recovered(alpha):
    counts = draw_empty(SHARE, np.full(4000, 40), concentration=alpha, rng=np.random.default_rng(2))
    found = fit_concentration(csr(counts.toarray()), np.full(4000, 40.0), SHARE)
    assert found == pytest.approx(alpha, rel=0.15)


def test_a_multinomial_has_a_very_large_concentration():
    counts = draw_empty(SHARE, np.full(4000, 40), concentration=np.inf, rng=np.random.default_rng(2))
    assert fit_concentration(csr(counts.toarray()), np.full(4000, 40.0), SHARE) > 2000


@pytest.mark.parametrize("alpha", [15.0, np.inf])
def test_statistics_by_hand(alpha):
    null = SoupNull(SHARE, alpha)
    y = np.array([3.0, 0, 1, 0, 0, 2])
    found = observed_statistics(csr([y]), np.array([0]), null)[:, 0]
    if np.isfinite(alpha):
        a = alpha * SHARE
        probability = (gammaln(a + y) - gammaln(a) - gammaln(y + 1)).sum()
    else:
        probability = (y * np.log(SHARE) - gammaln(y + 1)).sum()
    distance = ((y - 6 * SHARE) ** 2 / (SHARE + SOFTENING)).sum()
    np.testing.assert_allclose(found, [probability, -distance])


@pytest.mark.parametrize("alpha", [15.0, np.inf])
def test_simulated_statistics_are_those_of_whole_droplets(alpha):
    """Grown transcript by transcript, the null has the distribution of droplets drawn at once."""
    null, n = SoupNull(SHARE, alpha), 30
    grown = _simulate(4000, n, null, np.random.default_rng(1))
    droplets = draw_empty(SHARE, np.full(4000, n), concentration=alpha, rng=np.random.default_rng(2))
    drawn = observed_statistics(csr(droplets.toarray()), np.arange(4000), null)
    for simulated, whole in zip(grown, drawn, strict=True):
        assert simulated.shape == (4000, n)
        offset = whole.mean() - simulated[:, -1].mean()
        if np.isfinite(alpha):
            assert abs(offset) < 0.15 * whole.std()
        assert stats.ks_2samp(simulated[:, -1], whole).pvalue > 1e-3


def test_p_values_of_soup_are_uniform_or_larger_and_of_others_small():
    null = SoupNull(SHARE, 50.0)
    totals = np.random.default_rng(0).integers(101, 140, 600)
    soup = draw_empty(SHARE, totals, concentration=50.0, rng=np.random.default_rng(3))
    p = monte_carlo_p(totals, observed_statistics(csr(soup.toarray()), np.arange(600), null), null, iterations=2000)
    # twice the smaller of two is conservative; 600 droplets: standard error 0.9 %
    assert (p <= 0.05).mean() < 0.075
    assert (p <= 0.5).mean() > 0.2
    other = draw_empty(SHARE[::-1].copy(), totals, concentration=50.0, rng=np.random.default_rng(4))
    p = monte_carlo_p(totals, observed_statistics(csr(other.toarray()), np.arange(600), null), null, iterations=2000)
    assert (p <= 2 / 2001).mean() > 0.99


def test_a_droplet_more_probable_than_the_soup_is_seen():
    """All transcripts on the most abundant gene: very probable as counts go, and far from the soup."""
    share = np.full(200, 0.5 / 199)
    share[0] = 0.5
    null = SoupNull(share, np.inf)
    y = np.zeros((1, 200))
    y[0, 0] = 150
    observed = observed_statistics(csr(y), np.array([0]), null)
    simulated = _simulate(200, 150, null, np.random.default_rng(0))
    assert (simulated[0][:, -1] <= observed[0]).all()
    assert monte_carlo_p(np.array([150]), observed, null, iterations=500)[0] <= 2 / 501


def test_order_and_company_of_droplets_do_not_matter():
    null = SoupNull(SHARE, 50.0)
    totals = np.random.default_rng(0).integers(101, 160, 50)
    counts = csr(draw_empty(SHARE, totals, concentration=20.0, rng=np.random.default_rng(3)).toarray())
    observed = observed_statistics(counts, np.arange(50), null)
    p = monte_carlo_p(totals, observed, null, iterations=300, seed=5)
    order = np.random.default_rng(1).permutation(50)
    shuffled = monte_carlo_p(totals[order], observed[:, order], null, iterations=300, seed=5)
    np.testing.assert_array_equal(shuffled, p[order])
    assert monte_carlo_p(np.zeros(0, np.int64), np.zeros((2, 0)), null).size == 0
