"""Unfiltered matrices at intake: alone (cells are called), or beside a filtered one (the soup is learnt)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from dtcflow import contracts
from dtcflow.contracts import AMBIENT_COUNT, COUNTS, InputError, Problem
from dtcflow.io.files import sha256
from dtcflow.io.readers import input_files, read_matrix
from dtcflow.qc.droplets import (
    CELL,
    DROPLET_CLASS,
    DROPLET_Q,
    UNCALLED,
    CellCalls,
    call_cells,
    epithelial_uncalled,
)
from dtcflow.qc.soup import Bools, Soup, droplet_totals
from dtcflow.scores.signatures import GeneSet, load_markers

MIN_DROPLETS: Final = 5_000
"""Barcodes above which a matrix may be an unfiltered one."""
EMPTY_MEDIAN: Final = 50
"""Median counts below which it then is one: no laboratory keeps cells half of which have fewer than 50 counts."""
MIN_OVERLAP: Final = 0.5
"""Share of the cells that must be in the unfiltered matrix beside them."""


@dataclass
class Droplets:
    """What an unfiltered matrix says about a sample.

    ``keep``: rows of the sample's matrix to keep (None: all); ``obs``: columns of the kept rows; ``var``: columns of
    the sample's genes; ``report``: entry ``droplets`` of the intake report, None without an unfiltered matrix.
    """

    keep: Bools | None = None
    obs: dict[str, Any] = field(default_factory=dict)
    var: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)


def looks_unfiltered(counts: sp.csr_matrix) -> bool:
    """Whether a matrix holds all droplets: more than 5,000 barcodes, half of them with fewer than 50 counts."""
    if counts.shape[0] <= MIN_DROPLETS:
        return False
    return float(np.median(droplet_totals(counts))) < EMPTY_MEDIAN


def panel_mask(symbols: pd.Index | pd.Series, markers: Mapping[str, GeneSet] | None) -> Bools:
    """Genes of the epithelial marker panel."""
    panels = load_markers() if markers is None else markers
    if contracts.EPITHELIAL not in panels:
        return np.zeros(len(symbols), dtype=bool)
    return np.asarray(pd.Index(symbols).isin(list(panels[contracts.EPITHELIAL].up)), dtype=bool)


def call_sample(
    counts: sp.csr_matrix, symbols: pd.Series, *, fdr: float, seed: int, markers: Mapping[str, GeneSet] | None = None
) -> Droplets:
    """Call the cells of an unfiltered matrix.

    Parameters
    ----------
    counts
        Droplets x genes, raw counts.
    symbols
        Gene symbols of the columns.
    fdr, seed
        See :func:`dtcflow.qc.droplets.call_cells`.
    markers
        Marker panels; the shipped ones without it.

    Returns
    -------
    :class:`Droplets`: the called cells and the uncalled droplets with epithelial evidence are kept and told apart by
    ``droplet_class``; all other droplets are only counted.
    """
    calls = call_cells(counts, fdr=fdr, seed=seed)
    listed = np.zeros(counts.shape[0], dtype=bool)
    if calls.status == "called":
        listed = epithelial_uncalled(counts, ~calls.is_cell, panel_mask(symbols, markers), calls.soup)
    keep = calls.is_cell | listed
    found = Droplets(
        keep=keep,
        obs={
            DROPLET_CLASS: np.where(calls.is_cell, CELL, UNCALLED).astype(object)[keep],
            DROPLET_Q: calls.q[keep],
        },
        var=_ambient(calls.soup),
        report={
            "mode": "unfiltered",
            **calls.as_dict(),
            "n_uncalled_epithelial": int(listed.sum()),
            "n_dropped": int((~keep).sum()),
        },
    )
    found.warnings = _calling_warnings(calls)
    if listed.any():
        found.warnings.append(
            f"{int(listed.sum())} droplets that were not called as cells show epithelial transcripts beyond the soup: "
            "they are kept as droplet_class uncalled, fail quality control and are in the loss audit"
        )
    return found


def learn_soup(
    cells: ad.AnnData,
    symbols: pd.Series,
    path: Path,
    *,
    fdr: float,
    seed: int,
    markers: Mapping[str, GeneSet] | None = None,
) -> Droplets:
    """Learn the soup from the unfiltered matrix that lies beside a filtered one; the filtered cells stay as they are.

    Parameters
    ----------
    cells
        The filtered matrix as :func:`dtcflow.io.readers.read_matrix` gives it.
    symbols
        Gene symbols of its columns.
    path
        The unfiltered matrix.
    fdr, seed, markers
        As for :func:`call_sample`.

    Returns
    -------
    :class:`Droplets` without ``keep``; its report counts the droplets outside the filtered matrix that look like cells
    and those that show epithelial transcripts beyond the soup.

    Raises
    ------
    InputError
        When the unfiltered matrix lacks genes of the filtered one or fewer than half of its cells.
    """
    raw = read_matrix(path)
    _check_same_sample(cells, raw, path)
    counts = sp.csr_matrix(raw.layers[COUNTS][:, raw.var_names.get_indexer(cells.var_names)])
    inside = np.asarray(raw.obs_names.isin(cells.obs_names), dtype=bool)
    warnings = []
    if missing := cells.n_obs - int(inside.sum()):
        warnings.append(f"{missing:,} of {cells.n_obs:,} cells are not in the unfiltered matrix {path.name}")
    own = sp.csr_matrix(cells.layers[COUNTS])[cells.obs_names.get_indexer(raw.obs_names[inside])]
    differ = int((droplet_totals(counts[np.flatnonzero(inside)]) != droplet_totals(own)).sum())
    if differ:
        warnings.append(
            f"{differ:,} cells have other counts in the unfiltered matrix {path.name}: was one of the two "
            "corrected, or made by another run?"
        )
    calls = call_cells(counts, fdr=fdr, seed=seed, exclude=inside)
    report: dict[str, Any] = {"mode": "beside", **calls.as_dict()}
    if calls.status == "called":
        outside = calls.is_cell & ~inside
        epithelial = epithelial_uncalled(counts, ~inside, panel_mask(symbols, markers), calls.soup)
        report |= {
            "n_outside_like_cells": int(outside.sum()),
            "n_outside_like_cells_epithelial": int((outside & epithelial).sum()),
            "n_outside_epithelial": int(epithelial.sum()),
        }
        if outside.any() or epithelial.any():
            warnings.append(
                f"outside the filtered matrix {int(outside.sum()):,} droplets look like cells, "
                f"{int((outside & epithelial).sum()):,} of them with epithelial transcripts beyond the soup (and "
                f"{int((~outside & epithelial).sum()):,} more droplets with such transcripts); to keep them give the "
                "unfiltered matrix as path"
            )
    report |= {"raw_sha256": {file.name: sha256(file) for file in input_files(path)}}
    return Droplets(var=_ambient(calls.soup), report=report, warnings=[*warnings, *_calling_warnings(calls)])


def _ambient(soup: Soup) -> dict[str, Any]:
    return {AMBIENT_COUNT: soup.counts} if soup.enough() else {}


def _calling_warnings(calls: CellCalls) -> list[str]:
    if calls.status != "called":
        return [f"cells {calls.status}; every droplet is taken for a cell and the soup is not measured"]
    found = []
    if not calls.knee_trusted:
        found.append("the rank curve has no knee to trust: no droplet is a cell without a test")
    if calls.n_limited:
        found.append(
            f"{calls.n_limited:,} droplets reached the smallest p value of {calls.iterations:,} simulations and were "
            "not called: their number is limited by the simulations"
        )
    if not calls.is_cell.any():
        found.append("no droplet was called a cell")
    return found


def _check_same_sample(cells: ad.AnnData, raw: ad.AnnData, path: Path) -> None:
    """Refuse an unfiltered matrix of other genes or of another sample."""
    problems = []
    missing = cells.var_names[~cells.var_names.isin(raw.var_names)]
    if len(missing):
        problems.append(
            Problem(
                str(path),
                f"{len(missing):,} of {cells.n_vars:,} genes of the filtered matrix are missing, for example "
                f"{missing[0]!r}; it names genes like {raw.var_names[0]!r}",
                "every gene of the filtered matrix, under the same name",
                "give the unfiltered matrix of the same run and the same gene annotation",
                key="raw_path",
            )
        )
    shared = int(cells.obs_names.isin(raw.obs_names).sum())
    if shared < MIN_OVERLAP * cells.n_obs:
        problems.append(
            Problem(
                str(path),
                f"{shared:,} of the {cells.n_obs:,} cells (here {raw.obs_names[0]!r}, there {cells.obs_names[0]!r})",
                f"at least {MIN_OVERLAP:.0%} of the cells of the filtered matrix",
                "give the unfiltered matrix of the same sample; barcodes must be written in the same way (suffix -1)",
                key="raw_path",
            )
        )
    if problems:
        raise InputError(f"{path}: not the unfiltered matrix of this sample", problems)
