"""Null-calibrated signature scores: what a cell shows beyond gene sets of the same expression and detection.

A mean of log counts falls with sequencing depth, at a rate that depends on how strongly the genes are expressed. Every
signature is therefore compared, within the cell, with many random sets whose genes have the same mean expression and
the same detection rate::

    value = sum_up(w * x) / sum_up(w) - sum_down(w * x) / sum_down(w)        x = log1p(counts per 10,000)
    z     = (value - mean over random sets) / standard deviation over random sets

Expression-matched control genes are an idea of Tirosh et al. 2016 (Science 352:189, PMID 27124452); here they are
matched in two dimensions, gene by gene, and give a null distribution instead of one pooled control. A z is free of a
cell's size factor and, to first order, of its depth; a signature far from its null is still pulled towards 0 in shallow
cells, so contrasts between depths harmonise counts on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.stats import rankdata

from dtcflow.scores.matching import (
    LOW_COVERAGE,
    MIN_COVERAGE,
    OK,
    POOL_SIZE,
    Doubles,
    Floats,
    MatchedSets,
    draw_matched_sets,
)
from dtcflow.scores.signatures import GeneSet, Synonyms
from dtcflow.sparse import times

__all__ = [
    "LOW_COVERAGE",
    "MIN_COVERAGE",
    "OK",
    "POOL_SIZE",
    "AppliedSets",
    "CalibratedScores",
    "MatchedSets",
    "apply_sets",
    "apply_sets_and_null",
    "calibrated_z",
    "depth_correlation",
    "draw_matched_sets",
    "gene_statistics",
    "log_normalise",
    "null_z",
]

_TARGET: Final = 1e4
_ROWS: Final = 4096
_CHUNK: Final = 64  # cells per product: genes x 64 floats stay in the cache, larger blocks were 2.3 times slower
_BLOCK_FLOATS: Final = 24_000_000  # bound on cells x columns of one block (96 MB)


@dataclass(frozen=True)
class AppliedSets:
    """Scores of :func:`apply_sets`, each cells x ``MatchedSets.names``, float32; NaN where a cell has no null."""

    z: Floats
    value: Floats
    null_mean: Floats
    null_sd: Floats


@dataclass(frozen=True)
class CalibratedScores:
    """Result of :func:`calibrated_z`.

    Parameters
    ----------
    z
        Cells x sets, float32, in standard deviations of the random sets; NaN where not scorable.
    coverage
        Table ``signature_coverage``, one row a set, with the further column ``reason``.
    matched
        The signatures with their random sets, for :func:`apply_sets` and :func:`null_z`.
    """

    z: pd.DataFrame
    coverage: pd.DataFrame
    matched: MatchedSets

    @property
    def random_sets(self) -> sp.csc_matrix[Any]:
        """Weights of signatures and random sets, genes x columns."""
        return self.matched.weights


# ---------------------------------------------------------------------------------------------------------------------
# Normalisation and gene statistics
# ---------------------------------------------------------------------------------------------------------------------


def log_normalise(counts: Any) -> sp.csr_matrix[Any]:
    """Return log1p of counts per 10,000, cells x genes, CSR float32; a cell without counts stays empty.

    The result shares the index arrays of a CSR input, so that only the values are allocated.
    """
    matrix = sp.csr_matrix(counts)
    matrix.sum_duplicates()
    totals = times(matrix, np.ones(matrix.shape[1]))
    factors = np.divide(_TARGET, totals, out=np.zeros_like(totals), where=totals > 0).astype(np.float32)
    values = matrix.data.astype(np.float32)
    values *= np.repeat(factors, np.diff(matrix.indptr))
    np.log1p(values, out=values)
    return sp.csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)


def _row_blocks(n_rows: int, size: int) -> Iterator[slice]:
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


def gene_statistics(lognorm: sp.csr_matrix[Any], genes: pd.Index[Any], *, rows: Any = None) -> pd.DataFrame:
    """Mean, detection rate and variance of every gene over the reference cells.

    Parameters
    ----------
    lognorm
        Cells x genes, log1p counts per 10,000.
    genes
        Unique symbol of each column.
    rows
        Indices or mask of the reference cells; ``None`` means all. Cells without counts are left out.

    Returns
    -------
    Indexed by gene, in the given order: ``mean``, ``detection`` (fraction of cells), ``variance``; ``attrs["n_cells"]``
    holds the number of reference cells.

    Raises
    ------
    ValueError
        When ``genes`` does not fit the matrix or is not unique.
    """
    if len(genes) != lognorm.shape[1] or not genes.is_unique:
        raise ValueError(f"{len(genes)} genes ({genes.nunique()} unique) for a matrix of {lognorm.shape[1]} columns")
    chosen = np.arange(lognorm.shape[0])
    if rows is not None:
        rows = np.asarray(rows)
        chosen = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
    chosen = np.sort(chosen)[np.diff(lognorm.indptr)[np.sort(chosen)] > 0]
    n_genes, n_cells = lognorm.shape[1], len(chosen)
    total, squares, detected = np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes)
    for block in _row_blocks(n_cells, _ROWS):
        part = lognorm[chosen[block]]
        values = part.data.astype(np.float64)
        total += np.bincount(part.indices, weights=values, minlength=n_genes)
        squares += np.bincount(part.indices, weights=values * values, minlength=n_genes)
        detected += np.bincount(part.indices, weights=values > 0, minlength=n_genes)
    n = max(n_cells, 1)
    mean = total / n
    frame = pd.DataFrame(
        {"mean": mean, "detection": detected / n, "variance": np.maximum(squares / n - mean * mean, 0.0)}, index=genes
    )
    frame.attrs["n_cells"] = n_cells
    return frame


# ---------------------------------------------------------------------------------------------------------------------
# Scoring
# ---------------------------------------------------------------------------------------------------------------------


def _products(
    lognorm: sp.csr_matrix[Any], transposed: sp.csr_matrix[Any], chunk: int | None
) -> Iterator[tuple[slice, Floats]]:
    """Yield ``transposed @ lognorm[block].T`` (columns x cells) block by block.

    The cells are the dense side: each weight is added to a contiguous run of cells, which the compiler vectorises.
    """
    if lognorm.shape[1] != transposed.shape[1]:
        raise ValueError(f"the matrix has {lognorm.shape[1]} genes, the weights {transposed.shape[1]}")
    if chunk is None:
        chunk = max(1, min(_CHUNK, _BLOCK_FLOATS // max(transposed.shape[0], 1)))
    for block in _row_blocks(lognorm.shape[0], chunk):
        dense = np.ascontiguousarray(lognorm[block].toarray().T, dtype=np.float32)
        yield block, np.asarray(transposed @ dense, dtype=np.float32)


def apply_sets(lognorm: sp.csr_matrix[Any], matched: MatchedSets, *, chunk: int | None = None) -> AppliedSets:
    """Score every cell with every matched set.

    Parameters
    ----------
    lognorm
        Cells x genes, log1p counts per 10,000, genes in the order of ``matched.genes``.
    matched
        From :func:`draw_matched_sets`.
    chunk
        Cells per product; bounds memory, does not change the result. ``None`` chooses it.
    """
    return apply_sets_and_null(lognorm, matched, (), chunk=chunk)[0]


def apply_sets_and_null(
    lognorm: sp.csr_matrix[Any], matched: MatchedSets, null_of: Sequence[str], *, chunk: int | None = None
) -> tuple[AppliedSets, dict[str, Floats]]:
    """Do the work of :func:`apply_sets`, and of :func:`null_z` for the named sets, with one product of the matrices.

    Returns
    -------
    The scores, and for each name of ``null_of`` that is scorable cells x ``n_null``, float32.
    """
    shape = (lognorm.shape[0], len(matched.names))
    value, mean, sd = (np.full(shape, np.nan, dtype=np.float64) for _ in range(3))
    place = {name: matched.names.index(name) for name in null_of if name in matched.names}
    nulls = {name: np.full((lognorm.shape[0], matched.n_null), np.nan, dtype=np.float32) for name in place}
    if matched.names:
        for block, product in _products(lognorm, matched.transposed, chunk):
            cube = product.reshape(len(matched.names), matched.width, -1)
            for name, column in place.items():
                nulls[name][block] = _leave_one_out_z(cube[column, 1:])
            value[block] = cube[:, 0].T
            null = cube[:, 1:]
            # sums of 32-bit numbers: a first mean that is off in its last digits is corrected by the second one
            centre = np.add.reduce(null, axis=1) / np.float32(matched.n_null)
            null -= centre[:, None, :]
            rest = np.add.reduce(null, axis=1).astype(np.float64) / matched.n_null
            np.square(null, out=null)
            sum_squares = np.add.reduce(null, axis=1).astype(np.float64) - matched.n_null * rest**2
            mean[block] = (centre + rest).T
            sd[block] = np.sqrt(np.maximum(sum_squares, 0.0) / (matched.n_null - 1)).T
    z = np.divide(value - mean, sd, out=np.full(shape, np.nan), where=sd > 1e-9)
    return AppliedSets(*(array.astype(np.float32) for array in (z, value, mean, sd))), nulls


def _leave_one_out_z(product: Floats) -> Floats:
    """Standardise each random set (rows) against the others, cell by cell (columns); cells x sets."""
    n = product.shape[0]
    deviation = product.astype(np.float64)
    deviation -= deviation.mean(axis=0)
    # leaving one of n out moves the mean by d/(n-1) and takes d^2 * n/(n-1) from the sum of squares
    squares = deviation**2
    rest = squares.sum(axis=0) - squares * (n / (n - 1))
    sd = np.sqrt(np.maximum(rest, 0.0) / max(n - 2, 1))
    shift = deviation * (n / (n - 1))
    z: Floats = np.divide(shift, sd, out=np.full_like(shift, np.nan), where=sd > 1e-9).T.astype(np.float32)
    return z


def null_z(lognorm: sp.csr_matrix[Any], matched: MatchedSets, name: str, *, chunk: int | None = None) -> Floats:
    """Score every cell with the random sets of one signature, each standardised against the others.

    The distribution a patient-level estimate of ``name`` is compared with: column ``i`` is what the analysis would have
    seen had random set ``i`` been the signature.

    Returns
    -------
    Cells x ``n_null``, float32; NaN for cells without a null (no counts).

    Raises
    ------
    KeyError
        When ``name`` is not a scorable set of ``matched``.
    """
    if name not in matched.names:
        raise KeyError(f"{name} is not among the scorable sets {', '.join(matched.names)}")
    out = np.full((lognorm.shape[0], matched.n_null), np.nan, dtype=np.float32)
    for block, product in _products(lognorm, matched.block(name)[1:], chunk):
        out[block] = _leave_one_out_z(product)
    return out


def depth_correlation(z: Floats, log_counts: Doubles) -> Doubles:
    """Spearman correlation of each column of ``z`` with log counts over its scored cells; NaN below three cells."""
    out = np.full(z.shape[1], np.nan)
    for j in range(z.shape[1]):
        scored = np.isfinite(z[:, j]) & np.isfinite(log_counts)
        if scored.sum() < 3:
            continue
        a, b = rankdata(z[scored, j]), rankdata(log_counts[scored])
        if np.ptp(a) > 0 and np.ptp(b) > 0:
            out[j] = np.corrcoef(a, b)[0, 1]
    return out


def calibrated_z(
    counts: Any,
    genes: pd.Index[Any],
    gene_sets: Mapping[str, GeneSet],
    *,
    n_null: int = 1000,
    seed: int = 0,
    pool_size: int = POOL_SIZE,
    reference_rows: Any = None,
    statistics: pd.DataFrame | None = None,
    min_coverage: float = MIN_COVERAGE,
    relaxed: bool = False,
    synonyms: Synonyms | pd.DataFrame | None = None,
    cells: pd.Index[Any] | None = None,
    chunk: int | None = None,
) -> CalibratedScores:
    """Score cells with gene sets against random sets matched on expression and detection.

    Parameters
    ----------
    counts
        Cells x genes, raw counts.
    genes
        Unique symbol of each column.
    gene_sets
        Sets by the name of their column.
    n_null, seed, pool_size, min_coverage, relaxed, synonyms
        See :func:`draw_matched_sets`.
    reference_rows
        Indices or mask of the cells the gene statistics are taken from; ``None`` means all. With given reference cells
        (or ``statistics``) the score of a cell does not depend on which other cells are scored with it.
    statistics
        Gene statistics from an earlier call of :func:`gene_statistics`, for the same genes in the same order.
    cells
        Index of the result; ``None`` numbers the cells.
    chunk
        See :func:`apply_sets`.
    """
    lognorm = log_normalise(counts)
    if statistics is None:
        statistics = gene_statistics(lognorm, genes, rows=reference_rows)
    elif not statistics.index.equals(pd.Index(genes)):
        raise ValueError("the gene statistics are for other genes, or in another order")
    matched = draw_matched_sets(
        statistics,
        gene_sets,
        n_null=n_null,
        seed=seed,
        pool_size=pool_size,
        min_coverage=min_coverage,
        relaxed=relaxed,
        synonyms=synonyms,
    )
    scores = apply_sets(lognorm, matched, chunk=chunk).z
    totals = times(counts, np.ones(lognorm.shape[1]))
    log_counts = np.log(totals, out=np.full_like(totals, np.nan), where=totals > 0)
    coverage = matched.coverage.copy()
    correlation = dict(zip(matched.names, depth_correlation(scores, log_counts), strict=True))
    coverage["depth_correlation"] = [correlation.get(name, np.nan) for name in coverage["signature"]]
    index = pd.RangeIndex(lognorm.shape[0]) if cells is None else cells
    z = pd.DataFrame(scores, index=index, columns=list(matched.names))
    return CalibratedScores(z.reindex(columns=list(gene_sets)).astype(np.float32), coverage, matched)
