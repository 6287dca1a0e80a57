"""Parts of the table that scripts beside this package measure: subclones and cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd

from caller.data import ROOT
from caller.measures import Row, row

SCRIPTS = {"l": "caller_clones", "m": "caller_cost"}
ARI, EVENTS, SINGLE = 0.9, 0.9, 0.95
MIN_CELLS, MIN_UMI = 30, 3_000


def measure(part: str, out: Path, *, data: Path) -> pd.DataFrame | None:
    """Run the script of a part, which writes its own tables to ``out``; ``None`` where it is not there.

    Raises
    ------
    RuntimeError
        When it ends without its table. Its exit code may say that a limit was not kept, which the rows say, too.
    """
    name = SCRIPTS[part]
    script = ROOT / "benchmarks" / f"{name}.py"
    if not script.is_file():
        return None
    table = out / f"{name}.tsv"
    before = table.stat().st_mtime_ns if table.is_file() else 0
    cells = data / "ovarian_qian2020_swiftcnv" / "ovarian_qian2020_swiftcnv.h5ad"
    options = {"l": ["--out", str(out), "--data", str(cells)], "m": ["--out", str(out / name)]}[part]
    done = subprocess.run([sys.executable, str(script), *options], check=False, stdout=subprocess.DEVNULL)
    if not table.is_file() or table.stat().st_mtime_ns == before:
        raise RuntimeError(f"{script.name} ended with code {done.returncode} and wrote no {table.name}")
    return pd.read_csv(table, sep="\t")


def clone_rows(table: pd.DataFrame) -> list[Row]:
    """Subclones: their cells, events and number, per design; infercnvpy is given the tumour cells."""
    found = []
    for line in table.itertuples(index=False):
        name = f"{line.clones} clones of {line.cells_per_clone} cells, {line.umi:,} UMI, {line.source}"
        big = line.cells_per_clone >= MIN_CELLS and line.umi >= MIN_UMI
        if line.clones == 1:
            found.append(
                row(
                    "l",
                    f"one planted clone of {line.cells_per_clone} cells, {line.umi:,} UMI, {line.source}: called one",
                    theirs=("", float(line.leiden_k_right)),
                    ours=("", float(line.k_right)),
                    target=f">= {SINGLE:g}",
                    reached=bool(line.k_right >= SINGLE),
                )
            )
            continue
        found.append(
            row(
                "l",
                f"{name}: median ARI (worst; with the profiles given)",
                theirs=("", float(line.leiden_ari)),
                ours=("", f"{line.ari_median:.3f} ({line.ari_worst:.3f}; {line.ari_oracle:.3f})"),
                target=f">= {ARI:g}" if big else "",
                reached=bool(line.ari_median >= ARI) if big else None,
            )
        )
        found.append(
            row(
                "l",
                f"{name}: events on their branch",
                ours=("", float(line.events_right)),
                target=f">= {EVENTS:g}" if big else "",
                reached=bool(line.events_right >= EVENTS) if big else None,
            )
        )
    return found


def cost_rows(table: pd.DataFrame) -> list[Row]:
    """Processor time relative to infercnvpy, and memory."""
    found = []
    for line in table.itertuples(index=False):
        if line.step.startswith("infercnvpy"):
            continue
        limited = pd.notna(line.limit)
        fits = not line.peak_mb_above_matrix > line.peak_limit_mb
        target = f"<= {line.limit:g} and <= {line.peak_limit_mb:,.0f} MB" if limited else ""
        found.append(
            row(
                "m",
                f"cost, 20,000 cells, {line.step}: processor time of infercnvpy; peak above the matrix",
                theirs=("", 1.0),
                ours=("", f"{line.ratio_to_infercnvpy:.2f}; {line.peak_mb_above_matrix:,.0f} MB"),
                target=target,
                reached=bool(line.ratio_to_infercnvpy <= line.limit and fits) if limited else None,
            )
        )
    return found


ROWS = {"l": clone_rows, "m": cost_rows}
