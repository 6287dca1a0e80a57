"""Does the result depend on one patient or on one analysis choice? Specification table and leave-one-patient-out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd

from dtcflow.evidence.alternatives import BOTH, CALIBRATED, FULL, Alternative, cell_groups
from dtcflow.evidence.contrasts import Aggregation, Differences, Floats, Layout, differences
from dtcflow.evidence.inference import MetaAnalysis, random_effects
from dtcflow.evidence.plan import Claim, Rules
from dtcflow.scores.sensitivity import NOT_INSTALLED

SPECIFICATION_COLUMNS: Final = (
    "claim_id",
    "signature",
    "purge",
    "depth",
    "aggregation",
    "call",
    "votes",
    "n_patients",
    "estimate",
    "ci_low",
    "ci_high",
    "score",
    "reference",
    "reason",
)
_LEFT_OUT: Final = ("estimate", "ci_low", "ci_high", "ci90_low", "ci90_high")
PATIENT_COLUMNS: Final = ("patient_id", *_LEFT_OUT)
STUDY_COLUMNS: Final = ("study", *_LEFT_OUT)


def combine(values: Differences, column: int) -> MetaAnalysis:
    """Random-effects meta-analysis of one score over the usable patients."""
    kept = values.usable & np.isfinite(values.difference[:, column]) & np.isfinite(values.variance[:, column])
    return random_effects(values.difference[kept, column], values.variance[kept, column])


def specifications(
    claim: Claim,
    rules: Rules,
    layout: Layout,
    names: Sequence[str],
    matched: Sequence[Floats],
    full: Floats,
    scorable: Mapping[str, bool],
    alternatives: Sequence[Alternative] = (),
) -> pd.DataFrame:
    """Repeat the estimate under every combination of analysis choices.

    Signature x purge {none, no proliferation, no proliferation + no EMT} x depth {matched, full} x aggregation
    {trimmed mean, median} x call {strict, loose}; with ``alternatives`` also x score {calibrated z, score_genes,
    AUCell, UCell} x reference {random sets matched on both compartments, on the reference only} and pseudobulks of the
    calibrated score. ``loose`` is the malignant call the claims use, ``strict`` asks for a clone p (where
    the cell has none, a malignancy q) of at most ``rules.strict_q``.

    Not every row votes. Signatures of ``claim.reported_signatures`` measure another state: shown, never voting. Scores
    without matched random sets fall with depth, so much that they show the wrong sign of a real difference when the
    compartments differ threefold in depth: at full depth they are shown, and only at matched depth they vote. A score
    whose package is not installed has rows without an estimate, which do not vote either: what is missing on a
    computer is no fragility of the result. Every other row that cannot be computed keeps its vote, and too many of
    them are a reason to call the result fragile.

    Parameters
    ----------
    claim, rules
        What to vary.
    layout
        The cells.
    names
        Scores, columns of the next two.
    matched
        One cells x scores array per depth repeat.
    full
        Cells x scores at the original depth.
    scorable
        Whether a score meets the coverage rule; others have no estimate.
    alternatives
        The signatures under other scores, from ``score_contrast(..., alternatives=shown_signatures(claim))``.

    Returns
    -------
    pandas.DataFrame
        One row per specification, :data:`SPECIFICATION_COLUMNS`; ``estimate`` is NaN where it cannot be computed, and
        ``reason`` says why.
    """
    voting = [(signature, purge, name, True) for signature, purge, name in claim.multiverse_signatures()]
    shown = [(name, "none", name, False) for name in claim.reported_signatures]
    main = Alternative(CALIBRATED, BOTH, tuple(names), cell_groups(matched, full, layout, trim=rules.trim), {})
    values = [
        (one, key, differences(groups, minimum=rules.value_cells, aggregation=_as_aggregation(key[1])))
        for one in (main, *alternatives)
        for key, groups in one.groups.items()
    ]
    rows = []
    for signature, purge, name, votes in [*voting, *shown]:
        for one, (depth, how, call), found in values:
            reason = _why_not(one, name, scorable, int(found.usable.sum()), rules.estimate_patients)
            fit = random_effects([], []) if reason else combine(found, one.names.index(name))
            raw_at_full_depth = one.score != CALIBRATED and depth == FULL
            rows.append(
                (
                    claim.id,
                    signature,
                    purge,
                    depth,
                    how,
                    call,
                    votes and not raw_at_full_depth and reason != NOT_INSTALLED,
                    fit.n,
                    fit.estimate,
                    fit.ci_low,
                    fit.ci_high,
                    one.score,
                    one.reference,
                    reason,
                )
            )
    return pd.DataFrame(rows, columns=list(SPECIFICATION_COLUMNS))


def shown_signatures(claim: Claim) -> list[str]:
    """Return the panel's names of all signatures in the specification table of a claim."""
    return list(dict.fromkeys([*(name for *_, name in claim.multiverse_signatures()), *claim.reported_signatures]))


def _as_aggregation(how: str) -> Aggregation:
    """How the sampling variance of an aggregation follows from the variance between cells."""
    return "median" if how == "median" else "trimmed_mean"


def _why_not(one: Alternative, name: str, scorable: Mapping[str, bool], n_usable: int, minimum: int) -> str:
    """Say why a specification has no estimate; empty when it has one."""
    if name in one.reasons:
        return one.reasons[name]
    if name not in one.names or not scorable.get(name, False):
        return "too few of its genes are measured or detected"
    # as for the claim itself: no estimate from fewer patients than the plan allows
    return "" if n_usable >= minimum else f"{n_usable} patients with enough cells, {minimum} needed"


@dataclass(frozen=True)
class Robustness:
    """How far the estimate depends on choices and on single patients.

    ``agreement`` is the share of voting, computable specifications with the primary estimate's sign; ``below_sesoi``
    the share whose estimate in the predicted direction is smaller than the smallest effect of interest;
    ``leave_one_out`` has one row per patient left out, ``leave_one_study_out`` one per study.
    """

    n_specifications: int
    n_computable: int
    agreement: float
    below_sesoi: float
    median: float
    leave_one_out: pd.DataFrame
    leave_one_study_out: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(STUDY_COLUMNS)))


def studies_of(cells: pd.DataFrame, patients: Sequence[str]) -> tuple[str, ...]:
    """Study of each patient, from the columns ``patient_id`` and ``study``; several studies of one are joined.

    Empty where the sample sheet names no study, or fewer than two for these patients.
    """
    if "study" not in cells:
        return ()
    known = cells[cells["patient_id"].astype(str).isin(list(patients)) & cells["study"].notna()]
    grouped = known.groupby(known["patient_id"].astype(str))["study"]
    names = grouped.agg(lambda study: "+".join(sorted({str(one) for one in study})))
    found = tuple(str(names.get(patient, "")) for patient in patients)
    return found if "" not in found and len(set(found)) > 1 else ()


def _without_each(values: Differences, column: int, groups: Sequence[str]) -> list[tuple[object, ...]]:
    """Estimate without each group of patients; ``groups`` names the group of every patient."""
    rows: list[tuple[object, ...]] = []
    usable = np.flatnonzero(values.usable & np.isfinite(values.difference[:, column]))
    for left in dict.fromkeys(groups[i] for i in usable.tolist()):
        rest = np.array([i for i in usable.tolist() if groups[i] != left], dtype=np.int64)
        fit = random_effects(values.difference[rest, column], values.variance[rest, column])
        rows.append((left, fit.estimate, fit.ci_low, fit.ci_high, fit.ci90_low, fit.ci90_high))
    return rows


def assess(
    claim: Claim,
    estimate: float,
    table: pd.DataFrame,
    values: Differences,
    column: int,
    patients: Sequence[str],
    studies: Sequence[str] = (),
) -> Robustness:
    """Summarise the specification table and repeat the estimate without each patient, and without each study.

    ``studies`` names the study of every patient, see :func:`studies_of`; with fewer than two none is left out.

    The unit (one standard deviation between reference cells) and the variances are those of all patients: leaving one
    out changes who is averaged, not the ruler.
    """
    voting = table.loc[table["votes"].astype(bool), "estimate"].to_numpy(dtype=float)
    known = voting[np.isfinite(voting)]
    directed = known * claim.sign
    nan = float("nan")
    by_study = _without_each(values, column, studies) if len(set(studies)) > 1 else []
    return Robustness(
        n_specifications=voting.size,
        n_computable=known.size,
        agreement=float(np.mean(np.sign(known) == np.sign(estimate)))
        if known.size and math.isfinite(estimate)
        else nan,
        below_sesoi=float(np.mean(directed < claim.sesoi)) if known.size else nan,
        median=float(np.median(known)) if known.size else nan,
        leave_one_out=pd.DataFrame(_without_each(values, column, patients), columns=list(PATIENT_COLUMNS)),
        leave_one_study_out=pd.DataFrame(by_study, columns=list(STUDY_COLUMNS)),
    )


def fragile(claim: Claim, rules: Rules, candidate: str, estimate: float, robustness: Robustness) -> list[str]:
    """Say why a result is fragile; an empty list means it is robust.

    Parameters
    ----------
    candidate
        The verdict all other criteria lead to: SUPPORTED, NOT_SUPPORTED or INCONCLUSIVE.

    Notes
    -----
    Leaving one of six patients out leaves five, whose exact p cannot fall below .0625: asking for p < .05
    again would call every six-patient study fragile. For SUPPORTED the test is therefore that without any one patient
    the 95 % interval still excludes zero in the predicted direction and the estimate still reaches the smallest
    effect of interest. For NOT_SUPPORTED, that the 90 % interval stays below it (or the interval stays on the other
    side of zero); agreement in *sign* means nothing near zero, so there the share of specifications below the
    smallest effect counts. An undecided result is called fragile only when it reaches the smallest effect of interest
    because of one patient or of a minority of choices.

    Leaving a study out can take half of the patients away, and with them every interval: there only the estimate is
    asked for. Without any one study it stays at least half of the smallest effect of interest (SUPPORTED), or below
    the smallest effect (NOT_SUPPORTED).
    """
    loo, sign, sesoi = robustness.leave_one_out, claim.sign, claim.sesoi
    studies = robustness.leave_one_study_out.astype({"estimate": float})
    reasons: list[str] = []
    if robustness.n_computable * 2 < robustness.n_specifications:
        reasons.append(f"only {robustness.n_computable} of {robustness.n_specifications} specifications are computable")
    low = np.minimum(loo["ci_low"] * sign, loo["ci_high"] * sign)
    high = np.maximum(loo["ci_low"] * sign, loo["ci_high"] * sign)
    high90 = np.maximum(loo["ci90_low"] * sign, loo["ci90_high"] * sign)
    directed = loo["estimate"] * sign
    if candidate == "NOT_SUPPORTED":
        if not robustness.below_sesoi >= rules.agreement:
            reasons.append(
                f"{robustness.below_sesoi:.0%} of the specifications are below the smallest effect of interest"
            )
        kept = (high90 < sesoi) | (high < 0)
        reasons += [f"without patient {name} the refutation goes away" for name in loo.loc[~kept, "patient_id"]]
        lost = ~(studies["estimate"] * sign < sesoi)
        reasons += [f"without study {name} the refutation goes away" for name in studies.loc[lost, "study"]]
        return reasons
    above = estimate * sign >= sesoi
    if candidate != "SUPPORTED" and not above:
        return []
    if not robustness.agreement >= rules.agreement:
        reasons.append(f"{robustness.agreement:.0%} of the specifications agree in sign")
    if not robustness.median * sign >= sesoi / 2:
        reasons.append(
            f"the median specification ({robustness.median:.2f}) is below half of the smallest effect of interest"
        )
    if candidate == "SUPPORTED":
        kept = (low > 0) & (directed >= sesoi)
        reasons += [f"without patient {name} the support goes away" for name in loo.loc[~kept, "patient_id"]]
        lost = ~(studies["estimate"] * sign >= sesoi / 2)
        reasons += [f"without study {name} the support goes away" for name in studies.loc[lost, "study"]]
    else:
        reasons += [f"the effect comes from patient {name}" for name in loo.loc[directed < sesoi / 2, "patient_id"]]
    return reasons
