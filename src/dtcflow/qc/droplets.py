"""Which droplets of an unfiltered matrix hold a cell: by rank above the knee, by a test against the soup below it.

The test is that of :mod:`dtcflow.qc.soup`. Benjamini-Hochberg is applied to the droplets that were tested, so that the
false discovery rate is that of the cells the test adds, not diluted by those above the knee.

Droplets above the knee are cells without a test, but only while the knee can be trusted: the rank curve falls off a
cliff there, or the droplets just above it differ from the soup. A blank control has a knee too.

A droplet that is not called and shows more epithelial transcripts than the soup explains is not dropped: it stays in
the sample, fails quality control with the reason ``empty_droplet`` and is named by the loss audit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy import stats

from dtcflow import contracts
from dtcflow.qc.soup import (
    ITERATIONS,
    LOWER,
    MIN_EMPTY,
    MIN_EMPTY_COUNTS,
    Bools,
    Floats,
    Soup,
    SoupNull,
    droplet_totals,
    fit_concentration,
    monte_carlo_p,
    observed_statistics,
    soup_counts,
    soup_share,
)

CELL: Final = "cell"
UNCALLED: Final = "uncalled"
DROPLET_CLASS: Final = "droplet_class"
"""``obs`` column of a sample whose cells were called here: :data:`CELL` or :data:`UNCALLED`."""
DROPLET_Q: Final = "droplet_q"
"""``obs`` column: q of the test; missing where a droplet was not tested (above the knee, or at most :data:`LOWER`)."""

FDR: Final = 0.01
"""Ten times the 0.001 of EmptyDrops' examples: an empty droplet that slips through meets the QC limits next, a tumour
cell that does not is only listed."""
ALWAYS: Final = 20_000
"""A droplet above this many counts is never taken for empty: simulating that many transcripts buys nothing."""
MORE_ITERATIONS: Final = 10
"""Times as many simulations when the smallest p value of the first round is too large to be found significant."""
MAX_SIMULATED: Final = 500_000_000
"""Most transcripts simulated in that second round, some minutes; ``n_limited`` says what it left open."""
_PER_DECADE: Final = 40
"""Points of the rank curve per decade of rank."""
MIN_CLIFF: Final = 2.0
"""Steepness (decades of counts per decade of rank) at which the knee is trusted on its own. The tail of log-normal
droplet sizes stays below 1."""
AT_KNEE: Final = 100
"""Droplets just above the knee that are looked at where there is no cliff."""
MIN_DIFFERENT: Final = 0.8
"""Share of them that must differ from the soup (p <= 0.05)."""
MIN_MARKERS: Final = 2
"""Distinct epithelial panel genes of a droplet that is not called but stays listed."""
EVIDENCE_FDR: Final = 0.05
"""Share of the listed droplets that may have their epithelial counts from the soup."""


@dataclass(frozen=True)
class Knee:
    """Shape of the rank curve: counts at the knee and at the steepest point, and how steep that is."""

    knee: float
    inflection: float
    steepness: float


@dataclass(frozen=True)
class CellCalls:
    """Result of :func:`call_cells`; arrays have one entry per droplet.

    ``q`` is NaN for a droplet that was not tested. ``n_limited`` tested droplets have the smallest p value that the
    simulations can give and were still not called.
    """

    is_cell: Bools
    q: Floats
    status: str
    soup: Soup
    fdr: float
    knee: Knee | None = None
    knee_trusted: bool = False
    concentration: float = np.nan
    iterations: int = 0
    n_tested: int = 0
    n_above_knee: int = 0
    n_known: int = 0
    n_limited: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the intake report."""
        return {
            "status": self.status,
            "n_droplets": len(self.is_cell),
            "n_cells": int(self.is_cell.sum()),
            "n_above_knee": self.n_above_knee,
            "n_by_test": int(self.is_cell.sum()) - self.n_above_knee - self.n_known if self.n_tested else 0,
            "n_tested": self.n_tested,
            "n_limited": self.n_limited,
            "n_empty": self.soup.n_droplets,
            "empty_counts": float(self.soup.counts.sum()),
            "knee": None if self.knee is None else self.knee.knee,
            "inflection": None if self.knee is None else self.knee.inflection,
            "knee_trusted": self.knee_trusted,
            "concentration": self.concentration,
            "iterations": self.iterations,
            "fdr": self.fdr,
            "lower": LOWER,
        }


def knee_point(totals: Floats, *, lower: float = LOWER) -> Knee | None:
    """Knee of the curve of counts over rank, both logarithmic, above ``lower`` counts.

    The curve is read at even steps of log rank. The inflection is its steepest point, the knee the point before it that
    lies furthest above the straight line from the first rank to the inflection.

    Returns
    -------
    :class:`Knee`, or None with fewer than three different totals above ``lower``.
    """
    values, sizes = np.unique(totals[totals > lower], return_counts=True)
    if values.size < 3:
        return None
    values, sizes = values[::-1], sizes[::-1]
    x = np.log10(np.cumsum(sizes) - (sizes - 1) / 2)
    y = np.log10(values)
    grid = np.linspace(x[0], x[-1], max(3, int((x[-1] - x[0]) * _PER_DECADE)))
    curve = np.interp(grid, x, y)
    slope = np.diff(curve) / np.diff(grid)
    steepest = int(slope.argmin())
    if steepest == 0:
        return Knee(float(10 ** curve[0]), float(10 ** curve[1]), float(-slope[0]))
    line = curve[0] + (grid - grid[0]) * (curve[steepest] - curve[0]) / (grid[steepest] - grid[0])
    furthest = int((curve - line)[: steepest + 1].argmax())
    return Knee(float(10 ** curve[furthest]), float(10 ** curve[steepest]), float(-slope[steepest]))


def call_cells(
    counts: sp.csr_matrix,
    *,
    fdr: float = FDR,
    seed: int = 0,
    iterations: int = ITERATIONS,
    exclude: Bools | None = None,
) -> CellCalls:
    """Decide which droplets of an unfiltered matrix hold a cell.

    Parameters
    ----------
    counts
        Raw counts, droplets x genes, CSR.
    fdr
        False discovery rate among the droplets called by the test.
    seed
        Seed of the simulated droplets.
    iterations
        Simulated droplets of the first round.
    exclude
        Droplets known to be cells (those of a filtered matrix): neither part of the soup nor tested, so that the false
        discovery rate is that of the other droplets alone.

    Returns
    -------
    :class:`CellCalls`; ``status`` is ``called`` or ``not_called: why``. Where cells cannot be called every droplet is a
    cell: losing them all would be worse.
    """
    totals = droplet_totals(counts)
    soup = soup_counts(counts, totals, exclude=exclude)
    nothing = np.full(totals.size, np.nan)
    if not soup.enough():
        why = (
            f"not_called: {soup.n_droplets} droplets with 1 to {LOWER} counts ({soup.counts.sum():.0f} in all), "
            f"{MIN_EMPTY} with {MIN_EMPTY_COUNTS} are needed to learn the soup"
        )
        return CellCalls(np.ones(totals.size, dtype=bool), nothing, why, soup, fdr)
    share = soup_share(soup, np.bincount(counts.indices, minlength=counts.shape[1]) > 0)
    null = SoupNull(share, fit_concentration(counts, totals, share, exclude=exclude))
    knee = knee_point(totals)
    trusted = knee is not None and (
        knee.steepness >= MIN_CLIFF or _differs_above(counts, totals, knee, null, iterations=iterations, seed=seed)
    )
    keep = min(ALWAYS, knee.knee) if knee is not None and trusted else ALWAYS
    above = totals > keep
    known = np.zeros(totals.size, dtype=bool) if exclude is None else exclude
    tested = np.flatnonzero((totals > LOWER) & ~above & ~known)
    observed = observed_statistics(counts, tested, null)
    whole = totals[tested].astype(np.int64)

    def test(n: int) -> tuple[Floats, int]:
        p = monte_carlo_p(whole, observed, null, iterations=n, seed=seed)
        found = np.asarray(stats.false_discovery_control(p, method="bh") if p.size else p)
        return found, int(((p <= 2.0 / (1.0 + n)) & (found > fdr)).sum())

    found, limited = test(iterations)
    more = min(iterations * MORE_ITERATIONS, MAX_SIMULATED // int(whole.max(initial=1)))
    if limited and more > iterations:
        iterations = more
        found, limited = test(iterations)
    q = nothing
    q[tested] = found
    return CellCalls(
        is_cell=known | above | (q <= fdr),
        q=q,
        status="called",
        soup=soup,
        fdr=fdr,
        knee=knee,
        knee_trusted=bool(trusted),
        concentration=null.concentration,
        iterations=iterations,
        n_tested=int(tested.size),
        n_above_knee=int((above & ~known).sum()),
        n_known=int(known.sum()),
        n_limited=limited,
    )


def _differs_above(
    counts: sp.csr_matrix,
    totals: Floats,
    knee: Knee,
    null: SoupNull,
    *,
    iterations: int,
    seed: int,
) -> bool:
    """Whether most of the droplets just above the knee are not made of soup alone."""
    candidates = np.flatnonzero((totals > knee.knee) & (totals <= ALWAYS))
    if not candidates.size:
        return False
    # all droplets of the last total, so that the order of droplets cannot decide who is looked at
    last = np.sort(totals[candidates])[min(AT_KNEE, candidates.size) - 1]
    rows = candidates[totals[candidates] <= last]
    p = monte_carlo_p(
        totals[rows].astype(np.int64),
        observed_statistics(counts, rows, null),
        null,
        iterations=min(1000, iterations),
        seed=seed,
    )
    return bool((p <= 0.05).mean() >= MIN_DIFFERENT)


def epithelial_uncalled(
    counts: sp.csr_matrix, uncalled: Bools, panel: Bools, soup: Soup, *, fdr: float = EVIDENCE_FDR
) -> Bools:
    """Droplets that were not called but show more epithelial transcripts than the soup explains.

    A droplet needs :data:`MIN_MARKERS` distinct genes of ``panel`` and more counts on the panel than a Poisson number
    with mean total x share of the panel in the soup. Benjamini-Hochberg is applied to all uncalled droplets with
    counts, apart for those above and at most LOWER counts: the many tiny ones must not hide the few large ones.

    Parameters
    ----------
    counts
        Raw counts, droplets x genes, CSR.
    uncalled
        Which droplets were not called.
    panel
        Which genes are on the epithelial panel.
    soup
        Empty droplets pooled.
    fdr
        False discovery rate.

    Returns
    -------
    Mask over the droplets, false outside ``uncalled``.
    """
    totals = droplet_totals(counts)
    on_panel = sp.csr_matrix(counts[:, np.flatnonzero(panel)])
    on_panel.eliminate_zeros()
    share = float(soup.counts[panel].sum() + 0.5) / float(soup.counts.sum() + 1.0)
    p = np.asarray(stats.poisson.sf(droplet_totals(on_panel) - 1, totals * share))
    shown = np.diff(on_panel.indptr) >= MIN_MARKERS
    found = np.zeros(totals.size, dtype=bool)
    for family in (totals > LOWER, (totals > 0) & (totals <= LOWER)):
        rows = np.flatnonzero(uncalled & family)
        if rows.size:
            q = np.asarray(stats.false_discovery_control(p[rows], method="bh"))
            found[rows] = (q <= fdr) & shown[rows]
    return found


def called_mask(obs: pd.DataFrame) -> Bools:
    """Which rows of a sample are cells; all of them where cells were called elsewhere."""
    if DROPLET_CLASS not in obs:
        return np.ones(len(obs), dtype=bool)
    return np.asarray(obs[DROPLET_CLASS].astype(str) != UNCALLED, dtype=bool)


def uncalled_reason(q: float, total: float) -> str:
    """``qc_reasons`` of a droplet that was not called: ``empty_droplet(q=0.31)``."""
    if np.isfinite(q):
        return f"empty_droplet(q={q:.3g})"
    return f"empty_droplet(q not computed, {total:.0f}<={LOWER} counts)"


def uncalled_table(adata: ad.AnnData, metrics: pd.DataFrame, n_markers: Floats, columns: pd.Index) -> pd.DataFrame:
    """Rows of the table ``qc_cells`` for droplets that were not called as cells: they fail, and say why.

    Their epithelial score stays missing: it is not to be had from so few counts, and a missing score lets the markers
    alone count as evidence in the loss audit.

    Parameters
    ----------
    adata
        The uncalled droplets alone, stage ``intake``.
    metrics
        Their :func:`dtcflow.qc.metrics.qc_metrics`.
    n_markers
        Distinct epithelial panel genes of each.
    columns
        Columns of the table of the called cells; what is not known of an uncalled droplet stays missing.
    """
    q = adata.obs[DROPLET_Q].to_numpy(dtype=np.float64)
    rows = metrics.reset_index(drop=True)
    rows["cell_id"] = adata.obs_names.to_numpy(object)
    for key in ("sample_id", "patient_id", "compartment"):
        rows[key] = adata.obs[key].astype(str).to_numpy(object)
    rows["pass_qc"] = False
    rows["qc_reasons"] = [uncalled_reason(*pair) for pair in zip(q, rows["n_counts"], strict=True)]
    rows["is_doublet"] = False
    rows["lineage"] = rows["first_pass_type"] = contracts.UNKNOWN
    rows["n_epithelial_markers"] = n_markers.astype(np.int64)
    full = rows.reindex(columns=columns)
    return full.fillna({name: "" for name in columns if name in contracts.TEXT_COLUMNS})
