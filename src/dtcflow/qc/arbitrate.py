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
from scipy.interpolate import make_interp_spline

from dtcflow import contracts
from dtcflow.cnv.reference import stable_order
from dtcflow.qc.metrics import counts_per_cell
from dtcflow.qc.profiles import Profiles, resident_profiles

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

CLASSES: Final = ("single", "doublet", "coated")
COLUMNS: Final = ("arbitration", "p_single", "p_doublet", "p_coated", "doublet_partner")

MIN_Z: Final = 2.0
MIN_MARKERS: Final = 2
"""Epithelial z (where it can be computed) and distinct panel genes that make a cell a candidate."""
MIN_GENES: Final = 1000
"""Genes with counts in the sample; a panel does not tell three hypotheses apart."""
MIN_RESIDENTS: Final = 30
"""Cells in resident types with a profile."""

MAX_GENES: Final = 2000
"""Genes that tell the profiles apart best; the others say next to nothing and cost time."""
MAX_LEARNING: Final = 200
"""Candidates that the epithelial profile is learned from."""
MAX_TYPES: Final = 3
"""Resident types, of all, that are looked at closely for each candidate."""
ROUNDS: Final = 4
CHUNK: Final = 64

ABUNDANT_KERATINS: Final = ("KRT8", "KRT18", "KRT19")
KERATIN_SHARE: Final = 3e-3
MARKER_SHARE: Final = 3e-4
"""Generic share of counts of the abundant keratins and of other panel genes in an epithelial cell."""
PRIOR_SHAPE: Final = 1.0
"""Shape of the gamma prior of a gene's share in epithelial cells (coefficient of variation 1, what two lineages differ
by); also the counts that the prior is worth."""
SOUP_CV2: Final = 0.05
"""Squared relative error of the soup's profile."""
SOUP_EPITHELIAL: Final = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)
"""Values of the soup's extra epithelial share."""
PRIOR_BOUNDS: Final = 0.03
"""No class gets a smaller prior than this."""

N_U: Final = 15
N_V: Final = 9
MAX_V: Final = 0.9


@dataclass(frozen=True)
class Arbitration:
    """Result for one sample.

    ``cells``: columns :data:`COLUMNS`, one row per cell in input order; text empty and numbers NaN for cells that are
    no candidates. ``status``: ``arbitrated`` or ``not_arbitrated: why``. ``prior``: share of each class among the
    candidates; ``soup_epithelial``: extra epithelial share of the soup (posterior mean).
    """

    cells: pd.DataFrame
    status: str
    n_candidates: int = 0
    prior: dict[str, float] = field(default_factory=dict)
    soup_epithelial: float = np.nan

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the JSON summary."""
        called = self.cells["arbitration"].to_numpy(object)
        return {
            "status": self.status,
            "n_candidates": self.n_candidates,
            "prior": dict(self.prior),
            "soup_epithelial": self.soup_epithelial,
            **{f"n_{name}": int((called == name).sum()) for name in CLASSES},
        }


def candidates(epithelial_z: Floats, n_markers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Cells worth asking about: some epithelial evidence, less than the loss audit or the caller ask for."""
    return np.asarray((n_markers >= MIN_MARKERS) & (np.isnan(epithelial_z) | (epithelial_z >= MIN_Z)), dtype=bool)


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
        Ambient share of a typical cell of this sample (NaN: 0.05).
    ambient_counts
        Counts per gene in empty droplets, where they were given; else the pooled profile stands in for the soup.
    profiles
        Resident profiles, where they are known already.

    Returns
    -------
    :class:`Arbitration`, the same for every order of cells and genes up to rounding.
    """
    n = counts.shape[0]
    z = first_pass["epithelial_z"].to_numpy(np.float64)
    rows = np.flatnonzero(candidates(z, first_pass["n_epithelial_markers"].to_numpy(np.int64)))
    empty = _empty(n)
    totals = counts_per_cell(counts)
    rows = rows[totals[rows] > 0]
    n_seen = int((np.bincount(counts.indices[counts.data > 0], minlength=counts.shape[1]) > 0).sum())
    if n_seen < MIN_GENES:
        return Arbitration(empty, f"not_arbitrated: {n_seen} genes with counts, {MIN_GENES} are needed", rows.size)
    types = first_pass["first_pass_type"].to_numpy(object)
    is_candidate = np.zeros(n, dtype=bool)
    is_candidate[rows] = True
    if profiles is None:
        profiles = resident_profiles(counts, types, cell_ids, excluded=is_candidate)
    n_residents = int(profiles.n_cells.sum())
    if n_residents < MIN_RESIDENTS:
        why = f"{n_residents} cells in resident types with a profile, {MIN_RESIDENTS} are needed"
        return Arbitration(empty, f"not_arbitrated: {why}", rows.size)
    if not rows.size:
        return Arbitration(empty, "arbitrated: no candidate", 0)
    soup = profiles.pooled
    if ambient_counts is not None and ambient_counts.sum() > 0:
        soup = (ambient_counts + profiles.pooled * 100.0) / (ambient_counts.sum() + 100.0)
    # the strongest candidates teach the epithelial profile; ties by name, so that the order of cells does not matter
    key = stable_order(cell_ids[rows].tolist(), seed=0)
    rows = rows[np.lexsort((key, -np.round(np.nan_to_num(z[rows], nan=0.0), 3)))]
    model = _Model.build(profiles, soup, symbols, panel, ambient_mean=ambient_mean)
    found = _fit(sp.csr_matrix(counts[rows]), totals[rows], model, n_others=int((totals > 0).sum()) - rows.size)
    cells = empty
    place = cells.index[rows]
    best = found.probability.argmax(axis=1)
    cells.loc[place, "arbitration"] = np.array(CLASSES, dtype=object)[best]
    cells.loc[place, ["p_single", "p_doublet", "p_coated"]] = found.probability
    cells.loc[place, "doublet_partner"] = np.where(best == 1, np.array(profiles.types, object)[found.partner], "")
    prior = {name: float(value) for name, value in zip((*CLASSES, "resident"), found.prior, strict=True)}
    return Arbitration(cells, "arbitrated", int(rows.size), prior, found.soup_epithelial)


def _empty(n: int) -> pd.DataFrame:
    columns: dict[str, Any] = {name: np.full(n, np.nan) for name in COLUMNS}
    columns["arbitration"] = np.full(n, "", dtype=object)
    columns["doublet_partner"] = np.full(n, "", dtype=object)
    return pd.DataFrame(columns)


# ---------------------------------------------------------------------------------------------------------------------
# Where the likelihood is known, and where it is needed
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Grid:
    """Mixtures at which likelihoods are computed, and the way from them to the points of each hypothesis.

    Coordinates are u = e / (e + r) and v = s, both spaced evenly in asin(sqrt()), where a likelihood has the same
    width everywhere. ``mix``: grid x (e, r, s). ``points[k]``: for each value of the soup's epithelial share, points x
    grid, the interpolation to the points of hypothesis k; ``weights[k]`` their log prior; ``uv[k]`` their (u, v).
    """

    mix: Floats
    points: tuple[tuple[Floats, ...], ...]
    weights: tuple[Floats, ...]
    uv: tuple[tuple[Floats, ...], ...]


def _make_grid(ambient_mean: float) -> _Grid:
    from scipy import stats

    knots_u = np.linspace(0.0, np.pi / 2, N_U)
    knots_v = np.linspace(0.0, np.arcsin(np.sqrt(MAX_V)), N_V)
    u, v = (part.ravel() for part in np.meshgrid(np.sin(knots_u) ** 2, np.sin(knots_v) ** 2, indexing="ij"))
    mix = np.column_stack([u * (1 - v), (1 - u) * (1 - v), v])
    spline_u = make_interp_spline(knots_u, np.eye(N_U), k=3)
    spline_v = make_interp_spline(knots_v, np.eye(N_V), k=3)

    mean = float(np.clip(ambient_mean if np.isfinite(ambient_mean) else 0.05, 0.02, 0.3))
    ordinary = stats.beta.ppf((np.arange(6) + 0.5) / 6, 8 * mean, 8 * (1 - mean))
    share = stats.beta.ppf((np.arange(60) + 0.5) / 60, 2, 2)
    wide = 0.02 + 0.88 * (np.arange(40) + 0.5) / 40
    log_weights = tuple(np.full(k, -np.log(k)) for k in (6, 360, 40, 6))
    points: list[list[Floats]] = [[], [], [], []]
    uv: list[list[Floats]] = [[], [], [], []]
    for extra in SOUP_EPITHELIAL:
        m, s = (part.ravel() for part in np.meshgrid(share, ordinary, indexing="ij"))
        hypotheses = ((np.ones(6), ordinary), (m, s), (np.zeros(40), wide), (np.zeros(6), ordinary))
        for k, (own, ambient) in enumerate(hypotheses):
            at_v = np.minimum(ambient * (1 - extra), MAX_V)
            at_u = np.clip((own * (1 - ambient) + ambient * extra) / (1 - at_v), 0.0, 1.0)
            along_u = spline_u(np.arcsin(np.sqrt(at_u)))
            along_v = spline_v(np.arcsin(np.sqrt(at_v)))
            points[k].append(np.einsum("pi,pj->pij", along_u, along_v).reshape(len(at_u), -1))
            uv[k].append(np.column_stack([at_u, at_v]))
    return _Grid(mix, tuple(map(tuple, points)), log_weights, tuple(map(tuple, uv)))


# ---------------------------------------------------------------------------------------------------------------------
# The model of one sample
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Model:
    residents: Floats
    type_prior: Floats
    soup: Floats
    dispersion: Floats
    generic: Floats
    grid: _Grid

    @classmethod
    def build(
        cls, profiles: Profiles, soup: Floats, symbols: pd.Index, panel: tuple[str, ...], *, ambient_mean: float
    ) -> _Model:
        floor = 1e-8
        # what all types have in common: the geometric mean is low where one of them lacks a gene
        generic = np.exp(np.log(profiles.shares + floor).mean(axis=0))
        marker = symbols.isin(panel)
        keratin = symbols.isin(ABUNDANT_KERATINS) & marker
        generic = np.where(marker, np.maximum(generic, MARKER_SHARE), generic)
        generic = np.where(keratin, np.maximum(generic, KERATIN_SHARE), generic)
        return cls(
            profiles.shares + floor,
            profiles.n_cells / profiles.n_cells.sum(),
            soup + floor,
            profiles.dispersion,
            generic / generic.sum(),
            _make_grid(ambient_mean),
        )


@dataclass(frozen=True)
class _Epithelial:
    """Learned profile: gamma posterior with ``shape`` = PRIOR_SHAPE + counts and ``rate`` per gene.

    ``own_shape``, ``own_exposure``: what each learning candidate contributed, to be taken out again for itself.
    """

    counts: Floats
    exposure: float
    own_counts: Floats
    own_exposure: Floats

    def without(self, cell: int, generic: Floats) -> tuple[Floats, Floats]:
        """Profile without one cell, and its squared relative error per gene."""
        counts, exposure = self.counts, self.exposure
        if cell < len(self.own_exposure):
            counts, exposure = counts - self.own_counts[cell], exposure - self.own_exposure[cell]
        shape = PRIOR_SHAPE + np.maximum(counts, 0.0)
        profile = shape / (PRIOR_SHAPE / generic + max(exposure, 0.0))
        return profile / profile.sum(), 1.0 / shape


@dataclass(frozen=True)
class _Found:
    probability: Floats
    partner: npt.NDArray[np.intp]
    prior: Floats
    soup_epithelial: float


def _fit(counts: sp.csr_matrix, totals: Floats, model: _Model, *, n_others: int) -> _Found:
    n_genes = counts.shape[1]
    n_learning = min(counts.shape[0], MAX_LEARNING)
    learned = _Epithelial(np.zeros(n_genes), 0.0, np.zeros((0, n_genes)), np.zeros(0))
    learning = sp.csr_matrix(counts[:n_learning])
    for _ in range(ROUNDS - 1):
        state = _evaluate(learning, totals[:n_learning], model, learned, n_others=n_others)
        learned = _learn(learning, totals[:n_learning], model, learned, state)
    state = _evaluate(counts, totals, model, learned, n_others=n_others)
    return _Found(state.probability, state.partner, state.prior, float(state.soup @ np.array(SOUP_EPITHELIAL)))


@dataclass(frozen=True)
class _State:
    probability: Floats
    partner: npt.NDArray[np.intp]
    prior: Floats
    soup: Floats
    """Posterior weight of each value of the soup's epithelial share."""
    mixture: Floats
    """cells x (single, doublet) x (e, r, s), posterior means."""


def _choose_genes(model: _Model, epithelial: Floats, depth: float) -> npt.NDArray[np.intp]:
    """Genes whose expected counts differ most between the profiles, in units of their scatter."""
    best = np.zeros(epithelial.size)
    others = [*model.residents, model.soup]
    for profile in others:
        mean = (epithelial + profile) / 2
        best = np.maximum(
            best, (np.sqrt(epithelial) - np.sqrt(profile)) ** 2 / (1 + model.dispersion * depth * mean)
        )
    for profile in model.residents:
        mean = (model.soup + profile) / 2
        best = np.maximum(
            best, (np.sqrt(model.soup) - np.sqrt(profile)) ** 2 / (1 + model.dispersion * depth * mean)
        )
    return np.sort(np.argsort(-np.round(best / best.max(), 9), kind="stable")[:MAX_GENES])


def _evaluate(counts: sp.csr_matrix, totals: Floats, model: _Model, learned: _Epithelial, *, n_others: int) -> _State:
    """Likelihoods of all hypotheses for every cell, then priors and probabilities."""
    from scipy.special import logsumexp

    n = counts.shape[0]
    whole, _ = learned.without(n + len(learned.own_exposure), model.generic)
    genes = _choose_genes(model, whole, float(np.median(totals)))
    residents, soup, phi = model.residents[:, genes], model.soup[genes], model.dispersion[genes]
    grid = model.grid
    mix = grid.mix.astype(np.float32)
    n_soup = len(SOUP_EPITHELIAL)
    likelihood = np.zeros((n, 4, n_soup))
    partner = np.zeros(n, dtype=np.intp)
    mixture = np.zeros((n, 2, 3))
    mean_resident = residents.T @ model.type_prior
    quick = np.array([[0.05, 0.92, 0.03], [0.4, 0.57, 0.03], [0.7, 0.27, 0.03], [0.05, 0.5, 0.45]])
    log_type = np.log(model.type_prior)
    x_all = sp.csr_matrix(counts[:, genes])
    for cell in range(n):
        x = x_all[cell].toarray().ravel().astype(np.float32)
        profile, error = learned.without(cell, model.generic)
        profile, error = profile[genes], error[genes]
        part = profile / (profile + mean_resident)
        scatter = (phi + part**2 * error).astype(np.float32)
        depth = totals[cell]

        rough = np.array(
            [_log_likelihood(x, depth, quick, profile, r, soup, scatter).max() for r in residents]
        ) + log_type
        close = np.argsort(-rough, kind="stable")[:MAX_TYPES]
        tables = np.array([_log_likelihood(x, depth, mix, profile, residents[t], soup, scatter) for t in close])
        tables = tables.astype(np.float64) / 1.0
        top = tables.max()
        tables -= top
        for s in range(n_soup):
            single = tables[0] @ grid.points[0][s].T + grid.weights[0]
            doublet = tables @ grid.points[1][s].T + grid.weights[1] + log_type[close][:, None]
            coated = tables @ grid.points[2][s].T + grid.weights[2] + log_type[close][:, None]
            resident = tables @ grid.points[3][s].T + grid.weights[3] + log_type[close][:, None]
            likelihood[cell, :, s] = [logsumexp(part) for part in (single, doublet, coated, resident)]
            if s == 3:
                partner[cell] = close[doublet.max(axis=1).argmax()]
                w = np.exp(doublet - doublet.max())
                u, v = (w.sum(axis=0) @ grid.uv[1][s]) / w.sum()
                mixture[cell, 1] = u * (1 - v), (1 - u) * (1 - v), v
                w1 = np.exp(single - single.max())
                u, v = (w1 @ grid.uv[0][s]) / w1.sum()
                mixture[cell, 0] = u * (1 - v), (1 - u) * (1 - v), v
    probability, prior, soup_weight = _posterior(likelihood, n_others=n_others)
    return _State(probability, partner, prior, soup_weight, mixture)


def _log_likelihood(
    x: Singles, depth: float, mix: Floats, epithelial: Floats, resident: Floats, soup: Floats, scatter: Singles
) -> Floats:
    """Gamma-Poisson log likelihood (without the terms that depend on ``x`` alone) at every row of ``mix``."""
    rates = (depth * np.vstack([epithelial, resident, soup])).astype(np.float32)
    mu = mix.astype(np.float32) @ rates
    np.maximum(mu, 1e-6, out=mu)
    inverse = (1.0 / scatter).astype(np.float32)
    seen = x > 0
    total = np.log(mu[:, seen]) @ x[seen]
    mu *= scatter
    np.log1p(mu, out=mu)
    return np.asarray(total - mu @ (x + inverse), dtype=np.float64)


def _posterior(likelihood: Floats, *, n_others: int) -> tuple[Floats, Floats, Floats]:
    """Class probabilities of every cell, the sample's class shares, and the soup's epithelial share.

    The candidates were picked from all cells because of their epithelial transcripts: among many resident cells some
    show a few by chance. The other cells of the sample therefore count as residents in the prior.
    """
    from scipy.special import logsumexp

    n, n_classes, n_soup = likelihood.shape
    evidence = np.zeros(n_soup)
    shares = np.zeros((n_soup, n_classes))
    responsibilities = np.zeros((n_soup, n, n_classes))
    others = np.zeros(n_classes)
    others[-1] = n_others
    for s in range(n_soup):
        share = np.array([1.0, 1.0, 1.0, 1.0 + n_others]) / (4.0 + n_others)
        for _ in range(50):
            weighted = likelihood[:, :, s] + np.log(share)
            norm = logsumexp(weighted, axis=1, keepdims=True)
            r = np.exp(weighted - norm)
            new = (r.sum(axis=0) + 1.0 + others) / (n + n_classes + n_others)
            if np.abs(new / share - 1).max() < 1e-3:
                break
            share = new
        evidence[s] = float(norm.sum())
        shares[s], responsibilities[s] = share, r
    weight = np.exp(evidence - logsumexp(evidence))
    four = np.einsum("s,snk->nk", weight, responsibilities)
    return np.column_stack([four[:, :2], four[:, 2:].sum(axis=1)]), weight @ shares, weight


def _learn(
    counts: sp.csr_matrix, totals: Floats, model: _Model, learned: _Epithelial, state: _State
) -> _Epithelial:
    """Counts that the candidates owe to the epithelial profile, and the depth they were seen at."""
    n = counts.shape[0]
    own = np.zeros(counts.shape)
    exposure = np.zeros(n)
    for cell in range(n):
        x = counts[cell].toarray().ravel().astype(np.float64)
        profile, _ = learned.without(n + len(learned.own_exposure), model.generic)
        resident = model.residents[state.partner[cell]]
        for k in range(2):
            e, r, s = state.mixture[cell, k]
            weight = state.probability[cell, k]
            expected = e * profile + r * resident + s * model.soup
            own[cell] += weight * x * e * profile / expected
            exposure[cell] += weight * e * totals[cell]
    return _Epithelial(own.sum(axis=0), float(exposure.sum()), own, exposure)
