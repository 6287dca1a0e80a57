"""infercnvpy on one sample, as its tutorial runs it: windows, a score per cell, and clusters with their score."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass

import anndata as ad
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from caller.data import Sample
from dtcflow.scores.calibrated import log_normalise

Floats = npt.NDArray[np.float64]
EXACT_BELOW = 8_000
"""From about 9,000 cells on its default neighbour search fails with today's scanpy; an exact search takes its place."""


@dataclass(frozen=True)
class Theirs:
    """Windows (cells x windows) and the score per cell: their root mean square."""

    adata: ad.AnnData
    windows: sp.csr_matrix
    score: Floats


def run(
    sample: Sample,
    reference: npt.NDArray[np.object_],
    *,
    pooled: bool = False,
    dynamic_threshold: float | None = 1.5,
    chunksize: int = 5_000,
) -> Theirs:
    """Windows with default settings.

    Parameters
    ----------
    sample
        Counts and gene positions.
    reference
        Type of each reference cell, empty for all other cells.
    pooled
        One reference category instead of one per type.
    dynamic_threshold, chunksize
        Its defaults.
    """
    import infercnvpy

    placed = (sample.adata.var["chromosome"].astype(str) != "").to_numpy()
    cells = ad.AnnData(
        X=sp.csr_matrix(log_normalise(sp.csr_matrix(sample.adata.layers["counts"]))[:, np.flatnonzero(placed)]),
        obs=sample.cells[["cell_id"]].set_index(sample.adata.obs_names),
        var=sample.adata.var.loc[placed, ["chromosome", "start", "end"]].copy(),
    )
    cells.var["chromosome"] = cells.var["chromosome"].astype(object)
    cells.obs["kind"] = np.where(reference != "", "normal" if pooled else reference, "query").astype(object)
    named = sorted(set(cells.obs["kind"]) - {"query"})
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        infercnvpy.tl.infercnv(
            cells,
            reference_key="kind",
            reference_cat=named,
            dynamic_threshold=dynamic_threshold,
            chunksize=chunksize,
            n_jobs=1,
        )
    windows = sp.csr_matrix(cells.obsm["X_cnv"])
    score = np.sqrt(np.asarray(windows.multiply(windows).mean(axis=1), dtype=float).ravel())
    return Theirs(cells, windows, score)


@dataclass(frozen=True)
class Clusters:
    """Cluster and the score of its cluster per cell."""

    label: npt.NDArray[np.object_]
    score: Floats


def clusters(found: Theirs) -> Clusters:
    """Its cluster route: principal components of the windows, neighbours, Leiden, mean absolute window per cluster."""
    import infercnvpy

    cells = found.adata
    exact = {"transformer": "sklearn"} if cells.n_obs >= EXACT_BELOW else {}
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        infercnvpy.tl.pca(cells)
        infercnvpy.pp.neighbors(cells, **exact)
        infercnvpy.tl.leiden(cells)
        infercnvpy.tl.cnv_score(cells)
    return Clusters(
        cells.obs["cnv_leiden"].astype(str).to_numpy(dtype=object), cells.obs["cnv_score"].to_numpy(dtype=float)
    )


def isolates(label: npt.NDArray[np.object_], tumour: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Recall and precision of the cluster that fits the tumour cells best (by F1), known with hindsight."""
    best = (0.0, 0.0)
    for name in sorted(set(label.tolist())):
        inside = label == name
        hit = int((inside & tumour).sum())
        recall, precision = hit / tumour.sum(), hit / inside.sum()
        if hit and recall * precision / (recall + precision) > best[0] * best[1] / max(sum(best), 1e-12):
            best = (recall, precision)
    return best
