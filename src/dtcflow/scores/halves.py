"""Two disjoint halves of a gene set, matched on expression: one may name cells that the other one then tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from dtcflow.scores.signatures import GeneSet

HALVES: Final = ("_HALF_A", "_HALF_B")


def _key(gene: str, salt: str) -> bytes:
    return hashlib.sha256(f"{salt}\t{gene}".encode()).digest()


def _deal(genes: Sequence[str], level: pd.Series[float], salt: str) -> tuple[list[str], list[str]]:
    """Deal genes into two hands.

    Neighbours in expression go to different hands, and a hash decides which goes where.
    """
    known = [gene for gene in genes if gene in level.index]
    by_level = sorted(known, key=lambda gene: (-float(level[gene]), _key(gene, salt)))
    by_hash = sorted((gene for gene in genes if gene not in level.index), key=lambda gene: _key(gene, salt))
    hands: tuple[list[str], list[str]] = ([], [])
    for part in (by_level, by_hash):
        for start in range(0, len(part), 2):
            pair = sorted(part[start : start + 2], key=lambda gene: _key(gene, salt))
            # a gene without a neighbour goes to the smaller hand, so that sizes differ by one at most
            first = 0 if len(pair) == 2 or len(hands[0]) <= len(hands[1]) else 1
            for place, gene in enumerate(pair):
                hands[(first + place) % 2].append(gene)
    return hands


def split_halves(
    gene_set: GeneSet, statistics: pd.DataFrame | None = None, *, salt: str = ""
) -> tuple[GeneSet, GeneSet]:
    """Split a set into two disjoint halves of the same expression.

    Genes are sorted by mean expression and dealt in pairs of neighbours; the sha256 of their symbols decides which of a
    pair goes into which half. Up and down genes are split apart, each gene keeps its weight. The split depends on the
    genes and their means only: not on their order, on a random stream or on the name of the set.

    Parameters
    ----------
    gene_set
        The set; its genes under the symbols of ``statistics``.
    statistics
        From :func:`dtcflow.scores.calibrated.gene_statistics` (column ``mean``). Genes that it lacks, and all without
        it, are dealt by their hash alone.
    salt
        Another text gives another split.

    Returns
    -------
    ``<name>_HALF_A`` and ``<name>_HALF_B``, role ``sensitivity``; their sizes differ by at most one gene a direction.

    Raises
    ------
    ValueError
        When a direction of the set has a single gene, which cannot be in both halves.
    """
    level = pd.Series(dtype=float) if statistics is None else statistics["mean"]
    weight_of = dict(zip(gene_set.genes, gene_set.weights or np.ones(len(gene_set.genes)).tolist(), strict=True))
    for genes, direction in ((gene_set.up, "up"), (gene_set.down, "down")):
        if len(genes) == 1:
            raise ValueError(f"{gene_set.name} has one {direction} gene: it cannot be split")
    up, down = _deal(gene_set.up, level, salt), _deal(gene_set.down, level, salt)
    halves = [
        GeneSet(
            name=gene_set.name + suffix,
            up=tuple(sorted(up[i])),
            down=tuple(sorted(down[i])),
            role="sensitivity",
            family=gene_set.family,
            citation=gene_set.citation,
            pmid=gene_set.pmid,
            weights=None
            if gene_set.weights is None
            else tuple(weight_of[gene] for gene in (*sorted(up[i]), *sorted(down[i]))),
        )
        for i, suffix in enumerate(HALVES)
    ]
    return halves[0], halves[1]
