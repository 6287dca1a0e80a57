"""Cells explained as mixtures of an epithelial profile, a resident profile and the soup: the engine of the arbitration.

:mod:`dtcflow.qc.arbitrate` says what is asked; here is how it is computed. Log likelihoods are tabulated once per
cell and resident type on a grid of mixtures, since every hypothesis is a prior over the same mixtures, and read off at
each hypothesis' own points by cubic splines.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from scipy import stats
from scipy.interpolate import make_interp_spline
from scipy.special import logsumexp

from dtcflow.qc.profiles import FLOOR, Profiles

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

MAX_GENES: Final = 2000
"""Genes that tell the profiles apart best; the others say next to nothing and cost time."""
MAX_LEARNING: Final = 60
"""Candidates that the epithelial profile is learned from, the strongest."""
MAX_TYPES: Final = 3
"""Resident types, of all, that are looked at closely for each candidate."""
ROUNDS: Final = 4
"""Rounds of expectation-maximisation; the first rests on the generic profile alone."""
CHUNK: Final = 2048
"""Candidates whose dense rows are in memory together, gene by gene of :data:`MAX_GENES`."""

ABUNDANT_KERATINS: Final = ("KRT8", "KRT18", "KRT19")
KERATIN_SHARE: Final = 3e-3
MARKER_SHARE: Final = 3e-4
"""Generic share of counts of the abundant keratins and of other panel genes in an epithelial cell."""
PRIOR_SHAPE: Final = 1.0
"""Shape of the gamma prior of a gene's share in epithelial cells (coefficient of variation 1, what two lineages differ
by); also the counts that the prior is worth."""
SOUP_EPITHELIAL: Final = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)
"""Values of the soup's epithelial share beyond its profile's."""
START: Final = 3
"""Position of the value that the first round of learning assumes."""

AMBIENT_CONCENTRATION: Final = 8.0
"""Concentration of the Beta prior of an ordinary cell's ambient share."""
AMBIENT_RANGE: Final = (0.02, 0.3)
"""Its mean is the sample's, within this range (0.05 where that is not known)."""
MIXING: Final = (2.0, 2.0)
"""Beta prior of the tumour cell's share of a doublet's own RNA."""
COATED_RANGE: Final = (0.02, 0.9)
"""Range of the uniform prior of a coated cell's ambient share."""
N_ORDINARY: Final = 6
N_MIXING: Final = 60
N_COATED: Final = 40
"""Points at which each prior is summed; a mixing share is known to about 0.02 at 4,000 counts."""

N_U: Final = 13
N_V: Final = 7
"""Grid lines; see :func:`_grid`."""
SUSPECT_MIX: Final = (0.3, 0.5, 0.7, 0.95)
SUSPECT_SOUP: Final = (0.0, 0.1, 0.25, 0.45)
"""Epithelial shares of a suspect's own RNA, and shares of soup in any cell, in the search among the other cells."""
SUSPECT_ODDS: Final = -3
"""Log odds from which such a cell becomes a candidate: the full likelihood decides, the search must only not miss."""
MIN_TEACHERS: Final = 3.0
"""Candidates with epithelial cells in them (sum of probabilities) that the search needs: it is as good as they are."""

QUICK: Final = np.array([[0.05, 0.92, 0.03], [0.4, 0.57, 0.03], [0.7, 0.27, 0.03], [0.05, 0.5, 0.45]])
"""Mixtures (epithelial, resident, soup) by which the resident types to be looked at closely are chosen."""


@dataclass(frozen=True)
class _Grid:
    """Mixtures at which likelihoods are computed, and the way from them to the points of each hypothesis.

    ``mix``: grid x (epithelial, resident, soup). Per hypothesis (single, doublet, coated, ordinary resident):
    ``points``: values of the soup's epithelial share x points x grid, the interpolation, and ``at``: the same points as
    (epithelial, resident, soup). The points of a hypothesis all have the same prior weight.
    """

    mix: Floats
    points: tuple[Floats, ...]
    at: tuple[Floats, ...]


@cache
def _grid(ambient_mean: float) -> _Grid:
    """Grid in u = e / (e + r) and v = s, spaced evenly in asin(sqrt()), where a likelihood is equally wide anywhere."""
    knots_u = np.linspace(0.0, np.pi / 2, N_U)
    knots_v = np.linspace(0.0, np.arcsin(np.sqrt(COATED_RANGE[1])), N_V)
    u, v = (part.ravel() for part in np.meshgrid(np.sin(knots_u) ** 2, np.sin(knots_v) ** 2, indexing="ij"))
    spline_u = make_interp_spline(knots_u, np.eye(N_U), k=3)
    spline_v = make_interp_spline(knots_v, np.eye(N_V), k=3)

    concentration = AMBIENT_CONCENTRATION
    middle = (np.arange(N_ORDINARY) + 0.5) / N_ORDINARY
    ordinary = stats.beta.ppf(middle, concentration * ambient_mean, concentration * (1 - ambient_mean))
    share = stats.beta.ppf((np.arange(N_MIXING) + 0.5) / N_MIXING, *MIXING)
    low, high = COATED_RANGE
    wide = low + (high - low) * (np.arange(N_COATED) + 0.5) / N_COATED
    both = [part.ravel() for part in np.meshgrid(share, ordinary, indexing="ij")]
    hypotheses = ((np.ones(N_ORDINARY), ordinary), both, (np.zeros(N_COATED), wide), (np.zeros(N_ORDINARY), ordinary))
    points, at = [], []
    for own, ambient in hypotheses:
        weights, mixtures = [], []
        for extra in SOUP_EPITHELIAL:
            at_v = np.minimum(ambient * (1 - extra), high)
            at_u = np.clip((own * (1 - ambient) + ambient * extra) / (1 - at_v), 0.0, 1.0)
            along_u, along_v = spline_u(np.arcsin(np.sqrt(at_u))), spline_v(np.arcsin(np.sqrt(at_v)))
            weights.append(np.einsum("pi,pj->pij", along_u, along_v).reshape(len(at_u), -1))
            mixtures.append(np.column_stack([at_u * (1 - at_v), (1 - at_u) * (1 - at_v), at_v]))
        points.append(np.array(weights))
        at.append(np.array(mixtures))
    return _Grid(np.column_stack([u * (1 - v), (1 - u) * (1 - v), v]), tuple(points), tuple(at))


@dataclass(frozen=True)
class SampleModel:
    """What is known of a sample before its candidates are looked at.

    ``residents``: types x genes; ``log_type``: log share of each type; ``soup``, ``generic`` (epithelial profile
    before any cell was seen), ``dispersion``: per gene; ``ambient_mean``: of the prior of ordinary ambient shares.
    """

    residents: Floats
    log_type: Floats
    soup: Floats
    generic: Floats
    dispersion: Floats
    ambient_mean: float

    @classmethod
    def build(
        cls, profiles: Profiles, soup: Floats, *, marker: npt.NDArray[np.bool_], symbols: pd.Index, mean: float
    ) -> SampleModel:
        """Take the resident profiles, the soup and the epithelial panel (``marker``, a mask over ``symbols``)."""
        # what all types have in common: the geometric mean is low where one of them lacks a gene
        generic = np.exp(np.log(profiles.shares + FLOOR).mean(axis=0))
        keratin = np.asarray(symbols.isin(ABUNDANT_KERATINS)) & marker
        generic = np.where(marker, np.maximum(generic, MARKER_SHARE), generic)
        generic = np.where(keratin, np.maximum(generic, KERATIN_SHARE), generic)
        n_cells = np.maximum(profiles.n_cells, 1)
        return cls(
            profiles.shares + FLOOR,
            np.log(n_cells / n_cells.sum()),
            soup + FLOOR,
            generic / generic.sum(),
            profiles.dispersion,
            float(np.clip(mean if np.isfinite(mean) else 0.05, *AMBIENT_RANGE)),
        )


@dataclass(frozen=True)
class _Epithelial:
    """Learned profile: counts and exposure (in counts) that the first candidates owe to it, in all and each."""

    counts: Floats
    exposure: float
    own_counts: Floats
    own_exposure: Floats

    def without(self, cell: int, generic: Floats) -> tuple[Floats, Floats]:
        """Profile without one cell (a cell beyond the learning ones: with all), and its squared relative error."""
        counts, exposure = self.counts, self.exposure
        if cell < len(self.own_exposure):
            counts, exposure = counts - self.own_counts[cell], exposure - self.own_exposure[cell]
        shape = PRIOR_SHAPE + np.maximum(counts, 0.0)
        profile = shape / (PRIOR_SHAPE / generic + max(exposure, 0.0))
        return profile / profile.sum(), 1.0 / shape

    def with_all(self, generic: Floats) -> tuple[Floats, Floats]:
        """Profile from all learning cells, and its squared relative error."""
        return self.without(len(self.own_exposure), generic)


@dataclass(frozen=True)
class Explained:
    """Per candidate (``rows``) the ``probability`` (single, doublet, coated) and the resident type of the best doublet.

    ``prior``: shares of single, doublet, coated and ordinary resident cells in the sample.
    """

    rows: npt.NDArray[np.intp]
    probability: Floats
    partner: npt.NDArray[np.intp]
    prior: Floats
    soup_epithelial: float
    misfit: float


def explain(
    counts: sp.csr_matrix,
    totals: Floats,
    rows: npt.NDArray[np.intp],
    model: SampleModel,
    *,
    checks: npt.NDArray[np.intp],
    check_types: npt.NDArray[np.int64],
    others: npt.NDArray[np.intp],
    n_others: int,
) -> Explained:
    """Learn the epithelial profile from the first candidates, look for more of its kind, then explain all of them.

    Parameters
    ----------
    counts, totals
        Raw counts, cells x genes, and their sum per cell.
    rows
        Candidates, the strongest first.
    model
        Of the sample.
    checks, check_types
        Residents in which the model's scatter is checked, and the position of their type.
    others
        Other cells among which cells like the learned profile are looked for; those found become candidates.
    n_others
        Cells of the sample that are no candidates.
    """
    n_genes = counts.shape[1]
    first = rows[:MAX_LEARNING]
    learning, depth = sp.csr_matrix(counts[first]), totals[first]
    learned = _Epithelial(np.zeros(n_genes), 0.0, np.zeros((0, n_genes)), np.zeros(0))
    misfit, genes = 1.0, _choose_genes(model, model.generic, float(np.median(depth)))
    for _ in range(ROUNDS - 1):
        table = _tabulate(learning, depth, model, learned, genes, misfit=misfit, offset=0)
        answer = _posterior(table.likelihood, n_others=n_others + len(rows) - len(first))
        teachers = float(answer.probability[:, :2].sum())
        learned = _learn(learning, depth, model, learned, table, answer)
        profile, _ = learned.with_all(model.generic)
        genes = _choose_genes(model, profile, float(np.median(depth)))
        misfit = _misfit(counts, totals, model, profile, genes, checks=checks, check_types=check_types)
    if teachers >= MIN_TEACHERS:
        prior = float(np.log(answer.prior[:2].sum()))
        found = _suspects(counts, totals, others, model, profile[genes], genes, misfit=misfit, prior=prior)
        rows, n_others = np.concatenate([rows, found]), n_others - len(found)
    parts = [
        _tabulate(
            sp.csr_matrix(counts[rows[start : start + CHUNK]]),
            totals[rows[start : start + CHUNK]],
            model,
            learned,
            genes,
            misfit=misfit,
            offset=start,
        )
        for start in range(0, len(rows), CHUNK)
    ]
    answer = _posterior(np.concatenate([part.likelihood for part in parts]), n_others=n_others)
    partner = np.concatenate([part.partner for part in parts])[:, int(answer.soup.argmax())]
    extra = float(answer.soup @ np.array(SOUP_EPITHELIAL))
    four = answer.probability
    three = np.column_stack([four[:, :2], four[:, 2:].sum(axis=1)])
    return Explained(rows, three, partner, answer.prior, extra, misfit)


def _suspects(
    counts: sp.csr_matrix,
    totals: Floats,
    rows: npt.NDArray[np.intp],
    model: SampleModel,
    epithelial: Floats,
    genes: npt.NDArray[np.intp],
    *,
    misfit: float,
    prior: float,
) -> npt.NDArray[np.intp]:
    """Those of ``rows`` that an epithelial share explains better than any resident type with any share of soup.

    Poisson terms weighted by overdispersion, as fixed profiles make that one product for all cells.
    """
    residents, soup = model.residents[:, genes], model.soup[genes]
    without = np.array([(1 - v) * r + v * soup for r in residents for v in SUSPECT_SOUP])
    mixed = np.array([u * epithelial + (1 - u) * r for r in residents for u in SUSPECT_MIX])
    prior_without = np.repeat(model.log_type, len(SUSPECT_SOUP)) - np.log(len(SUSPECT_SOUP))
    prior_mixed = np.repeat(model.log_type, len(SUSPECT_MIX)) - np.log(len(SUSPECT_MIX)) + prior
    middle = (epithelial + np.exp(model.log_type) @ residents) / 2
    found: list[npt.NDArray[np.intp]] = []
    for chunk in np.split(rows, np.arange(CHUNK, len(rows), CHUNK)):
        x = sp.csr_matrix(counts[chunk][:, genes])
        octave = np.floor(np.log2(np.maximum(totals[chunk], 1.0)))
        for level in np.unique(octave):
            inside = np.flatnonzero(octave == level)
            weight = 1 / (1 + model.dispersion[genes] * 2.0 ** (level + 0.5) * middle)
            part, depth = x[inside], totals[chunk[inside], None]
            no = (part @ (weight * np.log(without)).T - depth * (without @ weight)) / misfit + prior_without
            yes = (part @ (weight * np.log(mixed)).T - depth * (mixed @ weight)) / misfit + prior_mixed
            found.append(chunk[inside[logsumexp(yes, axis=1) - logsumexp(no, axis=1) > SUSPECT_ODDS]])
    return np.sort(np.concatenate(found)) if found else rows[:0]


def _choose_genes(model: SampleModel, epithelial: Floats, depth: float) -> npt.NDArray[np.intp]:
    """Genes whose expected counts differ most between the profiles, in units of their scatter."""
    best = np.zeros(epithelial.size)
    for one, others in ((epithelial, [*model.residents, model.soup]), (model.soup, model.residents)):
        for other in others:
            scatter = 1 + model.dispersion * depth * (one + other) / 2
            best = np.maximum(best, (np.sqrt(one) - np.sqrt(other)) ** 2 / scatter)
    return np.sort(np.argsort(-np.round(best / best.max(), 9), kind="stable")[:MAX_GENES])


@dataclass(frozen=True)
class _Table:
    """``likelihood``: cells x (single, doublet, coated, resident) x values of the soup's epithelial share, logs.

    ``partner``: cells x these values, position of the best doublet's resident type; ``mixture``: cells x (single,
    doublet) x values x (epithelial, resident, soup), posterior means.
    """

    likelihood: Floats
    partner: npt.NDArray[np.intp]
    mixture: Floats


def _tabulate(
    counts: sp.csr_matrix,
    totals: Floats,
    model: SampleModel,
    learned: _Epithelial,
    genes: npt.NDArray[np.intp],
    *,
    misfit: float,
    offset: int,
) -> _Table:
    """Marginal likelihoods of all hypotheses for every cell; ``offset`` is the position of the first candidate."""
    grid = _grid(model.ambient_mean)
    residents, soup, phi = model.residents[:, genes], model.soup[genes], model.dispersion[genes]
    mean_resident = np.exp(model.log_type) @ residents
    n, n_soup = counts.shape[0], len(SOUP_EPITHELIAL)
    likelihood = np.zeros((n, 4, n_soup))
    partner = np.zeros((n, n_soup), dtype=np.intp)
    mixture = np.zeros((n, 2, n_soup, 3))
    dense = counts[:, genes].toarray().astype(np.float32)
    profile, error = learned.with_all(model.generic)
    for cell in range(n):
        if offset + cell < len(learned.own_exposure):
            profile, error = learned.without(offset + cell, model.generic)
        elif offset + cell == len(learned.own_exposure):
            profile, error = learned.with_all(model.generic)
        own = profile[genes]
        # what is not known of the profile scatters as well, as far as the gene's counts come from it
        scatter = (phi + (own / (own + mean_resident)) ** 2 * error[genes]).astype(np.float32)
        rates = [(totals[cell] * np.vstack([own, resident, soup])).astype(np.float32) for resident in residents]
        rough = [_log_likelihood(dense[cell], QUICK, rate, scatter).max() for rate in rates] + model.log_type
        close = np.argsort(-rough, kind="stable")[:MAX_TYPES]
        tables = np.array([_log_likelihood(dense[cell], grid.mix, rates[t], scatter) for t in close]) / misfit
        top = tables.max()
        for k in range(4):
            # types x values of the soup's share x points; a single tumour cell has no resident type
            values = np.tensordot(tables[: 1 if k == 0 else None] - top, grid.points[k], axes=(1, 2))
            if k > 0:
                values += model.log_type[close][:, None, None]
            highest = values.max(axis=(0, 2), keepdims=True)
            weight = np.exp(values - highest)
            total = weight.sum(axis=(0, 2))
            likelihood[cell, k] = np.log(total / values.shape[2]) + highest.ravel()
            if k < 2:
                mixture[cell, k] = np.einsum("sp,spm->sm", weight.sum(axis=0), grid.at[k]) / total[:, None]
            if k == 1:
                partner[cell] = close[values.max(axis=2).argmax(axis=0)]
    return _Table(likelihood, partner, mixture)


def _log_likelihood(x: Singles, mix: Floats, rates: Singles, scatter: Singles) -> Floats:
    """Gamma-Poisson log likelihood at every row of ``mix``, without the terms that depend on ``x`` alone."""
    mean = mix.astype(np.float32) @ rates
    np.maximum(mean, np.float32(1e-6), out=mean)
    seen = x > 0
    found = np.log(mean[:, seen]) @ x[seen]
    mean *= scatter
    mean += 1
    np.log(mean, out=mean)
    return np.asarray(found - mean @ (x + 1 / scatter), dtype=np.float64)


@dataclass(frozen=True)
class _Answer:
    """``probability`` and ``prior`` of the four classes; ``soup``: weight of each value of its epithelial share."""

    probability: Floats
    prior: Floats
    soup: Floats


def _posterior(likelihood: Floats, *, n_others: int) -> _Answer:
    """Class probabilities of every cell, the classes' shares in the sample, and the soup's epithelial share.

    The candidates were picked from all cells because of their epithelial transcripts: among many resident cells some
    show a few by chance. The other cells of the sample therefore count as ordinary residents in the prior.
    """
    n, n_classes, n_soup = likelihood.shape
    evidence, prior = np.zeros(n_soup), np.zeros((n_soup, n_classes))
    each = np.zeros((n_soup, n, n_classes))
    others = np.zeros(n_classes)
    others[-1] = n_others
    for s in range(n_soup):
        share = (1.0 + others) / (n_classes + n_others)
        for _ in range(100):
            weighted = likelihood[:, :, s] + np.log(share)
            highest = weighted.max(axis=1, keepdims=True)
            each[s] = np.exp(weighted - highest)
            total = each[s].sum(axis=1, keepdims=True)
            each[s] /= total
            evidence[s] = float((highest + np.log(total)).sum())
            before, share = share, (each[s].sum(axis=0) + 1.0 + others) / (n + n_classes + n_others)
            if np.abs(share / before - 1).max() < 1e-3:
                break
        prior[s] = share
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    return _Answer(np.einsum("s,snk->nk", weight, each), weight @ prior, weight)


def _learn(
    counts: sp.csr_matrix, totals: Floats, model: SampleModel, learned: _Epithelial, table: _Table, answer: _Answer
) -> _Epithelial:
    """Counts that the candidates owe to the epithelial profile, and the depth they were seen at."""
    n, best = counts.shape[0], int(answer.soup.argmax())
    profile, _ = learned.with_all(model.generic)
    own, exposure = np.zeros(counts.shape), np.zeros(n)
    for cell in range(n):
        start, stop = counts.indptr[cell], counts.indptr[cell + 1]
        genes, x = counts.indices[start:stop], counts.data[start:stop].astype(np.float64)
        resident = model.residents[table.partner[cell, best], genes]
        for k in range(2):
            weight = answer.probability[cell, k]
            e, r, s = table.mixture[cell, k, best]
            mine = e * profile[genes]
            own[cell, genes] += weight * x * mine / (mine + r * resident + s * model.soup[genes])
            exposure[cell] += weight * e * totals[cell]
    return _Epithelial(own.sum(axis=0), float(exposure.sum()), own, exposure)


def _misfit(
    counts: sp.csr_matrix,
    totals: Floats,
    model: SampleModel,
    epithelial: Floats,
    genes: npt.NDArray[np.intp],
    *,
    checks: npt.NDArray[np.intp],
    check_types: npt.NDArray[np.int64],
) -> float:
    """How much further residents scatter towards the epithelial profile than the model says, at least 1.

    Genes do not vary independently: a cell's state moves many at once. The score of an epithelial share of 0, in units
    of its standard deviation under the model, has mean square one where the model is right. What it has (without the
    largest twentieth: residents that are doublets) is the factor by which log likelihoods are too large.
    """
    x = counts[checks][:, genes].toarray().astype(np.float64)
    mean = totals[checks, None] * model.residents[check_types][:, genes]
    variance = mean * (1 + model.dispersion[genes] * mean)
    direction = totals[checks, None] * epithelial[genes] - mean
    score = ((x - mean) * direction / variance).sum(axis=1) / np.sqrt((direction**2 / variance).sum(axis=1))
    kept = np.sort(score**2)[: int(np.ceil(0.95 * score.size))]
    return max(1.0, float(kept.mean()))
