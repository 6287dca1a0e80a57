"""Contrasts between groups of different people: means of patients, compared within studies.

One value per patient, as for a paired contrast. The estimate is the mean of group a minus that of group b within each
study, averaged over studies with weights ``n_a n_b / (n_a + n_b)``; its standard error is Welch's, with the variances
between patients pooled over studies within each group, and Satterthwaite's degrees of freedom. The p value exchanges
the group labels of patients within their study: every assignment where there are few, 10,000 seeded ones where there
are many. A study with one group only says nothing about the difference and takes no part.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from dtcflow.evidence import controls as control
from dtcflow.evidence.adjust import adjusted_values
from dtcflow.evidence.alternatives import BOTH, CALIBRATED, CELL_AGGREGATIONS
from dtcflow.evidence.contrasts import Floats, GroupValues, Layout, average, group_values
from dtcflow.evidence.design import find_unpaired_aliasing
from dtcflow.evidence.inference import MetaAnalysis, SignFlip, set_null_p
from dtcflow.evidence.layout import stream
from dtcflow.evidence.paired import NAN, NO_TEST, Cohort, Paired, begin, patient_rows, samples_of, score_claim
from dtcflow.evidence.plan import Claim, Rules
from dtcflow.evidence.power import minimum_detectable_effect, patients_needed
from dtcflow.evidence.robustness import SPECIFICATION_COLUMNS, Robustness
from dtcflow.evidence.scoring import Scored

MAX_ENUMERATED: Final = 10_000
"""Up to this many assignments of labels every one is looked at."""
N_RANDOM: Final = 10_000
_TIE: Final = 1e-9
METHOD: Final = (
    "difference of patient means within studies, Welch standard error; p by exchanging labels of patients within study"
)


@dataclass(frozen=True)
class People:
    """One value per patient of an unpaired contrast, in patients' order: value, side (0, 1) and study."""

    value: Floats
    side: NDArray[np.int64]
    study: NDArray[np.str_]

    def without(self, left: int) -> People:
        """The same without one patient."""
        rest = np.arange(self.value.size) != left
        return People(self.value[rest], self.side[rest], self.study[rest])

    def counting(self) -> NDArray[np.bool_]:
        """Patients with a value whose study has both groups."""
        known = np.isfinite(self.value)
        both = {
            name for name in set(self.study.tolist()) if len(set(self.side[known & (self.study == name)].tolist())) == 2
        }
        return np.asarray(known & np.isin(self.study, sorted(both)))


def _blocks(people: People) -> list[tuple[NDArray[np.int64], int]]:
    """Patients of each study that has both groups, ordered by value, and how many of them are on side 0.

    The order of patients must not decide a tie: within a study they are taken by value, then side.
    """
    use = people.counting()
    out = []
    for name in sorted(set(people.study[use].tolist())):
        own = np.flatnonzero(use & (people.study == name))
        own = own[np.lexsort((people.side[own], people.value[own]))]
        out.append((own, int((people.side[own] == 0).sum())))
    return out


def welch(people: People) -> MetaAnalysis:
    """Difference of means within studies with its intervals; NaN where a group has one patient in all (no spread).

    Only ``n`` (patients that count), estimate, standard error and limits are filled.
    """
    blocks = _blocks(people)
    n = sum(own.size for own, _ in blocks)
    if not blocks:
        return MetaAnalysis(0, *[NAN] * 12)
    weight = np.array([k * (own.size - k) / own.size for own, k in blocks])
    weight = weight / weight.sum()
    difference, squares, freedom = [], np.zeros(2), np.zeros(2)
    for own, _ in blocks:
        groups = [people.value[own[people.side[own] == k]] for k in (0, 1)]
        difference.append(groups[0].mean() - groups[1].mean())
        for k in (0, 1):
            squares[k] += float(((groups[k] - groups[k].mean()) ** 2).sum())
            freedom[k] += groups[k].size - 1
    estimate = float(weight @ np.array(difference))
    if (freedom < 1).any():
        return MetaAnalysis(n, estimate, *[NAN] * 11)
    variance = squares / freedom
    load = [float((weight**2 / np.array([(k, own.size - k)[side] for own, k in blocks])).sum()) for side in (0, 1)]
    parts = variance * np.array(load)
    error = math.sqrt(max(float(parts.sum()), 1e-18))
    df = float(parts.sum() ** 2 / max(float((parts**2 / freedom).sum()), 1e-300)) if parts.sum() > 0 else freedom.sum()
    t95, t90 = (float(stats.t.isf(alpha / 2, df)) for alpha in (0.05, 0.10))
    limits = [estimate - t95 * error, estimate + t95 * error, estimate - t90 * error, estimate + t90 * error]
    return MetaAnalysis(n, estimate, error, *limits, *[NAN] * 6)


def _assignments(blocks: Sequence[tuple[NDArray[np.int64], int]], *, seed: int) -> tuple[list[NDArray[np.bool_]], bool]:
    """For each study, assignments x patients: who is on side 0; and whether these are all assignments."""
    total = math.prod(math.comb(own.size, k) for own, k in blocks)
    if total <= MAX_ENUMERATED:
        per_study = []
        for own, k in blocks:
            choices = list(itertools.combinations(range(own.size), k))
            table = np.zeros((len(choices), own.size), dtype=bool)
            table[np.repeat(np.arange(len(choices)), k), np.array(choices, dtype=np.int64).ravel()] = True
            per_study.append(table)
        grid = np.stack(np.meshgrid(*[np.arange(len(one)) for one in per_study], indexing="ij"), -1)
        index = grid.reshape(-1, len(per_study))
        return [table[index[:, i]] for i, table in enumerate(per_study)], True
    out = []
    for number, (own, k) in enumerate(blocks):
        ranks = stream(seed, "labels", number, own.size).random((N_RANDOM, own.size)).argsort(axis=1)
        out.append(ranks < k)
    return out, False


def exchange_labels(people: People, *, seed: int = 0) -> SignFlip:
    """Two-sided p of the difference of means when labels are exchanged within studies.

    The share of assignments whose stratified difference is at least as large, in size, as the observed one: exact
    where all are looked at, else ``(1 + hits) / (1 + 10,000)``.
    """
    blocks = _blocks(people)
    if not blocks:
        return NO_TEST
    tables, exact = _assignments(blocks, seed=seed)
    weight = np.array([k * (own.size - k) / own.size for own, k in blocks])
    weight = weight / weight.sum()
    found, observed = np.zeros(len(tables[0])), 0.0
    for (own, k), table, w in zip(blocks, tables, weight, strict=True):
        value, n = people.value[own], own.size
        sums = table @ value
        found += w * (sums / k - (value.sum() - sums) / (n - k))
        first = people.side[own] == 0
        observed += float(w * (value[first].mean() - value[~first].mean()))
    slack = _TIE * max(float(np.abs(people.value[people.counting()]).sum()), 1e-300)
    hits = int((np.abs(found) >= abs(observed) - slack).sum())
    n = len(tables[0])
    return SignFlip(hits / n if exact else (1 + hits) / (1 + n), n, exact)


# ---------------------------------------------------------------------------------------------------------------------
# From cells to people
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Means:
    """Standardised values of the patients, patients x scores, with their sampling variance; ``scale`` one per score."""

    value: Floats
    variance: Floats
    side: NDArray[np.int64]
    study: NDArray[np.str_]
    scale: Floats

    def people(self, column: int) -> People:
        """Values of one score."""
        return People(self.value[:, column], self.side, self.study)


def patient_means(groups: GroupValues, layout: Layout, *, minimum: int, scale: Floats | None = None) -> Means:
    """Bring values of patients to the unit of a paired contrast: the median SD between cells of a reference patient."""
    n_patients = len(layout.patients)
    first = layout.table.drop_duplicates("patient_id").set_index("patient_id")["side"]
    side = np.array([int(first[name]) for name in layout.patients], dtype=np.int64)
    rows = np.arange(n_patients)
    value, spread, n = groups.value[rows, side], groups.variance[rows, side], groups.n[rows, side]
    freedom = groups.freedom[rows, side]
    reference = (side == 1) & (n >= minimum) & (freedom > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = scale
        if unit is None:
            unit = np.median(np.sqrt(spread[reference]), axis=0) if reference.any() else np.full(value.shape[1], NAN)
        unit = np.where(unit > 0, unit, np.nan)
        value = np.where((n >= minimum)[:, None], value, np.nan) / unit
        variance = np.where((n >= minimum)[:, None], spread / n[:, None], np.nan) / unit**2
    return Means(value, variance, side, np.array(layout.study, dtype=str), unit)


def _rows(
    layout: Layout, claim: Claim, analysis: str, signature: str, means: Means | None, column: int
) -> pd.DataFrame:
    frame = patient_rows(layout, claim=claim, analysis=analysis, signature=signature)
    if means is None:
        return frame
    frame = frame.set_index("patient_id")
    names = list(layout.patients)
    for k, place in enumerate(("value_a", "value_b")):
        frame.loc[names, place] = np.where(means.side == k, means.value[:, column], np.nan)
    frame.loc[names, "variance"] = means.variance[:, column]
    counts = means.people(column).counting()
    frame.loc[names, "usable"] = counts
    frame.loc[names, "reason"] = np.where(counts, "", "the study has no patient of the other group")
    frame["scale"] = means.scale[column]
    return frame.reset_index()


def _specifications(claim: Claim, rules: Rules, layout: Layout, scored: Scored) -> pd.DataFrame:
    """The table of ``robustness.specifications`` for an unpaired contrast."""
    voting = [(signature, purge, name, True) for signature, purge, name in claim.multiverse_signatures()]
    shown = [(name, "none", name, False) for name in claim.reported_signatures]
    strict = layout.table["strict"].to_numpy(dtype=bool)
    rows = []
    for aggregation in CELL_AGGREGATIONS:
        for call, cells in (("loose", None), ("strict", strict)):
            for depth, arrays in (("matched", scored.matched), ("full", (scored.full,))):
                parts = [group_values(z, layout, aggregation=aggregation, trim=rules.trim, cells=cells) for z in arrays]
                means = patient_means(average(parts), layout, minimum=rules.value_cells)
                for signature, purge, name, votes in [*voting, *shown]:
                    column = scored.column(name)
                    fit = MetaAnalysis(0, *[NAN] * 12)
                    if column is not None and _enough(means.people(column), rules):
                        fit = welch(means.people(column))
                    facts = (claim.id, signature, purge, depth, aggregation, call, votes)
                    reason = "" if fit.n else "not scorable, or too few people"
                    rows.append((*facts, fit.n, fit.estimate, fit.ci_low, fit.ci_high, CALIBRATED, BOTH, reason))
    frame = pd.DataFrame(rows, columns=list(SPECIFICATION_COLUMNS))
    return frame.sort_values(["votes", "signature", "purge"], ascending=[False, True, True], kind="stable")


def _sides(people: People) -> tuple[int, int]:
    use = people.counting()
    return int((use & (people.side == 0)).sum()), int((use & (people.side == 1)).sum())


def _enough(people: People, rules: Rules) -> bool:
    return min(_sides(people)) >= rules.estimate_patients


def _robustness(claim: Claim, people: People, table: pd.DataFrame, patients: Sequence[str]) -> Robustness:
    voting = table.loc[table["votes"].astype(bool), "estimate"].to_numpy(dtype=float)
    known = voting[np.isfinite(voting)]
    estimate = welch(people).estimate
    rows = []
    for left in np.flatnonzero(people.counting()).tolist():
        fit = welch(people.without(left))
        rows.append((patients[left], fit.estimate, fit.ci_low, fit.ci_high, fit.ci90_low, fit.ci90_high))
    columns = ["patient_id", "estimate", "ci_low", "ci_high", "ci90_low", "ci90_high"]
    return Robustness(
        n_specifications=voting.size,
        n_computable=known.size,
        agreement=float(np.mean(np.sign(known) == np.sign(estimate))) if known.size else NAN,
        below_sesoi=float(np.mean(known * claim.sign < claim.sesoi)) if known.size else NAN,
        median=float(np.median(known)) if known.size else NAN,
        leave_one_out=pd.DataFrame(rows, columns=columns),
    )


def evaluate_unpaired(cohort: Cohort, claim: Claim, rules: Rules, *, settings: Mapping[str, Any], seed: int) -> Paired:
    """Compute an unpaired contrast; parameters and result as for :func:`paired.evaluate_paired`.

    A verdict needs ``confirmatory_patients`` on each side. There is no split control: patients on side a have no
    reference cells of their own.
    """
    start = begin(cohort, claim, rules, settings=settings, seed=seed)
    layout = start.layout
    start = replace(start, n_sides=(0, 0), method=METHOD)
    if not layout.patients or layout.table["side"].nunique() < 2:
        return start
    rows = layout.table["row"].to_numpy(dtype=np.int64)
    scored, removed = score_claim(cohort, claim, rules, layout, settings=settings, seed=seed)
    means = patient_means(
        average([group_values(z, layout, trim=rules.trim) for z in scored.matched]), layout, minimum=rules.value_cells
    )
    wanted = [("primary", claim.primary_signature), ("confirmatory", claim.confirmatory_signature)]
    wanted += [("negative_control", name) for name in claim.negative_controls]
    wanted += [("reported", name) for name in claim.reported_signatures]
    blocks = []
    for analysis, name in wanted:
        column = scored.column(name)
        if name:
            blocks.append(_rows(layout, claim, analysis, name, None if column is None else means, column or 0))
    sides = [layout.patient[layout.side == k] for k in (0, 1)]
    genes = {
        group: float(np.median([np.median(scored.n_genes[layout.patient == p]) for p in sorted(set(side.tolist()))]))
        for group, side in zip((claim.a, claim.b), sides, strict=True)
    }
    own = cohort.cells.loc[rows]
    found = replace(
        start,
        patients=pd.concat(blocks, ignore_index=True),
        aliasing=find_unpaired_aliasing(samples_of(cohort.cells, layout)),
        sensitivity=_specifications(claim, rules, layout, scored),
        coverage=scored.coverage,
        median_genes=genes,
        plate="platform" in own and bool((own["platform"].astype(str) == "plate").any()),
        depth_repeats=len(scored.matched),
        n_cells=len(layout.table),
        n_genes_used=scored.n_genes_used,
        removed=removed,
    )
    column = scored.column(claim.primary_signature)
    if column is None:
        return found
    people = means.people(column)
    found = replace(found, n_sides=_sides(people), scale=float(means.scale[column]))
    if not _enough(people, rules):
        return found
    return _with_tests(found, own, scored, means, column, rules, seed)


def _with_tests(
    found: Paired, own: pd.DataFrame, scored: Scored, means: Means, column: int, rules: Rules, seed: int
) -> Paired:
    claim, layout, people = found.claim, found.layout, means.people(column)
    fit = welch(people)
    use = people.counting()
    # what a patient on each side adds to the variance of the difference: with n a side the difference has sd / sqrt(n)
    deviations = []
    for own_patients, _ in _blocks(people):
        for k in (0, 1):
            values = people.value[own_patients[people.side[own_patients] == k]]
            deviations.append((k, values - values.mean()))
    spread = [np.concatenate([d for k, d in deviations if k == side]) for side in (0, 1)]
    freedom = [max(s.size - len(_blocks(people)), 1) for s in spread]
    sd = math.sqrt(sum(float((s**2).sum()) / f for s, f in zip(spread, freedom, strict=True)))
    n = min(found.n_sides or (0, 0))
    rows = []
    for name in claim.negative_controls:
        at = scored.column(name)
        control_fit = welch(means.people(at)) if at is not None else MetaAnalysis(0, *[NAN] * 12)
        rows.append(control.negative_control(claim, name, control_fit))
    null = _gene_set_null(scored, claim, rules, layout, seed)
    p_gene_set = set_null_p(fit.estimate, null.estimates)
    rows.append(control.random_set_control(claim, null, p_gene_set, int(use.sum())))
    second = scored.column(claim.confirmatory_signature)
    second_people = None if second is None else means.people(second)
    groups, used, missing = adjusted_values(claim, layout, scored, own, trim=rules.trim)
    adjusted = found.adjusted
    patients = found.patients
    if groups is not None:
        moved = patient_means(groups, layout, minimum=rules.value_cells, scale=means.scale[[column]])
        adjusted = welch(moved.people(0))
        block = _rows(layout, claim, "adjusted", claim.primary_signature, moved, 0)
        patients = pd.concat([patients, block], ignore_index=True)
    return replace(
        found,
        fit=fit,
        test=exchange_labels(people, seed=seed),
        patients=patients,
        adjusted=adjusted,
        covariates_used=used,
        covariates_missing=missing,
        confirmatory=found.confirmatory if second_people is None else welch(second_people),
        confirmatory_test=NO_TEST if second_people is None else exchange_labels(second_people, seed=seed),
        robustness=_robustness(claim, people, found.sensitivity, layout.patients),
        controls=control.frame(rows),
        null=null.estimates,
        p_gene_set=p_gene_set,
        mde80=minimum_detectable_effect(sd, n, alpha=rules.alpha),
        patients_needed=patients_needed(claim.sesoi, sd, alpha=rules.alpha, minimum=rules.confirmatory_patients),
    )


def _gene_set_null(scored: Scored, claim: Claim, rules: Rules, layout: Layout, seed: int) -> control.GeneSetNull:
    """Estimate of each random set of the primary signature, as ``controls.gene_set_null`` for a paired contrast."""
    groups = scored.null.get(claim.primary_signature)
    if groups is None:
        return control.NO_NULL
    means = patient_means(groups, layout, minimum=rules.value_cells)
    people = [means.people(column) for column in range(means.value.shape[1])]
    estimates = np.array([welch(one).estimate for one in people])
    tests = [exchange_labels(one, seed=seed) for one in people]
    # an assignment and its mirror image differ by as much: with groups of one size each p is shared by two
    mirrored = all(2 * k == own.size for own, k in _blocks(people[0])) if people else True
    able = any((2 if mirrored else 1) / test.n_patterns <= rules.alpha for test in tests if test.n_patterns)
    return control.GeneSetNull(estimates, sum(test.p_value <= rules.alpha for test in tests) if able else None)
