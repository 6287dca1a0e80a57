"""Two endpoints that must both hold: a score that rises and a share of cycling cells that falls (claim C4, dormancy).

The share of cycling cells is compared at equal numbers of cells: the arcsine transformation that makes shares
comparable is biased in small groups, and a patient has ten disseminated cells and a hundred of the primary. The larger
group is therefore replaced by its expectation over all its subsets of the smaller group's size (hypergeometric, exact),
so that equal shares give a mean difference of exactly zero at any numbers of cells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy import stats

from dtcflow.evidence.claims import (
    NAN,
    SD_UNIT,
    Judged,
    attainable_rule,
    claim_row,
    contrast_detail,
    data_rules,
    gate_rules,
    result_rules,
)
from dtcflow.evidence.contrasts import Floats, Layout, ThinnedDraws
from dtcflow.evidence.decide import Rule, candidate, decide, refutes, shows_effect, supports
from dtcflow.evidence.inference import MetaAnalysis, SignFlip, random_effects, sign_flip
from dtcflow.evidence.numeric import divided, patient_check
from dtcflow.evidence.paired import BLANK, NO_TEST, Cohort, Paired, evaluate_paired, patient_rows
from dtcflow.evidence.plan import POPULATIONS, Claim, Rules
from dtcflow.evidence.power import minimum_detectable_effect, patients_needed, spread
from dtcflow.evidence.robustness import combine
from dtcflow.evidence.scoring import balanced_statistics
from dtcflow.evidence.within import leave_one_out
from dtcflow.scores.calibrated import apply_sets, draw_matched_sets, log_normalise
from dtcflow.scores.cycle import CYCLING_Z, cycle_sets
from dtcflow.scores.signatures import GeneSet, Synonyms

CYCLING: Final = "share of cycling cells"
ENDPOINTS: Final = 2
"""Score and share of cycling cells."""


def angle(cycling: Floats | float, cells: Floats | float) -> Floats:
    """Variance-stabilised share of ``k`` in ``n`` cells, ``arcsin(sqrt((k + 3/8) / (n + 3/4)))`` (Anscombe 1948)."""
    k, n = np.asarray(cycling, dtype=float), np.asarray(cells, dtype=float)
    return np.asarray(np.arcsin(np.sqrt((k + 0.375) / (n + 0.75))), dtype=float)


def expected_angle(cycling: int, cells: int, size: int) -> float:
    """Mean :func:`angle` over all subsets of ``size`` of ``cells`` cells of which ``cycling`` cycle."""
    k = np.arange(size + 1, dtype=float)
    return float(stats.hypergeom.pmf(k, cells, cycling, size) @ angle(k, float(size)))


@dataclass(frozen=True)
class Shares:
    """Cycling cells of each patient, averaged over depth repeats.

    Attributes
    ----------
    share
        Patients x 2: share of scored cells that cycle.
    n
        Patients x 2: scored cells.
    difference, variance
        Angle of side a minus angle of side b at equal numbers of cells, and its sampling variance ``1 / (4 n_a + 2) +
        1 / (4 n_b + 2)``; NaN for a patient with fewer than ``minimum`` scored cells on a side.
    room
        How far the difference could go in the predicted direction: its value if no cell of side a cycled (or all did).
    """

    share: Floats
    n: NDArray[np.int64]
    difference: Floats
    variance: Floats
    room: Floats


def compare_shares(
    cycling: Sequence[Floats], patient: NDArray[np.int64], side: NDArray[np.int64], *, minimum: int, sign: int
) -> Shares:
    """Compare the share of cycling cells of the two sides within each patient.

    Parameters
    ----------
    cycling
        One array per depth repeat: 1 for a cycling cell, 0 for another, NaN for a cell without a score.
    patient, side
        Patient (0, 1, ...) and side (0, 1) of each cell.
    minimum
        Scored cells a patient needs on either side.
    sign
        Predicted sign of the difference a - b.
    """
    size = int(patient.max()) + 1 if patient.size else 0
    scored = np.isfinite(np.stack(cycling)).all(axis=0)  # in every repeat
    share, difference, room = np.full((size, 2), np.nan), np.full(size, np.nan), np.full(size, np.nan)
    n = np.zeros((size, 2), dtype=np.int64)
    for p in range(size):
        masks = [(patient == p) & (side == k) & scored for k in (0, 1)]
        n[p] = [int(mask.sum()) for mask in masks]
        if n[p].min() < max(minimum, 1):
            continue
        m = int(n[p].min())
        counts = np.array([[int(one[mask].sum()) for mask in masks] for one in cycling])
        share[p] = counts.mean(axis=0) / n[p]
        angles = np.array([[expected_angle(int(row[k]), int(n[p, k]), m) for k in (0, 1)] for row in counts])
        difference[p] = float((angles[:, 0] - angles[:, 1]).mean())
        end = float(angle(0.0 if sign < 0 else float(m), float(m)))
        room[p] = float((end - angles[:, 1]).mean()) * sign
    with np.errstate(divide="ignore"):
        variance = np.where(np.isfinite(difference), (1 / (4 * n + 2)).sum(axis=1), np.nan)
    return Shares(share, n, difference, variance, room)


def cycling_cells(
    counts: sp.csr_matrix,
    genes: pd.Index,
    layout: Layout,
    share: Floats,
    *,
    repeats: int,
    n_null: int,
    panel: Sequence[GeneSet],
    synonyms: Synonyms | pd.DataFrame | None,
    seed: int,
) -> list[Floats]:
    """Call cycling cells at harmonised depth: S or G2/M score of at least :data:`dtcflow.scores.cycle.CYCLING_Z`.

    The same thinned counts as for the scores of the contrast (``scoring.score_contrast``). The phase sets pass the
    relaxed gate of ``scores.cycle``: they are hardly detected in a tumour at rest, which is no lack of measurement.

    Returns
    -------
    list
        Per depth repeat 1, 0 or NaN (no score) for each cell; empty when neither set can be scored.
    """
    found: list[Floats] = []
    draws = ThinnedDraws(counts, share, layout, seed=seed)
    sets = None
    for repeat in range(repeats if draws.again.size else 1):
        lognorm = log_normalise(draws.whole(repeat))
        if sets is None:
            statistics = balanced_statistics(lognorm, genes, layout.side)
            sets = draw_matched_sets(
                statistics, cycle_sets(panel), n_null=n_null, seed=seed, relaxed=True, synonyms=synonyms
            )
            if not sets.names:
                return []
        z = apply_sets(lognorm, sets).z.astype(np.float64)
        known = np.isfinite(z).any(axis=1)
        best = np.where(np.isfinite(z), z, -np.inf).max(axis=1)
        found.append(np.where(known, (best >= CYCLING_Z).astype(float), np.nan))
    return found


@dataclass(frozen=True)
class Composite:
    """A computed composite claim.

    ``contrast`` is the score endpoint; ``purged`` its estimates without genes of another programme, by signature (NaN
    where one cannot be scored); ``shares``, ``fit`` and ``test`` are the cycling endpoint.
    """

    claim: Claim
    contrast: Paired
    patients: pd.DataFrame
    purged: dict[str, MetaAnalysis] = field(default_factory=dict)
    shares: Shares | None = None
    fit: MetaAnalysis = BLANK
    test: SignFlip = NO_TEST

    @property
    def p_value(self) -> float:
        """The larger p of the two endpoints: both must hold (intersection-union), so no adjustment is needed."""
        return joint_p([self.contrast.test.p_value, self.test.p_value])


def joint_p(p_values: Sequence[float]) -> float:
    """P value of "all of these hold": the largest; NaN when one is unknown (intersection-union test; Berger 1982)."""
    return float(np.max(p_values)) if len(p_values) else NAN


def _share_rows(claim: Claim, layout: Layout, shares: Shares) -> pd.DataFrame:
    frame = patient_rows(layout, claim=claim, analysis="cycling", signature=CYCLING).set_index("patient_id")
    names = list(layout.patients)
    frame.loc[names, ["n_cells_a", "n_cells_b"]] = shares.n
    frame.loc[names, "value_a"], frame.loc[names, "value_b"] = shares.share[:, 0], shares.share[:, 1]
    frame.loc[names, "difference"], frame.loc[names, "variance"] = shares.difference, shares.variance
    usable = np.isfinite(shares.difference)
    frame.loc[names, "usable"] = usable
    frame.loc[names, "reason"] = np.where(usable, "", "too few cells with a cell-cycle score")
    return frame.reset_index()


def evaluate_composite(
    cohort: Cohort, claim: Claim, rules: Rules, *, settings: Mapping[str, Any], seed: int
) -> Composite:
    """Compute both endpoints of a composite claim; parameters as for :func:`paired.evaluate_paired`."""
    contrast = evaluate_paired(cohort, claim, rules, settings=settings, seed=seed)
    layout, scored, values = contrast.layout, contrast.scored, contrast.values
    if scored is None or values is None:
        return Composite(claim, contrast, contrast.patients)
    enough = len(layout.patients) >= rules.estimate_patients
    purged: dict[str, MetaAnalysis] = {}
    blocks = [contrast.patients]
    for name in claim.purged_signatures:
        column = scored.column(name)
        purged[name] = combine(values, column) if column is not None and enough else BLANK
        blocks.append(
            patient_rows(
                layout,
                claim=claim,
                analysis="purged",
                signature=name,
                values=None if column is None else values,
                column=column or 0,
            )
        )
    called = cycling_cells(
        cohort.take(layout.table["row"].to_numpy(dtype=np.int64)),
        cohort.symbols,
        layout,
        scored.share,
        repeats=int(settings["depth_repeats"]),
        n_null=rules.random_sets,
        panel=list(cohort.panel.values()),
        synonyms=cohort.synonyms,
        seed=seed,
    )
    if not called:
        return Composite(claim, contrast, pd.concat(blocks, ignore_index=True), purged)
    shares = compare_shares(called, layout.patient, layout.side, minimum=rules.value_cells, sign=-claim.sign)
    blocks.append(_share_rows(claim, layout, shares))
    known = np.isfinite(shares.difference)
    use = known if int(known.sum()) >= rules.estimate_patients else np.zeros_like(known)
    return Composite(
        claim,
        contrast,
        pd.concat(blocks, ignore_index=True),
        purged,
        shares,
        random_effects(shares.difference[use], shares.variance[use]),
        sign_flip(shares.difference[use], seed=seed) if use.any() else NO_TEST,
    )


# ---------------------------------------------------------------------------------------------------------------------
# The plan applied
# ---------------------------------------------------------------------------------------------------------------------


def _cycling_rules(found: Composite, rules: Rules, wanted: str, *, against: bool) -> list[Rule]:
    """Rules on the cycling endpoint; ``against``: it is refuted."""
    claim, shares, fit = found.claim, found.shares, found.fit
    if shares is None:
        words = "neither S nor G2/M phase can be scored"
        return [Rule("cell-cycle scores", 0, 1, False, "LOW_COVERAGE", words)]
    sign, sesoi, need = -claim.sign, claim.cycling_sesoi, rules.confirmatory_patients
    enough = int(((shares.n[:, 0] >= rules.cells_fraction) & (shares.n[:, 1] >= rules.cells_b)).sum())
    place = POPULATIONS[claim.a].place
    checks = [
        Rule(
            "patients whose share of cycling cells is well measured",
            enough,
            need,
            enough >= need,
            "LOW_CELLS",
            f"{enough} patients have {rules.cells_fraction} scored cells or more in {place}; {need} needed for a share",
        )
    ]
    if fit.n < rules.estimate_patients:
        return checks
    room = float(np.nanmean(shares.room))
    checks.append(
        Rule(
            "room for the share to move",
            room,
            sesoi,
            room >= sesoi,
            "IMPRECISE",
            f"the share of cycling cells could differ by {room:.2f} at most (difference of arcsines), and {sesoi:g} is "
            "the smallest difference of interest",
        )
    )
    half = (fit.ci90_high - fit.ci90_low) / 2
    beyond = (fit.ci_low if sign > 0 else -fit.ci_high) > sesoi
    checks.append(
        Rule(
            "half-width of the 90 % interval, cycling",
            half,
            sesoi,
            bool(half <= sesoi or beyond),
            "IMPRECISE",
            f"the 90 % interval of the cycling endpoint reaches {half:.2f} to either side; at most {sesoi:g} is "
            "allowed, unless the 95 % interval lies wholly beyond it",
        )
    )
    known = np.isfinite(shares.difference)
    names = [name for name, there in zip(found.contrast.layout.patients, known, strict=True) if there]
    without = leave_one_out(names, shares.difference[known], shares.variance[known])
    asked = wanted
    if wanted == "NOT_SUPPORTED":
        without, asked = divided(without, ENDPOINTS, fit.n), wanted if against else "INCONCLUSIVE"
    checks.append(patient_check(asked, without, sign=sign, sesoi=sesoi, of="the cycling endpoint"))
    checks.append(
        Rule(
            "cycling cells",
            fit.estimate,
            sign * sesoi,
            bool((fit.ci_low if sign > 0 else -fit.ci_high) > 0 and fit.estimate * sign >= sesoi),
            "NO_EFFECT_SHOWN",
            f"share of cycling cells, difference of arcsines: {fit.estimate:.2f} [{fit.ci_low:.2f}, {fit.ci_high:.2f}];"
            f" the interval must exclude 0 and the estimate reach {sign * sesoi:g}",
            "support",
        )
    )
    return checks


def _score_rules(found: Composite, rules: Rules, wanted: str, *, against: bool) -> list[Rule]:
    """Rules on the score; ``against``: it is refuted."""
    claim, contrast = found.claim, found.contrast
    if not against:
        return result_rules(contrast, rules, "SUPPORTED" if wanted == "SUPPORTED" else "INCONCLUSIVE")
    without = divided(contrast.robustness.leave_one_out, ENDPOINTS, contrast.fit.n)
    checks = result_rules(contrast, rules, "NOT_SUPPORTED")
    checks.append(
        patient_check("NOT_SUPPORTED", without, sign=claim.sign, sesoi=claim.sesoi, of="the score at half the level")
    )
    return checks


def _deciding(endpoints: Sequence[tuple[bool, list[Rule]]]) -> list[Rule]:
    """Rules of endpoints (whether each is refuted, and its rules) that a refutation of the claim rests on.

    One refuted endpoint refutes the claim, whatever the data of the other one are like, and more evidence against it
    undoes no refutation: the rules of an endpoint block the verdict only when it is refuted and no other refuted one
    meets all of its own. Blood in the tumour cells (CONTAMINATION) reaches both endpoints and always blocks.
    """
    sound = [against and all(rule.holds or rule.blocks == "support" for rule in own) for against, own in endpoints]
    asked = sound if any(sound) else [against for against, _ in endpoints]
    return [
        rule if decides or rule.code == "CONTAMINATION" else replace(rule, blocks="support")
        for decides, (_, own) in zip(asked, endpoints, strict=True)
        for rule in own
    ]


def _purge_rules(found: Composite) -> list[Rule]:
    claim, checks = found.claim, []
    for name, fit in found.purged.items():
        kept = fit.estimate * claim.sign
        checks.append(
            Rule(
                f"effect on {name}",
                kept,
                claim.sesoi / 2,
                bool(kept >= claim.sesoi / 2),
                "NOT_ROBUST_TO_COVARIATES",
                f"{name}: {fit.estimate:.2f}; at least {claim.sesoi / 2:g} must stay in the predicted direction"
                if math.isfinite(fit.estimate)
                else f"{name} cannot be scored",
                "support",
            )
        )
    return checks


def judge_composite(
    found: Composite, rules: Rules, *, p_adjusted: float, gates: Mapping[str, str], p_attainable: float = NAN
) -> Judged:
    """Apply the plan to a composite claim.

    SUPPORTED: the adjusted p (of the larger of both) is below alpha; the score endpoint meets the rules of a paired
    contrast; the share of cycling cells moves the other way, with a 95 % interval that excludes 0 and an estimate of
    at least ``cycling_sesoi``; each purged signature keeps the sign and half of ``sesoi``; every rule holds.
    NOT_SUPPORTED: one of the two endpoints is refuted (90 % interval below its smallest effect of interest, or 95 %
    interval beyond 0 on the other side, their tails halved because either would do) and meets its own rules: where
    primary cells hardly cycle there is no room for the share to fall, and nothing is refuted. The estimate and
    interval shown are those of the score.
    """
    claim, contrast, fit = found.claim, found.contrast, found.contrast.fit
    level = {"p_adjusted": p_adjusted, "alpha": rules.alpha}
    score_supported = supports(fit, sign=claim.sign, sesoi=claim.sesoi, **level)
    cycling = found.fit
    cycling_supported = supports(cycling, sign=-claim.sign, sesoi=claim.cycling_sesoi, **level)
    against = (
        refutes(fit.one_of(ENDPOINTS), sign=claim.sign, sesoi=claim.sesoi),
        refutes(cycling.one_of(ENDPOINTS), sign=-claim.sign, sesoi=claim.cycling_sesoi),
    )
    wanted = candidate(supports=score_supported and cycling_supported, refutes=any(against))
    endpoints = [
        _score_rules(found, rules, wanted, against=against[0]),
        _cycling_rules(found, rules, wanted, against=against[1]),
    ]
    checks = [*data_rules(contrast, rules), *gate_rules(gates), *attainable_rule(p_attainable, rules)]
    if wanted == "NOT_SUPPORTED":
        checks += [*_deciding(list(zip(against, endpoints, strict=True))), *_purge_rules(found)]
    else:
        checks += [*endpoints[0], *_purge_rules(found), *endpoints[1]]
    effect = shows_effect(fit, sign=claim.sign, sesoi=claim.sesoi)
    decision = decide(wanted, checks, tested=fit.n >= rules.estimate_patients, effect=effect)
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
        sesoi=claim.sesoi,
        mde80=contrast.mde80,
        patients_needed=contrast.patients_needed,
        sensitivity_agreement=contrast.robustness.agreement,
        self_check_type1=contrast.self_check_type1,
    )
    sd = NAN if found.shares is None else spread(found.shares.difference[np.isfinite(found.shares.difference)])
    cycling_detail = cycling.as_dict() | {
        "p_value": found.test.p_value,
        "unit": "difference of arcsin(sqrt(share)) at equal numbers of cells",
        "sesoi": claim.cycling_sesoi,
        "threshold_z": CYCLING_Z,
        "room": NAN if found.shares is None or not cycling.n else float(np.nanmean(found.shares.room)),
        "mde80": minimum_detectable_effect(sd, cycling.n, alpha=rules.alpha),
        "patients_needed": patients_needed(
            claim.cycling_sesoi, sd, alpha=rules.alpha, minimum=rules.confirmatory_patients
        ),
    }
    detail = contrast_detail(contrast) | {
        "joint": "both endpoints must hold: p is the larger one (intersection-union); the estimate is the score's",
        "score_p_value": contrast.test.p_value,
        "cycling": cycling_detail,
        "purged": {name: one.as_dict() for name, one in found.purged.items()},
    }
    return Judged(claim, decision, row, detail, tuple(checks))
