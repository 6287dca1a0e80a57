"""The same cohorts through the tests one should not use, and two that one may."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from dtcflow.evidence.contrasts import Layout, lay_out
from dtcflow.evidence.paired import Cohort
from dtcflow.evidence.plan import Claim, Rules
from dtcflow.evidence.scoring import score_contrast
from dtcflow.scores.calibrated import log_normalise

Floats = NDArray[np.float64]


def patient_intercept(y: Floats, side: NDArray[np.int64], patient: NDArray[np.int64]) -> tuple[float, float]:
    """Estimate and p of the compartment in a model of cells with one intercept per patient.

    The within-patient least-squares estimate. A random intercept gives the same where patients differ much, as they
    do; either lacks the patient's own slope, so that cells count as replicates of the compartment.
    """
    x = (side == 0).astype(float)
    x_c, y_c = x.copy(), y.copy()
    patients = np.unique(patient)
    for p in patients:
        own = patient == p
        x_c[own] -= x[own].mean()
        y_c[own] -= y[own].mean()
    beta = float(x_c @ y_c / (x_c @ x_c))
    free = y.size - patients.size - 1
    error = float(np.sqrt(((y_c - beta * x_c) ** 2).sum() / free / (x_c @ x_c)))
    return beta, float(2 * stats.t.sf(abs(beta) / error, free))


def cell_level(z: Floats, layout: Layout) -> dict[str, float]:
    """Tests that take cells for replicates."""
    side, patient = layout.side, layout.patient
    return {
        "p_wilcoxon_cells": float(stats.mannwhitneyu(z[side == 0], z[side == 1]).pvalue),
        "p_patient_intercept": patient_intercept(z, side, patient)[1],
    }


def dersimonian_laird(difference: Floats, variance: Floats) -> float:
    """P of the DerSimonian-Laird mean by a normal test; the moment estimate of tau^2 is cut at 0."""
    w = 1 / variance
    fixed = (w * difference).sum() / w.sum()
    q = (w * (difference - fixed) ** 2).sum()
    tau2 = max(0.0, (q - (difference.size - 1)) / (w.sum() - (w**2).sum() / w.sum()))
    w = 1 / (variance + tau2)
    return float(2 * stats.norm.sf(abs((w * difference).sum()) / np.sqrt(w.sum())))


def patient_level(difference: Floats, variance: Floats) -> dict[str, float]:
    """DerSimonian-Laird with a normal test, and the paired t test."""
    return {
        "p_dersimonian_laird": dersimonian_laird(difference, variance),
        "p_paired_t": float(stats.ttest_1samp(difference, 0.0).pvalue),
    }


def raw_mean(values: Floats, layout: Layout) -> tuple[float, float]:
    """Estimate (in SD between primary cells) and paired t p of an uncalibrated score at the depth it came with."""
    side, patient = layout.side, layout.patient
    d, spread = [], []
    for p in range(len(layout.patients)):
        a, b = values[(patient == p) & (side == 0)], values[(patient == p) & (side == 1)]
        d.append(a.mean() - b.mean())
        spread.append(b.std(ddof=1))
    difference = np.array(d) / float(np.median(spread))
    return float(difference.mean()), float(stats.ttest_1samp(difference, 0.0).pvalue)


def compare(cohort: Cohort, claim: Claim, rules: Rules, patients: pd.DataFrame, *, seed: int) -> Mapping[str, float]:
    """P values of the comparators for one paired contrast.

    Parameters
    ----------
    patients
        Rows of the claim's primary analysis: what the real run computed per patient.
    """
    layout = lay_out(cohort.cells, a=claim.a, b=claim.b, strict_q=rules.strict_q, minimum=rules.value_cells, seed=seed)
    if len(layout.patients) < 2:
        return {}
    rows = layout.table["row"].to_numpy(dtype=np.int64)
    counts = cohort.counts[rows]
    name = claim.primary_signature
    scored = score_contrast(
        counts,
        cohort.genes,
        layout,
        {name: cohort.panel[name]},
        tested=[],
        repeats=1,
        n_null=rules.random_sets,
        trim=rules.trim,
        minimum_coverage=rules.coverage,
        synonyms=cohort.synonyms,
        seed=seed,
    )
    out = cell_level(scored.matched[0][:, 0], layout)
    used = patients[patients["usable"].astype(bool)]
    out |= patient_level(used["difference"].to_numpy(dtype=float), used["variance"].to_numpy(dtype=float))
    members = np.flatnonzero(cohort.genes.isin(cohort.panel[name].genes))
    raw = np.asarray(log_normalise(counts)[:, members].mean(axis=1), dtype=float).ravel()
    out["raw_estimate"], out["p_raw_mean"] = raw_mean(raw, layout)
    return out
