"""No tumour cell: what is called all the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from caller import ours
from caller.annotated import annotated
from caller.data import DEVELOPMENT, PATIENTS, Bools, Pool, sample_of
from caller.measures import Row, per_10_000, row, upper_per_10_000

MODES = ("epithelial", "any")
SPLITS = (1, 2, 3)
TARGETS = {"matched": 1.0, "own": 1.0, "donor unseen": 1.0, "type unseen": 10.0, "immune": 1.0}
TEXTS = {
    "matched": "reference of all types and donors (other half of the cells)",
    "own": "each donor alone, the caller chooses the reference",
    "donor unseen": "every donor left out in turn",
    "type unseen": "every type left out in turn",
    "immune": "immune sample, the caller chooses the reference",
}


@dataclass(frozen=True)
class Control:
    """Cells without tumour, which of them are reference (``None``: the caller chooses), and which are judged."""

    group: str
    name: str
    pool: Pool
    reference: Bools | None
    open_truth: Bools
    """Cells with a normal label and an abnormal genome (:mod:`caller.mosaic`)."""


def controls(pool: Pool, immune: Pool | None, open_truth: Bools, *, small: bool = False) -> Iterator[Control]:
    """All controls; with ``small`` one type left out, one donor alone and the immune sample."""
    normal, unclear = pool[pool.normals], open_truth[pool.normals]
    kinds = sorted(set(normal.kind))
    for seed in () if small else SPLITS:
        half = np.random.default_rng([seed, 77]).random(len(normal)) < 0.5
        yield Control("matched", f"split {seed}", normal, half, unclear)
    half = np.random.default_rng([SPLITS[0], 77]).random(len(normal)) < 0.5
    for kind in kinds[:1] if small else kinds:
        yield Control("type unseen", kind, normal, half & (normal.kind != kind), unclear)
    for donor in PATIENTS[-1:] if small else PATIENTS:
        mine = normal.donor == donor
        if not small:
            yield Control("donor unseen", donor, normal, ~mine, unclear)
        yield Control("own", donor, normal[mine], None, unclear[mine])
    if immune is not None:
        yield Control("immune", "immune", immune, None, np.zeros(len(immune), dtype=bool))


def evaluate(control: Control) -> list[dict[str, object]]:
    """False calls of one control in both modes, by half of the patients."""
    whole = sample_of(control.pool, reference=control.reference, tumour=np.zeros(len(control.pool), dtype=bool))
    sample, kept = annotated(whole)
    judged = np.ones(len(kept), bool) if control.reference is None else ~control.reference[kept]
    lines = []
    for mode in MODES:
        found = ours.run(sample, tumour_lineage=mode)
        status = found.status
        classes = found.cells["malignant_class"].to_numpy(dtype=object)
        for half in ("dev", "test"):
            inside = judged & (np.isin(control.pool.donor[kept], DEVELOPMENT) == (half == "dev"))
            wrong = found.called & inside
            if inside.any():
                lines.append(
                    {
                        "group": control.group,
                        "name": control.name,
                        "method": f"ours_{mode}",
                        "half": half,
                        "cells": int(inside.sum()),
                        "false": int(wrong.sum()),
                        "open": int((control.open_truth[kept] & inside).sum()),
                        "open_false": int((control.open_truth[kept] & wrong).sum()),
                        "open_aneuploid": int(
                            ((classes == "aneuploid_only") & control.open_truth[kept] & inside).sum()
                        ),
                        "aneuploid_only": int(((classes == "aneuploid_only") & inside).sum()),
                        "status": f"{status['status']}/{status.get('clone_status', '')}",
                        "false_kinds": ",".join(sorted(control.pool.kind[kept][wrong])),
                    }
                )
    return lines


def measure(pool: Pool, immune: Pool | None, open_truth: Bools, *, small: bool = False) -> pd.DataFrame:
    """One line per control, mode and half."""
    lines = []
    for control in controls(pool, immune, open_truth, small=small):
        new = evaluate(control)
        lines += new
        print(f"  negative, {control.group}, {control.name}: {[x['false'] for x in new]}", flush=True)
    return pd.DataFrame(lines)


SUMS = ["cells", "false", "open", "open_false", "open_aneuploid"]


def rows(runs: pd.DataFrame) -> list[Row]:
    """False calls per 10,000 cells of every group and mode, and what becomes of the cells of open truth."""
    found = []
    for group, text in TEXTS.items():
        for mode in MODES:
            part = runs[(runs["group"] == group) & (runs["method"] == f"ours_{mode}")]
            sums = {h: part[part["half"] == h][SUMS].sum() for h in ("dev", "test")}
            texts = [
                ""
                if not s["cells"]
                else f"{per_10_000(int(s['false']), int(s['cells'])):.1f} ({s['false']} of {s['cells']}, 95 % limit "
                f"{upper_per_10_000(int(s['false']), int(s['cells'])):.1f}; {s['open_false']} of them of open truth)"
                for s in sums.values()
            ]
            rates = [per_10_000(int(s["false"]), int(s["cells"])) for s in sums.values() if s["cells"]]
            if rates:
                found.append(
                    row(
                        "f",
                        f"no tumour cell, {text}, mode {mode}: false malignant per 10,000",
                        ours=(texts[0], texts[1]),
                        target=f"<= {TARGETS[group]:g}",
                        reached=max(rates) <= TARGETS[group],
                    )
                )
    for mode in MODES:
        whole = runs.loc[runs["method"] == f"ours_{mode}", SUMS].sum()
        found.append(
            row(
                "f",
                f"cells with a normal label and an abnormal genome (patient 12), all controls, mode {mode}",
                ours=(
                    "",
                    f"malignant {whole['open_false']}, aneuploid_only {whole['open_aneuploid']}, normal "
                    f"{whole['open'] - whole['open_false'] - whole['open_aneuploid']} or other undecided",
                ),
                target="none malignant",
                reached=bool(whole["open_false"] == 0),
            )
        )
    return found
