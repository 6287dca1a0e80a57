"""Sums over reference cells from which a model without any fold or any type can be fitted at no further cost.

Cross-fitting needs the same means and variances many times, each time of a few cells fewer. They are kept per cell type
and fold and added up for every fit. Shares are sums of floating-point numbers: with cells in an order that depends on
their ids alone they are the same bits however the cells were given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from dtcflow.sparse import times

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TypeMeans:
    """Statistics of each reference type over a chosen part of its cells."""

    types: tuple[str, ...]
    cells: Floats
    """Cells per type."""
    scale: float
    """Median total counts of the chosen cells."""
    means: Floats
    """Types x genes: pooled fractions of the counts."""
    scaled_mean: Floats
    """Types x genes: mean of the counts at ``scale`` total counts."""
    scaled_square: Floats
    """Types x genes: mean square of the same."""
    inverse_size: Floats
    """Per type: mean of ``scale`` / total counts."""


@dataclass(frozen=True)
class ReferenceMoments:
    """Sums per type and fold; ``group`` is type x folds + fold."""

    types: tuple[str, ...]
    n_folds: int
    group: Ints
    """Of each cell."""
    totals: Floats
    """Total counts of each cell, at least 1."""
    count: Floats
    """Groups x genes: sum of the counts."""
    share: Floats
    """Groups x genes: sum of the counts over the cell's total."""
    square: Floats
    """Groups x genes: sum of its square."""

    def without(self, *, fold: int | None = None, left_out: str | None = None) -> TypeMeans:
        """Statistics of the cells outside a fold, or of all types but one."""
        of_type, of_fold = np.divmod(np.arange(len(self.types) * self.n_folds), self.n_folds)
        kept = np.ones(len(of_type), dtype=bool)
        if fold is not None:
            kept &= of_fold != fold
        if left_out is not None:
            kept &= of_type != self.types.index(left_out)
        cells = np.bincount(self.group, minlength=len(kept)) * kept
        per_type = np.array([cells[of_type == k].sum() for k in range(len(self.types))], dtype=np.float64)
        names = [k for k in range(len(self.types)) if per_type[k]]
        chosen = kept[self.group]
        scale = float(np.median(self.totals[chosen])) if chosen.any() else 1.0

        def added(values: Floats) -> Floats:
            return np.array([values[kept & (of_type == k)].sum(axis=0) for k in names])

        def of_cells(values: Floats) -> Floats:
            return np.asarray(np.bincount(self.group, weights=values, minlength=len(kept)), dtype=np.float64)

        inverse, total = of_cells(1.0 / self.totals), of_cells(self.totals)
        size = per_type[names]
        return TypeMeans(
            tuple(self.types[k] for k in names),
            size,
            scale,
            added(self.count) / np.maximum(added(total), 1.0)[:, None],
            scale * added(self.share) / size[:, None],
            scale**2 * added(self.square) / size[:, None],
            scale * added(inverse) / size,
        )


def reference_moments(
    counts: sp.csr_matrix, types: npt.NDArray[np.object_], fold: Ints | None = None
) -> ReferenceMoments:
    """Add up reference cells per type and fold.

    Parameters
    ----------
    counts
        Reference cells x genes, raw counts.
    types
        Cell type per reference cell.
    fold
        Fold per cell, from 0; none means one fold.
    """
    matrix = sp.csr_matrix(counts)
    fold = np.zeros(matrix.shape[0], dtype=np.int64) if fold is None else fold
    names = tuple(sorted(set(types.tolist())))
    n_folds = int(fold.max(initial=0)) + 1
    index = {name: k for k, name in enumerate(names)}
    group = np.array([index[t] for t in types], dtype=np.int64) * n_folds + fold
    totals = np.maximum(times(matrix, np.ones(matrix.shape[1])), 1.0)
    shape = (len(names) * n_folds, matrix.shape[1])
    count, share, square = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for g in np.unique(group):
        members = np.flatnonzero(group == g)
        part = matrix[members]
        value = part.data.astype(np.float64)
        count[g] = np.bincount(part.indices, weights=value, minlength=shape[1])
        value /= np.repeat(totals[members], np.diff(part.indptr))
        share[g] = np.bincount(part.indices, weights=value, minlength=shape[1])
        square[g] = np.bincount(part.indices, weights=np.square(value), minlength=shape[1])
    return ReferenceMoments(names, n_folds, group, totals, count, share, square)
