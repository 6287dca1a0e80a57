"""Per-cell quality metrics from raw counts."""

from __future__ import annotations

from typing import Any, Final

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow import contracts
from dtcflow.genes import gene_mask
from dtcflow.sparse import genes_per_cell, times

__all__ = ["METRICS", "counts_csr", "counts_per_cell", "gene_symbols", "genes_per_cell", "qc_metrics"]

METRICS: Final = ("n_counts", "n_genes", "pct_mt", "pct_ribo", "pct_hb", "log10_genes_per_count")
"""Columns of :func:`qc_metrics`, in order."""

_SHARES: Final = {"pct_mt": "mito", "pct_ribo": "ribo", "pct_hb": "haemoglobin"}


def counts_csr(adata: ad.AnnData) -> sp.csr_matrix:
    """Raw counts as CSR, from ``layers["counts"]`` or, without that layer, from ``X``.

    Parameters
    ----------
    adata
        Cells x genes; the matrix may be CSR, CSC or dense.

    Returns
    -------
    CSR matrix, cells x genes. It is the stored matrix itself when that is CSR already: do not change it in place.

    Raises
    ------
    dtcflow.contracts.ContractError
        When there is neither the layer nor ``X``.
    """
    matrix: Any = adata.layers.get(contracts.COUNTS, adata.X)
    if matrix is None:
        raise contracts.ContractError(
            "no counts to compute quality metrics from",
            [
                contracts.Problem(
                    "AnnData",
                    f"layers {sorted(adata.layers)} and an empty X",
                    f"layers['{contracts.COUNTS}']",
                    "rerun rule read_sample, or put the raw counts into that layer",
                )
            ],
        )
    return sp.csr_matrix(matrix)


def gene_symbols(adata: ad.AnnData) -> pd.Index:
    """Gene symbols, length ``n_vars``: ``var["symbol"]`` where there is one (not made unique), else ``var_names``."""
    symbols: Any = adata.var.get("symbol", adata.var_names)
    index: pd.Index = pd.Index(np.asarray(symbols, dtype=object), dtype=object)
    return index


def counts_per_cell(counts: sp.csr_matrix) -> npt.NDArray[np.float64]:
    """Total counts per row, summed in double precision (single precision stops counting at 16.8 million)."""
    return times(counts, np.ones(counts.shape[1]))


def qc_metrics(adata: ad.AnnData) -> pd.DataFrame:
    """Quality metrics of every cell.

    Shares are percentages of the cell's counts. Missing is not zero: a share is NaN for every cell when the matrix
    holds no gene of that class (a targeted panel, an exon-only reference), and NaN for a cell without counts.

    Parameters
    ----------
    adata
        Cells x genes with raw counts in ``layers["counts"]`` or ``X`` (CSR, CSC or dense); ``var["symbol"]`` or
        ``var_names`` hold gene symbols.

    Returns
    -------
    Frame indexed by ``obs_names`` with the columns of :data:`METRICS`: ``n_counts`` (float), ``n_genes`` (int),
    ``pct_mt``, ``pct_ribo``, ``pct_hb`` (0-100) and ``log10_genes_per_count`` = log10(n_genes) / log10(n_counts), NaN
    where a cell has one count or none.
    """
    counts = counts_csr(adata)
    symbols = gene_symbols(adata)
    masks = np.column_stack([gene_mask(symbols, kind) for kind in _SHARES.values()]).astype(np.float64)
    totals = counts_per_cell(counts)
    n_genes = genes_per_cell(counts)
    in_class = times(counts, masks)

    frame = pd.DataFrame({"n_counts": totals, "n_genes": n_genes}, index=adata.obs_names)
    with np.errstate(divide="ignore", invalid="ignore"):
        for column, name in enumerate(_SHARES):
            share = 100.0 * in_class[:, column] / totals
            frame[name] = share if masks[:, column].any() else np.nan
        complexity = np.log10(n_genes) / np.log10(totals)
    frame["log10_genes_per_count"] = np.where(totals > 1, complexity, np.nan)
    return frame[list(METRICS)]
