"""Random gene sets matched to a signature, gene by gene, on mean expression and detection rate."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from scipy.spatial import cKDTree

from dtcflow.contracts import TABLES
from dtcflow.scores.signatures import GeneSet, Synonyms, resolve

_LOG = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

OK: Final = "ok"
LOW_COVERAGE: Final = "LOW_COVERAGE"

MIN_COVERAGE: Final = 0.6
"""Smallest fraction of a set's genes that the matrix must have."""
MIN_GENES: Final = 10
"""Smallest number of detected genes, and smallest effective number of genes."""
MIN_DETECTION: Final = 0.02
"""A gene counts as detected when at least this fraction of the reference cells has it."""
RELAXED_MIN_GENES: Final = 3
"""Smallest number of usable genes of a marker panel (``relaxed=True``)."""
POOL_SIZE: Final = 100
"""Genes that may stand in for one gene of a set (fewer in small gene panels: a tenth of the genes, at least 10)."""

MIN_EFFECTIVE_POOL: Final = 15
"""Effective number of genes that a weighted pool keeps."""

_REDRAWS: Final = 200
_NEWTON_STEPS: Final = 20


@dataclass(frozen=True)
class MatchedSets:
    """Signatures and their random sets as one weight matrix.

    Parameters
    ----------
    names
        Scorable signatures, in the order of their blocks of columns.
    n_null
        Random sets per signature.
    genes
        Gene of each row of ``weights``.
    transposed
        CSR, ``len(names) * (n_null + 1)`` x genes, float32. Within a block the signature comes first, then its random
        sets.
    coverage
        Table ``signature_coverage`` for all sets asked for, scorable or not (``depth_correlation`` still empty), with
        the further column ``reason``.
    """

    names: tuple[str, ...]
    n_null: int
    genes: pd.Index[str]
    transposed: sp.csr_matrix[Any]
    coverage: pd.DataFrame

    @property
    def weights(self) -> sp.csc_matrix[Any]:
        """Genes x (signatures * (random sets + 1)), a view without a copy."""
        return self.transposed.T

    @property
    def width(self) -> int:
        """Columns per signature."""
        return self.n_null + 1

    def block(self, name: str) -> sp.csr_matrix[Any]:
        """Rows of ``transposed`` of one signature (itself, then its random sets)."""
        first = self.names.index(name) * self.width
        return self.transposed[first : first + self.width]


@dataclass(frozen=True)
class _Space:
    """Where genes lie, in the order of their names: neighbours are sought in ``plane``, balanced in ``levels``."""

    plane: Doubles
    levels: Doubles

    @classmethod
    def of(cls, statistics: pd.DataFrame, n_cells: int) -> _Space:
        """Log mean and logit detection, rounded so that the order of the cells cannot change a neighbour."""
        mean = statistics["mean"].to_numpy(np.float64)
        detection = statistics["detection"].to_numpy(np.float64)
        inner = np.clip(detection, 0.5 / n_cells, 1 - 0.5 / n_cells)
        plane = np.column_stack([np.log(mean), np.log(inner / (1 - inner))])
        return cls(np.round(plane, 6), np.round(np.column_stack([mean, detection]), 9))


def _tilt(difference: Doubles) -> Doubles:
    """Weights over a pool that make its expected expression and detection those of the gene it stands for.

    Neighbours are not spread evenly around a gene: more lie on the side of the weakly expressed, all do for the
    strongest genes, and over many genes even a small excess becomes a bias of several standard deviations. The weights
    are those of largest entropy under the two balance conditions (Hainmueller 2012, doi:10.1093/pan/mpr025), found by
    Newton's method; where balance would leave fewer than :data:`MIN_EFFECTIVE_POOL` genes, it is given up in part.

    Parameters
    ----------
    difference
        Genes x pool x 2: mean and detection of the pool's genes less those of the gene.

    Returns
    -------
    Genes x pool, rows sum to 1.
    """
    spread = np.sqrt((difference**2).mean(axis=1, keepdims=True))
    feature = difference / np.where(spread > 0, spread, 1.0)
    multiplier = np.zeros((len(feature), 2))

    def weights(scale: Doubles) -> Doubles:
        exponent = np.einsum("gpf,gf->gp", feature, multiplier) * scale[:, None]
        raw = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        return np.asarray(raw / raw.sum(axis=1, keepdims=True), dtype=np.float64)

    full = np.ones(len(feature))
    for _ in range(_NEWTON_STEPS):
        w = weights(full)
        gradient = np.einsum("gp,gpf->gf", w, feature)
        second = np.einsum("gp,gpf,gph->gfh", w, feature, feature) - gradient[:, :, None] * gradient[:, None, :]
        if np.abs(gradient).max(initial=0.0) < 1e-6:
            break
        step = np.linalg.solve(second + 0.05 * np.eye(2), gradient[:, :, None])[:, :, 0]
        length = np.sqrt((step**2).sum(axis=1, keepdims=True))
        multiplier -= step / np.maximum(length, 1.0)
    low, high = np.zeros(len(feature)), full
    needed = min(MIN_EFFECTIVE_POOL, feature.shape[1])
    for _ in range(_NEWTON_STEPS):  # the largest part of the tilt that keeps enough genes in play
        enough = 1.0 / (weights(high) ** 2).sum(axis=1) >= needed
        if enough.all():
            break
        middle = (low + high) / 2
        good = 1.0 / (weights(middle) ** 2).sum(axis=1) >= needed
        low = np.where(~enough & good, middle, low)
        high = np.where(~enough & ~good, middle, high)
    else:
        high = np.where(enough, high, low)
    return weights(high)


def _pick(cumulative: Doubles, rows: Integers, uniform: Doubles) -> Integers:
    """Choose a pool member for each uniform number, by the cumulative weights of its row."""
    flat = (cumulative + np.arange(len(cumulative))[:, None]).ravel()
    place = np.searchsorted(flat, uniform + rows, side="right") - rows * cumulative.shape[1]
    return np.asarray(np.clip(place, 0, cumulative.shape[1] - 1), dtype=np.int64)


def _draw(own: Integers, space: _Space, *, n_null: int, pool_size: int, rng: np.random.Generator) -> Integers:
    """Draw ``n_null`` x genes random genes, each from the neighbours of the gene it stands in for.

    A set's own genes are in no pool and no random set has a gene twice: genes drawn twice are drawn again.
    ``own`` indexes the rows of ``space``, which are in the order of the gene names.
    """
    others = np.setdiff1d(np.arange(len(space.plane)), own)
    tree = cKDTree(space.plane[others])
    size = min(pool_size, len(others))
    columns = np.broadcast_to(np.arange(len(own)), (n_null, len(own)))
    while True:
        _, found = tree.query(space.plane[own], k=np.arange(1, size + 1))
        pools = np.sort(others[found], axis=1)
        cumulative = np.cumsum(_tilt(space.levels[pools] - space.levels[own][:, None, :]), axis=1)
        picked = pools[columns, _pick(cumulative, columns, rng.random((n_null, len(own))))]
        for _ in range(_REDRAWS):
            order = np.argsort(picked, axis=1, kind="stable")
            ordered = np.take_along_axis(picked, order, axis=1)
            row, column = np.nonzero(ordered[:, 1:] == ordered[:, :-1])
            if not len(row):
                return picked
            again = order[row, column + 1]
            picked[row, again] = pools[again, _pick(cumulative, again, rng.random(len(again)))]
        if size == len(others):  # hardly more genes to choose from than to replace: any of them
            keys = rng.random((n_null, len(others)))
            return np.asarray(others[np.argsort(keys, axis=1)[:, : len(own)]], dtype=np.int64)
        size = min(2 * size, len(others))


@dataclass(frozen=True)
class _Usable:
    """Genes of a set that the data have: position in the name order, weight, whether down."""

    genes: list[str]
    own: Integers
    weights: Doubles
    row: dict[str, object]


def _generator(usable: _Usable, seed: int) -> np.random.Generator:
    """Generator that depends on the seed and the genes with the size of their weights, and on nothing else.

    Not on the name or the company of the set, nor on its sign: a set and its opposite have opposite scores.
    """
    content = "\t".join(f"{gene}:{abs(weight):.9g}" for gene, weight in zip(usable.genes, usable.weights, strict=True))
    digest = hashlib.sha256(content.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def _usable(
    name: str,
    one: GeneSet,
    statistics: pd.DataFrame,
    position: Mapping[str, int],
    synonyms: Synonyms,
    gates: tuple[float, int, float],
) -> _Usable:
    """Resolve a set's genes, apply the coverage gates and normalise its weights (up to +1, down to -1)."""
    present = resolve(one.genes, statistics.index, synonyms)
    weight_of = dict(zip(one.genes, one.weights or (1.0,) * len(one.genes), strict=True))
    down = frozenset(one.down)
    used = [
        (symbol, -weight_of[gene] if gene in down else weight_of[gene])
        for gene, symbol in present.symbols.items()
        if symbol in position
    ]
    used.sort()
    signed = np.array([weight for _, weight in used], dtype=np.float64)
    genes = [symbol for symbol, _ in used]
    sides = [np.where(signed > 0, signed, 0.0), np.where(signed < 0, -signed, 0.0)]
    rows = statistics.loc[genes]
    parts = signed**2 * rows["variance"].to_numpy(np.float64)
    effective = float(parts.sum() ** 2 / (parts**2).sum()) if parts.any() else 0.0
    n_detected = int((statistics.loc[list(present.symbols.values()), "detection"] >= MIN_DETECTION).sum())
    min_coverage, min_genes, min_effective = gates
    reasons: list[str] = []
    if len(present.symbols) < min_coverage * len(one.genes):
        reasons.append(f"{len(present.symbols)} of {len(one.genes)} genes present")
    if n_detected < min_genes and min_effective > 0:
        reasons.append(f"{n_detected} genes in at least {MIN_DETECTION:.0%} of cells")
    if effective < min_effective:
        reasons.append(f"effective number of genes {effective:.1f}")
    if len(genes) < min_genes:
        reasons.append(f"{len(genes)} genes with counts")
    if (one.up and not sides[0].any()) or (one.down and not sides[1].any()):
        reasons.append("one direction has no gene with counts")
    if not reasons and len(position) - len(genes) < 2 * len(genes):
        reasons.append(f"{len(position) - len(genes)} other genes to draw {len(genes)} from")
    weights = sides[0] / max(sides[0].sum(), 1e-300) - sides[1] / max(sides[1].sum(), 1e-300)
    row: dict[str, object] = {
        "signature": name,
        "role": one.role,
        "n_genes": len(one.genes),
        "n_present": len(present.symbols),
        "n_detected": n_detected,
        "n_renamed": present.n_renamed,
        "effective_n_genes": effective,
        "depth_correlation": np.nan,
        "status": LOW_COVERAGE if reasons else OK,
        "reason": "; ".join(reasons),
    }
    return _Usable(genes, np.array([position[gene] for gene in genes], dtype=np.int64), weights, row)


def draw_matched_sets(
    statistics: pd.DataFrame,
    gene_sets: Mapping[str, GeneSet],
    *,
    n_null: int = 1000,
    seed: int = 0,
    pool_size: int = POOL_SIZE,
    min_coverage: float = MIN_COVERAGE,
    min_genes: int = MIN_GENES,
    min_effective: float = MIN_GENES,
    relaxed: bool = False,
    synonyms: Synonyms | pd.DataFrame | None = None,
) -> MatchedSets:
    """Draw random sets matched to each signature on mean expression and detection rate.

    Every gene is replaced by one of its ``pool_size`` nearest genes in the plane of log mean and logit detection, drawn
    with weights that balance the pool's mean expression and detection on the gene's; the signature's own genes are in
    no pool, no random set has a gene twice, the replacing gene takes the weight. Genes
    without a count in the reference take no part. The draws depend on ``seed``, the statistics and the genes of the set
    only: not on the order of cells, genes or sets, nor on the other sets.

    Parameters
    ----------
    statistics
        From :func:`gene_statistics`.
    gene_sets
        Sets by the name of their column.
    n_null
        Random sets per signature, at least 2; 500 or more for inference.
    min_coverage
        Smallest fraction of genes present.
    min_genes, min_effective
        Smallest number of genes in 2 % of the reference cells, and smallest effective number of genes, ``(sum v)^2 /
        sum v^2`` with ``v`` the weighted variances.
    relaxed
        For marker panels: only three genes with counts are asked for.
    synonyms
        Alias table for genes under an older or newer symbol.
    """
    if n_null < 2:
        raise ValueError(f"n_null must be at least 2, found {n_null}")
    names = np.sort(statistics.index[statistics["mean"].to_numpy() > 0].to_numpy(dtype=object).astype(str))
    position = {name: i for i, name in enumerate(names.tolist())}
    column = pd.Index(statistics.index.astype(str)).get_indexer(pd.Index(names)).astype(np.int32)
    space = _Space.of(statistics.iloc[column], max(int(statistics.attrs.get("n_cells", 1)), 1))
    pool_size = min(pool_size, max(10, len(names) // 10))
    gates = (0.0, RELAXED_MIN_GENES, 0.0) if relaxed else (min_coverage, min_genes, float(min_effective))
    table = synonyms if isinstance(synonyms, Synonyms) else Synonyms.from_table(synonyms)

    scorable: list[str] = []
    rows: list[dict[str, object]] = []
    indices: list[npt.NDArray[np.int32]] = []
    data: list[Floats] = []
    sizes: list[int] = []
    for name, one in gene_sets.items():
        usable = _usable(name, one, statistics, position, table, gates)
        rows.append(usable.row)
        if usable.row["status"] != OK:
            _LOG.warning("signature %s is not scored: %s", name, usable.row["reason"])
            continue
        rng = _generator(usable, seed)
        null = _draw(usable.own, space, n_null=n_null, pool_size=pool_size, rng=rng)
        indices.append(column[np.vstack([usable.own, null])].ravel())
        data.append(np.tile(usable.weights.astype(np.float32), n_null + 1))
        sizes += [len(usable.own)] * (n_null + 1)
        scorable.append(name)
    pointer = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    transposed = sp.csr_matrix(
        (
            np.concatenate(data) if data else np.zeros(0, np.float32),
            np.concatenate(indices) if indices else np.zeros(0, np.int32),
            pointer.astype(np.int32) if pointer[-1] < np.iinfo(np.int32).max else pointer,
        ),
        shape=(len(sizes), len(statistics)),
    )
    coverage = pd.DataFrame(rows, columns=[*TABLES["signature_coverage"], "reason"])
    return MatchedSets(tuple(scorable), n_null, pd.Index(statistics.index), transposed, coverage)
