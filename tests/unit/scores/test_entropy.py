import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.scores.entropy import common_depth, transcript_entropy

GENES = pd.Index([f"G{i:03d}" for i in range(300)])


def cells(n):
    return pd.Index([f"s:{i}" for i in range(n)])


def test_ends_of_the_scale_and_a_value_by_hand():
    counts = np.zeros((3, 300))
    counts[0, 5] = 1000
    counts[1] = 10
    counts[2, :2] = 1000, 500
    found = transcript_entropy(sp.csr_matrix(counts), GENES, cells(3), depth=1000)
    assert found.iloc[0] == 0
    assert 0.95 < found.iloc[1] <= 1
    # 1000 of 1500 transcripts: two thirds and one third within the sampling error of the hypergeometric draw
    share = np.array([2, 1]) / 3
    assert found.iloc[2] == pytest.approx(-(share * np.log(share)).sum() / np.log(300), abs=0.01)


def test_a_cell_at_exactly_the_depth_needs_no_draw():
    counts = np.zeros((1, 300))
    counts[0, :4] = 250, 250, 250, 250
    found = transcript_entropy(counts, GENES, cells(1), depth=1000)
    assert found.iloc[0] == pytest.approx(np.log(4) / np.log(300))


def test_shallow_cells_are_empty_and_depth_does_not_matter():
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.full(300, 0.3))
    depths = np.repeat([400, 1000, 8000], 60)
    counts = np.stack([rng.multinomial(depth, share) for depth in depths])
    found = transcript_entropy(sp.csr_matrix(counts), GENES, cells(180), depth=800)
    assert found[:60].isna().all()
    shallow, deep = found[60:120], found[120:]
    error = (shallow.var() / 60 + deep.var() / 60) ** 0.5
    assert abs(shallow.mean() - deep.mean()) < 4 * error
    raw = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in counts / counts.sum(axis=1, keepdims=True)]
    assert np.mean(raw[120:]) - np.mean(raw[60:120]) > 10 * np.std(raw[120:]) / 60**0.5


def test_order_of_cells_and_genes_and_company_do_not_matter():
    rng = np.random.default_rng(1)
    counts = sp.csr_matrix(rng.poisson(rng.gamma(0.5, 10, 300), size=(20, 300)))
    first = transcript_entropy(counts, GENES, cells(20), depth=600)
    order, genes = rng.permutation(20), rng.permutation(300)
    moved = transcript_entropy(counts[order][:, genes], GENES[genes], cells(20)[order], depth=600)
    pd.testing.assert_series_equal(moved, first.iloc[order])
    pd.testing.assert_series_equal(transcript_entropy(counts[3:5], GENES, cells(20)[3:5], depth=600), first.iloc[3:5])


def test_common_depth_and_wrong_calls():
    assert common_depth([0, 100, 200]) == 500
    assert common_depth(np.arange(1000, 2001)) == 1100
    assert common_depth([]) == 500
    with pytest.raises(ValueError, match="at least 2"):
        transcript_entropy(np.ones((1, 300)), GENES, cells(1), depth=1)
    with pytest.raises(ValueError, match="2 cells"):
        transcript_entropy(np.ones((1, 300)), GENES, cells(2))
