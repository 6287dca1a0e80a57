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
from caller.open_truth import OpenTruth, none

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
    unclear: OpenTruth


def controls(pool: Pool, immune: Pool | None, unclear: OpenTruth, *, small: bool = False) -> Iterator[Control]:
    """All controls; with ``small`` one type left out, one donor alone and the immune sample."""
    normal, unclear = pool[pool.normals], unclear[pool.normals]
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
        yield Control("immune", "immune", immune, None, none(len(immune)))


def evaluate(control: Control) -> list[dict[str, object]]:
    """False calls of one control in both modes, by half of the patients."""
    whole = sample_of(control.pool, reference=control.reference, tumour=np.zeros(len(control.pool), dtype=bool))
    sample, kept = annotated(whole)
    judged = np.ones(len(kept), bool) if control.reference is None else ~control.reference[kept]
    unclear = control.unclear[kept]
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
                        "open": int((unclear.either & inside).sum()),
                        "open_false": int((unclear.either & wrong).sum()),
                        "mosaic": int((unclear.mosaic & inside).sum()),
                        "mosaic_false": int((unclear.mosaic & wrong).sum()),
                        "mosaic_aneuploid": int(((classes == "aneuploid_only") & unclear.mosaic & inside).sum()),
                        "aneuploid_only": int(((classes == "aneuploid_only") & inside).sum()),
                        "status": f"{status['status']}/{status.get('clone_status', '')}",
                        "false_kinds": ",".join(sorted(control.pool.kind[kept][wrong])),
                    }
                )
    return lines


def measure(pool: Pool, immune: Pool | None, unclear: OpenTruth, *, small: bool = False) -> pd.DataFrame:
    """One line per control, mode and half."""
    lines = []
    for control in controls(pool, immune, unclear, small=small):
        new = evaluate(control)
        lines += new
        print(f"  negative, {control.group}, {control.name}: {[x['false'] for x in new]}", flush=True)
    return pd.DataFrame(lines)


SUMS = ["cells", "false", "open", "open_false", "mosaic", "mosaic_false", "mosaic_aneuploid"]


def _rate(false: int, cells: int) -> str:
    limit = upper_per_10_000(false, cells)
    return f"{per_10_000(false, cells):.1f} ({false} of {cells}, 95 % limit {limit:.1f})" if cells else ""


def rows(runs: pd.DataFrame) -> list[Row]:
    """False calls per 10,000 cells of every group and mode, and what becomes of mosaic cells."""
    found = []
    for group, text in TEXTS.items():
        for mode in MODES:
            part = runs[(runs["group"] == group) & (runs["method"] == f"ours_{mode}")]
            sums = [part.loc[part["half"] == half, SUMS].sum() for half in ("dev", "test")]
            labelled = [(int(s["false"]), int(s["cells"])) for s in sums]
            clear = [(int(s["false"] - s["open_false"]), int(s["cells"] - s["open"])) for s in sums]
            for pairs, whose in ((labelled, ""), (clear, ", without cells of open truth")):
                rates = [per_10_000(false, cells) for false, cells in pairs if cells]
                if rates:
                    found.append(
                        row(
                            "f",
                            f"no tumour cell, {text}, mode {mode}{whose}: false malignant per 10,000",
                            ours=(_rate(*pairs[0]), _rate(*pairs[1])),
                            target=f"<= {TARGETS[group]:g}",
                            reached=max(rates) <= TARGETS[group],
                        )
                    )
    for mode in MODES:
        whole = runs.loc[runs["method"] == f"ours_{mode}", SUMS].sum()
        rest = whole["mosaic"] - whole["mosaic_false"] - whole["mosaic_aneuploid"]
        text = f"malignant {whole['mosaic_false']}, aneuploid_only {whole['mosaic_aneuploid']}, other {rest}"
        found.append(
            row(
                "f",
                f"mosaic cells of patient 12, all controls, mode {mode}",
                ours=("", text),
                target="none malignant",
                reached=bool(whole["mosaic_false"] == 0),
            )
        )
    return found
