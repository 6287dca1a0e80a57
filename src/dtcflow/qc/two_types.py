"""Is a cell a mixture of two of the sample's own cell types? A likelihood test that finds heterotypic doublets.

Scrublet ranks planted doublets well, but its automatic threshold leaves half of them unflagged, and it knows no depth.
Here each cell is compared with one profile (of any type, with any share of soup) and with two in any ratio that their
depths make likely. Two likelihoods are added:

* all genes that tell the types apart (Poisson terms, each gene weighted by its overdispersion), divided by how much
  further residents scatter between types than the model says;
* the summed counts of each type's exclusive genes (gamma-Poisson, dispersion measured on the sums). Few genes, but a
  cell's state hardly moves them, so that they stay sharp where the first loses its edge.

The share of doublets is estimated with them (expectation-maximisation) and bounded: where a state lies between two
types, many cells look like their mixture, and no more cells are flagged than a droplet run can hold doublets.

Limits: two cells of one type cannot be told from one; a type without a profile of its own looks like what it resembles,
so that cells of such a type are not tested; two closely related types share a cell's counts in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.special import expit, gammaln, logsumexp

from dtcflow.qc.metrics import counts_per_cell
from dtcflow.qc.profiles import FLOOR, Profiles

Floats = npt.NDArray[np.float64]

MIN_TYPES: Final = 2
MAX_GENES: Final = 3000
"""Genes that tell the types apart best."""
EXCLUSIVE: Final = 6.0
"""A gene is exclusive to a type when its share there is this many times that in every other type."""
MIN_EXCLUSIVE: Final = 1.0
"""Exclusive counts that a median cell must be expected to show of its own type for these genes to be used."""
SOUP_SHARES: Final = (0.0, 0.1, 0.25, 0.45)
"""Shares of soup a single cell may hold; half of a doublet must not be explained as soup."""
DOUBLET_SOUP: Final = (0.0, 0.1)
MIXING: Final = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Log odds of the mixing share around the one that the depths of both types make likely."""
MIXING_RANGE: Final = (0.15, 0.85)
MAX_DEPTH_RATIO: Final = 3.0
MAX_CHECKS: Final = 60
TRIM: Final = 0.9
"""Share of the residents of a type, the least extreme, by which the misfit is judged: some are doublets."""
EXCLUSIVE_TRIM: Final = 0.95
DISPERSION: Final = (0.05, 0.3, 2.0)
"""Smallest, usual and largest dispersion of a sum of exclusive genes."""
MAX_RATE: Final = (0.05, 3.0)
"""At most 5 % of the cells are flagged, or 3 x the expected rate."""
FLAG_P: Final = 0.5
CHUNK: Final = 4096


@dataclass(frozen=True)
class TwoTypes:
    """Result for one sample: ``probability`` per cell (NaN where not tested), ``flagged``, ``status``, ``rate``.

    ``misfit``: factor by which the first log likelihood was divided.
    """

    probability: Floats
    flagged: npt.NDArray[np.bool_]
    status: str
    rate: float = np.nan
    misfit: float = np.nan

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the JSON summary."""
        return {
            "status": self.status,
            "rate": self.rate,
            "misfit": self.misfit,
            "n_tested": int(np.isfinite(self.probability).sum()),
            "n_flagged": int(self.flagged.sum()),
        }


def not_tested(n: int, why: str) -> TwoTypes:
    """Result of a sample in which the test cannot be made."""
    return TwoTypes(np.full(n, np.nan), np.zeros(n, dtype=bool), f"not_run: {why}")


def find_two_types(
    counts: sp.csr_matrix, profiles: Profiles, tested: npt.NDArray[np.bool_], *, expected_rate: float
) -> TwoTypes:
    """Probability that each cell holds two cells of different resident types.

    Parameters
    ----------
    counts
        Raw counts, cells x genes.
    profiles
        Resident profiles of the same cells.
    tested
        Cells to be tested (a cell without counts never is).
    expected_rate
        Expected share of doublets in the sample, 0-1; the start of the estimation and part of its bound.

    Returns
    -------
    :class:`TwoTypes`; the result of a cell does not depend on the order of cells or genes.
    """
    n = counts.shape[0]
    totals = counts_per_cell(counts)
    rows = np.flatnonzero(tested & (totals > 0))
    if len(profiles.types) < MIN_TYPES:
        return not_tested(n, f"{len(profiles.types)} cell types with a profile, {MIN_TYPES} are needed")
    if not rows.size:
        return not_tested(n, "no cell to test")
    whole = AllGenes.build(counts, totals, profiles)
    exclusive = ExclusiveGenes.build(counts, totals, profiles)
    odds = np.concatenate(
        [
            whole.log_odds(part := sp.csr_matrix(counts[chunk]), totals[chunk])
            + exclusive.log_odds(part, totals[chunk])
            for chunk in np.split(rows, np.arange(CHUNK, rows.size, CHUNK))
        ]
    )
    most = max(MAX_RATE[0], MAX_RATE[1] * expected_rate)
    p, rate = with_rate(odds, start=float(np.clip(expected_rate, 0.01, most)), most=most)
    probability = np.full(n, np.nan)
    probability[rows] = p
    flagged = np.zeros(n, dtype=bool)
    # ties at the bound stay unflagged, so that the order of cells does not decide
    bound = np.sort(odds)[::-1][min(int(most * rows.size), rows.size - 1)]
    flagged[rows] = (p >= FLAG_P) & (odds > bound)
    return TwoTypes(probability, flagged, "run", rate, whole.misfit)


def with_rate(odds: Floats, *, start: float, most: float) -> tuple[Floats, float]:
    """Probabilities and the share of doublets that fit each other; the expected share counts as much as 10 cells."""
    rate = start
    for _ in range(200):
        p = expit(odds + np.log(rate / (1 - rate)))
        before, rate = rate, float(np.clip((p.sum() + 10 * start) / (p.size + 10), 1e-3, most))
        if abs(rate - before) < 1e-6:
            break
    return np.asarray(expit(odds + np.log(rate / (1 - rate)))), rate


@dataclass(frozen=True)
class _Mixtures:
    """All mixtures of one profile with the soup, and of two: over types, the weights of each."""

    single: Floats
    single_prior: Floats
    double: Floats
    double_prior: Floats

    @classmethod
    def of(cls, profiles: Profiles, allowed: npt.NDArray[np.bool_]) -> _Mixtures:
        """Mixtures as rows of weights (types, then soup); pairs only of ``allowed`` types. Priors are logs."""
        k = len(profiles.types)
        share = np.maximum(profiles.n_cells, 1) / np.maximum(profiles.n_cells, 1).sum()
        single = [np.append((1 - v) * np.eye(k)[i], v) for i in range(k) for v in SOUP_SHARES]
        double, prior = [], []
        limit = np.log(MAX_DEPTH_RATIO)
        for i, j in combinations(np.flatnonzero(allowed), 2):
            ratio = np.clip(np.log(max(profiles.depth[i], 1.0) / max(profiles.depth[j], 1.0)), -limit, limit)
            for step in MIXING:
                u = float(np.clip(expit(ratio + step), *MIXING_RANGE))
                for v in DOUBLET_SOUP:
                    double.append(np.append((1 - v) * (u * np.eye(k)[i] + (1 - u) * np.eye(k)[j]), v))
                    prior.append(np.log(2 * share[i] * share[j] / (len(MIXING) * len(DOUBLET_SOUP))))
        single_prior = np.repeat(np.log(share / len(SOUP_SHARES)), len(SOUP_SHARES))
        return cls(np.array(single), single_prior, np.array(double).reshape(-1, k + 1), np.array(prior))


@dataclass(frozen=True)
class AllGenes:
    """Test by all genes that tell the types apart."""

    genes: npt.NDArray[np.intp]
    shares: Floats
    dispersion: Floats
    mixtures: _Mixtures
    misfit: float

    @classmethod
    def build(cls, counts: sp.csr_matrix, totals: Floats, profiles: Profiles) -> AllGenes:
        """Choose the genes and measure how much further residents scatter between types than the model says."""
        shares = profiles.shares + FLOOR
        depth = float(np.median(totals[totals > 0]))
        best = np.zeros(shares.shape[1])
        for one, other in combinations(shares, 2):
            scatter = 1 + profiles.dispersion * depth * (one + other) / 2
            best = np.maximum(best, (np.sqrt(one) - np.sqrt(other)) ** 2 / scatter)
        genes = np.sort(np.argsort(-np.round(best / best.max(), 9), kind="stable")[:MAX_GENES])
        phi, own = profiles.dispersion[genes], shares[:, genes]
        squares: list[float] = []
        for number in range(len(profiles.types)):
            rows = np.flatnonzero(profiles.label == number)
            # spread over the type by depth and total, both free of the order of cells
            rows = rows[np.argsort(totals[rows], kind="stable")]
            rows = rows[np.unique(np.linspace(0, rows.size - 1, MAX_CHECKS).astype(np.int64))] if rows.size else rows
            if not rows.size:
                continue
            x = counts[rows][:, genes].toarray().astype(np.float64)
            mean = totals[rows, None] * own[number]
            variance = mean * (1 + phi * mean)
            found = []
            for other in range(len(profiles.types)):
                if other != number:
                    direction = totals[rows, None] * own[other] - mean
                    score = ((x - mean) * direction / variance).sum(axis=1)
                    square = np.sort(score**2 / (direction**2 / variance).sum(axis=1))
                    found.append(max(1.0, float(square[: int(np.ceil(TRIM * square.size))].mean())))
            squares.append(float(np.mean(found)) * profiles.n_cells[number])
        misfit = max(1.0, sum(squares) / max(int(profiles.n_cells.sum()), 1))
        all_shares = np.vstack([own, profiles.pooled[genes] + FLOOR])
        return cls(genes, all_shares, phi, _Mixtures.of(profiles, np.ones(len(profiles.types), dtype=bool)), misfit)

    def log_odds(self, counts: sp.csr_matrix, totals: Floats) -> Floats:
        """Log of the likelihood ratio of two types over one, per cell."""
        x = sp.csr_matrix(counts[:, self.genes])
        single, double = self.mixtures.single @ self.shares, self.mixtures.double @ self.shares
        found = np.zeros(len(totals))
        # a gene's weight depends on the depth of the cell; cells within a factor of two share it
        octave = np.floor(np.log2(np.maximum(totals, 1.0)))
        for level in np.unique(octave):
            rows = np.flatnonzero(octave == level)
            weight = 1 / (1 + self.dispersion * 2.0 ** (level + 0.5) * self.shares[:-1].mean(axis=0))
            part, depth = x[rows], totals[rows, None]
            one = part @ (weight * np.log(single)).T - depth * (single @ weight)
            two = part @ (weight * np.log(double)).T - depth * (double @ weight)
            top = one.max(axis=1, keepdims=True)
            found[rows] = logsumexp((two - top) / self.misfit + self.mixtures.double_prior, axis=1)
            found[rows] -= logsumexp((one - top) / self.misfit + self.mixtures.single_prior, axis=1)
        return found


@dataclass(frozen=True)
class ExclusiveGenes:
    """Test by the summed counts of each type's exclusive genes; ``sets``: genes x usable sets."""

    sets: sp.csr_matrix
    shares: Floats
    dispersion: Floats
    mixtures: _Mixtures

    @classmethod
    def build(cls, counts: sp.csr_matrix, totals: Floats, profiles: Profiles) -> ExclusiveGenes:
        """Find each type's exclusive genes, and the rate and scatter of their sums in cells of every type."""
        shares = profiles.shares
        k = len(profiles.types)
        member = np.array(
            [shares[i] >= EXCLUSIVE * (np.delete(shares, i, axis=0).max(axis=0) + 1e-6) for i in range(k)]
        ).T.astype(np.float64)
        expected = shares @ member
        usable = np.diag(expected) * float(np.median(totals[totals > 0])) >= MIN_EXCLUSIVE
        dispersion = np.full((k, k), DISPERSION[1])
        for number in range(k):
            rows = np.flatnonzero(profiles.label == number)
            if not rows.size:
                continue
            seen, depth = np.asarray(counts[rows] @ member), totals[rows]
            for i in range(k):
                # a few cells with much of another type's genes are the doublets that are looked for
                kept = np.argsort(seen[:, i] / depth, kind="stable")
                kept = kept[: int(np.ceil((1.0 if i == number else EXCLUSIVE_TRIM) * kept.size))]
                x, n = seen[kept, i], depth[kept]
                if i != number:
                    half = 0.5 / max(float(expected[number, i]), 1e-6)
                    expected[number, i] = (x.sum() + 0.5) / (n.sum() + half)
                mean = n * expected[number, i]
                excess = ((x - mean) ** 2).sum() - mean.sum() + 3 * DISPERSION[1]
                dispersion[number, i] = np.clip(excess / ((mean**2).sum() + 3), DISPERSION[0], DISPERSION[2])
        soup = profiles.pooled @ member
        all_shares = np.maximum(np.vstack([expected, soup])[:, usable], 1e-6)
        # the soup of many cells is the same in all droplets
        spread = np.vstack([dispersion, np.full(k, DISPERSION[0])])[:, usable]
        return cls(sp.csr_matrix(member[:, usable]), all_shares, spread, _Mixtures.of(profiles, usable))

    def log_odds(self, counts: sp.csr_matrix, totals: Floats) -> Floats:
        """Log of the likelihood ratio of two types over one, per cell; 0 where no two types have exclusive genes."""
        if not len(self.mixtures.double):
            return np.zeros(len(totals))
        x = np.asarray((counts @ self.sets).toarray(), dtype=np.float64)
        one = self._log_likelihood(x, totals, self.mixtures.single) + self.mixtures.single_prior
        two = self._log_likelihood(x, totals, self.mixtures.double) + self.mixtures.double_prior
        return np.asarray(logsumexp(two, axis=1) - logsumexp(one, axis=1), dtype=np.float64)

    def _log_likelihood(self, x: Floats, totals: Floats, mixtures: Floats) -> Floats:
        """Gamma-Poisson log likelihood, cells x mixtures, without the terms that depend on ``x`` alone."""
        found = np.zeros((len(totals), len(mixtures)))
        for number, mixture in enumerate(mixtures):
            parts = mixture[:, None] * self.shares
            share = parts.sum(axis=0)
            size = 1 / ((parts / share) ** 2 * self.dispersion).sum(axis=0)
            mean = totals[:, None] * share
            term = gammaln(x + size) - gammaln(size) + x * np.log(mean / (mean + size)) - size * np.log1p(mean / size)
            found[:, number] = term.sum(axis=1)
        return found
