"""What the names of genes and the files themselves tell about a study before it runs: species, genes, copies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from dtcflow.contracts import DtcflowError, InputError, Problem
from dtcflow.genes import load_aliases, load_positions, share_shifted
from dtcflow.genes.positions import MIN_SHARED
from dtcflow.io.files import sha256
from dtcflow.io.headers import read_gene_names
from dtcflow.io.names import (
    KNOWN_GENES,
    OTHER_BUILD,
    check_known,
    check_species,
    chosen_genes,
    current_symbols,
    find_mangled,
    is_grch37,
)
from dtcflow.io.readers import input_files

_ENDS: Final = 65536
"""Bytes at either end of a file that are compared before the whole is hashed."""


def _own_names(config: Mapping[str, Any], base_dir: Path) -> tuple[frozenset[str], list[Problem]]:
    """Names in the user's own gene positions, and what is wrong with them."""
    given, build = config["intake"]["gene_positions"], config["intake"]["genome_build"]
    if given is None or not (base_dir / given).is_file():
        return frozenset(), []
    try:
        positions = load_positions(base_dir / given, build=build)
    except DtcflowError as error:
        return frozenset(), list(error.problems)
    problems = []
    share, n_compared = share_shifted(positions)
    if n_compared >= MIN_SHARED and (share > 0.5) != (build != "GRCh38"):
        other = "GRCh37" if build == "GRCh38" else "GRCh38"
        problems.append(
            Problem(
                str(base_dir / given),
                f"genes at the places of {other}, while intake.genome_build is {build}",
                f"positions of {build}",
                f"set intake.genome_build to {other}, or give positions of {build}",
                key="intake.gene_positions",
            )
        )
    return frozenset(positions["symbol"]) | frozenset(positions["gene_id"]), problems


def check_names(
    samples: pd.DataFrame,
    formats: Mapping[str, str],
    *,
    config: Mapping[str, Any],
    sheet: Path,
    lines: Mapping[str, int],
    base_dir: Path,
) -> tuple[list[Problem], list[str]]:
    """Look at the gene names of every input: species, mixtures, and whether they are genes at all.

    Parameters
    ----------
    samples
        From :func:`dtcflow.io.sheet.read_samples`.
    formats
        Sample -> format, of the inputs whose header could be read.
    config, sheet, lines, base_dir
        The checked configuration, path of the sheet, sample -> its line there, and the study folder.

    Returns
    -------
    Problems, and sentences about inputs that are usable but not as they should be: genes that were chosen, names that
    a spreadsheet changed, an annotation of another build.
    """
    own, problems = _own_names(config, base_dir)
    minimum = min(KNOWN_GENES, float(config["intake"]["min_placed_fraction"]))
    # the samples of a cohort share their list of genes as a rule: each list is judged once
    judged: dict[tuple[str, ...], tuple[list[Problem], list[str]]] = {}
    said: dict[str, list[str]] = {}
    rows = _rows(samples)
    for sample, kind in formats.items():
        path = base_dir / rows[sample]["path"]
        try:
            genes = read_gene_names(path, kind)
        except InputError as error:
            problems += _in_sheet(error.problems, sheet, lines.get(sample), path)
            continue
        if genes is None or not genes.names:
            continue
        names = tuple(genes.names)
        if names not in judged:
            judged[names] = _judge(names, minimum, own, complete=genes.complete)
        wrong, found = judged[names]
        problems += _in_sheet(wrong, sheet, lines.get(sample), path)
        found = [*found, *(f"annotated on {name}: {OTHER_BUILD}" for name in genes.genomes if is_grch37(name))]
        for sentence in found if not wrong else ():
            said.setdefault(sentence, []).append(sample)
    return problems, [f"{_listed(names)}: {sentence}" for sentence, names in said.items()]


def _judge(
    names: Sequence[str], minimum: float, own: Collection[str], *, complete: bool
) -> tuple[list[Problem], list[str]]:
    """What is wrong with a list of gene names, and what is odd about it."""
    try:
        check_species(names, where="")
        check_known(names, where="", minimum=minimum, more=own)
    except InputError as error:
        return list(error.problems), []
    found = find_mangled(names, load_aliases()).warnings()
    if complete and (chosen := chosen_genes(current_symbols(names))):
        found.append(chosen)
    return [], found


def _in_sheet(problems: Iterable[Problem], sheet: Path, row: int | None, path: Path) -> list[Problem]:
    return [Problem(str(sheet), f"{p.found} in {path}", p.allowed, p.fix, row=row, key="path") for p in problems]


def _rows(samples: pd.DataFrame) -> dict[str, dict[Any, Any]]:
    return {str(sample): row for sample, row in samples.to_dict("index").items()}


def _listed(names: Collection[str]) -> str:
    first = list(names)[:5]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")


# ---------------------------------------------------------------------------------------------------------------------
# Copies of one file
# ---------------------------------------------------------------------------------------------------------------------


def _fingerprint(files: list[Path]) -> tuple[Any, ...]:
    """Sizes, and the first and last bytes: different files hardly ever agree in them, and nothing more is read."""
    found: list[Any] = []
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as handle:
            start = handle.read(_ENDS)
            handle.seek(max(0, size - _ENDS))
            found.append((size, start, handle.read(_ENDS)))
    return tuple(found)


def check_copies(
    samples: pd.DataFrame, known: Collection[str], *, sheet: Path, lines: Mapping[str, int], base_dir: Path
) -> list[Problem]:
    """Refuse inputs of two samples that are byte for byte the same file under two names.

    Only files of one size that begin and end alike are hashed (SHA-256). Rows of one file that each take another part
    of its cells (``sample_column``) are no copies.

    Parameters
    ----------
    samples, sheet, lines, base_dir
        As :func:`check_names`.
    known
        Samples whose input could be read.
    """
    alike: dict[tuple[Any, ...], list[tuple[str, list[Path]]]] = {}
    rows = _rows(samples)
    for sample in known:
        row = rows[sample]
        part = (row.get("sample_value") or sample) if row.get("sample_column") else ""
        path = base_dir / row["path"]
        if path.is_dir() and not any(path.glob("*matrix.mtx*")):
            continue  # a store of many files; its cells are compared in the run
        try:
            files = input_files(path)
            alike.setdefault((part, *_fingerprint(files)), []).append((sample, files))
        except (OSError, InputError):
            continue  # told elsewhere
    problems = []
    for group in alike.values():
        first: dict[tuple[str, ...], str] = {}
        for sample, files in group if len(group) > 1 else ():
            digest = tuple(sha256(file) for file in files)
            other = first.setdefault(digest, sample)
            same_path = rows[other]["path"] == rows[sample]["path"]
            if other != sample and not same_path:  # one path in two rows is told with the sheet
                problems.append(
                    Problem(
                        str(sheet),
                        f"{rows[sample]['path']!r}, the same file as {rows[other]['path']!r} of sample "
                        f"{other!r} in row {lines.get(other)} (SHA-256 {digest[0][:12]})",
                        "each matrix once",
                        "give each sample its own matrix: one of the two was copied under a wrong name",
                        row=lines.get(sample),
                        key="path",
                    )
                )
    return problems
