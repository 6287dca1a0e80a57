"""One tumour cell, a tumour cell with a marrow cell in one droplet, or a marrow cell coated with epithelial RNA?

Each putative tumour cell is explained as a mixture of three profiles of its own sample, with e + r + s = 1::

    mu_g = N * (e * E_g + r * R_tg + s * S_g)      E epithelial cell, R_t resident cell of type t, S the soup

    single    r = 0                        s from the sample's ambient shares
    doublet   e : r free                   s from the sample's ambient shares
    coated    e = 0 but for the soup's     s free

Counts are gamma-Poisson (dispersion within the sample's resident types). Type, mixing share and ambient share are
integrated out over their priors, so that the three probabilities say how sure one can be, not which fit is best.

The soup is the sample's pooled profile, or the one measured in empty droplets, plus an unknown share of epithelial RNA
(burst tumour cells leave no droplet behind), which all cells of the sample have in common: a coated cell must hold
epithelial transcripts at the soup's ratio to haemoglobin, immunoglobulin and every other foreign transcript.

The epithelial profile is learned from the sample's own candidates, without the cell in question, by
expectation-maximisation: every candidate contributes the part of its counts that its mixture gives to E. Each gene is
shrunk to a generic profile (what all resident types share, and the epithelial marker panel) by a gamma prior, so that
three tumour cells are enough to start from. Its uncertainty adds to the dispersion.

Limits: a resident cell that makes epithelial transcripts of its own is none of the three and mostly ends as coated;
two tumour cells in one droplet are one profile and end as single; genomes are not looked at here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.order import stable_order
from dtcflow.qc.explanations import Floats, SampleModel, explain
from dtcflow.qc.metrics import counts_per_cell
from dtcflow.qc.profiles import Profiles, gene_sums, resident_profiles

CLASSES: Final = ("single", "doublet", "coated")
COLUMNS: Final = ("arbitration", "p_single", "p_doublet", "p_coated", "doublet_partner")

MIN_Z: Final = 2.0
MIN_MARKERS: Final = 2
"""Epithelial z (where it can be computed) and distinct panel genes that make a cell a candidate."""
MIN_GENES: Final = 1000
"""Genes with counts in the sample; a panel does not tell three hypotheses apart."""
MIN_RESIDENTS: Final = 30
"""Cells in resident types with a profile."""

MAX_CHECKS: Final = 30
"""Residents of each type in which the model's scatter is checked."""
MEASURED_SOUP_PRIOR: Final = 100.0
"""Counts of the pooled profile that a measured soup is smoothed with."""


@dataclass(frozen=True)
class Arbitration:
    """Result for one sample.

    ``cells``: columns :data:`COLUMNS`, one row per cell in input order; text empty and numbers NaN for cells that are
    no candidates. ``status``: ``arbitrated`` or ``not_arbitrated: why``. ``prior``: share of each class among all
    cells of the sample; ``soup_epithelial``: epithelial share of the soup beyond its profile's (posterior mean);
    ``soup_profile``: ``empty_droplets`` or ``pooled``; ``misfit``: factor by which log likelihoods were divided.
    """

    cells: pd.DataFrame
    status: str
    n_candidates: int = 0
    prior: dict[str, float] = field(default_factory=dict)
    soup_epithelial: float = np.nan
    soup_profile: str = ""
    misfit: float = np.nan

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the JSON summary."""
        called = self.cells["arbitration"].to_numpy(object)
        return {
            "status": self.status,
            "n_candidates": self.n_candidates,
            "prior": dict(self.prior),
            "soup_epithelial": self.soup_epithelial,
            "soup_profile": self.soup_profile,
            "misfit": self.misfit,
            **{f"n_{name}": int((called == name).sum()) for name in CLASSES},
        }


def candidates(epithelial_z: Floats, n_markers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Cells worth asking about: some epithelial evidence, less than the loss audit or the caller ask for."""
    return np.asarray((n_markers >= MIN_MARKERS) & (np.isnan(epithelial_z) | (epithelial_z >= MIN_Z)), dtype=bool)


def not_arbitrated(n: int, why: str, *, n_candidates: int = 0) -> Arbitration:
    """Result of a sample in which the question cannot be asked."""
    return Arbitration(_no_answers(n), f"not_arbitrated: {why}", n_candidates)


def arbitrate(
    counts: sp.csr_matrix,
    symbols: pd.Index,
    first_pass: pd.DataFrame,
    *,
    cell_ids: pd.Index,
    panel: tuple[str, ...],
    ambient_mean: float = np.nan,
    ambient_counts: Floats | None = None,
    profiles: Profiles | None = None,
) -> Arbitration:
    """Probability of each class for every candidate of one sample.

    Parameters
    ----------
    counts
        Raw counts, cells x genes.
    symbols
        Gene symbols of the columns.
    first_pass
        ``first_pass_type``, ``epithelial_z`` and ``n_epithelial_markers`` of every cell
        (:func:`dtcflow.qc.lineage.first_pass_lineage`).
    cell_ids
        Names of the cells.
    panel
        Epithelial marker genes.
    ambient_mean
        Ambient share of a typical cell of this sample, 0-1 (NaN: 0.05).
    ambient_counts
        Counts per gene in empty droplets, where they were given; else the pooled profile stands in for the soup.
    profiles
        Resident profiles, where they are known already (computed without the candidates).

    Returns
    -------
    :class:`Arbitration`, the same for every order of cells and genes up to rounding.
    """
    n = counts.shape[0]
    z = first_pass["epithelial_z"].to_numpy(np.float64)
    totals = counts_per_cell(counts)
    is_candidate = candidates(z, first_pass["n_epithelial_markers"].to_numpy(np.int64)) & (totals > 0)
    rows = np.flatnonzero(is_candidate)
    n_seen = int((gene_sums(counts) > 0).sum())
    if n_seen < MIN_GENES:
        return not_arbitrated(n, f"{n_seen} genes with counts, {MIN_GENES} are needed", n_candidates=rows.size)
    if profiles is None:
        types = first_pass["first_pass_type"].to_numpy(object)
        profiles = resident_profiles(counts, types, cell_ids, excluded=is_candidate)
    n_residents = int(profiles.n_cells.sum())
    if n_residents < MIN_RESIDENTS:
        why = f"{n_residents} cells in resident types with a profile, {MIN_RESIDENTS} are needed"
        return not_arbitrated(n, why, n_candidates=rows.size)
    if not rows.size:
        return Arbitration(_no_answers(n), "arbitrated")
    soup, source = profiles.pooled, "pooled"
    if ambient_counts is not None and ambient_counts.sum() > 0:
        measured = ambient_counts + MEASURED_SOUP_PRIOR * profiles.pooled
        soup, source = measured / measured.sum(), "empty_droplets"

    key = stable_order(cell_ids.tolist(), seed=0)
    # the strongest candidates teach the epithelial profile; ties by name, so that the order of cells does not matter
    rows = rows[np.lexsort((key[rows], -np.round(np.nan_to_num(z[rows], nan=0.0), 3)))]
    checks = _some_of_each(profiles.label, key)
    found = explain(
        counts,
        totals,
        rows,
        SampleModel.build(profiles, soup, marker=np.asarray(symbols.isin(panel)), symbols=symbols, mean=ambient_mean),
        checks=checks,
        check_types=profiles.label[checks],
        others=np.flatnonzero(~is_candidate & (totals > 0) & (first_pass["n_epithelial_markers"].to_numpy() > 0)),
        n_others=int((totals > 0).sum()) - rows.size,
    )
    rows = found.rows
    cells = _no_answers(n)
    best = found.probability.argmax(axis=1)
    partner = np.array(profiles.types, dtype=object)[found.partner]
    answers = {
        "arbitration": np.array(CLASSES, dtype=object)[best],
        **{f"p_{name}": found.probability[:, k] for k, name in enumerate(CLASSES)},
        "doublet_partner": np.where(best == CLASSES.index("doublet"), partner, ""),
    }
    for name, values in answers.items():
        column = cells[name].to_numpy(copy=True)
        column[rows] = values
        cells[name] = column
    prior = {name: float(value) for name, value in zip((*CLASSES, "resident"), found.prior, strict=True)}
    return Arbitration(cells, "arbitrated", rows.size, prior, found.soup_epithelial, source, found.misfit)


def _no_answers(n: int) -> pd.DataFrame:
    columns: dict[str, Any] = {name: np.full(n, np.nan) for name in COLUMNS}
    for name in ("arbitration", "doublet_partner"):
        columns[name] = np.full(n, "", dtype=object)
    return pd.DataFrame(columns)


def _some_of_each(label: npt.NDArray[np.int64], key: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """Some residents of every type, chosen by name."""
    rows = []
    for number in range(int(label.max()) + 1):
        members = np.flatnonzero(label == number)
        rows.append(members[np.argsort(key[members], kind="stable")][:MAX_CHECKS])
    return np.concatenate(rows)
