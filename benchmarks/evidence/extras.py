"""Smaller questions: invariance of the verdict, the settings of a run, true values, and the fast simulator."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anndata as ad
import numpy as np
import pandas as pd

from dtcflow.evidence.plan import Plan
from dtcflow.evidence.planning import Design, contrast_of, outcomes
from dtcflow.evidence.run import EvidenceResult
from dtcflow.simulate.evidence import EvidenceCohort, EvidenceScenario, simulate_evidence
from evidence.depth import SIGNATURES, simulated
from evidence.grid import GRID, STRONG, Entry
from evidence.measure import SHIPPED, SLOW, Bench
from evidence.store import append, read
from evidence.summary import by_scenario, share, true_value, truth_key

ORDERS: Final = ("cells", "patients", "genes")
SMALL_COHORT: Final = EvidenceScenario("invariance", n_patients=6, pt_cells=40, effects={"stemness": 1.0})


# ---------------------------------------------------------------------------------------------------------------------
# Invariance
# ---------------------------------------------------------------------------------------------------------------------


def digest(result: EvidenceResult) -> str:
    """Hash of the verdict as a run writes it."""
    text = json.dumps(result.verdict, sort_keys=True, indent=2)
    return hashlib.sha256(text.encode()).hexdigest()


def _taken(cohort: EvidenceCohort, rows: np.ndarray, columns: np.ndarray) -> EvidenceCohort:
    adata: ad.AnnData = cohort.adata[rows][:, columns].copy()
    return EvidenceCohort(adata, cohort.cells.iloc[rows].reset_index(drop=True), cohort.slopes)


def shuffled(cohort: EvidenceCohort, what: str, *, seed: int = 1) -> EvidenceCohort:
    """The same cohort with cells, patients or genes in another order."""
    rng = np.random.default_rng(seed)
    rows, columns = np.arange(cohort.adata.n_obs), np.arange(cohort.adata.n_vars)
    if what == "cells":
        rows = rng.permutation(rows)
    elif what == "genes":
        columns = rng.permutation(columns)
    elif what == "patients":
        patient = cohort.cells["patient_id"].to_numpy()
        rows = np.concatenate([np.flatnonzero(patient == name) for name in sorted(set(patient), reverse=True)])
    return _taken(cohort, rows, columns)


def with_threads(threads: int) -> str:
    """Hash of the verdict in a new process whose numerical libraries may use so many threads."""
    code = "from evidence.extras import one_digest; print(one_digest())"
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def one_digest(change: Callable[[EvidenceCohort], EvidenceCohort] = lambda cohort: cohort) -> str:
    """Hash of the verdict on one cohort after a change that must not matter."""
    return digest(Bench().evaluate(change(simulate_evidence(SMALL_COHORT, 1)), seed=1))


def invariance() -> pd.DataFrame:
    """Whether the verdict is the same byte for byte."""
    base = one_digest()
    rows = [(what, one_digest(lambda cohort, what=what: shuffled(cohort, what)) == base) for what in ORDERS]
    rows += [(f"{n} threads", with_threads(n) == base) for n in (1, 2)]
    return pd.DataFrame(rows, columns=["changed", "identical"])


# ---------------------------------------------------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------------------------------------------------


def as_shipped(bench: Bench, *, cohorts: int) -> pd.DataFrame:
    """Verdicts with the settings of a run beside those of the study, on the same cohorts.

    Returns
    -------
    ``scenario replicate claim verdict shipped codes codes_shipped shift``, the last in the unit of the claim.
    """
    lines = []
    for entry in (one for one in GRID if one.name in ("null", STRONG.name, "null, 20 % haematopoietic")):
        for replicate in range(cohorts):
            cohort = simulate_evidence(entry.scenario, replicate)
            ours, run = (
                bench.evaluate(cohort, seed=replicate, everything=False, **settings).claims.set_index("claim_id")
                for settings in ({}, SHIPPED)
            )
            for claim in (one.id for one in bench.plan.claims if one.evaluated and one.test != SLOW):
                a, b = ours.loc[claim], run.loc[claim]
                shift = b["estimate"] - a["estimate"]
                lines.append((entry.name, replicate, claim, a["verdict"], b["verdict"], a["codes"], b["codes"], shift))
    return pd.DataFrame(
        lines,
        columns=["scenario", "replicate", "claim", "verdict", "shipped", "codes", "codes_shipped", "shift"],
    )


# ---------------------------------------------------------------------------------------------------------------------
# True values
# ---------------------------------------------------------------------------------------------------------------------


def true_values(
    path: Path, entries: Sequence[Entry] = GRID, *, patients: int = 80, cells: int = 100
) -> dict[str, float]:
    """What the estimate of P2 converges to, for every different effect and depth; kept in a file as it is made.

    Slopes stand at the quantiles of their distribution, so that their mean is exactly the planted effect.
    """
    known = {row["scenario"]: row for row in read(path)}
    for entry in entries:
        key = truth_key(entry)
        s = entry.scenario
        if key in known or not s.effects.get("stemness") or entry.permuted:
            continue
        scenario = EvidenceScenario(key, effects=s.effects, depth_ratio=s.depth_ratio, slope_sd=s.slope_sd)
        found = simulated(scenario, patients=patients, cells=cells).query("way == 'harmonised'").set_index("signature")
        line = found.loc[SIGNATURES[0]]
        row = {"scenario": key, "replicate": 0, "plan_sha256": "", "d": float(line["d"])}
        append(path, row)
        known[key] = row
    return {key: float(row["d"]) for key, row in known.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Patients instead of counts
# ---------------------------------------------------------------------------------------------------------------------


def planning_check(
    rows: Sequence[Mapping[str, Any]], plan: Plan, measured: Mapping[str, float], *, cohorts: int = 400
) -> pd.DataFrame:
    """Shares of each verdict in count-level cohorts and in those of ``dtcflow power``, for the same designs."""
    claim = contrast_of(plan, "P2")
    lines = []
    for name, own in by_scenario(rows).items():
        entry = next(one for one in GRID if one.name == name)
        effect, s = true_value(entry, measured), entry.scenario
        if entry.permuted or s.depth_ratio != 1 or not np.isfinite(effect) or s.effects.get("arrest"):
            continue
        design = Design(
            patients=s.n_patients,
            dtcs=s.dtc_mean,
            dtc_floor=s.dtc_floor,
            reference_cells=s.pt_cells,
            slope_sd=s.slope_sd,
        )
        found = outcomes(plan, claim, design, effect, cohorts=cohorts, seed=1)
        line: dict[str, Any] = {"scenario": name, "effect": effect, "count_cohorts": len(own), "fast_cohorts": cohorts}
        counts = [row["claims"]["P2"] for row in own]
        known = [one for one in counts if one["p_value"] is not None]
        line["p_counts"], line["p_counts_se"], _ = share(one["p_value"] <= plan.rules.alpha for one in known)
        line["p_fast"] = share(one.p_value <= plan.rules.alpha for one in found)[0]
        for verdict in ("SUPPORTED", "NOT_SUPPORTED"):
            key = verdict.lower()
            line[f"{key}_counts"], line[f"{key}_counts_se"], _ = share(one["verdict"] == verdict for one in counts)
            line[f"{key}_fast"] = share(one.decision.verdict == verdict for one in found)[0]
        estimates = np.array([one["estimate"] for one in known])
        line["sd_counts"] = float(estimates.std(ddof=1)) if estimates.size > 1 else np.nan
        fast = np.array([one.estimate for one in found])
        line["sd_fast"] = float(np.nanstd(fast, ddof=1)) if np.isfinite(fast).any() else np.nan
        lines.append(line)
    return pd.DataFrame(lines)
