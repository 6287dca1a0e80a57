"""A run seen from outside: is its folder locked, which steps failed, and what does a finished run say."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from dtcflow.contracts import CODES, InputError, Problem, read_json, read_table

_WIDTH = 110


# ---------------------------------------------------------------------------------------------------------------------
# Locks
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LiveProcess:
    """A process that works in a run's folder."""

    pid: int
    command: str


def lock_files(directory: str | Path) -> list[Path]:
    """Return the lock files that Snakemake keeps in the folder of a run (and leaves there when it is killed)."""
    locks = Path(directory) / ".snakemake" / "locks"
    return sorted(locks.glob("*.lock")) if locks.is_dir() else []


def is_snakemake(command: Sequence[str]) -> bool:
    """Whether the command line of a process is Snakemake's, or that of a step that Snakemake started."""
    started = any(Path(part).name == "snakemake" for part in command[:3])
    return started or any(".snakemake/scripts/" in part for part in command[:4])


def live_processes(directory: str | Path) -> list[LiveProcess]:
    """Return the Snakemake processes, and steps of a run, that work in ``directory`` on this machine.

    The calling process and its ancestors do not count. Processes whose working folder may not be read (those of other
    users) are not seen.

    Raises
    ------
    InputError
        When psutil, which comes with Snakemake, is not installed: nothing can be told then.
    """
    try:
        psutil = import_module("psutil")
    except ImportError as error:
        raise InputError(
            "running processes cannot be listed",
            [Problem("psutil", "not installed", "psutil", "pip install '.[workflow]'")],
        ) from error
    here = Path(directory).resolve()
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        try:
            command = process.cmdline()
            if is_snakemake(command) and Path(process.cwd()) == here:
                found.append(LiveProcess(process.pid, " ".join(command)))
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's
    return found


def half_written(directory: str | Path) -> list[Path]:
    """Return the temporary files next to the outputs that a locked run was to write: what a kill left half done."""
    directory = Path(directory)
    outputs = {
        directory / line
        for file in lock_files(directory)
        if file.name.endswith(".output.lock")
        for line in _lines(file)
        if line.strip()
    }
    return sorted(part for output in outputs for part in output.parent.glob(f".{escape(output.name)}.*.tmp"))


def unlock(directory: str | Path) -> int:
    """Remove the lock that a killed run left in ``directory``, and the half-written files beside its outputs.

    Returns
    -------
    Number of lock files removed; 0 when nothing was locked.

    Raises
    ------
    InputError
        When the folder is not there, or a live process holds the lock (nothing is removed then).
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(
            f"no study folder {directory}",
            [Problem(str(directory), "no such folder", "the folder of a run", "check --directory")],
        )
    files = lock_files(directory)
    if not files:
        return 0
    if live := live_processes(directory):
        raise InputError(
            f"a run is going on in {directory}",
            [
                Problem(
                    str(directory / ".snakemake" / "locks"),
                    f"a lock held by process {process.pid} ({textwrap.shorten(process.command, 90)})",
                    "one run at a time",
                    "wait for it to end, or stop it first",
                )
                for process in live
            ],
        )
    for file in [*half_written(directory), *files]:
        file.unlink(missing_ok=True)
    return len(files)


# ---------------------------------------------------------------------------------------------------------------------
# Failed steps
# ---------------------------------------------------------------------------------------------------------------------

_FAILED = re.compile(
    r"^Error in rule (?P<rule>\w+):\n(?:[ \t]+.*\n)*?[ \t]+log: (?P<log>.+?) \(check log",
    re.MULTILINE,
)


@dataclass(frozen=True)
class FailedStep:
    """A step of a run that failed, and the first line of what it said."""

    rule: str
    log: str
    message: str

    @property
    def name(self) -> str:
        """Rule, with its sample or patient where it has one."""
        unit = Path(self.log).stem
        return self.rule if unit == self.rule else f"{self.rule} {unit}"


def failed_steps(logs: str | Path | Iterable[str | Path]) -> list[FailedStep]:
    """Return the steps that failed in a run, each once, in the order of failure.

    Parameters
    ----------
    logs
        Snakemake's own log of the run (or several). Paths in it are relative to the working folder.
    """
    steps: dict[str, FailedStep] = {}
    for path in [logs] if isinstance(logs, str | Path) else logs:
        for match in _FAILED.finditer("\n".join(_lines(path))):
            said = [line for line in _lines(match["log"]) if line.startswith("dtcflow: ")]
            message = said[-1].removeprefix("dtcflow: ") if said else _unexplained(match["log"])
            steps.setdefault(match["log"], FailedStep(match["rule"], match["log"], message))
    return list(steps.values())


def failure_text(logs: str | Path | Iterable[str | Path]) -> str:
    """Return the last words of a run that failed: one line that names the broken steps, then one line for each.

    Empty when no step failed. ``logs`` is that of :func:`failed_steps`.
    """
    steps = failed_steps(logs)
    if not steps:
        return ""
    names = ", ".join(step.name for step in steps)
    lines = [f"  - {step.name}: {step.message} (all of it in {step.log})" for step in steps]
    return "\n".join([f"dtcflow: failed: {names}. Finished steps are kept; correct this and run again.", *lines])


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _unexplained(log: str) -> str:
    ends = [line.strip() for line in _lines(log) if line.strip()]
    return f"ended without a message; its last words: {ends[-1]}" if ends else "ended before it wrote anything"


# ---------------------------------------------------------------------------------------------------------------------
# What a finished run says
# ---------------------------------------------------------------------------------------------------------------------

_NEEDED = ("evidence/verdict.json", "evidence/claims.tsv", "cells.tsv.gz", "qc/loss_audit.tsv")


def verdict_text(results: str | Path) -> str:
    """Return what a finished run says, as plain text: notice, verdict, claims, cells, losses and where the report is.

    Parameters
    ----------
    results
        Results folder of a run.

    Raises
    ------
    InputError
        When one of the tables it is read from is not there.
    """
    results = Path(results)
    missing = [name for name in _NEEDED if not (results / name).is_file()]
    if missing:
        raise InputError(
            f"{results} holds no finished run",
            [
                Problem(str(results / name), "no such file", "the results of a finished run", "run the workflow first")
                for name in missing
            ],
        )
    verdict = read_json(results / "evidence" / "verdict.json")
    claims = read_table(results / "evidence" / "claims.tsv", "claims")
    cells = read_table(results / "cells.tsv.gz", "cells")
    audit = read_table(results / "qc" / "loss_audit.tsv", "loss_audit")
    codes = [str(code) for code in verdict["codes"]]
    blocks = [
        _notice(results),
        [f"Hypothesis: {verdict['statement']}", f"Verdict: {verdict['verdict']}", *_wrapped(verdict["sentence"])],
        ["Why not more:", *(_entry(f"  {code:<15}", CODES.get(code, "")) for code in codes)] if codes else [],
        ["Claims:", *(line for row in claims.to_dict("records") for line in _claim(row))],
        ["Cells:", *_cells(cells), *_copy_number(results, found=bool((cells["malignant_call"] == "malignant").any()))],
        ["Cells with tumour evidence that were removed, flagged or left undecided:", *_losses(audit, results)],
        [*_wrapped(verdict["ceiling"], indent=""), f"Report: {_report(results)}"],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _wrapped(text: str, *, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _entry(head: str, text: str) -> str:
    return f"{head} {text}".rstrip()


def _notice(results: Path) -> list[str]:
    path = results / "provenance.json"
    study = read_json(path)["parameters"].get("study", {}) if path.is_file() else {}
    return [text for text in (study.get("title"), study.get("notice")) if text]


def _claim(row: Mapping[Any, Any]) -> list[str]:
    codes = f" ({row['codes'].replace(';', ', ')})" if row["codes"] else ""
    lines = [f"  {row['claim_id']} {row['verdict']}{codes}: {row['title']} [{row['role']}]"]
    if pd.notna(row["estimate"]):
        interval = f"{_number(row['estimate'])} [{_number(row['ci_low'])}, {_number(row['ci_high'])}]"
        p = f", p = {_number(row['p_value'])}" if pd.notna(row["p_value"]) else ""
        lines.append(f"     {interval} {row['unit']}, {_count(int(row['n_patients']), 'patient')}{p}")
    return lines


def _number(value: float) -> str:
    return "not computable" if pd.isna(value) else f"{value:.3g}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _cells(cells: pd.DataFrame) -> list[str]:
    tumour = int((cells["malignant_call"] == "malignant").sum())
    dtcs = cells[cells["is_dtc"]]
    where = _count(cells["sample_id"].nunique(), "sample"), _count(cells["patient_id"].nunique(), "patient")
    return [
        f"  {len(cells):,} read from {where[0]} of {where[1]}, {int(cells['pass_qc'].sum()):,} passed QC",
        f"  {_count(tumour, 'tumour cell')} called, {_count(len(dtcs), 'DTC')} among them"
        f" (in {_count(dtcs['patient_id'].nunique(), 'patient')})",
    ]


def _copy_number(results: Path, *, found: bool) -> list[str]:
    """Patients whose copy number could not be assessed and, where no tumour cell was found, what would have shown."""
    lines = [] if found else ["  no tumour cell found"]
    for path in sorted((results / "cnv" / "patients").glob("*.json")):
        status = read_json(path)
        patient = status["patient_id"]
        if status["status"] != "ok":
            lines += _wrapped(f"{patient}: copy number not assessable: {status['reason'] or status['status']}")
        elif not found:
            arms = status["smallest_detectable"]
            sizes = sorted(int(key.removeprefix("arms_at_").removesuffix("_cells")) for key in arms)
            parts = ", ".join(f"{size} cells with {arms[f'arms_at_{size}_cells']:g}" for size in sizes)
            lines += _wrapped(f"{patient}: smallest detectable clone: {parts} altered arms")
    return lines


def _losses(audit: pd.DataFrame, results: Path) -> Iterable[str]:
    if audit.empty:
        return ["  none"]
    counts = audit.groupby(["stage", "status"], sort=True).size().reset_index(name="cells")
    parts = [f"{row['cells']:,} {row['status']} at {row['stage']}" for row in counts.to_dict("records")]
    return [f"  {len(audit):,}: {', '.join(parts)}; each with its reason in {results / 'qc' / 'loss_audit.tsv'}"]


def _report(results: Path) -> str:
    path = results / "report.html"
    return str(path.resolve()) if path.is_file() else f"{path} is not there; run the workflow to the end"
