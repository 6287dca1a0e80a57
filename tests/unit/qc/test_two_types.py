from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.qc.profiles import resident_profiles
from dtcflow.qc.two_types import MAX_RATE, find_two_types, with_rate


@pytest.fixture(scope="module")
def mixed(marrow):
    """300 single cells of three types, 8 sums of two types as deep as one cell, 4 sums of two cells of one type."""
    singles = marrow.draw({"T_NK": 120, "monocyte": 120, "B": 60}, ambient=0.03, seed=3)
    halves = [marrow.draw({"T_NK": 8}, counts=1500.0, seed=4), marrow.draw({"monocyte": 8}, counts=1500.0, seed=5)]
    alike = marrow.draw({"T_NK": 8}, seed=6).layers["counts"]
    counts = sp.csr_matrix(
        sp.vstack(
            [singles.layers["counts"], halves[0].layers["counts"] + halves[1].layers["counts"], alike[:4] + alike[4:]]
        )
    )
    types = np.array([*singles.obs["truth"], *["T_NK"] * 12], dtype=object)
    ids = pd.Index([f"c{i:04d}" for i in range(312)])
    return counts, types, ids


def test_sums_of_two_types_are_flagged_and_single_cells_are_not(mixed) -> None:
    counts, types, ids = mixed
    profiles = resident_profiles(counts, types, ids, excluded=np.zeros(312, dtype=bool))
    found = find_two_types(counts, profiles, np.ones(312, dtype=bool), expected_rate=0.02)
    assert found.status == "run"
    assert found.flagged[300:308].sum() >= 7
    assert found.flagged[:300].sum() <= 3
    assert not found.flagged[308:].any()
    assert found.rate == pytest.approx(8 / 312, abs=0.015)
    assert found.as_dict()["n_flagged"] == found.flagged.sum()


def test_order_of_cells_does_not_matter(mixed) -> None:
    counts, types, ids = mixed
    order = np.random.default_rng(0).permutation(312)
    results = []
    for rows in (np.arange(312), order):
        profiles = resident_profiles(counts[rows], types[rows], ids[rows], excluded=np.zeros(312, dtype=bool))
        results.append(find_two_types(counts[rows], profiles, np.ones(312, dtype=bool), expected_rate=0.02))
    np.testing.assert_array_equal(results[1].flagged, results[0].flagged[order])
    np.testing.assert_allclose(results[1].probability, results[0].probability[order], rtol=1e-6, atol=1e-9)


def test_only_tested_cells_have_a_probability(mixed) -> None:
    counts, types, ids = mixed
    profiles = resident_profiles(counts, types, ids, excluded=np.zeros(312, dtype=bool))
    tested = np.arange(312) < 100
    found = find_two_types(counts, profiles, tested, expected_rate=0.02)
    np.testing.assert_array_equal(np.isfinite(found.probability), tested)
    assert not found.flagged[100:].any()
    nothing = find_two_types(counts, profiles, np.zeros(312, dtype=bool), expected_rate=0.02)
    assert nothing.status == "not_run: no cell to test"


def test_a_continuum_is_not_flagged_in_masses(marrow) -> None:
    """A quarter of the cells lies between two types: no doublet rate explains that."""
    ends = marrow.draw({"HSPC": 60, "erythroid": 60, "T_NK": 60}, seed=7)
    between = marrow.draw({"HSPC": 60}, counts=1500.0, seed=8).layers["counts"]
    between = between + marrow.draw({"erythroid": 60}, counts=1500.0, seed=9).layers["counts"]
    counts = sp.csr_matrix(sp.vstack([ends.layers["counts"], between]))
    types = np.array([*ends.obs["truth"], *["unknown"] * 60], dtype=object)
    ids = pd.Index([f"c{i:04d}" for i in range(240)])
    profiles = resident_profiles(counts, types, ids, excluded=np.zeros(240, dtype=bool))
    found = find_two_types(counts, profiles, np.ones(240, dtype=bool), expected_rate=0.002)
    assert found.flagged.mean() <= MAX_RATE[0]


def test_one_type_is_a_status(marrow) -> None:
    adata = marrow.draw({"T_NK": 40}, seed=1)
    types = adata.obs["truth"].to_numpy(object)
    profiles = resident_profiles(adata.layers["counts"], types, adata.obs_names, excluded=np.zeros(40, dtype=bool))
    found = find_two_types(adata.layers["counts"], profiles, np.ones(40, dtype=bool), expected_rate=0.01)
    assert found.status == "not_run: 1 cell types with a profile, 2 are needed"
    assert np.isnan(found.probability).all()


def test_rate_by_hand() -> None:
    # two sure doublets, eight sure singles and ten cells' worth of the start: (2 + 10 x 0.1) / (10 + 10)
    p, rate = with_rate(np.array([50.0] * 2 + [-50.0] * 8), start=0.1, most=0.4)
    assert rate == pytest.approx(0.15)
    np.testing.assert_allclose(p, [1, 1, *[0] * 8], atol=1e-9)
    assert with_rate(np.full(10, 50.0), start=0.05, most=0.2)[1] == 0.2
