"""One cohort through the real code, as one flat row."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from dtcflow.evidence.contrasts import stream
from dtcflow.evidence.plan import Plan, load_plan
from dtcflow.evidence.run import EvidenceResult, cohort_of, evaluate_plan
from dtcflow.io.config import load_config
from dtcflow.scores.signatures import GeneSet, Synonyms, load_panel
from dtcflow.simulate.evidence import EvidenceCohort, simulate_evidence
from evidence.comparators import compare
from evidence.grid import Entry

PLAN: Final = Path(__file__).parents[2] / "config" / "claims.yaml"
SETTINGS: Final = {
    "depth_repeats": 5,
    "max_cells_per_group": 150,
    "self_check_repeats": 20,
    "alternative_scores": False,
    "blood_controls": False,
}
"""Without other scores in the specification curve (fewer rows vote on FRAGILE), without controls that no rule reads,
and with fewer repeats. What that changes is measured: :func:`evidence.extras.as_shipped`."""
SHIPPED: Final = load_config(PLAN.with_name("config.yaml"))["evidence"] | {"blood_controls": True}
"""Settings of a run."""
KEPT: Final = ("verdict", "codes", "estimate", "ci_low", "ci_high", "p_value", "p_adjusted", "p_gene_set", "n_patients")
COMPARED: Final = "P2"
SLOW: Final = "existence"
EVERY: Final = 5
"""The test of a subset takes as long as all others together: it is made in every fifth cohort, and the hypothesis is
judged there. It is in no family, so that the other claims are the same with and without it."""


@dataclass(frozen=True)
class Bench:
    """What all cohorts share."""

    plan: Plan = field(default_factory=lambda: load_plan(PLAN))
    panel: tuple[GeneSet, ...] = field(default_factory=lambda: tuple(load_panel()))

    @cached_property
    def without_slow(self) -> Plan:
        """The plan without the slow test."""
        values = json.loads(json.dumps(self.plan.values))
        for claim in values["claims"]:
            claim["evaluated"] &= claim["test"] != SLOW
        return load_plan(values)

    @cached_property
    def key(self) -> str:
        """Hash of the plan without titles and statement, and of the settings: cohorts of one key go together."""
        values = json.loads(json.dumps(self.plan.values))
        del values["hypothesis"]["statement"]
        for claim in values["claims"]:
            del claim["title"]
        return hashlib.sha256(json.dumps([values, SETTINGS], sort_keys=True).encode()).hexdigest()

    @cached_property
    def synonyms(self) -> Synonyms:
        """None: the simulated genes carry the symbols of the panel."""
        return Synonyms.from_table(None)

    def evaluate(
        self, cohort: EvidenceCohort, *, seed: int, everything: bool = True, **settings: int
    ) -> EvidenceResult:
        """Run the plan on a simulated cohort; with ``everything`` false without the slow test."""
        return evaluate_plan(
            cohort.adata,
            cohort.cells,
            self.plan if everything else self.without_slow,
            self.panel,
            settings=SETTINGS | settings,
            seed=seed,
            synonyms=self.synonyms,
        )


def permute_labels(cells: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Exchange sample and compartment between the tumour cells of each patient; numbers per compartment stay."""
    out = cells.copy()
    moved = ["sample_id", "compartment", "study", "batch"]
    malignant = cells["malignant_call"] == "malignant"
    for patient, own in cells[malignant].groupby("patient_id", sort=True):
        order = stream(seed, "permute", patient).permutation(len(own))
        out.loc[own.index, moved] = own[moved].to_numpy()[order]
    return out


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values for JSON: a number that is not known is null."""
    return {key: None if isinstance(one, float) and not np.isfinite(one) else one for key, one in values.items()}


def cohort_row(bench: Bench, entry: Entry, replicate: int) -> dict[str, Any]:
    """Simulate cohort ``replicate`` of a scenario, evaluate the plan, and return what is kept of it."""
    start = time.process_time()
    cohort = simulate_evidence(entry.scenario, replicate)
    if entry.permuted:
        cohort = EvidenceCohort(cohort.adata, permute_labels(cohort.cells, seed=replicate), cohort.slopes)
    everything = replicate % EVERY == 0
    result = bench.evaluate(cohort, seed=replicate, everything=everything)
    row: dict[str, Any] = {
        "scenario": entry.name,
        "replicate": replicate,
        "plan_sha256": bench.key,
        "hypothesis": {"verdict": result.verdict["verdict"], "codes": result.verdict["codes"]} if everything else None,
        "claims": {},
        "compared": {},
    }
    for line in result.claims.to_dict("records"):
        claim = bench.plan.claim(line["claim_id"])
        if claim.evaluated and (everything or claim.test != SLOW):
            row["claims"][claim.id] = _plain({key: line[key] for key in KEPT})
    claim = next((one for one in bench.plan.claims if one.id == COMPARED and one.evaluated), None)
    if claim is not None:
        patients = result.patients
        own = patients[(patients["claim_id"] == claim.id) & (patients["analysis"] == "primary")]
        whole = cohort_of(cohort.adata, cohort.cells, bench.panel, synonyms=bench.synonyms)
        row["compared"] = _plain(compare(whole, claim, bench.plan.rules, own, seed=replicate))
    row["seconds"] = round(time.process_time() - start, 2)
    return row
