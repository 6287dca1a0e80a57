"""Reader of a tumour's known copy number: SEG, BED, a table of segments, or a table of chromosome arms.

What kind of file it is, is told from its content and header, gzip or not. The reader returns coordinates on named
chromosomes and values as they were given; what a value means for expression is decided in :mod:`dtcflow.cnv.given`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow.contracts import InputError, Problem
from dtcflow.genes import load_arms
from dtcflow.genes.positions import chromosome_name
from dtcflow.io.copy_number_layout import (
    ARM,
    NUMBER,
    STATES,
    UNKNOWN_STATES,
    Layout,
    Rows,
    choose_profile,
    find_layout,
    split_rows,
)
from dtcflow.io.files import read_text, refuse
from dtcflow.io.schema import suggest

Floats = npt.NDArray[np.float64]
Kind = Literal["copy_number", "log2", "log_ratio", "state"]

MAX_PROBLEMS: Final = 20
MIN_COPIES_MEDIAN: Final = 1.5
"""A column without negative values whose length-weighted median reaches this (1 when all are whole numbers) holds copy
numbers: as log2 ratios they would say that most of the genome has nearly six copies."""
END_TOLERANCE: Final = 100_000
"""Base pairs by which the segments must reach further beyond the chromosomes' ends of one build than of the other to
tell the two apart."""
BIN_TOLERANCE: Final = 1_000_000
"""Base pairs that a segment may reach beyond the end of its chromosome: ends are often rounded up to whole bins."""

_BUILD_NAMES: Final = {
    "GRCh37": re.compile(r"(?<![a-z0-9])(?:hg19|grch37|b37|hs37d5|hs37)(?![0-9])", re.IGNORECASE),
    "GRCh38": re.compile(r"(?<![a-z0-9])(?:hg38|grch38|hs38)(?![0-9])", re.IGNORECASE),
}
_CONTIG: Final = re.compile(r"^(?:chr)?(?:M|MT|25|26|XY|Un_?.*|GL\d+.*|KI\d+.*|NC_\d+.*|.*_(?:random|alt|fix|decoy)|"
                            r"HLA.*|EBV|hs3[78]d\d|phix.*)$", re.IGNORECASE)  # fmt: skip
ALL_STATES: Final = "gain, loss, neutral, amplification, deep_deletion (or -2 to 2)"


@dataclass(frozen=True)
class KnownCopyNumber:
    """A copy-number profile as given by the user."""

    segments: pd.DataFrame
    """``chromosome start end value``: 1-based and inclusive, in genome order, without overlaps; ``value`` is in the
    unit of ``kind`` (copies; log2 ratio; natural log ratio; copies added to two)."""
    path: str
    format: str
    """``seg``, ``bed``, ``segments`` or ``arms``."""
    kind: Kind
    column: str
    """Column the values are from."""
    profile_id: str
    """Id of the profile in the file; empty when the file has no ids."""
    build: str
    build_known_by: str
    """``stated`` (file or file name), ``chromosome_ends``, ``arms`` (no coordinates) or ``assumed``."""
    n_elsewhere: int
    """Rows on contigs and the mitochondrial chromosome, which are not used."""


@dataclass
class _Problems:
    path: Path
    shown: list[Problem] = field(default_factory=list)
    total: int = 0

    def add(self, row: int | None, key: str | None, found: str, allowed: str, fix: str) -> None:
        self.total += 1
        if len(self.shown) < MAX_PROBLEMS:
            self.shown.append(Problem(str(self.path), found, allowed, fix, row=row, key=key))

    def stop(self) -> None:
        if self.total:
            more = f"; the first {len(self.shown)} of {self.total} problems" * (self.total > len(self.shown))
            raise InputError(f"{self.path}: the copy-number profile cannot be used{more}", self.shown)


def read_copy_number(
    path: str | Path, *, patient_id: str = "", sample_ids: Sequence[str] = (), build: str = "GRCh38"
) -> KnownCopyNumber:
    """Read one tumour's copy-number profile.

    Parameters
    ----------
    path
        SEG (``ID chrom loc.start loc.end num.mark seg.mean``, names vary), BED (``chrom start end value``, 0-based),
        TSV or CSV of segments (``chromosome start end`` and a value column), or an arm table (``arm`` and a value).
        Values: ``total_cn``/``copy_number``/``cn`` (or major and minor copies) are absolute copies; ``log2``,
        ``seg.mean`` are log2 ratios; ``log_ratio`` is a natural log ratio of expression; ``state`` is one
        of gain, loss, neutral, amplification, deep_deletion.
    patient_id, sample_ids
        Of several ids in one file the one that equals the patient's, else a sample's, is taken.
    build
        Genome build of the gene positions of the study; a profile of another build is refused.

    Raises
    ------
    InputError
        For a file that cannot be read, unknown columns, malformed, inverted or overlapping segments, unknown
        chromosomes, values that are missing or not finite, an id that cannot be chosen, or a profile of another build.
    """
    path = Path(path)
    if not path.is_file():
        raise refuse(path, "no copy-number profile", "no such file", "a SEG, BED or TSV file", "correct the path")
    content = read_text(path)
    if "\0" in content:
        raise refuse(path, "not a text file", "binary content", "SEG, BED or TSV text", "export it as text")
    stated = _stated_build(path, content, build)
    rows = split_rows(path, content)
    layout = find_layout(path, rows[0][1], rows)
    records = rows[1:] if layout.header else rows
    problems = _Problems(path)
    if not records:
        problems.add(rows[0][0], None, "a header without rows", "one row per segment or arm", "add the segments")
        problems.stop()
    profile_id, records = choose_profile(path, layout, records, patient_id, sample_ids)
    records = _full_rows(layout, records, problems)
    n_elsewhere = 0
    if layout.format == "arms":
        frame = _arm_segments(layout, records, problems, build)
    else:
        frame, n_elsewhere = _segments(layout, records, problems)
    kind, frame = _values(layout, frame, problems)
    problems.stop()
    known_by = "arms" if layout.format == "arms" else stated or _build_by_ends(frame, problems, build)
    if stated and layout.format != "arms":
        _build_by_ends(frame, problems, build)
    frame = _without_overlaps(frame, problems)
    problems.stop()
    if frame.empty:
        problems.add(
            None, "chromosome", f"{n_elsewhere} rows, none on chr1-22, X or Y", "rows on these", "check the names"
        )
        problems.stop()
    return KnownCopyNumber(
        frame, str(path), layout.format, kind, layout.column, profile_id, build, known_by, n_elsewhere
    )


# ---------------------------------------------------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------------------------------------------------


def _full_rows(layout: Layout, records: Rows, problems: _Problems) -> Rows:
    width = 1 + max(*layout.columns.values(), *layout.values)
    for number, fields in records:
        if len(fields) < width:
            problems.add(number, None, f"{len(fields)} fields", f"at least {width} fields", "repair the row")
    return [(number, fields) for number, fields in records if len(fields) >= width]


def _coordinate(text: str) -> int | None:
    """A whole number; also as R writes large ones (``1e+08``)."""
    if not NUMBER.match(text) or not float(text).is_integer():
        return None
    return int(float(text))


def _chromosome(text: str) -> str:
    """Name of an autosome or sex chromosome (``23`` and ``24`` are X and Y in tables of R), else ``""``."""
    bare = text[3:] if text[:3].lower() == "chr" else text
    name = chromosome_name({"23": "X", "24": "Y"}.get(bare, bare))
    return "" if name == "chrM" else name


def _segments(layout: Layout, records: Rows, problems: _Problems) -> tuple[pd.DataFrame, int]:
    """Checked coordinates and the text of the values; and how many rows lie on contigs."""
    at = layout.columns
    kept: list[tuple[int, str, int, int, str]] = []
    elsewhere = 0
    for number, fields in records:
        chromosome = _chromosome(fields[at["chromosome"]])
        if not chromosome:
            if _CONTIG.match(fields[at["chromosome"]]):
                elsewhere += 1
            else:
                found = repr(fields[at["chromosome"]][:40])
                problems.add(number, "chromosome", found, "1-22, X, Y (with or without chr)", "rename or remove it")
            continue
        start, end = _coordinate(fields[at["start"]]), _coordinate(fields[at["end"]])
        if start is None or end is None:
            found = f"{fields[at['start']]!r}, {fields[at['end']]!r}"
            problems.add(number, "start/end", found, "whole numbers", "repair the row")
            continue
        start += layout.zero_based
        if end < start:
            allowed = "start < end (a BED is 0-based)" if layout.zero_based else "start <= end"
            problems.add(number, "start/end", f"start {fields[at['start']]}, end {end}", allowed, "swap or remove it")
            continue
        if start < 0:
            problems.add(number, "start", str(start), "0 or more", "repair the row")
            continue
        kept.append((number, chromosome, max(start, 1), end, _value_text(layout, fields)))
    return pd.DataFrame(kept, columns=["row", "chromosome", "start", "end", "text"]), elsewhere


def _arm_segments(layout: Layout, records: Rows, problems: _Problems, build: str) -> pd.DataFrame:
    """Arms as segments from end to end; an arm without a value is not covered."""
    arms = load_arms(build)
    spans = zip(arms["chromosome"].tolist(), arms["start"].tolist(), arms["end"].tolist(), strict=True)
    places = dict(zip(arms["arm"].tolist(), spans, strict=True))
    kept = []
    for number, fields in records:
        match = ARM.match(fields[layout.columns["arm"]])
        name = match.group(1).upper() + match.group(2).lower() if match else ""
        name = {"23": "X", "24": "Y"}.get(name[:-1], name[:-1]) + name[-1:]
        if name not in places:
            found = repr(fields[layout.columns["arm"]][:40])
            problems.add(number, "arm", found, "1p to 22q, Xp, Xq, Yp, Yq", "correct the name of the arm")
            continue
        text = _value_text(layout, fields)
        if text.lower() in UNKNOWN_STATES:
            continue
        chromosome, start, end = places[name]
        kept.append((number, chromosome, start, end, text))
    if not kept and not problems.total:
        problems.add(None, layout.column, "no arm with a value", "a value for some arms", "fill in the values")
    return pd.DataFrame(kept, columns=["row", "chromosome", "start", "end", "text"])


def _value_text(layout: Layout, fields: list[str]) -> str:
    return "+".join(fields[at] for at in layout.values) if len(layout.values) > 1 else fields[layout.values[0]]


def _values(layout: Layout, frame: pd.DataFrame, problems: _Problems) -> tuple[Kind, pd.DataFrame]:
    """Numbers of the value column, and what they are."""
    texts = frame["text"].astype(str).tolist()
    kind = layout.kind
    if kind == "state" or (kind == "by_content" and any(not NUMBER.match(t) and t.lower() in STATES for t in texts)):
        values = [_state(text, int(row), layout, problems) for text, row in zip(texts, frame["row"], strict=True)]
        return "state", frame.assign(value=np.array(values, dtype=np.float64))
    pair = len(layout.values) > 1
    numbers = []
    for text, row in zip(texts, frame["row"], strict=True):
        parts = text.split("+") if pair else [text]
        value = sum(float(part) for part in parts) if all(NUMBER.match(part) for part in parts) else np.nan
        numbers.append(value)
        if not np.isfinite(value):
            fix = "remove the row: what no row covers counts as not covered"
            problems.add(int(row), layout.column, repr(text[:40]), "a finite number", fix)
    frame = frame.assign(value=np.array(numbers, dtype=np.float64))
    known = frame[np.isfinite(frame["value"].to_numpy(dtype=float))]
    least = 1.0 if (known["value"] % 1 == 0).all() else MIN_COPIES_MEDIAN
    copies = bool(len(known)) and known["value"].min() >= 0 and _weighted_median(known) >= least
    if kind in ("seg", "by_content"):
        return ("copy_number" if copies else "log2"), frame
    if kind == "log2" and copies:
        found = f"no negative value, median {_weighted_median(known):.3g}: copy numbers"
        problems.add(None, layout.column, found, "log2 ratios", "rename the column to total_cn")
    if kind == "copy_number" and len(known) and known["value"].min() < -0.5:
        first = known[known["value"] < -0.5].iloc[0]
        problems.add(
            int(first["row"]), layout.column, f"{first['value']:g}", "copy numbers, 0 or more",
            "rename the column to log2 if these are log2 ratios",
        )  # fmt: skip
    return ("copy_number" if kind == "copy_number" else "log2" if kind == "log2" else "log_ratio"), frame


def _state(text: str, row: int, layout: Layout, problems: _Problems) -> float:
    found = STATES.get(_norm_state(text))
    if found is None:
        near = suggest(text.lower(), [name for name in STATES if len(name) > 2])
        fix = f"did you mean {near!r}?" if near else "use one of these"
        problems.add(row, layout.column, repr(text[:40]), ALL_STATES, fix)
        return float("nan")
    return float(found)


def _norm_state(text: str) -> str:
    return re.sub(r"[\s-]+(?=[a-z])", "_", text.strip().lower())


def _weighted_median(frame: pd.DataFrame) -> float:
    return weighted_median(frame["value"].to_numpy(dtype=float), (frame["end"] - frame["start"] + 1).to_numpy(float))


def weighted_median(values: Floats, weights: Floats) -> float:
    """Smallest value that at least half of the weight does not exceed; NaN without values."""
    if not len(values):
        return float("nan")
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, cumulative[-1] / 2.0)])


def _without_overlaps(frame: pd.DataFrame, problems: _Problems) -> pd.DataFrame:
    """Genome order; overlapping rows that agree become one, those that do not are a problem."""
    rank = {f"chr{name}": i for i, name in enumerate([*range(1, 23), "X", "Y"])}
    frame = frame.assign(rank=frame["chromosome"].map(rank)).sort_values(["rank", "start", "end"], kind="stable")
    merged: list[dict[str, object]] = []
    last: dict[str, object] = {}
    for record in frame.to_dict("records"):
        same = bool(last) and last["chromosome"] == record["chromosome"]
        overlap = int(last["end"]) - int(record["start"]) + 1 if same else 0  # type: ignore[call-overload]
        if overlap > 0 and last["value"] == record["value"]:
            last["end"] = max(int(last["end"]), int(record["end"]))  # type: ignore[call-overload]
            continue
        if overlap > 1:
            found = (
                f"{record['chromosome']}:{record['start']}-{record['end']} with {record['value']:g}, which overlaps "
                f"row {last['row']} with {last['value']:g}"
            )
            problems.add(int(record["row"]), "start/end", found, "one value per place", "remove or cut one of the two")
        last = {str(key): value for key, value in record.items()}
        merged.append(last)
    return pd.DataFrame(merged, columns=["chromosome", "start", "end", "value"]).astype(
        {"chromosome": object, "start": np.int64, "end": np.int64, "value": np.float64}
    )


# ---------------------------------------------------------------------------------------------------------------------
# Genome build
# ---------------------------------------------------------------------------------------------------------------------


def _other(build: str) -> str:
    return "GRCh37" if build == "GRCh38" else "GRCh38"


def _build_fix(build: str) -> str:
    return (
        f"lift the segments over to {build} (for example with UCSC liftOver), or give a table of arms, which has no "
        f"coordinates; intake.genome_build is the build of the gene positions"
    )


def _stated_build(path: Path, content: str, build: str) -> str:
    """``stated`` when comments or the name of the file say the right build; another build is refused."""
    comments = " ".join(line for line in content.splitlines()[:50] if line.startswith(("#", "track", "browser")))
    for source, text in (("a comment", comments), ("the name of the file", path.name)):
        named = {name for name, pattern in _BUILD_NAMES.items() if pattern.search(text)}
        if build in named:
            return "stated"
        if named:
            raise refuse(
                path, "a copy-number profile of another genome build", f"{named.pop()} in {source}", build,
                _build_fix(build),
            )  # fmt: skip
    return ""


def _build_by_ends(frame: pd.DataFrame, problems: _Problems, build: str) -> str:
    """Compare the ends of segments with the lengths of the chromosomes in both builds."""
    lengths = {name: load_arms(name).groupby("chromosome")["end"].max() for name in _BUILD_NAMES}
    last = frame.groupby("chromosome")["end"].max()
    own, other = ((last - lengths[name].reindex(last.index)).clip(lower=0) for name in (build, _other(build)))
    wrong = bool(own.sum() > other.sum() + END_TOLERANCE)
    if wrong or own.max() > BIN_TOLERANCE:
        name = str(own.idxmax())
        row = int(frame.loc[frame["chromosome"] == name].sort_values("end")["row"].iloc[-1])
        problems.add(
            row,
            "end",
            f"{name}:{last[name]}" + (f"; the segments fit {_other(build)} better" if wrong else ""),
            f"at most {int(lengths[build][name])}, the end of {name} in {build}",
            _build_fix(build) if wrong else "correct the coordinates",
        )
        return ""
    # at home in this build only: some chromosome ends earlier in the other
    return "chromosome_ends" if bool(other.sum() > own.sum() + END_TOLERANCE) else "assumed"
