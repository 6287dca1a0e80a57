"""Residual sums and reference moments against plain dense formulas, and the same bits under every rearrangement."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from dtcflow.cnv.moments import reference_moments
from dtcflow.cnv.residuals import grouped_scores, mixture_weights

CLIP, ITERATIONS, N_GROUPS = 4.0, 15, 9


def plain_weights(x, means, iterations):
    profiles = means + 1e-7
    profiles = profiles / profiles.sum(axis=1, keepdims=True)
    weights = np.full((len(x), len(means)), 1.0 / len(means))
    for _ in range(iterations):
        ratio = np.where(x > 0, x / (weights @ profiles), 0.0)
        updated = weights * (ratio @ profiles.T)
        total = updated.sum(axis=1, keepdims=True)
        weights = np.where(total > 0, updated / np.where(total > 0, total, 1.0), weights)
    return weights


def plain_scores(x, means, dispersion, group, n_groups, unclipped=0.0):
    mu = plain_weights(x, means, ITERATIONS) @ means
    mu *= x.sum(axis=1, keepdims=True) / mu.sum(axis=1, keepdims=True)
    damping = 1 + dispersion * mu
    limit = CLIP * np.sqrt(mu * damping)
    residual = np.clip(x - mu, -limit, np.maximum(limit, unclipped - mu)) / damping
    member = np.eye(n_groups)[group]
    return residual @ member, (mu / damping) @ member


@pytest.fixture(scope="module")
def cells():
    """45 cells of very different depth (one empty), 400 genes of which 311 are used, in nine groups (one empty)."""
    rng = np.random.default_rng(3)
    columns = np.sort(rng.choice(400, 311, replace=False))
    means = rng.dirichlet(np.full(311, 0.4), size=5)
    depth = rng.lognormal(6, 1.5, 45)
    depth[7] = 0
    dense = rng.poisson(rng.gamma(2, 0.5, (45, 400)) * depth[:, None] / 400).astype(float)
    dense[:, columns] = rng.poisson(rng.dirichlet(np.ones(5), 45) @ means * depth[:, None])
    dense[11, columns[5]] = 5000  # a gene that is clipped
    return {
        "dense": dense,
        "columns": columns,
        "means": means,
        "dispersion": rng.uniform(0.001, 2.0, 311),
        "group": rng.choice([0, 1, 2, 3, 5, 6, 7, 8], 311),
    }


def scores(cells, dense=None, columns=None, **options):
    dense = cells["dense"] if dense is None else dense
    columns = cells["columns"] if columns is None else columns
    return grouped_scores(
        sp.csr_matrix(dense.astype(np.float32)),
        columns,
        cells["means"],
        cells["dispersion"],
        cells["group"],
        N_GROUPS,
        iterations=ITERATIONS,
        clip=CLIP,
        **options,
    )


@pytest.mark.parametrize("unclipped", [0.0, 5.0])
def test_sums_are_those_of_the_dense_formula(cells, unclipped: float) -> None:
    x = cells["dense"][:, cells["columns"]]
    expected = plain_scores(x, cells["means"], cells["dispersion"], cells["group"], N_GROUPS, unclipped)
    for found, plain in zip(scores(cells, unclipped=unclipped), expected, strict=True):
        # weights are found in single precision
        np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-5)
    single = scores(cells, unclipped=unclipped, dtype=np.float32)
    assert single[0].dtype == single[1].dtype == np.float32
    np.testing.assert_array_equal(single[0], scores(cells, unclipped=unclipped)[0].astype(np.float32))
    assert not scores(cells)[1][:, 4].any()
    assert not scores(cells)[1][7].any()
    weights = mixture_weights(sp.csr_matrix(cells["dense"]), cells["columns"], cells["means"], iterations=ITERATIONS)
    np.testing.assert_allclose(weights, plain_weights(x, cells["means"], ITERATIONS), rtol=0, atol=1e-6)
    assert weights[7] == pytest.approx(0.2)


def test_an_absent_gene_is_clipped_too() -> None:
    """mu = (900, 100), no dispersion: residuals of (0, 1000) are -30 and +90, both clipped at 4."""
    u, info = grouped_scores(
        sp.csr_matrix([[0.0, 1000.0]]),
        np.arange(2),
        np.array([[0.9, 0.1]]),
        np.zeros(2),
        np.arange(2),
        2,
        iterations=ITERATIONS,
        clip=CLIP,
    )
    assert u == pytest.approx(np.array([[-4 * np.sqrt(900), 4 * np.sqrt(100)]]))
    assert info == pytest.approx(np.array([[900.0, 100.0]]))


@pytest.mark.parametrize("block", [1, 7, 32, 512])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_in_any_order_block_company_and_number_of_threads(cells, block: int, threads: int) -> None:
    whole = scores(cells)
    rng = np.random.default_rng(block)
    rows, genes = rng.permutation(45), rng.permutation(400)
    where = np.argsort(genes)[cells["columns"]]
    with threadpool_limits(threads):
        moved = scores(cells, cells["dense"][rows][:, genes], where, block=block)
        alone = scores(cells, cells["dense"][12:13], block=block)
    for found, single, plain in zip(moved, alone, whole, strict=True):
        np.testing.assert_array_equal(found, plain[rows])
        np.testing.assert_array_equal(single[0], plain[12])


@pytest.mark.parametrize(("n_cells", "n_types"), [(0, 3), (1, 1), (2, 2), (5, 1)])
def test_few_cells_and_types(cells, n_cells: int, n_types: int) -> None:
    few = cells | {"means": cells["means"][:n_types]}
    u, info = scores(few, cells["dense"][:n_cells])
    assert u.shape == info.shape == (n_cells, N_GROUPS)
    nothing = grouped_scores(
        sp.csr_matrix(np.ones((n_cells, 4))),
        np.zeros(0, dtype=np.int64),
        np.zeros((n_types, 0)),
        np.zeros(0),
        np.zeros(0, dtype=np.int64),
        3,
        iterations=ITERATIONS,
        clip=CLIP,
    )
    assert not nothing[0].any()


def test_moments_of_a_part_are_those_of_its_cells(cells) -> None:
    types = np.array((["b", "a", "c"] * 15), dtype=object)
    fold = np.arange(45) // 3 % 4
    counts = sp.csr_matrix(cells["dense"].astype(np.float32))
    moments = reference_moments(counts, types, fold)
    for found, chosen in (
        (moments.without(), np.ones(45, dtype=bool)),
        (moments.without(fold=2), fold != 2),
        (moments.without(left_out="a"), types != "a"),
    ):
        x, own = cells["dense"][chosen], types[chosen]
        total = np.maximum(x.sum(axis=1), 1.0)
        scale = np.median(total)
        assert found.scale == scale
        assert found.types == tuple(sorted(set(own)))
        for k, name in enumerate(found.types):
            part, size = x[own == name], (total / scale)[own == name][:, None]
            assert found.cells[k] == len(part)
            np.testing.assert_allclose(found.means[k], part.sum(axis=0) / total[own == name].sum(), rtol=1e-12)
            np.testing.assert_allclose(found.scaled_mean[k], (part / size).mean(axis=0), rtol=1e-12)
            np.testing.assert_allclose(found.scaled_square[k], np.square(part / size).mean(axis=0), rtol=1e-12)
            assert found.inverse_size[k] == pytest.approx((1 / size).mean(), rel=1e-12)
