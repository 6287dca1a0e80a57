from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.qc.droplets import (
    call_cells,
    called_mask,
    epithelial_uncalled,
    knee_point,
    uncalled_reason,
)
from dtcflow.qc.soup import Soup
from dtcflow.simulate.droplets import draw_empty

N_GENES = 300


def profile(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).gamma(0.5, 1.0, N_GENES) + 1e-4
    return values / values.sum()


SOUP, KIND = profile(0), profile(1)


def raw_matrix(n_cells: int, *, size: float = 2000, n_empty: int = 3000, cell=KIND, seed: int = 0):
    rng = np.random.default_rng(seed)
    totals = np.r_[
        np.rint(size * np.exp(rng.normal(0, 0.3, n_cells))),
        rng.poisson(12 * np.exp(rng.normal(0, 0.9, n_empty))),
    ].astype(np.int64)
    cells = draw_empty(cell, totals[:n_cells], concentration=300.0, rng=rng)
    empty = draw_empty(SOUP, totals[n_cells:], concentration=3000.0, rng=rng)
    return sp.csr_matrix(sp.vstack([cells, empty], format="csr"), dtype=np.float32)


@pytest.mark.parametrize("n_cells", [0, 1, 2, 5, 20, 100])
@pytest.mark.parametrize("size", [2000, 300])
def test_planted_cells_are_called_and_few_others(n_cells, size):
    calls = call_cells(raw_matrix(n_cells, size=size), iterations=1000, seed=1)
    assert calls.status == "called"
    assert calls.is_cell[:n_cells].all()
    assert calls.is_cell[n_cells:].sum() <= 1 + 0.02 * n_cells
    assert calls.as_dict()["n_cells"] == calls.is_cell.sum()


def test_cells_like_the_soup_are_called_by_the_cliff_alone():
    """One kind of cell and its own soup: no test can tell, the rank curve can."""
    calls = call_cells(raw_matrix(100, cell=SOUP), iterations=500)
    assert calls.knee_trusted
    above = calls.is_cell[:100].mean()
    assert above > 0.3
    assert calls.is_cell[100:].sum() <= 1


def test_a_blank_control_has_no_cells():
    calls = call_cells(raw_matrix(0, n_empty=6000), iterations=1000)
    assert not calls.knee_trusted
    assert calls.is_cell.sum() <= 1


def test_without_empty_droplets_nothing_is_lost():
    calls = call_cells(raw_matrix(50, n_empty=20))
    assert calls.status.startswith("not_called: ")
    assert calls.is_cell.all()
    assert np.isnan(calls.q).all()
    assert call_cells(sp.csr_matrix((0, 3), dtype=np.float32)).is_cell.size == 0
    assert call_cells(sp.csr_matrix((5, 3), dtype=np.float32)).is_cell.all()


def test_order_of_droplets_does_not_matter():
    counts = raw_matrix(30, size=400)
    order = np.random.default_rng(4).permutation(counts.shape[0])
    one, two = (call_cells(sp.csr_matrix(m), iterations=300, seed=2) for m in (counts, counts[order]))
    np.testing.assert_array_equal(one.is_cell[order], two.is_cell)
    np.testing.assert_allclose(one.q[order], two.q, rtol=1e-12)


def test_known_cells_are_not_tested_and_not_part_of_the_soup():
    counts = raw_matrix(30, size=90)
    known = np.arange(counts.shape[0]) < 30
    calls = call_cells(counts, iterations=300, exclude=known)
    assert calls.is_cell[:30].all()
    assert np.isnan(calls.q[:30]).all()
    assert calls.soup.n_droplets < call_cells(counts, iterations=300).soup.n_droplets


def test_the_knee_by_hand():
    # 100 droplets of 1,000, a drop, then a slow tail
    totals = np.r_[np.linspace(1200, 1000, 100), np.linspace(150, 101, 900)]
    knee = knee_point(totals)
    assert knee is not None
    assert 1000 <= knee.knee <= 1200
    assert knee.steepness > 2
    assert knee_point(np.array([500.0, 400.0])) is None
    assert knee_point(np.zeros(0)) is None


def test_uncalled_droplets_with_epithelial_counts_stand_out():
    soup = Soup(np.array([0.0, 10.0, 10.0, 9980.0]), 500)
    panel = np.array([1, 1, 1, 0], bool)
    counts = sp.csr_matrix(
        np.array(
            [
                [4, 4, 0, 40],  # far beyond 0.2 % of 48
                [8, 0, 0, 40],  # one gene only
                [1, 1, 0, 2000],  # what the soup brings
                [4, 4, 0, 40],  # called as a cell
                [0, 0, 0, 0],
            ],
            dtype=np.float32,
        )
    )
    uncalled = np.array([1, 1, 1, 0, 1], bool)
    assert epithelial_uncalled(counts, uncalled, panel, soup).tolist() == [True, False, False, False, False]
    assert not epithelial_uncalled(counts, uncalled, np.zeros(4, bool), soup).any()


def test_soup_alone_rarely_looks_epithelial():
    counts = raw_matrix(0, n_empty=4000)
    panel = np.zeros(N_GENES, bool)
    panel[np.argsort(SOUP)[100:130]] = True
    calls = call_cells(counts, iterations=200)
    assert epithelial_uncalled(counts, ~calls.is_cell, panel, calls.soup).sum() <= 2


def test_reason_and_mask():
    assert uncalled_reason(0.3141, 300) == "empty_droplet(q=0.314)"
    assert uncalled_reason(np.nan, 41) == "empty_droplet(q not computed, 41<=100 counts)"
    assert called_mask(pd.DataFrame(index=["a"])).tolist() == [True]
    assert called_mask(pd.DataFrame({"droplet_class": ["cell", "uncalled"]})).tolist() == [True, False]
