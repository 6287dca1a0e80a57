"""What the empty droplets of an unfiltered matrix hold, and whether a droplet holds anything else.

The test follows EmptyDrops (Lun 2019, PMID 30902100); the computation is our own. The soup's profile is the pool of
all droplets with at most :data:`LOWER` counts; genes that only larger droplets show get the probability mass that
Good's coverage estimate leaves for what was not seen (Good 1953, doi:10.1093/biomet/40.3-4.237). A droplet with n
counts is compared with simulated droplets of n counts, drawn from a Dirichlet-multinomial with this profile; its
concentration is the maximum-likelihood estimate from the droplets the soup was learnt from. P values are Monte Carlo.

Two statistics are compared, and twice the smaller p value is taken:

* the probability of the droplet's counts (EmptyDrops). It is small for a cell whose transcripts are rare in the soup.
  A cell that is rich in what the soup is rich in, such as a T cell with its ribosomal genes, can look *more* probable
  than the soup itself, however many counts it has;
* the distance from the soup, sum over genes of (count - expected)^2 / (share + :data:`SOFTENING`), which sees a
  departure in either direction.

Nothing depends on the order of the droplets, and memory beyond the matrix is a fixed number of rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy import optimize, special

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LOWER: Final = 100
"""Droplets with at most this many counts are empty (Lun 2019)."""
MIN_EMPTY: Final = 100
"""Empty droplets needed to learn the soup."""
MIN_EMPTY_COUNTS: Final = 1_000
ITERATIONS: Final = 10_000
SOFTENING: Final = 0.01
"""Added to a gene's share in the weight of its squared deviation, so that the many rare genes do not drown the rest.
Chosen among 3e-4 to 0.1 on a simulated sample (seed 11); 0.1 would leave the abundant genes alone."""

_BLOCK: Final = 20_000
_ELEMENTS: Final = 2_000_000
"""Simulated transcripts in memory at a time."""
_MAX_ALPHA: Final = 1e7


@dataclass(frozen=True)
class Soup:
    """What the empty droplets hold: ``counts`` per gene, summed over ``n_droplets`` droplets."""

    counts: Floats
    n_droplets: int

    def enough(self) -> bool:
        """Whether a profile can be learnt from it."""
        return self.n_droplets >= MIN_EMPTY and float(self.counts.sum()) >= MIN_EMPTY_COUNTS


def droplet_totals(counts: sp.csr_matrix) -> Floats:
    """Counts per droplet in double precision, a block of rows at a time."""
    totals = np.zeros(counts.shape[0])
    for start in range(0, counts.shape[0], _BLOCK):
        stop = min(start + _BLOCK, counts.shape[0])
        ends = counts.indptr[start : stop + 1].astype(np.int64)
        summed = np.concatenate([[0.0], np.cumsum(counts.data[ends[0] : ends[-1]], dtype=np.float64)])
        totals[start:stop] = summed[ends[1:] - ends[0]] - summed[ends[:-1] - ends[0]]
    return totals


def soup_counts(counts: sp.csr_matrix, totals: Floats, *, exclude: Bools | None = None) -> Soup:
    """Pool the empty droplets: between one and :data:`LOWER` counts and not in ``exclude``."""
    empty = (totals > 0) & (totals <= LOWER)
    if exclude is not None:
        empty &= ~exclude
    pooled = np.zeros(counts.shape[1])
    for start in range(0, counts.shape[0], _BLOCK):
        block = counts[start : start + _BLOCK]
        inside = np.repeat(empty[start : start + _BLOCK], np.diff(block.indptr))
        pooled += np.bincount(block.indices[inside], weights=block.data[inside], minlength=counts.shape[1])
    return Soup(pooled, int(empty.sum()))


def soup_share(soup: Soup, measured: Bools) -> Floats:
    """Share of every gene in the soup, above zero for every gene in ``measured``; sums to one.

    The genes of ``measured`` that no empty droplet shows have together the share N1 / N (N counts, N1 genes seen once),
    which is what a sample of N is expected to have missed (Good 1953).
    """
    total = float(soup.counts.sum())
    seen = soup.counts > 0
    unseen = measured & ~seen
    share: Floats = soup.counts / total
    if unseen.any():
        # at least half a count: a profile without any gene seen once has still not seen everything
        missing = min(0.5, max(0.5, float((soup.counts == 1).sum())) / total)
        share = share * (1.0 - missing)
        share[unseen] = missing / unseen.sum()
    return share


def fit_concentration(counts: sp.csr_matrix, totals: Floats, share: Floats, *, exclude: Bools | None = None) -> float:
    """Dirichlet-multinomial concentration of the empty droplets around ``share``, by maximum likelihood.

    Returns
    -------
    The concentration; infinity (a plain multinomial) when droplets do not differ beyond counting noise.
    """
    empty = (totals > 0) & (totals <= LOWER)
    if exclude is not None:
        empty &= ~exclude
    n_genes = counts.shape[1]
    pairs = np.zeros(n_genes * (LOWER + 1), dtype=np.int64)
    for start in range(0, counts.shape[0], _BLOCK):
        block = counts[start : start + _BLOCK]
        inside = np.repeat(empty[start : start + _BLOCK], np.diff(block.indptr)) & (block.data > 0)
        keys = block.indices[inside].astype(np.int64) * (LOWER + 1) + block.data[inside].astype(np.int64)
        found, times = np.unique(keys, return_counts=True)
        pairs[found] += times
    keys = np.flatnonzero(pairs)
    times, gene, value = pairs[keys], keys // (LOWER + 1), keys % (LOWER + 1)
    sizes, n_sizes = np.unique(totals[empty], return_counts=True)

    def minus_log_likelihood(log_alpha: float) -> float:
        alpha = np.exp(log_alpha)
        a = alpha * share[gene]
        own = (times * (special.gammaln(a + value) - special.gammaln(a))).sum()
        return -float(own + (n_sizes * (special.gammaln(alpha) - special.gammaln(alpha + sizes))).sum())

    if not keys.size:
        return np.inf
    best = optimize.minimize_scalar(
        minus_log_likelihood, bounds=(0.0, np.log(_MAX_ALPHA)), method="bounded", options={"xatol": 1e-3}
    )
    alpha = float(np.exp(best.x))
    return np.inf if alpha > _MAX_ALPHA / 10 else alpha


@dataclass(frozen=True)
class SoupNull:
    """A droplet of soup: shares of the genes and how much droplets differ."""

    share: Floats
    concentration: float

    @property
    def weight(self) -> Floats:
        """Weight of each gene's squared deviation."""
        return 1.0 / (self.share + SOFTENING)

    def log_probability(self, p: Floats, before: Floats) -> Floats:
        """What one more transcript of a gene of share ``p``, seen ``before`` times, adds to the log probability."""
        gain = np.log(self.concentration * p + before) if np.isfinite(self.concentration) else np.log(p)
        return np.asarray(gain - np.log(before + 1.0), dtype=np.float64)


def observed_statistics(counts: sp.csr_matrix, rows: npt.NDArray[np.intp], null: SoupNull) -> Floats:
    """Both statistics of each droplet (2 x rows): log probability up to what its total sets, and minus the distance."""
    result = np.zeros((2, rows.size))
    alpha, weight = null.concentration, null.weight
    constant = float((weight * null.share**2).sum())
    for start in range(0, rows.size, _BLOCK):
        block = counts[rows[start : start + _BLOCK]]
        y, p, w = block.data.astype(np.float64), null.share[block.indices], weight[block.indices]
        if np.isfinite(alpha):
            terms = special.gammaln(alpha * p + y) - special.gammaln(alpha * p) - special.gammaln(y + 1)
        else:
            terms = y * np.log(p) - special.gammaln(y + 1)
        n = block.shape[0]
        owner = np.repeat(np.arange(n), np.diff(block.indptr))
        total = np.bincount(owner, weights=y, minlength=n)
        near = np.bincount(owner, weights=w * (y * y), minlength=n)
        cross = np.bincount(owner, weights=w * p * y, minlength=n)
        result[0, start : start + _BLOCK] = np.bincount(owner, weights=terms, minlength=n)
        result[1, start : start + _BLOCK] = -(near - 2 * total * cross + total**2 * constant)
    return result


def _simulate(n: int, size: int, null: SoupNull, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Both statistics of ``n`` droplets of soup after 1, 2, ... ``size`` transcripts (each n x size).

    Transcripts come from a Polya urn, whose counts are Dirichlet-multinomial at every size.
    """
    cumulative = np.cumsum(null.share)
    gene = np.searchsorted(cumulative, rng.random((n, size)) * cumulative[-1], side="right")
    # numpy sorts 16-bit numbers several times faster
    gene = gene.astype(np.uint16 if null.share.size <= 65_536 else np.int64)
    step = np.arange(size)
    if np.isfinite(null.concentration):
        copied = rng.random((n, size)) * (null.concentration + step) < step
        source = np.where(copied, np.floor(rng.random((n, size)) * step), step).astype(np.int64)
        while not np.array_equal(source, further := np.take_along_axis(source, source, axis=1)):
            source = further
        gene = np.take_along_axis(gene, source, axis=1)
    # how often the gene was drawn before in the same droplet: place within the run of equal genes
    order = np.argsort(gene, axis=1, kind="stable")
    ordered = np.take_along_axis(gene, order, axis=1)
    new = np.ones((n, size), dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    start = np.maximum.accumulate(np.where(new, step, 0), axis=1)
    before = np.empty((n, size))
    np.put_along_axis(before, order, (step - start).astype(np.float64), axis=1)
    weight, p = null.weight, null.share
    probability = np.cumsum(null.log_probability(p[gene], before), axis=1)
    near = np.cumsum(weight[gene] * (2.0 * before + 1.0), axis=1)
    cross = np.cumsum((weight * p)[gene], axis=1)
    total = step + 1.0
    return probability, -(near - 2 * total * cross + total**2 * float((weight * p**2).sum()))


def monte_carlo_p(
    totals: npt.NDArray[np.int64], observed: Floats, null: SoupNull, *, iterations: int = ITERATIONS, seed: int = 0
) -> Floats:
    """P value of each droplet: twice the smaller of its two, each ``(1 + simulations as extreme) / (1 + simulations)``.

    All droplets are compared with the same simulations, which are grown transcript by transcript. The result for a
    droplet does not depend on its place.
    """
    if not totals.size:
        return np.zeros(0)
    sizes = np.unique(totals)
    orders = [np.lexsort((statistic, totals)) for statistic in observed]
    sought = [
        statistic[order] + 1e-9 * np.abs(statistic[order]) for statistic, order in zip(observed, orders, strict=True)
    ]
    first = np.searchsorted(totals[orders[0]], sizes)
    ends = np.append(first[1:], totals.size)
    below = np.zeros(observed.shape, dtype=np.int64)
    per_block = max(1, min(iterations, _ELEMENTS // int(sizes[-1])))
    for number, start in enumerate(range(0, iterations, per_block)):
        rng = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(number,)))
        n = min(per_block, iterations - start)
        for which, simulated in enumerate(_simulate(n, int(sizes[-1]), null, rng)):
            for size, a, b in zip(sizes, first, ends, strict=True):
                sorted_null = np.sort(simulated[:, size - 1])
                below[which, a:b] += np.searchsorted(sorted_null, sought[which][a:b], side="right")
    p = np.empty(observed.shape)
    for which, order in enumerate(orders):
        p[which, order] = (1.0 + below[which]) / (1.0 + iterations)
    return np.asarray(np.minimum(1.0, 2.0 * p.min(axis=0)), dtype=np.float64)
