r"""Smoothed copy-number windows with infercnvpy's algorithm: the familiar heatmap and a second opinion, not the caller.

The windows are those of ``infercnvpy.tl.infercnv`` (version 0.6.1, after inferCNV, Tirosh et al. 2016, Nature 539:309,
PMID 27806376): log fold change against the reference, clipped at 3; a running mean over the genes of a chromosome in
genome order with pyramid weights :math:`1, 2, \dots, 2, 1`; less the cell's median window. Only the way to the sums
differs.

A log fold change is that of an absent gene (the same in all cells) plus a correction at the cell's non-zero counts, and
a weighted mean with piecewise linear weights needs the running sums of :math:`d_j` and :math:`j\,d_j` at three places:

.. math:: \sum_{j=i}^{i+h-1} (j-i+1)\,d_j + \sum_{j=i+h}^{i+n-1} (i+n-j)\,d_j, \qquad h = \lceil n/2 \rceil.

The work therefore grows with the non-zero counts and the number of windows, not with genes x window size. Fold changes
are rounded to a power of two so small that the sums stay within the 53 bits of a double: the sums are exact and a
cell's windows are the same bits in every order of cells and genes and for every block size.

infercnvpy's own noise filter is left out, because its threshold is a standard deviation over the cells that happen to
be in one chunk. The threshold here comes from the reference cells only. ``tests/unit/cnv/test_windows.py`` compares
with infercnvpy, called without that filter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.cnv.arms import AUTOSOMES
from dtcflow.contracts import DtcflowError

Floats = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

CHUNK_CELLS = 64
"""Cells at a time: their sums (2 x windows x 8 bytes a cell) stay in the processor's cache."""
LFC_CLIP = 3.0
"""Log fold changes are clipped here (default of infercnvpy and inferCNV)."""
NOISE_SD = 1.5
"""Windows within this many reference standard deviations of 0 are set to 0 (the inferCNV default multiple)."""


@dataclass(frozen=True)
class Windows:
    """Smoothed log fold changes: ``values`` cells x windows, ``layout`` one row per window."""

    values: Float32
    layout: pd.DataFrame
    """``chromosome start end arm n_genes``: genome span of the genes in the window."""

    @property
    def chromosome_starts(self) -> dict[str, int]:
        """See :func:`chromosome_starts`."""
        return chromosome_starts(self.layout)


@dataclass(frozen=True)
class RunningSums:
    """How the sums of a cell's genes turn into its windows; a property of the genes, not of the cells."""

    bin_of: Ints
    """Bin per column of the count matrix; -1 where the gene is not used."""
    position: Floats
    """Rank of the gene within its chromosome, per column of the count matrix."""
    n_bins: int
    knots: Ints
    """3 x windows: first bin, first bin of the falling half, first bin after the window."""
    moment: Floats
    """Weight of the running sums of ``j d_j``: 1, or 0 where the window has equal weights."""
    level: Floats
    """3 x windows: weights of the running sums of ``d_j`` at the three knots."""
    total: Floats
    """Sum of the gene weights of each window."""


def _chromosomes(chromosome: npt.NDArray[np.object_]) -> list[tuple[str, Ints]]:
    """Autosomes present and the ranks of their genes among the sorted genes."""
    found = [(name, np.flatnonzero(chromosome == name)) for name in AUTOSOMES]
    return [(name, ranks) for name, ranks in found if len(ranks)]


def _first_genes(n_genes: int, window_size: int, step: int) -> Ints:
    """Rank of the first gene of every window of a chromosome of ``n_genes``."""
    return np.arange(0, n_genes - window_size + 1, step) if n_genes > window_size else np.zeros(1, dtype=np.int64)


def window_layout(var: pd.DataFrame, *, window_size: int, step: int) -> pd.DataFrame:
    """Genome span of every window, in the order in which :func:`smooth_windows` returns them.

    ``var`` is sorted by genome position. A chromosome with no more genes than ``window_size`` is one window.
    """
    parts = []
    for name, ranks in _chromosomes(var["chromosome"].astype(str).to_numpy(dtype=object)):
        size = min(window_size, len(ranks))
        first = _first_genes(len(ranks), window_size, step)
        start, end = (var[column].to_numpy(dtype=np.int64)[ranks] for column in ("start", "end"))
        arm = var["arm"].astype(str).to_numpy(dtype=object)[ranks]
        parts.append(
            pd.DataFrame(
                {
                    "chromosome": pd.Series([name] * len(first), dtype=object),
                    "start": np.lib.stride_tricks.sliding_window_view(start, size)[first].min(axis=1),
                    "end": np.lib.stride_tricks.sliding_window_view(end, size)[first].max(axis=1),
                    "arm": pd.Series(arm[first + size // 2], dtype=object),
                    "n_genes": np.full(len(first), size, dtype=np.int64),
                }
            )
        )
    if parts:
        return pd.concat(parts, ignore_index=True)
    columns = {name: pd.Series(dtype=object) for name in ("chromosome", "start", "end", "arm", "n_genes")}
    return pd.DataFrame(columns).astype({"start": np.int64, "end": np.int64, "n_genes": np.int64})


def chromosome_starts(layout: pd.DataFrame) -> dict[str, int]:
    """First window of each chromosome: what infercnvpy keeps as ``uns["cnv"]["chr_pos"]`` and its heatmaps need."""
    names = layout["chromosome"].astype(str).to_numpy(dtype=object)
    return {str(name): int(np.flatnonzero(names == name)[0]) for name in dict.fromkeys(names)}


def running_sums(
    order: Ints, chromosome: npt.NDArray[np.object_], n_columns: int, *, window_size: int, step: int
) -> RunningSums:
    """Prepare the windows of genes in genome order.

    Parameters
    ----------
    order
        Columns of the count matrix that are used, in genome order.
    chromosome
        Chromosome of each of them.
    n_columns
        Columns of the count matrix.
    window_size, step
        Genes per window, and from the first gene of one window to that of the next.
    """
    if window_size < 1 or step < 1:
        raise DtcflowError(f"window_size and step must be at least 1, found {window_size} and {step}")
    bin_of, position = np.full(n_columns, -1, dtype=np.int64), np.zeros(n_columns)
    n_bins = 0
    knots: list[Ints] = [np.zeros((3, 0), dtype=np.int64)]
    moment, total = [np.zeros(0)], [np.zeros(0)]
    level = [np.zeros((3, 0))]
    for _, ranks in _chromosomes(chromosome):
        n = len(ranks)
        size, first = min(window_size, n), _first_genes(n, window_size, step)
        half = (size + 1) // 2
        pyramid = n > window_size
        places = np.stack([first, first + (half if pyramid else 0), first + size])
        edges = np.unique(np.concatenate([places.ravel(), [0, n]]))
        columns = order[ranks]
        bin_of[columns] = n_bins + np.searchsorted(edges, np.arange(n), side="right") - 1
        position[columns] = np.arange(n)
        knots.append(n_bins + np.searchsorted(edges, places))
        # without its last edge: the first bin of the next chromosome comes after it
        n_bins += len(edges) - 1
        flat = np.stack([-np.ones(len(first)), np.zeros(len(first)), np.ones(len(first))])
        rising = np.stack([first - 1.0, 1.0 - 2.0 * first - size, first + float(size)])
        level.append(rising if pyramid else flat)
        moment.append(np.full(len(first), 1.0 if pyramid else 0.0))
        total.append(np.full(len(first), float(half * (size + 1 - half)) if pyramid else float(size)))
    return RunningSums(
        bin_of, position, n_bins, np.hstack(knots), np.concatenate(moment), np.hstack(level), np.concatenate(total)
    )


def _exact_scale(largest_sum: float) -> float:
    """Power of two: values times it, rounded, add up without error to sums as large as ``largest_sum`` times it."""
    return float(2.0 ** math.floor(52.0 - math.log2(max(largest_sum, 1.0))))


def _fold_change(x: Floats, low: Floats, high: Floats, clip: float) -> Floats:
    """Log fold change outside the band ``low`` to ``high`` of the reference profiles (no band for a single one)."""
    change: Floats = np.clip(x - low, -clip, 0.0)
    change += np.clip(x - high, 0.0, clip)
    return change


def _row_medians(values: Floats) -> Floats:
    """Median of each row, as a column; numpy is much faster with one pivot than with those of ``np.median``."""
    middle = values.shape[1] // 2
    parted = np.partition(values, middle, axis=1)
    upper = parted[:, middle]
    if values.shape[1] % 2:
        return upper[:, None]
    return np.asarray(0.5 * (parted[:, :middle].max(axis=1) + upper))[:, None]


def _per_bin(target: Ints, values: Floats, n_rows: int, n_columns: int) -> Floats:
    """Sum ``values`` into a table; ``target`` is row x columns + column."""
    summed = np.bincount(target, weights=values, minlength=n_rows * n_columns)
    return np.asarray(summed, dtype=np.float64).reshape(n_rows, n_columns)


def _sums_to_windows(first: Floats, second: Floats, sums: RunningSums) -> Floats:
    """Weighted sums per window from sums per bin (rows x bins) of ``d_j`` and ``j d_j``."""
    shape = (len(first), sums.n_bins + 1)
    zeroth, moments = np.zeros(shape), np.zeros(shape)
    np.cumsum(first, axis=1, out=zeroth[:, 1:])
    np.cumsum(second, axis=1, out=moments[:, 1:])
    start, middle, end = sums.knots
    found = 2.0 * moments[:, middle]
    found -= moments[:, start]
    found -= moments[:, end]
    found *= sums.moment
    for weight, knot in zip(sums.level, (start, middle, end), strict=True):
        found += weight * zeroth[:, knot]
    return found


def running_windows(
    lognorm: sp.csr_matrix,
    reference: Floats,
    sums: RunningSums,
    *,
    lfc_clip: float = LFC_CLIP,
    chunk: int | None = None,
) -> Float32:
    """Windows of every cell, centred on the cell's median window, before any noise filter.

    Parameters
    ----------
    lognorm
        Cells x genes, log1p counts per 10,000.
    reference
        Mean log-normalised expression of the reference: genes, or profiles x genes. With several profiles a value
        between the smallest and the largest is no change, as in infercnvpy.
    sums
        From :func:`running_sums`.
    lfc_clip
        Log fold changes are clipped at this absolute value.
    chunk
        Cells at a time (default :data:`CHUNK_CELLS`); the result does not depend on it.

    Returns
    -------
    numpy.ndarray
        Cells x windows, float32.
    """
    matrix = sp.csr_matrix(lognorm)
    n_cells, n_windows = matrix.shape[0], sums.knots.shape[1]
    values = np.zeros((n_cells, n_windows), dtype=np.float32)
    if not n_windows:
        return values
    profiles = np.atleast_2d(np.asarray(reference, dtype=np.float64))
    low, high = profiles.min(axis=0), profiles.max(axis=0)
    chunk = CHUNK_CELLS if chunk is None else chunk
    used = np.flatnonzero(sums.bin_of >= 0)
    last = sums.position[used].max() + 1.0
    # |correction| <= 2 lfc_clip; at most 8 terms of (genes x last position) make a window
    scale = _exact_scale(16.0 * lfc_clip * len(used) * last)
    absent = np.rint(_fold_change(np.zeros(len(low)), low, high, lfc_clip) * scale)
    bins, position = sums.bin_of, sums.position
    baseline = _sums_to_windows(
        _per_bin(bins[used], absent[used], 1, sums.n_bins),
        _per_bin(bins[used], absent[used] * position[used], 1, sums.n_bins),
        sums,
    )
    for begin in range(0, n_cells, chunk):
        rows = slice(begin, min(begin + chunk, n_cells))
        n_rows = rows.stop - rows.start
        stored = slice(matrix.indptr[rows.start], matrix.indptr[rows.stop])
        genes = matrix.indices[stored]
        target = bins[genes]
        target += np.repeat(np.arange(n_rows) * (sums.n_bins + 1) + 1, np.diff(matrix.indptr[begin : rows.stop + 1]))
        change = _fold_change(matrix.data[stored].astype(np.float64), low[genes], high[genes], lfc_clip)
        change *= scale
        np.rint(change, out=change)
        change -= absent[genes]
        # column 0 takes the genes that are not used
        first = _per_bin(target, change, n_rows, sums.n_bins + 1)[:, 1:]
        change *= position[genes]
        second = _per_bin(target, change, n_rows, sums.n_bins + 1)[:, 1:]
        found = _sums_to_windows(first, second, sums)
        found += baseline
        found /= sums.total * scale
        found -= _row_medians(found)
        values[rows] = found
    return values


def balanced_profile(lognorm: sp.csr_matrix, types: npt.NDArray[np.object_]) -> Floats:
    """Pooled reference profile: the mean over types of each type's mean, so that no abundant type dominates.

    Sums are exact, so that the order of the cells does not matter.
    """
    matrix = sp.csr_matrix(lognorm)
    largest = float(np.abs(matrix.data).max()) if matrix.nnz else 1.0
    scale = _exact_scale(largest * max(len(types), 1))
    names = sorted(set(types.tolist()))
    means = np.zeros(matrix.shape[1])
    for name in names:
        part = matrix[np.flatnonzero(types == name)]
        summed = np.bincount(part.indices, weights=np.rint(part.data * scale), minlength=matrix.shape[1])
        means += summed / (scale * part.shape[0])
    return np.asarray(means / max(len(names), 1), dtype=np.float64)


def _rows_in_double(values: Float32) -> list[slice]:
    return [slice(i, min(i + CHUNK_CELLS, len(values))) for i in range(0, len(values), CHUNK_CELLS)]


def standard_deviation(values: Float32) -> float:
    """Standard deviation of all entries; the same bits in every order of the rows."""
    size = max(values.size, 1)
    blocks = _rows_in_double(values)
    mean = math.fsum(s for b in blocks for s in values[b].astype(np.float64).sum(axis=1)) / size
    squares = (np.square(values[b].astype(np.float64) - mean).sum(axis=1) for b in blocks)
    return math.sqrt(math.fsum(s for block in squares for s in block) / size)


def smooth_windows(
    lognorm: sp.csr_matrix,
    var: pd.DataFrame,
    reference_rows: npt.NDArray[np.int64],
    reference_types: npt.NDArray[np.object_],
    *,
    window_size: int,
    step: int,
    genes: npt.NDArray[np.bool_] | None = None,
) -> Windows:
    """Smooth against a pooled reference and de-noise from the reference cells.

    Parameters
    ----------
    lognorm
        Cells x genes, log1p counts per 10,000.
    var
        ``chromosome start end arm`` per gene, in any order; genes off the autosomes are not used. Genes of equal start
        are ordered by their index.
    reference_rows, reference_types
        Reference cells and their types.
    window_size, step
        Genes per window, and from the first gene of one window to that of the next.
    genes
        Mask of the genes that may be used; ``None`` means all.

    Raises
    ------
    DtcflowError
        Without reference cells: infercnvpy would silently use the mean of all cells.
    """
    if not len(reference_rows):
        raise DtcflowError("copy-number windows need reference cells; the mean of all cells is no substitute")
    matrix = sp.csr_matrix(lognorm)
    order = autosome_order(var, genes=genes)
    sorted_var = var.iloc[order]
    chromosome = sorted_var["chromosome"].astype(str).to_numpy(dtype=object)
    sums = running_sums(order, chromosome, matrix.shape[1], window_size=window_size, step=step)
    profile = balanced_profile(matrix[reference_rows], reference_types)
    values = running_windows(matrix, profile, sums)
    layout = window_layout(sorted_var, window_size=window_size, step=step)
    noise = NOISE_SD * standard_deviation(values[reference_rows])
    for block in _rows_in_double(values):
        values[block][np.abs(values[block]) < noise] = 0.0
    return Windows(values, layout)


def autosome_order(var: pd.DataFrame, *, genes: npt.NDArray[np.bool_] | None = None) -> Ints:
    """Columns of the autosomal genes by chromosome, start and index, so that equal starts leave nothing to chance."""
    use = var["chromosome"].isin(AUTOSOMES).to_numpy(dtype=bool)
    used = np.flatnonzero(use if genes is None else use & genes)
    rank = var["chromosome"].astype(str).map({c: i for i, c in enumerate(AUTOSOMES)}).to_numpy(dtype=float)[used]
    names = var.index.astype(str).to_numpy(dtype=object)[used].astype(str)
    return np.asarray(used[np.lexsort((names, var["start"].to_numpy()[used], rank))], dtype=np.int64)


def window_score(windows: Windows) -> Floats:
    """Second opinion per cell: root mean square of its windows (log fold change), without any cluster mean."""
    values = windows.values
    score = np.full(len(values), np.nan)
    if values.shape[1]:
        for block in _rows_in_double(values):
            score[block] = np.sqrt(np.mean(np.square(values[block].astype(np.float64)), axis=1))
    return score
