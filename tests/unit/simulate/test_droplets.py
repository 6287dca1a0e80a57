from __future__ import annotations

import numpy as np
import pytest

from dtcflow.contracts import InputError
from dtcflow.simulate import simulate_cohort, simulate_raw
from dtcflow.simulate.droplets import draw_empty

SIZE = {"n_patients": 1, "marrow_cells": 60, "primary_cells": 20}


@pytest.fixture(scope="module")
def raw():
    return simulate_raw("progenitor", seed=3, sample_id="P01_marrow", n_empty=2000, **SIZE)


def test_the_cells_are_those_of_the_cohort(raw):
    sample = next(simulate_cohort("progenitor", seed=3, samples=["P01_marrow"], **SIZE))
    cells = raw.raw[raw.is_cell]
    assert list(cells.obs_names) == list(sample.adata.obs_names)
    assert (cells.X != sample.adata.X).nnz == 0
    assert raw.raw.shape == (2060, sample.adata.n_vars)
    assert raw.raw.obs_names.is_unique
    assert list(raw.raw.obs_names) == sorted(raw.raw.obs_names)


def test_empty_droplets_hold_the_soup_and_are_small(raw):
    empty = raw.raw[~raw.is_cell].X
    totals = np.asarray(empty.sum(axis=1)).ravel()
    assert 8 <= np.median(totals) <= 16
    assert np.quantile(totals, 0.99) > 60
    assert raw.soup.sum() == pytest.approx(1.0)
    pooled = np.asarray(empty.sum(axis=0)).ravel()
    top = np.argsort(-raw.soup)[:20]
    # a gene of share 0.01 has some 300 counts here: 6 % noise
    np.testing.assert_allclose(pooled[top] / pooled.sum(), raw.soup[top], rtol=0.3)


def test_the_same_arguments_give_the_same_matrix_and_another_seed_another(raw):
    again = simulate_raw("progenitor", seed=3, sample_id="P01_marrow", n_empty=2000, **SIZE)
    assert (again.raw.X != raw.raw.X).nnz == 0
    assert list(again.raw.obs_names) == list(raw.raw.obs_names)
    other = simulate_raw("progenitor", seed=4, sample_id="P01_marrow", n_empty=2000, **SIZE)
    assert list(other.raw.obs_names) != list(raw.raw.obs_names)


@pytest.mark.parametrize(("cells", "empty"), [(0, 0), (0, 20), (1, 0), (2, 5)])
def test_few_cells_or_droplets(cells, empty):
    raw = simulate_raw(
        "null", seed=1, sample_id="P01_marrow", n_empty=empty, n_patients=1, marrow_cells=cells, primary_cells=1
    )
    assert raw.raw.n_obs == cells + empty
    assert raw.is_cell.sum() == cells


def test_a_negative_number_of_droplets_is_refused():
    with pytest.raises(InputError, match="negative"):
        simulate_raw("null", seed=1, sample_id="P01_marrow", n_empty=-1)


def test_polya_urn_has_the_variance_of_the_dirichlet_multinomial():
    soup, n, alpha = np.array([0.2, 0.3, 0.5]), 50, 10.0
    counts = draw_empty(soup, np.full(20_000, n), concentration=alpha, rng=np.random.default_rng(1)).toarray()
    assert (counts.sum(axis=1) == n).all()
    np.testing.assert_allclose(counts.mean(axis=0), n * soup, rtol=0.02)
    expected = n * soup * (1 - soup) * (n + alpha) / (1 + alpha)
    np.testing.assert_allclose(counts.var(axis=0), expected, rtol=0.05)  # 20,000 draws: 1 % error of a variance
    plain = draw_empty(soup, np.full(20_000, n), concentration=np.inf, rng=np.random.default_rng(1)).toarray()
    np.testing.assert_allclose(plain.var(axis=0), n * soup * (1 - soup), rtol=0.05)
