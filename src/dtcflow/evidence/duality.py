"""P4: within a patient, are the disseminated cells that look stem-like also the ones at rest?

For each patient the rank correlation, over her disseminated cells, of the stemness score with the score of G0 arrest,
both freed from depth (the patient's own slope) and from the plan's covariates (slopes of primary cells). Genes in both
signatures are taken out of both. What any two sets of genes of these sizes and levels share in these cells is the mean
over random pairs of sets, drawn from two pools so that a pair shares no gene; it is subtracted on Fisher's scale.

Noise in both scores makes the correlation smaller than that of the programmes behind them, never larger.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from dtcflow.evidence.contrasts import Floats, Layout, stream
from dtcflow.evidence.inference import MetaAnalysis, SignFlip, set_null_p, sign_flip
from dtcflow.evidence.paired import BLANK, NO_TEST, PATIENT_COLUMNS, Cohort
from dtcflow.evidence.parts import disjoint, measured, pair_scores
from dtcflow.evidence.within import (
    Prepared,
    Within,
    annihilator,
    check_coverage,
    leave_one_out,
    meta,
    patient_table,
    prepare,
    scorable,
    weighted_null,
)

_LOG = logging.getLogger(__name__)

NAN: Final = float("nan")
SESOI: Final = 0.2
"""Smallest rank correlation of interest, with the noise of both scores in it: of two cells, the one more stem-like is
then the one more at rest in 56 % of pairs instead of 50 %. A weaker link could not tell cells apart."""
SPEARMAN: Final = 1.06
"""Variance of Fisher's z of a rank correlation relative to that of a product-moment correlation, for up to moderate
correlations (Fieller, Hartley and Pearson 1957, Biometrika 44:470)."""
PERMUTATIONS: Final = 2000


@dataclass(frozen=True)
class Duality:
    """P4, computed; the defaults stand for "nothing to compute".

    Attributes
    ----------
    stemness, dormancy
        The two signatures.
    patients
        One row per patient, ``PATIENT_COLUMNS``: ``value_a`` Fisher's z of the rank correlation, ``value_b`` its mean
        over random pairs, ``difference`` and ``variance`` on that scale; ``n_cells_b`` the reference cells.
    fit, test
        Difference over patients, on Fisher's scale: what decides.
    estimate, ci_low, ci_high, ci90_low, ci90_high
        The same as a correlation.
    p_permutation
        Two-sided p of the pooled correlation when one score is shuffled within patients. Of cells, so never decisive.
    null, p_gene_set
        Estimates of the random pairs (Fisher's scale) and the p value against them.
    leave_one_out
        Estimate without each patient (Fisher's scale).
    n_shared
        Genes that were in both signatures and were taken out.
    n_called
        Malignant cells of the group.
    covariates_used, covariates_missing, coverage, median_genes, median_genes_reference, mixed_protocols
        As in P1.
    """

    stemness: str
    dormancy: str
    patients: pd.DataFrame
    fit: MetaAnalysis = BLANK
    test: SignFlip = NO_TEST
    estimate: float = NAN
    ci_low: float = NAN
    ci_high: float = NAN
    ci90_low: float = NAN
    ci90_high: float = NAN
    p_permutation: float = NAN
    null: Floats = field(default_factory=lambda: np.zeros(0))
    p_gene_set: float = NAN
    leave_one_out: pd.DataFrame = field(default_factory=pd.DataFrame)
    n_shared: int = 0
    n_called: int = 0
    covariates_used: tuple[str, ...] = ()
    covariates_missing: tuple[str, ...] = ()
    coverage: pd.DataFrame = field(default_factory=pd.DataFrame)
    median_genes: float = NAN
    median_genes_reference: float = NAN
    mixed_protocols: bool = False


@dataclass(frozen=True)
class _Correlations:
    """Per patient: ranks of both scores (cells x sets), Fisher's z per set and its variance."""

    names: tuple[str, ...]
    ranks: tuple[tuple[Floats, Floats], ...]
    value: Floats
    variance: Floats


def _centred_ranks(values: Floats) -> Floats:
    ranks = np.asarray(rankdata(values, axis=0), dtype=float)
    return np.asarray(ranks - ranks.mean(axis=0), dtype=float)


def _correlate(first: Floats, second: Floats) -> Floats:
    """Correlation of matching columns of centred ranks; 0 where one is constant."""
    length = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
    product = (first * second).sum(axis=0)
    return np.asarray(np.divide(product, length, out=np.zeros(product.size), where=length > 0), dtype=float)


def _fisher(r: Floats) -> Floats:
    return np.asarray(np.arctanh(np.clip(r, -0.999, 0.999)), dtype=float)


def _correlations(prepared: Prepared, z: Floats) -> _Correlations:
    sample = prepared.layout.table["sample"].to_numpy(dtype=object)
    names, ranks, value, variance = [], [], [], []
    for name, rows in prepared.blocks().items():
        project, freedom = annihilator(sample[rows], prepared.nuisance[rows])
        # n - 1 degrees of freedom give 1 / (n - 3): every further column taken out costs one
        if freedom < 5:
            continue
        pair = tuple(_centred_ranks(project @ z[rows, k]) for k in (0, 1))
        names.append(name)
        ranks.append((pair[0], pair[1]))
        value.append(_fisher(_correlate(*pair)))
        variance.append(SPEARMAN / (freedom - 2))
    width = z.shape[-1]
    return _Correlations(
        tuple(names), tuple(ranks), np.array(value) if value else np.zeros((0, width)), np.array(variance)
    )


def _permutation_p(found: _Correlations, seed: int) -> float:
    """Two-sided p of the weighted mean of Fisher's z when one score is shuffled among the cells of each patient."""
    weight = 1.0 / found.variance
    observed = float(weight @ found.value[:, 0])
    shuffled = np.zeros(PERMUTATIONS)
    for name, (first, second), own in zip(found.names, found.ranks, weight, strict=True):
        rng = stream(seed, "duality", name)
        draws = rng.permuted(np.tile(first[:, :1], (1, PERMUTATIONS)), axis=0)
        shuffled += own * _fisher(_correlate(draws, np.tile(second[:, :1], (1, PERMUTATIONS))))
    return float((1 + (np.abs(shuffled) >= abs(observed) * (1 - 1e-9)).sum()) / (1 + PERMUTATIONS))


def evaluate_duality(cohort: Cohort, how: Within, *, stemness: str, dormancy: str) -> Duality:
    """Compute P4.

    Parameters
    ----------
    cohort, how
        Cells, counts, signatures; and what is asked of them. The cell cycle should not be among the covariates: rest
        is what is asked about.
    stemness, dormancy
        Signatures without proliferation genes: with them, cells at rest would score low on one by definition.

    Returns
    -------
    Duality
        Complete also when nothing can be computed: then every number is NaN and every patient has a reason.
    """
    prepared = prepare(cohort, how, exclude=[*cohort.panel[stemness].genes, *cohort.panel[dormancy].genes])
    layout = prepared if isinstance(prepared, Layout) else prepared.layout
    label = f"{stemness} x {dormancy}"
    start = Duality(
        stemness=stemness,
        dormancy=dormancy,
        patients=_patient_rows(layout, label, how.group, None, "no patient has enough cells"),
        n_called=int(layout.overview["n_cells_a"].sum()),
        covariates_missing=how.covariates,
    )
    if isinstance(prepared, Layout):
        return start
    both = [measured(cohort.panel[name], prepared.statistics, cohort.synonyms) for name in (stemness, dormancy)]
    first, second = disjoint(*both)
    # the coverage rule is about what is scored: the genes of each signature alone
    shared = set(both[0].genes) & set(both[1].genes)
    kept = {name: cohort.panel[name].without(shared) for name in (stemness, dormancy)}
    checked = check_coverage(prepared, kept, gates=how.gates, synonyms=cohort.synonyms)
    start = replace(
        start,
        n_shared=len(shared),
        coverage=checked,
        covariates_used=prepared.used,
        covariates_missing=prepared.missing,
        median_genes=prepared.median_genes,
        median_genes_reference=prepared.median_genes_reference,
        mixed_protocols=prepared.mixed_protocols,
    )
    reasons = [f"{name} cannot be scored" for name in (stemness, dormancy) if not scorable(checked, name)]
    if how.covariates and not prepared.enough_reference:
        reasons.append(f"fewer than 30 malignant cells of the reference group {how.reference} in the cohort")
    if reasons:
        return replace(start, patients=_patient_rows(layout, label, how.group, None, "; ".join(reasons)))
    z = pair_scores(prepared, first, second, label="duality", n_null=how.random_sets, seed=how.seed)
    if z is None:
        return replace(start, patients=_patient_rows(layout, label, how.group, None, "too few genes in one signature"))
    found = _correlations(prepared, z)
    start = replace(start, patients=_patient_rows(layout, label, how.group, found, ""))
    return start if len(found.names) < how.estimate_patients else _with_estimate(start, found, how.seed)


def _patient_rows(layout: Layout, label: str, group: str, found: _Correlations | None, reason: str) -> pd.DataFrame:
    """Rows of the patients; ``reason`` is why those with enough cells have no value."""
    values = None
    if found is not None:
        own, expected = found.value[:, 0], found.value[:, 1:].mean(axis=1)
        values = {"value_a": own, "value_b": expected, "difference": own - expected, "variance": found.variance}
    names = () if found is None else found.names
    contrast = f"cells within {group}"
    rows = patient_table(layout, contrast=contrast, signature=label, reason=reason, names=names, values=values)
    return rows[list(PATIENT_COLUMNS)]


def _as_correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Estimates and limits brought back from Fisher's scale."""
    numbers = [name for name in table.columns if name != "patient_id"]
    return table.assign(**{name: np.tanh(table[name].astype(float)) for name in numbers})


def _with_estimate(start: Duality, found: _Correlations, seed: int) -> Duality:
    expected = found.value[:, 1:].mean(axis=1)
    difference = found.value[:, 0] - expected
    fit = meta(difference, found.variance)
    null = weighted_null(found.value[:, 1:] - expected[:, None], found.variance, fit.tau2)
    limits = np.tanh([fit.estimate, fit.ci_low, fit.ci_high, fit.ci90_low, fit.ci90_high])
    _LOG.info("P4: %d patients, rank correlation %.2f [%.2f, %.2f]", fit.n, limits[0], limits[1], limits[2])
    return replace(
        start,
        fit=fit,
        test=sign_flip(difference, seed=seed),
        estimate=float(limits[0]),
        ci_low=float(limits[1]),
        ci_high=float(limits[2]),
        ci90_low=float(limits[3]),
        ci90_high=float(limits[4]),
        p_permutation=_permutation_p(found, seed),
        null=null,
        p_gene_set=set_null_p(fit.estimate, null),
        leave_one_out=_as_correlations(leave_one_out(found.names, difference, found.variance)),
    )
