"""Make the cohorts that are missing, then the tables. ``make bench-evidence``.

A run can be stopped and started again: finished cohorts are kept in ``--work`` and belong to a plan by the hash of all
in it that decides.
"""

from __future__ import annotations

import argparse
import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from evidence import size
from evidence.depth import OVARIAN, real_shift, simulated_shift
from evidence.extras import as_shipped, invariance, planning_check, true_values
from evidence.figure import draw
from evidence.grid import CORE, GRID, MORE, SIZES, SMALL_SIZES, Entry
from evidence.measure import Bench, cohort_row
from evidence.store import append, read
from evidence.summary import (
    acceptance,
    claims_summary,
    depth_lines,
    invariance_lines,
    markdown,
    rejection_rates,
    size_lines,
    true_value,
)

ROOT = Path(__file__).parents[2]
FIRST = 400
"""Cohorts of every core scenario before the others have their turn."""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="benchmarks/evidence", description=__doc__.splitlines()[0])
    found.add_argument(
        "--work", type=Path, default=ROOT / "results" / "bench-evidence", help="rows of finished cohorts"
    )
    found.add_argument("--out", type=Path, help="tables and figure (benchmarks/tables; with --small in --work)")
    found.add_argument("--small", action="store_true", help="a few cohorts of each scenario")
    found.add_argument("--only", action="append", metavar="TEXT", help="scenarios whose name contains it; repeatable")
    found.add_argument("--max-minutes", type=float, default=float("inf"), help="stop making cohorts after this long")
    found.add_argument("--tables", action="store_true", help="only write the tables of the cohorts there are")
    return found


def to_make(*, small: bool, only: Sequence[str] | None) -> Iterator[tuple[Entry, int]]:
    """Cohorts in the order in which they are made: a run that is stopped has some of every important scenario."""
    for part, first, last in ((CORE, 0, FIRST), (MORE, 0, None), (CORE, FIRST, None)):
        chosen = [
            (entry, entry.small if small else entry.full)
            for entry in part
            if not only or any(text in entry.name for text in only)
        ]
        end = max((n for _, n in chosen), default=0) if last is None else last
        for replicate in range(first, end):
            yield from ((entry, replicate) for entry, n in chosen if replicate < n)


def make_cohorts(options: argparse.Namespace, bench: Bench, rows: Path) -> None:
    """Append the cohorts that are missing."""
    done = {(row["scenario"], row["replicate"]) for row in read(rows, plan_sha256=bench.key)}
    start = time.monotonic()
    for entry, replicate in to_make(small=options.small, only=options.only):
        if (entry.name, replicate) in done:
            continue
        if time.monotonic() - start > 60 * options.max_minutes:
            return
        append(rows, cohort_row(bench, entry, replicate))


def size_rows(options: argparse.Namespace) -> Path:
    """Where the cohorts of the size study are kept."""
    work: Path = options.work
    return work / ("size_small.jsonl" if options.small else "size.jsonl")


def kept(path: Path, make: Callable[[], pd.DataFrame], *, fresh: bool) -> pd.DataFrame:
    """Return a table that does not depend on the cohorts; without ``fresh`` that of the last time, if there is one."""
    if fresh or not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        make().to_csv(path, sep="\t", index=False)
    return pd.read_csv(path, sep="\t")


def write_tables(options: argparse.Namespace, bench: Bench, rows: Path) -> None:
    """Write every table that the finished cohorts allow, and the figure."""
    found = read(rows, plan_sha256=bench.key)
    work: Path = options.work
    kind, fresh = "_small" if options.small else "", not options.tables
    true = true_values(work / f"truth{kind}.jsonl", patients=10 if options.small else 80)
    depth = kept(work / "depth_simulated.tsv", simulated_shift, fresh=fresh)
    if OVARIAN.is_file() and not options.small:
        depth = pd.concat([depth, kept(work / "depth_real.tsv", real_shift, fresh=fresh)], ignore_index=True)
    same = kept(work / "invariance.tsv", invariance, fresh=fresh)
    n_shipped = 1 if options.small else 12
    shipped = kept(
        work / f"shipped{kind}_{bench.key[:8]}.tsv", lambda: as_shipped(bench, cohorts=n_shipped), fresh=fresh
    )
    claims = claims_summary(found, bench.plan, true)
    tests = rejection_rates(found, bench.plan.rules.alpha)
    known = {one.name: true_value(one, true) for one in GRID if one.name in SIZES}
    sizes = size.table(size_rows(options), bench.plan.rules.alpha, known)
    figures = pd.concat(
        [size_lines(sizes), acceptance(found, bench.plan), depth_lines(depth), invariance_lines(same)],
        ignore_index=True,
    )
    tables = {
        "evidence_acceptance": figures,
        "evidence": claims,
        "evidence_tests": tests,
        "evidence_size": sizes,
        "evidence_depth": depth,
        "evidence_shipped": shipped,
        "evidence_planning": planning_check(found, bench.plan, true, cohorts=40 if options.small else 400),
    }
    for table in tables.values():
        if "scenario" in table:  # readers of TSV files take a bare "null" for a missing value
            table["scenario"] = table["scenario"].replace({"null": "null, plain"})
    out: Path = options.out or (work / "tables_small" if options.small else ROOT / "benchmarks" / "tables")
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(out / f"{name}.tsv", sep="\t", index=False, float_format="%.4g")
        page = f"<!-- made by: make bench-evidence{' ARGS=--small' if options.small else ''} -->\n\n{markdown(table)}"
        (out / f"{name}.md").write_text(page, encoding="utf-8")
    (out / "evidence.svg").write_text(draw(claims, tests), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    logging.disable(logging.WARNING)
    bench = Bench()
    gc.freeze()  # statsmodels' multipletests collects garbage at every call
    rows = options.work / ("rows_small.jsonl" if options.small else "rows.jsonl")
    if not options.tables:
        make_cohorts(options, bench, rows)
        if not options.only:
            size.make(bench, size_rows(options), cohorts=SMALL_SIZES if options.small else SIZES)
    write_tables(options, bench, rows)
    return 0
