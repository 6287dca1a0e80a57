"""Size of the test and of the interval over patients in many plain null cohorts, without the rest of the plan.

A whole evaluation takes seconds, of which the level of the test needs a tenth: score, contrast and test of three
programmes that are drawn independently of each other. Replicate ``r`` is the same cohort as in the grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from dtcflow.evidence.contrasts import average, differences, group_values
from dtcflow.evidence.inference import random_effects, sign_flip
from dtcflow.evidence.layout import lay_out
from dtcflow.evidence.plan_checks import claim_panel
from dtcflow.evidence.run import cohort_of
from dtcflow.evidence.scoring import score_contrast
from dtcflow.simulate.evidence import EvidenceScenario, simulate_evidence
from evidence.measure import COMPARED, SETTINGS, Bench
from evidence.store import append, read

SIGNATURES: Final = (
    "LIM_MAMMARY_STEM_CELL_UP_NOPROLIF",
    "LIM_MAMMARY_LUMINAL_PROGENITOR_UP",
    "WIECEK_G0_ARREST",
)
"""One of each planted programme; the first is that of P2."""


def one_cohort(bench: Bench, scenario: EvidenceScenario, replicate: int) -> dict[str, Any]:
    """P value and 95 % limits of each signature in one cohort, as :func:`dtcflow.evidence.paired` computes them."""
    rules, claim = bench.plan.rules, bench.plan.claim(COMPARED)
    cohort = simulate_evidence(scenario, replicate)
    whole = cohort_of(cohort.adata, cohort.cells, bench.panel, synonyms=bench.synonyms)
    claimed, _ = claim_panel(claim, whole.panel, whole.markers)
    layout = lay_out(
        whole.cells,
        a=claim.a,
        b=claim.b,
        strict_q=rules.strict_q,
        minimum=rules.value_cells,
        max_cells=int(SETTINGS["max_cells_per_group"]),
        seed=replicate,
    )
    scored = score_contrast(
        whole.take(layout.table["row"].to_numpy(dtype=np.int64)),
        whole.symbols,
        layout,
        {name: claimed.get(name, whole.panel[name]) for name in SIGNATURES},
        tested=[],
        repeats=int(SETTINGS["depth_repeats"]),
        n_null=rules.random_sets,
        trim=rules.trim,
        minimum_coverage=rules.coverage,
        synonyms=whole.synonyms,
        seed=replicate,
    )
    values = differences(average([group_values(z, layout, trim=rules.trim) for z in scored.matched]))
    row: dict[str, Any] = {"scenario": scenario.name, "replicate": replicate}
    for j, name in enumerate(scored.names):
        d, v = values.difference[values.usable, j], values.variance[values.usable, j]
        fit = random_effects(d, v)
        row[name] = [sign_flip(d, seed=replicate).p_value, fit.ci_low, fit.ci_high]
    return row


def make(bench: Bench, scenario: EvidenceScenario, path: Path, *, cohorts: int) -> None:
    """Append what is missing of the first ``cohorts`` replicates."""
    done = {row["replicate"] for row in read(path)}
    for replicate in range(cohorts):
        if replicate not in done:
            append(path, one_cohort(bench, scenario, replicate))


def table(path: Path, alpha: float) -> pd.DataFrame:
    """Rejections per signature, and of all together with the error of cohorts, which share their patients."""
    rows = read(path)
    hits: Mapping[str, np.ndarray] = {
        what: np.array([[test(row[name]) for name in SIGNATURES] for row in rows], dtype=float).reshape(-1, 3)
        for what, test in (
            (f"sign-flip p <= {alpha:g}", lambda found: found[0] <= alpha),
            ("95 % interval excludes 0", lambda found: found[1] > 0 or found[2] < 0),
        )
    }
    lines = []
    for what, found in hits.items():
        n = len(found)
        if not n:
            continue
        for name, own in (*zip(SIGNATURES, found.T, strict=True), ("all three", found.mean(axis=1))):
            error = float(own.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
            lines.append((what, name, n, float(own.mean()), error))
    return pd.DataFrame(lines, columns=["test", "signature", "cohorts", "rate", "se"])
