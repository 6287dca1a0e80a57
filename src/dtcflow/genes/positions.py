"""Gene positions: the shipped GRCh38 table, or a user's GTF, table or inferCNV gene order."""

from __future__ import annotations

import csv
import gzip
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow import resources
from dtcflow.contracts import InputError, Problem

logger = logging.getLogger(__name__)

BUILDS: Final = ("GRCh38", "GRCh37")
CHROMOSOMES: Final = tuple(f"chr{name}" for name in (*range(1, 23), "X", "Y", "M"))
"""Chromosomes that genes are placed on, in genome order; patches, haplotypes and contigs are not among them."""
COLUMNS: Final = ("gene_id", "symbol", "chromosome", "start", "end", "arm", "band")
"""Columns of a position table; ``start`` and ``end`` are 1-based and inclusive."""

MAX_PROBLEMS: Final = 20
SHIFT: Final = 50_000
"""Base pairs. Between GRCh37 and GRCh38 most genes move by more than this; between annotation releases of one
build the start of a gene seldom does."""
MIN_SHARED: Final = 50
"""Genes in common that a judgement about the build needs."""

_HEADER: Final[dict[str, tuple[str, ...]]] = {
    "symbol": ("symbol", "gene", "gene_name", "gene_symbol", "hgnc_symbol", "external_gene_name"),
    "gene_id": ("gene_id", "gene_ids", "ensembl_id", "ensembl_gene_id", "ensembl", "gene_stable_id"),
    "chromosome": ("chromosome", "chr", "chrom", "seqname", "seqnames", "chromosome_name"),
    "start": ("start", "gene_start", "start_position", "chromstart"),
    "end": ("end", "stop", "gene_end", "end_position", "chromend"),
}
_ENSEMBL: Final = re.compile(r"(ENS[A-Z]*G\d{6,})(?:\.\d+)?(?:_PAR_Y)?$")
_GTF_ID: Final = re.compile(r'gene_id "([^"]*)"')
_GTF_NAME: Final = re.compile(r'gene_name "([^"]*)"')


class _Row(NamedTuple):
    """One gene as read, its fields not checked."""

    line: int
    gene_id: str
    symbol: str
    chromosome: str
    start: str
    end: str


@dataclass
class _Problems:
    """Collects what is wrong with a file; the count goes on after the list is full."""

    path: Path
    shown: list[Problem] = field(default_factory=list)
    total: int = 0

    def add(self, line: int | None, key: str | None, found: str, allowed: str, fix: str) -> None:
        self.total += 1
        if len(self.shown) < MAX_PROBLEMS:
            self.shown.append(Problem(str(self.path), found, allowed, fix, row=line, key=key))

    def stop(self) -> None:
        """Raise when there is a problem."""
        if self.total:
            more = f"; the first {len(self.shown)} of {self.total} problems are shown" * (self.total > len(self.shown))
            raise InputError(f"gene positions cannot be used: {self.path}{more}", self.shown)


def ensembl_id(name: str) -> str:
    """Return ``name`` without version (and pseudo-autosomal mark) when it is an Ensembl gene id, else ``""``."""
    match = _ENSEMBL.match(name)
    return match.group(1) if match else ""


def chromosome_name(name: str) -> str:
    """Return the UCSC name of a primary chromosome (``1`` -> ``chr1``, ``MT`` -> ``chrM``), else ``""``."""
    bare = name.strip()
    if bare[:3].lower() == "chr":
        bare = bare[3:]
    bare = bare.upper()
    found = "chrM" if bare in ("M", "MT") else f"chr{bare}"
    return found if found in CHROMOSOMES else ""


def load_arms(build: str = "GRCh38") -> pd.DataFrame:
    """Return the chromosome arms of a genome build.

    Returns
    -------
    ``chromosome arm start end`` (1-based, inclusive), two rows for each of chr1-22, X and Y. The boundary is the
    one between the two centromeric bands of the UCSC cytoband table.

    Raises
    ------
    InputError
        When the build is not known.
    """
    if build not in BUILDS:
        raise InputError(
            f"genome build {build!r} is not known",
            [Problem("configuration", repr(build), " or ".join(BUILDS), "set intake.genome_build", key="genome_build")],
        )
    arms = pd.read_csv(resources.path("chromosome_arms.tsv"), sep="\t")
    return _plain_text(arms.loc[arms["build"] == build, ["chromosome", "arm", "start", "end"]].reset_index(drop=True))


def _plain_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Text columns as ``object``, numbers as ``int64``: the same with every version of pandas."""
    return pd.DataFrame(
        {name: frame[name].astype(np.int64 if name in ("start", "end") else object) for name in frame.columns}
    )


def assign_arms(
    chromosome: Sequence[str], start: npt.NDArray[np.int64], end: npt.NDArray[np.int64], *, build: str
) -> npt.NDArray[np.object_]:
    """Return the arm (``1p``) of every gene; a gene across the centromere has the arm of its midpoint.

    The mitochondrial chromosome, and a chromosome that is not known, have no arms: ``""``.
    """
    arms = load_arms(build)
    short = arms[arms["arm"].str.endswith("p")]
    last_of_p = dict(zip(short["chromosome"], short["end"], strict=True))
    limit = np.array([last_of_p.get(name, -1) for name in chromosome], dtype=np.int64)
    middle = (np.asarray(start, dtype=np.int64) + np.asarray(end, dtype=np.int64)) // 2
    arm = [
        "" if border < 0 else name[3:] + ("p" if place <= border else "q")
        for name, border, place in zip(chromosome, limit.tolist(), middle.tolist(), strict=True)
    ]
    return np.array(arm, dtype=object)


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def load_positions(path: Path | str | None = None, *, build: str = "GRCh38") -> pd.DataFrame:
    """Return gene positions.

    Parameters
    ----------
    path
        ``None``: the shipped GRCh38 table (Ensembl 2018-11 genes under current symbols; ``PROVENANCE.md`` beside it
        has the sources). Else a GTF (rows of feature ``gene``), a TSV or CSV whose header names a gene (``symbol``
        or ``gene_id``), ``chromosome``, ``start`` and ``end``, or inferCNV's gene order: four columns without a
        header. Each may be gzipped. Coordinates are 1-based.
    build
        The build that the coordinates of ``path`` refer to; decides the arms.

    Returns
    -------
    One row per gene in genome order: ``gene_id symbol chromosome start end arm band``; ``start`` and ``end`` are
    ``int64``, the rest ``object``. ``gene_id`` has no version and is empty when the file has none; ``band`` is empty
    for a user's file. A gene id (without ids: a symbol) at two places is left out with a warning, the
    pseudo-autosomal copy on Y without one; so are genes outside chr1-22, X, Y and M.

    Raises
    ------
    InputError
        For a file that cannot be read, an unknown header, malformed or inverted coordinates, or coordinates beyond the
        end of a chromosome of ``build``: all problems at once, with their rows.
    """
    arms = load_arms(build)
    if path is None:
        if build != "GRCh38":
            raise InputError(
                f"no gene positions ship for {build}",
                [
                    Problem(
                        "configuration",
                        f"genome_build {build} and no gene_positions",
                        "GRCh38, or your own positions",
                        "set intake.gene_positions to a GTF or TSV of that build, or genome_build to GRCh38",
                        key="genome_build",
                    )
                ],
            )
        shipped = resources.path("gene_positions.tsv.gz")
        return _plain_text(pd.read_csv(shipped, sep="\t", keep_default_na=False, na_values=[])[list(COLUMNS)])
    path = Path(path)
    problems = _Problems(path)
    frame = _checked(_read_rows(path, problems), arms, problems)
    frame["arm"] = pd.Series(
        assign_arms(list(frame["chromosome"]), frame["start"].to_numpy(), frame["end"].to_numpy(), build=build),
        index=frame.index,
        dtype=object,
    )
    frame["band"] = pd.Series([""] * len(frame), index=frame.index, dtype=object)
    return frame[list(COLUMNS)]


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, gzipped or not, whatever it is called."""
    try:
        with path.open("rb") as probe:
            zipped = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt", encoding="utf-8-sig") if zipped else path.open(encoding="utf-8-sig") as handle:
            for line in handle:
                yield line.rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(
            f"gene positions cannot be read: {path}",
            [Problem(str(path), str(error), "a readable text file", "check path and file", key="gene_positions")],
        ) from error


def _columns_of(fields: Sequence[str]) -> dict[str, int]:
    """Return where a header has each column that is needed; -1 where it does not."""
    names = [re.sub(r"[\s/()]+", "_", field.strip().lstrip("# ").lower()).strip("_") for field in fields]
    return {
        column: next((names.index(known) for known in accepted if known in names), -1)
        for column, accepted in _HEADER.items()
    }


def _is_header(columns: dict[str, int]) -> bool:
    named = max(columns["symbol"], columns["gene_id"])
    return min(columns["chromosome"], columns["start"], columns["end"], named) >= 0


def _read_rows(path: Path, problems: _Problems) -> Iterable[_Row]:
    """Tell the format from the first line that is a header or no comment, and read the genes."""
    number, fields, columns, delimiter = 0, [""], _columns_of([]), "\t"
    for number, line in enumerate(_lines(path), start=1):
        delimiter = "\t" if "\t" in line else ","
        fields = next(csv.reader([line], delimiter=delimiter), [""])
        columns = _columns_of(fields)
        if _is_header(columns):
            return _read_table(path, problems, delimiter, columns, header=number, width=len(fields))
        if line.strip() and not line.startswith("#"):
            break
    if len(fields) == 9 and fields[3].isdigit() and fields[4].isdigit():
        return _read_gtf(path, problems)
    # a digit in the fourth field tells a row of a gene order from an unknown header
    if len(fields) == 4 and any(character.isdigit() for character in fields[3]):
        order = {"symbol": 0, "gene_id": -1, "chromosome": 1, "start": 2, "end": 3}
        return _read_table(path, problems, delimiter, order, header=0, width=4)
    missing = [
        f"{column} ({', '.join(_HEADER[column])})" for column in ("chromosome", "start", "end") if columns[column] < 0
    ]
    if max(columns["symbol"], columns["gene_id"]) < 0:
        missing.insert(0, f"symbol or gene_id ({', '.join((*_HEADER['symbol'], *_HEADER['gene_id']))})")
    raise InputError(
        f"gene positions cannot be used: {path}",
        [
            Problem(
                str(path),
                f"columns {', '.join(fields[:20]) or '(none: the file is empty)'}; no {'; no '.join(missing)}",
                "a GTF, a TSV or CSV with a header, or four columns without one (gene, chromosome, start, end)",
                "name the columns symbol, chromosome, start, end",
                row=max(number, 1),
            )
        ],
    )


def _read_gtf(path: Path, problems: _Problems) -> Iterator[_Row]:
    """Yield the ``gene`` features of a GTF."""
    n_genes = 0
    for number, line in enumerate(_lines(path), start=1):
        if line.startswith("#") or not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) != 9:
            problems.add(number, None, f"{len(fields)} fields", "9 tab-separated fields", "repair the line")
            continue
        if fields[2] != "gene":
            continue
        n_genes += 1
        name, identifier = _GTF_NAME.search(fields[8]), _GTF_ID.search(fields[8])
        if name is None and identifier is None:
            problems.add(
                number, "attributes", fields[8][:80], 'gene_id "..." or gene_name "..."', "give a GTF, not a GFF3"
            )
            continue
        if identifier is not None and identifier.group(1).endswith("_PAR_Y"):
            continue
        gene_id = identifier.group(1) if identifier else ""
        yield _Row(number, gene_id, name.group(1) if name else "", fields[0], fields[3], fields[4])
    if not n_genes and not problems.total:
        problems.add(None, "feature", "no row of feature gene", "gene features", "give a GTF with gene rows")


def _read_table(
    path: Path, problems: _Problems, delimiter: str, columns: dict[str, int], *, header: int, width: int
) -> Iterator[_Row]:
    """Yield the rows of a delimited table; ``header`` is the number of its header line, 0 without one."""
    reader = csv.reader(_lines(path), delimiter=delimiter)
    for fields in reader:
        if reader.line_num <= header or (fields[:1] and fields[0].startswith("#")) or not "".join(fields).strip():
            continue
        if len(fields) != width:
            problems.add(reader.line_num, None, f"{len(fields)} fields", f"{width} fields", "repair the line")
            continue
        cell = {name: fields[i].strip() if i >= 0 else "" for name, i in columns.items()}
        yield _Row(reader.line_num, cell["gene_id"], cell["symbol"], cell["chromosome"], cell["start"], cell["end"])


def _checked(rows: Iterable[_Row], arms: pd.DataFrame, problems: _Problems) -> pd.DataFrame:
    """Check coordinates, normalise names, drop what has no single place; genome order."""
    length = arms.groupby("chromosome")["end"].max().to_dict()
    elsewhere = 0
    kept: list[tuple[str, str, str, int, int]] = []
    for row in rows:
        try:
            start, end = int(row.start), int(row.end)
        except ValueError:
            problems.add(row.line, "start/end", f"{row.start!r}, {row.end!r}", "whole numbers", "repair the row")
            continue
        if start < 1 or end < start:
            fix = "swap them" if end < start else "add 1 to 0-based starts"
            problems.add(row.line, "start/end", f"start {start}, end {end}", "1 <= start <= end", fix)
            continue
        if not row.gene_id and not row.symbol:
            problems.add(row.line, "symbol", "no symbol and no gene id", "a name for every gene", "name or remove it")
            continue
        chromosome = chromosome_name(row.chromosome)
        if not chromosome:
            elsewhere += 1
            continue
        if end > length.get(chromosome, end):
            problems.add(
                row.line,
                "end",
                f"{row.symbol or row.gene_id} ends at {chromosome}:{end}",
                f"at most {length[chromosome]}",
                "set intake.genome_build to the build of these positions",
            )
            continue
        # tables keyed by Ensembl ids often carry them in the symbol column
        gene_id = ensembl_id(row.gene_id) or row.gene_id or ensembl_id(row.symbol)
        kept.append((gene_id, row.symbol or gene_id, chromosome, start, end))
    if not kept and not problems.total:
        problems.add(
            None,
            "chromosome",
            f"{elsewhere} genes, none on a human chromosome",
            "chr1-22, X, Y, M (chr may be left out)",
            "rename the chromosomes",
        )
    problems.stop()
    if elsewhere:
        logger.info("%s: %d genes outside chr1-22, X, Y, M have no position", problems.path, elsewhere)
    frame = pd.DataFrame(
        {
            name: pd.Series(list(values), dtype=np.int64 if name in ("start", "end") else object)
            for name, values in zip(COLUMNS[:5], zip(*kept, strict=True), strict=True)
        }
    )
    return _single_places(problems.path, frame)


def _single_places(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Sort in genome order and leave out genes that the file puts at two places."""
    order = frame["chromosome"].map({name: i for i, name in enumerate(CHROMOSOMES)})
    frame = frame.assign(order=order.astype(np.int64)).sort_values(["order", "start", "end", "symbol", "gene_id"])
    frame = frame.drop_duplicates(["gene_id", "symbol", "chromosome", "start", "end"])
    key = pd.Series(
        np.where(frame["gene_id"] != "", frame["gene_id"], frame["symbol"]), index=frame.index, dtype=object
    )
    on_x = set(key[frame["chromosome"] == "chrX"])
    frame = frame[~((frame["chromosome"] == "chrY") & key.isin(on_x))]
    key = key[frame.index]
    twice = key.duplicated(keep=False)
    if twice.any():
        names = sorted(set(key[twice]))
        logger.warning(
            "%s: %d genes have more than one place and are left out, for example %s",
            path,
            len(names),
            ", ".join(names[:5]),
        )
    return frame[~twice].drop(columns="order").reset_index(drop=True)


# ---------------------------------------------------------------------------------------------------------------------
# Which build?
# ---------------------------------------------------------------------------------------------------------------------


def share_shifted(positions: pd.DataFrame, shipped: pd.DataFrame | None = None) -> tuple[float, int]:
    """Compare positions with the shipped GRCh38 table.

    Parameters
    ----------
    positions
        Genes with ``gene_id symbol chromosome start``; genes are matched by id where both tables have one, else by
        symbol; genes without a place are skipped.
    shipped
        The table to compare with; ``None``: the shipped one.

    Returns
    -------
    Share of the matched genes on the same chromosome whose start differs by more than 50 kb, and their number. The
    share is NaN when there are none.
    """
    reference = load_positions() if shipped is None else shipped
    placed = positions[(positions["chromosome"] != "") & (positions["start"] >= 0)]
    by_id = pd.Index(reference["gene_id"].where(reference["gene_id"] != "", "-"), dtype=object)
    by_symbol = pd.Index(reference["symbol"], dtype=object)
    hit = np.full(len(placed), -1, dtype=np.int64)
    for index, names in ((by_id, placed["gene_id"]), (by_symbol, placed["symbol"])):
        single = np.flatnonzero(~index.duplicated(keep=False))
        found = index[single].get_indexer(pd.Index(names, dtype=object))
        hit = np.where((hit < 0) & (found >= 0), single[found], hit)
    rows = np.flatnonzero(hit >= 0)
    other = reference.iloc[hit[rows]]
    same = placed["chromosome"].to_numpy()[rows] == other["chromosome"].to_numpy()
    if not same.any():
        return float("nan"), 0
    shift = np.abs(placed["start"].to_numpy()[rows] - other["start"].to_numpy())[same]
    return float(np.mean(shift > SHIFT)), int(same.sum())


def looks_like_hg19(
    positions: pd.DataFrame, shipped: pd.DataFrame | None = None, *, min_genes: int = MIN_SHARED
) -> bool:
    """Tell whether positions are of another build than GRCh38, in practice GRCh37 (hg19).

    True when more than half of at least ``min_genes`` genes shared with the shipped table start more than 50 kb away
    from where GRCh38 has them. See :func:`share_shifted` for the parameters.
    """
    share, n_genes = share_shifted(positions, shipped)
    return n_genes >= min_genes and share > 0.5
