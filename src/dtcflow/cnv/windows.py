"""Smoothed copy-number windows through infercnvpy: the heatmap everybody knows and a second opinion, never the caller.

infercnvpy 0.6.1 is called in the one way in which a cell's windows do not depend on its company: a pooled reference
profile given directly, ``dynamic_threshold=None`` (its own threshold is a standard deviation over the chunk), one job,
genes in an order without ties, and object-dtype columns (its chromosome filter fails on pyarrow strings). The noise
threshold is applied afterwards and comes from the reference cells only.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.cnv.arms import AUTOSOMES
from dtcflow.contracts import DtcflowError

Floats = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

CHUNK_CELLS = 2000
NOISE_SD = 1.5
"""Windows within this many reference standard deviations of 0 are set to 0 (the inferCNV default multiple)."""


@dataclass(frozen=True)
class Windows:
    """Smoothed log fold changes: ``values`` cells x windows, ``layout`` one row per window."""

    values: Float32
    layout: pd.DataFrame
    """``chromosome start end arm n_genes``: genome span of the genes in the window."""


def window_layout(var: pd.DataFrame, *, window_size: int, step: int) -> pd.DataFrame:
    """Genome span of every window, in the order in which :func:`smooth_windows` returns them.

    ``var`` is sorted by genome position. A chromosome with no more genes than ``window_size`` is one window.
    """
    rows = []
    for chromosome in [c for c in AUTOSOMES if (var["chromosome"] == c).any()]:
        genes = var[var["chromosome"] == chromosome]
        n = len(genes)
        size = min(window_size, n)
        for first in range(0, n - size + 1, step if n > window_size else n):
            part = genes.iloc[first : first + size]
            middle = part.iloc[size // 2]
            rows.append((chromosome, int(part["start"].min()), int(part["end"].max()), str(middle["arm"]), size))
    return pd.DataFrame(rows, columns=["chromosome", "start", "end", "arm", "n_genes"])


def balanced_profile(lognorm: sp.csr_matrix, types: npt.NDArray[np.object_]) -> Floats:
    """Pooled reference profile: the mean over types of each type's mean, so that no abundant type dominates."""
    means = [np.asarray(lognorm[np.flatnonzero(types == t)].mean(axis=0)).ravel() for t in sorted(set(types.tolist()))]
    return np.asarray(np.mean(means, axis=0), dtype=np.float64)


def smooth_windows(
    lognorm: sp.csr_matrix,
    var: pd.DataFrame,
    reference_rows: npt.NDArray[np.int64],
    reference_types: npt.NDArray[np.object_],
    *,
    window_size: int,
    step: int,
) -> Windows:
    """Run infercnvpy against a pooled reference and de-noise from the reference cells.

    Parameters
    ----------
    lognorm
        Cells x genes, log1p counts per 10,000.
    var
        ``chromosome start end arm`` per gene; genes off the autosomes are not used.
    reference_rows, reference_types
        Reference cells and their types.

    Raises
    ------
    DtcflowError
        Without reference cells: infercnvpy would silently use the mean of all cells.
    """
    if not len(reference_rows):
        raise DtcflowError("copy-number windows need reference cells; the mean of all cells is no substitute")
    from infercnvpy.tl import infercnv

    use = np.flatnonzero(var["chromosome"].isin(AUTOSOMES).to_numpy())
    chromosome_rank = var["chromosome"].astype(str).map({c: i for i, c in enumerate(AUTOSOMES)}).to_numpy(dtype=float)
    names = var.index.astype(str).to_numpy(dtype=object)
    order = use[np.lexsort((names[use].astype(str), var["start"].to_numpy()[use], chromosome_rank[use]))]
    sorted_var = var.iloc[order]
    expression = sp.csr_matrix(lognorm[:, order])
    frame = pd.DataFrame(
        {
            "chromosome": pd.Series(sorted_var["chromosome"].astype(str).to_numpy(dtype=object), dtype=object),
            # a rank instead of the base pair: equal starts would leave the order to an unstable sort
            "start": np.arange(len(order)),
            "end": np.arange(len(order)) + 1,
        }
    )
    frame.index = pd.Index(names[order], dtype=object)
    cells = ad.AnnData(X=expression, var=frame)
    cells.var["chromosome"] = cells.var["chromosome"].astype(object)
    profile = balanced_profile(sp.csr_matrix(expression[reference_rows]), reference_types)
    # its progress bar can only be silenced from outside
    with contextlib.redirect_stderr(io.StringIO()):
        _, smoothed, _ = infercnv(
            cells,
            reference=profile[None, :],
            dynamic_threshold=None,
            window_size=window_size,
            step=step,
            chunksize=CHUNK_CELLS,
            n_jobs=1,
            exclude_chromosomes=None,
            inplace=False,
        )
    values = np.asarray(sp.csr_matrix(smoothed).toarray(), dtype=np.float32)
    layout = window_layout(sorted_var, window_size=window_size, step=step)
    if len(layout) != values.shape[1]:
        raise DtcflowError(f"infercnvpy returned {values.shape[1]} windows, {len(layout)} were expected")
    noise = NOISE_SD * float(np.std(values[reference_rows].astype(np.float64)))
    values[np.abs(values) < noise] = 0.0
    return Windows(values, layout)


def window_score(windows: Windows) -> Floats:
    """Second opinion per cell: root mean square of its windows (log fold change), without any cluster mean."""
    values = windows.values.astype(np.float64)
    return np.sqrt(np.mean(np.square(values), axis=1)) if values.shape[1] else np.full(len(values), np.nan)
