"""The sample sheet: read as text, checked as a whole, then indexed by ``sample_id``."""

from __future__ import annotations

import csv
import difflib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from dtcflow.contracts import NORMAL_COMPARTMENTS, InputError, Problem
from dtcflow.io.schema import SAMPLES, describe, load_schema, suggest, violations

log = logging.getLogger(__name__)

MISSING = frozenset({"", "na", "n/a", "nan", "none", "null"})
"""Spellings of an empty field, compared without case, where a column may be empty or is a number."""

LINES = "lines"
"""``attrs`` key of :func:`read_samples`: the line of the file each sample is in."""

GIVEN = "given"
"""``attrs`` key of :func:`read_samples`: by known column, the samples of which the sheet itself says something."""

MISSPELT = 0.85
"""Likeness (``difflib``, letters and digits only) from which an unknown column is a known one with a typing mistake."""

_PER_PATIENT = ("sex", "cnv_profile", "dfs_months", "dfs_event", "os_months", "os_event")
"""Properties of a patient: all samples of one patient must agree on them."""


def _types(leaf: Mapping[str, Any]) -> list[str]:
    kind = leaf.get("type", "string")
    return [kind] if isinstance(kind, str) else list(kind)


def _is_number(leaf: Mapping[str, Any]) -> bool:
    return bool({"integer", "number"} & set(_types(leaf)))


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the sample sheet {path} cannot be read",
            [
                Problem(
                    str(path),
                    error.strerror or str(error),
                    "a TSV or CSV file",
                    "check `samples` in the configuration (or run `dtcflow init`)",
                )
            ],
        ) from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "UTF-8"
    try:
        if encoding == "utf-16" or b"\0" in content:
            raise UnicodeDecodeError("utf-8", content, 0, 1, "not text in UTF-8")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        kind = (
            "a spreadsheet or other binary file"
            if b"\0" in content and encoding == "UTF-8"
            else "text that is not UTF-8"
        )
        raise InputError(
            f"the sample sheet {path} is not UTF-8 text",
            [Problem(str(path), kind, "UTF-8", "save it as tab-separated text in UTF-8", row=row)],
        ) from error


def _split(text: str, path: Path) -> tuple[list[str], list[tuple[int, list[str]]], list[Problem]]:
    """Cut the text into header and rows; a row's number is its line in the file, as an editor shows it."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not kept:
        raise InputError(
            f"the sample sheet {path} is empty",
            [
                Problem(
                    str(path), "no line that is not a comment", "a header and one row per sample", "fill in the sheet"
                )
            ],
        )
    first = kept[0][1]
    delimiter = max("\t,;", key=lambda mark: (first.count(mark), -"\t,;".index(mark)))
    header: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    problems = []
    for number, line in kept:
        try:
            fields = [field.strip() for field in next(csv.reader([line], delimiter=delimiter, strict=True))]
        except csv.Error as error:
            problems.append(
                Problem(
                    str(path),
                    f"a line that cannot be split ({error})",
                    "fields with paired quotes",
                    "remove the stray quote",
                    row=number,
                )
            )
            continue
        if not header:
            header = fields
            while header and not header[-1]:
                header.pop()
        elif any(fields):
            rows.append((number, fields))
    return header, rows, problems


def _check_header(header: list[str], schema: Mapping[str, Any], where: str) -> list[Problem]:
    known = list(schema["properties"])
    problems = []
    for name, count in Counter(header).items():
        if not name:
            problems.append(
                Problem(where, "a column without a name", "a name for each column", "name or remove it", key="header")
            )
        elif count > 1:
            problems.append(
                Problem(where, f"the column {count} times", "each column once", "remove one of them", key=name)
            )
    for name in schema["required"]:
        if name not in header:
            near = suggest(name, [column for column in header if column not in known])
            fix = f"rename the column {near!r} to {name!r}" if near else "add the column"
            problems.append(Problem(where, "no such column", describe(schema["properties"][name]), fix, key=name))
    optional = [name for name in known if name not in schema["required"] and name not in header]
    for column in header:
        meant = _misspelt(column, optional) if column and column not in known else None
        if meant:
            fix = f"rename the column to {meant!r}; a column of your own needs a name that is less like it"
            problems.append(Problem(where, f"no column that is known, but nearly {meant!r}", meant, fix, key=column))
    return problems


def _misspelt(column: str, names: Iterable[str]) -> str | None:
    """The known column that ``column`` is a typing mistake of: it would be left out of the analysis in silence."""
    plain = {re.sub(r"[^a-z0-9]", "", name.casefold()): name for name in names}
    close = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", column.casefold()), list(plain), n=1, cutoff=MISSPELT)
    return plain[close[0]] if close else None


def _values(fields: dict[str, str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Turn one row of text into the values the schema describes; an empty optional field is left out."""
    row: dict[str, Any] = {}
    for name, text in fields.items():
        leaf = schema["properties"].get(name)
        if leaf is None:
            row[name] = text
            continue
        enum = [entry for entry in leaf.get("enum", ()) if isinstance(entry, str)]
        closed = bool(enum) or _is_number(leaf)
        if name in schema["required"]:
            row[name] = "" if text.casefold() in MISSING else text
        elif not text or (closed and text.casefold() in MISSING and text not in enum):
            continue
        elif _is_number(leaf):
            row[name] = _number(text)
        else:
            row[name] = text
    return row


def _number(text: str) -> Any:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", text):
        return text
    value = float(text)
    return int(value) if value.is_integer() else value


def _check_unique(rows: list[tuple[int, dict[str, Any]]], where: str, base_dir: Path | None) -> list[Problem]:
    """Ids that occur twice or differ only by case, and matrices that two samples share without being told apart."""
    problems = []
    samples: dict[str, tuple[int, str, str]] = {}
    patients: dict[str, tuple[int, str]] = {}
    for number, row in rows:
        sample, patient = row.get("sample_id", ""), row.get("patient_id", "")
        if sample:
            first = samples.setdefault(sample.casefold(), (number, sample, patient))
            if first[0] != number:
                if first[1] != sample:
                    found = (
                        f"{sample!r}, which differs from {first[1]!r} in row {first[0]} only by upper and lower case"
                    )
                    fix = "rename one: on many disks their files would overwrite each other"
                elif first[2] != patient:
                    found = f"{sample!r}, also in row {first[0]} under patient {first[2]!r}"
                    fix = "a sample belongs to one patient: rename one of the two"
                else:
                    found = f"{sample!r}, also in row {first[0]}"
                    fix = "rename or remove one of the two rows"
                problems.append(Problem(where, found, "each sample once", fix, row=number, key="sample_id"))
        if patient:
            seen = patients.setdefault(patient.casefold(), (number, patient))
            if seen[1] != patient:
                problems.append(
                    Problem(
                        where,
                        f"{patient!r}, which differs from {seen[1]!r} in row {seen[0]} only by upper and lower case",
                        "one spelling per patient",
                        "write the id the same way in all rows",
                        row=number,
                        key="patient_id",
                    )
                )
    return problems + _check_paths(rows, where, base_dir)


def _check_paths(rows: list[tuple[int, dict[str, Any]]], where: str, base_dir: Path | None) -> list[Problem]:
    """Matrices that two samples share: allowed only when one column tells their cells apart."""
    problems = []
    firsts: dict[str, tuple[int, dict[str, Any]]] = {}
    taken: dict[tuple[str, str], tuple[int, str]] = {}
    for number, row in rows:
        path, sample = row.get("path", ""), row.get("sample_id", "")
        column, value = row.get("sample_column", ""), row.get("sample_value", "")
        if value and not column:
            found = f"{value!r} without sample_column"
            fix = "fill in sample_column"
            problems.append(Problem(where, found, "both, or neither", fix, row=number, key="sample_value"))
        if not path:
            continue
        file = _canonical(path, base_dir)
        first, other = firsts.setdefault(file, (number, row))
        if first != number and not (column and other.get("sample_column", "")):
            problems.append(
                Problem(
                    where,
                    f"{path!r}, also in row {first} (sample {other.get('sample_id', '')!r})",
                    "each matrix once",
                    "give each sample its own matrix; if one file holds several samples, name the column of its cell "
                    "table that tells them apart in sample_column of each row",
                    row=number,
                    key="path",
                )
            )
        elif column != other.get("sample_column", ""):
            problems.append(
                Problem(
                    where,
                    f"{column!r} for {path!r}, but {other['sample_column']!r} in row {first}",
                    "one column for all samples of a file: two could share cells",
                    "write the same sample_column in all rows of this path",
                    row=number,
                    key="sample_column",
                )
            )
        elif column:
            value = value or sample
            before = taken.setdefault((file, value), (number, sample))
            if before[0] != number:
                found = f"{value!r}, also in row {before[0]} (sample {before[1]!r})"
                fix = "give each sample its own value of sample_column"
                problems.append(Problem(where, found, "each value of a file once", fix, row=number, key="sample_value"))
    return problems


def _canonical(path: str, base_dir: Path | None) -> str:
    return os.path.realpath(base_dir / path) if base_dir is not None else os.path.normpath(path)


def _check_patients(rows: list[tuple[int, dict[str, Any]]], where: str) -> list[Problem]:
    """What must agree between the samples of one patient, and survival fields that need each other."""
    problems = []
    first: dict[tuple[str, str], tuple[int, Any]] = {}
    normal: dict[str, tuple[int, bool]] = {}
    for number, row in rows:
        patient = row.get("patient_id", "")
        for column in _PER_PATIENT:
            if column not in row or not patient:
                continue
            seen = first.setdefault((patient, column), (number, row[column]))
            if seen[1] != row[column]:
                problems.append(
                    Problem(
                        where,
                        f"{row[column]!r} for patient {patient!r}, but {seen[1]!r} in row {seen[0]}",
                        "one value per patient",
                        "correct one of the two rows (or the patient_id)",
                        row=number,
                        key=column,
                    )
                )
        for months, event in (("dfs_months", "dfs_event"), ("os_months", "os_event")):
            for have, lack in ((months, event), (event, months)):
                if have in row and lack not in row:
                    problems.append(
                        Problem(
                            where, f"{have} without {lack}", "both or none", f"fill in {lack}", row=number, key=lack
                        )
                    )
        if row.get("cnv_profile") and row.get("compartment") in NORMAL_COMPARTMENTS:
            found = f"{row['cnv_profile']!r} for a donor without a tumour ({row['compartment']})"
            fix = "leave the field empty"
            problems.append(Problem(where, found, "profiles of tumours", fix, row=number, key="cnv_profile"))
        if patient and row.get("compartment"):
            is_normal = row["compartment"] in NORMAL_COMPARTMENTS
            seen_normal = normal.setdefault(patient, (number, is_normal))
            if seen_normal[1] != is_normal:
                problems.append(
                    Problem(
                        where,
                        f"{row['compartment']!r} for patient {patient!r}, who has "
                        f"{'tumour' if is_normal else 'normal'} samples in row {seen_normal[0]}",
                        "normal_* compartments only for donors without a tumour",
                        "give the donor a patient_id of its own",
                        row=number,
                        key="compartment",
                    )
                )
    return problems


def read_samples(path: str | Path, *, base_dir: str | Path | None = None) -> pd.DataFrame:
    """Read and check a sample sheet.

    Tab-, comma- or semicolon-separated UTF-8 text, with or without byte-order mark and Windows line ends. Lines that
    start with ``#`` and empty lines are skipped. Whether matrices exist is not checked here (see
    :func:`dtcflow.io.checks.check_study`).

    Parameters
    ----------
    path
        The sheet.
    base_dir
        Study folder that relative matrix paths start from; with it, two spellings of one file are recognised.

    Returns
    -------
    One row per sample in the order of the sheet, index ``sample_id``, columns of ``samples.schema.yaml`` in its order
    (optional ones filled with their defaults; empty text is ``""``, an empty number NaN; numbers are float64), then
    the sheet's own further columns as text. ``attrs["lines"]`` maps each sample to its line in the file, and
    ``attrs["given"]`` names the samples whose value in a column is not a default.

    Raises
    ------
    InputError
        With every problem of the sheet at once: file, line, column, what was found, what is allowed, what to do.
    """
    path = Path(path)
    where = str(path)
    schema = load_schema(SAMPLES)
    header, raw_rows, problems = _split(_read_text(path), path)
    problems += _check_header(header, schema, where)
    broken_header = bool(problems)
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, fields in raw_rows:
        if len(fields) > len(header) and any(fields[len(header) :]):
            problems.append(
                Problem(
                    where, f"{len(fields)} fields", f"{len(header)} fields as in the header",
                    "remove the extra fields, or quote fields that hold the separator", row=number,
                )
            )  # fmt: skip
        padded = fields + [""] * (len(header) - len(fields))
        named = {name: value for name, value in zip(header, padded, strict=False) if name}
        rows.append((number, _values(named, schema)))
    known_columns = {name for name in schema["required"] if name in header}
    for number, row in rows:
        present = dict(schema)
        present["required"] = sorted(known_columns)
        for problem in violations(present, row, where=where, row=number):
            problems.append(_reworded(problem, row))
    if not raw_rows and not broken_header:
        problems.append(
            Problem(where, "a header without rows", "one row per sample", "add your samples below the header")
        )
    problems += _check_unique(rows, where, Path(base_dir) if base_dir is not None else None)
    problems += _check_patients(rows, where)
    if problems:
        problems.sort(key=lambda problem: problem.row or 0)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(f"{where}: {count} in the sample sheet", problems)
    frame = _frame([row for _, row in rows], header, schema, where)
    frame.attrs[LINES] = {row["sample_id"]: number for number, row in rows}
    frame.attrs[GIVEN] = _given([row for _, row in rows], schema)
    return frame


def _given(rows: Iterable[Mapping[str, Any]], schema: Mapping[str, Any]) -> dict[str, list[str]]:
    """By known column, the samples of which the sheet says something."""
    return {
        name: [str(row["sample_id"]) for row in rows if row.get(name) not in (None, "")]
        for name in schema["properties"]
    }


def loose_samples(path: str | Path) -> pd.DataFrame | None:
    """Return the rows of a sheet that :func:`read_samples` refuses, as far as their inputs can be looked at.

    Rows with a path, under their sample id or, where it is empty or used twice, the number of their row. Numbers are
    left empty and values that are not allowed take their default. None when the sheet cannot be read at all.
    """
    schema = load_schema(SAMPLES)
    try:
        header, raw_rows, _ = _split(_read_text(Path(path)), Path(path))
    except InputError:
        return None
    if "path" not in header:
        return None
    rows: list[dict[str, Any]] = []
    lines: dict[str, int] = {}
    for number, fields in raw_rows:
        named = _values(dict(zip(header, fields, strict=False)), schema)
        if not named.get("path"):
            continue
        kept = {
            name: value
            for name, value in named.items()
            if name not in schema["properties"]
            or not (_is_number(leaf := schema["properties"][name]) or value not in leaf.get("enum", (value,)))
        }
        sample = str(named.get("sample_id", ""))
        kept["sample_id"] = sample if sample and sample not in lines else f"row {number}"
        lines[kept["sample_id"]] = number
        rows.append(kept)
    frame = _frame(rows, header, schema, str(path))
    frame.attrs[LINES] = lines
    frame.attrs[GIVEN] = _given(rows, schema)
    return frame


def _reworded(problem: Problem, row: Mapping[str, Any]) -> Problem:
    """Say it in the words of a sheet: a field is empty, not null or left out."""
    if problem.key and row.get(problem.key) == "":
        return replace(problem, found="an empty field (or NA)", fix="fill it in")
    fix = problem.fix
    if " out for its default " in fix:
        fix = "write an allowed value, or leave the field empty"
    return replace(problem, allowed=problem.allowed.replace(", or null", ", or an empty field"), fix=fix)


def _frame(rows: list[dict[str, Any]], header: list[str], schema: Mapping[str, Any], where: str) -> pd.DataFrame:
    extra = [name for name in header if name not in schema["properties"]]
    if extra:
        log.info("%s: columns kept as they are and not used: %s", where, ", ".join(extra))
    columns: dict[str, pd.Series] = {}
    for name, leaf in schema["properties"].items():
        values = [row.get(name, leaf.get("default")) for row in rows]
        columns[name] = pd.Series(values, dtype="float64" if _is_number(leaf) else "object")
    for name in extra:
        columns[name] = pd.Series([row.get(name, "") for row in rows], dtype="object")
    frame = pd.DataFrame(columns)
    frame.index = pd.Index(frame.pop("sample_id"), name="sample_id")
    return frame


def known_copy_number(samples: pd.DataFrame, patient_id: str) -> str:
    """Return the path of a patient's known copy number, empty without one.

    The sheet may name it in one row of the patient or in all of them; :func:`read_samples` refuses two different ones.
    """
    own = samples.loc[(samples["patient_id"] == patient_id).to_numpy(dtype=bool), "cnv_profile"]
    return next((str(path) for path in own if path), "")


def sample_row(samples: pd.DataFrame, sample_id: str) -> dict[str, Any]:
    """Return one row of :func:`read_samples` as a plain dictionary that holds ``sample_id``, too."""
    if sample_id not in samples.index:
        near = suggest(sample_id, [str(name) for name in samples.index])
        raise InputError(
            f"no sample {sample_id!r} in the sheet",
            [
                Problem(
                    "sample sheet",
                    repr(sample_id),
                    f"one of {len(samples)} samples",
                    f"did you mean {near!r}?" if near else "check the sample's name",
                    key="sample_id",
                )
            ],
        )
    return {"sample_id": sample_id, **{str(key): value for key, value in samples.loc[sample_id].items()}}
