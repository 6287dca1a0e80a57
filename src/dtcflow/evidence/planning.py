"""What a design can show, before anything is sequenced: simulated patients through the rules that will decide.

Counts and genes are left out: a cell is its standardised score, which makes a cohort a thousand times cheaper. The
rules are not imitated: differences, meta-analysis, sign-flip, leave-one-out and verdict are the functions of a real
run. ``docs/evidence_study.md`` compares the shares of each verdict with those of count-level cohorts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from dtcflow.contracts import InputError, Problem
from dtcflow.evidence.alternatives import BOTH, CALIBRATED, CELL_AGGREGATIONS
from dtcflow.evidence.claims import judge_identity, judge_paired
from dtcflow.evidence.contrasts import Aggregation, Differences, Floats, GroupValues, Layout, differences, trimmed_mean
from dtcflow.evidence.decide import Decision, refutes, supports
from dtcflow.evidence.identity import CONTINUITY, Identity
from dtcflow.evidence.inference import random_effects, set_null_p, sign_flip
from dtcflow.evidence.paired import Paired
from dtcflow.evidence.plan import Claim, Plan, Rules
from dtcflow.evidence.power import minimum_detectable_effect, patients_needed
from dtcflow.evidence.robustness import SPECIFICATION_COLUMNS, Robustness, assess, combine

Counts = NDArray[np.int64]

GENES_PER_CELL: Final[Mapping[float, float]] = {
    500: 340, 700: 447, 1000: 578, 1500: 795, 2000: 986, 3000: 1321, 5000: 1841, 8000: 2502, 12000: 3296,
}  # fmt: skip
"""Median genes in ovarian carcinoma cells thinned to that many transcripts (1,629 cells of three patients, 10x 3')."""
EFFECT_AT: Final[Mapping[float, float]] = {500: 0.63, 1000: 0.74, 2000: 0.86, 4500: 1.0, 9000: 1.05, 20000: 1.11}
"""Standardised effect at a depth relative to that at 4,500 transcripts: shallow scores are noisier (count-level cohorts
of 40 patients with 100 cells on either side, standard error .03)."""
EFFECTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
STRICT_SHARE: Final = 0.8
"""Share of called cells that meet the strict call, too."""
MARKS: Final = 3
"""Codes that a row of the table names."""
COLUMNS: Final = (
    *("patients", "dtcs", "depth", "genes_per_cell", "sesoi", "effect", "effect_at_depth", "power", "supported"),
    *("not_supported", "inconclusive", "standard_error", "codes", "mde80", "supported80"),
    "patients_needed",
)


@dataclass(frozen=True)
class Design:
    """A planned cohort and what is assumed about it.

    Attributes
    ----------
    patients
        Patients with both samples.
    dtcs, dtc_size, dtc_floor
        DTCs of a patient that pass every filter: negative binomial with this mean and size (3: half of the patients
        have between 6 and 16 for a mean of 12), never below the floor.
    reference_cells
        Primary tumour cells of a patient.
    depth
        Median transcripts of a cell of the shallower compartment.
    patient_sd, slope_sd
        Spread between patients of the level of the programme, and of its true difference between the compartments; in
        standard deviations between reference cells. The first cancels in a difference.
    cell_share
        Share of the variance between a patient's cells that is the programme; two signatures of it share that part,
        the rest is sampling noise of each.
    called_share
        Share of putative DTCs that are called.
    """

    patients: int
    dtcs: float = 12.0
    dtc_size: float = 3.0
    dtc_floor: int = 3
    reference_cells: int = 60
    depth: float = 4500.0
    patient_sd: float = 0.7
    slope_sd: float = 0.5
    cell_share: float = 0.5
    called_share: float = 0.97

    def genes_per_cell(self) -> float:
        """Median genes per cell expected at the depth."""
        return _interpolate(self.depth, GENES_PER_CELL)

    def effect_factor(self) -> float:
        """Standardised effect at the depth relative to that at 4,500 transcripts."""
        return _interpolate(self.depth, EFFECT_AT)


def _interpolate(depth: float, table: Mapping[float, float]) -> float:
    """Interpolate in log depth; below the first entry in proportion to it, above the last one constant."""
    known = np.array(list(table), dtype=float)
    values = np.array(list(table.values()), dtype=float)
    if depth < known[0]:
        return float(values[0] * depth / known[0])
    return float(np.interp(math.log(depth), np.log(known), values))


def _cells_per_patient(design: Design, rng: np.random.Generator) -> Counts:
    drawn = rng.negative_binomial(
        design.dtc_size, design.dtc_size / (design.dtc_size + design.dtcs), size=design.patients
    )
    return np.maximum(drawn, design.dtc_floor).astype(np.int64)


def _layout(n_dtcs: Sequence[int], n_reference: int, rules: Rules) -> Layout:
    """Patients in the form the rules read; cells have no rows here."""
    names = [f"P{p:04d}" for p in range(len(n_dtcs))]
    usable = [min(a, n_reference) >= rules.value_cells for a in n_dtcs]
    overview = pd.DataFrame(
        {
            "patient_id": names,
            "n_cells_a": np.asarray(n_dtcs, dtype=np.int64),
            "n_cells_b": n_reference,
            "usable": usable,
            "reason": ["" if fine else "few malignant cells" for fine in usable],
        }
    )
    return Layout(pd.DataFrame(), tuple(name for name, fine in zip(names, usable, strict=True) if fine), overview)


@dataclass(frozen=True)
class _Cells:
    """Scores of one patient and side, cells x 2 signatures, and which cells meet the strict call."""

    z: Floats
    strict: NDArray[np.bool_]


def _draw_cells(design: Design, effect: float, n_dtcs: Sequence[int], rng: np.random.Generator) -> list[list[_Cells]]:
    """Two signatures of one programme per cell, in standard deviations between a patient's reference cells.

    Most called cells also meet the strict call; which ones has nothing to do with their score.
    """
    own, rest = math.sqrt(design.cell_share), math.sqrt(1 - design.cell_share)
    out = []
    for n_dtc in n_dtcs:
        level = design.patient_sd * rng.standard_normal()
        slope = effect + design.slope_sd * rng.standard_normal()
        sides = []
        for n, shift in ((n_dtc, level + slope), (design.reference_cells, level)):
            programme = own * rng.standard_normal((n, 1))
            sides.append(_Cells(shift + programme + rest * rng.standard_normal((n, 2)), rng.random(n) < STRICT_SHARE))
        out.append(sides)
    return out


def _values(
    cells: Sequence[Sequence[_Cells]], rules: Rules, *, aggregation: Aggregation = "trimmed_mean", strict: bool = False
) -> Differences:
    """Differences of the patients, as :func:`dtcflow.evidence.contrasts.differences` makes them of group values."""
    blocks = [[one.z[one.strict] if strict else one.z for one in sides] for sides in cells]
    n = np.array([[len(block) for block in sides] for sides in blocks], dtype=np.int64)
    value, variance = np.full((len(blocks), 2, 2), np.nan), np.full((len(blocks), 2, 2), np.nan)
    for p, sides in enumerate(blocks):
        for k, block in enumerate(sides):
            if len(block):
                value[p, k] = np.median(block, axis=0) if aggregation == "median" else trimmed_mean(block, rules.trim)
            if len(block) > 1:
                variance[p, k] = block.var(axis=0, ddof=1)
    groups = GroupValues(value, variance, n, np.maximum(n - 1, 0))
    return differences(groups, minimum=rules.value_cells, aggregation=aggregation)


def _robustness(
    claim: Claim, rules: Rules, layout: Layout, cells: Sequence[Sequence[_Cells]], values: Differences, estimate: float
) -> Robustness:
    """Specifications that a score without genes still has: signature x aggregation x call; and leave-one-out."""
    rows = []
    for how in CELL_AGGREGATIONS:
        for call in ("loose", "strict"):
            found = _values(cells, rules, aggregation=how, strict=call == "strict")
            for column, signature in enumerate(("first", "second")):
                known = int(found.usable.sum()) >= rules.estimate_patients
                fit = combine(found, column) if known else random_effects([], [])
                line = (claim.id, signature, "none", "matched", how, call, True, fit.n, fit.estimate)
                rows.append((*line, fit.ci_low, fit.ci_high, CALIBRATED, BOTH, ""))
    table = pd.DataFrame(rows, columns=list(SPECIFICATION_COLUMNS))
    return assess(claim, estimate, table, values, 0, layout.patients)


def _gate(claim: Claim, rules: Rules, design: Design, n_dtcs: Counts, rng: np.random.Generator) -> Decision:
    """The identity gate of a cohort in which ``called_share`` of the putative cells are called."""
    called = n_dtcs
    putative = called + rng.negative_binomial(called, design.called_share)
    used = putative >= rules.value_cells
    k, m = called[used], putative[used]
    log_odds = np.log((k + CONTINUITY) / (m - k + CONTINUITY))
    fit = random_effects(log_odds, 1 / (k + CONTINUITY) + 1 / (m - k + CONTINUITY))
    p = sign_flip(log_odds - math.log(claim.sesoi / (1 - claim.sesoi))).p_value
    found = Identity(
        patients=pd.DataFrame(),
        share=float(expit(fit.estimate)),
        low=float(expit(fit.ci_low)),
        high=float(expit(fit.ci_high)),
        low90=float(expit(fit.ci90_low)),
        high90=float(expit(fit.ci90_high)),
        fit=fit,
        p_value=p,
        n_called=int((called >= claim.called_cells).sum()),
        n_malignant=int(called.sum()),
    )
    return judge_identity(claim, rules, found).decision


@dataclass(frozen=True)
class Outcome:
    """One simulated cohort: its sign-flip p, estimate with 95 % interval, and verdict."""

    p_value: float
    estimate: float
    ci_low: float
    ci_high: float
    decision: Decision


def simulate_outcome(plan: Plan, claim: Claim, design: Design, effect: float, rng: np.random.Generator) -> Outcome:
    """Draw the patients of a design and judge the claim on them.

    Parameters
    ----------
    plan
        Its rules, its gates and the size of its confirmatory family. Holm is applied as if every other claim of the
        family had a larger p: the claim's own p times the number of claims.
    claim
        A paired contrast.
    effect
        True mean difference at the design's depth, in standard deviations between reference cells, in the predicted
        direction.
    rng
        Source of all draws.

    Notes
    -----
    Aliasing, coverage and contamination are taken as absent, and adjustment as changing nothing: these depend on the
    cells one gets, not on how many. Random gene sets vary around zero by sampling alone.
    """
    rules = plan.rules
    n_dtcs = _cells_per_patient(design, rng)
    layout = _layout(n_dtcs.tolist(), design.reference_cells, rules)
    gates = {
        name: _gate(plan.claim(name), rules, design, n_dtcs, rng).verdict
        for name in plan.gates
        if plan.claim(name).test == "identity_share"
    }
    start = Paired(
        claim=claim,
        layout=layout,
        patients=pd.DataFrame({"analysis": []}),
        n_called_a=int(n_dtcs.sum()),
        median_genes=dict.fromkeys((claim.a, claim.b), design.genes_per_cell()),
    )
    enough = len(layout.patients) >= rules.estimate_patients
    if not enough:
        decision = judge_paired(start, rules, p_adjusted=math.nan, gates=gates).decision
        return Outcome(math.nan, math.nan, math.nan, math.nan, decision)
    drawn = _draw_cells(design, claim.sign * effect, n_dtcs.tolist(), rng)
    cells = [own for own, fine in zip(drawn, layout.overview["usable"], strict=True) if fine]
    values = _values(cells, rules)
    fit, test = combine(values, 0), sign_flip(values.difference[values.usable, 0])
    family = [one.id for one in plan.claims if one.evaluated and one.family == "confirmatory"]
    others = len(family) - 1 if claim.id in family else 0
    p_adjusted = min(1.0, test.p_value * (1 + others))  # Holm, this p the smallest
    null = rng.standard_normal(rules.random_sets) * math.sqrt(float(values.variance[values.usable, 0].mean()) / fit.n)
    held = supports(fit, p_adjusted=p_adjusted, sign=claim.sign, sesoi=claim.sesoi, alpha=rules.alpha)
    decided = held or refutes(fit, sign=claim.sign, sesoi=claim.sesoi)
    found = replace(start, fit=fit, test=test, adjusted=fit, null=null, p_gene_set=set_null_p(fit.estimate, null))
    if decided or fit.estimate * claim.sign >= claim.sesoi:  # no rule reads it otherwise
        found = replace(found, robustness=_robustness(claim, rules, layout, cells, values, fit.estimate))
    decision = judge_paired(found, rules, p_adjusted=p_adjusted, gates=gates).decision
    return Outcome(test.p_value, fit.estimate, fit.ci_low, fit.ci_high, decision)


def outcomes(plan: Plan, claim: Claim, design: Design, effect: float, *, cohorts: int, seed: int) -> list[Outcome]:
    """Simulate ``cohorts`` cohorts; cohort ``i`` depends on the seed and ``i`` only, so effects share their noise."""
    return [simulate_outcome(plan, claim, design, effect, np.random.default_rng([seed, i])) for i in range(cohorts)]


def _leading(codes: Iterable[tuple[str, ...]], n: int) -> str:
    """Codes of the undecided cohorts, most frequent first, with their share of all cohorts."""
    counted = Counter(code for own in codes for code in own)
    first = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:MARKS]
    return ";".join(f"{code} {count / n:.2f}" for code, count in first)


def crossing(effects: Sequence[float], shares: Sequence[float], level: float = 0.8) -> float:
    """Smallest effect at which a share reaches a level, by linear interpolation; NaN where it does not.

    Shares are simulated: a drop below an earlier value is noise, so their running maximum is used.
    """
    order = np.argsort(effects)
    x = np.asarray(effects, dtype=float)[order]
    y = np.maximum.accumulate(np.asarray(shares, dtype=float)[order])
    above = np.flatnonzero(y >= level)
    if not above.size:
        return math.nan
    i = int(above[0])
    if i == 0:
        return float(x[0])
    return float(x[i - 1] + (level - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1]))


def plan_design(
    plan: Plan,
    claim: Claim,
    design: Design,
    *,
    effects: Sequence[float] = EFFECTS,
    cohorts: int = 300,
    seed: int = 1,
) -> pd.DataFrame:
    """Chance of each verdict for a range of true effects.

    Parameters
    ----------
    plan, claim, design
        See :func:`simulate_outcome`.
    effects
        True effects as they would show at 4,500 transcripts per cell, in standard deviations between reference cells.
    cohorts, seed
        Simulated cohorts per effect; their start.

    Returns
    -------
    One row per effect, :data:`COLUMNS`. ``power`` is the share with a sign-flip p of at most alpha (unadjusted);
    ``standard_error`` the largest Monte-Carlo error of the three shares; ``codes`` the most frequent codes of undecided
    cohorts with their share; ``mde80`` the effect at which ``power`` reaches .8 and ``supported80`` that at which
    SUPPORTED does (NaN: not within ``effects``); ``patients_needed`` see :func:`closed_form`.
    """
    factor = design.effect_factor()
    rows = []
    for effect in effects:
        found = outcomes(plan, claim, design, effect * factor, cohorts=cohorts, seed=seed)
        verdicts = Counter(one.decision.verdict for one in found)
        shares = [verdicts[name] / cohorts for name in ("SUPPORTED", "NOT_SUPPORTED", "INCONCLUSIVE")]
        power = sum(one.p_value <= plan.rules.alpha for one in found) / cohorts
        error = max(math.sqrt(share * (1 - share) / cohorts) for share in shares)
        codes = _leading((one.decision.codes for one in found), cohorts)
        rows.append((effect, effect * factor, power, *shares, error, codes))
    names = [
        "effect",
        "effect_at_depth",
        "power",
        "supported",
        "not_supported",
        "inconclusive",
        "standard_error",
        "codes",
    ]
    table = pd.DataFrame(rows, columns=names).assign(
        patients=design.patients,
        dtcs=design.dtcs,
        depth=design.depth,
        genes_per_cell=design.genes_per_cell(),
        sesoi=claim.sesoi,
    )
    positive = table[table["effect"] >= 0]
    needed = closed_form(design, claim, plan.rules)["patients_needed"]
    table["patients_needed"] = pd.array([needed] * len(table), dtype="Int64")
    table["mde80"] = crossing(positive["effect"].tolist(), positive["power"].tolist())
    table["supported80"] = crossing(positive["effect"].tolist(), positive["supported"].tolist())
    return table[list(COLUMNS)]


def closed_form(design: Design, claim: Claim, rules: Rules) -> dict[str, float | None]:
    """Smallest detectable effect and patients needed by the paired t test, beside the simulated ones.

    The spread of patient differences is that of the slopes plus the sampling of a mean number of cells.
    """
    sampling = 1 / max(design.dtcs, design.dtc_floor) + 1 / design.reference_cells
    sd = math.sqrt(design.slope_sd**2 + sampling)
    factor = design.effect_factor()
    return {
        "sd": sd,
        "mde80": minimum_detectable_effect(sd, design.patients, alpha=rules.alpha) / factor,
        "patients_needed": patients_needed(
            claim.sesoi * factor, sd, alpha=rules.alpha, minimum=rules.confirmatory_patients
        ),
    }


def contrast_of(plan: Plan, claim_id: str, *, sesoi: float | None = None) -> Claim:
    """Return a paired contrast of the plan, on request with another smallest effect of interest.

    Raises
    ------
    InputError
        The plan has no such claim, or it is not an evaluated paired contrast.
    """
    known = [claim.id for claim in plan.claims if claim.evaluated and claim.test == "paired_contrast"]
    if claim_id not in known:
        problem = Problem(
            "--claim", repr(claim_id), f"one of {', '.join(known)}", "choose an evaluated paired contrast"
        )
        raise InputError("there is no such contrast to plan for", [problem])
    claim = plan.claim(claim_id)
    return claim if sesoi is None else replace(claim, sesoi=sesoi)


def plan_designs(
    plan: Plan,
    claim_id: str,
    designs: Sequence[Design],
    *,
    sesoi: float | None = None,
    effects: Sequence[float] = EFFECTS,
    cohorts: int = 300,
    seed: int = 1,
) -> pd.DataFrame:
    """Tables of :func:`plan_design` for several designs, one below the other."""
    claim = contrast_of(plan, claim_id, sesoi=sesoi)
    tables = [plan_design(plan, claim, one, effects=effects, cohorts=cohorts, seed=seed) for one in designs]
    return pd.concat(tables, ignore_index=True)


def design_report(table: pd.DataFrame) -> str:
    """The table as plain text: what each design can show, and where it reaches 80 %."""
    lines = []
    for _, own in table.groupby("patients", sort=True):
        first = own.iloc[0]
        lines.append(
            f"{first['patients']} patients, {first['dtcs']:g} DTCs each, {first['depth']:g} transcripts "
            f"(about {first['genes_per_cell']:.0f} genes) per cell; smallest effect of interest {first['sesoi']:g} SD"
        )
        shown = own[["effect", "power", "supported", "not_supported", "inconclusive", "codes"]]
        text = shown.to_string(index=False, float_format="{:.2f}".format, justify="left", max_colwidth=90)
        lines += [f"  {line}" for line in text.splitlines()]
        for column, what in (("mde80", "p below alpha"), ("supported80", "SUPPORTED")):
            value = float(first[column])
            reach = "is not reached by any of these effects" if math.isnan(value) else f"from {value:.2f} SD on"
            lines.append(f"  {what} in 80 % of cohorts: {reach}")
        needed = first["patients_needed"]
        if not pd.isna(needed):
            lines.append(f"  patients in whom the paired t test finds {first['sesoi']:g} SD with 80 % power: {needed}")
        lines.append(f"  Monte-Carlo standard error of a share: at most {own['standard_error'].max():.3f}")
        lines.append("")
    return "\n".join(lines).rstrip()
