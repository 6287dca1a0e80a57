from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from dtcflow import sparse


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("n", [0, 1, 2, 5, 20, 100])
def test_piecewise_counting_is_that_of_the_dense_matrix(form, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "PIECE", 7)
    dense = np.random.default_rng(n).poisson(0.4, (n, 9)).astype(np.float32)
    matrix = form(dense)
    assert sparse.cells_per_gene(matrix).tolist() == (dense > 0).sum(axis=0).tolist()
    assert sparse.genes_per_cell(matrix).tolist() == (dense > 0).sum(axis=1).tolist()
    right = np.arange(18.0).reshape(9, 2)
    np.testing.assert_array_equal(sparse.times(matrix, right), dense.astype(float) @ right)
    np.testing.assert_array_equal(sparse.times(matrix, np.ones(9)), dense.sum(axis=1, dtype=float))


def test_stored_zeros_do_not_count() -> None:
    matrix = sp.csr_matrix((np.array([0.0, 2.0, 0.0]), np.array([0, 1, 1]), np.array([0, 2, 2, 3])), shape=(3, 3))
    assert sparse.genes_per_cell(matrix).tolist() == [1, 0, 0]
    assert sparse.cells_per_gene(matrix).tolist() == [0, 1, 0]


def test_totals_above_the_whole_numbers_of_single_precision() -> None:
    matrix = sp.csr_matrix(np.array([[2.0**24, 1.0, 1.0]], dtype=np.float32))
    assert sparse.times(matrix, np.ones(3))[0] == 2**24 + 2
