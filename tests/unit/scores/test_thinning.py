import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import binom, chisquare

from dtcflow.scores.thinning import Thinning, thin_counts


def matrix(*rows):
    return sp.csr_matrix(np.array(rows, dtype=np.float32))


def test_share_one_keeps_everything_and_share_zero_nothing():
    counts = matrix([1, 0, 30, 2], [5, 9, 0, 1])
    out = thin_counts(counts, [1.0, 0.0], seed=1)
    assert out.toarray().tolist() == [[1, 0, 30, 2], [0, 0, 0, 0]]
    assert out.nnz == 3
    assert out.dtype == np.float32


@pytest.mark.parametrize("count", [1, 2, 5, 8, 9, 40])
def test_kept_transcripts_follow_the_binomial_law(count):
    counts = sp.csr_matrix(np.full((40, 500), count, dtype=np.float32))
    kept = thin_counts(counts, np.full(40, 0.3), seed=count).toarray().ravel()
    law = binom(count, 0.3)
    values = np.arange(count + 1)
    expected = law.pmf(values) * kept.size
    few = expected < 10
    observed = np.array([(kept == value).sum() for value in values], dtype=float)
    observed = np.append(observed[~few], observed[few].sum())
    expected = np.append(expected[~few], expected[few].sum())
    keep = expected > 0
    # six laws are tested: .001 fails a sound one in less than one of 150 changes of the seed
    assert chisquare(observed[keep], expected[keep] * observed.sum() / expected.sum()).pvalue > 0.001


def test_each_cell_has_its_own_share():
    counts = sp.csr_matrix(np.full((3, 4000), 12, dtype=np.float32))
    kept = np.asarray(thin_counts(counts, [0.2, 0.5, 0.8], seed=3).sum(axis=1)).ravel() / 48000
    assert kept == pytest.approx([0.2, 0.5, 0.8], abs=4 * (0.25 / 48000) ** 0.5)


def test_a_group_draws_what_it_would_draw_alone():
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(3, (6, 50)).astype(np.float32))
    counts.eliminate_zeros()
    share = np.full(6, 0.4)

    def stream(group):
        return np.random.default_rng([7, group])

    both = Thinning(counts, share, [0, 1, 0, 1, 0, 1]).draw(stream)
    alone = Thinning(counts[[1, 3, 5]], share[:3], [1, 1, 1]).draw(stream)
    assert (both[[1, 3, 5]] != alone).nnz == 0
    again = Thinning(counts, share, [0, 1, 0, 1, 0, 1]).draw(stream)
    assert (both != again).nnz == 0


def test_empty_inputs_and_wrong_ones():
    assert thin_counts(sp.csr_matrix((0, 4)), []).shape == (0, 4)
    assert thin_counts(sp.csr_matrix((3, 4)), [0.5] * 3).nnz == 0
    with pytest.raises(ValueError, match="2 cells need 2 shares"):
        thin_counts(matrix([1], [2]), [0.5])
    with pytest.raises(ValueError, match="between 0 and 1"):
        thin_counts(matrix([1], [2]), [0.5, 1.5])
