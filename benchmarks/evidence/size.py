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

from dtcflow.evidence.contrasts import Floats, average, differences, group_values
from dtcflow.evidence.inference import random_effects, sign_flip
from dtcflow.evidence.paired import begin
from dtcflow.evidence.plan_checks import claim_panel
from dtcflow.evidence.run import cohort_of
from dtcflow.evidence.scoring import score_contrast
from dtcflow.simulate.evidence import EvidenceScenario, simulate_evidence
from evidence.grid import GRID
from evidence.measure import COMPARED, SETTINGS, Bench
from evidence.store import append, read

SIGNATURES: Final = (
    "LIM_MAMMARY_STEM_CELL_UP_NOPROLIF",
    "LIM_MAMMARY_LUMINAL_PROGENITOR_UP",
    "WIECEK_G0_ARREST",
)
"""One of each planted programme; the first is that of P2."""
EXCLUDES: Final = "95 % interval excludes 0"
COVERS: Final = "95 % interval covers the true value"


def one_cohort(bench: Bench, scenario: EvidenceScenario, replicate: int) -> dict[str, Any]:
    """P value and 95 % limits of each signature in one cohort, as :func:`dtcflow.evidence.paired` computes them."""
    rules, claim = bench.plan.rules, bench.plan.claim(COMPARED)
    cohort = simulate_evidence(scenario, replicate)
    whole = cohort_of(cohort.adata, cohort.cells, bench.panel, synonyms=bench.synonyms)
    claimed, _ = claim_panel(claim, whole.panel, whole.markers)
    layout = begin(whole, claim, rules, settings=SETTINGS, seed=replicate).layout
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


def make(bench: Bench, path: Path, *, cohorts: Mapping[str, int]) -> None:
    """Append what is missing of the first cohorts of each scenario, in turn: a run that is stopped has some of each."""
    done = {(row["scenario"], row["replicate"]) for row in read(path)}
    entries = {entry.name: entry for entry in GRID if entry.name in cohorts}
    for replicate in range(max(cohorts.values())):
        for name, entry in entries.items():
            if replicate < cohorts[name] and (name, replicate) not in done:
                append(path, one_cohort(bench, entry.scenario, replicate))


def table(path: Path, alpha: float, true_d: Mapping[str, float]) -> pd.DataFrame:
    """Rejections where nothing is there, and coverage of the true values of P2's signature.

    Parameters
    ----------
    path
        Rows.
    alpha
        Level of the test.
    true_d
        True value by scenario; other scenarios are left out.

    Returns
    -------
    ``measure scenario signature cohorts rate se``. "all three" has the error of cohorts, whose programmes share cells.
    """
    lines: list[tuple[str, str, str, int, float, float]] = []
    for name, target in true_d.items():
        rows = [row for row in read(path) if row["scenario"] == name]
        if len(rows) < 2:
            continue
        found = np.array([[row[signature] for signature in SIGNATURES] for row in rows], dtype=float)
        p, low, high = np.moveaxis(found, 2, 0)

        def add(measure: str, signature: str, hits: Floats, scenario: str = name) -> None:
            error = float(hits.std(ddof=1)) / math.sqrt(len(hits))
            lines.append((measure, scenario, signature, len(hits), float(hits.mean()), error))

        if target == 0:
            for what, wrong in ((f"sign-flip p <= {alpha:g}", p <= alpha), (EXCLUDES, (low > 0) | (high < 0))):
                for j, signature in enumerate(SIGNATURES):
                    add(what, signature, wrong[:, j].astype(float))
                add(what, "all three", wrong.mean(axis=1))
        add(COVERS, SIGNATURES[0], ((low <= target) & (target <= high))[:, 0].astype(float))
    return pd.DataFrame(lines, columns=["measure", "scenario", "signature", "cohorts", "rate", "se"])
