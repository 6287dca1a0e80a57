"""Gene sets: the shipped panel, a user's own table or GMT file, and the variants derived from them by rule.

The panel (``signature_panel.tsv`` with one row a set, ``signatures.tsv`` with one row a gene) is restricted to
published sets whose licence allows redistribution; origin and licence of each are in ``SIGNATURES.md`` beside them.
"""

from __future__ import annotations

import csv
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from dtcflow import resources
from dtcflow.contracts import CELL_TYPES, UNKNOWN, InputError, Problem

_LOG = logging.getLogger(__name__)

ROLES: Final = (
    "primary",
    "confirmatory",
    "progenitor",
    "dormancy",
    "negative_control",
    "positive_control",
    "sensitivity",
    "covariate",
    "mask",
)
"""What a set is for. ``mask`` sets are only removed from other sets, never scored."""

USER_ROLE: Final = "user"
"""Role of a set from a user's GMT file: scored and reported, never voting."""
MARKER_ROLE: Final = "marker"

NOPROLIF: Final = "_NOPROLIF"
NOPROLIF_NOEMT: Final = "_NOPROLIF_NOEMT"
NOMARKER: Final = "_NOMARKER"

_PURGED_ROLES: Final = ("primary", "confirmatory", "progenitor", "dormancy", "sensitivity")
_EMT_PURGED_ROLES: Final = ("primary", "confirmatory", "progenitor")
_DIRECTIONS: Final = ("up", "down")


@dataclass(frozen=True)
class GeneSet:
    """A set of genes with a direction.

    Parameters
    ----------
    name
        Unique name; becomes a column of the score table.
    up, down
        Symbols of the genes that raise and lower the score. No gene may be in both.
    role
        One of :data:`ROLES`, ``"user"`` or ``"marker"``.
    family
        Free grouping; the families ``proliferation`` and ``emt`` define what :func:`derive_variants` removes.
    citation, pmid
        Where the set was published. ``pmid`` is empty when it was not verified.
    weights
        One positive weight a gene, in the order ``(*up, *down)``; ``None`` means equal weights.
    """

    name: str
    up: tuple[str, ...]
    down: tuple[str, ...] = ()
    role: str = USER_ROLE
    family: str = ""
    citation: str = ""
    pmid: str = ""
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        genes = (*self.up, *self.down)
        if len(set(genes)) != len(genes):
            twice = sorted(gene for gene, n in Counter(genes).items() if n > 1)
            raise ValueError(f"gene set {self.name!r} names these genes more than once: {', '.join(twice[:5])}")
        if self.weights is not None and len(self.weights) != len(genes):
            raise ValueError(f"gene set {self.name!r} has {len(genes)} genes and {len(self.weights)} weights")

    @property
    def genes(self) -> tuple[str, ...]:
        """All genes, up before down."""
        return (*self.up, *self.down)

    def without(self, removed: Iterable[str], *, name: str | None = None, role: str | None = None) -> GeneSet:
        """Return the set without the genes of ``removed``, under a new name and role if given."""
        removed = frozenset(removed)
        weights = self.weights
        if weights is not None:
            weights = tuple(w for gene, w in zip(self.genes, weights, strict=True) if gene not in removed)
        return replace(
            self,
            name=self.name if name is None else name,
            role=self.role if role is None else role,
            up=tuple(gene for gene in self.up if gene not in removed),
            down=tuple(gene for gene in self.down if gene not in removed),
            weights=weights,
        )


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def _read_rows(path: Path, required: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
    """Read a tab-separated table as text: symbols such as ``NAN`` or ``NA`` must not become missing values."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read",
            [Problem(str(path), str(error), "a UTF-8, tab-separated table", "check the path and the encoding")],
        ) from error
    reader = csv.DictReader(text.splitlines(), delimiter="\t", restval="", quoting=csv.QUOTE_NONE)
    header = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = header
    missing = [name for name in required if name not in header]
    if missing:
        raise InputError(
            f"{path} lacks columns",
            [
                Problem(str(path), f"columns {', '.join(header) or 'none'}", f"column {name}", "add it", key=name)
                for name in missing
            ],
        )
    rows = [{key: (value or "").strip() for key, value in row.items() if isinstance(key, str)} for row in reader]
    return rows, header


def _weight(text: str) -> float:
    return 1.0 if text == "" else float(text)


@dataclass
class _Draft:
    """A set while its rows are being read."""

    genes: dict[str, tuple[str, float]] = field(default_factory=dict)
    first_row: int = 0
    facts: dict[str, str] = field(default_factory=dict)

    def build(self, name: str) -> GeneSet:
        up = tuple(gene for gene, (direction, _) in self.genes.items() if direction == "up")
        down = tuple(gene for gene, (direction, _) in self.genes.items() if direction == "down")
        weights = tuple(self.genes[gene][1] for gene in (*up, *down))
        return GeneSet(
            name=name,
            up=up,
            down=down,
            role=self.facts.get("role", "") or "sensitivity",
            family=self.facts.get("family", ""),
            citation=self.facts.get("citation", ""),
            pmid=self.facts.get("pmid", ""),
            weights=None if all(w == 1.0 for w in weights) else weights,
        )


def _gene_problems(path: Path, number: int, row: Mapping[str, str], draft: _Draft) -> list[Problem]:
    """Check one row of a long signature table; what is sound goes into ``draft``."""
    gene, direction, weight = row["gene"], row.get("direction", "") or "up", row.get("weight", "")
    problems: list[Problem] = []
    if not gene:
        problems.append(Problem(str(path), "an empty gene", "a gene symbol", "fill it in", number, "gene"))
    if direction not in _DIRECTIONS:
        allowed = " or ".join(_DIRECTIONS)
        problems.append(Problem(str(path), repr(direction), allowed, "correct it", number, "direction"))
    try:
        value = _weight(weight)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        problems.append(Problem(str(path), repr(weight), "a positive number", "correct it", number, "weight"))
    if gene in draft.genes:
        fix = "remove one of the two rows"
        problems.append(Problem(str(path), f"{gene} a second time", "each gene once a set", fix, number, "gene"))
    if not problems:
        draft.genes[gene] = (direction, value)
    for key in ("role", "family", "citation", "pmid"):
        if row.get(key, "") and not draft.facts.get(key):
            draft.facts[key] = row[key]
    return problems


def load_panel(path: str | Path | None = None, *, variants: bool = True) -> list[GeneSet]:
    """Read a signature panel.

    Parameters
    ----------
    path
        A long table with the columns ``signature`` and ``gene``, and optionally ``direction`` (``up``, ``down``),
        ``weight`` (positive), ``role``, ``family``, ``citation``, ``pmid`` (the last four are taken from a set's first
        row that has them). A file ``signature_panel.tsv`` beside a table named ``signatures.tsv`` supplies those facts
        when the long table has none. ``None`` reads the shipped panel.
    variants
        Add the variants of :func:`derive_variants`.

    Returns
    -------
    The sets in the table's order, variants directly after their base.

    Raises
    ------
    InputError
        With every wrong row: unknown role or direction, empty or repeated gene, weight that is not positive,
        a signature of the panel without genes, more than one ``primary`` set.
    """
    table = resources.path("signatures.tsv") if path is None else Path(path)
    rows, header = _read_rows(table, ("signature", "gene"))
    drafts: dict[str, _Draft] = {}
    problems: list[Problem] = []
    for number, row in enumerate(rows, start=2):
        if not any(row.values()):
            continue
        name = row["signature"]
        if not name:
            problems.append(Problem(str(table), "an empty name", "a signature name", "fill it in", number, "signature"))
            continue
        draft = drafts.setdefault(name, _Draft(first_row=number))
        problems += _gene_problems(table, number, row, draft)
    beside = resources.panel_facts(table)
    if "role" not in header and beside is not None:
        problems += _add_facts(beside, drafts)
    if not drafts and not problems:
        problems.append(Problem(str(table), "no row", "at least one signature", "add a signature"))
    for name, draft in drafts.items():
        role = draft.facts.get("role", "")
        if role and role not in ROLES:
            fix = "use a role of the list"
            problems.append(Problem(str(table), repr(role), ", ".join(ROLES), fix, draft.first_row, f"{name}, role"))
    primary = [name for name, draft in drafts.items() if draft.facts.get("role") == "primary"]
    if len(primary) > 1:
        found = ", ".join(primary)
        problems.append(Problem(str(table), f"primary sets {found}", "one primary set", "keep one", key="role"))
    if problems:
        raise InputError(f"{table} is not a usable signature table", problems)
    sets = [draft.build(name) for name, draft in drafts.items()]
    return derive_variants(sets) if variants else sets


def _add_facts(path: Path, drafts: dict[str, _Draft]) -> list[Problem]:
    """Give each draft role, family and citation of its panel row."""
    rows, _ = _read_rows(path, ("signature", "role"))
    problems: list[Problem] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        name = row["signature"]
        if name in seen:
            problems.append(Problem(str(path), f"{name} twice", "one row a set", "remove one", number, "signature"))
        seen.add(name)
        if name not in drafts:
            fix = "add its genes to signatures.tsv or remove the row"
            problems.append(
                Problem(str(path), f"{name} without genes", "sets that have genes", fix, number, "signature")
            )
            continue
        drafts[name].facts.update({key: row.get(key, "") for key in ("role", "family", "citation", "pmid")})
    for name in sorted(set(drafts) - seen):
        fix = "add a row with its role"
        problems.append(Problem(str(path), f"no row for {name}", "a row for every signature", fix, key=name))
    return problems


def load_gmt(path: str | Path) -> list[GeneSet]:
    """Read gene sets from a GMT file (name, description, genes; tab-separated).

    Byte order mark, CRLF line ends, blank lines, trailing tabs and a gene repeated within a line are tolerated.
    ``X_UP`` and ``X_DN`` stay separate sets, as the format has no direction.

    Raises
    ------
    InputError
        With every wrong line: no name, no gene, a set name that occurs twice, space-separated instead of tabs.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fix = "check the path and the encoding"
        raise InputError(f"{path} cannot be read", [Problem(str(path), str(error), "a UTF-8 GMT file", fix)]) from error
    sets: dict[str, GeneSet] = {}
    first: dict[str, int] = {}
    problems: list[Problem] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, description, *rest = [cell.strip() for cell in line.split("\t")] + [""]
        genes = tuple(dict.fromkeys(gene for gene in rest if gene))
        if not name:
            problems.append(Problem(str(path), "no set name", "name, description, genes", "name the set", number))
        elif not genes:
            fix = "separate name, description and genes with tabs"
            problems.append(Problem(str(path), f"{name[:60]!r} without a gene", "at least one gene", fix, number))
        elif name in sets:
            found = f"{name} again (first in line {first[name]})"
            problems.append(Problem(str(path), found, "each set name once", "rename or remove one", number))
        else:
            sets[name] = GeneSet(name=name, up=genes, family=path.stem, citation=description)
            first[name] = number
    if not sets and not problems:
        problems.append(Problem(str(path), "no set", "at least one line with a set", "check the file"))
    if problems:
        raise InputError(f"{path} is not a usable GMT file (row = line number)", problems)
    return list(sets.values())


def load_markers(path: str | Path | None = None) -> dict[str, GeneSet]:
    """Read marker panels (``cell_type``, ``gene``, optionally ``citation``).

    Returns
    -------
    One :class:`GeneSet` a cell type, keyed and named by it, in the table's order.

    Raises
    ------
    InputError
        With every wrong row: a cell type outside :data:`dtcflow.contracts.CELL_TYPES`, an empty or repeated gene.
    """
    table = resources.path("markers.tsv") if path is None else Path(path)
    rows, _ = _read_rows(table, ("cell_type", "gene"))
    allowed = [cell_type for cell_type in CELL_TYPES if cell_type != UNKNOWN]
    panels: dict[str, dict[str, str]] = {}
    problems: list[Problem] = []
    for number, row in enumerate(rows, start=2):
        if not any(row.values()):
            continue
        cell_type, gene = row["cell_type"], row["gene"]
        if cell_type not in allowed:
            fix = "use a cell type of the list"
            problems.append(Problem(str(table), repr(cell_type), ", ".join(allowed), fix, number, "cell_type"))
            continue
        panel = panels.setdefault(cell_type, {})
        if not gene or gene in panel:
            found = f"{gene} a second time" if gene else "an empty gene"
            problems.append(Problem(str(table), found, "each gene once a cell type", "correct it", number, "gene"))
            continue
        panel[gene] = row.get("citation", "")
    if not panels and not problems:
        problems.append(Problem(str(table), "no row", "at least one panel", "add markers"))
    if problems:
        raise InputError(f"{table} is not a usable marker table", problems)
    return {
        cell_type: GeneSet(
            name=cell_type,
            up=tuple(panel),
            role=MARKER_ROLE,
            family="cell_type",
            citation="; ".join(sorted({citation for citation in panel.values() if citation})),
        )
        for cell_type, panel in panels.items()
    }


# ---------------------------------------------------------------------------------------------------------------------
# Deriving, comparing, renaming
# ---------------------------------------------------------------------------------------------------------------------


def _union(sets: Iterable[GeneSet], family: str) -> frozenset[str]:
    chosen = (one for one in sets if one.family == family and one.role in ("covariate", "mask"))
    return frozenset(gene for one in chosen for gene in one.genes)


def derive_variants(sets: Sequence[GeneSet], *, markers: Mapping[str, GeneSet] | None = None) -> list[GeneSet]:
    """Add the variants that the analysis plan asks for, by rule.

    ``<set>_NOPROLIF`` is the set without the union of the ``covariate`` and ``mask`` sets of family ``proliferation``;
    ``<set>_NOPROLIF_NOEMT`` is that without the sets of family ``emt``. The purged variant of the ``primary`` set takes
    its role, the published set and the no-EMT variant become ``sensitivity``, so that exactly one set is primary. Other
    variants keep the role of their base, except that no-EMT variants are always ``sensitivity``. A ``positive_control``
    is replaced by ``<set>_NOMARKER``, without the marker-panel genes that named the cells, because a control that
    shares genes with the labels cannot fail. A set that already carries a suffix is left alone.

    Parameters
    ----------
    sets
        The panel.
    markers
        Marker panels; ``None`` reads the shipped ones when a positive control needs them.
    """
    proliferation, emt = _union(sets, "proliferation"), _union(sets, "emt")
    taken = {one.name for one in sets}
    out: list[GeneSet] = []

    def add(variant: GeneSet) -> None:
        if variant.name not in taken and variant.genes:
            out.append(variant)

    for one in sets:
        derived = one.name.endswith((NOPROLIF, NOPROLIF_NOEMT, NOMARKER))
        purged = one.role in _PURGED_ROLES and bool(proliferation) and not derived
        if one.role == "positive_control" and not derived:
            panels = load_markers() if markers is None else markers
            marker_genes = frozenset(gene for panel in panels.values() for gene in panel.genes)
            add(one.without(marker_genes, name=one.name + NOMARKER))
            continue
        out.append(replace(one, role="sensitivity") if one.role == "primary" and purged else one)
        if purged:
            add(one.without(proliferation, name=one.name + NOPROLIF))
            if emt and one.role in _EMT_PURGED_ROLES:
                add(one.without(proliferation | emt, name=one.name + NOPROLIF_NOEMT, role="sensitivity"))
    return out


def overlap_matrix(sets: Sequence[GeneSet]) -> pd.DataFrame:
    """Count the genes that each pair of sets shares, up and down genes alike.

    Returns
    -------
    Sets x sets, integer; the diagonal holds the set sizes.
    """
    names = [one.name for one in sets]
    members = [frozenset(one.genes) for one in sets]
    counts = np.array([[len(a & b) for b in members] for a in members], dtype=np.int64).reshape(len(sets), len(sets))
    return pd.DataFrame(counts, index=names, columns=names)


@dataclass(frozen=True)
class Resolution:
    """Which symbol of the data stands for each gene asked for; genes without one are absent."""

    symbols: dict[str, str]
    n_renamed: int


@dataclass(frozen=True)
class Synonyms:
    """Symbol tables for :func:`resolve`, built once from the alias table."""

    current: dict[str, dict[str, tuple[str, ...]]]
    older: dict[str, dict[str, tuple[str, ...]]]

    @classmethod
    def from_table(cls, aliases: pd.DataFrame | None) -> Synonyms:
        """Index an alias table (``alias``, ``symbol``, ``kind`` = ``previous`` or ``alias``)."""
        current: dict[str, dict[str, tuple[str, ...]]] = {}
        older: dict[str, dict[str, tuple[str, ...]]] = {}
        if aliases is not None:
            rows = aliases[["kind", "alias", "symbol"]].astype(str).drop_duplicates().sort_values(["alias", "symbol"])
            for kind, alias, symbol in rows.itertuples(index=False):
                for index, key, entry in ((current, alias, symbol), (older, symbol, alias)):
                    names = index.setdefault(kind, {})
                    names[key] = (*names.get(key, ()), entry)
        return cls(current, older)


def resolve(genes: Iterable[str], present: Iterable[str], synonyms: Synonyms | pd.DataFrame | None) -> Resolution:
    """Map symbols to those of the data.

    A symbol that the data have stands for itself. Otherwise its current symbol is tried (first where it is a previous
    symbol, then where it is an alias), then the previous symbols and aliases of its own. Only an unambiguous match
    counts, and no symbol of the data serves two genes.

    Parameters
    ----------
    genes
        Symbols asked for.
    present
        Symbols of the data.
    synonyms
        Alias table (``alias``, ``symbol``, ``kind``) or its index; ``None`` allows exact matches only.

    Returns
    -------
    The mapping and how many symbols were renamed.
    """
    table = synonyms if isinstance(synonyms, Synonyms) else Synonyms.from_table(synonyms)
    have = present if isinstance(present, set | frozenset) else frozenset(present)
    asked = list(dict.fromkeys(genes))
    symbols = {gene: gene for gene in asked if gene in have}
    used = set(symbols.values())
    renamed = 0
    for gene in asked:
        if gene in symbols:
            continue
        for lookup in (table.current, table.older):
            matches = [
                [symbol for symbol in lookup.get(kind, {}).get(gene, ()) if symbol in have]
                for kind in ("previous", "alias")
            ]
            match = next((found for found in matches if found), [])
            if len(match) == 1 and match[0] not in used:
                symbols[gene] = match[0]
                used.add(match[0])
                renamed += 1
                break
    return Resolution({gene: symbols[gene] for gene in asked if gene in symbols}, renamed)
