"""Where the reference tables live that ship with the workflow.

In a checkout they are in ``workflow/resources``; an installed wheel carries the same folder below
``dtcflow/_workflow``. Nothing outside the package has to know which of the two it runs from.
"""

from __future__ import annotations

from pathlib import Path

from dtcflow.contracts import InputError, Problem

_PACKAGE = Path(__file__).resolve().parent


def _candidates() -> tuple[Path, ...]:
    """Folders that may hold the tables: the checkout's first, so that an edit there is what runs."""
    return (_PACKAGE.parents[1] / "workflow" / "resources", _PACKAGE / "_workflow" / "workflow" / "resources")


def folder() -> Path:
    """Return the folder that holds the shipped reference tables.

    Raises
    ------
    InputError
        When neither a checkout's nor an installed wheel's folder exists.
    """
    candidates = _candidates()
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise InputError(
        "the reference tables of dtcflow are not there",
        [
            Problem(
                str(candidate),
                "no such folder",
                "the workflow's resources folder",
                "install dtcflow from its wheel, or run it from a complete checkout (pip install --editable)",
            )
            for candidate in candidates
        ],
    )


def panel_facts(table: str | Path) -> Path | None:
    """The file ``signature_panel.tsv`` (roles, families, citations) beside a table named ``signatures.tsv``, if any."""
    beside = Path(table).with_name("signature_panel.tsv")
    return beside if Path(table).name == "signatures.tsv" and beside.is_file() else None


def path(name: str) -> Path:
    """Return the path of the shipped reference table ``name``.

    Parameters
    ----------
    name
        A file name such as ``gene_positions.tsv.gz``; no folders.

    Returns
    -------
    Path of a file that exists.

    Raises
    ------
    InputError
        When ``name`` is not a bare file name, or no such table ships.
    """
    where = folder()
    bare = bool(name) and name not in (".", "..") and not any(character in name for character in "/\\:\0")
    found = where / name if bare else None
    if found is not None and found.is_file():
        return found
    shipped = sorted(file.name for file in where.iterdir() if file.is_file() and not file.name.startswith("."))
    raise InputError(
        f"no reference table {name!r} ships with dtcflow",
        [
            Problem(
                str(where),
                repr(name),
                f"one of {', '.join(shipped)}" if shipped else "nothing: the folder is empty",
                "use the bare file name of a shipped table" if bare else "give a bare file name without any folder",
            )
        ],
    )
