"""The malignant-cell caller beside infercnvpy: every figure of its specification, in one run.

Real cells of four ovarian cancers and of four oligodendrogliomas stand beside the project (``--data``); the simulated
parts need nothing. Thresholds of the caller were chosen on ovarian patients 11 and 13 and on seeds 1 and 2
(``dev``); patients 12 and 14 and the other seeds are the test half. Writes ``caller`` (the rows), ``caller_designs``
(ten references one by one), ``caller_runs`` (every spiked run) and ``caller.svg``. Subclones and cost are measured by
``caller_clones.py`` and ``caller_cost.py`` beside this package, which write tables of their own.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from threadpoolctl import threadpool_limits
from truth_table import own_command, write_pair

from caller import (
    calibration,
    designs,
    elsewhere,
    false_discovery,
    figure,
    invariance,
    negative,
    oligodendroglioma,
    open_truth,
    planted,
    rare,
    scale,
    small_clone,
)
from caller.data import DATA, ROOT, Pool, immune, ovarian
from caller.measures import Row
from caller.open_truth import OpenTruth
from dtcflow.contracts import write_text

TITLE = "The malignant-cell caller and infercnvpy"
NOTES = (
    "dev: ovarian patients 11 and 13, seeds 1 and 2, on which thresholds of the caller were chosen; test: patients 12 "
    "and 14, other seeds. `reached` asks both halves, where both exist.",
    "infercnvpy: default settings; its score per cell is the root mean square of its windows; Leiden: its cluster "
    "route, the best cluster chosen with hindsight. a: a cell's score against normal cells outside the reference; the "
    "carcinoma of a patient is judged together with them, the profile is learned without labels (any lineage a "
    "candidate). Threshold and AUC per patient, mean over the patients of a half weighted by their cells.",
    "b, c: events planted in real normal cells by binomial thinning (0.6 of the counts kept) and adding (0.4), "
    "reference at the same depth. d, e, f: quality control and cell types by the package itself; the caller chooses "
    "the reference among them unless the row says otherwise. Cells that quality control removes count as missed.",
    "g: false share per run is 0 without a call; its mean is the rate that is controlled. h: band of the number of "
    "different cells, pointwise. The authors' label `epithelial` counts as tumour, although patient 12 may hold normal "
    "epithelium; their label of a normal type counts as normal, although some may be doublets.",
    "Open truth: cells with a normal label whose genome is abnormal in each half of the genes. Some 20 of patient 12 "
    "are mosaic (trisomy 12; trisomy 7 with loss of 21q) and should end `aneuploid_only`; others carry the events of "
    "their patient's carcinoma, most of them as doublets with it. In rows that say nothing of it they are normal.",
)


@dataclass(frozen=True)
class Data:
    """What the parts are measured on; real cells are missing where the data sets are not there."""

    pool: Pool | None
    immune: Pool | None
    glioma: Pool | None
    small: bool

    @cached_property
    def unclear(self) -> OpenTruth:
        """Cells of the pool with a normal label and an abnormal genome."""
        return open_truth.none(0) if self.pool is None else open_truth.find(self.pool)


def load(folder: Path, *, small: bool) -> Data:
    """Read the data sets that are there."""
    if not folder.is_dir():
        return Data(None, None, None, small)
    return Data(ovarian(folder), immune(folder), oligodendroglioma.read(folder), small)


def _designs(data: Data) -> pd.DataFrame | None:
    if data.pool is None:
        return None
    if data.small:
        return designs.measure(data.pool, only=("half of the normals", "patient 12 unseen"), patients=("11", "12"))
    return designs.measure(data.pool)


def _planted(data: Data) -> pd.DataFrame | None:
    if data.pool is None:
        return None
    if data.small:
        return planted.measure(data.pool, seeds=(3,), depths=(4_000,), karyotypes=("1q+ 16q-",))
    return planted.measure(data.pool)


def _small_clone(data: Data) -> pd.DataFrame | None:
    seeds = (3,) if data.small else small_clone.SEEDS
    return None if data.pool is None else small_clone.measure(data.pool, seeds=seeds)


def _rare(data: Data) -> pd.DataFrame | None:
    if data.pool is None:
        return None
    if data.small:
        return rare.measure(data.pool, data.unclear, patients=("14",), numbers=(20,), repeats=1)
    return rare.measure(data.pool, data.unclear)


def _scale(data: Data) -> pd.DataFrame | None:
    if data.small:
        return scale.measure(None, n_normal=2_000, seeds=(3,))
    return scale.measure(data.pool, data.unclear.either)


def _negative(data: Data) -> pd.DataFrame | None:
    if data.pool is None:
        return None
    return negative.measure(data.pool, data.immune, data.unclear, small=data.small)


def _calibration(data: Data) -> pd.DataFrame | None:
    splits = (1, 2) if data.small else calibration.SPLITS
    return None if data.pool is None else calibration.measure(data.pool, data.unclear, splits=splits)


def _oligodendroglioma(data: Data) -> pd.DataFrame | None:
    return None if data.glioma is None else oligodendroglioma.measure(data.glioma)


def _invariance(data: Data) -> pd.DataFrame | None:
    return None if data.pool is None else invariance.measure(data.pool)


PARTS: dict[str, tuple[Callable[[Data], pd.DataFrame | None], Callable[[pd.DataFrame], list[Row]]]] = {
    "a": (_designs, designs.rows),
    "b": (_planted, planted.rows),
    "c": (_small_clone, small_clone.rows),
    "d": (_rare, rare.rows),
    "e": (_scale, scale.rows),
    "f": (_negative, negative.rows),
    "h": (_calibration, calibration.rows),
    "i": (_oligodendroglioma, oligodendroglioma.rows),
    "j": (_invariance, invariance.rows),
}


def measured(part: str, data: Data) -> pd.DataFrame:
    """Runs of one part.

    Raises
    ------
    ValueError
        When the data set that it needs is not there.
    """
    found = PARTS[part][0](data)
    if found is None:
        raise ValueError(f"part {part} needs the data sets of --data")
    return found


SPIKED = ("c", "d", "e")


def measure(
    data: Data, chosen: tuple[str, ...], *, out: Path, folder: Path
) -> tuple[list[Row], dict[str, pd.DataFrame]]:
    """Rows and runs of the chosen parts, in the order of the letters."""
    runs: dict[str, pd.DataFrame] = {}
    rows: list[Row] = []
    for part in chosen:
        start = time.time()
        if part in PARTS:
            run, to_rows = PARTS[part]
            print(f"{part}:", flush=True)
            found = run(data)
            if found is None:
                print("  left out: the data set is not there", flush=True)
                continue
            runs[part] = found
            rows += to_rows(found)
        elif not data.small:
            print(f"{part}:", flush=True)
            table = elsewhere.measure(part, out, data=folder)
            rows += [] if table is None else elsewhere.ROWS[part](table)
        print(f"  {time.time() - start:.0f} s", flush=True)
    spiked = {part: runs[part] for part in SPIKED if part in runs}
    rows += false_discovery.rows(spiked) if spiked else []
    return sorted(rows, key=lambda r: r.part), runs


def _with_earlier(table: pd.DataFrame, path: Path, parts: set[str]) -> pd.DataFrame:
    """The new rows and those of an earlier table that belong to other parts, in the order of the letters."""
    if path.is_file():
        earlier = pd.read_csv(path, sep="\t", dtype={"part": str})
        table = pd.concat([earlier[~earlier["part"].isin(parts)], table], ignore_index=True)
    return table.sort_values("part", kind="stable").reset_index(drop=True)


def write(rows: list[Row], runs: Mapping[str, pd.DataFrame], out: Path, *, command: str, parts: set[str]) -> None:
    """Write tables and figure; rows of parts that were not measured now stay as they are."""
    table = _with_earlier(pd.DataFrame([vars(r) for r in rows]), out / "caller.tsv", parts | {r.part for r in rows})
    write_pair(table, out / "caller", title=TITLE, notes=NOTES, command=command)
    if "a" in runs:
        write_pair(
            designs.by_design(runs["a"]), out / "caller_designs", title="Ten references, one by one", command=command
        )
    spiked = [runs[part].assign(part=part) for part in SPIKED if part in runs]
    if spiked:
        everything = pd.concat(spiked, ignore_index=True)
        first = ["part", "half", "method"]
        everything = everything[[*first, *(c for c in everything if c not in first)]]
        write_pair(
            _with_earlier(everything, out / "caller_runs.tsv", parts),
            out / "caller_runs",
            title="Every spiked run",
            command=command,
        )
    if parts >= set(PARTS):
        write_text(out / "caller.svg", figure.draw(runs))


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "tables", help="folder of the tables")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the data sets")
    parser.add_argument("--small", action="store_true", help="a few minutes: fewer designs, runs and cells")
    letters = [*PARTS, *elsewhere.SCRIPTS]
    parser.add_argument("--only", nargs="+", choices=letters, default=letters, help="parts; g comes with c, d and e")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    with threadpool_limits(limits=1):
        data = load(arguments.data, small=arguments.small)
        rows, runs = measure(data, tuple(arguments.only), out=arguments.out, folder=arguments.data)
    write(rows, runs, arguments.out, command=own_command(), parts=set(arguments.only))
    missed = [r for r in rows if r.reached == "no"]
    print(f"{len(rows)} rows, {sum(r.reached == 'yes' for r in rows)} targets reached, {len(missed)} not:")
    for r in missed:
        print(f"  {r.part} {r.what}: {r.ours_dev} | {r.ours_test} (target {r.target})")
    return 0
