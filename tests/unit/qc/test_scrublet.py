from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

from dtcflow.qc import scrublet
from dtcflow.qc.scrublet import automatic_threshold, scrublet_scores, split


@pytest.fixture(scope="module")
def counts(marrow) -> sp.csr_matrix:
    adata = marrow.draw({"T_NK": 330, "monocyte": 330}, seed=3)
    dense = adata.layers["counts"].toarray()
    return sp.csr_matrix(np.vstack([dense[:300], dense[330:630], dense[300:330] + dense[630:]]))


def scores(counts: sp.csr_matrix, **options) -> tuple[np.ndarray, float | None]:
    n, g = counts.shape
    return scrublet_scores(counts, rows=np.arange(n), columns=np.arange(g), rate=0.05, **{"seed": 4, **options})


def test_it_is_the_scrublet_of_scanpy(counts) -> None:
    found, threshold = scores(counts)
    adata = ad.AnnData(counts.astype(np.float32))
    sc.pp.scrublet(
        adata, expected_doublet_rate=0.05, use_approx_neighbors=False, random_state=4, verbose=False, copy=False
    )
    # one neighbour more or less at a tie moves a score by about 0.005
    np.testing.assert_allclose(found, adata.obs["doublet_score"], atol=0.006)
    assert (np.abs(found - adata.obs["doublet_score"]) < 1e-9).mean() > 0.98
    assert threshold == pytest.approx(adata.uns["scrublet"]["threshold"], abs=0.01)


def test_parts_are_disjoint_equal_and_reproducible() -> None:
    for n, most, sizes in ((10, 20, [10]), (20, 20, [20]), (21, 20, [11, 10]), (61, 20, [16, 15, 15, 15])):
        parts = split(n, max_part=most, seed=1)
        assert [part.size for part in parts] == sizes
        assert np.sort(np.concatenate(parts)).tolist() == list(range(n))
        assert all((np.diff(part) > 0).all() for part in parts)
        again = split(n, max_part=most, seed=1)
        assert all((a == b).all() for a, b in zip(parts, again, strict=True))


def test_scored_in_parts_doublets_still_have_the_highest_scores(counts) -> None:
    found, _ = scores(counts, max_part=250)
    assert np.isfinite(found).all()
    single, pair = found[:600], found[600:]
    assert ((pair[:, None] > single).mean() + 0.5 * (pair[:, None] == single).mean()) > 0.9
    np.testing.assert_array_equal(scores(counts, max_part=250)[0], found)


def test_only_the_chosen_cells_and_genes_are_used(counts) -> None:
    rows, columns = np.arange(0, 630, 2), np.arange(0, counts.shape[1], 2)
    found, _ = scrublet_scores(counts, rows=rows, columns=columns, rate=0.05, seed=4)
    alone, _ = scores(sp.csr_matrix(counts[rows][:, columns]))
    np.testing.assert_array_equal(found, alone)


def test_no_threshold_without_two_modes() -> None:
    assert automatic_threshold(np.full(1000, 0.3)) is None
    two = np.random.default_rng(0).normal([0.2, 0.8], 0.03, (1000, 2)).ravel()
    assert automatic_threshold(two) == pytest.approx(0.5, abs=0.2)


def test_a_cell_without_counts_in_the_variable_genes_is_scored(counts) -> None:
    lone = sp.lil_matrix((1, counts.shape[1]))
    lone[0, scrublet._variable_genes(counts).max() - 1] = 3.0
    found, _ = scores(sp.csr_matrix(sp.vstack([counts, lone])))
    assert np.isfinite(found).all()
