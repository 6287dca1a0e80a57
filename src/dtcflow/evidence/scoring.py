"""Score the cells of a contrast at harmonised depth, with the random sets that calibrate and test them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from dtcflow.evidence.alternatives import ALTERNATIVE_REPEATS, Alternative, CellCounts, alternative_scores
from dtcflow.evidence.contrasts import (
    Floats,
    GroupValues,
    Layout,
    ThinnedDraws,
    average,
    depth_fractions,
    group_values,
)
from dtcflow.scores.calibrated import (
    OK,
    MatchedSets,
    apply_sets,
    apply_sets_and_null,
    depth_correlation,
    draw_matched_sets,
    gene_statistics,
    log_normalise,
)
from dtcflow.scores.matching import MIN_GENES
from dtcflow.scores.signatures import GeneSet, Synonyms

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """Scores of the cells of a contrast.

    Attributes
    ----------
    names
        Scorable signatures: columns of the arrays.
    matched
        One cells x scores array per depth repeat, both compartments of a patient at one median depth.
    full
        Cells x scores at the original depth, same random sets.
    depth
        Per repeat, cells x 2: log detected genes and log transcripts after thinning.
    null
        For each tested signature, values per patient and side of its random sets (scores = random sets), over the
        repeats.
    coverage
        Table ``signature_coverage`` for the cells of the contrast; ``depth_correlation`` at harmonised depth.
    share
        Share of its transcripts each cell keeps.
    n_counts, n_genes
        Original depth of each cell.
    n_genes_used
        Genes the scores could draw from (measured in all samples).
    alternatives
        The same signatures scored in other ways, where that was asked for.
    """

    names: tuple[str, ...]
    matched: tuple[Floats, ...]
    full: Floats
    depth: tuple[Floats, ...]
    null: dict[str, GroupValues]
    coverage: pd.DataFrame
    share: Floats
    n_counts: Floats
    n_genes: Floats
    n_genes_used: int
    alternatives: tuple[Alternative, ...] = ()

    def column(self, name: str) -> int | None:
        """Column of a signature, None when it is not scorable."""
        return self.names.index(name) if name in self.names else None

    def scorable(self) -> dict[str, bool]:
        """Whether each signature asked for met the coverage rule."""
        return {
            str(s): status == OK for s, status in zip(self.coverage["signature"], self.coverage["status"], strict=True)
        }


def balanced_statistics(lognorm: sp.csr_matrix, genes: pd.Index, side: NDArray[np.int64]) -> pd.DataFrame:
    """Gene statistics with both compartments weighing the same, however many cells each has.

    Random sets are matched on these: pooled statistics would be those of the larger compartment, and a set of genes
    that the smaller one does not express would pass as a match.
    """
    parts = [gene_statistics(lognorm, genes, rows=np.flatnonzero(side == k)) for k in (0, 1)]
    out = pd.DataFrame(index=parts[0].index)
    out["mean"] = (parts[0]["mean"] + parts[1]["mean"]) / 2
    out["detection"] = (parts[0]["detection"] + parts[1]["detection"]) / 2
    between = ((parts[0]["mean"] - parts[1]["mean"]) / 2) ** 2
    out["variance"] = (parts[0]["variance"] + parts[1]["variance"]) / 2 + between
    out.attrs["n_cells"] = 2 * min(int(part.attrs["n_cells"]) for part in parts)
    return out


def _depth(counts: sp.csr_matrix) -> Floats:
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    detected = np.diff(counts.indptr).astype(np.float64)
    return np.column_stack([np.log(np.maximum(detected, 1.0)), np.log(np.maximum(totals, 1.0))])


def score_contrast(
    counts: sp.csr_matrix,
    genes: pd.Index,
    layout: Layout,
    panel: Mapping[str, GeneSet],
    *,
    tested: Sequence[str],
    repeats: int,
    n_null: int,
    trim: float,
    minimum_coverage: float,
    synonyms: Synonyms | pd.DataFrame | None,
    seed: int,
    minimum_genes: int = MIN_GENES,
    minimum_effective: float = MIN_GENES,
    alternatives: Sequence[str] = (),
) -> Scored:
    """Thin, normalise and score the cells of a contrast.

    Parameters
    ----------
    counts
        Cells x genes, rows in the order of ``layout.table``.
    genes
        Symbol of each column: only genes measured in all samples.
    layout
        The cells.
    panel
        Signatures to score.
    tested
        Signatures for which the random sets themselves are carried to patient level.
    repeats
        Depth repeats; one is enough (and taken) when no cell has to be thinned.
    n_null, trim, minimum_coverage, synonyms, seed, minimum_genes, minimum_effective
        See :func:`dtcflow.scores.calibrated.draw_matched_sets`.
    alternatives
        Signatures that are also scored in other ways, for the specification table; see
        :func:`dtcflow.evidence.alternatives.alternative_scores`. Costs a few seconds, so that it is asked for.

    Notes
    -----
    Random sets are drawn once, matched on the first harmonised repeat. Only thinned cells are scored anew in the other
    repeats: a cell's score depends on no other cell. Genes are taken in alphabetical order, so that neither the draws
    nor the last digits of a sum depend on the order in which they come.
    """
    order = np.argsort(np.asarray(genes, dtype=str), kind="stable")
    genes = genes[order]
    counts = sp.csr_matrix(counts, dtype=np.float32)[:, order]
    counts.sum_duplicates()
    counts.eliminate_zeros()
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    share = depth_fractions(totals, layout)
    draws = ThinnedDraws(counts, share, layout, seed=seed)
    again = draws.again
    repeats = repeats if again.size else 1
    parts = [draws.whole(0)]
    lognorm = log_normalise(parts[0])
    statistics = balanced_statistics(lognorm, genes, layout.side)
    sets = draw_matched_sets(
        statistics,
        panel,
        n_null=n_null,
        seed=seed,
        min_coverage=minimum_coverage,
        min_genes=minimum_genes,
        min_effective=minimum_effective,
        synonyms=synonyms,
    )
    applied, nulls = apply_sets_and_null(lognorm, sets, tested)
    first = applied.z.astype(np.float64)
    full = first.copy()
    if again.size:
        full[again] = apply_sets(log_normalise(counts[again]), sets).z
    scored_null = {name: values.astype(np.float64) for name, values in nulls.items()}
    matched, depth = [first], [_depth(parts[0])]
    null = {name: [group_values(z, layout, trim=trim)] for name, z in scored_null.items()}
    for repeat in range(1, repeats):
        part = draws.part(repeat)
        if alternatives and repeat < ALTERNATIVE_REPEATS:
            parts.append(draws.filled(part))
        z, at = first.copy(), depth[0].copy()
        applied, nulls = apply_sets_and_null(log_normalise(part), sets, tested)
        z[again] = applied.z
        at[again] = _depth(part)
        matched.append(z)
        depth.append(at)
        for name, values in scored_null.items():
            values[again] = nulls[name]
            null[name].append(group_values(values, layout, trim=trim))
    _LOG.info(
        "scored %d cells of %d patients with %d signatures; %d cells thinned (median share %.2f), %d repeats",
        counts.shape[0],
        len(layout.patients),
        len(sets.names),
        again.size,
        float(np.median(share[again])) if again.size else 1.0,
        repeats,
    )
    others: tuple[Alternative, ...] = ()
    if alternatives and len(layout.patients):
        others = alternative_scores(
            CellCounts(matched=tuple(parts), full=counts, genes=genes),
            layout,
            {name: panel[name] for name in alternatives if name in panel},
            sets,
            n_null=n_null,
            trim=trim,
            minimum_coverage=minimum_coverage,
            synonyms=synonyms,
            seed=seed,
        )
    return Scored(
        names=sets.names,
        matched=tuple(matched),
        full=full,
        depth=tuple(depth),
        null={name: average(parts) for name, parts in null.items()},
        coverage=_coverage(sets, first, depth[0][:, 1]),
        share=share,
        n_counts=totals,
        n_genes=np.diff(counts.indptr).astype(np.float64),
        n_genes_used=len(genes),
        alternatives=others,
    )


def _coverage(sets: MatchedSets, z: Floats, log_counts: Floats) -> pd.DataFrame:
    """Coverage table with what is left of depth in each score after both sides were brought to one depth."""
    table = sets.coverage.reset_index(drop=True)
    left = dict(zip(sets.names, depth_correlation(z.astype(np.float32), log_counts), strict=True))
    return table.assign(depth_correlation=[left.get(str(name), np.nan) for name in table["signature"]])
