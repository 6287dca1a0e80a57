"""Is the difference of another claim specific? What is left of it without other programmes and beyond controls (P3).

Components, each one number per patient in the unit of the contrast (standard deviations between reference cells):

``adjusted``
    the contrast after adjustment for the claim's covariates;
``purged``
    the contrast of each purged version of the signature (without proliferation genes; without EMT genes as well);
``exceeds``
    the contrast minus that of each control signature (haematopoietic stem cells, EMT), patient by patient, the control
    without the genes it shares with the signature.

All components must hold (intersection-union test): the p value of the claim is the largest, which keeps its level
without adjustment, and estimate and interval are those of the weakest component (largest p, among equals the one whose
95 % interval comes nearest to what it must exceed).

A component holds when its 95 % interval excludes 0 in the predicted direction and its estimate reaches its smallest
effect of interest: half of ``sesoi`` for ``adjusted`` and ``purged`` (the part of the effect that must survive), 0 for
``exceeds`` (the effect must be larger than the control's, by however little). A component is refuted when the 90 %
interval lies below that smallest effect, or the 95 % interval beyond 0 on the other side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from dtcflow.evidence.claims import (
    NAN,
    SD_UNIT,
    Judged,
    attainable_rule,
    claim_row,
    contamination_rules,
    data_rules,
    gate_rules,
)
from dtcflow.evidence.composite import joint_p
from dtcflow.evidence.contrasts import Differences, Floats, average, group_values
from dtcflow.evidence.decide import Rule, candidate, decide, overturned, refutes, shows_effect, supports
from dtcflow.evidence.inference import MetaAnalysis, SignFlip, random_effects, sign_flip
from dtcflow.evidence.numeric import covariate_check, divided, null_check, precision_check
from dtcflow.evidence.paired import BLANK, NO_TEST, Paired, patient_rows
from dtcflow.evidence.plan import Claim, Rules
from dtcflow.evidence.plan_checks import ONLY
from dtcflow.evidence.power import minimum_detectable_effect, patients_needed, spread
from dtcflow.evidence.within import leave_one_out

HAEMATOPOIETIC: Final = "haematopoietic"
"""Family of control signatures whose rise means contamination."""
NOTHING: Final = np.zeros(0)


@dataclass(frozen=True)
class Component:
    """One part of a specificity claim.

    Attributes
    ----------
    kind
        ``adjusted``, ``purged`` or ``exceeds``.
    name
        What is tested, as it is written in tables.
    minimum
        Smallest effect of interest.
    code
        Code of the claim when the component does not hold.
    difference, variance
        One value per patient of the layout, NaN where unknown; empty for a component that cannot be computed.
    fit, test
        Over the patients that have a value.
    """

    kind: str
    name: str
    minimum: float
    code: str
    difference: Floats
    variance: Floats
    fit: MetaAnalysis
    test: SignFlip

    def refuted(self, sign: int, *, of: int = 1) -> bool:
        """Whether the component is below its smallest effect of interest.

        One refuted component of ``of`` refutes the claim: the levels of both one-sided limits (5 and 2.5 %) are divided
        by their number. (Support needs all of them, and no such division.)
        """
        return refutes(self.fit.one_of(of), sign=sign, sesoi=self.minimum)

    def holds(self, sign: int, *, p: float, alpha: float) -> bool:
        """Whether the component holds, at this p value."""
        return supports(self.fit, p_adjusted=p, sign=sign, sesoi=self.minimum, alpha=alpha)


def component(
    kind: str, name: str, difference: Floats, variance: Floats, *, minimum: float, code: str, least: int, seed: int
) -> Component:
    """Estimate and test one component; no estimate from fewer than ``least`` patients."""
    known = np.isfinite(difference) & np.isfinite(variance)
    enough = bool(int(known.sum()) >= least)
    fit = random_effects(difference[known], variance[known]) if enough else BLANK
    test = sign_flip(difference[known], seed=seed) if enough else NO_TEST
    return Component(kind, name, minimum, code, difference, variance, fit, test)


def weakest(components: tuple[Component, ...], sign: int) -> Component:
    """Return the component with the largest p; among equals the one whose interval comes nearest to failing.

    A component that goes the wrong way is the weaker the surer it does.
    """

    def strength(one: Component) -> tuple[float, float, str]:
        low = one.fit.ci_low if sign > 0 else -one.fit.ci_high
        # unknown is weaker than any number
        p = one.test.p_value if math.isfinite(one.test.p_value) else 3.0
        if one.fit.estimate * sign < 0:
            p = 2.0 - p
        return (-p, low - one.minimum if math.isfinite(low) else -math.inf, one.name)

    return min(components, key=strength)


@dataclass(frozen=True)
class Specificity:
    """A computed specificity claim: the contrast it is about, and its components."""

    claim: Claim
    contrast: Paired
    components: tuple[Component, ...]
    patients: pd.DataFrame

    @property
    def p_value(self) -> float:
        """The largest p of the components; NaN when one cannot be computed."""
        return joint_p([one.test.p_value for one in self.components])


def _exceeding(contrast: Paired, values: Differences, own: int, rival: int, trim: float) -> tuple[Floats, Floats]:
    """Standardised difference of one signature minus that of another, per patient, and its sampling variance.

    The variance comes from the difference of the two scores within each cell, pooled over patients as for a contrast:
    scores of one cell go together, and two separate variances would not know it.
    """
    scored, layout = contrast.scored, contrast.layout
    assert scored is not None
    unit = values.scale[[own, rival]]
    cells = [(z[:, [own]] / unit[0]) - (z[:, [rival]] / unit[1]) for z in scored.matched]
    groups = average([group_values(one, layout, trim=trim) for one in cells])
    freedom = np.where(values.usable[:, None], groups.freedom, 0).astype(float)
    spread_ = np.where(np.isfinite(groups.variance[:, :, 0]), groups.variance[:, :, 0], 0.0)
    pooled = (freedom * spread_).sum(axis=0) / np.maximum(freedom.sum(axis=0), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.where(values.usable, (pooled[None] / groups.n).sum(axis=1), np.nan)
    return values.difference[:, own] - values.difference[:, rival], variance


def evaluate_specificity(
    contrast: Paired, claim: Claim, rules: Rules, *, families: Mapping[str, str], seed: int
) -> Specificity:
    """Compute the components of a specificity claim.

    Parameters
    ----------
    contrast
        The computed contrast that must be specific.
    claim, rules
        What the plan asks for.
    families
        Family of each signature: what exceeding a haematopoietic one speaks against is contamination.
    seed
        Of the sign-flip test with more than twelve patients.
    """
    scored, values, half = contrast.scored, contrast.values, claim.sesoi / 2
    primary = claim.primary_signature
    options: dict[str, Any] = {"least": rules.estimate_patients, "seed": seed}
    parts = []
    moved = contrast.adjusted_values
    adjusted = (NOTHING, NOTHING) if moved is None else (moved.difference[:, 0], moved.variance[:, 0])
    if claim.covariates:
        name = f"{primary}, adjusted"
        parts.append(component("adjusted", name, *adjusted, minimum=half, code="NOT_ROBUST_TO_COVARIATES", **options))
    own = scored.column(primary) if scored is not None else None
    for name in claim.purged_signatures:
        column = scored.column(name) if scored is not None else None
        d = (NOTHING, NOTHING)
        if column is not None and values is not None:
            d = (values.difference[:, column], values.variance[:, column])
        parts.append(component("purged", name, *d, minimum=half, code="NOT_ROBUST_TO_COVARIATES", **options))
    for name in claim.exceeded_signatures:
        column = scored.column(name + ONLY) if scored is not None else None
        d = (NOTHING, NOTHING)
        if own is not None and column is not None and values is not None:
            d = _exceeding(contrast, values, own, column, rules.trim)
        code = "CONTAMINATION" if families.get(name) == HAEMATOPOIETIC else "NOT_ROBUST_TO_COVARIATES"
        parts.append(component("exceeds", f"{primary} - {name + ONLY}", *d, minimum=0.0, code=code, **options))
    components = tuple(parts)
    return Specificity(claim, contrast, components, _rows(contrast, claim, components))


def _rows(contrast: Paired, claim: Claim, components: tuple[Component, ...]) -> pd.DataFrame:
    """Rows of each component; those of the weakest are the claim's primary analysis."""
    shown = weakest(components, claim.sign)
    blocks = []
    for one in components:
        analysis = "primary" if one is shown else one.kind
        block = patient_rows(contrast.layout, claim=claim, analysis=analysis, signature=one.name)
        if one.difference.size:
            block = block.set_index("patient_id")
            names = list(contrast.layout.patients)
            known = np.isfinite(one.difference)
            block.loc[names, "difference"], block.loc[names, "variance"] = one.difference, one.variance
            block.loc[names, "usable"] = known
            block.loc[names, "reason"] = np.where(known, "", f"{one.name} cannot be scored")
            block = block.reset_index()
        blocks.append(block)
    return pd.concat(blocks, ignore_index=True)


# ---------------------------------------------------------------------------------------------------------------------
# The plan applied
# ---------------------------------------------------------------------------------------------------------------------


def _component_rules(found: Specificity, rules: Rules) -> list[Rule]:
    """Each component must hold."""
    sign = found.claim.sign
    checks: list[Rule] = []
    for one in found.components:
        fit = one.fit
        if not math.isfinite(fit.estimate):
            if found.contrast.layout.patients:
                words = f"{one.name} cannot be scored or compared"
                checks.append(Rule(one.name, NAN, one.minimum, False, "LOW_COVERAGE", words, "support"))
            continue
        checks.append(
            Rule(
                one.name,
                fit.estimate,
                one.minimum,
                one.holds(sign, p=one.test.p_value, alpha=rules.alpha),
                one.code,
                f"{one.name}: {fit.estimate:.2f} [{fit.ci_low:.2f}, {fit.ci_high:.2f}], p = {one.test.p_value:.3g}; "
                f"the interval must exclude 0 and the estimate reach {sign * one.minimum:g}",
                "support",
            )
        )
    return checks


def _without_patients(found: Specificity, one: Component, wanted: str) -> list[str]:
    """Patients without whom a component no longer says what it says, at the level of the claim's verdict."""
    known = np.isfinite(one.difference)
    if not known.any():
        return []
    names = [name for name, there in zip(found.contrast.layout.patients, known, strict=True) if there]
    table = leave_one_out(names, one.difference[known], one.variance[known])
    if wanted == "NOT_SUPPORTED":
        table = divided(table, len(found.components), len(names))
    return overturned(wanted, table, sign=found.claim.sign, sesoi=one.minimum)


def _precise(found: Specificity, one: Component) -> Rule:
    """Precision of a component."""
    claim = found.claim
    rule = precision_check(one.fit, allowed=claim.sesoi, sign=claim.sign, beyond=claim.sesoi * claim.sign)
    return replace(rule, sentence=f"{one.name}: {rule.sentence}")


def _fragile_rules(found: Specificity, asked: Iterable[Component], wanted: str) -> list[Rule]:
    """No single patient may carry the verdict: each component asked must say the same without any one patient."""
    broken = {one.name: _without_patients(found, one, wanted) for one in asked}
    return [
        Rule(
            f"robustness of {name}",
            len(lost),
            0,
            False,
            "FRAGILE",
            f"{name}: without patient {', '.join(lost)} it says something else",
        )
        for name, lost in broken.items()
        if lost
    ]


def judge_specificity(
    found: Specificity, rules: Rules, *, p_adjusted: float, gates: Mapping[str, str], p_attainable: float = NAN
) -> Judged:
    """Apply the plan to a specificity claim.

    SUPPORTED: the largest p over components, adjusted within the family, is below alpha; every component holds (see
    the module); the contrast's gene-set null is below alpha; every rule on the data, the gates and the precision of the
    weakest component holds, and no single patient carries a component.
    NOT_SUPPORTED: a component is refuted, and the rules hold: the specific part of the effect is then below its
    smallest effect of interest, in the best case (90 % limit, at a level divided by the number of components). That a
    component is not significant refutes nothing. Where the negative controls of the contrast show haematopoietic
    signal, nothing is decided in either direction.
    """
    claim, contrast, sign = found.claim, found.contrast, found.claim.sign
    shown = weakest(found.components, sign)
    fit = shown.fit
    refuted = [one for one in found.components if one.refuted(sign, of=len(found.components))]
    # one refuted component is enough: the claim rests on one that is precise and hangs on no patient, if there is any
    sound = [
        one for one in refuted if _precise(found, one).holds and not _without_patients(found, one, "NOT_SUPPORTED")
    ]
    # a component that cannot be scored has no interval: precision is asked of one that speaks
    speaking = sound or refuted or [one for one in found.components if math.isfinite(one.fit.estimate)]
    ruling = weakest(tuple(speaking), sign) if speaking else shown
    wanted = candidate(
        supports=all(one.holds(sign, p=p_adjusted, alpha=rules.alpha) for one in found.components),
        refutes=bool(refuted),
    )
    checks = [*data_rules(contrast, rules), *gate_rules(gates), *attainable_rule(p_attainable, rules)]
    if contrast.fit.n >= rules.estimate_patients:
        checks += contamination_rules(contrast)
    if claim.covariates:
        checks.append(covariate_check(contrast.covariates_missing))
    if ruling.fit.n >= rules.estimate_patients:
        checks.append(_precise(found, ruling))
        checks.append(null_check(contrast.p_gene_set, contrast.null.size, rules))
    checks += _component_rules(found, rules)
    checks += _fragile_rules(found, [ruling] if wanted == "NOT_SUPPORTED" else found.components, wanted)
    effect = shows_effect(contrast.fit, sign=sign, sesoi=claim.sesoi)
    decision = decide(wanted, checks, tested=ruling.fit.n >= rules.estimate_patients, effect=effect)
    sd = spread(shown.difference[np.isfinite(shown.difference)])
    row = claim_row(
        claim,
        decision,
        unit=SD_UNIT,
        n_patients=len(contrast.layout.patients),
        estimate=fit.estimate,
        ci_low=fit.ci_low,
        ci_high=fit.ci_high,
        p_value=found.p_value,
        p_adjusted=p_adjusted,
        p_gene_set=contrast.p_gene_set,
        sesoi=claim.sesoi / 2,
        mde80=minimum_detectable_effect(sd, fit.n, alpha=rules.alpha),
        patients_needed=patients_needed(claim.sesoi / 2, sd, alpha=rules.alpha, minimum=rules.confirmatory_patients),
        sensitivity_agreement=NAN,
        self_check_type1=contrast.self_check_type1,
        primary_signature=shown.name,
    )
    detail = {
        "evaluated": True,
        "of": claim.of,
        "method": "intersection-union over the components: the largest p, the estimate of the weakest; each by "
        "Paule-Mandel mean with a Hartung-Knapp-Sidik-Jonkman t interval and sign-flip over patients",
        "direction": claim.direction,
        "weakest": shown.name,
        "refuted": [one.name for one in refuted],
        "meta_analysis": fit.as_dict(),
        "components": [
            one.fit.as_dict()
            | {
                "kind": one.kind,
                "name": one.name,
                "minimum": one.minimum,
                "p_value": one.test.p_value,
                "holds": one.holds(sign, p=one.test.p_value, alpha=rules.alpha),
                "refuted": one.refuted(sign, of=len(found.components)),
            }
            for one in found.components
        ],
        "patients": found.patients[found.patients["analysis"] == "primary"].drop(columns="analysis").to_dict("records"),
    }
    return Judged(claim, decision, row, detail, tuple(checks))
