r"""Sums of negative-binomial residuals over groups of genes, cell by cell.

The model is that of :mod:`dtcflow.cnv.arms`. Let :math:`i_g = \mu_g / (1 + \phi_g \mu_g)`. An absent gene contributes
:math:`-i_g` to the score, so that

.. math:: U = -\sum_g i_g + \sum_{g:\,x_g > 0} \frac{x_g}{1 + \phi_g \mu_g}, \qquad I = \sum_g i_g

(before clipping): one dense array of :math:`i_g` per cell, and everything else at the non-zero counts only.

Expected counts are held in single precision, whose rounding of a few genes' sum is that of storing the result so.

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
"""Cells at a time: work on their non-zero counts then stays in the cache."""
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

    place: Ints
    """Place of the gene."""
    value: Floats
    cell: Ints
    ends: Ints
    """Where each cell begins, and the end of the last one."""


class _Sorter:
    """Brings the counts of a block of cells into the order of the genes."""

    def __init__(self, matrix: sp.csr_matrix, layout: Layout, block: int) -> None:
        self.matrix, self.place, self.n_genes = matrix, layout.place, len(layout.order)
        self.dense = np.empty(block * self.n_genes, dtype=np.float32)

    def __call__(self, first: int, last: int) -> _Counts:
        """Counts of the cells from ``first`` up to ``last``, without."""
        bounds = self.matrix.indptr[first : last + 1]
        stored, size = slice(bounds[0], bounds[-1]), last - first
        at = self.place.take(self.matrix.indices[stored])
        used = at >= 0
        at += np.repeat(np.arange(size) * self.n_genes, np.diff(bounds))
        at = at[used]
        self.dense[at] = self.matrix.data[stored][used]
        at.sort()
        value = self.dense[at].astype(np.float64)
        if not value.all():
            at, value = at[value > 0], value[value > 0]
        ends = np.searchsorted(at, np.arange(size + 1) * self.n_genes)
        cell = np.repeat(np.arange(size), np.diff(ends))
        return _Counts(at - cell * self.n_genes, value, cell, ends)


class _Mixture:
    """Reference profiles in single precision, and a cell's mixture of them."""

    def __init__(self, means: Floats, iterations: int) -> None:
        self.means = np.ascontiguousarray(means, dtype=np.float32)
        self.inverse = (1.0 / (means + PROFILE_FLOOR).sum(axis=1)).astype(np.float32)[:, None]
        self.iterations = iterations
        self.own = np.empty(0, dtype=np.float32)

    def __call__(self, counts: _Counts) -> Floats:
        """Weights of the types in every cell (cells x types, rows add to 1), by EM of a multinomial mixture.

        Each step multiplies a weight by the mean of ``profile / mixture`` over the cell's transcripts. Single precision
        leaves an error of some 1e-7 in a weight, and takes two thirds of the time.
        """
        n_types, ends = len(self.means), counts.ends.tolist()
        weights = np.full((len(ends) - 1, n_types), 1.0 / n_types, dtype=np.float32)
        if n_types == 1:
            return weights.astype(np.float64)
        longest = int(np.diff(counts.ends).max(initial=0))
        if len(self.own) < n_types * longest:
            self.own = np.empty(n_types * longest, dtype=np.float32)
        mixture, step = np.empty(longest, dtype=np.float32), np.empty(n_types, dtype=np.float32)
        for cell, weight in enumerate(weights):
            begin, end = ends[cell], ends[cell + 1]
            if begin == end:
                continue
            value = counts.value[begin:end]
            share = (value / value.sum()).astype(np.float32)
            # types x genes: both products then run along the genes
            here = self.own[: n_types * (end - begin)].reshape(n_types, end - begin)
            np.take(self.means, counts.place[begin:end], axis=1, out=here, mode="clip")
            here += np.float32(PROFILE_FLOOR)
            here *= self.inverse
            mixed = mixture[: end - begin]
            for _ in range(self.iterations):
                np.dot(weight, here, out=mixed)
                np.divide(share, mixed, out=mixed)
                np.dot(here, mixed, out=step)
                np.multiply(weight, step, out=weight)
        found = weights.astype(np.float64)
        return np.asarray(found / found.sum(axis=1, keepdims=True))


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
    sorter, mixture = _Sorter(matrix, layout, min(block, matrix.shape[0])), _Mixture(means, iterations)
    with threadpool_limits(limits=1, user_api="blas"):
        for first in range(0, matrix.shape[0], block):
            last = min(first + block, matrix.shape[0])
            weights[first:last] = mixture(sorter(first, last))
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
        Type of the result.

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
    block = min(block, n_cells)
    sorter, mixture = _Sorter(matrix, layout, block), _Mixture(means[:, layout.order], iterations)
    expected = _Expected(mixture.means, dispersion[layout.order], layout, clip)
    sums = means.sum(axis=1)
    with threadpool_limits(limits=1, user_api="blas"):
        for first in range(0, n_cells, block):
            rows = slice(first, min(first + block, n_cells))
            part, size = sorter(rows.start, rows.stop), rows.stop - rows.start
            total = np.bincount(part.cell, weights=part.value, minlength=size)
            weights = mixture(part)
            weights *= (total / np.maximum(np.einsum("ij,j->i", weights, sums), 1e-12))[:, None]
            known, absent, mu = expected(part, weights)
            information[rows, layout.present] = known
            found = _present_genes(part, layout, expected.dispersion, mu, n_groups, clip, unclipped)
            found[:, layout.present] -= absent
            score[rows] = found
    return score, information


class _Expected:
    """Dense part: what is expected of all genes of a cell. One row at a time, so that it stays in the cache."""

    def __init__(self, means: Float32, dispersion: Floats, layout: Layout, clip: float) -> None:
        self.means, self.dispersion, self.starts = means, dispersion.astype(np.float32), layout.starts
        self.limit = clip**2
        self.mu, self.damped = (np.empty(means.shape[1], dtype=np.float32) for _ in range(2))

    def __call__(self, part: _Counts, weights: Floats) -> tuple[Float32, Float32, Float32]:
        """Information per cell and present group, what absent genes take from the score, and mu of the counts."""
        single, ends = weights.astype(np.float32), part.ends.tolist()
        information = np.empty((len(single), len(self.starts)), dtype=np.float32)
        mu = np.empty(len(part.place), dtype=np.float32)
        for cell, weight in enumerate(single):
            np.dot(weight, self.means, out=self.mu)
            here = slice(ends[cell], ends[cell + 1])
            np.take(self.mu, part.place[here], out=mu[here], mode="clip")
            np.add.reduceat(self._share(), self.starts, out=information[cell])
        absent = information
        # the residual of an absent gene is -sqrt(information)
        clipped = np.flatnonzero((information > self.limit).any(axis=1))
        if len(clipped):
            absent = information.copy()
            for row in clipped:
                np.dot(single[row], self.means, out=self.mu)
                np.add.reduceat(_clipped(self._share(), self.limit), self.starts, out=absent[row])
        return information, absent, mu

    def _share(self) -> Float32:
        """``mu / (1 + phi mu)`` of all genes, in place of ``mu``."""
        np.multiply(self.mu, self.dispersion, out=self.damped)
        self.damped += np.float32(1.0)
        return np.divide(self.mu, self.damped, out=self.mu)


def _clipped(share: npt.NDArray[Any], limit: float) -> npt.NDArray[Any]:
    """What an absent gene takes from the score: the residual is ``-sqrt(share)``, clipped at the root of ``limit``."""
    return np.where(share > limit, np.sqrt(limit * share), share)


def _present_genes(
    part: _Counts, layout: Layout, dispersion: Float32, mu: Float32, n_groups: int, clip: float, unclipped: float
) -> Floats:
    """What the non-zero counts add to the score of a cell in which all genes were absent."""
    single = dispersion[part.place]
    single *= mu
    single += np.float32(1.0)
    absent = _clipped((mu / single).astype(np.float64), clip**2)
    expected, damped = mu.astype(np.float64), single.astype(np.float64)
    spread = np.sqrt(expected * damped)
    spread *= clip
    residual: Any = part.value - expected
    np.minimum(residual, np.maximum(spread, unclipped - expected), out=residual)
    np.maximum(residual, -spread, out=residual)
    residual /= damped
    residual += absent
    target = layout.group.take(part.place)
    target += part.cell * n_groups
    n_cells = len(part.ends) - 1
    summed = np.bincount(target, weights=residual, minlength=n_cells * n_groups)
    return np.asarray(summed, dtype=np.float64).reshape(n_cells, n_groups)
