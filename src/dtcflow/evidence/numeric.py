"""Rules for claims that come down to one number per patient: the parts their judges share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd
from scipy import stats

from dtcflow.evidence.claims import NAN, attainable_rule, enough_patients, gate_rules, identity_rule, present
from dtcflow.evidence.decide import Limits, Rule, overturned
from dtcflow.evidence.plan import POPULATIONS, Claim, Rules
from dtcflow.evidence.quality import gene_rules
from dtcflow.scores.calibrated import OK


@dataclass(frozen=True)
class Case:
    """What a judge needs besides the result and the plan.

    Attributes
    ----------
    absent
        Compartments of the claim's groups that the cohort has no sample of.
    doubts
        Pairs of patients that may be one person, in words.
    p_adjusted, p_attainable
        P value within the family; the smallest it could be were the patients unanimous.
    gates
        Verdict of each gate.
    """

    absent: Sequence[str]
    doubts: Sequence[str]
    p_adjusted: float
    gates: Mapping[str, str]
    p_attainable: float = NAN


def data_checks(claim: Claim, rules: Rules, case: Case, *, n: int, n_called: int) -> list[Rule]:
    """Rules on the data that every claim about the cells of one group has."""
    group = POPULATIONS[claim.a]
    return [
        Rule(
            "called tumour cells",
            n_called,
            1,
            n_called > 0,
            "NO_TUMOUR_CELLS",
            f"{n_called} {group.cell}s called in {group.place}",
        ),
        *present(tuple(case.absent)),
        identity_rule(case.doubts),
        enough_patients(n, rules),
        *gate_rules(case.gates),
        *attainable_rule(case.p_attainable, rules),
    ]


def protocol_rule(claim: Claim, mixed: bool) -> Rule:
    """The cells a claim is about and those that set its unit are measured with one protocol."""
    a, b = (POPULATIONS[name].place for name in (claim.a, claim.b))
    words = f"the cells in {a} come from another platform than those in {b}, which set the unit"
    return Rule(
        "one platform per patient",
        int(mixed),
        0,
        not mixed,
        "CONFOUNDED",
        words if mixed else f"the cells in {a} and in {b} come from the same platforms",
    )


class CellScores(Protocol):
    """What a result made of scores within a group says about its data."""

    @property
    def coverage(self) -> pd.DataFrame: ...  # noqa: D102
    @property
    def median_genes(self) -> float: ...  # noqa: D102
    @property
    def median_genes_reference(self) -> float: ...  # noqa: D102
    @property
    def mixed_protocols(self) -> bool: ...  # noqa: D102


def quality_checks(claim: Claim, found: CellScores, names: Sequence[str], rules: Rules, *, plate: bool) -> list[Rule]:
    """Rules on protocol, on the coverage of the tested signatures ``names`` and on genes per cell."""
    coverage = found.coverage
    checks = [protocol_rule(claim, found.mixed_protocols)]
    table = {str(line["signature"]): line for line in coverage.to_dict("records")}
    for name in names:
        line = table.get(name)
        if line is None:
            continue
        there, asked, seen = (int(line[key]) for key in ("n_present", "n_genes", "n_detected"))
        sentence = f"{name}: {there} of {asked} genes measured, {seen} detected"
        if line.get("reason"):
            sentence += f" ({line['reason']})"
        checks.append(
            Rule(f"coverage of {name}", there / max(asked, 1), NAN, line["status"] == OK, "LOW_COVERAGE", sentence)
        )
    medians = {claim.a: found.median_genes, claim.b: found.median_genes_reference}
    return [
        *checks,
        *gene_rules({name: one for name, one in medians.items() if math.isfinite(one)}, rules, plate=plate),
    ]


def precision_check(found: Limits, *, allowed: float, sign: int, beyond: float) -> Rule:
    """The 90 % interval is narrow enough, or the 95 % interval lies wholly beyond ``beyond`` on the predicted side."""
    half = (found.ci90_high - found.ci90_low) / 2
    nearest = found.ci_low if sign > 0 else -found.ci_high
    holds = bool(half <= allowed or nearest > beyond * sign)
    words = f"the 90 % interval reaches {half:.2g} to either side; at most {allowed:g} is allowed"
    return Rule("half-width of the 90 % interval", half, allowed, holds, "IMPRECISE", words)


def divided(leave_one_out: pd.DataFrame, parts: int, n: int) -> pd.DataFrame:
    """A leave-one-out table of ``n`` patients with the tails of its intervals divided (:meth:`MetaAnalysis.one_of`)."""
    out = leave_one_out.copy()
    for name, tail in (("ci", 0.025), ("ci90", 0.05)):
        wider = float(stats.t.isf(tail / parts, max(n - 2, 1)) / stats.t.isf(tail, max(n - 2, 1)))
        for end in (f"{name}_low", f"{name}_high"):
            out[end] = out["estimate"] + (out[end] - out["estimate"]) * wider
    return out


def patient_check(
    wanted: str, leave_one_out: pd.DataFrame, *, sign: int, sesoi: float, of: str = "", blocks: str = "verdict"
) -> Rule:
    """No single patient decides, of the part ``of`` of a claim."""
    broken = overturned(wanted, leave_one_out, sign=sign, sesoi=sesoi)
    what = of or "it"
    words = f"without patient {', '.join(broken)} {what} says something else" if broken else "no single patient decides"
    if of and not broken:
        words += f" {of}"
    return Rule(f"robustness, {of}" if of else "robustness", len(broken), 0, not broken, "FRAGILE", words, blocks)


def null_check(p: float, n_sets: int, rules: Rules) -> Rule:
    """Random gene sets of the same kind do not show as much."""
    words = f"p = {p:.3g} against {n_sets} random gene sets of the same kind (two-sided)"
    return Rule("random gene sets", p, rules.alpha, bool(p < rules.alpha), "GENE_SET_NULL", words, "support")


def covariate_check(missing: Sequence[str]) -> Rule:
    """Every covariate of the plan is measured."""
    words = f"not measured: {', '.join(missing)}" if missing else "all covariates of the plan are measured"
    return Rule("covariates measured", len(missing), 0, not missing, "NO_DATA", words, "support")
