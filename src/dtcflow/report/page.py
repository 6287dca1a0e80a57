"""The parts a page is made of, and how values are written in it.

Everything here is plain data: the template escapes every string. Only :class:`Figure` carries markup, made by
:mod:`dtcflow.plot.style` from figures whose text matplotlib has escaped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pandas as pd
from markupsafe import Markup

from dtcflow.plot.plain import plain

_PROBABILITY: Final = re.compile(r"(^|_)(p|q|pval|padj|fdr)(_|$)")
NONE: Final = "–"
"""How a missing value is shown; never an empty cell, never a zero."""

Tone = Literal["", "strong", "muted", "warn", "verdict"]


@dataclass(frozen=True)
class Cell:
    """One table cell."""

    text: str
    number: bool = False
    tone: Tone = ""
    hint: str = ""
    """Shown as a tooltip; for a verdict the class of its badge."""
    sub: str = ""
    """A second line in small print."""
    link: str = ""
    """Id of the part of the page that the text leads to."""


@dataclass(frozen=True)
class Column:
    """A column heading; ``hint`` explains it below the table, ``number`` aligns its cells to the right."""

    title: str
    number: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption. The first cell of a row is its heading."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    empty: str = "No rows."

    kind: str = "table"


@dataclass(frozen=True)
class Figure:
    """An inline SVG with its caption."""

    svg: Markup
    caption: str
    kind: str = "figure"


@dataclass(frozen=True)
class Paragraph:
    """Text. ``tone`` ``missing``: says that something is not there; ``warn``: asks for attention."""

    text: str
    tone: Literal["", "missing", "warn"] = ""
    kind: str = "paragraph"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]
    kind: str = "bullets"


@dataclass(frozen=True)
class Heading:
    """A heading within a section; ``id`` lets other parts of the page lead to it."""

    text: str
    id: str = ""
    kind: str = "heading"


@dataclass(frozen=True)
class Details:
    """Blocks behind a summary line; ``id`` lets other parts of the page lead to them."""

    summary: str
    blocks: Sequence[Any]
    id: str = ""
    note: str = ""
    """More of the summary line, in small print."""
    kind: str = "details"


@dataclass(frozen=True)
class Badge:
    """A verdict as a mark, a word and a class: never by colour alone."""

    verdict: str
    mark: str
    label: str
    css: str


@dataclass(frozen=True)
class Status:
    """A claim's verdict with its role, in one line."""

    badge: Badge
    role: str
    text: str
    kind: str = "status"


Block = Table | Figure | Paragraph | Bullets | Heading | Details | Status


@dataclass(frozen=True)
class Section:
    """A numbered section of the page."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


# ---------------------------------------------------------------------------------------------------------------------
# Values in words
# ---------------------------------------------------------------------------------------------------------------------


def is_missing(value: Any) -> bool:
    """Whether there is no value: None, NaN, NA, infinite or an empty string."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, float) and not math.isfinite(value)


def number(value: Any, digits: int = 2) -> str:
    """Fixed-point number with a true minus sign; :data:`NONE` when missing, the text itself when not a number."""
    if is_missing(value):
        return NONE
    try:
        shown = f"{float(value):,.{digits}f}"
    except (TypeError, ValueError):
        return text(value)
    if float(shown.replace(",", "")) == 0:
        shown = shown.removeprefix("-")
    return shown.replace("-", "−")


def short(value: Any) -> str:
    """Three significant digits, without exponent where that stays readable."""
    if is_missing(value):
        return NONE
    try:
        found = float(value)
    except (TypeError, ValueError):
        return text(value)
    shown = f"{found:,.0f}" if abs(found) >= 1000 else f"{found:.3g}"
    return shown.replace("-", "−")


def count(value: Any) -> str:
    """Whole number with thousands separators."""
    if is_missing(value):
        return NONE
    try:
        return f"{round(float(value)):,}".replace("-", "−")
    except (TypeError, ValueError):
        return text(value)


def percent(part: Any, whole: Any, digits: int = 1) -> str:
    """``part`` of ``whole`` in per cent."""
    if is_missing(part) or is_missing(whole) or not float(whole):
        return NONE
    return f"{100 * float(part) / float(whole):.{digits}f} %"


def p_value(value: Any) -> str:
    """A p- or q-value: two significant digits, ``< 0.0001`` below that."""
    if is_missing(value):
        return NONE
    try:
        p = float(value)
    except (TypeError, ValueError):
        return text(value)
    if p < 1e-4:
        return "< 0.0001"
    return f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def interval(low: Any, high: Any, digits: int = 2) -> str:
    """Confidence limits as ``low to high``."""
    if is_missing(low) and is_missing(high):
        return NONE
    return f"{number(low, digits)} to {number(high, digits)}"


def estimate(value: Any, low: Any, high: Any, digits: int = 2) -> str:
    """An estimate with its interval in brackets."""
    if is_missing(value):
        return NONE
    if is_missing(low) and is_missing(high):
        return number(value, digits)
    return f"{number(value, digits)} ({interval(low, high, digits)})"


def effect(value: Any, low: Any, high: Any) -> str:
    """An estimate with its interval: two decimals, or three significant digits where these would be zeros."""
    known = [abs(float(one)) for one in (value, low, high) if isinstance(one, int | float) and not is_missing(one)]
    if not known or 0.1 <= max(known) < 1000:
        return estimate(value, low, high)
    if is_missing(value):
        return NONE
    if max(known) < 1e-3 and max(known) > 0:
        million = [1e6 * float(one) if isinstance(one, int | float) else one for one in (value, low, high)]
        return f"{effect(*million)} × 10⁻⁶"
    return short(value) if is_missing(low) and is_missing(high) else f"{short(value)} ({short(low)} to {short(high)})"


def anchor(kind: str, name: Any, number: int) -> str:
    """Id of a part of the page: from the name where that is safe, else from its number."""
    safe = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
    return f"{kind}-{name}" if safe else f"{kind}_{number}"


def natural(name: Any) -> list[tuple[int, int, str]]:
    """Sort key that puts P2 before P10."""
    parts = re.split(r"(\d+)", str(name))
    return [(0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part) for part in parts]


def text(value: Any, limit: int = 400) -> str:
    """Any value as text of at most ``limit`` characters without control or invisible characters."""
    return NONE if is_missing(value) else plain(value, limit)


def spaced(value: Any) -> Any:
    """``a;b`` as ``a; b``, so that a list of reasons may break over lines; anything but text as it is."""
    return re.sub(r";(?=\S)", "; ", value) if isinstance(value, str) else value


def plural(n: int, one: str, many: str | None = None) -> str:
    """``1 patient``, ``2 patients``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed_texts(value: Any) -> list[str]:
    """Texts of a list, or of a single value; none for a missing one."""
    if is_missing(value) if not isinstance(value, list | tuple) else not value:
        return []
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def listed(items: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    names = list(items)
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}"


def num(shown: str, *, tone: Tone = "", hint: str = "") -> Cell:
    """A right-aligned cell."""
    return Cell(shown, number=True, tone=tone, hint=hint)


def words(value: Any, *, tone: Tone = "", hint: str = "", limit: int = 400) -> Cell:
    """A text cell."""
    return Cell(text(value, limit), tone=tone, hint=hint)


def frame_table(
    frame: pd.DataFrame,
    caption: str,
    *,
    columns: Sequence[str] | None = None,
    max_rows: int = 50,
    note: str = "",
    empty: str = "No rows.",
) -> Table:
    """Show a table as it is: numbers with three significant digits, p- and q-values as such, text as text."""
    names = [name for name in (columns or list(frame.columns)) if name in frame.columns]
    numeric = {name: pd.api.types.is_numeric_dtype(frame[name]) and frame[name].dtype != bool for name in names}
    rows = []
    for record in frame[names].head(max_rows).itertuples(index=False, name=None):
        cells = []
        for name, value in zip(names, record, strict=True):
            if numeric[name]:
                probability = bool(_PROBABILITY.search(name))
                cells.append(num(p_value(value) if probability else short(value)))
            elif isinstance(value, bool):
                cells.append(Cell("yes" if value else "no"))
            elif isinstance(value, str):
                cells.append(words(spaced(value)))
            else:
                cells.append(words(value))
        rows.append(cells)
    return Table(caption, [Column(name.replace("_", " "), numeric[name]) for name in names], rows, note, empty)
