"""Expression profiles of a sample's own cell types, and how far cells scatter around them.

Shared by the two questions that compare a cell with mixtures of profiles: is it a doublet
(:mod:`dtcflow.qc.mixtures`), and is a putative tumour cell a single one (:mod:`dtcflow.qc.arbitrate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow import contracts
from dtcflow.cnv.reference import stable_order
from dtcflow.qc.metrics import counts_per_cell

Floats = npt.NDArray[np.float64]

MIN_TYPE_CELLS: Final = 8
"""Cells a first-pass type needs to have a profile."""
MAX_TYPE_CELLS: Final = 500
"""Cells of a type that are used; more do not change a mean that is compared with single cells."""
SMOOTHING_CELLS: Final = 1.0
"""A type's profile is shrunk to the sample's by the counts of this many median cells."""
DISPERSION_PRIOR: Final = 30.0
"""Weight of the common dispersion, in the unit of the gene's own evidence (sum of squared means)."""
DISPERSION_RANGE: Final = (0.02, 5.0)


@dataclass(frozen=True)
class Profiles:
    """What a cell of each resident type looks like.

    ``types``: names, in alphabetical order; ``shares``: types x genes, expected share of counts, rows sum to one;
    ``n_cells``: cells of each type in the sample; ``depth``: median counts of a cell of the type; ``pooled``: share of
    counts of each gene in the whole sample; ``dispersion``: gamma-Poisson phi per gene within types.
    """

    types: tuple[str, ...]
    shares: Floats
    n_cells: npt.NDArray[np.int64]
    depth: Floats
    pooled: Floats
    dispersion: Floats


def resident_profiles(
    counts: sp.csr_matrix, cell_type: npt.NDArray[np.object_], cell_ids: pd.Index, *, excluded: npt.NDArray[np.bool_]
) -> Profiles:
    """Mean profile of every first-pass type with at least :data:`MIN_TYPE_CELLS` cells.

    Parameters
    ----------
    counts
        Raw counts, cells x genes.
    cell_type
        First-pass type of each cell; ``unknown`` and ``epithelial`` are no resident types.
    cell_ids
        Names of the cells; they decide which cells of a large type are used, whatever their order.
    excluded
        Cells that take part in no type's profile (candidates, cells without counts).
    """
    totals = counts_per_cell(counts)
    pooled = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
    pooled = pooled / max(pooled.sum(), 1.0)
    order = stable_order(cell_ids.tolist(), seed=0)
    usable = ~excluded & (totals > 0) & ~np.isin(cell_type, [contracts.UNKNOWN, contracts.EPITHELIAL])
    smoothing = SMOOTHING_CELLS * float(np.median(totals[totals > 0])) if (totals > 0).any() else 1.0
    names: list[str] = []
    shares: list[Floats] = []
    sizes: list[int] = []
    depths: list[float] = []
    excess, weight = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for name in sorted(set(cell_type[usable].tolist())):
        rows = np.flatnonzero(usable & (cell_type == name))
        if rows.size < MIN_TYPE_CELLS:
            continue
        chosen = np.sort(rows[np.argsort(order[rows], kind="stable")][:MAX_TYPE_CELLS])
        part, depth = sp.csr_matrix(counts[chosen]), totals[chosen]
        total = np.asarray(part.sum(axis=0), dtype=np.float64).ravel()
        mean = total / depth.sum()
        names.append(name)
        sizes.append(int(rows.size))
        depths.append(float(np.median(depth)))
        shares.append((total + smoothing * pooled) / (depth.sum() + smoothing))
        # Var[x] = mu + phi mu^2 with mu = N m, summed over the cells of the type
        squares = sp.csr_matrix((part.data.astype(np.float64) ** 2, part.indices, part.indptr), shape=part.shape)
        sum_squares = np.asarray(squares.sum(axis=0)).ravel()
        n2 = float((depth**2).sum())
        excess += sum_squares - 2 * mean * np.asarray(part.T @ depth).ravel() + mean**2 * n2 - total
        weight += mean**2 * n2
    known = weight >= DISPERSION_PRIOR
    common = float(np.clip(np.median(excess[known] / weight[known]), 0.0, 1.0)) if known.any() else 0.0
    dispersion = np.clip((excess + DISPERSION_PRIOR * common) / (weight + DISPERSION_PRIOR), *DISPERSION_RANGE)
    return Profiles(
        tuple(names),
        np.array(shares).reshape(len(names), counts.shape[1]),
        np.array(sizes, dtype=np.int64),
        np.array(depths),
        pooled,
        dispersion,
    )
