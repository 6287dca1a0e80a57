"""P1: is there a subset of disseminated tumour cells that runs the stemness programme?

A subset shows in two ways. Cells that score high on one half of the signature score high on the other half too
(coherence), and the upper tail of one half, picked by the *other* half, lies above the rest (tail). Neither uses a gene
for choosing a cell and for judging it.

For a patient with cells i and the two halves' scores a, b, freed from depth, cell cycle and stress::

    coherence = sum_i a_i b_i / degrees of freedom        (mean over several splits of the genes)

Its expectation is the variance between cells of what the halves share, whatever the noise of either: 0 for cells that
differ by chance only, and also when *all* cells run the programme; ``f (1 - f) d^2`` for a share f of cells that lies d
above the others. Shuffling one half among the cells of a patient gives 0 on average, which is why no shuffling is done.
What any two sets of genes share in these cells (quality, state, composition) is the mean over pairs of random sets
matched gene by gene to the halves; it is subtracted. The unit is the squared standard deviation of a half's score
between primary tumour cells.

What it cannot tell: a tenth of the cells that runs a programme from a tenth that has lost it, a subset from a
continuum, or the stemness programme from another one that moves its genes together (the negative controls and the
random sets say which are excluded).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pandas as pd

from dtcflow.evidence.contrasts import Floats, Layout
from dtcflow.evidence.controls import contaminated
from dtcflow.evidence.inference import MetaAnalysis, SignFlip, set_null_p, sign_flip
from dtcflow.evidence.paired import BLANK, NO_TEST, PATIENT_COLUMNS, Cohort
from dtcflow.evidence.parts import halves, measured, pair_scores
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
from dtcflow.scores.signatures import GeneSet

_LOG = logging.getLogger(__name__)

NAN: Final = float("nan")
SPLITS: Final = 8
"""Splits of the signature into halves; each uses half of the pairs of genes, their mean nearly all."""
TAIL: Final = 1 / 3
"""Share of a patient's cells that counts as the upper tail."""
WINSOR: Final = 4.0
"""Scores are cut this far from their patient's median, in standard deviations between reference cells: one odd droplet
must not make a subset."""
MIN_FREEDOM: Final = 2
SESOI: Final = 0.25
"""Smallest coherence of interest. A share f of cells, at most one half, that lies d above the others moves the mean of
the patient by f d and has a coherence of f (1 - f) d^2 = (f d)^2 (1 - f) / f, which is at least (f d)^2. The smallest
shift of the mean that P2 counts is 0.5 standard deviations, so that no subset that could bring it about has a coherence
below 0.25: half of the cells one standard deviation above the others, a tenth of them 1.7."""
CONTROL_NULL: Final = 100
EXISTENCE_COLUMNS: Final = (*PATIENT_COLUMNS, "tail_a", "tail_b", "tail", "tail_variance")
CONTROL_COLUMNS: Final = ("signature", "n_patients", "estimate", "ci_low", "ci_high", "p_value", "ok")


@dataclass(frozen=True)
class Existence:
    """P1, computed; the defaults stand for "nothing to compute".

    Attributes
    ----------
    signature
        What was split into halves.
    patients
        One row per patient, :data:`EXISTENCE_COLUMNS`: ``value_a`` the coherence, ``value_b`` its expectation from
        random sets, ``n_cells_b`` the reference cells; ``tail_a``, ``tail_b`` and ``tail`` likewise.
    fit, test
        Coherence beyond random sets over patients: what decides. Squared standard deviations between reference cells.
    tail_fit, tail_test
        Upper tail of one half, picked by the other, beyond random sets; standard deviations between reference cells.
    null, p_gene_set
        Estimates of the random sets and the p value against them.
    adjusted
        As ``fit``, after the negative controls' scores were taken out within the group.
    controls
        The negative controls' own coherence, :data:`CONTROL_COLUMNS`; ``ok`` is false where it shows the effect.
    leave_one_out, tail_leave_one_out
        Estimate of the coherence, and of the tail, without each patient.
    n_called
        Malignant cells of the group.
    n_well
        Patients with ``well_cells`` cells of the group or more: what a refutation needs.
    covariates_used, covariates_missing
        Of the plan's covariates.
    coverage
        Table ``signature_coverage``.
    median_genes, median_genes_reference
        Median genes per cell of the group, and of the reference cells.
    mixed_protocols
        Whether the two come from different platforms.
    scale
        Standard deviation of a half's score between reference cells, in null standard deviations.
    n_genes
        Genes in both halves together.
    """

    signature: str
    patients: pd.DataFrame
    fit: MetaAnalysis = BLANK
    test: SignFlip = NO_TEST
    tail_fit: MetaAnalysis = BLANK
    tail_test: SignFlip = NO_TEST
    null: Floats = field(default_factory=lambda: np.zeros(0))
    p_gene_set: float = NAN
    adjusted: MetaAnalysis = BLANK
    controls: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(CONTROL_COLUMNS)))
    leave_one_out: pd.DataFrame = field(default_factory=pd.DataFrame)
    tail_leave_one_out: pd.DataFrame = field(default_factory=pd.DataFrame)
    n_called: int = 0
    n_well: int = 0
    covariates_used: tuple[str, ...] = ()
    covariates_missing: tuple[str, ...] = ()
    coverage: pd.DataFrame = field(default_factory=pd.DataFrame)
    median_genes: float = NAN
    median_genes_reference: float = NAN
    mixed_protocols: bool = False
    scale: float = NAN
    n_genes: int = 0


# ---------------------------------------------------------------------------------------------------------------------
# Halves
# ---------------------------------------------------------------------------------------------------------------------


def half_scores(prepared: Prepared, one: GeneSet, *, splits: int, n_null: int, seed: int) -> Floats | None:
    """Calibrated z of both halves of a measured signature and of pairs of random sets, freed from the covariates.

    Returns
    -------
    Cells x splits x 2 x (1 + random sets): the signature first. None when a half has too few genes.
    """
    parts = []
    for split in range(splits):
        first, second = halves(one, prepared.statistics, split=split)
        scored = pair_scores(prepared, first, second, label=f"split {split}", n_null=n_null, seed=seed)
        if scored is None:
            return None
        parts.append(scored)
    return np.stack(parts, axis=1)


def reference_scale(prepared: Prepared, z: Floats) -> Floats:
    """Standard deviation between reference cells of each set's half score, pooled over patients, halves and splits."""
    base = z[~prepared.own]
    patient = prepared.layout.patient[~prepared.own]
    squares, freedom = np.zeros(z.shape[-1]), 0
    for p in np.unique(patient):
        rows = base[patient == p]
        if len(rows) > 1:
            squares += ((rows - rows.mean(axis=0)) ** 2).sum(axis=0).mean(axis=(0, 1))
            freedom += len(rows) - 1
    return np.asarray(np.sqrt(squares / max(freedom, 1)), dtype=float)


# ---------------------------------------------------------------------------------------------------------------------
# Patients
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coherence:
    """Coherence and tail per patient (rows) and set (columns; the signature first), and the coherence's variance."""

    names: tuple[str, ...]
    value: Floats
    tail: Floats
    variance: Floats
    freedom: Floats

    @property
    def expected(self) -> Floats:
        """Mean over random sets, per patient."""
        return np.asarray(self.value[:, 1:].mean(axis=1), dtype=float)

    @property
    def excess(self) -> Floats:
        """Coherence of the signature beyond random sets."""
        return np.asarray(self.value[:, 0] - self.expected, dtype=float)

    @property
    def tail_expected(self) -> Floats:
        """Mean tail of the random sets."""
        return np.asarray(self.tail[:, 1:].mean(axis=1), dtype=float)

    @property
    def tail_variance(self) -> Floats:
        """Spread of the random sets' tails: what chance does to a tail of this patient."""
        return np.asarray(self.tail[:, 1:].var(axis=1, ddof=1), dtype=float)


def _upper_tail(pick: Floats, judge: Floats, share: float) -> Floats:
    """Mean of ``judge`` over the cells highest in ``pick`` less that of the others, per column."""
    n = len(pick)
    top = min(max(1, round(share * n)), n - 1)
    chosen = np.argsort(-pick, axis=0, kind="stable")[:top]
    inside = np.take_along_axis(judge, chosen, axis=0).sum(axis=0)
    return np.asarray(inside / top - (judge.sum(axis=0) - inside) / (n - top), dtype=float)


def coherence(prepared: Prepared, z: Floats, *, remove: Floats | None = None, tail: float = TAIL) -> Coherence:
    """Reduce the halves of a patient's cells to coherence and tail.

    Parameters
    ----------
    prepared
        The cells.
    z
        From :func:`half_scores`.
    remove
        Cells x scores to take out within the group as well (slopes pooled over patients).
    tail
        Share of cells in the upper tail.
    """
    scale = reference_scale(prepared, z)
    scale = np.where(scale > 0, scale, np.nan)
    sample = prepared.layout.table["sample"].to_numpy(dtype=object)
    n_cells, splits, _, width = z.shape
    limit = WINSOR * np.broadcast_to(scale, z.shape[1:]).reshape(-1)
    flat = z.reshape(n_cells, -1)
    parts: dict[str, tuple[Floats, Floats, int]] = {}
    for name, rows in prepared.blocks().items():
        project, freedom = annihilator(sample[rows], prepared.nuisance[rows])
        if freedom >= MIN_FREEDOM:
            extra = np.zeros((rows.size, 0)) if remove is None else project @ remove[rows]
            own = flat[rows] - np.median(flat[rows], axis=0)
            parts[name] = (project @ np.clip(own, -limit, limit), extra, freedom)
    if remove is not None and parts:
        x = np.concatenate([extra for _, extra, _ in parts.values()])
        slopes = np.linalg.lstsq(x, np.concatenate([own for own, _, _ in parts.values()]), rcond=1e-8)[0]
        parts = {name: (own - extra @ slopes, extra, freedom) for name, (own, extra, freedom) in parts.items()}
    value, tails, products, left = [], [], [], []
    for own, _, freedom in parts.values():
        scaled = own.reshape(-1, splits, 2, width) / scale
        first, second = scaled[:, :, 0], scaled[:, :, 1]
        product = (first * second).mean(axis=1)
        value.append(product.sum(axis=0) / freedom)
        both = [
            _upper_tail(pick[:, k], judge[:, k], tail)
            for k in range(splits)
            for pick, judge in ((first, second), (second, first))
        ]
        tails.append(np.mean(both, axis=0))
        products.append(float(((product[:, 0] - product[:, 0].mean()) ** 2).sum()))
        left.append(freedom)
    freedom_of = np.array(left, dtype=float)
    # with a dozen cells a patient's own variance says little: it is pooled
    pooled = float(np.sum(products) / freedom_of.sum()) if left else NAN
    shape = (0, width)
    return Coherence(
        names=tuple(parts),
        value=np.array(value) if value else np.zeros(shape),
        tail=np.array(tails) if tails else np.zeros(shape),
        variance=pooled / freedom_of,
        freedom=freedom_of,
    )


# ---------------------------------------------------------------------------------------------------------------------
# The claim
# ---------------------------------------------------------------------------------------------------------------------


def evaluate_existence(
    cohort: Cohort,
    how: Within,
    *,
    signature: str,
    negative_controls: Sequence[str] = (),
    sesoi: float = SESOI,
    well_cells: int = 20,
    splits: int = SPLITS,
) -> Existence:
    """Compute P1.

    Parameters
    ----------
    cohort, how
        Cells, counts, signatures; and what is asked of them.
    signature
        Primary stemness signature (without proliferation genes).
    negative_controls
        Haematopoietic signatures; the genes they share with ``signature`` are left out.
    sesoi
        Used for the negative controls' ``ok`` only.
    well_cells
        Cells of the group from which a patient counts towards a refutation.
    splits
        Splits into halves.

    Returns
    -------
    Existence
        Complete also when nothing can be computed: then every number is NaN and every patient has a reason.
    """
    prepared = prepare(cohort, how, exclude=cohort.panel[signature].genes)
    layout = prepared if isinstance(prepared, Layout) else prepared.layout
    start = Existence(
        signature=signature,
        patients=_patient_rows(layout, signature, how.group, None, "no patient has enough cells"),
        n_called=int(layout.overview["n_cells_a"].sum()),
        n_well=int((layout.overview["n_cells_a"] >= well_cells).sum()),
        covariates_missing=how.covariates,
    )
    if isinstance(prepared, Layout):
        return start
    start = replace(
        start,
        covariates_used=prepared.used,
        covariates_missing=prepared.missing,
        median_genes=prepared.median_genes,
        median_genes_reference=prepared.median_genes_reference,
        mixed_protocols=prepared.mixed_protocols,
    )
    own = cohort.panel[signature]
    wanted = {signature: own}
    wanted |= {name: cohort.panel[name].without(own.genes) for name in negative_controls}
    checked = check_coverage(prepared, wanted, gates=how.gates, synonyms=cohort.synonyms)
    start = replace(start, coverage=checked)
    if not prepared.enough_reference:
        reason = f"fewer than 30 malignant cells of the reference group {how.reference} in the cohort"
        return replace(start, patients=_patient_rows(layout, signature, how.group, None, reason))
    if not scorable(checked, signature):
        reason = f"{signature} cannot be scored"
        return replace(start, patients=_patient_rows(layout, signature, how.group, None, reason))
    one = measured(own, prepared.statistics, cohort.synonyms)
    z = half_scores(prepared, one, splits=splits, n_null=how.random_sets, seed=how.seed)
    if z is None:
        reason = f"{signature} has too few genes for two halves"
        return replace(start, patients=_patient_rows(layout, signature, how.group, None, reason))
    found = coherence(prepared, z)
    start = replace(
        start,
        patients=_patient_rows(layout, signature, how.group, found, ""),
        scale=float(reference_scale(prepared, z)[0]),
        n_genes=len(one.genes),
    )
    if len(found.names) < how.estimate_patients:
        return start
    controls = {
        name: measured(wanted[name], prepared.statistics, cohort.synonyms) if scorable(checked, name) else None
        for name in negative_controls
    }
    return _with_estimate(start, prepared, z, found, controls, sesoi=sesoi, splits=splits, seed=how.seed)


def _patient_rows(layout: Layout, signature: str, group: str, found: Coherence | None, reason: str) -> pd.DataFrame:
    """Rows of the patients; ``reason`` is why those with enough cells have no value."""
    values = None
    if found is not None:
        values = {
            "value_a": found.value[:, 0],
            "value_b": found.expected,
            "difference": found.excess,
            "variance": found.variance,
            "tail_a": found.tail[:, 0],
            "tail_b": found.tail_expected,
            "tail": found.tail[:, 0] - found.tail_expected,
            "tail_variance": found.tail_variance,
        }
    names = () if found is None else found.names
    contrast = f"halves within {group}"
    rows = patient_table(layout, contrast=contrast, signature=signature, reason=reason, names=names, values=values)
    return rows.reindex(columns=list(EXISTENCE_COLUMNS))


def _with_estimate(
    start: Existence,
    prepared: Prepared,
    z: Floats,
    found: Coherence,
    controls: Mapping[str, GeneSet | None],
    *,
    sesoi: float,
    splits: int,
    seed: int,
) -> Existence:
    fit = meta(found.excess, found.variance)
    tail = found.tail[:, 0] - found.tail_expected
    null = weighted_null(found.value[:, 1:] - found.expected[:, None], found.variance, fit.tau2)
    rows, scores = [], []
    for name, one in controls.items():
        n_null = min(found.value.shape[1] - 1, CONTROL_NULL)  # a control needs their mean, not their tail
        theirs = None if one is None else half_scores(prepared, one, splits=splits, n_null=n_null, seed=seed)
        if theirs is None:
            rows.append((name, 0, NAN, NAN, NAN, NAN, False))
            continue
        scores.append(theirs[:, :, :, 0].mean(axis=(1, 2)))
        own = coherence(prepared, theirs)
        its = meta(own.excess, own.variance)
        ok = math.isfinite(its.ci_low) and not contaminated(its.ci_low, its.ci_high, sign=1, sesoi=sesoi)
        p = sign_flip(own.excess, seed=seed).p_value
        rows.append((name, its.n, its.estimate, its.ci_low, its.ci_high, p, ok))
    adjusted = BLANK
    if scores:
        less = coherence(prepared, z, remove=np.column_stack(scores))
        adjusted = meta(less.excess, less.variance)
    _LOG.info("P1: %d patients, coherence %.3f [%.3f, %.3f]", fit.n, fit.estimate, fit.ci_low, fit.ci_high)
    return replace(
        start,
        fit=fit,
        test=sign_flip(found.excess, seed=seed),
        tail_fit=meta(tail, found.tail_variance),
        tail_test=sign_flip(tail, seed=seed),
        null=null,
        p_gene_set=set_null_p(fit.estimate, null),
        adjusted=adjusted,
        controls=pd.DataFrame(rows, columns=list(CONTROL_COLUMNS)),
        leave_one_out=leave_one_out(found.names, found.excess, found.variance),
        tail_leave_one_out=leave_one_out(found.names, tail, found.tail_variance),
    )
