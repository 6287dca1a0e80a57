"""Other scores for the same signatures, as a check on the choice of score: score_genes, UCell, AUCell.

None of them is calibrated against matched random sets, and all of them move with sequencing depth: they are compared
between groups of cells only at one depth. UCell and AUCell come with the optional packages of the extra ``scores``;
without them nothing fails, each set gets the reason "not installed".

References
----------
score_genes: Tirosh et al. 2016 (Science 352:189, PMID 27124452), as in scanpy. UCell: Andreatta and Carmona 2021,
Comput Struct Biotechnol J 19:3796, package pyucell. AUCell: Aibar et al. 2017, Nat Methods 14:1083, package decoupler.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.scores.calibrated import log_normalise
from dtcflow.scores.signatures import GeneSet, Synonyms, resolve

Doubles = npt.NDArray[np.float64]

SCORE_GENES: Final = "score_genes"
UCELL: Final = "UCell"
AUCELL: Final = "AUCell"
RAW_SCORERS: Final = (SCORE_GENES, AUCELL, UCELL)
"""In the order of their rows."""
PACKAGES: Final = {SCORE_GENES: "scanpy", UCELL: "pyucell", AUCELL: "decoupler"}
NOT_INSTALLED: Final = "not installed"

MAX_RANK: Final = 1500
"""UCell's own bound; lowered to the number of genes that half of the cells have detected."""
TOP_SHARE: Final = 0.05
"""AUCell's own share of top genes; their number never exceeds the genes that half of the cells have detected."""
MIN_GENES: Final = 5
"""Smallest number of genes a direction of a set needs among the genes of the data."""

_Side = dict[str, list[str]]


@dataclass(frozen=True)
class RawScores:
    """Scores of :func:`raw_scores`.

    Attributes
    ----------
    values
        Cells x sets in the order asked for, float64; NaN for a cell without counts and for a set that has a reason.
    reasons
        Why a set has no score.
    """

    values: Doubles
    reasons: dict[str, str]


def installed(scorer: str) -> bool:
    """Whether the package behind a score can be imported."""
    return importlib.util.find_spec(PACKAGES[scorer]) is not None


def median_detected(counts: Any) -> int:
    """Genes that half of the cells have detected at least, over the cells that have counts; 0 without such cells."""
    detected = np.diff(sp.csr_matrix(counts).indptr)
    detected = detected[detected > 0]
    return int(np.median(detected)) if detected.size else 0


@contextlib.contextmanager
def _quiet_scanpy(settings: Any) -> Iterator[None]:
    """Give numpy's global random state and scanpy's verbosity back as they were: ``score_genes`` seeds and warns."""
    state, verbosity = np.random.get_state(), settings.verbosity  # noqa: NPY002
    settings.verbosity = 0
    try:
        yield
    finally:
        settings.verbosity = verbosity
        np.random.set_state(state)  # noqa: NPY002


@contextlib.contextmanager
def _one_numba_thread() -> Iterator[None]:
    """Keep numba to one thread: decoupler spreads the few sets of every single cell over all of them."""
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _score_genes(data: ad.AnnData, sides: _Side, top: int) -> tuple[pd.DataFrame, dict[str, str]]:
    import scanpy as sc

    out = pd.DataFrame(index=data.obs_names)
    reasons = {}
    for name, genes in sides.items():
        try:
            with _quiet_scanpy(sc.settings):
                # the reference genes of a set are not its own: the default of scanpy before version 2 is the opposite
                sc.tl.score_genes(data, genes, ctrl_as_ref=False, score_name="_score", random_state=0, use_raw=False)
        except (RuntimeError, ValueError) as error:
            reasons[name] = f"no control genes: {str(error).splitlines()[0][:80]}"
            continue
        out[name] = data.obs["_score"].to_numpy(dtype=float)
    return out, reasons


def _ucell(data: ad.AnnData, sides: _Side, top: int) -> tuple[pd.DataFrame, dict[str, str]]:
    import pyucell

    rank = min(MAX_RANK, top)
    reasons = {
        name: f"{len(genes)} genes, more than the ranks that are used ({rank})"
        for name, genes in sides.items()
        if len(genes) >= rank
    }
    kept = {name: genes for name, genes in sides.items() if name not in reasons}
    if not kept:
        return pd.DataFrame(index=data.obs_names), reasons
    numbered = {f"set{i}": genes for i, genes in enumerate(kept.values())}
    pyucell.compute_ucell_scores(data, numbered, max_rank=rank, missing_genes="skip", suffix="", n_jobs=1)
    return data.obs[list(numbered)].astype(float).set_axis(list(kept), axis=1), reasons


def _aucell(data: ad.AnnData, sides: _Side, top: int) -> tuple[pd.DataFrame, dict[str, str]]:
    import decoupler

    number = min(int(np.ceil(TOP_SHARE * data.n_vars)), top)
    if number < 2:
        return pd.DataFrame(index=data.obs_names), dict.fromkeys(sides, "fewer than two top genes")
    net = pd.DataFrame([(name, gene) for name, genes in sides.items() for gene in genes], columns=["source", "target"])
    with _one_numba_thread():
        decoupler.mt.aucell(data, net, tmin=1, n_up=number, empty=False, verbose=False)
    return pd.DataFrame(data.obsm["score_aucell"], index=data.obs_names).astype(float), {}


_RUN: Final[dict[str, Callable[[ad.AnnData, _Side, int], tuple[pd.DataFrame, dict[str, str]]]]] = {
    SCORE_GENES: _score_genes,
    UCELL: _ucell,
    AUCELL: _aucell,
}


def raw_scores(
    counts: Any,
    genes: pd.Index[Any],
    sets: Mapping[str, GeneSet],
    scorer: str,
    *,
    synonyms: Synonyms | pd.DataFrame | None = None,
) -> RawScores:
    """Score cells with one of :data:`RAW_SCORERS`.

    A set with down genes gets the score of its up genes less that of its down genes, each computed alone: UCell's own
    way cuts negative sums at zero, AUCell has none. Weights are not used. Cells without counts take no part.

    Parameters
    ----------
    counts
        Cells x genes, raw counts; genes without a count in any cell take no part.
    genes
        Unique symbol of each column. Equal ranks are broken by gene name, not by the order of the columns.
    sets
        Sets by name.
    scorer
        ``score_genes`` (log counts per 10,000, reference genes of the same bin of mean expression, ``ctrl_as_ref``
        off), ``UCell`` (ranks down to the genes that half of the cells have, at most 1,500) or ``AUCell`` (the top 5 %
        of the genes, not more than half of the cells have).
    synonyms
        Alias table for genes under another symbol.

    Raises
    ------
    ValueError
        ``genes`` does not fit the matrix, or the score is unknown.
    """
    if scorer not in _RUN:
        raise ValueError(f"unknown score {scorer!r}, known are {', '.join(RAW_SCORERS)}")
    matrix = sp.csr_matrix(counts, dtype=np.float32)
    if len(genes) != matrix.shape[1] or not genes.is_unique:
        raise ValueError(f"{len(genes)} genes ({genes.nunique()} unique) for a matrix of {matrix.shape[1]} columns")
    values: Doubles = np.full((matrix.shape[0], len(sets)), np.nan)
    if not installed(scorer):
        return RawScores(values, dict.fromkeys(sets, NOT_INSTALLED))
    rows = np.flatnonzero(np.diff(matrix.indptr) > 0)
    order = np.argsort(np.asarray(genes, dtype=str), kind="stable")
    seen = np.asarray(matrix.sum(axis=0)).ravel() > 0
    order = order[seen[order]]
    names = genes[order].astype(str)
    sides, reasons = _sides(sets, names, synonyms)
    if rows.size == 0 or not sides:
        return RawScores(values, reasons | {name: "no cell with counts" for name in sets if name not in reasons})
    # ranks are those of the counts; the logarithm keeps them and is what score_genes takes means of
    data = ad.AnnData(
        log_normalise(matrix[rows][:, order]),
        obs=pd.DataFrame(index=[str(i) for i in range(rows.size)]),
        var=pd.DataFrame(index=names.to_numpy(dtype=object)),
    )
    found, failed = _RUN[scorer](data, sides, median_detected(data.X))
    for column, name in enumerate(sets):
        parts = [f"{name}|{direction}" for direction in ("up", "down") if f"{name}|{direction}" in sides]
        if not parts:
            continue
        wrong = [failed[part] for part in parts if part in failed]
        if wrong:
            reasons[name] = wrong[0]
            continue
        total = sum(found[part].to_numpy() * (1 if part.endswith("|up") else -1) for part in parts)
        values[rows, column] = total
    return RawScores(values, reasons)


def _sides(
    sets: Mapping[str, GeneSet], names: pd.Index[Any], synonyms: Synonyms | pd.DataFrame | None
) -> tuple[_Side, dict[str, str]]:
    """Genes of the data per set and direction, and why a set cannot be scored."""
    table = synonyms if isinstance(synonyms, Synonyms) else Synonyms.from_table(synonyms)
    have = frozenset(names)
    sides: _Side = {}
    reasons: dict[str, str] = {}
    for name, one in sets.items():
        symbols = resolve(one.genes, have, table).symbols
        own = {
            direction: sorted(symbols[gene] for gene in genes if gene in symbols)
            for direction, genes in (("up", one.up), ("down", one.down))
            if genes
        }
        if any(len(genes) < MIN_GENES for genes in own.values()):
            reasons[name] = f"fewer than {MIN_GENES} of its genes have counts"
            continue
        sides |= {f"{name}|{direction}": genes for direction, genes in own.items()}
    return sides, reasons
