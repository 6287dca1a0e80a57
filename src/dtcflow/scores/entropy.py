"""Transcript entropy: how evenly a cell's transcripts spread over its genes, at one depth. Descriptive, never voting.

Cells of higher potency tend to spread their transcripts more evenly; network-weighted entropies build on that
(Teschendorff and Enver 2017, Nat Commun 8:15599, doi 10.1038/ncomms15599). The plain entropy of the counts grows with
depth and says nothing between cells of different depth. Here the same number of transcripts is drawn from every cell.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

_LOG = logging.getLogger(__name__)

COLUMN: Final = "transcript_entropy"
MIN_DEPTH: Final = 500
DEPTH_QUANTILE: Final = 0.1


def common_depth(totals: npt.ArrayLike) -> int:
    """Depth that nine of ten cells reach, at least :data:`MIN_DEPTH` transcripts."""
    values = np.asarray(totals, dtype=np.float64)
    values = values[values > 0]
    return max(MIN_DEPTH, int(np.quantile(values, DEPTH_QUANTILE))) if values.size else MIN_DEPTH


def transcript_entropy(
    counts: Any, genes: pd.Index[Any], cells: pd.Index[Any], *, depth: int | None = None, draws: int = 3, seed: int = 0
) -> pd.Series[float]:
    """Shannon entropy of the counts of each cell after drawing the same number of transcripts from all.

    Parameters
    ----------
    counts
        Cells x genes, whole numbers.
    genes
        Symbol of each column.
    cells
        Unique id of each row; seeds its draws, so that a cell's value depends on no other cell.
    depth
        Transcripts drawn without replacement; ``None`` takes :func:`common_depth`.
    draws
        Draws to average over.
    seed
        Start of the draws.

    Returns
    -------
    Indexed by cell, 0 (one gene) to 1 (every transcript from another gene, or all genes alike), that is entropy over
    log(min(depth, genes)); empty for a cell with fewer than ``depth`` transcripts.

    Raises
    ------
    ValueError
        ``depth`` is below 2, or ids or genes do not fit the matrix.
    """
    matrix = sp.csr_matrix(counts)
    if matrix.shape != (len(cells), len(genes)):
        raise ValueError(f"{len(cells)} cells and {len(genes)} genes for a matrix of {matrix.shape}")
    matrix = sp.csr_matrix(matrix[:, np.argsort(np.asarray(genes, dtype=str), kind="stable")])
    totals = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    depth = common_depth(totals) if depth is None else depth
    if depth < 2:
        raise ValueError(f"depth must be at least 2, found {depth}")
    largest = np.log(min(depth, matrix.shape[1])) if matrix.shape[1] > 1 else np.nan
    out = np.full(len(cells), np.nan)
    for row in np.flatnonzero(totals >= depth).tolist():
        own = np.rint(matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]]).astype(np.int64)
        key = int.from_bytes(hashlib.sha256(str(cells[row]).encode()).digest()[:8], "little")
        rng = np.random.default_rng([seed, key])
        owner = np.repeat(np.arange(own.size), own)
        values = []
        for _ in range(draws):
            drawn = np.bincount(owner[rng.choice(owner.size, size=depth, replace=False, shuffle=False)])
            share = drawn[drawn > 0] / depth
            values.append(-(share * np.log(share)).sum())
        out[row] = max(float(np.mean(values)), 0.0) / largest
    _LOG.info(
        "transcript entropy at %d transcripts; %d of %d cells are shallower", depth, np.isnan(out).sum(), len(out)
    )
    return pd.Series(out, index=cells, name=COLUMN)
