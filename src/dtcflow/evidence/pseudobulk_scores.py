"""Single-sample scores of pseudobulks (ssGSEA, GSVA, stemness index), patient by patient. Screening, not evidence.

These scores were made for bulk tissue and follow the number of detected genes of a single cancer cell (Noureen 2022,
eLife 11:e71994). They are computed on sums of cells only, with both compartments of a patient at one depth.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from dtcflow.evidence.inference import adjust, sign_flip_p
from dtcflow.evidence.pseudobulk import (
    MAX_SET,
    MIN_PAIRS,
    MIN_SET,
    OK,
    Pseudobulk,
    directed_sets,
    log2_cpm,
    tested_genes,
    thinned_draws,
)
from dtcflow.scores.signatures import GeneSet

_LOG = logging.getLogger(__name__)

SSGSEA: Final = "ssGSEA"
GSVA: Final = "GSVA"
STEMNESS_INDEX: Final = "mRNAsi"
SCORE_DRAWS: Final = 5
"""Depth draws to average over: ranks of sums hardly move between them."""
MIN_WEIGHTED_GENES: Final = 500
"""Smallest number of genes with a weight for the stemness index."""
NO_WEIGHTS: Final = "no weights given (not shipped: they are published without a licence)"

SCORE_COLUMNS: Final = (
    *("signature", "method", "patient_id", "n_genes", "value_a", "value_b", "difference", "n_cells_a", "n_cells_b"),
    *("n_pairs", "mean_difference", "patient_p", "patient_p_adjusted", "status"),
)

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class _Scored:
    """Scores of one method: pseudobulks x sets, and the genes each set has among those tested."""

    method: str
    names: list[str]
    n_genes: list[int]
    values: Doubles


def _gseapy(method: str, expression: pd.DataFrame, sets: Mapping[str, list[str]], seed: int) -> Doubles:
    """Enrichment scores, pseudobulks x sets, of one draw (genes x pseudobulks)."""
    import gseapy

    shared: dict[str, Any] = {
        "data": expression,
        "gene_sets": dict(sets),
        "outdir": None,
        "min_size": MIN_SET,
        "max_size": MAX_SET,
        "threads": 1,
        "seed": seed,
        "verbose": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if method == SSGSEA:
            table = gseapy.ssgsea(sample_norm_method="rank", no_plot=True, **shared).res2d
        else:
            table = gseapy.gsva(kcdf="Gaussian", **shared).res2d
    wide = table.assign(ES=pd.to_numeric(table["ES"])).pivot(index="Name", columns="Term", values="ES")
    values: Doubles = wide.loc[list(expression.columns), list(sets)].to_numpy(dtype=float)
    return values


def stemness_index(log_cpm: Doubles, genes: pd.Index[str], weights: pd.Series[float]) -> Doubles:
    """Spearman correlation of each pseudobulk with the weights of a stemness model (Malta 2018, Cell 173:338).

    Parameters
    ----------
    log_cpm
        Pseudobulks x genes.
    genes
        Symbol of each column.
    weights
        One weight per symbol.

    Returns
    -------
    One value per pseudobulk, -1 to 1. The published index is scaled to 0..1 over the samples of a data set; that is
    left out, because a patient's value would depend on the other patients.

    Raises
    ------
    ValueError
        When fewer than :data:`MIN_WEIGHTED_GENES` genes have a weight, or a symbol has two.
    """
    if not weights.index.is_unique:
        raise ValueError("the weights name a gene twice")
    shared = sorted(set(genes) & set(weights.index))
    if len(shared) < MIN_WEIGHTED_GENES:
        raise ValueError(f"{len(shared)} genes with a weight, {MIN_WEIGHTED_GENES} needed")
    at = genes.get_indexer(pd.Index(shared))
    given = weights.loc[shared].to_numpy(dtype=float)
    return np.array([float(spearmanr(row, given).statistic) for row in log_cpm[:, at]])


def _empty(status: str, n_pairs: int, methods: Iterable[str]) -> pd.DataFrame:
    rows = [{"method": method, "n_pairs": n_pairs, "status": status} for method in methods]
    frame = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    numbers = frame.columns.difference(["signature", "method", "patient_id", "n_pairs", "status"])
    return frame.astype(dict.fromkeys(numbers, float))


def _table(bulk: Pseudobulk, scored: _Scored, seed: int) -> pd.DataFrame:
    """One row per set and patient; what concerns all patients is repeated in each of their rows."""
    n = len(bulk.patients)
    difference = scored.values[0::2] - scored.values[1::2]
    tested = n >= MIN_PAIRS
    p = sign_flip_p(difference, seed=seed) if tested else np.full(len(scored.names), np.nan)
    adjusted = adjust(p, "bh")
    blocks = [
        pd.DataFrame(
            {
                "signature": name,
                "method": scored.method,
                "patient_id": list(bulk.patients),
                "n_genes": scored.n_genes[j],
                "value_a": scored.values[0::2, j],
                "value_b": scored.values[1::2, j],
                "difference": difference[:, j],
                "n_cells_a": bulk.cells[:, 0],
                "n_cells_b": bulk.cells[:, 1],
                "n_pairs": n,
                "mean_difference": difference[:, j].mean(),
                "patient_p": p[j],
                "patient_p_adjusted": adjusted[j],
                "status": OK if tested else f"no test: needs {MIN_PAIRS} paired patients, found {n}",
            }
        )
        for j, name in enumerate(scored.names)
    ]
    return pd.concat(blocks, ignore_index=True)[list(SCORE_COLUMNS)]


def score_pseudobulks(
    bulk: Pseudobulk, panel: Iterable[GeneSet], *, weights: pd.Series[float] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Score the pseudobulks of paired patients and test the differences over patients.

    Parameters
    ----------
    bulk
        Paired pseudobulks.
    panel
        Gene sets: panel and user GMT; a set with down genes is scored as two.
    weights
        Weights of the stemness index by symbol; without them its row says so.
    seed
        Of the draws at one depth, and of the sign-flip test (more than 12 patients).

    Returns
    -------
    pandas.DataFrame
        :data:`SCORE_COLUMNS`, a row per set, method and patient: enrichment score of both compartments and their
        difference (a - b), then over all patients the mean difference, its sign-flip p (from three patients on) and the
        Benjamini-Hochberg adjusted p within the method. A method without a value has one row whose ``status`` says why.
        The GSVA score of a pseudobulk depends on the other pseudobulks, the other scores do not.
    """
    n = len(bulk.patients)
    kept = tested_genes(bulk)
    genes = pd.Index(bulk.genes[kept])
    sets = {name: sorted(set(own) & set(genes)) for name, own in directed_sets(panel).items()}
    sets = {name: own for name, own in sorted(sets.items()) if MIN_SET <= len(own) <= MAX_SET}
    everything = (SSGSEA, GSVA, STEMNESS_INDEX)
    if n == 0:
        return _empty(f"needs {MIN_PAIRS} paired patients, found 0", 0, everything)
    if not len(genes):
        return _empty("no gene is expressed in enough pseudobulks", n, everything)
    order = np.argsort(genes.to_numpy(dtype=str), kind="stable")
    names = genes[order]
    samples = [f"p{i:04d}_{side}" for i in range(n) for side in ("a", "b")]
    draws = [log2_cpm(thinned)[:, order] for thinned in thinned_draws(bulk, kept, seed=seed, draws=SCORE_DRAWS)]
    blocks = []
    for method in (SSGSEA, GSVA):
        if not sets:
            blocks.append(_empty(f"no gene set with {MIN_SET} tested genes", n, [method]))
            continue
        try:
            parts = [_gseapy(method, pd.DataFrame(d.T, index=names, columns=samples), sets, seed) for d in draws]
        except (LookupError, ValueError) as error:
            _LOG.warning("gseapy %s gave nothing: %s", method, error)
            blocks.append(_empty(f"not computed: {str(error).splitlines()[0][:120]}", n, [method]))
            continue
        sizes = [len(own) for own in sets.values()]
        blocks.append(_table(bulk, _Scored(method, list(sets), sizes, np.mean(parts, axis=0)), seed))
    blocks.append(_stemness(bulk, draws, names, weights, seed))
    whole = dict.fromkeys(("n_genes", "n_cells_a", "n_cells_b", "n_pairs"), "Int64")
    return pd.concat(blocks, ignore_index=True).astype(whole)


def _stemness(
    bulk: Pseudobulk, draws: list[Doubles], genes: pd.Index[str], weights: pd.Series[float] | None, seed: int
) -> pd.DataFrame:
    n = len(bulk.patients)
    if weights is None:
        return _empty(NO_WEIGHTS, n, [STEMNESS_INDEX])
    try:
        values = np.mean([stemness_index(draw, genes, weights) for draw in draws], axis=0)[:, None]
    except ValueError as error:
        return _empty(f"not computed: {error}", n, [STEMNESS_INDEX])
    n_genes = len(set(genes) & set(weights.index))
    return _table(bulk, _Scored(STEMNESS_INDEX, [STEMNESS_INDEX], [n_genes], values), seed)
