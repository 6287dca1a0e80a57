r"""Sums of negative-binomial residuals over groups of genes, cell by cell.

The model is that of :mod:`dtcflow.cnv.arms`. Let :math:`i_g = \mu_g / (1 + \phi_g \mu_g)`. An absent gene contributes
:math:`-i_g` to the score, so that

.. math:: U = -\sum_g i_g + \sum_{g:\,x_g > 0} \frac{x_g}{1 + \phi_g \mu_g}, \qquad I = \sum_g i_g

(before clipping): one dense array of :math:`i_g` per cell, and everything else at the non-zero counts only.

Every number of a cell comes from the cell alone. Its counts are brought into the order of the model's genes; its
products with the reference profiles are products of a matrix with one vector, on one thread, because the rounding of a
matrix product may depend on the place of a row in a block. Results are the same bits for every order of cells and
genes, every block size and every number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

Floats = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

BLOCK = 32
"""Cells at a time: two dense arrays of 10,000 genes are then 5 MB."""
PROFILE_FLOOR = 1e-7
"""Added to the reference profiles, so that a count of a gene that no reference type expresses is possible."""


@dataclass(frozen=True)
class Layout:
    """Genes in the order in which they are summed: by group, within a group as given."""

    place: Ints
    """Per column of the count matrix: place in that order; -1 where the gene is not used."""
    order: Ints
    """Indices into the given genes."""
    group: Ints
    """Group of each gene, in order."""
    starts: Ints
    """First gene of each group that has one."""
    present: Ints
    """The groups that have one."""


def lay_out(columns: Ints, group: Ints, n_columns: int) -> Layout:
    """Order genes by group.

    Parameters
    ----------
    columns
        Column of the count matrix per gene.
    group
        Group per gene, from 0.
    n_columns
        Columns of the count matrix.
    """
    order = np.argsort(group, kind="stable")
    sorted_group = group[order]
    starts = np.flatnonzero(np.diff(sorted_group, prepend=-1))
    place = np.full(n_columns, -1, dtype=np.int64)
    place[columns[order]] = np.arange(len(order))
    return Layout(place, order, sorted_group, starts, sorted_group[starts])


@dataclass(frozen=True)
class _Counts:
    """Non-zero counts of some cells in the order of the model's genes."""

    at: Ints
    """Place in a dense table of these cells x genes."""
    place: Ints
    """Place of the gene."""
    value: Floats
    cell: Ints
    ends: Ints
    """Where each cell begins, and the end of the last one."""


class _Sorter:
    """Brings the counts of a block of cells into the order of the genes."""

    def __init__(self, layout: Layout, n_cells: int) -> None:
        self.place, self.n_genes = layout.place, len(layout.order)
        self.dense = np.empty(n_cells * self.n_genes)

    def __call__(self, part: sp.csr_matrix) -> _Counts:
        size = np.diff(part.indptr)
        at = self.place.take(part.indices)
        used = at >= 0
        at += np.repeat(np.arange(part.shape[0]) * self.n_genes, size)
        at = at[used]
        self.dense[at] = part.data[used]
        at.sort()
        value = self.dense[at]
        if not value.all():
            at, value = at[value > 0], value[value > 0]
        ends = np.searchsorted(at, np.arange(part.shape[0] + 1) * self.n_genes)
        cell = np.repeat(np.arange(part.shape[0]), np.diff(ends))
        return _Counts(at, at - cell * self.n_genes, value, cell, ends)


def _weights(counts: _Counts, profiles: Float32, iterations: int) -> Floats:
    """Weights of the profiles (types x genes, rows add to 1) in every cell, by EM of a multinomial mixture.

    Each step multiplies a weight by the mean of ``profile / mixture`` over the cell's transcripts. Single precision
    leaves an error of some 1e-7 in a weight, and takes two thirds of the time.
    """
    n_types, n_cells = len(profiles), len(counts.ends) - 1
    weights = np.full((n_cells, n_types), 1.0 / n_types, dtype=np.float32)
    if n_types == 1:
        return weights.astype(np.float64)
    ends = counts.ends.tolist()
    longest = int(np.diff(counts.ends).max(initial=0))
    own, mixture, step = (np.empty(size, dtype=np.float32) for size in (n_types * longest, longest, n_types))
    for cell in range(n_cells):
        begin, end = ends[cell], ends[cell + 1]
        if begin == end:
            continue
        value = counts.value[begin:end]
        share = (value / value.sum()).astype(np.float32)
        # types x genes: both products then run along the genes
        here = own[: n_types * (end - begin)].reshape(n_types, end - begin)
        np.take(profiles, counts.place[begin:end], axis=1, out=here, mode="clip")
        mixed, weight = mixture[: end - begin], weights[cell]
        for _ in range(iterations):
            np.dot(weight, here, out=mixed)
            np.divide(share, mixed, out=mixed)
            np.dot(here, mixed, out=step)
            np.multiply(weight, step, out=weight)
    found = weights.astype(np.float64)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _profiles(means: Floats) -> Float32:
    floored = means + PROFILE_FLOOR
    return np.asarray(floored / floored.sum(axis=1, keepdims=True), dtype=np.float32)


def mixture_weights(
    counts: sp.csr_matrix, columns: Ints, means: Floats, *, iterations: int, block: int = BLOCK
) -> Floats:
    """Weights of the reference types in every cell (cells x types); a cell without counts has equal weights.

    Parameters
    ----------
    counts
        Cells x genes.
    columns
        Columns of the genes in use.
    means
        Types x genes in use, fractions of a cell's counts.
    iterations
        Steps of the EM algorithm, from equal weights.
    block
        Cells at a time.
    """
    matrix = sp.csr_matrix(counts)
    layout = lay_out(columns, np.zeros(len(columns), dtype=np.int64), matrix.shape[1])
    weights = np.full((matrix.shape[0], len(means)), 1.0 / len(means))
    sorter, profiles = _Sorter(layout, min(block, matrix.shape[0])), _profiles(means)
    with threadpool_limits(limits=1, user_api="blas"):
        for first in range(0, matrix.shape[0], block):
            weights[first : first + block] = _weights(sorter(matrix[first : first + block]), profiles, iterations)
    return weights


def grouped_scores(
    counts: sp.csr_matrix,
    columns: Ints,
    means: Floats,
    dispersion: Floats,
    group: Ints,
    n_groups: int,
    *,
    iterations: int,
    clip: float,
    unclipped: float = 0.0,
    block: int = BLOCK,
    dtype: npt.DTypeLike = np.float64,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Score and information per cell and group of genes.

    Parameters
    ----------
    counts
        Cells x genes, raw counts.
    columns
        Columns of the genes in use.
    means
        Types x genes in use, fractions of a cell's counts.
    dispersion
        Negative-binomial dispersion of each gene in use.
    group
        Group of each gene in use, from 0.
    n_groups
        Number of groups; one without genes has score and information 0.
    iterations
        Steps of the EM algorithm that finds a cell's mixture of types.
    clip
        Pearson residuals are clipped at this absolute value ...
    unclipped
        ... but no count up to this one is.
    block
        Cells at a time; the result does not depend on it.
    dtype
        Type of the result; sums are made in double precision.

    Returns
    -------
    score, information
        Both cells x groups.
    """
    matrix = sp.csr_matrix(counts)
    n_cells, n_genes = matrix.shape[0], len(columns)
    score, information = (np.zeros((n_cells, n_groups), dtype=dtype) for _ in range(2))
    if not n_cells or not n_genes:
        return score, information
    layout = lay_out(columns, group, matrix.shape[1])
    means, dispersion = np.ascontiguousarray(means[:, layout.order]), dispersion[layout.order]
    profiles, sums = _profiles(means), means.sum(axis=1)
    block = min(block, n_cells)
    sorter = _Sorter(layout, block)
    expected, damping = np.empty((block, n_genes)), np.empty((block, n_genes))
    with threadpool_limits(limits=1, user_api="blas"):
        for first in range(0, n_cells, block):
            part = sorter(matrix[first : first + block])
            rows = slice(first, min(first + block, n_cells))
            size = rows.stop - rows.start
            total = np.bincount(part.cell, weights=part.value, minlength=size)
            weights = _weights(part, profiles, iterations)
            for cell in range(size):
                weight, mu, damped = weights[cell], expected[cell], damping[cell]
                weight *= total[cell] / max(float(np.dot(weight, sums)), 1e-12)
                # row by row: both stay in the processor's cache
                np.dot(weight, means, out=mu)
                np.multiply(mu, dispersion, out=damped)
                damped += 1.0
                np.divide(mu, damped, out=mu)
            score[rows], information[rows] = _block_scores(
                part, layout, expected[:size], damping[:size], n_groups, clip, unclipped
            )
    return score, information


def _block_scores(
    part: _Counts, layout: Layout, expected: Floats, damping: Floats, n_groups: int, clip: float, unclipped: float
) -> tuple[Floats, Floats]:
    """Score and information of a block of cells from ``mu / (1 + phi mu)``, overwritten here, and ``1 + phi mu``."""
    size = len(expected)
    information = np.zeros((size, n_groups))
    information[:, layout.present] = np.add.reduceat(expected, layout.starts, axis=1)
    absent, damped = expected.ravel()[part.at], damping.ravel()[part.at]
    mu = absent * damped
    score = -information
    # the residual of an absent gene is -sqrt(information)
    if expected.max() > clip * clip:
        np.copyto(expected, clip * np.sqrt(expected), where=expected > clip * clip)
        absent = expected.ravel()[part.at]
        score[:, layout.present] = -np.add.reduceat(expected, layout.starts, axis=1)
    spread = np.sqrt(mu * damped)
    spread *= clip
    residual: Any = part.value - mu
    np.minimum(residual, np.maximum(spread, unclipped - mu), out=residual)
    np.maximum(residual, -spread, out=residual)
    residual /= damped
    residual += absent
    target = layout.group.take(part.place)
    target += part.cell * n_groups
    score += np.bincount(target, weights=residual, minlength=size * n_groups).reshape(size, n_groups)
    return score, information
