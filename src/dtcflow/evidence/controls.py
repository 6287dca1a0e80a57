"""Controls that run with every analysis: what the same procedure shows where the answer is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from dtcflow.evidence.contrasts import Differences, Floats, Layout, average, differences, group_values, stream
from dtcflow.evidence.inference import MetaAnalysis, random_effects, sign_flip_p, sign_patterns
from dtcflow.evidence.plan import Claim, Rules
from dtcflow.evidence.power import smallest_p
from dtcflow.evidence.robustness import combine
from dtcflow.evidence.scoring import Scored

CONTROL_COLUMNS: Final = (
    "claim_id",
    "control",
    "label",
    "signature",
    "n_patients",
    "estimate",
    "ci_low",
    "ci_high",
    "p_value",
    "rate",
    "rate_se",
    "rate_high",
    "n_repeats",
    "expectation",
    "ok",
)
MAX_CI_FLIPS: Final = 256
NAN: Final = float("nan")


def control_row(claim: Claim, control: str, label: str, expectation: str, ok: bool, **values: Any) -> dict[str, Any]:
    """One row of :data:`CONTROL_COLUMNS`; numbers that are not given are NaN."""
    empty = {"signature": "", "n_patients": 0, "n_repeats": 0}
    numbers = dict.fromkeys(("estimate", "ci_low", "ci_high", "p_value", "rate", "rate_se", "rate_high"), NAN)
    return {
        "claim_id": claim.id,
        "control": control,
        "label": label,
        **empty,
        **numbers,
        "expectation": expectation,
        "ok": ok,
        **values,
    }


def rejections(hits: int, repeats: int) -> dict[str, float]:
    """Columns ``rate``, ``rate_se`` and ``rate_high`` of a test that rejected in ``hits`` of ``repeats``.

    ``rate_high`` is the exact (Clopper-Pearson) upper limit at 95 %, one-sided: that nothing was rejected in 200
    repeats says that the rate is below .015, not that it is zero. The standard error is that of (hits + 1/2) /
    (repeats + 1), for the same reason.
    """
    shrunk = (hits + 0.5) / (repeats + 1)
    high = float(stats.beta.ppf(0.95, hits + 1, repeats - hits)) if hits < repeats else 1.0
    return {"rate": hits / repeats, "rate_se": math.sqrt(shrunk * (1 - shrunk) / repeats), "rate_high": high}


def contaminated(low: float, high: float, *, sign: int, sesoi: float) -> bool:
    """Whether a negative control rises, or shows the predicted effect: interval beyond 0 and not within the SESOI.

    Haematopoietic signal in a tumour cell raises its own sets and dilutes the tumour's: of a claim that predicts a
    decrease, too, a control that rises is what contamination looks like.
    """

    def shows(bottom: float, top: float) -> bool:
        return bool(math.isfinite(bottom) and bottom > 0 and top >= sesoi)

    return shows(low, high) or (sign < 0 and shows(-high, -low))


def allowed(sign: int, sesoi: float) -> str:
    """What :func:`contaminated` asks of an interval, in words."""
    return f"include 0 or lie below {sesoi:g}" if sign > 0 else f"include 0 or lie between {-sesoi:g} and {sesoi:g}"


def negative_controls(claim: Claim, scored: Scored, values: Differences) -> list[dict[str, Any]]:
    """Contrast of the negative-control signatures on the same cells.

    Haematopoietic stem-cell sets rise in a "DTC" that is a marrow progenitor, carries its transcripts, or shares a
    droplet with one. A control that cannot be scored gives no reassurance: it does not hold.
    """
    rows = []
    for name in claim.negative_controls:
        column = scored.column(name)
        rows.append(
            negative_control(claim, name, combine(values, column) if column is not None else random_effects([], []))
        )
    return rows


def negative_control(claim: Claim, name: str, fit: MetaAnalysis) -> dict[str, Any]:
    """Row of one negative-control signature."""
    known = math.isfinite(fit.ci_low)
    return control_row(
        claim,
        "negative_signature",
        f"negative control {name}",
        f"the interval must {allowed(claim.sign, claim.sesoi)}",
        known and not contaminated(fit.ci_low, fit.ci_high, sign=claim.sign, sesoi=claim.sesoi),
        signature=name,
        n_patients=fit.n,
        estimate=fit.estimate,
        ci_low=fit.ci_low,
        ci_high=fit.ci_high,
    )


@dataclass(frozen=True)
class SelfCheck:
    """Repeated splits of the reference cells: patients x repeats differences, and which patients took part."""

    differences: Floats
    patients: NDArray[np.int64]


def split_reference(
    layout: Layout, scored: Scored, column: int, rules: Rules, *, repeats: int, scale: float, seed: int
) -> SelfCheck:
    """Split each patient's reference cells at random into pseudo-a (as many cells as a has) and pseudo-b, repeatedly.

    All reference cells are at the depth of group a after harmonisation; split ``r`` uses depth repeat ``r`` modulo
    their number. A patient with fewer reference cells than twice those of a is split in half.
    """
    patient, side = layout.patient, layout.side
    pools: dict[int, tuple[NDArray[np.int64], int]] = {}
    for p in range(len(layout.patients)):
        cells = np.flatnonzero((patient == p) & (side == 1))
        n = min(int(((patient == p) & (side == 0)).sum()), cells.size // 2)
        if n >= rules.value_cells:
            pools[p] = (cells, n)
    rngs = {p: stream(seed, "split", layout.patients[p]) for p in pools}
    kept = np.array(sorted(pools), dtype=np.int64)
    found = np.full((kept.size, repeats), np.nan)
    for r in range(repeats):
        sides = np.full(len(layout.table), -1, dtype=np.int64)
        for p in pools:
            cells, n = pools[p]
            sides[cells] = 1
            sides[rngs[p].choice(cells, size=n, replace=False)] = 0
        z = scored.matched[r % len(scored.matched)][:, [column]]
        groups = group_values(z, layout, trim=rules.trim, side=sides)
        found[:, r] = (groups.value[kept, 0, 0] - groups.value[kept, 1, 0]) / scale
    return SelfCheck(found, kept)


def split_controls(claim: Claim, rules: Rules, check: SelfCheck, *, seed: int) -> list[dict[str, Any]]:
    """Type-I error of the test on splits without an effect, and its detection rate on the same splits with one planted.

    The attainable level of an exact test is a multiple of ``2 / 2^n`` (at most .047 with eight patients), so a rate
    below .05 is expected; more than two standard errors above it is not. With so few patients that no p reaches alpha
    there is no rate: that a test which cannot reject did not is no evidence. The planted effect is twice the smallest
    effect of interest, added to the differences of the splits: a positive control of the test over patients, with the
    noise of these cells, and not of the score (``make bench-evidence`` plants in counts).
    """
    n, repeats = check.differences.shape
    labels = ("primary cells split in two", "primary cells split, effect planted")
    if n < rules.estimate_patients or repeats == 0:
        why = "needs reference cells of three patients"
        return [
            control_row(claim, name, label, why, False)
            for name, label in zip(("split", "planted"), labels, strict=True)
        ]
    means = check.differences.mean(axis=0)
    rows = []
    planted = 2 * claim.sesoi * claim.sign
    for name, label, shift in (("split", labels[0], 0.0), ("planted", labels[1], planted)):
        low, high = np.quantile(means + shift, [0.025, 0.975])
        found: dict[str, float] = {}
        if not np.isfinite(check.differences).all():
            expectation, ok = "the reference cells have no spread to measure in", False
        elif smallest_p(n) > rules.alpha:
            expectation, ok = f"{shift:g}; with {n} patients the test cannot reject", low <= shift <= high
        elif name == "split":
            found = rejections(int((sign_flip_p(check.differences, seed=seed) <= rules.alpha).sum()), repeats)
            tolerance = 2 * math.sqrt(rules.alpha * (1 - rules.alpha) / repeats)
            expectation, ok = (
                f"0; rejected in at most {rules.alpha:.0%} (+ 2 SE)",
                found["rate"] <= rules.alpha + tolerance and low <= 0 <= high,
            )
        else:
            found = rejections(int((sign_flip_p(check.differences + shift, seed=seed) <= rules.alpha).sum()), repeats)
            enough = n >= rules.confirmatory_patients
            expectation = f"{shift:g}" + ("; found in at least 80 %" if enough else "")
            ok = low <= shift <= high and (found["rate"] >= 0.8 or not enough)
        rows.append(
            control_row(
                claim,
                name,
                label,
                expectation,
                bool(ok),
                n_patients=n,
                estimate=float(means.mean() + shift),
                ci_low=float(low),
                ci_high=float(high),
                n_repeats=repeats,
                **found,
            )
        )
    return rows


BLOOD: Final = "HEM"
"""Group of the marrow's blood cells."""


def blood_split(claim: Claim, rules: Rules, check: SelfCheck | None, *, seed: int) -> dict[str, Any]:
    """Blood cells of the marrow as pseudo-DTCs: split in two at the number and depth of the tumour cells, expected 0.

    It never decides: it says whether the route finds something where there is nothing, in cells of another kind than
    those that :func:`split_reference` splits.
    """
    label = "marrow blood cells split in two, at the number and depth of DTCs"
    if check is None or check.differences.shape[0] < rules.estimate_patients:
        return control_row(
            claim, "blood_split", label, "needs blood cells of three marrows in which the score works", False
        )
    return split_controls(claim, rules, check, seed=seed)[0] | {"control": "blood_split", "label": label}


def blood_contrast(claim: Claim, fit: MetaAnalysis | None) -> dict[str, Any]:
    """Blood cells of the marrow minus the reference cells: what contamination would look like. Shown, never decides."""
    label, expectation = (
        f"marrow blood cells minus {claim.b}",
        "shown: where blood in a tumour cell would move the claim",
    )
    if fit is None or not math.isfinite(fit.estimate):
        return control_row(claim, "blood_minus_reference", label, expectation, True)
    return control_row(
        claim,
        "blood_minus_reference",
        label,
        expectation,
        True,
        signature=claim.primary_signature,
        n_patients=fit.n,
        estimate=fit.estimate,
        ci_low=fit.ci_low,
        ci_high=fit.ci_high,
    )


def depth_control(
    claim: Claim, rules: Rules, layout: Layout, scored: Scored, column: int, scale: float
) -> dict[str, Any]:
    """How far thinning moves the score of the same cells: what calibration leaves for depth harmonisation to do.

    Per patient, thinned minus original value of the compartment that was thinned. Expected within half of the
    smallest effect of interest; a larger shift is no error of the contrast, whose two sides are at one depth, but
    says that it hangs on that.
    """
    thinned = scored.share < 1
    full = group_values(scored.full[:, [column]], layout, trim=rules.trim)
    matched = average([group_values(z[:, [column]], layout, trim=rules.trim) for z in scored.matched])
    shift = []
    for p in range(len(layout.patients)):
        for k in (0, 1):
            own = (layout.patient == p) & (layout.side == k)
            if (own & thinned).any():
                shift.append((matched.value[p, k, 0] - full.value[p, k, 0]) / scale)
    d = np.asarray(shift)
    label, expectation = "same cells, thinned minus original depth", f"within {claim.sesoi / 2:g} of 0"
    if d.size == 0:
        return control_row(claim, "depth_shift", label, "no cell had to be thinned", True)
    fit = random_effects(d, np.full(d.size, max(float(np.var(d)), 1e-12)))
    ok = abs(fit.estimate) <= claim.sesoi / 2
    return control_row(
        claim,
        "depth_shift",
        label,
        expectation,
        ok,
        n_patients=d.size,
        estimate=fit.estimate,
        ci_low=fit.ci_low,
        ci_high=fit.ci_high,
    )


def flip_control(claim: Claim, values: Differences, column: int, *, seed: int) -> dict[str, Any]:
    """Compartment labels exchanged within patients: how often the 95 % interval then excludes zero.

    All sign patterns with few patients, 256 seeded ones with more. ``estimate`` and interval describe the flipped
    means.
    """
    label, expectation = "compartment labels exchanged", "0; interval excludes 0 in few of them"
    d = values.difference[values.usable, column]
    v = values.variance[values.usable, column]
    if d.size < 3 or not np.isfinite(d).all():
        return control_row(claim, "label_flips", label, "needs three patients", False)
    patterns = sign_patterns(d.size, seed=seed)
    if len(patterns) > MAX_CI_FLIPS:
        rng = stream(seed, "flips")
        patterns = patterns[np.sort(rng.choice(len(patterns), size=MAX_CI_FLIPS, replace=False))]
    fits = [random_effects(d * signs, v) for signs in patterns]
    rate = float(np.mean([fit.ci_low > 0 or fit.ci_high < 0 for fit in fits]))
    means = np.array([fit.estimate for fit in fits])
    low, high = np.quantile(means, [0.025, 0.975])
    return control_row(
        claim,
        "label_flips",
        label,
        expectation,
        rate <= max(0.10, smallest_p(d.size)),
        n_patients=d.size,
        estimate=float(means.mean()),
        ci_low=float(low),
        ci_high=float(high),
        rate=rate,
        rate_se=math.sqrt(rate * (1 - rate) / len(fits)),
        n_repeats=len(fits),
    )


@dataclass(frozen=True)
class GeneSetNull:
    """Estimates of random gene sets, and how many of them the test over patients would call at ``alpha``.

    ``rejected`` is None where the test cannot reject with these patients.
    """

    estimates: Floats
    rejected: int | None


NO_NULL: Final = GeneSetNull(np.zeros(0), None)


def gene_set_null(scored: Scored, claim: Claim, rules: Rules, *, seed: int) -> GeneSetNull:
    """Estimate of each random set of the primary signature, exactly as for the signature: own unit, own weights.

    The share that a patient-level test would call significant is what random signatures are good for here: most random
    signatures predict outcome in breast cancer, too (Venet 2011, PMID 22028643).
    """
    groups = scored.null.get(claim.primary_signature)
    if groups is None:
        return NO_NULL
    values = differences(groups, minimum=rules.value_cells)
    estimates = np.array([combine(values, column).estimate for column in range(groups.value.shape[2])])
    p = sign_flip_p(values.difference[values.usable], seed=seed)
    able = smallest_p(int(values.usable.sum())) <= rules.alpha
    return GeneSetNull(estimates, int((p <= rules.alpha).sum()) if able else None)


def random_set_control(claim: Claim, null: GeneSetNull, p_gene_set: float, n_patients: int) -> dict[str, Any]:
    """Random gene sets of the same kind as a row of the control table."""
    known = null.estimates[np.isfinite(null.estimates)]
    label, expectation = "random gene sets", f"median within {claim.sesoi / 2:g} of 0"
    if known.size == 0:
        return control_row(claim, "random_sets", label, "the primary signature must be scorable", False)
    low, middle, high = np.quantile(known, [0.025, 0.5, 0.975])
    return control_row(
        claim,
        "random_sets",
        label,
        expectation,
        bool(abs(middle) <= claim.sesoi / 2),
        n_patients=n_patients,
        estimate=float(middle),
        ci_low=float(low),
        ci_high=float(high),
        p_value=p_gene_set,
        n_repeats=known.size,
        **({} if null.rejected is None else rejections(null.rejected, known.size)),
    )


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Control rows as a table, :data:`CONTROL_COLUMNS`."""
    return pd.DataFrame(rows, columns=list(CONTROL_COLUMNS))
