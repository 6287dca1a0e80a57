"""A few real tumour cells among normal cells that are their own reference, through the package's own annotation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from caller import ours, theirs
from caller.annotated import annotated
from caller.data import DEVELOPMENT, PATIENTS, Pool, sample_of
from caller.measures import Counts, Row, counted, row, together
from caller.open_truth import OpenTruth

NUMBERS = (5, 10, 20, 50)
REPEATS = 5
MODES = ("epithelial", "any")


def evaluate(pool: Pool, unclear: OpenTruth, patient: str, number: int, *, seed: int) -> list[dict[str, object]]:
    """``number`` carcinoma cells of one patient among a random half of all normal cells."""
    rng = np.random.default_rng([seed, int(patient), number])
    normal = rng.permutation(pool.normals)[: len(pool.normals) // 2]
    chosen = np.concatenate([normal, rng.choice(pool.carcinoma(patient), number, replace=False)])
    part = pool[chosen]
    whole = sample_of(part)
    sample, rows_ = annotated(whole)
    kind = part.kind[rows_]
    common = {"patient": patient, "half": "dev" if patient in DEVELOPMENT else "test", "number": number, "seed": seed}
    lines: list[dict[str, object]] = []
    reference = np.full(len(sample), "", dtype=object)
    for mode in MODES:
        found = ours.run(sample, tumour_lineage=mode)
        calls = counted(found.called, sample.tumour, n_tumour=number)
        in_reference = found.cells["is_reference"].to_numpy(dtype=bool)
        reference = np.where(in_reference, sample.cells["cell_type"], "") if in_reference.any() else reference
        wrong = found.called & ~sample.tumour
        classes = found.cells.loc[sample.tumour, "malignant_class"].value_counts()
        lines.append(
            {
                **common,
                "method": f"ours_{mode}",
                "called": calls.called,
                "false": calls.false,
                "recall": calls.recall,
                "precision": calls.precision,
                "clone_status": str(found.status.get("clone_status", found.status["status"])),
                "open_false": int((wrong & unclear.either[chosen][rows_]).sum()),
                "false_kinds": ",".join(sorted(kind[wrong])),
                "missed_as": ", ".join(f"{k} {n}" for k, n in classes.items() if k != "malignant_confirmed"),
                "typed_epithelial": int((sample.cells["cell_type"] == "epithelial")[sample.tumour].sum()),
                "in_reference": int((in_reference & sample.tumour).sum()),
            }
        )
    label = theirs.clusters(theirs.run(sample, reference)).label
    recall, precision = theirs.isolates(label, sample.tumour)
    lines.append({**common, "method": "infercnvpy_leiden", "recall": recall, "precision": precision})
    return lines


def measure(
    pool: Pool,
    unclear: OpenTruth,
    *,
    patients: Sequence[str] = PATIENTS,
    numbers: Sequence[int] = NUMBERS,
    repeats: int = REPEATS,
) -> pd.DataFrame:
    """One line per patient, number, repeat and method."""
    lines = []
    for patient in patients:
        for number in numbers:
            for seed in range(1, repeats + 1):
                lines += evaluate(pool, unclear, patient, number, seed=seed)
            text = ", ".join(f"{x['called']}+{x['false']}" for x in lines[-3 * repeats :] if "called" in x)
            print(f"  rare {number} of patient {patient}: {text}", flush=True)
    return pd.DataFrame(lines)


def counts_of(runs: pd.DataFrame, mode: str, half: str, *, clear: bool = False) -> list[Counts]:
    """Counts of every run of one of our modes; with ``clear`` without calls of cells of open truth."""
    part = runs[(runs["method"] == f"ours_{mode}") & (runs["half"] == half)]
    false = part["false"] - part["open_false"] if clear else part["false"]
    return [Counts(int(n), int(c), int(f)) for n, c, f in zip(part["number"], part["called"], false, strict=True)]


def _judged(each: list[Counts]) -> tuple[str, bool]:
    """Recall and precision of several runs as text, and whether they are as good as asked."""
    pooled = together(each)
    recall = np.array([c.recall for c in each])
    precision = np.nan_to_num([c.precision for c in each], nan=1.0)
    good = (recall >= 0.95) & (precision >= 0.95)
    text = (
        f"recall {pooled.recall:.3f}, precision {pooled.precision:.3f}; both >= .95 in {good.sum()} of {len(each)} "
        f"runs; worst recall {recall.min():.2f}, worst precision {precision.min():.2f}"
    )
    return text, bool(good.mean() >= 0.95 and min(recall.min(), precision.min()) >= 0.8)


def rows(runs: pd.DataFrame) -> list[Row]:
    """Recall, precision and how often both are good, per mode and number of cells."""

    def isolated(half: str, number: int | None) -> str:
        part = runs[(runs["method"] == "infercnvpy_leiden") & (runs["half"] == half)]
        part = part if number is None else part[part["number"] == number]
        good = (part["recall"] >= 0.5) & (part["precision"] >= 0.5)
        return f"isolated in {int(good.sum())} of {len(part)} runs" if len(part) else ""

    found = []
    for mode, clear in product(MODES, (False, True)):
        for number in (None, *sorted(runs["number"].unique())):
            part = runs if number is None else runs[runs["number"] == number]
            each = [counts_of(part, mode, half, clear=clear) for half in ("dev", "test")]
            judged = [_judged(counts) if counts else ("", True) for counts in each]
            size = "5 to 50" if number is None else str(number)
            whose = ", without cells of open truth" if clear else ""
            found.append(
                row(
                    "d",
                    f"rare, {size} tumour cells among about 1,200 normals, mode {mode}{whose}",
                    theirs=(isolated("dev", number), isolated("test", number)),
                    ours=(judged[0][0], judged[1][0]),
                    target="recall and precision >= .95 in >= 95 % of runs, none < .8" if number is None else "",
                    reached=all(good for _, good in judged) if number is None else None,
                )
            )
    return found
