"""Carcinoma cells against normal cells under ten references, none of which holds an evaluated cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from caller import ours, theirs
from caller.data import DEVELOPMENT, PATIENTS, Integers, Pool, sample_of
from caller.measures import Row, ranking, row

METHODS = ("infercnvpy", "infercnvpy_pooled", "ours_burden", "ours_full")
NAMES = {
    "infercnvpy": "infercnvpy, default",
    "infercnvpy_pooled": "infercnvpy, pooled reference",
    "ours_burden": "burden (stage 1)",
    "ours_full": "clone likelihood, profile learned without labels",
}
WORST_TARGET, MEDIAN_TARGET = 0.85, 0.95


@dataclass(frozen=True)
class Design:
    """Rows of the pool that are reference, and the normal cells and patients that are evaluated."""

    name: str
    reference: Integers
    normal: Integers
    patients: tuple[str, ...]


def designs(pool: Pool, *, seed: int) -> Iterator[Design]:
    """The ten designs."""
    rng = np.random.default_rng(seed)
    normal = pool.normals
    mixed = rng.permutation(normal)
    cut = len(mixed) // 2
    yield Design("half of the normals", np.sort(mixed[:cut]), np.sort(mixed[cut:]), PATIENTS)
    for kind in sorted(set(pool.kind[normal])):
        unseen = pool.kind[normal] == kind
        yield Design(f"{kind} unseen", normal[~unseen], normal[unseen], PATIENTS)
    for patient in PATIENTS:
        unseen = pool.donor[normal] == patient
        yield Design(f"patient {patient} unseen", normal[~unseen], normal[unseen], (patient,))


def evaluate(pool: Pool, design: Design, patient: str) -> list[dict[str, object]]:
    """All methods on one patient's carcinoma cells together with the reference and the evaluated normal cells."""
    carcinoma = pool.carcinoma(patient)
    rows = np.concatenate([design.reference, design.normal, carcinoma])
    part = pool[rows]
    in_reference = np.isin(rows, design.reference)
    sample = sample_of(part, reference=in_reference)
    kinds = np.where(in_reference, part.kind, "")
    found = ours.evidence(sample, tumour_lineage="any")
    scores = {
        "infercnvpy": theirs.run(sample, kinds).score,
        "infercnvpy_pooled": theirs.run(sample, kinds, pooled=True).score,
        "ours_burden": ours.burden_score(found.cells),
        "ours_full": ours.score(found.cells),
    }
    normal = np.isin(rows, design.normal)
    return [
        {
            "design": design.name,
            "patient": patient,
            "half": "dev" if patient in DEVELOPMENT else "test",
            "method": method,
            "tumour": len(carcinoma),
            "normal": len(design.normal),
            **ranking(scores[method], sample.tumour, normal),
            "clone_status": str(found.status.get("clone_status", found.status["status"])),
        }
        for method in METHODS
    ]


def measure(
    pool: Pool, *, seed: int = 3, only: Sequence[str] | None = None, patients: Sequence[str] = PATIENTS
) -> pd.DataFrame:
    """One line per design, patient and method; ``only`` these designs, and these patients' carcinoma."""
    lines = []
    for design in designs(pool, seed=seed):
        for patient in design.patients:
            if patient in patients and (only is None or design.name in only):
                lines += evaluate(pool, design, patient)
                print(f"  {design.name}, {patient}: TPR {lines[-1]['tpr_0.01']:.3f}", flush=True)
    return pd.DataFrame(lines)


def by_design(runs: pd.DataFrame) -> pd.DataFrame:
    """Per design, half and method: means over patients weighted by their tumour cells."""
    values = [c for c in runs if c == "auc" or c.startswith("tpr_")]
    lines = []
    for (design, half, method), part in runs.groupby(["design", "half", "method"], sort=False):
        means = {v: float(np.average(part[v], weights=part["tumour"])) for v in values}
        lines.append({"design": design, "half": half, "method": method, "tumour": int(part["tumour"].sum()), **means})
    return pd.DataFrame(lines)


def rows(runs: pd.DataFrame) -> list[Row]:
    """Worst and median design, per measure, and every design at 1 % FPR."""
    table = by_design(runs)

    def value(method: str, half: str, measure: str, how: str) -> float:
        part = table[(table["method"] == method) & (table["half"] == half)][measure]
        return float(part.min() if how == "worst" else part.median())

    found = []
    for how, target in (("worst", WORST_TARGET), ("median", MEDIAN_TARGET)):
        for measure_, text in (("tpr_0.01", "TPR at 1 % FPR"), ("tpr_0.001", "TPR at 0.1 % FPR"), ("auc", "AUC")):
            for mine in ("ours_full", "ours_burden"):
                pair = [value(mine, half, measure_, how) for half in ("dev", "test")]
                aimed = measure_ == "tpr_0.01" and mine == "ours_full"
                found.append(
                    row(
                        "a",
                        f"ovarian, 10 reference designs, {text}, {how}; {NAMES[mine]}",
                        theirs=(
                            value("infercnvpy", "dev", measure_, how),
                            value("infercnvpy", "test", measure_, how),
                        ),
                        ours=(pair[0], pair[1]),
                        target=f">= {target}" if aimed else "",
                        reached=min(pair) >= target if aimed else None,
                    )
                )
    return found
