"""What kind of copy-number file this is, and where it keeps what: told from header and content."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dtcflow.contracts import InputError, Problem
from dtcflow.io.files import refuse
from dtcflow.io.schema import suggest

Rows = list[tuple[int, list[str]]]
"""Line number and fields of each row."""

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "id": ("id", "sample", "sample_id", "sampleid", "sample_name", "samplename", "gdc_aliquot", "tumor_sample_barcode",
           "barcode", "patient_id", "patient"),
    "chromosome": ("chrom", "chromosome", "chr", "contig", "seqnames", "seqname", "chromosome_name"),
    "start": ("loc_start", "start", "startpos", "start_pos", "start_position", "chromstart", "chrom_start",
              "segment_start", "seg_start", "begin"),
    "end": ("loc_end", "end", "endpos", "end_pos", "end_position", "chromend", "chrom_end", "segment_end", "seg_end",
            "stop"),
    "markers": ("num_mark", "num_probes", "nprobes", "n_probes", "probes", "num_markers", "n_markers", "markers"),
    "arm": ("arm", "chromosome_arm", "chrom_arm", "chr_arm"),
}  # fmt: skip
VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "copy_number": ("total_cn", "copy_number", "copynumber", "cn", "tcn", "tcn_em", "total_copy_number", "tot_cn",
                    "totalcn", "cnt", "absolute_cn", "copies"),
    "log2": ("log2", "log2_ratio", "log2ratio", "log2_copy_ratio", "mean_log2_copy_ratio", "cnlr_median", "logr"),
    "log_ratio": ("log_ratio", "ln_ratio"),
    "seg": ("seg_mean", "segment_mean", "segmean"),
    "state": ("state", "call", "status", "event"),
    "by_content": ("mean", "value", "score"),
}  # fmt: skip
"""Names of value columns; of several the first of this order is used. ``seg.mean`` is a log2 ratio by convention and
holds copy numbers in the exports of some tools: its content decides."""
ALLELES: Final = (("major_cn", "minor_cn"), ("nmajor", "nminor"), ("n_major", "n_minor"), ("majorcn", "minorcn"),
                   ("major_copy_number", "minor_copy_number"))  # fmt: skip
STATES: Final[Mapping[str, int]] = {
    **dict.fromkeys(("gain", "gained", "+", "dup", "duplication", "1", "+1"), 1),
    **dict.fromkeys(("loss", "lost", "-", "del", "deletion", "-1"), -1),
    **dict.fromkeys(("neutral", "normal", "diploid", "none", "0", "cnloh", "loh_neutral"), 0),
    **dict.fromkeys(("amp", "amplification", "amplified", "high_gain", "2", "+2"), 2),
    **dict.fromkeys(("homdel", "deep_deletion", "deep_loss", "homozygous_deletion", "-2"), -2),
}
"""States and the copies that they add to two."""
UNKNOWN_STATES: Final = frozenset({"", "na", "nan", "n/a", ".", "not_assessable", "not_covered", "unknown"})
ARM: Final = re.compile(r"^(?:chr(?:omosome)?)?\s*0?(\d{1,2}|[XY])\s*([pq])$", re.IGNORECASE)
NUMBER: Final = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$")


@dataclass(frozen=True)
class Layout:
    """Where a file keeps what: column positions, and how its values are meant."""

    format: str
    columns: Mapping[str, int]
    values: tuple[int, ...]
    """One column, or two whose sum is the copy number."""
    kind: str
    column: str
    header: bool
    zero_based: bool


def split_rows(path: Path, content: str) -> Rows:
    """Fields of every line that is no comment, with the number of the line."""
    kept = [
        (number, line.lstrip("#") if number == 1 and _is_header(line.lstrip("#")) else line)
        for number, line in enumerate(content.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1)
        if line.strip()
    ]
    kept = [(n, line) for n, line in kept if not line.startswith(("#", "track ", "browser ", "track\t"))]
    if not kept:
        raise refuse(
            path, "an empty copy-number profile", "no line that is not a comment", "one row per segment or arm",
            "fill in the profile, or leave cnv_profile empty",
        )  # fmt: skip
    first = kept[0][1]
    delimiter = next((mark for mark in "\t,;" if mark in first), " ")
    split: Callable[[str], list[str]] = (
        str.split if delimiter == " " else lambda line: next(csv.reader([line], delimiter=delimiter))
    )
    try:
        return [(n, [part.strip().strip('"') for part in split(line)]) for n, line in kept]
    except csv.Error as error:
        raise refuse(
            path, "no table", f"a line that cannot be split ({error})", "fields with paired quotes", "export it again"
        ) from error


def _norm(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.strip().strip('"').lower()).strip("_")


def _is_header(line: str) -> bool:
    names = {_norm(part) for part in re.split(r"[\t,; ]+", line)}
    return bool(names & set(ALIASES["chromosome"]) and names & set(ALIASES["start"])) or "arm" in names


def _find(names: Sequence[str], aliases: Iterable[str]) -> int:
    return next((names.index(alias) for alias in aliases if alias in names), -1)


def find_layout(path: Path, first: list[str], rows: Rows) -> Layout:
    """Tell the format of a file from its first line, or without a header from its first row."""
    names = [_norm(part) for part in first]
    columns = {key: _find(names, aliases) for key, aliases in ALIASES.items()}
    placed = min(columns["chromosome"], columns["start"], columns["end"]) >= 0
    if placed or columns["arm"] >= 0:
        values, kind, column = _value_column(path, first, names, rows[0][0])
        if not placed:
            return Layout("arms", columns, values, kind, column, header=True, zero_based=False)
        seg = columns["id"] >= 0 and (columns["markers"] >= 0 or kind == "seg")
        bed = _bed_name(path) or names[columns["start"]] in ("chromstart", "chrom_start")
        form = "bed" if bed else "seg" if seg else "segments"
        return Layout(form, columns, values, kind, column, header=True, zero_based=bed)
    none = dict.fromkeys(ALIASES, -1)
    numbers = [bool(NUMBER.match(part)) for part in first]
    if len(first) >= 6 and numbers[2] and numbers[3] and numbers[-1] and not (numbers[1] and numbers[0]):
        places = none | {"id": 0, "chromosome": 1, "start": 2, "end": 3}
        return Layout("seg", places, (len(first) - 1,), "by_content", "last column", header=False, zero_based=False)
    if len(first) >= 4 and numbers[1] and numbers[2]:
        value = 3 if numbers[3] or first[3].lower() in STATES or len(first) == 4 or not numbers[4] else 4
        kind = "by_content" if numbers[value] else "state"
        places = none | {"chromosome": 0, "start": 1, "end": 2}
        return Layout("bed", places, (value,), kind, f"column {value + 1}", header=False, zero_based=True)
    if len(first) == 2 and ARM.match(first[0]):
        kind = "state" if first[1].lower() in (STATES.keys() | UNKNOWN_STATES) else "by_content"
        return Layout("arms", none | {"arm": 0}, (1,), kind, "column 2", header=False, zero_based=False)
    missing = [key for key in ("chromosome", "start", "end") if columns[key] < 0]
    raise InputError(
        f"{path}: the copy-number profile has no known format",
        [
            Problem(
                str(path),
                f"columns {', '.join(first[:12])}; no {', no '.join(missing)} and no arm",
                "SEG (ID chrom loc.start loc.end num.mark seg.mean), BED (chrom start end value), a table with "
                "chromosome, start, end and a value, or a table with arm and a value",
                "name the columns chromosome, start, end and total_cn, log2 or state",
                row=rows[0][0],
                key="header",
            )
        ],
    )


def _bed_name(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith((".bed", ".bedgraph", ".bdg"))


def _value_column(path: Path, first: list[str], names: list[str], row: int) -> tuple[tuple[int, ...], str, str]:
    for kind, aliases in VALUES.items():
        at = _find(names, aliases)
        if at >= 0:
            return (at,), kind, first[at]
        if kind == "copy_number":
            for major, minor in ALLELES:
                if major in names and minor in names:
                    pair = names.index(major), names.index(minor)
                    return pair, kind, f"{first[pair[0]]} + {first[pair[1]]}"
    every = [alias for aliases in VALUES.values() for alias in aliases]
    others = {alias for aliases in ALIASES.values() for alias in aliases}
    near = next((hint for name in names if name not in others and (hint := suggest(name, every))), None)
    raise InputError(
        f"{path}: the copy-number profile has no column with values",
        [
            Problem(
                str(path),
                f"columns {', '.join(first[:12])}",
                "one of total_cn, copy_number, cn, major_cn + minor_cn, log2, seg.mean, log_ratio, state",
                f"did you mean {near!r}? rename the column" if near else "name the column of the values",
                row=row,
                key="header",
            )
        ],
    )


def choose_profile(
    path: Path,
    layout: Layout,
    records: Rows,
    patient_id: str,
    sample_ids: Sequence[str],
) -> tuple[str, Rows]:
    """Of several profiles in one file, the rows of the patient's."""
    at = layout.columns["id"]
    if at < 0:
        return "", records
    ids = list(dict.fromkeys(fields[at] for _, fields in records if len(fields) > at))
    wanted = [name for name in (patient_id, *sample_ids) if name in ids]
    if patient_id in wanted or len(wanted) == 1:
        chosen = wanted[0]
    elif len(ids) == 1 and not wanted:
        chosen = ids[0]
    else:
        shown = ", ".join(ids[:20]) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "")
        found = f"profiles of several samples of this patient: {', '.join(wanted)}" if wanted else f"ids {shown}"
        asked = " or ".join(dict.fromkeys([patient_id, *sample_ids])) or "one id"
        raise InputError(
            f"{path}: which copy-number profile is this patient's?",
            [
                Problem(
                    str(path), found, f"one profile with the id {asked}",
                    f"give one of them the id {patient_id!r}" if patient_id else "keep the rows of one id", key="ID",
                )
            ],
        )  # fmt: skip
    return chosen, [(n, fields) for n, fields in records if len(fields) <= at or fields[at] == chosen]
