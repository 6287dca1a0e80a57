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
from dtcflow.order import stable_order
from dtcflow.qc.metrics import counts_per_cell

Floats = npt.NDArray[np.float64]

MIN_TYPE_CELLS: Final = 8
"""Cells a first-pass type needs to have a profile."""
MIN_STROMAL_CELLS: Final = 20
"""The same for stromal types: a few "fibroblasts" may be carcinoma cells without epithelial markers."""
MAX_TYPE_CELLS: Final = 500
"""Cells of a type that are used; more do not change a mean that is compared with single cells."""
SMOOTHING_CELLS: Final = 1.0
"""A type's profile is shrunk to the sample's by the counts of this many median cells."""
DISPERSION_PRIOR: Final = 30.0
"""Weight of the common dispersion, in the unit of the gene's own evidence (sum of squared means)."""
DISPERSION_RANGE: Final = (0.02, 5.0)
ROUNDS: Final = 3
"""Times that residents are given to the type that explains them best."""
BLOCK: Final = 8192
FLOOR: Final = 1e-8
"""Smallest share of counts, so that no count is impossible."""


@dataclass(frozen=True)
class Profiles:
    """What a cell of each resident type looks like.

    ``types``: names, in alphabetical order; ``shares``: types x genes, expected share of counts, rows sum to one;
    ``n_cells``: cells of each type in the sample; ``depth``: median counts of a cell of the type; ``pooled``: share of
    counts of each gene in the whole sample; ``dispersion``: gamma-Poisson phi per gene within types; ``label``: per
    cell the position of its type in ``types``, -1 for cells that take no part.
    """

    types: tuple[str, ...]
    shares: Floats
    n_cells: npt.NDArray[np.int64]
    depth: Floats
    pooled: Floats
    dispersion: Floats
    label: npt.NDArray[np.int64]


def resident_profiles(
    counts: sp.csr_matrix, cell_type: npt.NDArray[np.object_], cell_ids: pd.Index, *, excluded: npt.NDArray[np.bool_]
) -> Profiles:
    """Mean profile of every first-pass type with at least :data:`MIN_TYPE_CELLS` (:data:`MIN_STROMAL_CELLS`) cells.

    First-pass types rest on a few markers, and a soup full of immunoglobulin turns T cells into plasma cells. So every
    resident cell is given to the type whose profile explains all of its counts best, and the profiles are computed
    again, :data:`ROUNDS` times. Types keep their names.

    Parameters
    ----------
    counts
        Raw counts, cells x genes.
    cell_type
        First-pass type of each cell; ``unknown`` and ``epithelial`` are no resident types; their cells may join one.
    cell_ids
        Names of the cells; they decide which cells of a large type are used, whatever their order.
    excluded
        Cells that take part in no type's profile (candidates, cells without counts).
    """
    totals = counts_per_cell(counts)
    pooled = gene_sums(counts)
    pooled = pooled / max(pooled.sum(), 1.0)
    order = stable_order(cell_ids.tolist(), seed=0)
    free = ~excluded & (totals > 0)
    named = free & ~np.isin(cell_type, [contracts.UNKNOWN, contracts.EPITHELIAL])
    sizes = pd.Series(cell_type[named], dtype=object).value_counts()
    needed = dict.fromkeys(contracts.STROMAL_TYPES, MIN_STROMAL_CELLS)
    types = tuple(sorted(str(name) for name, size in sizes.items() if size >= needed.get(str(name), MIN_TYPE_CELLS)))
    label = np.full(len(cell_type), -1, dtype=np.int64)
    for number, name in enumerate(types):
        label[named & (cell_type == name)] = number
    smoothing = SMOOTHING_CELLS * float(np.median(totals[totals > 0])) if (totals > 0).any() else 1.0
    shares, dispersion = _means(counts, totals, label, len(types), order, pooled, smoothing)
    for _ in range(ROUNDS if types else 0):
        score = type_scores(counts, totals, shares, dispersion)
        label = np.where(free, score.argmax(axis=1), -1)
        shares, dispersion = _means(counts, totals, label, len(types), order, pooled, smoothing)
    n_cells = np.bincount(label[label >= 0], minlength=len(types)).astype(np.int64)
    depth = np.array([float(np.median(totals[label == k])) if n_cells[k] else 0.0 for k in range(len(types))])
    return Profiles(types, shares, n_cells, depth, pooled, dispersion, label)


def gene_sums(counts: sp.csr_matrix) -> Floats:
    """Counts per gene over all cells, in blocks that are exact in single precision and added in double."""
    total = np.zeros(counts.shape[1])
    for start in range(0, counts.shape[0], BLOCK):
        total += np.asarray(counts[start : start + BLOCK].sum(axis=0), dtype=np.float64).ravel()
    return total


def type_scores(counts: sp.csr_matrix, totals: Floats, shares: Floats, dispersion: Floats) -> Floats:
    """Log quasi-likelihood of every cell under every profile, cells x profiles, up to a constant per cell.

    Poisson terms, each gene weighted by Poisson over gamma-Poisson variance at its mean in a median cell of the sample.
    """
    depth = float(np.median(totals[totals > 0])) if (totals > 0).any() else 1.0
    shares = shares + FLOOR
    weight = 1.0 / (1.0 + dispersion * depth * shares.mean(axis=0))
    logs, found = (weight * np.log(shares)).T, np.empty((counts.shape[0], len(shares)))
    # in blocks: a product with doubles copies the counts as doubles
    for start in range(0, counts.shape[0], BLOCK):
        part = slice(start, start + BLOCK)
        found[part] = counts[part] @ logs - totals[part, None] * (shares @ weight)
    return found


def _means(
    counts: sp.csr_matrix,
    totals: Floats,
    label: npt.NDArray[np.int64],
    n_types: int,
    order: npt.NDArray[np.uint64],
    pooled: Floats,
    smoothing: float,
) -> tuple[Floats, Floats]:
    """Smoothed mean profile of each type (types x genes), and the dispersion around it (genes)."""
    shares = np.tile(pooled, (n_types, 1))
    excess, weight = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for number in range(n_types):
        rows = np.flatnonzero(label == number)
        if not rows.size:
            continue
        chosen = np.sort(rows[np.argsort(order[rows], kind="stable")][:MAX_TYPE_CELLS])
        part, depth = sp.csr_matrix(counts[chosen]), totals[chosen]
        total = np.asarray(part.sum(axis=0), dtype=np.float64).ravel()
        mean = total / depth.sum()
        shares[number] = (total + smoothing * pooled) / (depth.sum() + smoothing)
        # Var[x] = mu + phi mu^2 with mu = N m, summed over the cells of the type
        squares = sp.csr_matrix((part.data.astype(np.float64) ** 2, part.indices, part.indptr), shape=part.shape)
        sum_squares = np.asarray(squares.sum(axis=0)).ravel()
        n2 = float((depth**2).sum())
        excess += sum_squares - 2 * mean * np.asarray(part.T @ depth).ravel() + mean**2 * n2 - total
        weight += mean**2 * n2
    known = weight >= DISPERSION_PRIOR
    common = float(np.clip(np.median(excess[known] / weight[known]), 0.0, 1.0)) if known.any() else 0.0
    dispersion = np.clip((excess + DISPERSION_PRIOR * common) / (weight + DISPERSION_PRIOR), *DISPERSION_RANGE)
    return shares, dispersion
