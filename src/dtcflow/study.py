"""The study folder: what ``dtcflow init`` writes, and where the workflow that runs it is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from dtcflow import resources
from dtcflow.contracts import InputError, Problem, write_text
from dtcflow.io.config import without_simulation
from dtcflow.io.schema import SAMPLES, describe, load_schema

_CONFIG_HEAD = """\
# dtcflow configuration of this study.
# Every key has a default; config/README.md of dtcflow explains each one and how to choose it.
# Relative paths are relative to this study folder. Check it with `dtcflow check --directory <this folder>`.

"""

_STUDY_BLOCK = """\
study:
  title: "Disseminated tumour cells" # heading of the report
  notice: "" # a sentence on top of the report, for example about what the data are
"""

_SHEET_COLUMNS = (
    *("sample_id", "patient_id", "compartment", "path", "platform", "batch", "study", "timepoint", "enrichment"),
    *("nucleated_cells_screened", "sex", "age", "stage", "grade", "er", "pr", "her2"),
)


def shipped_root() -> Path:
    """Return the folder of the workflow: the checkout, or what an installed wheel carries."""
    return resources.folder().parents[1]


def workflow_path() -> Path:
    """Return the Snakefile to give to ``snakemake --snakefile``.

    Raises
    ------
    InputError
        When dtcflow is neither a complete checkout nor installed from a complete wheel.
    """
    path = shipped_root() / "Snakefile"
    if not path.is_file():
        raise InputError(
            "the workflow of dtcflow is not there",
            [Problem(str(path), "no such file", "the Snakefile that ships with dtcflow", "install dtcflow again")],
        )
    return path


def _shipped(name: str) -> str:
    path = shipped_root() / "config" / name
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the shipped {name} is not there",
            [Problem(str(path), "no readable file", "the file that ships with dtcflow", "install dtcflow again")],
        ) from error


def config_template() -> str:
    """Return the shipped configuration with its comments, without the demo's simulation and study name."""
    text = without_simulation(_shipped("config.yaml"))
    text = re.sub(r"\A(?:#.*\n|\s*\n)+", "", text)
    text = re.sub(r"^study:\n(?:[ \t].*\n)+", lambda _: _STUDY_BLOCK, text, flags=re.MULTILINE)
    return _CONFIG_HEAD + text


def sheet_template() -> str:
    """Return a sample sheet with a header, an explanation of each column and two example rows, both commented."""
    schema = load_schema(SAMPLES)
    lines = ["# Sample sheet: one row per sample, columns separated by tabs. Lines that start with # are skipped."]
    for name, leaf in schema["properties"].items():
        need = "required" if name in schema["required"] else "optional"
        allowed = re.sub(r" \(\^.*\)", "", describe(leaf)).replace(", or null", "")
        lines.append(f"# {name} ({need}): {leaf['description']} Allowed: {allowed}.")
    lines += [
        "# Optional columns may be left out, their fields may be empty; columns of your own are kept.",
        "# Examples (remove the '# ' and write your own):",
    ]
    examples = (
        {"sample_id": "P1_marrow", "patient_id": "P1", "compartment": "marrow", "path": "data/P1_marrow.h5ad"},
        {"sample_id": "P1_primary", "patient_id": "P1", "compartment": "primary", "path": "data/P1_primary/"},
    )
    lines += ["# " + "\t".join(row.get(name, "") for name in _SHEET_COLUMNS).rstrip("\t") for row in examples]
    lines.append("\t".join(_SHEET_COLUMNS))
    return "\n".join(lines) + "\n"


def run_command(directory: str | Path) -> str:
    """Return the shell command that runs the study in ``directory``."""
    folder = shlex.quote(str(directory))
    return f"snakemake --snakefile {shlex.quote(str(workflow_path()))} --directory {folder} --cores 2"


def init_study(directory: str | Path, *, force: bool = False) -> list[Path]:
    """Write ``config/config.yaml``, ``config/samples.tsv`` and ``config/claims.yaml`` into a study folder.

    Parameters
    ----------
    directory
        The study folder; made when it is not there.
    force
        Overwrite files that are there.

    Returns
    -------
    The files, in the order above.

    Raises
    ------
    InputError
        When one of the files exists and ``force`` is not set (nothing is written then), or the folder cannot be made.
    """
    directory = Path(directory)
    contents = {
        "config.yaml": config_template(),
        "samples.tsv": sheet_template(),
        "claims.yaml": _shipped("claims.yaml"),
    }
    files = [directory / "config" / name for name in contents]
    present = [file for file in files if file.exists()]
    if present and not force:
        raise InputError(
            f"{directory} already holds a study",
            [
                Problem(str(file), "an existing file", "a new file", "choose another folder, or overwrite with --force")
                for file in present
            ],
        )
    try:
        for file, text in zip(files, contents.values(), strict=True):
            write_text(file, text)
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written",
            [
                Problem(
                    str(directory), error.strerror or str(error), "a folder you may write to", "choose another folder"
                )
            ],
        ) from error
    return files
