"""Two disjoint gene sets scored on the same cells, each against random sets that share no gene with the other's.

Whether two scores of a cell agree can only be asked when nothing but the cell ties them. Two scores whose random sets
are drawn from one pool are tied by the pool: both are measured from centres that contain the same genes, and a random
set is in the other's centre. The genes outside both sets are therefore divided by a hash into two pools, one for each
set: for the pair itself and for any pair of random sets the noise of genes is independent, and what a random pair still
shares is what the cells share.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from dtcflow.evidence.contrasts import Floats
from dtcflow.evidence.within import Prepared, reference_residual
from dtcflow.scores.calibrated import OK, MatchedSets, draw_matched_sets
from dtcflow.scores.signatures import GeneSet, Synonyms, resolve

_BLOCK: Final = 256
_NO_SYNONYMS: Final = pd.DataFrame({"alias": [], "symbol": [], "kind": []}, dtype=object)


@functools.lru_cache(maxsize=1 << 19)
def _coin(*names: object) -> int:
    """0 or 1 by hash: a rule, the same on every machine and in every order."""
    return hashlib.sha256("\t".join(str(name) for name in names).encode()).digest()[0] & 1


def measured(one: GeneSet, statistics: pd.DataFrame, synonyms: Synonyms | pd.DataFrame | None) -> GeneSet:
    """Return the set under the symbols of the matrix, without genes that have no count."""
    table = synonyms if isinstance(synonyms, Synonyms) else Synonyms.from_table(synonyms)
    symbols = resolve(one.genes, statistics.index, table).symbols
    counted = set(statistics.index[statistics["mean"].to_numpy() > 0])
    weight = dict(zip(one.genes, one.weights or (1.0,) * len(one.genes), strict=True))
    sides = [
        [(symbols[gene], weight[gene]) for gene in side if symbols.get(gene) in counted] for side in (one.up, one.down)
    ]
    return GeneSet(
        one.name,
        tuple(symbol for symbol, _ in sides[0]),
        tuple(symbol for symbol, _ in sides[1]),
        role=one.role,
        weights=tuple(value for side in sides for _, value in side),
    )


def disjoint(first: GeneSet, second: GeneSet) -> tuple[GeneSet, GeneSet]:
    """Both sets (see :func:`measured`) without the genes they share."""
    shared = set(first.genes) & set(second.genes)
    return first.without(shared), second.without(shared)


def split_genes(names: Sequence[str], level: Floats, *, split: int) -> NDArray[np.bool_]:
    """Which genes make the first half.

    Genes are paired by their expression, and a hash of the pair's names and the number of the split says which of the
    two goes where: halves have the same expression and detection, and depend on nothing but the genes and their order
    of expression. An odd gene is placed by its own hash.

    Parameters
    ----------
    names
        Symbols.
    level
        Mean expression of each.
    split
        Number of the split.
    """
    order = sorted(range(len(names)), key=lambda j: (level[j], names[j]))
    first = np.zeros(len(names), dtype=bool)
    for start in range(0, len(order), 2):
        pair = order[start : start + 2]
        if _coin(split, *(names[j] for j in pair)):
            first[pair[0]] = True
        elif len(pair) == 2:
            first[pair[1]] = True
    return first


def halves(one: GeneSet, statistics: pd.DataFrame, *, split: int) -> tuple[GeneSet, GeneSet]:
    """Halves of a measured set; genes that raise and genes that lower the score are halved separately."""
    chosen: set[str] = set()
    for side in (one.up, one.down):
        level = statistics.loc[list(side), "mean"].to_numpy(dtype=float)
        chosen |= {gene for gene, first in zip(side, split_genes(side, level, split=split), strict=True) if first}
    others = set(one.genes) - chosen
    return one.without(others), one.without(chosen)


def _half_pool(statistics: pd.DataFrame, one: GeneSet, other: GeneSet, *, which: int, label: str) -> pd.DataFrame:
    """Statistics of the set's own genes and of those genes outside both sets that a hash gives to this one."""
    own, taken = set(one.genes), {*one.genes, *other.genes}
    keep = [str(gene) in own or (gene not in taken and _coin(label, gene) == which) for gene in statistics.index]
    out = statistics.loc[keep]
    out.attrs["n_cells"] = statistics.attrs["n_cells"]
    return out


def _standardise(raw: Floats) -> Floats:
    """Z of the first column against the others, and of each of these against the rest; 0 for a cell without counts."""
    n = raw.shape[-1] - 1
    z = raw - raw[..., 1:].mean(axis=-1, keepdims=True)
    squares = (z[..., 1:] ** 2).sum(axis=-1, keepdims=True)
    # leaving one of n out moves the mean by d/(n-1) and takes d^2 n/(n-1) from the sum of squares
    rest = squares - z[..., 1:] ** 2 * (n / (n - 1))
    z[..., 1:] *= n / (n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        z[..., :1] /= np.sqrt(squares / (n - 1))
        z[..., 1:] /= np.sqrt(np.maximum(rest, 0.0) / max(n - 2, 1))
    return np.where(np.isfinite(z), z, 0.0)


def _score(lognorm: sp.csr_matrix, genes: pd.Index, matched: MatchedSets) -> Floats:
    """Value of the set and of its random sets, cells x (1 + random sets)."""
    columns = genes.get_indexer(matched.genes)
    weights = matched.transposed
    used = np.unique(weights.indices)
    small = sp.csr_matrix(weights[:, used])
    part = sp.csr_matrix(lognorm[:, columns[used]])
    out = np.empty((part.shape[0], small.shape[0]))
    for start in range(0, part.shape[0], _BLOCK):
        dense = np.ascontiguousarray(part[start : start + _BLOCK].toarray().T, dtype=np.float32)
        out[start : start + _BLOCK] = (small @ dense).T
    return out


def pair_scores(
    prepared: Prepared, first: GeneSet, second: GeneSet, *, label: str, n_null: int, seed: int
) -> Floats | None:
    """Calibrated z of two disjoint sets and of pairs of random sets, freed from the covariates.

    Parameters
    ----------
    prepared
        The cells.
    first, second
        Measured sets (:func:`measured`) without a common gene.
    label
        Salt of the hash that divides the other genes into two pools.
    n_null, seed
        Random sets, and the start of their draws.

    Returns
    -------
    Cells x 2 x (1 + random sets), float64: the pair first, each random set standardised against the others of its pool.
    None when a set has too few genes.
    """
    statistics, out = prepared.statistics, []
    for which, (one, other) in enumerate(((first, second), (second, first))):
        pool = _half_pool(statistics, one, other, which=which, label=label)
        matched = draw_matched_sets(
            pool, {"part": one}, n_null=n_null, seed=seed, relaxed=True, min_coverage=0.0, synonyms=_NO_SYNONYMS
        )
        if matched.coverage["status"].iloc[0] != OK:
            return None
        out.append(_standardise(_score(prepared.lognorm, statistics.index, matched)))
    z = np.stack(out, axis=1)
    return reference_residual(prepared, z.reshape(len(z), -1)).reshape(z.shape)
