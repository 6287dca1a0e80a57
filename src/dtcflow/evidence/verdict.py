"""From claims to the hypothesis: its verdict, in one sentence, with why and what would change it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dtcflow.evidence.claims import SD_UNIT, SHARE_UNIT, Judged
from dtcflow.evidence.decide import Decision, order_codes
from dtcflow.evidence.plan import Plan
from dtcflow.evidence.power import smallest_p
from dtcflow.evidence.subset_claims import CORRELATION_UNIT, SQUARED_UNIT

CEILING: Final = (
    "Expression can be consistent with a progenitor state; it cannot show self-renewal, which only a functional assay "
    "(serial transplantation, lineage tracing) can."
)

UNIT_WORDS: Final = {
    SD_UNIT: "SD",
    SHARE_UNIT: "share",
    SQUARED_UNIT: "squared SD",
    CORRELATION_UNIT: "rank correlation",
}
"""Units in the sentences of a verdict; others are written as in the table."""

REMEDIES: Final = {
    "NO_TUMOUR_CELLS": "Tumour cells in the marrow: more cells screened, or enrichment before sequencing.",
    "NOT_EVALUATED": "A version of the analysis that tests {not_evaluated}.",
    "NO_DATA": "What is named above as missing: a compartment, a covariate or a column of the sample sheet.",
    "DOUBTFUL_IDENTITY": "Samples whose owner is settled: two patients of a claim hold the same cells.",
    "LOW_N": "More patients with usable cells on both sides: a verdict needs {patients}{needed}.",
    "CONFOUNDED": "Both compartments of a patient processed together: same study, platform and batch.",
    "LOW_CELLS": "More cells per patient, as named above: more marrow screened, or enrichment before sequencing.",
    "LOW_COVERAGE": "Data in which more of the signature's genes are measured and detected.",
    "LOW_QUALITY": "Deeper sequencing: too few genes are detected per cell.",
    "GATE_FAILED": "Proof of identity for more putative cells: deeper data, or the tumour's known copy-number profile.",
    "CONTAMINATION": "Tumour cells free of haematopoietic signal: doublet and ambient-RNA removal, or sorted cells.",
    "IMPRECISE": "More patients{needed}, or more cells per patient, to narrow the interval.",
    "FRAGILE": "An independent cohort: the result must not hang on one patient or one analysis choice.",
    "GENE_SET_NULL": "An effect larger than that of random gene sets of the same expression.",
    "NOT_ROBUST_TO_COVARIATES": "An effect that survives adjustment for cell cycle, depth, stress and mitochondria.",
    "NO_EFFECT_SHOWN": "More patients{needed}: the test reached neither threshold.",
}


def hypothesis_decision(plan: Plan, judged: Mapping[str, Judged]) -> Decision:
    """Apply the rule of the hypothesis.

    SUPPORTED: all gates and all necessary claims are SUPPORTED. NOT_SUPPORTED: the gates are passed and one necessary
    claim is NOT_SUPPORTED, whatever the others say: the hypothesis needs each of them. INCONCLUSIVE otherwise, with the
    codes of the claims that keep it so.
    """
    gates = [judged[name] for name in plan.gates]
    necessary = [judged[name] for name in plan.necessary]
    passed = all(one.decision.verdict == "SUPPORTED" for one in gates)
    if passed and any(one.decision.verdict == "NOT_SUPPORTED" for one in necessary):
        return Decision("NOT_SUPPORTED", ())
    if passed and all(one.decision.verdict == "SUPPORTED" for one in necessary):
        return Decision("SUPPORTED", ())
    codes = [code for one in [*gates, *necessary] for code in one.decision.codes]
    if not passed:
        codes.append("GATE_FAILED")
    return Decision("INCONCLUSIVE", order_codes(codes))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def _not_evaluated(plan: Plan, judged: Mapping[str, Judged]) -> list[str]:
    return [name for name in plan.necessary if "NOT_EVALUATED" in judged[name].decision.codes]


def sentence(plan: Plan, judged: Mapping[str, Judged], decision: Decision) -> str:
    """Return the verdict in one sentence."""
    asked = [name for name in plan.necessary if "NOT_EVALUATED" not in judged[name].decision.codes]
    counts = sorted({int(judged[name].row["n_patients"]) for name in asked}) or [0]
    patients = f"{counts[0]} patient" + ("" if counts[-1] == 1 else "s")
    if len(counts) > 1:
        patients = f"{counts[0]} to {counts[-1]} patients"
    if decision.verdict == "SUPPORTED":
        return (
            f"Across {patients} the expression of disseminated tumour cells is consistent with a progenitor state: "
            f"{_listed([*plan.gates, *plan.necessary])} are supported."
        )
    if decision.verdict == "NOT_SUPPORTED":
        against = [name for name in plan.necessary if judged[name].decision.verdict == "NOT_SUPPORTED"]
        verb = "is" if len(against) == 1 else "are"
        return (
            f"Across {patients} the data speak against the hypothesis: it needs {_listed(plan.necessary)}, and "
            f"{_listed(against)} {verb} not supported."
        )
    if "NO_TUMOUR_CELLS" in decision.codes:
        return "Undecided: no malignant cell was called in the marrow, so there is nothing to test."
    states = {
        name: judged[name].decision.verdict.replace("_", " ").lower()
        for name in [*plan.gates, *plan.necessary]
        if "NOT_EVALUATED" not in judged[name].decision.codes
    }
    parts = [f"{name} is {state}" for name, state in states.items()]
    open_claims = _not_evaluated(plan, judged)
    if open_claims:
        verb = "is" if len(open_claims) == 1 else "are"
        parts.append(f"{_listed(open_claims)} {verb} not evaluated by this version")
    return f"Undecided over {patients}: {'; '.join(parts)}."


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) and math.isfinite(value) else "n/a"


def why(plan: Plan, judged: Mapping[str, Judged]) -> list[str]:
    """One line per gate and necessary claim, then each broken rule in words."""
    lines = []
    for name in [*plan.gates, *plan.necessary]:
        one = judged[name]
        row = one.row
        if not one.claim.evaluated:
            lines.append(f"{name} ({one.claim.title}): not evaluated by this version.")
            continue
        unit = UNIT_WORDS.get(row["unit"], row["unit"])
        p = f", p = {row['p_value']:.3g}" if math.isfinite(row["p_value"]) else ""
        word = "patient" if row["n_patients"] == 1 else "patients"
        lines.append(
            f"{name} ({one.claim.title}): {row['verdict'].replace('_', ' ')}, {_number(row['estimate'])} "
            f"[{_number(row['ci_low'])}, {_number(row['ci_high'])}] {unit} over {row['n_patients']} {word}{p}."
        )
        shown = set(one.decision.codes)
        lines += [
            f"{name}, {rule.code}: {rule.sentence}." for rule in one.rules if not rule.holds and rule.code in shown
        ]
    return lines


def _patients_for_a_verdict(plan: Plan, judged: Mapping[str, Judged]) -> int:
    """Patients from which on every claim of the confirmatory family can reach the level, were they unanimous."""
    family = [claim.id for claim in plan.claims if claim.family == "confirmatory" and claim.id in judged]
    tests = sum(math.isfinite(judged[name].row["p_value"]) for name in family)
    n = plan.rules.confirmatory_patients
    while smallest_p(n) * max(tests, 1) >= plan.rules.alpha:
        n += 1
    return n


def what_would_change_it(plan: Plan, judged: Mapping[str, Judged], decision: Decision) -> list[str]:
    """One line per code that has a remedy; for a decided hypothesis, what would overturn it."""
    if decision.verdict == "SUPPORTED":
        return ["An independent cohort under the same plan, or a functional assay, that finds otherwise."]
    if decision.verdict == "NOT_SUPPORTED":
        return ["An independent cohort under the same plan in which the claims above come out in favour."]
    needed = [
        one.row["patients_needed"]
        for one in judged.values()
        if one.claim.id in plan.necessary and one.row["patients_needed"] and one.decision.verdict == "INCONCLUSIVE"
    ]
    words = {
        "not_evaluated": _listed(_not_evaluated(plan, judged)),
        "patients": _patients_for_a_verdict(plan, judged),
        "needed": f" (about {max(needed)} to find the smallest effect of interest with 80 % power)" if needed else "",
    }
    return [REMEDIES[code].format(**words) for code in decision.codes if code in REMEDIES]


def _rounded(value: Any) -> Any:
    """Floats to ten significant digits: the last bits of a sum may differ between libraries, results may not."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.10g}")
    return value


def verdict_document(
    plan: Plan, judged: Sequence[Judged], *, settings: Mapping[str, Any], seed: int, adjusted: Mapping[str, float]
) -> dict[str, Any]:
    """Everything that goes into ``verdict.json``.

    Parameters
    ----------
    plan, judged
        The plan and its judged claims, in its order.
    settings, seed
        What the run used.
    adjusted
        Adjusted p of the evaluated claims that have one.
    """
    by_id = {one.claim.id: one for one in judged}
    decision = hypothesis_decision(plan, by_id)
    confirmatory = [claim.id for claim in plan.claims if claim.family == "confirmatory"]
    document = {
        "schema_version": 1,
        "statement": plan.statement,
        "verdict": decision.verdict,
        "codes": list(decision.codes),
        "sentence": sentence(plan, by_id, decision),
        "why": why(plan, by_id),
        "what_would_change_it": what_would_change_it(plan, by_id, decision),
        "ceiling": CEILING,
        "gates": {name: by_id[name].decision.verdict for name in plan.gates},
        "necessary": {name: by_id[name].decision.verdict for name in plan.necessary},
        "not_evaluated": _not_evaluated(plan, by_id),
        "multiplicity": {
            "method": "Holm over the evaluated confirmatory claims",
            "counted": [name for name in confirmatory if name in adjusted],
            "not_counted": [
                one.claim.id
                for one in judged
                if not (one.claim.id in confirmatory and one.claim.id in adjusted) and one.claim.role != "gate"
            ],
            "other_families": {
                "secondary": "Benjamini-Hochberg over "
                + (_listed([c.id for c in plan.claims if c.family == "secondary" and c.id in adjusted]) or "none"),
                "none": "not adjusted",
            },
        },
        "plan_sha256": plan.sha256,
        "plan": plan.values,
        "settings": dict(settings),
        "seed": seed,
        "claims": {
            one.claim.id: {
                **{key: value for key, value in one.row.items() if key != "codes"},
                "codes": list(one.decision.codes),
                "rules": [rule.as_dict() for rule in one.rules],
                **one.detail,
            }
            for one in judged
        },
    }
    return dict(_rounded(document))
