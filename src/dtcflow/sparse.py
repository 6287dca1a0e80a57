"""Counting in large sparse matrices, piece by piece.

A sample of 250,000 cells holds 4 x 10^8 counts. One temporary array of that length in double precision is 3 GB, so that
every pass over the counts goes through them in pieces of bounded size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

PIECE: Final = 1 << 22
"""Counts in memory at a time, as temporary arrays."""


def pieces(length: int, *, size: int | None = None) -> Iterator[slice]:
    """Slices that cover ``0..length`` in order, :data:`PIECE` long unless told."""
    size = PIECE if size is None else size
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def cells_per_gene(matrix: Any) -> npt.NDArray[np.int64]:
    """Number of cells with a value above zero per column; explicitly stored zeros do not count."""
    counts = sp.csr_matrix(matrix)
    found = np.zeros(counts.shape[1], dtype=np.int64)
    for piece in pieces(counts.data.size):
        found += np.bincount(counts.indices[piece][counts.data[piece] > 0], minlength=counts.shape[1])
    return found


def genes_per_cell(matrix: Any) -> npt.NDArray[np.int64]:
    """Number of genes with a value above zero per row; explicitly stored zeros do not count."""
    counts = sp.csr_matrix(matrix)
    found = np.diff(counts.indptr).astype(np.int64)
    for piece in pieces(counts.data.size):
        not_positive = piece.start + np.flatnonzero(~(counts.data[piece] > 0))
        if not_positive.size:
            np.subtract.at(found, np.searchsorted(counts.indptr, not_positive, side="right") - 1, 1)
    return found


def times(matrix: Any, dense: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Product of a sparse matrix with a vector or a narrow matrix, in double precision.

    ``matrix @ dense`` would convert all stored values to double precision at once.
    """
    left = sp.csr_matrix(matrix)
    found = np.zeros((left.shape[0], *dense.shape[1:]))
    rows = max(1, PIECE // max(1, left.nnz // max(1, left.shape[0])))
    for block in pieces(left.shape[0], size=rows):
        found[block] = left[block] @ dense
    return found
