"""The ``dtcflow`` command: make, check, simulate, unlock; say the verdict, compare profiles, explain calls."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from dtcflow import __version__
from dtcflow.contracts import DtcflowError, InputError, Problem

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_PROBLEM = 2
EXIT_INTERRUPTED = 130

_HEADERS = ("file", "row", "column/key", "found", "allowed", "fix")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def problem_table(problems: Sequence[Problem], *, width: int = 120) -> str:
    """Return problems as a plain-text table about ``width`` wide; words of keys are broken last."""
    rows = [
        (p.where, "" if p.row is None else str(p.row), p.key or "", p.found, p.allowed, p.fix) for p in problems
    ]  # fmt: skip
    words = [[row[i] for row in rows] for i in range(len(_HEADERS))]
    widths = [max(len(header), *map(len, own)) for header, own in zip(_HEADERS, words, strict=True)]
    # keys are copied from the table: no line ends inside one, as long as anything else is left to give
    key = _HEADERS.index("column/key")
    least = [10] * len(widths)
    least[key] = min(50, max([10, *(len(word) for field in words[key] for word in field.split())]))
    room = max(60, width - 2 * (len(_HEADERS) - 1))
    for floors in (least, [10] * len(widths)):
        while sum(widths) > room:
            wide = [i for i, floor in enumerate(floors) if widths[i] > floor]
            if not wide:
                break
            widths[max(wide, key=widths.__getitem__)] -= 1
    lines = []
    for row in (_HEADERS, tuple("-" * w for w in widths), *rows):
        cells = [textwrap.wrap(field, w, break_on_hyphens=False) or [""] for field, w in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            lines.append("  ".join(part.ljust(w) for part, w in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _init(options: argparse.Namespace) -> int:
    from dtcflow.study import init_study, run_command

    folder = shlex.quote(str(options.directory))
    files = init_study(options.directory, force=options.force)
    _say("Written:")
    for file in files:
        _say(f"  {file}")
    _say(f"\nFill in {files[1]}, look through {files[0]}, then check and run:\n")
    _say(f"  dtcflow check --directory {folder}")
    _say(f"  {run_command(options.directory)}")
    return EXIT_OK


def _check(options: argparse.Namespace) -> int:
    from dtcflow.io.checks import examine_study

    directory = Path(options.directory)
    if not directory.is_dir():
        raise InputError(
            f"no study folder {directory}",
            [Problem(str(directory), "no such folder", "a study folder", "check --directory (or run `dtcflow init`)")],
        )
    findings = examine_study(options.config, base_dir=directory, read=options.read)
    problems = findings.problems
    if options.json:
        listed = [
            {"file": p.where, "row": p.row, "key": p.key, "found": p.found, "allowed": p.allowed, "fix": p.fix}
            for p in problems
        ]
        _say(json.dumps({"ok": not problems, "problems": listed, "warnings": findings.warnings}, indent=2))
    elif problems:
        _say(f"{_count(len(problems), 'problem')} in the study {directory}\n")
        _say(problem_table(problems, width=shutil.get_terminal_size((120, 24)).columns))
    else:
        from dtcflow.io.config import load_config
        from dtcflow.io.sheet import read_samples

        sheet = directory / load_config(directory / options.config)["samples"]
        samples = read_samples(sheet, base_dir=directory)
        patients = samples["patient_id"].nunique()
        _say(f"no problem found: {_count(len(samples), 'sample')} of {_count(patients, 'patient')}")
    for warning in findings.warnings if not options.json else ():
        _say(f"\nwarning: {warning}")
    return EXIT_PROBLEM if problems else EXIT_OK


def _simulate(options: argparse.Namespace) -> int:
    from dtcflow.simulate import write_study
    from dtcflow.study import run_command

    out = Path(options.out)
    if (out / "config").exists() and not options.force:
        raise InputError(
            f"{out} already holds a study",
            [
                Problem(
                    str(out / "config"), "an existing folder", "a new folder", "choose another --out, or add --force"
                )
            ],
        )
    sizes = {"n_patients": options.patients} if options.patients is not None else {}
    write_study(out, options.scenario, seed=options.seed, **sizes)
    _say(f"Simulated cohort in {out} (the planted truth is in {out / 'truth'}). Run it:\n\n  {run_command(out)}")
    return EXIT_OK


def _unlock(options: argparse.Namespace) -> int:
    from dtcflow.runs import unlock

    if unlock(options.directory):
        _say(f"dtcflow: removed the lock that a killed run left in {options.directory}; finished steps are kept")
    return EXIT_OK


def _verdict(options: argparse.Namespace) -> int:
    from dtcflow.runs import verdict_text

    _say(verdict_text(options.results))
    return EXIT_OK


def _compare(options: argparse.Namespace) -> int:
    from dtcflow.cnv.compare import compare_results
    from dtcflow.contracts import write_table

    table = compare_results(
        options.results, options.profile, patient_id=options.patient, effect=options.effect, build=options.build
    )
    if options.out is not None:
        write_table(table, options.out, "comparison")
    if table.empty:
        _say(f"patient {options.patient} has no clone to compare")
    else:
        _say(table.set_index(["sample_id", "clone_id", "resolution"]).T.to_string(float_format="{:.3g}".format))
    return EXIT_OK


def _explain(options: argparse.Namespace) -> int:
    from dtcflow.explain import explain_cell

    _say(explain_cell(options.results, options.cell_id))
    return EXIT_OK


def _fetch_signatures(options: argparse.Namespace) -> int:
    from dtcflow.scores.fetch import fetch_signatures

    done = fetch_signatures(options.collections, options.out, version=options.release, url=options.url)
    for one in done:
        dropped = f", {one.n_dropped} of KEGG or BioCarta dropped" if one.n_dropped else ""
        _say(f"{one.path}: {one.n_sets} sets{dropped}, sha256 {one.sha256}")
    _say("Name the files in scores.gmt of config/config.yaml to score them.")
    return EXIT_OK


def _power(options: argparse.Namespace) -> int:
    from dtcflow.evidence.plan import load_plan
    from dtcflow.evidence.planning import Design, design_report, plan_designs
    from dtcflow.study import shipped_root

    plan = load_plan(options.claims or shipped_root() / "config" / "claims.yaml")
    designs = [
        Design(
            patients=patients,
            dtcs=options.dtcs,
            reference_cells=options.reference_cells,
            depth=options.depth,
            slope_sd=options.slope_sd,
        )
        for patients in sorted(set(options.patients))
    ]
    table = plan_designs(
        plan,
        options.claim,
        designs,
        sesoi=options.sesoi,
        effects=tuple(sorted(set(options.effects))),
        cohorts=options.cohorts,
        seed=options.seed,
    )
    if options.out is not None:
        from dtcflow.contracts import write_table
        from dtcflow.plot import style
        from dtcflow.plot.planning import draw_power

        folder = Path(options.out)
        folder.mkdir(parents=True, exist_ok=True)
        write_table(table, folder / "power.tsv")
        with style.language():
            (folder / "power.svg").write_text(style.svg_file(draw_power(table)), encoding="utf-8")
    _say(design_report(table))
    return EXIT_OK


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _at_least_zero(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


_above_zero.__name__ = "number > 0"
_at_least_zero.__name__ = "number >= 0"
_whole.__name__ = "whole number >= 0"
_positive.__name__ = "whole number >= 1"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="dtcflow",
        description="Disseminated tumour cells in single-cell RNA counts: calls with error rates, verdicts by patient.",
    )
    parser.add_argument("--version", action="version", version=f"dtcflow {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show the Python traceback of an unexpected error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    init = commands.add_parser("init", help="write the configuration of a new study")
    init.add_argument("directory", metavar="DIR", help="study folder; made when it is not there")
    init.add_argument("--force", action="store_true", help="overwrite an existing configuration")
    init.set_defaults(run=_init)

    check = commands.add_parser("check", help="check configuration, sample sheet, plan and inputs without running")
    check.add_argument("--config", default="config/config.yaml", help="relative to the study folder (%(default)s)")
    check.add_argument("--directory", default=".", metavar="DIR", help="study folder (this one)")
    check.add_argument("--read", action="store_true", help="also read every matrix, as a run would (minutes)")
    check.add_argument("--json", action="store_true", help="problems and warnings as JSON")
    check.set_defaults(run=_check)

    simulate = commands.add_parser("simulate", help="write a simulated cohort with a known truth as a study folder")
    simulate.add_argument("--scenario", required=True, choices=("progenitor", "null"), help="what is planted")
    simulate.add_argument("--seed", type=_whole, default=1, metavar="N", help="the same seed gives the same files (1)")
    simulate.add_argument("--out", required=True, metavar="DIR", help="study folder to write")
    simulate.add_argument("--patients", type=_positive, metavar="N", help="number of patients (10)")
    simulate.add_argument("--force", action="store_true", help="overwrite an existing study")
    simulate.set_defaults(run=_simulate)

    unlock = commands.add_parser("unlock", help="remove the lock of a killed run; silent when nothing is locked")
    unlock.add_argument("--directory", default=".", metavar="DIR", help="folder Snakemake ran in (this one)")
    unlock.set_defaults(run=_unlock)

    compare = commands.add_parser("compare-cnv", help="compare a patient's copy number with a profile from DNA")
    compare.add_argument("profile", metavar="PROFILE", help="SEG, BED, table of segments or of arms")
    compare.add_argument("--patient", required=True, metavar="ID", help="patient of the run")
    compare.add_argument("--results", default="results", metavar="DIR", help="results folder (%(default)s)")
    compare.add_argument("--build", default="GRCh38", choices=("GRCh38", "GRCh37"), help="build of the gene positions")
    compare.add_argument("--effect", type=float, default=0.15, metavar="X", help="least log ratio of a call (0.15)")
    compare.add_argument("--out", metavar="TSV", help="also write the table")
    compare.set_defaults(run=_compare)

    verdict = commands.add_parser("verdict", help="say in plain text what a finished run found")
    verdict.add_argument("--results", default="results", metavar="DIR", help="results folder (%(default)s)")
    verdict.set_defaults(run=_verdict)

    fetch = commands.add_parser("fetch-signatures", help="fetch gene-set collections of MSigDB as GMT files")
    fetch.add_argument("collections", nargs="+", metavar="COLLECTION", help="for example h.all, c2.cgp, c5.go.bp")
    fetch.add_argument("--release", default="2024.1.Hs", metavar="V", help="release of MSigDB (%(default)s)")
    fetch.add_argument("--out", default="config/msigdb", metavar="DIR", help="folder to write (%(default)s)")
    fetch.add_argument("--url", metavar="URL", help="folder of the releases, where a mirror is used")
    fetch.set_defaults(run=_fetch_signatures)

    explain = commands.add_parser("explain", help="say in plain words how the call of one cell came about")
    explain.add_argument("cell_id", metavar="CELL_ID", help="sample_id:barcode, as in cells.tsv.gz")
    explain.add_argument("--results", default="results", metavar="DIR", help="results folder (%(default)s)")
    explain.set_defaults(run=_explain)

    power = commands.add_parser("power", help="say what a planned cohort can show: chance of each verdict")
    power.add_argument("--patients", type=_positive, nargs="+", default=[8], metavar="N", help="patients (8)")
    power.add_argument("--dtcs", type=_above_zero, default=12.0, metavar="N", help="mean DTCs of a patient (12)")
    power.add_argument(
        "--reference-cells", type=_positive, default=60, metavar="N", help="primary tumour cells of a patient (60)"
    )
    power.add_argument(
        "--depth", type=_above_zero, default=4500.0, metavar="UMI", help="median transcripts of a cell (4500)"
    )
    power.add_argument("--sesoi", type=_above_zero, metavar="SD", help="smallest effect of interest (the plan's)")
    power.add_argument(
        "--effects",
        type=_at_least_zero,
        nargs="+",
        default=[0.0, 0.25, 0.5, 0.75, 1.0, 1.5],
        metavar="SD",
        help="true effects to look at (0 0.25 0.5 0.75 1 1.5)",
    )
    power.add_argument(
        "--slope-sd",
        type=_at_least_zero,
        default=0.5,
        metavar="SD",
        help="spread of the effect over patients (0.5)",
    )
    power.add_argument("--claims", metavar="YAML", help="analysis plan (the shipped one)")
    power.add_argument("--claim", default="P2", metavar="ID", help="paired contrast of the plan (P2)")
    power.add_argument("--cohorts", type=_positive, default=300, metavar="N", help="simulated cohorts per effect (300)")
    power.add_argument("--seed", type=_whole, default=1, metavar="N", help="the same seed gives the same table (1)")
    power.add_argument("--out", metavar="DIR", help="also write power.tsv and power.svg")
    power.set_defaults(run=_power)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (0 done, 2 a problem of the input, 1 unexpected, 130 interrupted)."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        code: int = options.run(options)
    except DtcflowError as error:
        sys.stderr.write(f"dtcflow: {error}\n")
        return EXIT_PROBLEM
    except KeyboardInterrupt:
        sys.stderr.write("dtcflow: interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_UNEXPECTED
    except Exception as error:
        if options.traceback:
            raise
        sys.stderr.write(
            f"dtcflow: unexpected error ({type(error).__name__}: {error}); run `dtcflow --traceback ...` to see where\n"
        )
        return EXIT_UNEXPECTED
    return code


if __name__ == "__main__":
    sys.exit(main())
