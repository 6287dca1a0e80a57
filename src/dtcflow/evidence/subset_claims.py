"""Claims about differences between the cells of one patient: a progenitor-like subset (P1), and its rest (P4)."""

from __future__ import annotations

import math
from typing import Any, Final

import pandas as pd

from dtcflow.evidence.claims import Judged, claim_row
from dtcflow.evidence.composite import joint_p
from dtcflow.evidence.controls import control_row, frame
from dtcflow.evidence.decide import Rule, candidate, decide, refutes, shows_effect, supports
from dtcflow.evidence.duality import Duality
from dtcflow.evidence.existence import CONTROL_COLUMNS, Existence
from dtcflow.evidence.numeric import (
    Case,
    covariate_check,
    data_checks,
    null_check,
    patient_check,
    precision_check,
    quality_checks,
)
from dtcflow.evidence.plan import Claim, Rules
from dtcflow.evidence.power import minimum_detectable_effect, patients_needed, spread

SQUARED_UNIT: Final = "squared SD between reference cells"
CORRELATION_UNIT: Final = "rank correlation of cells"


def existence_p(found: Existence) -> float:
    """The larger p of coherence and tail: both must hold (intersection-union)."""
    return joint_p([found.test.p_value, found.tail_test.p_value])


def judge_existence(
    claim: Claim,
    found: Existence,
    rules: Rules,
    case: Case,
    *,
    plate: bool,
) -> Judged:
    """Apply the plan to P1.

    SUPPORTED: the coherence of the signature's halves beyond random sets reaches ``sesoi`` with a 95 % interval above
    0, the upper tail of one half picked by the other lies above random sets (95 % interval), the larger p of the two
    is below alpha, fewer than alpha of random sets show as much, half of ``sesoi`` is left when the haematopoietic
    controls are taken out, and no control shows the effect itself.
    NOT_SUPPORTED: the 90 % interval of the coherence lies below ``sesoi`` and ``confirmatory_patients`` patients have
    ``subset_cells`` cells or more: in fewer cells a rare subset need not be there.
    """
    fit, tail = found.fit, found.tail_fit
    held = supports(fit, p_adjusted=case.p_adjusted, sign=1, sesoi=claim.sesoi, alpha=rules.alpha)
    wanted = candidate(supports=held and tail.ci_low > 0, refutes=refutes(fit, sign=1, sesoi=claim.sesoi))
    checks = data_checks(claim, rules, case, n=int(found.patients["usable"].sum()), n_called=found.n_called)
    checks += quality_checks(claim, found, [claim.primary_signature], rules, plate=plate)
    if fit.n >= rules.estimate_patients:
        checks += _existence_checks(claim, found, rules, wanted)
    effect = shows_effect(fit, sign=1, sesoi=claim.sesoi)
    decision = decide(wanted, checks, tested=fit.n >= rules.estimate_patients, effect=effect)
    own = found.patients.loc[found.patients["usable"].astype(bool), "difference"].to_numpy(dtype=float)
    sd = spread(own)
    row = claim_row(
        claim,
        decision,
        unit=SQUARED_UNIT,
        n_patients=int(found.patients["usable"].sum()),
        estimate=fit.estimate,
        ci_low=fit.ci_low,
        ci_high=fit.ci_high,
        p_value=existence_p(found),
        p_adjusted=case.p_adjusted,
        p_gene_set=found.p_gene_set,
        sesoi=claim.sesoi,
        mde80=minimum_detectable_effect(sd, fit.n, alpha=rules.alpha),
        patients_needed=patients_needed(claim.sesoi, sd, alpha=rules.alpha, minimum=rules.confirmatory_patients),
    )
    detail: dict[str, Any] = {
        "evaluated": True,
        "method": "coherence of the signature's halves between cells of a patient, beyond random sets; Paule-Mandel "
        "mean, Hartung-Knapp-Sidik-Jonkman interval, sign-flip over patients; p is the larger of coherence and tail",
        "meta_analysis": fit.as_dict(),
        "coherence_p_value": found.test.p_value,
        "tail": tail.as_dict() | {"p_value": found.tail_test.p_value, "unit": "SD between reference cells"},
        "gene_set_null": {"p_value": found.p_gene_set, "two_sided": True, "estimates": found.null.tolist()},
        "adjusted": found.adjusted.as_dict(),
        "controls": found.controls.to_dict("records"),
        "covariates": list(found.covariates_used),
        "covariates_missing": list(found.covariates_missing),
        "patients_well_measured": found.n_well,
        "scale": found.scale,
        "leave_one_out": found.leave_one_out.to_dict("records"),
        "patients": found.patients.to_dict("records"),
    }
    return Judged(claim, decision, row, detail, tuple(checks))


def existence_controls(claim: Claim, found: Existence) -> pd.DataFrame:
    """The negative controls of P1 as rows of ``controls.tsv``."""
    return frame(
        [
            control_row(
                claim,
                "negative_signature",
                f"negative control {row['signature']}",
                f"coherence includes 0 or lies below {claim.sesoi:g}",
                bool(row["ok"]),
                **{name: row[name] for name in CONTROL_COLUMNS if name != "ok"},
            )
            for row in found.controls.to_dict("records")
        ]
    )


def _existence_checks(claim: Claim, found: Existence, rules: Rules, wanted: str) -> list[Rule]:
    fit, tail, need = found.fit, found.tail_fit, rules.confirmatory_patients
    checks = [
        precision_check(fit, allowed=claim.sesoi, sign=1, beyond=claim.sesoi),
        patient_check(wanted, found.leave_one_out, sign=1, sesoi=claim.sesoi),
        null_check(found.p_gene_set, found.null.size, rules),
    ]
    if wanted == "SUPPORTED":
        checks.append(patient_check(wanted, found.tail_leave_one_out, sign=1, sesoi=0.0, of="the tail"))
    if wanted == "NOT_SUPPORTED":
        checks.append(
            Rule(
                "patients with enough cells to miss a subset in",
                found.n_well,
                need,
                found.n_well >= need,
                "LOW_CELLS",
                f"{found.n_well} patients have {claim.subset_cells} tumour cells or more; a refutation needs {need}",
            )
        )
    for row in found.controls.to_dict("records"):
        known = math.isfinite(row["ci_low"])
        words = f"{row['estimate']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]; must include 0 or lie below "
        checks.append(
            Rule(
                f"negative control {row['signature']}",
                row["estimate"],
                claim.sesoi,
                bool(row["ok"]),
                "CONTAMINATION" if known else "LOW_COVERAGE",
                f"{row['signature']}: " + (words + f"{claim.sesoi:g}" if known else "cannot be scored"),
            )
        )
    checks.append(
        Rule(
            "upper tail",
            tail.estimate,
            0,
            bool(tail.ci_low > 0),
            "NO_EFFECT_SHOWN",
            f"upper tail beyond random sets: {tail.estimate:.2f} [{tail.ci_low:.2f}, {tail.ci_high:.2f}], must be "
            "above 0",
            "support",
        )
    )
    if claim.covariates or found.covariates_missing:  # the marrow axis is asked for by the test itself
        checks.append(covariate_check(found.covariates_missing))
    if claim.negative_controls:
        kept = found.adjusted.estimate
        checks.append(
            Rule(
                "coherence without the controls' part",
                kept,
                claim.sesoi / 2,
                bool(kept >= claim.sesoi / 2),
                "NOT_ROBUST_TO_COVARIATES",
                f"{kept:.2f} after the haematopoietic scores are taken out; at least {claim.sesoi / 2:g} must stay",
                "support",
            )
        )
    return checks


def judge_duality(
    claim: Claim,
    found: Duality,
    rules: Rules,
    case: Case,
    *,
    plate: bool,
) -> Judged:
    """Apply the plan to P4.

    SUPPORTED: the rank correlation beyond random pairs of sets reaches ``sesoi`` in the predicted direction, its 95 %
    interval excludes 0, the adjusted p is below alpha and so is that against random pairs. NOT_SUPPORTED: its 90 %
    interval lies below ``sesoi``, or the 95 % interval beyond 0 on the other side. Every rule holds either way.
    """
    sign = claim.sign
    held = supports(found, p_adjusted=case.p_adjusted, sign=sign, sesoi=claim.sesoi, alpha=rules.alpha)
    wanted = candidate(supports=held, refutes=refutes(found, sign=sign, sesoi=claim.sesoi))
    n = int(found.patients["usable"].sum())
    checks = data_checks(claim, rules, case, n=n, n_called=found.n_called)
    names = [claim.primary_signature, claim.dormancy_signature]
    checks += quality_checks(claim, found, names, rules, plate=plate)
    if found.fit.n >= rules.estimate_patients:
        checks.append(precision_check(found, allowed=claim.sesoi, sign=sign, beyond=claim.sesoi * sign))
        checks.append(patient_check(wanted, found.leave_one_out, sign=sign, sesoi=claim.sesoi))
        checks.append(null_check(found.p_gene_set, found.null.size, rules))
        if claim.covariates or found.covariates_missing:
            checks.append(covariate_check(found.covariates_missing))
    effect = shows_effect(found, sign=sign, sesoi=claim.sesoi)
    decision = decide(wanted, checks, tested=found.fit.n >= rules.estimate_patients, effect=effect)
    own = found.patients.loc[found.patients["usable"].astype(bool), "difference"].to_numpy(dtype=float)
    sd = spread(own)
    row = claim_row(
        claim,
        decision,
        unit=CORRELATION_UNIT,
        n_patients=n,
        estimate=found.estimate,
        ci_low=found.ci_low,
        ci_high=found.ci_high,
        p_value=found.test.p_value,
        p_adjusted=case.p_adjusted,
        p_gene_set=found.p_gene_set,
        sesoi=claim.sesoi,
        # the spread of the patients is on Fisher's scale, the claim on that of correlations
        mde80=math.tanh(minimum_detectable_effect(sd, found.fit.n, alpha=rules.alpha)),
        patients_needed=patients_needed(
            math.atanh(claim.sesoi), sd, alpha=rules.alpha, minimum=rules.confirmatory_patients
        ),
    )
    detail: dict[str, Any] = {
        "evaluated": True,
        "method": "rank correlation of two scores over the cells of a patient, beyond random pairs of sets, on "
        "Fisher's scale; Paule-Mandel mean, Hartung-Knapp-Sidik-Jonkman interval, sign-flip over patients",
        "direction": claim.direction,
        "dormancy_signature": claim.dormancy_signature,
        "meta_analysis": found.fit.as_dict(),
        "genes_in_both_taken_out": found.n_shared,
        "permutation_p_of_cells": found.p_permutation,
        "gene_set_null": {"p_value": found.p_gene_set, "two_sided": True, "estimates": found.null.tolist()},
        "covariates": list(found.covariates_used),
        "covariates_missing": list(found.covariates_missing),
        "leave_one_out": found.leave_one_out.to_dict("records"),
        "patients": found.patients.to_dict("records"),
    }
    return Judged(claim, decision, row, detail, tuple(checks))
