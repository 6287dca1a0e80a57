"""Check a whole study before anything runs: configuration, sample sheet, analysis plan and every input's header."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dtcflow.contracts import DtcflowError, InputError, Problem
from dtcflow.io.config import load_config, read_yaml
from dtcflow.io.copy_number import read_copy_number
from dtcflow.io.design_checks import warn_of_design
from dtcflow.io.header_checks import check_copies, check_names
from dtcflow.io.readers import cell_columns, inspect_matrix
from dtcflow.io.sheet import LINES, loose_samples, read_samples

if TYPE_CHECKING:
    from dtcflow.evidence.plan import Plan

log = logging.getLogger(__name__)

_FILES = (
    ("intake", "gene_positions", "a GTF or TSV with gene positions"),
    ("annotation", "panels", "a marker table"),
    ("scores", "signatures", "a signature table"),
)


def _problems(error: DtcflowError) -> list[Problem]:
    return list(error.problems) or [Problem("study", error.message, "a readable input", "see the message")]


def _check_files(config: Mapping[str, Any], where: str, base_dir: Path) -> list[Problem]:
    """Files that the configuration names."""
    named = [(f"{block}.{key}", config[block][key], what) for block, key, what in _FILES]
    named += [("scores.gmt", path, "a GMT file") for path in config["scores"]["gmt"]]
    return [
        Problem(where, f"{path!r}, which is not a readable file", what, "correct the path", key=key)
        for key, path, what in named
        if path is not None and not (base_dir / path).is_file()
    ]


def _check_plan(config: Mapping[str, Any], where: str, base_dir: Path) -> tuple[list[Problem], list[str]]:
    """Problems of the plan, and what it better had not."""
    from dtcflow.evidence.plan import examine_plan

    path = base_dir / config["claims"]
    if not path.is_file():
        missing = Problem(
            where,
            f"{config['claims']!r}, which is not a readable file",
            "the analysis plan",
            "correct the path (`dtcflow init` writes a plan)",
            key="claims",
        )
        return [missing], []
    try:
        plan, problems = examine_plan(path, where=str(path))
    except DtcflowError as error:
        return _problems(error), []
    if plan is None:
        return problems, []
    return problems + _check_plan_signatures(plan, config, str(path), base_dir), _warn_of_plan(plan, config)


def _check_plan_signatures(plan: Plan, config: Mapping[str, Any], where: str, base_dir: Path) -> list[Problem]:
    """Signatures the plan names but nobody has, and claims about the very genes that chose their cells."""
    from dtcflow import resources
    from dtcflow.evidence.plan_checks import check_plan
    from dtcflow.scores.signatures import load_gmt, load_markers, load_panel

    def given(path: str | None, shipped: str) -> Path:
        return base_dir / path if path else resources.path(shipped)

    try:
        panel = load_panel(given(config["scores"]["signatures"], "signatures.tsv"))
        for path in config["scores"]["gmt"]:
            panel += load_gmt(base_dir / path)
        markers = load_markers(given(config["annotation"]["panels"], "markers.tsv"))
    except DtcflowError as error:
        return _problems(error) if all(_there(config, base_dir)) else []
    try:
        check_plan(plan, {one.name: one for one in panel}, markers, where=where)
    except DtcflowError as error:
        return _problems(error)
    return []


def _warn_of_plan(plan: Plan, config: Mapping[str, Any]) -> list[str]:
    """A gate that calls other cells putative than the annotation does."""
    own = config["annotation"]["epithelial_z"]
    return [
        f"claim {claim.id} counts marrow cells from an epithelial score of {claim.epithelial_z:g} as putative, while "
        f"annotation.epithelial_z is {own:g}: a gate should be asked of the cells that are searched"
        for claim in plan.claims
        if claim.test == "identity_share" and claim.evaluated and claim.epithelial_z != own
    ]


def _there(config: Mapping[str, Any], base_dir: Path) -> list[bool]:
    """Whether each file of signatures and markers is there; a missing one is told by :func:`_check_files`."""
    named = [config["scores"]["signatures"], config["annotation"]["panels"], *config["scores"]["gmt"]]
    return [(base_dir / path).is_file() for path in named if path]


def _made_here(config: Mapping[str, Any], sample: str, path: str) -> bool:
    """Whether the ``simulate`` block makes this sample's matrix."""
    return config["simulate"] is not None and f"simulated/matrices/{sample}.h5ad" in path


def _in_sheet(error: DtcflowError, sheet: Path, line: int | None, column: str) -> list[Problem]:
    """The problems of an input, at the field of the sample sheet that named it."""
    what = error.message.rsplit(": ", 1)[-1]

    def told(problem: Problem) -> str:
        place = "".join(f", {part}" for part in (problem.row and f"row {problem.row}", problem.key) if part)
        return f"{what} ({problem.found}) in {problem.where}{place}"

    return [
        replace(problem, where=str(sheet), row=line, key=column, found=told(problem)) for problem in _problems(error)
    ]


def _check_profile(
    path: str,
    patient: str,
    samples: pd.DataFrame,
    config: Mapping[str, Any],
    sheet: Path,
    line: int | None,
    base_dir: Path,
) -> list[Problem]:
    """Known copy number of one patient, read whole: it is small."""
    own = samples.index[(samples["patient_id"] == patient).to_numpy(dtype=bool)].astype(str).tolist()
    build = config["intake"]["genome_build"]
    try:
        read_copy_number(base_dir / path, patient_id=patient, sample_ids=own, build=build)
    except InputError as error:
        return _in_sheet(error, sheet, line, "cnv_profile")
    return []


def _check_inputs(
    samples: pd.DataFrame, config: Mapping[str, Any], sheet: Path, base_dir: Path
) -> tuple[list[Problem], list[str]]:
    """Existence, format, truncation, size, gene names and copies of every matrix, from its header."""
    problems = []
    formats: dict[str, str] = {}
    profiles: set[tuple[str, str]] = set()
    lines: Mapping[str, int] = samples.attrs[LINES]
    for name, row in samples.iterrows():
        sample = str(name)
        for column, wanted in (("path", row["format"]), ("raw_path", "auto")):
            if not row[column] or (column == "path" and _made_here(config, sample, row["path"])):
                continue
            options: dict[str, Any] = {}
            if column == "path":
                options = {"layer": config["intake"]["layer"], "sample_column": row["sample_column"]}
                options["sample_value"] = row["sample_value"] or (sample if row["sample_column"] else "")
            try:
                header = inspect_matrix(base_dir / row[column], format=wanted, **options)
                log.debug("%s: %s", sample, header)
                if column == "path":
                    formats[sample] = header.format
            except InputError as error:
                problems += _in_sheet(error, sheet, lines.get(sample), column)
        key = (str(row["cnv_profile"]), str(row["patient_id"]))
        if key[0] and key not in profiles:
            profiles.add(key)
            problems += _check_profile(key[0], key[1], samples, config, sheet, lines.get(sample), base_dir)
    named, warnings = check_names(samples, formats, config=config, sheet=sheet, lines=lines, base_dir=base_dir)
    problems += named + check_copies(samples, formats, sheet=sheet, lines=lines, base_dir=base_dir)
    return problems, warnings


def _check_reference(config: Mapping[str, Any], samples: pd.DataFrame, where: str, base_dir: Path) -> list[Problem]:
    """The column that names normal cells must be in the .h5ad inputs."""
    key = config["copy_number"]["reference_key"]
    if key is None:
        return []
    problems = []
    for sample, row in samples.iterrows():
        try:
            columns = cell_columns(base_dir / row["path"])
        except InputError:
            continue  # told elsewhere
        if columns is None:
            continue  # a format without a cell table
        if key.removeprefix("input_") not in columns:
            shown = ", ".join(columns) or "no column"
            problems.append(
                Problem(
                    where,
                    f"{key!r}, which is not in the cell table of sample {sample!r} ({shown[:200]})",
                    "a column of obs of every .h5ad",
                    "correct the name, or set reference_key to null",
                    key="copy_number.reference_key",
                )
            )
    return problems


def _check_values(
    samples: pd.DataFrame, config: Mapping[str, Any], sheet: Path, base_dir: Path, skip: set[int | None]
) -> list[Problem]:
    """What only a whole matrix shows; samples whose header is already at fault (line in ``skip``) are left out."""
    from dtcflow import resources
    from dtcflow.genes import load_aliases, load_positions
    from dtcflow.io.intake import read_sample

    given = config["intake"]["gene_positions"]
    try:
        positions = load_positions(
            base_dir / given if given else resources.path("gene_positions.tsv.gz"),
            build=config["intake"]["genome_build"],
        )
        aliases = load_aliases()
    except DtcflowError as error:
        return _problems(error)
    problems = []
    lines: Mapping[str, int] = samples.attrs[LINES]
    for name, row in samples.iterrows():
        line = lines.get(str(name))
        if line in skip or _made_here(config, str(name), row["path"]):
            continue
        try:
            read_sample(
                {"sample_id": name, **row}, config=config, positions=positions, aliases=aliases, base_dir=base_dir
            )
        except DtcflowError as error:
            problems += _in_sheet(error, sheet, line, "path")
    return problems


@dataclass(frozen=True)
class Findings:
    """What a look at a study before its run found."""

    problems: list[Problem]
    """What must be corrected; the study cannot run with any."""
    warnings: list[str]
    """What the study can run with, and better had not."""


def check_study(
    config: Mapping[str, Any] | str | Path,
    *,
    base_dir: str | Path = ".",
    where: str | None = None,
    read: bool = False,
) -> list[Problem]:
    """Return every problem that can be seen before a study runs; empty when there is none.

    Parameters are those of :func:`examine_study`.
    """
    return examine_study(config, base_dir=base_dir, where=where, read=read).problems


def examine_study(
    config: Mapping[str, Any] | str | Path,
    *,
    base_dir: str | Path = ".",
    where: str | None = None,
    read: bool = False,
) -> Findings:
    """Look at everything that can be seen before a study runs.

    Only headers of matrices are read, so that a study of many samples takes seconds. All problems of configuration,
    plan, sheet and inputs come at once: inputs are looked at even when rows of the sheet or the configuration are
    wrong, as far as these can be read. Matrices that the ``simulate`` block makes are not looked for.

    Parameters
    ----------
    config
        The configuration file, or the mapping read from one.
    base_dir
        Study folder: relative paths (sheet, plan, matrices, and a relative ``config``) start here.
    where
        Name of the configuration in the problems.
    read
        Also read every matrix as a run would, one after the other: minutes instead of seconds.
    """
    base_dir = Path(base_dir)
    if isinstance(config, str | Path):
        config = base_dir / config
        where = where or str(config)
    else:
        where = where or "config"
    problems: list[Problem] = []
    try:
        settings = load_config(config, where=where)
    except DtcflowError as error:
        problems += _problems(error)
        loose = _loose_settings(config)
        if loose is None:
            return Findings(problems, [])
        settings = loose
    of_plan, plan_warnings = _check_plan(settings, where, base_dir)
    problems += _check_files(settings, where, base_dir) + of_plan
    sheet = base_dir / settings["samples"]
    try:
        samples = read_samples(sheet, base_dir=base_dir)
    except DtcflowError as error:
        problems += _problems(error)
        readable = loose_samples(sheet)
        if readable is None:
            return Findings(problems, [])
        samples = readable
    found, warnings = _check_inputs(samples, settings, sheet, base_dir)
    warnings += warn_of_design(samples) + plan_warnings
    problems += found + _check_reference(settings, samples, where, base_dir)
    if read:
        problems += _check_values(samples, settings, sheet, base_dir, {problem.row for problem in problems})
    return Findings(problems, warnings)


def _loose_settings(config: Mapping[str, Any] | str | Path) -> dict[str, Any] | None:
    """The defaults with what a wrong configuration says of sheet, plan and simulation; None when it cannot be read."""
    try:
        values = read_yaml(config) if isinstance(config, str | Path) else config
        if not isinstance(values, Mapping):
            return None
        kept: dict[str, Any] = {
            key: values[key] for key in ("samples", "claims") if isinstance(values.get(key), str) and values[key]
        }
        if values.get("simulate") is not None:
            kept["simulate"] = {}
        return load_config(kept)
    except DtcflowError:
        return None
