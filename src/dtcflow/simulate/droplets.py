"""Unfiltered matrices with a known truth: the cells of a simulated sample among its empty droplets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from dtcflow.contracts import InputError, Problem
from dtcflow.simulate.cells import draw_cells, sample_key
from dtcflow.simulate.cohort import MARROW_CELLS, N_PATIENTS, PRIMARY_CELLS, SimulatedSample, simulate_cohort
from dtcflow.simulate.counts import soup_profile
from dtcflow.simulate.design import Scenario, get_scenario, plan_cohort
from dtcflow.simulate.expression import Floats, build_universe, draw_patient, stream

N_EMPTY: Final = 30_000
EMPTY_MEDIAN: Final = 12.0
"""Median expected UMI of an empty droplet."""
EMPTY_SD: Final = 0.9
"""SD of its natural log: nine in ten droplets hold 2-54 UMI, two in ten thousand more than 300."""
CONCENTRATION: Final = 5_000.0
"""Concentration of the Dirichlet-multinomial: droplets differ a little in what they hold of the soup."""
_BASES: Final = np.array(list("ACGT"))


@dataclass(frozen=True)
class RawSample:
    """An unfiltered matrix and what is in its droplets."""

    sample: SimulatedSample
    """The cells alone, as a filtered matrix holds them."""
    raw: ad.AnnData
    """All droplets: ``X`` CSR ``int32``, barcodes sorted, genes as in ``sample``."""
    is_cell: NDArray[np.bool_]
    """Which droplets of ``raw`` hold a cell."""
    soup: Floats
    """Share of every gene in the soup, sums to one."""


def draw_empty(
    soup: Floats, totals: NDArray[np.int64], *, concentration: float, rng: np.random.Generator
) -> sp.csr_matrix:
    """Draw empty droplets: Dirichlet-multinomial counts of given totals.

    The draws are those of a Polya urn, which has this distribution: the i-th transcript of a droplet is a new one from
    the soup with probability ``concentration / (concentration + i)``, and otherwise of the gene of one of the ``i``
    before it.

    Parameters
    ----------
    soup
        Share of every gene, sums to one.
    totals
        UMI of every droplet.
    concentration
        Concentration; infinity gives the multinomial.
    rng
        Random generator.

    Returns
    -------
    Droplets x genes, ``int32``; row sums are ``totals``.
    """
    n = int(totals.sum())
    row = np.repeat(np.arange(len(totals)), totals)
    start = np.cumsum(totals) - totals
    rank = np.arange(n) - start[row]
    cumulative = np.cumsum(soup)
    gene = np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right") if n else np.zeros(0, np.intp)
    copied = rng.random(n) * (concentration + rank) < rank if np.isfinite(concentration) else np.zeros(n, bool)
    source = np.where(copied, start[row] + np.floor(rng.random(n) * rank).astype(np.int64), np.arange(n))
    while not np.array_equal(source, further := source[source]):
        source = further
    ones = np.ones(n, dtype=np.int32)
    counts = sp.csr_matrix((ones, (row, gene[source])), shape=(len(totals), len(soup)), dtype=np.int32)
    counts.sum_duplicates()
    counts.sort_indices()
    return counts


def _new_barcodes(taken: set[str], n: int, rng: np.random.Generator) -> list[str]:
    """Return ``n`` barcodes that are not among ``taken``."""
    found: dict[str, None] = {}
    while len(found) < n:
        for bases in _BASES[rng.integers(4, size=(n - len(found), 16))]:
            barcode = "".join(bases) + "-1"
            if barcode not in taken:
                found[barcode] = None
    return list(found)


def simulate_raw(
    scenario: Scenario | str,
    *,
    seed: int,
    sample_id: str,
    n_empty: int = N_EMPTY,
    n_patients: int = N_PATIENTS,
    marrow_cells: int = MARROW_CELLS,
    primary_cells: int = PRIMARY_CELLS,
    empty_median: float = EMPTY_MEDIAN,
    empty_sd: float = EMPTY_SD,
    concentration: float = CONCENTRATION,
) -> RawSample:
    """Simulate one sample with its empty droplets.

    The cells are exactly those of :func:`dtcflow.simulate.simulate_cohort`. An empty droplet's total is Poisson with a
    log-normal mean, its counts are Dirichlet-multinomial draws from the sample's soup. Droplets without a count stay,
    as in an unfiltered export.

    Parameters
    ----------
    scenario, seed, n_patients, marrow_cells, primary_cells
        See :func:`dtcflow.simulate.simulate_cohort`.
    sample_id
        Sample of the cohort, for example ``P01_marrow``.
    n_empty
        Empty droplets.
    empty_median, empty_sd
        Median expected UMI of an empty droplet, and the SD of its natural log.
    concentration
        See :func:`draw_empty`.

    Returns
    -------
    :class:`RawSample`; the same for the same arguments.

    Raises
    ------
    InputError
        For an unknown scenario or sample, a negative seed or a negative number of empty droplets.
    """
    if n_empty < 0:
        raise InputError(
            "the number of empty droplets must not be negative",
            [
                Problem(
                    "simulated raw matrix", str(n_empty), "a whole number from 0 on", "choose another", key="n_empty"
                )
            ],
        )
    scenario = get_scenario(scenario)
    size = {"n_patients": n_patients, "marrow_cells": marrow_cells, "primary_cells": primary_cells}
    sample = next(simulate_cohort(scenario, seed=seed, samples=[sample_id], **size))
    plan = next(p for p in plan_cohort(n_patients, marrow_cells, primary_cells) if p.sample_id == sample_id)
    universe = build_universe(scenario, seed)
    patient = draw_patient(scenario, seed, plan.patient, len(universe.genes))
    soup = soup_profile(plan, draw_cells(plan, patient, scenario, seed), patient, universe, scenario, seed)
    rng = stream(seed, 8, *sample_key(plan))
    mean = empty_median * np.exp(rng.normal(0.0, empty_sd, n_empty))
    totals = rng.poisson(mean).astype(np.int64) if soup.any() else np.zeros(n_empty, dtype=np.int64)
    empty = draw_empty(soup, totals, concentration=concentration, rng=rng)
    names = [str(name) for name in sample.adata.obs_names]
    barcodes = np.array([*names, *_new_barcodes(set(names), n_empty, rng)], dtype=object)
    order = np.argsort(barcodes, kind="stable")
    counts = sp.csr_matrix(sp.vstack([sample.adata.X, empty], format="csr")[order])
    raw = ad.AnnData(
        counts, obs=pd.DataFrame(index=pd.Index(barcodes[order], dtype=object)), var=sample.adata.var.copy()
    )
    return RawSample(sample, raw, order < len(names), soup)
