"""The kinds of test a claim can ask for: for each, how it is computed and how the plan is applied to the result.

A new kind is one entry of :data:`KINDS`, its name in ``claims.schema.yaml`` and its checks in ``plan_checks``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pandas as pd

from dtcflow.cells import single_malignant
from dtcflow.evidence.claims import Judged, adjust_families, judge_identity, judge_paired
from dtcflow.evidence.composite import evaluate_composite, joint_p, judge_composite
from dtcflow.evidence.contrasts import Floats, tumour_patients
from dtcflow.evidence.design import mixes_protocols
from dtcflow.evidence.dissimilarity import OWN_EXPRESSION, evaluate_dissimilarity
from dtcflow.evidence.duality import Duality, evaluate_duality
from dtcflow.evidence.existence import Existence, evaluate_existence
from dtcflow.evidence.genome_claims import PatientGenomes, genomes_of, judge_dissimilarity, judge_rarity
from dtcflow.evidence.identity import identity_share
from dtcflow.evidence.layout import at_timepoint
from dtcflow.evidence.numeric import Case
from dtcflow.evidence.paired import Cohort, Paired, doubts_among, evaluate_paired
from dtcflow.evidence.plan import GROUPS, POPULATIONS, Claim, Plan, Rules
from dtcflow.evidence.plan_checks import claim_panel
from dtcflow.evidence.power import smallest_p
from dtcflow.evidence.rarity import evaluate_rarity
from dtcflow.evidence.specificity import evaluate_specificity, judge_specificity
from dtcflow.evidence.subset_claims import existence_controls, existence_p, judge_duality, judge_existence
from dtcflow.evidence.unpaired import evaluate_unpaired
from dtcflow.evidence.within import Within

NAN: Final = float("nan")


@dataclass(frozen=True)
class Context:
    """What a claim is computed from.

    Attributes
    ----------
    cohort, rules
        Cells, counts and signatures; thresholds of the plan.
    settings
        Block ``evidence`` of the configuration.
    seed
        Start of every random stream.
    known
        Results of the claims computed before, by id: a claim about another one (``of``) comes after it.
    genomes
        Arm statistics of the cells by patient; empty where copy number by cell is not at hand.
    """

    cohort: Cohort
    rules: Rules
    settings: Mapping[str, Any]
    seed: int
    known: Mapping[str, Evaluated] = field(default_factory=dict)
    genomes: Mapping[str, PatientGenomes] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """A computed claim: the result of its kind, and what every kind has.

    ``patients`` holds rows of ``patients.tsv`` with the column ``analysis``; ``p_value`` is NaN for a claim that takes
    no part in its family; ``smallest_p`` is the smallest p its test could give with these patients. The other tables
    are empty where a kind does not have them.
    """

    claim: Claim
    result: Any
    patients: pd.DataFrame
    p_value: float = NAN
    smallest_p: float = NAN
    sensitivity: pd.DataFrame = field(default_factory=pd.DataFrame)
    controls: pd.DataFrame = field(default_factory=pd.DataFrame)
    null: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Bench:
    """What a judge needs besides the result: thresholds, p adjusted within the family, verdicts of the gates."""

    rules: Rules
    p_adjusted: float
    gates: Mapping[str, str]
    p_attainable: float = NAN
    """Adjusted p the claim would have were its patients unanimous."""

    def options(self) -> dict[str, Any]:
        """Keywords of a judge of a test."""
        return {"p_adjusted": self.p_adjusted, "gates": self.gates, "p_attainable": self.p_attainable}


@dataclass(frozen=True)
class Kind:
    """One kind of test."""

    evaluate: Callable[[Context, Claim], Evaluated]
    judge: Callable[[Evaluated, Bench], Judged]


# ---------------------------------------------------------------------------------------------------------------------
# Evaluators and judges
# ---------------------------------------------------------------------------------------------------------------------


def _identity(context: Context, claim: Claim) -> Evaluated:
    cells = context.cohort.cells
    doubts = doubts_among(context.cohort.doubts, tumour_patients(cells))
    found = identity_share(cells, claim, context.rules, doubts=doubts)
    # a gate is no test of the hypothesis: its p value counts in no family
    return Evaluated(claim, found, found.patients.assign(analysis="primary"))


def _judge_identity(one: Evaluated, bench: Bench) -> Judged:
    return judge_identity(one.claim, bench.rules, one.result)


def _null_table(claim: Claim, null: Floats) -> pd.DataFrame:
    """Estimates of the random gene sets as rows of a result's ``null_distribution``."""
    columns = {"signature": claim.primary_signature, "random_set": range(null.size), "estimate": null}
    return pd.DataFrame({"claim_id": claim.id, **columns})


def _of_contrast(claim: Claim, found: Paired) -> Evaluated:
    null = _null_table(claim, found.null)
    least = smallest_p(found.fit.n) if claim.design == "paired" else NAN
    return Evaluated(claim, found, found.patients, found.p_value, least, found.sensitivity, found.controls, null)


DESIGNS: Final = {"paired": evaluate_paired, "unpaired": evaluate_unpaired}


def _contrast(context: Context, claim: Claim) -> Evaluated:
    evaluate = DESIGNS[claim.design]
    found = evaluate(context.cohort, claim, context.rules, settings=context.settings, seed=context.seed)
    return _of_contrast(claim, found)


def _judge_contrast(one: Evaluated, bench: Bench) -> Judged:
    return judge_paired(one.result, bench.rules, **bench.options())


def _composite(context: Context, claim: Claim) -> Evaluated:
    found = evaluate_composite(context.cohort, claim, context.rules, settings=context.settings, seed=context.seed)
    least = joint_p([smallest_p(found.contrast.fit.n), smallest_p(found.fit.n)])
    start = _of_contrast(claim, found.contrast)
    return replace(start, result=found, patients=found.patients, p_value=found.p_value, smallest_p=least)


def _judge_composite(one: Evaluated, bench: Bench) -> Judged:
    return judge_composite(one.result, bench.rules, **bench.options())


def _specificity(context: Context, claim: Claim) -> Evaluated:
    families = {name: one.family for name, one in context.cohort.panel.items()}
    contrast = context.known[claim.of].result
    found = evaluate_specificity(contrast, claim, context.rules, families=families, seed=context.seed)
    least = joint_p([smallest_p(one.fit.n) for one in found.components])
    return Evaluated(claim, found, found.patients, found.p_value, least)


def _judge_specificity(one: Evaluated, bench: Bench) -> Judged:
    return judge_specificity(one.result, bench.rules, **bench.options())


def _absent(context: Context, claim: Claim) -> tuple[str, ...]:
    """Compartments of the claim's groups that the cohort has no sample of, at the claim's time point."""
    cells = context.cohort.cells
    there = cells.loc[at_timepoint(cells, claim.timepoint), "compartment"]
    names = (claim.a, claim.b) if claim.test in ("existence", "duality", "dissimilarity") else (claim.a,)
    groups = [POPULATIONS[name] for name in names]
    return tuple(group.place for group in groups if not there.isin(group.compartments).any())


@dataclass(frozen=True)
class _Facts:
    """A result with the facts of the cohort its judge needs."""

    found: Any
    absent: tuple[str, ...]
    doubts: tuple[str, ...]
    options: dict[str, bool]


def _with_facts(context: Context, claim: Claim, found: Any, p: float, n: int, **options: bool) -> Evaluated:
    patients = found.patients.assign(analysis="primary", contrast=claim.contrast)
    if "samples_left_out" in patients:
        patients["samples_left_out"] = (
            patients["samples_left_out"].astype(object).where(patients["samples_left_out"].notna(), "")
        )
    usable = patients.loc[patients["usable"].astype(bool), "patient_id"].astype(str).tolist()
    doubts = doubts_among(context.cohort.doubts, usable)
    facts = _Facts(found, _absent(context, claim), doubts, options)
    return Evaluated(claim, facts, patients, p, smallest_p(n) if n else NAN)


def _judge_facts(judge: Callable[..., Judged]) -> Callable[[Evaluated, Bench], Judged]:
    def apply(one: Evaluated, bench: Bench) -> Judged:
        facts: _Facts = one.result
        case = Case(absent=facts.absent, doubts=facts.doubts, **bench.options())
        return judge(one.claim, facts.found, bench.rules, case, **facts.options)

    return apply


def _at(context: Context, claim: Claim) -> Cohort:
    """The cohort at the claim's time point, with the claim's signatures as they are scored."""
    cohort = context.cohort
    sets, _ = claim_panel(claim, cohort.panel, cohort.markers)
    return replace(
        cohort, cells=cohort.cells[at_timepoint(cohort.cells, claim.timepoint)], panel={**cohort.panel, **sets}
    )


def _plate(cohort: Cohort, claim: Claim) -> bool:
    """Whether tumour cells of the claim's groups are of full-length data."""
    cells = cohort.cells
    if "platform" not in cells:
        return False
    places = [place for name in (claim.a, claim.b) for place in POPULATIONS[name].compartments]
    own = (cells["malignant_call"] == "malignant") & cells["compartment"].isin(places)
    return bool((cells.loc[own, "platform"].astype(str) == "plate").any())


def _mixed_protocols(cells: pd.DataFrame, claim: Claim, patients: pd.DataFrame) -> bool:
    """Whether the tumour cells of usable patients come from different platforms (:func:`mixes_protocols`)."""
    usable = patients.loc[patients["usable"].astype(bool), "patient_id"].astype(str)
    cells = cells[cells["patient_id"].astype(str).isin(usable)]
    place = cells["compartment"].astype(str)
    side = place.map({GROUPS[claim.b]: 1, GROUPS[claim.a]: 0})
    kept = single_malignant(cells) & side.notna().to_numpy(dtype=bool)
    return mixes_protocols(cells.assign(side=side)[kept])


def _within(context: Context, claim: Claim, *, cells: int) -> Within:
    """How the cells of a claim's group are asked; ``cells`` of them a patient needs."""
    rules = context.rules
    return Within(
        group=claim.a,
        reference=claim.b,
        cells=cells,
        covariates=claim.covariates,
        estimate_patients=rules.estimate_patients,
        random_sets=rules.random_sets,
        gates=rules.coverage_gates,
        max_cells=int(context.settings["max_cells_per_group"]),
        seed=context.seed,
    )


def _of_scores(context: Context, claim: Claim, found: Existence | Duality, p: float) -> Evaluated:
    """A claim about scores within a group: with its random gene sets, and whether its cells are of full-length data."""
    one = _with_facts(context, claim, found, p, found.fit.n, plate=_plate(context.cohort, claim))
    return replace(one, null=_null_table(claim, found.null))


def _existence(context: Context, claim: Claim) -> Evaluated:
    found = evaluate_existence(
        _at(context, claim),
        _within(context, claim, cells=context.rules.cells_a),
        signature=claim.primary_signature,
        negative_controls=claim.negative_controls,
        sesoi=claim.sesoi,
        well_cells=claim.subset_cells,
    )
    one = _of_scores(context, claim, found, existence_p(found))
    return replace(one, controls=existence_controls(claim, found))


def _duality(context: Context, claim: Claim) -> Evaluated:
    found = evaluate_duality(
        _at(context, claim),
        _within(context, claim, cells=context.rules.cells_fraction),
        stemness=claim.primary_signature,
        dormancy=claim.dormancy_signature,
    )
    return _of_scores(context, claim, found, found.test.p_value)


def _dissimilarity(context: Context, claim: Claim) -> Evaluated:
    cells = context.cohort.cells[at_timepoint(context.cohort.cells, claim.timepoint)]
    found = evaluate_dissimilarity(
        genomes_of(context.genomes, cells),
        sesoi=claim.sesoi,
        estimate_patients=context.rules.estimate_patients,
        repeats=int(context.settings["depth_repeats"]),
        seed=context.seed,
    )
    facts = {"given": bool(context.genomes), "mixed": _mixed_protocols(cells, claim, found.patients)}
    one = _with_facts(context, claim, found, found.test.p_value, found.fit.n, **facts)
    low = one.patients.assign(
        analysis=OWN_EXPRESSION,
        floor=one.patients["floor"] + one.patients["own_expression"],
        value_a=one.patients["value_low"],
        difference=one.patients["value_low"] - claim.sesoi,
        variance=one.patients["variance_low"],
    )
    return replace(one, patients=pd.concat([one.patients, low], ignore_index=True))


def _rarity(context: Context, claim: Claim) -> Evaluated:
    cohort = context.cohort
    sheet = cohort.samples
    if sheet is None:
        sheet = cohort.cells[["sample_id", "patient_id", "compartment"]].drop_duplicates()
    found = evaluate_rarity(
        sheet[at_timepoint(sheet, claim.timepoint)],
        cohort.cells[at_timepoint(cohort.cells, claim.timepoint)],
        sesoi=claim.sesoi,
        estimate_patients=context.rules.estimate_patients,
    )
    return _with_facts(context, claim, found, found.p_value, 0)


KINDS: Final[dict[str, Kind]] = {
    "identity_share": Kind(_identity, _judge_identity),
    "paired_contrast": Kind(_contrast, _judge_contrast),
    "composite_contrast": Kind(_composite, _judge_composite),
    "specificity": Kind(_specificity, _judge_specificity),
    "existence": Kind(_existence, _judge_facts(judge_existence)),
    "duality": Kind(_duality, _judge_facts(judge_duality)),
    "dissimilarity": Kind(_dissimilarity, _judge_facts(judge_dissimilarity)),
    "rarity": Kind(_rarity, _judge_facts(judge_rarity)),
}
"""By the value of ``test`` in the plan."""


def evaluate_claims(context: Context, claims: tuple[Claim, ...]) -> dict[str, Evaluated]:
    """Compute every evaluated claim, those about another claim after it; the result is in the order of the plan."""
    asked = [claim for claim in claims if claim.evaluated]
    known: dict[str, Evaluated] = {}
    for claim in sorted(asked, key=lambda one: bool(one.of)):
        known[claim.id] = KINDS[claim.test].evaluate(replace(context, known=known), claim)
    return {claim.id: known[claim.id] for claim in asked}


def judge_claims(plan: Plan, found: Mapping[str, Evaluated]) -> tuple[dict[str, Judged], dict[str, float]]:
    """Apply the plan to every computed claim, gates first; a gate that was not computed has not been passed.

    Returns
    -------
    tuple
        The judged claims by id, and the adjusted p values of those that have one.
    """
    p_values = {name: one.p_value for name, one in found.items()}
    adjusted = adjust_families(plan, p_values)
    judged: dict[str, Judged] = {}
    for name in (name for name in plan.gates if name in found):
        judged[name] = KINDS[found[name].claim.test].judge(found[name], Bench(plan.rules, NAN, {}))
    verdicts = {name: judged[name].decision.verdict if name in judged else "INCONCLUSIVE" for name in plan.gates}
    for name, one in found.items():
        if name not in judged:
            unanimous = adjust_families(plan, p_values | {name: one.smallest_p}).get(name, NAN)
            bench = Bench(plan.rules, adjusted.get(name, NAN), verdicts, unanimous if name in adjusted else NAN)
            judged[name] = KINDS[one.claim.test].judge(one, bench)
    return judged, adjusted
