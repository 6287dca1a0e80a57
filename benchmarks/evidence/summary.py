"""Rows of cohorts to tables: rates with Monte-Carlo errors, and the figures that were asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from dtcflow.evidence.plan import Plan
from evidence.grid import GRID, STRONG, Entry, truth
from evidence.size import COVERS

Rows = Sequence[Mapping[str, Any]]
TYPE1_BAND: Final = (0.0375, 0.0635)
COVERAGE_BAND: Final = (0.93, 0.97)
MOST_FALSE: Final = 0.05
MOST_FALSE_REFUTED: Final = 0.10
MOST_SHIFT: Final = 0.10
LEAST: Final = 0.95
LEAST_POWER: Final = 0.80
VERDICTS: Final = ("SUPPORTED", "NOT_SUPPORTED", "INCONCLUSIVE")
TESTS: Final = {
    "p_sign_flip": "exact sign-flip over patients (decides)",
    "ci_excludes_0": "Paule-Mandel + HKSJ interval over patients (decides)",
    "p_paired_t": "paired t over patients",
    "p_dersimonian_laird": "DerSimonian-Laird z over patients",
    "p_patient_intercept": "cells, patient intercept only",
    "p_wilcoxon_cells": "Wilcoxon over cells",
    "p_raw_mean": "raw mean of log counts, paired t over patients",
}
EXPECTED_CODE: Final = {
    "null, aliased with study": "CONFOUNDED",
    "null, 20 % haematopoietic": "CONTAMINATION",
    "null, 20 % of cells miscalled": "CONTAMINATION",
}


def share(hits: Iterable[bool]) -> tuple[float, float, int]:
    """Share of hits, its Monte-Carlo standard error, and how many cohorts."""
    values = np.fromiter(hits, dtype=bool)
    if not values.size:
        return math.nan, math.nan, 0
    rate = float(values.mean())
    return rate, math.sqrt(rate * (1 - rate) / values.size), int(values.size)


def by_scenario(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Rows of each scenario of the grid that has any."""
    out: dict[str, list[Mapping[str, Any]]] = {}
    for entry in GRID:
        own = [row for row in rows if row["scenario"] == entry.name]
        if own:
            out[entry.name] = own
    return out


def true_value(entry: Entry, measured: Mapping[str, float]) -> float:
    """Value the estimate of P2 should have: 0 without a change, else what a very large cohort gives; NaN unknown."""
    s = entry.scenario
    if s.contamination or s.miscalled or s.aliased or s.subset_share or s.cycling_dtc != s.cycling_pt:
        return math.nan
    if entry.permuted or not s.effects.get("stemness", 0.0):
        return 0.0
    return measured.get(truth_key(entry), math.nan)


def truth_key(entry: Entry) -> str:
    """Scenarios with one key have one true value."""
    return f"stemness {entry.scenario.effects.get('stemness', 0.0):g}, depth ratio {entry.scenario.depth_ratio:g}"


def _excludes_0(found: Mapping[str, Any]) -> bool:
    return found["ci_low"] is not None and (found["ci_low"] > 0 or found["ci_high"] < 0)


def claims_summary(rows: Rows, plan: Plan, measured: Mapping[str, float]) -> pd.DataFrame:
    """One line per scenario and evaluated claim, and one for the hypothesis."""
    lines: list[dict[str, Any]] = []
    for name, own in by_scenario(rows).items():
        entry = next(one for one in GRID if one.name == name)
        for claim in plan.claims:
            found = [row["claims"][claim.id] for row in own if claim.id in row["claims"]]
            if not found:
                continue
            estimates = np.array([np.nan if one["estimate"] is None else one["estimate"] for one in found])
            target = true_value(entry, measured) if claim.id == "P2" else math.nan
            inside = [one["ci_low"] <= target <= one["ci_high"] for one in found if one["ci_low"] is not None]
            has_p = [one for one in found if one["p_value"] is not None]
            gate = claim.test == "identity_share"
            line: dict[str, Any] = {"scenario": name, "claim": claim.id, "truth": truth(entry, claim)}
            line |= _verdict_shares([one["verdict"] for one in found], [one["codes"].split(";") for one in found])
            line["p_rejects"], line["p_rejects_se"], _ = share(one["p_value"] <= plan.rules.alpha for one in has_p)
            line["ci_excludes_0"] = math.nan if gate else share(_excludes_0(one) for one in found)[0]
            line["mean_estimate"] = float(np.nanmean(estimates)) if np.isfinite(estimates).any() else math.nan
            line["true_value"] = target
            line["bias"] = line["mean_estimate"] - target
            line["coverage"] = share(inside)[0] if math.isfinite(target) else math.nan
            lines.append(line)
        hypothesis = [row["hypothesis"] for row in own if row["hypothesis"]]
        line = {"scenario": name, "claim": "hypothesis", "truth": "undefined"}
        line |= _verdict_shares([one["verdict"] for one in hypothesis], [one["codes"] for one in hypothesis])
        lines.append(line)
    return pd.DataFrame(lines)


def _verdict_shares(verdicts: Sequence[str], codes: Sequence[Sequence[str]]) -> dict[str, Any]:
    n = len(verdicts)
    out: dict[str, Any] = {"cohorts": n}
    for verdict in VERDICTS:
        out[verdict.lower()], out[f"{verdict.lower()}_se"], _ = share(one == verdict for one in verdicts)
    counted = Counter(code for own in codes for code in own if code)
    leading = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:3]
    out["codes"] = "; ".join(f"{code} {count / n:.2f}" for code, count in leading)
    return out


def rejects(row: Mapping[str, Any], test: str, alpha: float) -> bool | None:
    """Whether a test rejects in a cohort; None where it could not be done."""
    found = row["claims"].get("P2")
    if found is None or found["p_value"] is None:
        return None
    if test == "ci_excludes_0":
        return _excludes_0(found)
    p = found["p_value"] if test == "p_sign_flip" else row["compared"].get(test)
    return None if p is None else bool(p <= alpha)


def rejection_rates(rows: Rows, alpha: float) -> pd.DataFrame:
    """Rejection rate of every test on the same cohorts of P2."""
    lines = []
    for name, own in by_scenario(rows).items():
        for test, label in TESTS.items():
            decided = [one for one in (rejects(row, test, alpha) for row in own) if one is not None]
            rate, error, n = share(decided)
            if n:
                lines.append((name, test, label, n, rate, error))
        raw = [row["compared"]["raw_estimate"] for row in own if row["compared"].get("raw_estimate") is not None]
        if raw:
            label = "raw mean of log counts: mean estimate, SD"
            lines.append((name, "raw_estimate", label, len(raw), np.mean(raw), np.std(raw) / math.sqrt(len(raw))))
    return pd.DataFrame(lines, columns=["scenario", "test", "what", "cohorts", "rate", "se"])


def limit_line(
    figure: str, asked: str, value: float, error: float, n: int, low: float = -math.inf, high: float = math.inf
) -> dict[str, Any]:
    """A figure against the band it should lie in; ``open``: beyond it, by no more than two standard errors."""
    if not n or not math.isfinite(value):
        met = "not measured"
    elif low == -math.inf and high == math.inf:
        met = ""
    elif low <= value <= high:
        met = "yes"
    else:
        met = "open" if low - 2 * error <= value <= high + 2 * error else "no"
    return {"figure": figure, "asked": asked, "measured": value, "se": error, "n": n, "met": met}


def share_line(figure: str, hits: Iterable[bool], *, least: float = 0.0, most: float = 1.0) -> dict[str, Any]:
    """A share of cohorts against its limit; ``open``: the limit lies between the exact one-sided 95 % limits.

    Not one of seventeen cohorts does not show a rate of at most 5 %: its upper limit is 16 %.
    """
    rate, error, n = share(hits)
    line = limit_line(figure, f">= {least}" if least else f"<= {most}", rate, error, n)
    if not n:
        return line
    low, high = proportion_confint(round(rate * n), n, alpha=0.1, method="beta")
    met = "yes" if least <= low and high <= most else "no" if high < least or low > most else "open"
    return line | {"low95": low, "high95": high, "met": met}


FIGURE_COLUMNS: Final = ("figure", "asked", "measured", "se", "low95", "high95", "n", "met")


def acceptance(rows: Rows, plan: Plan) -> pd.DataFrame:
    """Figures that were asked for, with what was found and whether it meets them."""
    scenarios = by_scenario(rows)
    lines = [*_type1(scenarios, plan), *_false_verdicts(scenarios, plan), *_codes(scenarios)]
    lines += _power(scenarios, plan) + _permutation(scenarios)
    return pd.DataFrame(lines, columns=list(FIGURE_COLUMNS))


def size_lines(sizes: pd.DataFrame) -> pd.DataFrame:
    """Level of the test, and level and coverage of the interval, from the study of size."""
    lines = []
    for row in sizes.to_dict("records"):
        low, high = COVERAGE_BAND if row["measure"] == COVERS else TYPE1_BAND
        title = f"{row['measure']}, {row['scenario']}, {row['signature']} (score, contrast and test alone)"
        lines.append(limit_line(title, f"{low} to {high}", row["rate"], row["se"], row["cohorts"], low, high))
    return pd.DataFrame(lines, columns=list(FIGURE_COLUMNS))


def _type1(scenarios: Mapping[str, Rows], plan: Plan) -> list[dict[str, Any]]:
    """Rejections of claims whose p is the largest of several tests: at most the level, without any effect far below."""
    entry = next(one for one in GRID if one.name == "null")
    lines = []
    for claim in plan.claims:
        joint = claim.test in ("specificity", "composite_contrast") and claim.family == "confirmatory"
        if not joint or not claim.evaluated or truth(entry, claim) != "absent":
            continue
        found = [row["claims"][claim.id]["p_value"] for row in scenarios.get("null", ())]
        title = f"{claim.id} type-I error, largest p of its parts <= {plan.rules.alpha:g}, null"
        hits = [p <= plan.rules.alpha for p in found if p is not None]
        lines.append(share_line(title, hits, most=TYPE1_BAND[1]))
    return lines


def hypothesis_supported(row: Mapping[str, Any], plan: Plan) -> bool | None:
    """Whether the hypothesis is SUPPORTED in a cohort; None where it was not judged and could be.

    It needs every gate and every necessary claim: one that is not SUPPORTED settles it, whether P1 was made or not.
    """
    if row["hypothesis"]:
        return bool(row["hypothesis"]["verdict"] == "SUPPORTED")
    needed = (*plan.gates, *plan.necessary)
    lost = any(row["claims"][name]["verdict"] != "SUPPORTED" for name in needed if name in row["claims"])
    return False if lost else None


def _false_verdicts(scenarios: Mapping[str, Rows], plan: Plan) -> list[dict[str, Any]]:
    lines = []
    for name, own in scenarios.items():
        entry = next(one for one in GRID if one.name == name)
        for claim in plan.claims:
            found = [row["claims"][claim.id] for row in own if claim.id in row["claims"]]
            state = truth(entry, claim)
            if not found or claim.test == "identity_share" or state == "undefined":
                continue
            false, most = ("SUPPORTED", MOST_FALSE) if state == "absent" else ("NOT_SUPPORTED", MOST_FALSE_REFUTED)
            hits = [one["verdict"] == false for one in found]
            lines.append(share_line(f"{claim.id} false {false}, {name}", hits, most=most))
        if truth(entry, plan.claim("P2")) == "present":
            hits = [row["hypothesis"]["verdict"] == "NOT_SUPPORTED" for row in own if row["hypothesis"]]
            lines.append(share_line(f"hypothesis NOT_SUPPORTED, {name}", hits, most=MOST_FALSE_REFUTED))
        if all(truth(entry, claim) == "absent" for claim in plan.claims if claim.id == "P2"):
            known = (hypothesis_supported(row, plan) for row in own)
            hits = [one for one in known if one is not None]
            lines.append(share_line(f"hypothesis false SUPPORTED, {name}", hits, most=MOST_FALSE))
    return lines


def _codes(scenarios: Mapping[str, Rows]) -> list[dict[str, Any]]:
    lines = []
    for name, code in EXPECTED_CODE.items():
        found = [row["claims"]["P2"] for row in scenarios.get(name, ()) if "P2" in row["claims"]]
        hits = [code in one["codes"].split(";") for one in found]
        lines.append(share_line(f"P2 ends with {code}, {name}", hits, least=LEAST))
    return lines


def _power(scenarios: Mapping[str, Rows], plan: Plan) -> list[dict[str, Any]]:
    found = [row["claims"]["P2"] for row in scenarios.get(STRONG.name, ()) if "P2" in row["claims"]]
    hits = [one["verdict"] == "SUPPORTED" for one in found]
    return [share_line(f"P2 SUPPORTED, {STRONG.name}, 12 DTCs or more", hits, least=LEAST_POWER)]


def _permutation(scenarios: Mapping[str, Rows]) -> list[dict[str, Any]]:
    supported = {
        row["replicate"]
        for row in scenarios.get(STRONG.name, ())
        if row["claims"].get("P2", {}).get("verdict") == "SUPPORTED"
    }
    permuted = scenarios.get(f"{STRONG.name}, labels permuted", ())
    gone = [row["claims"]["P2"]["verdict"] != "SUPPORTED" for row in permuted if row["replicate"] in supported]
    return [share_line("P2 no longer SUPPORTED after permuting labels", gone, least=LEAST)]


def depth_lines(depth: pd.DataFrame) -> pd.DataFrame:
    """Residual shift after depth harmonisation against the largest that is accepted."""
    own = depth[depth["way"] == "harmonised"]
    lines = [
        limit_line(
            f"shift at depth .3, {row['cells']}, {row['signature']}",
            f"within {MOST_SHIFT}",
            row["shift"],
            row["se"],
            1,
            -MOST_SHIFT,
            MOST_SHIFT,
        )
        for row in own.to_dict("records")
    ]
    return pd.DataFrame(lines)


def invariance_lines(same: pd.DataFrame) -> pd.DataFrame:
    """Whether the verdict stays the same byte for byte."""
    lines = [
        limit_line(
            f"verdict.json identical: {row['changed']}", "yes", float(row["identical"]), 0.0, 1, bool(row["identical"])
        )
        for row in same.to_dict("records")
    ]
    return pd.DataFrame(lines)


def markdown(table: pd.DataFrame) -> str:
    """The table for reading: three decimals, empty where nothing is known."""

    def cell(value: object) -> str:
        if isinstance(value, float | np.floating):
            return "" if math.isnan(value) else f"{value:.3f}"
        return str(value)

    head = "| " + " | ".join(table.columns) + " |"
    rule = "|" + "---|" * len(table.columns)
    return (
        "\n".join([head, rule, *("| " + " | ".join(map(cell, row)) + " |" for row in table.itertuples(index=False))])
        + "\n"
    )
