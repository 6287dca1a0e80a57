"""Make the cohorts that are missing, then the tables. ``make bench-evidence``.

A run can be stopped and started again: finished cohorts are kept in ``--work`` and belong to the plan by its hash.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from evidence.grid import CORE, MORE, Entry
from evidence.measure import Bench, cohort_row
from evidence.store import append, read

ROOT = Path(__file__).parents[2]
ROUNDS = 5


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="benchmarks/evidence", description=__doc__.splitlines()[0])
    found.add_argument(
        "--work", type=Path, default=ROOT / "results" / "bench-evidence", help="rows of finished cohorts"
    )
    found.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "tables", help="tables and figure")
    found.add_argument("--small", action="store_true", help="a few cohorts of each scenario")
    found.add_argument("--only", action="append", metavar="TEXT", help="scenarios whose name contains it; repeatable")
    found.add_argument("--max-minutes", type=float, default=float("inf"), help="stop making cohorts after this long")
    found.add_argument("--tables", action="store_true", help="only write the tables of the cohorts there are")
    return found


def to_make(*, small: bool, only: Sequence[str] | None) -> Iterator[tuple[Entry, int]]:
    """Cohorts in the order in which they are made: in rounds, so that a run that is stopped has some of everything."""
    for part in (CORE, MORE):
        chosen = [entry for entry in part if not only or any(text in entry.name for text in only)]
        for turn in range(ROUNDS):
            for entry in chosen:
                n = entry.small if small else entry.full
                yield from ((entry, r) for r in range(n * turn // ROUNDS, n * (turn + 1) // ROUNDS))


def make_cohorts(options: argparse.Namespace, bench: Bench, rows: Path) -> None:
    """Append the cohorts that are missing."""
    done = {(row["scenario"], row["replicate"]) for row in read(rows, plan_sha256=bench.plan.sha256)}
    start = time.monotonic()
    for entry, replicate in to_make(small=options.small, only=options.only):
        if (entry.name, replicate) in done:
            continue
        if time.monotonic() - start > 60 * options.max_minutes:
            return
        append(rows, cohort_row(bench, entry, replicate))


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    logging.disable(logging.WARNING)
    bench = Bench()
    rows = options.work / ("rows_small.jsonl" if options.small else "rows.jsonl")
    if not options.tables:
        make_cohorts(options, bench, rows)
    return 0
