from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.qc.profiles import MIN_STROMAL_CELLS, MIN_TYPE_CELLS, gene_sums, resident_profiles, type_scores

IDS = pd.Index([f"c{i:03d}" for i in range(60)])


def none(n: int) -> np.ndarray:
    return np.zeros(n, dtype=bool)


def test_profiles_by_hand() -> None:
    counts = sp.csr_matrix(np.repeat([[9.0, 1.0], [2.0, 8.0]], 10, axis=0))
    types = np.repeat(np.array(["B", "T_NK"], dtype=object), 10)
    found = resident_profiles(counts, types, IDS[:20], excluded=none(20))
    assert found.types == ("B", "T_NK")
    np.testing.assert_allclose(found.pooled, [0.55, 0.45])
    # ten cells of ten counts and one more, worth a median cell, of the sample's profile
    np.testing.assert_allclose(
        found.shares, [[(90 + 5.5) / 110, (10 + 4.5) / 110], [(20 + 5.5) / 110, (80 + 4.5) / 110]]
    )
    np.testing.assert_array_equal(found.n_cells, [10, 10])
    np.testing.assert_array_equal(found.depth, [10, 10])


def test_a_wrongly_named_cell_joins_the_type_it_looks_like() -> None:
    counts = sp.csr_matrix(np.repeat([[90.0, 10.0], [20.0, 80.0]], 12, axis=0))
    types = np.repeat(np.array(["B", "T_NK"], dtype=object), 12)
    types[0], types[1], types[23] = "T_NK", "unknown", "epithelial"
    found = resident_profiles(counts, types, IDS[:24], excluded=none(24))
    np.testing.assert_array_equal(found.label, np.repeat([0, 1], 12))


def test_few_cells_excluded_cells_and_a_little_stroma_are_no_type() -> None:
    n = MIN_TYPE_CELLS
    assert n < MIN_STROMAL_CELLS
    types = np.array(["B"] * n + ["T_NK"] * (n - 1) + ["fibroblast"] * n, dtype=object)
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(5.0, (types.size, 6)).astype(np.float32))
    excluded = none(types.size)
    found = resident_profiles(counts, types, IDS[: types.size], excluded=excluded)
    assert found.types == ("B",)
    excluded[0] = True
    assert resident_profiles(counts, types, IDS[: types.size], excluded=excluded).types == ()


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_hardly_a_cell(n: int) -> None:
    counts = sp.csr_matrix(np.ones((n, 4), dtype=np.float32))
    found = resident_profiles(counts, np.array(["B"] * n, dtype=object), IDS[:n], excluded=none(n))
    assert found.types == ()
    assert found.shares.shape == (0, 4)
    assert (found.label == -1).all()
    assert len(found.label) == n


def test_dispersion_is_recovered() -> None:
    rng = np.random.default_rng(1)
    n, genes, phi = 400, 300, 0.4
    mean = rng.uniform(2, 20, genes)
    rates = mean * rng.gamma(1 / phi, phi, (n, genes))
    counts = sp.csr_matrix(rng.poisson(rates).astype(np.float32))
    ids = pd.Index([f"c{i:03d}" for i in range(n)])
    found = resident_profiles(counts, np.array(["B"] * n, dtype=object), ids, excluded=none(n))
    # depths vary a little with the counts themselves, which takes away some of the scatter
    assert np.median(found.dispersion) == pytest.approx(phi, rel=0.1)


def test_scores_do_not_depend_on_the_order_or_the_format_of_the_cells(marrow) -> None:
    adata = marrow.draw({"T_NK": 60, "monocyte": 40, "B": 30}, seed=3)
    counts, types, ids = adata.layers["counts"], adata.obs["truth"].to_numpy(object), adata.obs_names
    one = resident_profiles(counts, types, ids, excluded=none(130))
    order = np.random.default_rng(0).permutation(130)
    two = resident_profiles(counts[order], types[order], ids[order], excluded=none(130))
    np.testing.assert_allclose(two.shares, one.shares)
    np.testing.assert_allclose(two.dispersion, one.dispersion)
    np.testing.assert_array_equal(two.label, one.label[order])
    assert (np.array(one.types, dtype=object)[one.label] == types).mean() > 0.98
    totals = np.asarray(counts.sum(axis=1), dtype=float).ravel()
    score = type_scores(counts, totals, one.shares, one.dispersion)
    np.testing.assert_allclose(
        type_scores(sp.csr_matrix(counts.toarray()), totals, one.shares, one.dispersion), score, rtol=1e-9
    )


def test_gene_sums_beyond_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtcflow.qc.profiles.BLOCK", 1)
    counts = sp.csr_matrix(np.array([[2.0**24, 0.0], [1.0, 3.0], [1.0, 0.0]], dtype=np.float32))
    np.testing.assert_array_equal(gene_sums(counts), [2**24 + 2, 3])
    assert gene_sums(counts[:0]).tolist() == [0, 0]
