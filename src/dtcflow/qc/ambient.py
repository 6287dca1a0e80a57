"""Share of each cell's transcripts that came from the ambient soup, and how much of each count that leaves.

The idea is SoupX's (Young 2020, PMID 33367645): transcripts that a cell cannot make (haemoglobin in a T cell) came
from the soup, so observed over expected in the soup is the contaminated share. The computation is our own: the soup's
profile is that of the empty droplets or, without the unfiltered matrix, the sample's pooled profile, and each cell's
share is shrunk to the sample's by a gamma-Poisson model.

With gene class k, cell c of a type that cannot express k, N_c counts and s_k the class's share of the soup::

    o_ck ~ Poisson(rho_c * N_c * s_k)        rho_c ~ Gamma(a, b)
    E[rho_c | o] = (a + sum_k o_ck) / (b + sum_k N_c s_k)

Limits, to be kept in mind when the number is read:

* Without empty droplets the pooled profile stands in for the soup. Cells that burst (erythrocytes) leave more in the
  soup than in the pool and their class overestimates; robust ones (plasma cells) leave less and theirs underestimates.
  Classes that disagree with the median class are therefore set aside, and the sample's value is good to a factor of
  two or three, not better. Where only one class is informative nothing can be checked.
* A class without producing cells in the sample cannot be told from total contamination; it is set aside too.
* First-pass cell types are used. A wrong type makes endogenous transcripts look ambient. The sample's rates therefore
  leave out cells far above the rest, and a cell in which a class exceeds what total contamination would explain does
  not use that class; a wrongly typed cell below that still gets too high a value.
* The result is an annotation. It removes no cell and corrects no count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from scipy import stats

from dtcflow import contracts
from dtcflow.genes import gene_mask
from dtcflow.qc.metrics import counts_per_cell
from dtcflow.sparse import times

_MYELOID_SILENT: Final = ("T_NK", "B", "plasma")

CANNOT_EXPRESS: Final[dict[str, tuple[str, ...]]] = {
    # HSPC and megakaryocytes share a progenitor with red cells and may hold some haemoglobin of their own
    "haemoglobin": (
        *("T_NK", "B", "plasma", "monocyte", "dendritic", "neutrophil", "mast"),
        *contracts.STROMAL_TYPES,
        contracts.EPITHELIAL,
    ),
    # plasmacytoid dendritic cells and lymphoid progenitors (within HSPC) transcribe immunoglobulin genes
    "immunoglobulin": (
        *("T_NK", "monocyte", "neutrophil", "mast", "erythroid", "megakaryocyte"),
        *contracts.STROMAL_TYPES,
        contracts.EPITHELIAL,
    ),
    "collagen": contracts.HAEMATOPOIETIC_TYPES,
    "epithelial": (*contracts.HAEMATOPOIETIC_TYPES, *contracts.STROMAL_TYPES),
    "myeloid": _MYELOID_SILENT,
}
"""First-pass cell types in which a gene class can only be ambient."""

CLASS_GENES: Final[dict[str, tuple[str, ...]]] = {
    "collagen": ("COL1A1", "COL1A2", "COL3A1"),
    # not KRT8 and KRT18: leukocytes transcribe them at low level
    "epithelial": ("EPCAM", "KRT19", "KRT7", "CLDN4", "ELF3"),
    "myeloid": ("LYZ", "S100A8", "S100A9"),
}
_MASKED: Final = ("haemoglobin", "immunoglobulin")

MIN_EXPECTED: Final = 20.0
"""Expected counts at total contamination that a class needs, summed over its cells, to say anything."""
MAX_CLASS_RATE: Final = 0.5
"""A class above this sample-wide rate has no producing cells in the sample (or the wrong ones): not used."""
MAX_DISAGREEMENT: Final = 3.0
"""Classes whose rate is further than this factor from the median class's are not used."""
EMPTY_DROPLETS: Final = "empty droplets"
POOLED_CELLS: Final = "pooled cells"
EXCESS_P: Final = 0.05
TRIM_FOLD: Final = 5.0
TRIM_P: Final = 1e-3
"""A cell takes no part in the sample's rate when its count is this improbable at 5 x that rate."""
_ROUNDS: Final = 20


@dataclass(frozen=True)
class Ambient:
    """Ambient share per cell (``fraction``, 0-1, NaN where nothing is informative) and of the sample.

    ``classes``: per gene class its sample-wide rate, expected counts and whether it was used or why not. ``soup``:
    where the soup's profile comes from.
    """

    fraction: npt.NDArray[np.float64]
    status: str
    sample_estimate: float = np.nan
    dispersion: float = np.nan
    classes: tuple[dict[str, Any], ...] = ()
    soup: str = POOLED_CELLS

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the JSON summary."""
        return {
            "status": self.status,
            "soup": self.soup,
            "sample_estimate": self.sample_estimate,
            "dispersion": self.dispersion,
            "n_estimated": int(np.isfinite(self.fraction).sum()),
            "classes": [dict(entry) for entry in self.classes],
        }


def class_masks(symbols: pd.Index) -> dict[str, npt.NDArray[np.bool_]]:
    """Genes of each informative class, as masks over ``symbols``."""
    return {
        name: np.asarray(gene_mask(symbols, name) if name in _MASKED else symbols.isin(CLASS_GENES[name]), dtype=bool)
        for name in CANNOT_EXPRESS
    }


def estimate_ambient(
    counts: sp.csr_matrix,
    symbols: pd.Index,
    cell_type: pd.Series,
    *,
    soup: npt.NDArray[np.float64] | None = None,
    cannot_express: Mapping[str, tuple[str, ...]] = CANNOT_EXPRESS,
) -> Ambient:
    """Estimate the ambient share of every cell of one sample.

    Parameters
    ----------
    counts
        Raw counts, cells x genes.
    symbols
        Gene symbols of the columns.
    cell_type
        First-pass cell type per cell (:data:`dtcflow.contracts.CELL_TYPES`); cells of type ``unknown`` are never
        informative.
    soup
        Counts per gene of the empty droplets of the unfiltered matrix (length genes); without it the pooled profile of
        the cells stands in.
    cannot_express
        Per gene class the cell types that cannot express it.

    Returns
    -------
    :class:`Ambient`; ``status`` is ``estimated`` or ``not_estimated: why``. ``dispersion`` is the fitted variance of
    the share between cells over its squared mean (0: the cells do not differ beyond counting noise).
    """
    n = counts.shape[0]
    nothing = np.full(n, np.nan)
    totals = counts_per_cell(counts)
    if not totals.sum() > 0:
        return Ambient(nothing, "not_estimated: no counts")
    labels = cell_type.to_numpy(object)
    masks = class_masks(symbols)
    per_class = times(counts, np.column_stack(list(masks.values())).astype(np.float64))
    measured = soup is not None and float(soup.sum()) > 0
    if soup is not None and measured:
        pooled = np.array([float(soup[mask].sum()) for mask in masks.values()]) / float(soup.sum())
    else:
        pooled = per_class.sum(axis=0) / totals.sum()
    source = EMPTY_DROPLETS if measured else POOLED_CELLS

    observed = np.zeros((n, len(masks)))
    expected = np.zeros((n, len(masks)))
    for column, name in enumerate(masks):
        most = totals * pooled[column]
        o = per_class[:, column]
        usable = np.isin(labels, cannot_express[name]) & (most > 0)
        # more than total contamination would bring: the cell makes it itself, or is a doublet or wrongly typed
        usable &= stats.poisson.sf(o - 1, most) >= EXCESS_P
        observed[usable, column] = o[usable]
        expected[usable, column] = most[usable]

    typical = np.column_stack([_typical(observed[:, column], expected[:, column]) for column in range(len(masks))])
    classes = _judge_classes(masks, (observed * typical).sum(axis=0), (expected * typical).sum(axis=0), pooled=pooled)
    kept = np.array([entry["used"] for entry in classes], dtype=bool)
    if not kept.any():
        return Ambient(nothing, "not_estimated: no informative gene class", classes=tuple(classes), soup=source)
    o_cell, e_cell = observed[:, kept].sum(axis=1), expected[:, kept].sum(axis=1)
    ordinary = typical[:, kept].all(axis=1)
    mean, dispersion = fit_gamma_poisson(o_cell[ordinary], e_cell[ordinary])
    fraction = np.where(e_cell > 0, shrink(o_cell, e_cell, mean=mean, dispersion=dispersion), np.nan)
    return Ambient(np.clip(fraction, 0.0, 1.0), "estimated", min(mean, 1.0), dispersion, tuple(classes), source)


def _typical(observed: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Cells whose count of one class fits the rate of the others; the rate and the cells are found in turn."""
    inside = np.ones(observed.shape, dtype=bool)
    for _ in range(_ROUNDS):
        exposure = expected[inside].sum()
        if not exposure > 0:
            break
        rate = observed[inside].sum() / exposure
        now = stats.poisson.sf(observed - 1, TRIM_FOLD * rate * expected) >= TRIM_P
        if np.array_equal(now, inside):
            break
        inside = now
    return inside


def _judge_classes(
    masks: Mapping[str, npt.NDArray[np.bool_]],
    observed: npt.NDArray[np.float64],
    expected: npt.NDArray[np.float64],
    *,
    pooled: npt.NDArray[np.float64],
) -> list[dict[str, Any]]:
    """Sample-wide rate of each class and whether it can be used."""
    entries: list[dict[str, Any]] = []
    for (name, mask), o, e, share in zip(masks.items(), observed, expected, pooled, strict=True):
        reason = ""
        if not mask.any():
            reason = "no gene of this class measured"
        elif e < MIN_EXPECTED:
            reason = f"{e:.1f} counts expected at total contamination, {MIN_EXPECTED:g} are needed"
        elif o / e > MAX_CLASS_RATE:
            reason = f"rate {o / e:.2f} is above {MAX_CLASS_RATE:g}: no producing cells in this sample"
        rate = float(o / e) if e > 0 else np.nan
        entries.append(
            {"class": name, "share": share, "rate": rate, "expected": e, "used": not reason, "reason": reason}
        )
    # half a count keeps a class that by chance shows nothing comparable with the others
    comparable = {
        entry["class"]: (o + 0.5) / (entry["expected"] + 0.5)
        for entry, o in zip(entries, observed, strict=True)
        if entry["used"]
    }
    if comparable:
        middle = sorted(comparable.values())[(len(comparable) - 1) // 2]
        for entry in entries:
            ratio = comparable.get(entry["class"], middle) / middle
            if entry["used"] and not 1 / MAX_DISAGREEMENT <= ratio <= MAX_DISAGREEMENT:
                entry["used"] = False
                entry["reason"] = f"rate {entry['rate']:.3f} disagrees with the median class's {middle:.3f}"
    return entries


def fit_gamma_poisson(observed: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean and squared coefficient of variation of a gamma rate, from Poisson counts with exposures, by moments.

    With rate mean m and variance v: E[o] = m e and Var[o] = m e + v e^2, hence v = sum((o - m e)^2 - m e) / sum(e^2),
    not below 0. Cells without exposure do not count.

    Returns
    -------
    ``(m, v / m^2)``; ``(0, 0)`` when nothing was observed.
    """
    used = expected > 0
    o, e = observed[used], expected[used]
    if not e.sum() > 0 or not o.sum() > 0:
        return 0.0, 0.0
    mean = float(o.sum() / e.sum())
    variance = max(0.0, float(((o - mean * e) ** 2 - mean * e).sum() / (e**2).sum()))
    return mean, variance / mean**2


def shrink(
    observed: npt.NDArray[np.float64], expected: npt.NDArray[np.float64], *, mean: float, dispersion: float
) -> npt.NDArray[np.float64]:
    """Posterior mean of each cell's rate under the gamma prior; without dispersion every cell has the sample's rate."""
    if dispersion <= 0 or mean <= 0:
        return np.full(observed.shape, mean)
    shape, rate = 1.0 / dispersion, 1.0 / (dispersion * mean)
    return (shape + observed) / (rate + expected)
