"""Rules applied to computed claims: rows of ``claims.tsv`` and what ``verdict.json`` holds about each claim."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from scipy.special import expit, logit

from dtcflow.contracts import CODES, TABLES
from dtcflow.evidence.controls import allowed
from dtcflow.evidence.decide import Decision, Rule, candidate, decide, refutes, shows_effect, supports
from dtcflow.evidence.identity import Identity
from dtcflow.evidence.inference import MetaAnalysis, adjust
from dtcflow.evidence.paired import Paired
from dtcflow.evidence.plan import GROUPS, POPULATIONS, Claim, Plan, Rules
from dtcflow.evidence.power import minimum_detectable_effect, patients_needed, smallest_p
from dtcflow.evidence.quality import gene_rules
from dtcflow.evidence.robustness import fragile
from dtcflow.scores.calibrated import OK

NAN: Final = float("nan")
SD_UNIT: Final = "SD between reference cells"
SHARE_UNIT: Final = "share of cells"


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict.

    ``row`` is its line of ``claims.tsv``, ``detail`` everything a reader needs to recompute it, ``rules`` the rules
    as applied.
    """

    claim: Claim
    decision: Decision
    row: dict[str, Any]
    detail: dict[str, Any]
    rules: tuple[Rule, ...]


def claim_row(claim: Claim, decision: Decision, **values: Any) -> dict[str, Any]:
    """Line of ``claims.tsv``: what every claim has, and the values given; NaN where there is none."""
    row: dict[str, Any] = dict.fromkeys(TABLES["claims"], NAN)
    row |= {
        "claim_id": claim.id,
        "title": claim.title,
        "role": claim.role,
        "verdict": decision.verdict,
        "codes": ";".join(decision.codes),
        "unit": "",
        "n_patients": 0,
        "patients_needed": None,
        "contrast": claim.contrast if claim.evaluated else "",
        "primary_signature": claim.primary_signature,
    }
    return row | values


def not_evaluated(claim: Claim) -> Judged:
    """Return a claim of the plan that is not tested: the plan says so, or this version has no test for it."""
    decision = Decision("INCONCLUSIVE", ("NOT_EVALUATED",))
    rule = Rule("evaluated", 0, 1, False, "NOT_EVALUATED", CODES["NOT_EVALUATED"])
    return Judged(claim, decision, claim_row(claim, decision), {"evaluated": False}, (rule,))


def enough_patients(n: int, rules: Rules, *, sides: tuple[int, int] | None = None) -> Rule:
    """Enough patients for a verdict; ``sides`` are those of an unpaired contrast, of which the smaller counts."""
    need = rules.confirmatory_patients
    if sides is not None:
        words = f"{sides[0]} and {sides[1]} usable patients on the two sides; a verdict needs {need} on each"
    elif n:
        words = f"{n} usable patients; a verdict needs {need} (with {n}, no two-sided p is below {smallest_p(n):.3g})"
    else:
        words = f"no usable patient; a verdict needs {need}"
    return Rule("patients", n, need, n >= need, "LOW_N", words)


def attainable_rule(p: float, rules: Rules) -> list[Rule]:
    """The exact test must be able to reach the level at all, after adjustment within the family.

    With ``n`` patients no p is below ``2 / 2^n``; each further claim of the family asks for a smaller one. ``p`` is the
    adjusted p the claim would have were its patients unanimous; NaN where the test has no such bound.
    """
    if not math.isfinite(p):
        return []
    words = f"were the patients unanimous, the p value adjusted within the family would be {p:.3g}"
    return [Rule("attainable p", p, rules.alpha, p < rules.alpha, "LOW_N", words, "support")]


def present(absent: tuple[str, ...]) -> list[Rule]:
    """One broken rule for each kind of sample the cohort does not have."""
    return [Rule("compartment sampled", 0, 1, False, "NO_DATA", f"the cohort has no {name} sample") for name in absent]


def gate_rules(gates: Mapping[str, str]) -> list[Rule]:
    """Every gate must be SUPPORTED before a claim counts."""
    return [
        Rule(f"gate {name}", NAN, NAN, verdict == "SUPPORTED", "GATE_FAILED", f"gate {name} is {verdict}")
        for name, verdict in gates.items()
    ]


def identity_rule(doubts: Sequence[str]) -> Rule:
    """No two patients of a claim may be one person: they would count twice, and a swap pairs the wrong samples."""
    return Rule(
        "patients are different people",
        len(doubts),
        0,
        not doubts,
        "DOUBTFUL_IDENTITY",
        "; ".join(doubts) if doubts else "no two patients share cells",
    )


# ---------------------------------------------------------------------------------------------------------------------
# C0
# ---------------------------------------------------------------------------------------------------------------------


def judge_identity(claim: Claim, rules: Rules, found: Identity) -> Judged:
    """Apply the plan to the identity gate.

    SUPPORTED: the lower 95 % limit of the share exceeds ``claim.sesoi`` and enough patients have enough called cells.
    NOT_SUPPORTED: the upper 90 % limit is below it. The threshold is one half because in a sequencing study 53 % of
    marrow cells with tumour morphology were tumour cells (Demeulemeester 2016, doi 10.1186/s13059-016-1109-7): a gate
    below that would be met by morphology alone.
    """
    compartment = GROUPS[claim.a]
    need, n = rules.confirmatory_patients, found.fit.n
    checks = [
        Rule(
            "called tumour cells",
            found.n_malignant,
            1,
            found.n_malignant > 0,
            "NO_TUMOUR_CELLS",
            f"{found.n_malignant} malignant cells called in {compartment}",
        ),
        *present(() if found.sampled else (compartment,)),
        identity_rule(found.doubts),
        enough_patients(n, rules),
        Rule(
            "patients with enough called cells",
            found.n_called,
            need,
            found.n_called >= need,
            "LOW_CELLS",
            f"{found.n_called} patients have {claim.called_cells} or more called cells; {need} are needed",
        ),
    ]
    wanted = candidate(supports=found.low > claim.sesoi, refutes=found.high90 < claim.sesoi)
    decision = decide(wanted, checks, tested=n >= 2)
    threshold = float(logit(claim.sesoi))
    # the interval's own spread: it stays above zero when all patients have the same share
    sd = found.fit.standard_error * math.sqrt(n)
    mde = minimum_detectable_effect(sd, n, alpha=rules.alpha)
    row = claim_row(
        claim,
        decision,
        unit=SHARE_UNIT,
        n_patients=n,
        estimate=found.share,
        ci_low=found.low,
        ci_high=found.high,
        p_value=found.p_value,
        sesoi=claim.sesoi,
        mde80=float(expit(threshold + mde)),
        patients_needed=patients_needed(found.fit.estimate - threshold, sd, alpha=rules.alpha, minimum=need),
    )
    detail = {
        "evaluated": True,
        "scale": "log-odds of the share; estimate and limits are transformed back",
        "meta_analysis": found.fit.as_dict(),
        "ci90": [found.low90, found.high90],
        "patients_with_called_cells": found.n_called,
        "patients": found.patients.to_dict("records"),
    }
    return Judged(claim, decision, row, detail, tuple(checks))


# ---------------------------------------------------------------------------------------------------------------------
# Paired contrasts
# ---------------------------------------------------------------------------------------------------------------------


def data_rules(found: Paired, rules: Rules) -> list[Rule]:
    """Rules on the data, checked before any number is looked at."""
    claim = found.claim
    one, other = POPULATIONS[claim.a], POPULATIONS[claim.b]
    a, b = one.place, other.place
    n, need = len(found.layout.patients), rules.confirmatory_patients
    if found.n_sides is not None:
        n = min(found.n_sides)
    n_well, n_short = _well_measured(found, rules)
    checks = [
        Rule(
            "called tumour cells" if one.malignant else "cells of the first group",
            found.n_called_a,
            1,
            found.n_called_a > 0,
            "NO_TUMOUR_CELLS" if one.malignant else "NO_DATA",
            f"{found.n_called_a} {one.cell}s called in {a}",
        ),
        *present(found.compartments_absent),
        identity_rule(found.doubts),
        enough_patients(n, rules, sides=found.n_sides),
        Rule(
            "compartment estimable",
            len(found.aliasing.factors),
            0,
            not found.aliasing.confounded,
            "CONFOUNDED",
            f"{a} and {b} cannot be told from {', '.join(found.aliasing.factors)}"
            if found.aliasing.confounded
            else f"{a} and {b} can be told from study, platform and batch",
        ),
        Rule(
            "well-measured patients",
            n_well,
            need,
            n_well >= need or n_short == 0,
            "LOW_CELLS",
            f"{n_well} patients have {rules.cells_a} cells or more in {a} and {rules.cells_b} in {b}; {need} needed"
            + (" (on each side)" if found.n_sides is not None else ""),
        ),
    ]
    if not found.coverage.empty:
        checks += _coverage_rules(found)
    scorable = found.scored is not None and found.scored.column(claim.primary_signature) is not None
    if scorable and found.layout.patients and not found.scale > 0:
        words = "no unit to measure in: the scores of the reference cells of one sample do not differ"
        checks.append(Rule("spread of the reference cells", found.scale, 0, False, "NO_DATA", words))
    return [*checks, *gene_rules(found.median_genes, rules, plate=found.plate)]


def _well_measured(found: Paired, rules: Rules) -> tuple[int, int]:
    """Patients with enough cells (of an unpaired contrast: on the side with fewer of them), and those that fall short.

    A patient never sampled in one compartment is a matter of LOW_N, not of too few cells.
    """
    overview = found.layout.overview
    well_a, well_b = overview["n_cells_a"] >= rules.cells_a, overview["n_cells_b"] >= rules.cells_b
    if found.n_sides is not None:
        used = found.layout.table.drop_duplicates("patient_id").set_index("patient_id")["side"]
        side = overview["patient_id"].map(used)
        counts = [int(((side == k) & well).sum()) for k, well in enumerate((well_a, well_b))]
        return min(counts), int(((side == 0) & ~well_a).sum() + ((side == 1) & ~well_b).sum())
    well = well_a & well_b
    cell = f"no {POPULATIONS[found.claim.a].cell} in|no {POPULATIONS[found.claim.b].cell} in"
    short = ~well & ~overview["reason"].str.startswith("no ") | overview["reason"].str.contains(cell)
    return int(well.sum()), int(short.sum())


def _coverage_rules(found: Paired) -> list[Rule]:
    table = {str(line["signature"]): line for line in found.coverage.to_dict("records")}
    checks = []
    asked = [(found.claim.primary_signature, "verdict"), *((name, "verdict") for name in found.claim.negative_controls)]
    asked += [(name, "support") for name in found.claim.signature_covariates()]
    for name, blocks in asked:
        line = table[name]
        present, asked_for, seen = (int(line[key]) for key in ("n_present", "n_genes", "n_detected"))
        sentence = f"{name}: {present} of {asked_for} genes measured, {seen} detected"
        if line["reason"]:
            sentence += f" ({line['reason']})"
        share = present / max(asked_for, 1)
        checks.append(Rule(f"coverage of {name}", share, NAN, line["status"] == OK, "LOW_COVERAGE", sentence, blocks))
    return checks


def _precision_rule(claim: Claim, fit: MetaAnalysis) -> Rule:
    """Precision: the 90 % interval is narrow enough, or the 95 % interval lies wholly beyond the SESOI.

    The rule keeps a wide interval from deciding anything. An interval that excludes every effect too small to matter
    has decided, however wide it is: it is wide where a large effect differs between patients. This cannot raise the
    rate of false support, for which the lower limit only has to exceed zero.
    """
    half = (fit.ci90_high - fit.ci90_low) / 2
    nearest = fit.ci_low if claim.sign > 0 else -fit.ci_high
    beyond = bool(nearest > claim.sesoi)
    sentence = f"the 90 % interval reaches {half:.2f} to either side; at most {claim.sesoi:g} is allowed"
    if beyond and half > claim.sesoi:
        sentence += f", unless the 95 % interval lies wholly beyond it, which it does (from {nearest:.2f})"
    return Rule(
        "half-width of the 90 % interval", half, claim.sesoi, half <= claim.sesoi or beyond, "IMPRECISE", sentence
    )


def contamination_rules(found: Paired) -> list[Rule]:
    """Negative controls of a contrast: cells that look haematopoietic can neither support nor refute anything."""
    sesoi = found.claim.sesoi
    rows = found.controls[found.controls["control"] == "negative_signature"].to_dict("records")
    return [
        Rule(
            row["label"],
            row["estimate"],
            sesoi,
            bool(row["ok"]),
            "CONTAMINATION",
            f"{row['signature']}: {row['estimate']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]; must "
            f"{allowed(found.claim.sign, sesoi)}",
        )
        for row in rows
        if math.isfinite(row["estimate"])
    ]


def result_rules(found: Paired, rules: Rules, wanted: str) -> list[Rule]:
    """Rules on the result; only those that can be checked (an estimate exists)."""
    claim, fit = found.claim, found.fit
    if fit.n < rules.estimate_patients:
        return []
    checks = contamination_rules(found)
    checks.append(_precision_rule(claim, fit))
    reasons = fragile(claim, rules, wanted, fit.estimate, found.robustness)
    checks.append(
        Rule(
            "robustness",
            found.robustness.agreement,
            rules.agreement,
            not reasons,
            "FRAGILE",
            "; ".join(reasons)
            or f"{found.robustness.agreement:.0%} of {found.robustness.n_computable} specifications agree in "
            "sign and no single patient decides",
        )
    )
    p = found.p_gene_set
    checks.append(
        Rule(
            "random gene sets",
            p,
            rules.alpha,
            bool(p < rules.alpha),
            "GENE_SET_NULL",
            f"p = {p:.3g} against {found.null.size} random gene sets of the same kind (two-sided)",
            "support",
        )
    )
    if claim.covariates:
        absent = found.covariates_missing
        checks.append(
            Rule(
                "covariates measured",
                len(absent),
                0,
                not absent,
                "NO_DATA",
                f"not measured: {', '.join(absent)}" if absent else "all covariates of the plan are measured",
                "support",
            )
        )
        kept = found.adjusted.estimate * claim.sign
        checks.append(
            Rule(
                "effect after adjustment",
                kept,
                claim.sesoi / 2,
                bool(kept >= claim.sesoi / 2),
                "NOT_ROBUST_TO_COVARIATES",
                f"{found.adjusted.estimate:.2f} after adjustment for {', '.join(found.covariates_used) or 'nothing'}; "
                f"at least {claim.sesoi / 2:g} must stay",
                "support",
            )
        )
    return checks


def judge_paired(
    found: Paired, rules: Rules, *, p_adjusted: float, gates: Mapping[str, str], p_attainable: float = NAN
) -> Judged:
    """Apply the plan to a paired contrast.

    Parameters
    ----------
    found
        The computed contrast.
    rules
        Thresholds.
    p_adjusted
        Its p value after adjustment within its family.
    gates
        Verdict of each gate; all must be SUPPORTED.
    p_attainable
        See :func:`attainable_rule`.
    """
    claim, fit = found.claim, found.fit
    wanted = candidate(
        supports=supports(fit, p_adjusted=p_adjusted, sign=claim.sign, sesoi=claim.sesoi, alpha=rules.alpha),
        refutes=refutes(fit, sign=claim.sign, sesoi=claim.sesoi),
    )
    checks = data_rules(found, rules)
    checks += [*gate_rules(gates), *attainable_rule(p_attainable, rules)]
    checks += result_rules(found, rules, wanted)
    effect = shows_effect(fit, sign=claim.sign, sesoi=claim.sesoi)
    decision = decide(wanted, checks, tested=fit.n >= rules.estimate_patients, effect=effect)
    row = claim_row(
        claim,
        decision,
        unit=SD_UNIT,
        n_patients=len(found.layout.patients),
        estimate=fit.estimate,
        ci_low=fit.ci_low,
        ci_high=fit.ci_high,
        p_value=found.test.p_value,
        p_adjusted=p_adjusted,
        p_gene_set=found.p_gene_set,
        sesoi=claim.sesoi,
        mde80=found.mde80,
        patients_needed=found.patients_needed,
        sensitivity_agreement=found.robustness.agreement,
        self_check_type1=found.self_check_type1,
    )
    return Judged(claim, decision, row, contrast_detail(found), tuple(checks))


def contrast_detail(found: Paired) -> dict[str, Any]:
    """Return what ``verdict.json`` holds about a contrast."""
    robustness, used = found.robustness, found.patients
    return {
        "evaluated": True,
        "method": found.method,
        "pairing": found.claim.design,
        "timepoint": found.claim.timepoint,
        "direction": found.claim.direction,
        "meta_analysis": found.fit.as_dict(),
        "sign_flip": {"p_value": found.test.p_value, "patterns": found.test.n_patterns, "exact": found.test.exact},
        "gene_set_null": {"p_value": found.p_gene_set, "two_sided": True, "estimates": found.null.tolist()},
        "adjusted": found.adjusted.as_dict()
        | {"covariates": list(found.covariates_used), "covariates_missing": list(found.covariates_missing)},
        "confirmatory_signature": found.confirmatory.as_dict()
        | {"signature": found.claim.confirmatory_signature, "p_value": found.confirmatory_test.p_value},
        "robustness": {
            "specifications": robustness.n_specifications,
            "computable": robustness.n_computable,
            "agreement_in_sign": robustness.agreement,
            "share_below_sesoi": robustness.below_sesoi,
            "median_estimate": robustness.median,
            "leave_one_out": robustness.leave_one_out.to_dict("records"),
            "leave_one_study_out": robustness.leave_one_study_out.to_dict("records"),
        },
        "design": {"aliased_with": list(found.aliasing.factors), "patients_unmixed": found.aliasing.n_unmixed},
        "self_check": {"type1": found.self_check_type1, "standard_error": found.self_check_se},
        "scale": found.scale,
        "depth_repeats": found.depth_repeats,
        "median_genes": found.median_genes,
        "patients": used[used["analysis"] == "primary"].drop(columns="analysis").to_dict("records"),
        "n_cells": found.n_cells,
        "n_genes_used": found.n_genes_used,
        "marker_genes_taken_out": {name: list(genes) for name, genes in sorted(found.removed.items())},
    }


def adjust_families(plan: Plan, p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p values within families: Holm for confirmatory, Benjamini-Hochberg for secondary claims.

    Only claims that were evaluated and have a p value count; a claim named by the plan but not tested takes no share
    of the error (``verdict.json`` says which ones were counted).
    """
    out: dict[str, float] = {}
    for family, method in (("confirmatory", "holm"), ("secondary", "bh"), ("none", "none")):
        members = [
            claim.id for claim in plan.claims if claim.family == family and math.isfinite(p_values.get(claim.id, NAN))
        ]
        adjusted = adjust([p_values[name] for name in members], method)
        out |= dict(zip(members, (float(p) for p in adjusted), strict=True))
    return out


def claims_table(judged: list[Judged]) -> pd.DataFrame:
    """Rows as the table ``claims``."""
    frame = pd.DataFrame([one.row for one in judged], columns=list(TABLES["claims"]))
    frame["n_patients"] = frame["n_patients"].astype("int64")
    frame["patients_needed"] = pd.array([one.row["patients_needed"] for one in judged], dtype="Int64")
    return frame
