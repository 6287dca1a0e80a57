"""Counts expected without ambient RNA, as a layer beside the counts; no call, score or test reads it.

Of the y counts of a gene in a cell, the expected number from the soup is taken away. With a cell's ambient share rho
(from :mod:`dtcflow.qc.ambient`), its N counts, the soup's share s_g of gene g and the share f_g of the gene in cells of
the same type, a transcript is from the soup with probability::

    w_g = lambda rho s_g / ((1 - rho) f_g + lambda rho s_g)

which is the posterior of a mixture of the two profiles (as in DecontX, Yang 2020, doi:10.1186/s13059-020-1950-6, with
the mixing share given). The multiplier lambda of each cell is found so that exactly rho N counts go. Two limits protect
a cell that is unlike its type, a tumour cell typed as a T cell above all:

* never more of a gene is taken than the soup can have brought: its expected counts and three standard deviations of a
  Poisson number;
* a cell without a type, or of a type with fewer than :data:`MIN_CELLS` cells, loses counts in proportion to the soup
  alone.

Where the limits leave less than rho N to take (the share is then too high for this cell), the rest goes in proportion
to what is left of each count, so that the layer always agrees with ``ambient_fraction``.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow import contracts
from dtcflow.qc.metrics import counts_csr, counts_per_cell

Floats = npt.NDArray[np.float64]

MIN_CELLS: Final = 5
"""Cells a type needs for a profile of its own."""
LIMIT_SD: Final = 3.0
"""Standard deviations above the soup's expected counts beyond which nothing is taken."""
MAX_CELLS: Final = 500
"""Cells of a type that its profile is made of, chosen by their ids: bounds memory, whatever the sample's size."""
PRIOR_COUNTS: Final = 100.0
"""Weight of the sample's own profile in that of a type."""
TRIMMED: Final = 0.05
"""Share of a type's cells, at least one, whose count of a gene is capped in the type's profile ..."""
OUTLIER_FOLD: Final = 5.0
OUTLIER_COUNTS: Final = 3.0
"""... at three counts and five times what the other cells of the type lead to expect."""
STEP: Final = 64
"""The stored layer is rounded to 1/64 of a count: a file of arbitrary fractions is several times as large."""
_BLOCK: Final = 1_000
_ROUNDS: Final = 40
_LARGEST: Final = 1e6


def own_profiles(counts: sp.csr_matrix, fraction: Floats, soup: Floats, group: npt.NDArray[np.intp]) -> Floats:
    """Profile of each group of cells without its soup (groups x genes, rows sum to one).

    Parameters
    ----------
    counts
        Raw counts, cells x genes.
    fraction
        Ambient share per cell.
    soup
        Share of every gene in the soup.
    group
        Group per cell from 0 on; -1 for a cell that belongs to none.
    """
    n_groups = int(group.max(initial=-1)) + 1
    inside = np.flatnonzero(group >= 0)
    member = sp.csr_matrix((np.ones(inside.size), (group[inside], inside)), shape=(n_groups, counts.shape[0]))
    pooled = np.asarray((member @ _without_outliers(counts, group, n_groups)).todense(), dtype=np.float64)
    taken = np.bincount(group[inside], weights=(fraction * counts_per_cell(counts))[inside], minlength=n_groups)
    own = np.maximum(pooled - np.outer(taken, soup), 0.0)
    everyone = own.sum(axis=0)
    own += PRIOR_COUNTS * everyone / max(1.0, float(everyone.sum()))
    sums = own.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(own, sums, out=np.zeros_like(own), where=sums > 0), dtype=np.float64)


def _without_outliers(counts: sp.csr_matrix, group: npt.NDArray[np.intp], n_groups: int) -> sp.csr_matrix:
    """Cap the counts of a gene in the few cells that have far more of it than the rest of their group.

    One doublet with a red cell would otherwise make haemoglobin a gene of the tumour cells.
    """
    size = np.bincount(group[group >= 0], minlength=n_groups)
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    inside = np.flatnonzero(group[row] >= 0)
    row = row[inside]
    y = counts.data[inside].astype(np.float64)
    total = counts_per_cell(counts)
    rate = y / total[row]
    key = group[row].astype(np.int64) * counts.shape[1] + counts.indices[inside]
    order = np.lexsort((-rate, key))
    first = np.flatnonzero(np.diff(key[order], prepend=-1))
    length = np.diff(np.append(first, order.size))
    rank = np.arange(order.size) - np.repeat(first, length)
    top = np.empty(order.size, dtype=bool)
    top[order] = rank < np.maximum(1, TRIMMED * size[group[row[order]]])
    others = np.bincount(key, weights=np.where(top, 0.0, y), minlength=n_groups * counts.shape[1])
    exposure = np.bincount(group[group >= 0], weights=total[group >= 0], minlength=n_groups)
    cap = OUTLIER_COUNTS + OUTLIER_FOLD * total[row] * others[key] / exposure[group[row]]
    capped = counts.astype(np.float64)
    capped.data[inside[top]] = np.minimum(y, cap)[top]
    return capped


def decontaminate(
    counts: sp.csr_matrix,
    fraction: Floats,
    soup: Floats,
    *,
    profiles: Floats | None = None,
    group: npt.NDArray[np.intp] | None = None,
) -> sp.csr_matrix:
    """Expected counts of every cell without the soup.

    Parameters
    ----------
    counts
        Raw counts, cells x genes, CSR.
    fraction
        Ambient share per cell, 0-1.
    soup
        Share of every gene in the soup; sums to one.
    profiles, group
        Profiles of the groups (:func:`own_profiles`) and the group of each cell, -1 for none; without them the soup
        alone decides.

    Returns
    -------
    Cells x genes, CSR float32 with the places of ``counts``: never negative, never above the count; a row sums to
    (1 - fraction) x the cell's counts within single precision. Cells are independent of each other.
    """
    corrected = np.empty(counts.nnz, dtype=np.float32)
    for start in range(0, counts.shape[0], _BLOCK):
        stop = min(start + _BLOCK, counts.shape[0])
        first, last = int(counts.indptr[start]), int(counts.indptr[stop])
        ends = counts.indptr[start : stop + 1].astype(np.int64) - first
        y = counts.data[first:last].astype(np.float64)
        gene = counts.indices[first:last]
        row = np.repeat(np.arange(stop - start), np.diff(ends))
        share = np.clip(fraction[start:stop], 0.0, 1.0)
        own = np.full(y.size, np.nan)
        if profiles is not None and group is not None:
            typed = group[start:stop][row]
            known = typed >= 0
            own[known] = profiles[typed[known], gene[known]]
        corrected[first:last] = y - _taken(y, row, stop - start, share, soup[gene], own)
    return sp.csr_matrix((corrected, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)


def _taken(y: Floats, row: npt.NDArray[np.intp], n: int, share: Floats, soup: Floats, own: Floats) -> Floats:
    """Counts to take from each entry; ``row`` is the cell, ``own`` the share in its type (NaN: no type)."""

    def per_cell(values: Floats) -> Floats:
        return np.asarray(np.bincount(row, weights=values, minlength=n), dtype=np.float64)

    wanted = share * per_cell(y)
    expected = wanted[row] * soup
    limit = np.minimum(y, expected + LIMIT_SD * np.sqrt(expected))
    ambient, native = share[row] * soup, (1.0 - share[row]) * own

    def taken(multiplier: Floats) -> Floats:
        scaled = multiplier[row] * ambient
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = np.where(scaled > 0, scaled / (native + scaled), 0.0)
        return np.minimum(limit, np.where(np.isnan(own), multiplier[row] * expected, y * weight))

    # bisection on the logarithm of the multiplier, all cells at once
    low, high = np.full(n, -np.log(_LARGEST)), np.full(n, np.log(_LARGEST))
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        enough = per_cell(taken(np.exp(middle))) >= wanted
        high, low = np.where(enough, middle, high), np.where(enough, low, middle)
    found = taken(np.exp(high))
    # what the limits forbid is taken evenly from what is left; what bisection overshoots is given back
    total, left = per_cell(found), per_cell(y - found)
    short = wanted - total
    with np.errstate(invalid="ignore", divide="ignore"):
        more = np.where((short > 0) & (left > 0), short / left, 0.0)
        less = np.where((short < 0) & (total > 0), wanted / total, 1.0)
    return np.asarray(np.clip(found * less[row] + (y - found) * more[row], 0.0, y), dtype=np.float64)


def correct_sample(adata: ad.AnnData, cells: pd.DataFrame) -> ad.AnnData:
    """Corrected counts of the cells of one sample that passed quality control.

    Parameters
    ----------
    adata
        Stage ``intake``.
    cells
        Table ``qc_cells`` of the sample, with ``first_pass_type``.

    Returns
    -------
    Stage ``ambient``: ``layers["ambient_corrected"]``, ``uns["ambient"]`` with ``status`` (``corrected`` or
    ``not_corrected: why``), ``soup`` and ``n_borrowed`` (cells without a share of their own, which have the sample's).
    Where nothing could be corrected the layer holds the counts themselves.

    Raises
    ------
    dtcflow.contracts.ContractError
        When ``cells`` does not list exactly the rows of ``adata``.
    """
    ids = pd.DataFrame({"cell_id": adata.obs_names.astype(object)})
    joined = contracts.join_side_car(ids, cells, name="qc_cells")
    keep = joined["pass_qc"].to_numpy(bool)
    joined = joined[keep]
    counts = sp.csr_matrix(counts_csr(adata)[np.flatnonzero(keep)], dtype=np.float32)
    fraction = joined["ambient_fraction"].to_numpy(np.float64)
    totals = counts_per_cell(counts)
    known = np.isfinite(fraction) & (totals > 0)
    about: dict[str, Any] = {"status": "corrected", "soup": "pooled cells", "n_borrowed": int((~known).sum())}
    layer = counts
    if not known.any():
        plate = "platform" in adata.obs and bool((adata.obs["platform"].astype(str) == "plate").all())
        why = "plate data" if plate and adata.n_obs else "no cell" if not len(joined) else "no ambient share estimated"
        about = {"status": f"not_corrected: {why}", "soup": "", "n_borrowed": 0}
    else:
        soup = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
        if contracts.AMBIENT_COUNT in adata.var:
            soup, about["soup"] = adata.var[contracts.AMBIENT_COUNT].to_numpy(np.float64), "empty droplets"
        soup = soup / soup.sum()
        fraction = np.where(known, fraction, np.average(fraction[known], weights=totals[known]))
        group = _groups(joined["first_pass_type"])
        used = _profile_cells(joined, group)
        profiles = own_profiles(sp.csr_matrix(counts[used]), fraction[used], soup, group[used])
        layer = decontaminate(counts, fraction, soup, profiles=profiles, group=group)
        layer.data = np.round(layer.data * STEP) / STEP
        layer.eliminate_zeros()
    obs = pd.DataFrame(index=adata.obs_names[keep].astype(object))
    var = pd.DataFrame(index=adata.var_names.astype(object))
    return ad.AnnData(obs=obs, var=var, layers={contracts.AMBIENT_CORRECTED: layer}, uns={"ambient": about})


def _profile_cells(cells: pd.DataFrame, group: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Rows that the types' profiles are made of: at most MAX_CELLS of each, doublets only where singles are few."""
    order = pd.DataFrame({"group": group, "doublet": cells["is_doublet"].to_numpy(bool), "row": np.arange(len(group))})
    # a checksum of the id: as good as random, and the same whatever the order of the cells
    order["draw"] = [zlib.crc32(str(cell_id).encode()) for cell_id in cells["cell_id"]]
    order = order[order["group"] >= 0].sort_values(["group", "doublet", "draw"], kind="stable")
    place = order.groupby("group").cumcount()
    singles = order.groupby("group")["doublet"].transform(lambda flags: (~flags).sum())
    chosen = order.loc[(place < MAX_CELLS) & (~order["doublet"] | (singles < MIN_CELLS)), "row"]
    return np.sort(chosen.to_numpy(np.intp))


def _groups(cell_type: pd.Series) -> npt.NDArray[np.intp]:
    """Number of each cell's type, -1 for unknown and for types with too few cells."""
    labels = cell_type.astype(str)
    sizes = labels.value_counts()
    usable = sorted(str(name) for name, n in sizes.items() if n >= MIN_CELLS and name != contracts.UNKNOWN)
    return np.asarray(pd.Index(usable, dtype=object).get_indexer(pd.Index(labels)), dtype=np.intp)
