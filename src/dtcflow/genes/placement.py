"""Place the genes of a count matrix on the genome, under their current symbols."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from anndata.utils import make_index_unique

from dtcflow import resources
from dtcflow.contracts import InputError, Problem
from dtcflow.genes.positions import MIN_SHARED, ensembl_id, share_shifted
from dtcflow.sparse import cells_per_gene

logger = logging.getLogger(__name__)

PLACED_COLUMNS: Final = (
    *("symbol", "gene_id", "chromosome", "start", "end", "arm", "original_name", "renamed", "placement"),
)
"""Columns that :func:`place_genes` writes."""

EXPRESSED_RULE: Final = "detected in at least 3 cells, or in at least 1 % of the cells of a small sample"

_ID_COLUMNS: Final = ("gene_ids", "gene_id", "ensembl_id", "ensembl_gene_id")
_NAME_COLUMNS: Final = ("symbol", "gene_symbol", "gene_symbols", "gene_name", "feature_name", "hgnc_symbol")
_OPEN_READING_FRAME: Final = re.compile(r"^C(\d+|X|Y)ORF(\d+)")


def load_aliases() -> pd.DataFrame:
    """Return the shipped table of superseded gene names.

    Returns
    -------
    ``alias symbol kind``; every alias once, ``kind`` is ``previous`` (a former approved symbol) or ``alias``. A name
    that more than one gene has had, or that is a current symbol itself, is not in the table. Sources: HGNC and
    Ensembl, see ``PROVENANCE.md`` beside the table.
    """
    path = resources.path("gene_aliases.tsv.gz")
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).astype(object)


def _text(values: Any) -> list[str]:
    return ["" if value is None or value is pd.NA or value != value else str(value).strip() for value in values]


def _names_and_ids(var: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the name that each gene came with, and its Ensembl id (``""`` when it has none)."""
    index = _text(var.index)
    ids = [ensembl_id(name) for name in index]
    for column in _ID_COLUMNS:
        if column in var.columns:
            ids = [ensembl_id(value) or known for value, known in zip(_text(var[column]), ids, strict=True)]
            break
    names = index
    for column in _NAME_COLUMNS:
        if column in var.columns:
            names = [value or name for value, name in zip(_text(var[column]), index, strict=True)]
            break
    return names, ids


def _canonical(name: str) -> str:
    """Write open-reading-frame symbols as the HGNC does, whatever case the matrix uses (``C1ORF63``)."""
    return _OPEN_READING_FRAME.sub(r"C\1orf\2", name)


def _as_in(known: Mapping[str, int], name: str) -> str:
    """Spell ``name`` as the table does: open reading frames, and hyphens that R turned into full stops (``HLA.A``)."""
    name = _canonical(name)
    hyphenated = name.replace(".", "-")
    return hyphenated if name not in known and hyphenated in known else name


def _single(names: Sequence[str]) -> dict[str, int]:
    """Name -> row, for the names that occur once."""
    counts = Counter(names)
    return {name: row for row, name in enumerate(names) if name and counts[name] == 1}


def place_genes(var: pd.DataFrame, positions: pd.DataFrame, aliases: pd.DataFrame | None = None) -> pd.DataFrame:
    """Give every gene its current symbol and its place on the genome.

    A gene is looked up by Ensembl id (index, or column ``gene_ids``/``gene_id``; versions are ignored), then by
    symbol (index, or a column such as ``gene_name``), then by previous symbol, then by alias. A better kind of match
    comes first, so that an old name never takes the place of a gene that is there under its own. No two genes get one
    place: of two with the same id or symbol the first keeps it, and two old names of one gene are both left without.

    Parameters
    ----------
    var
        ``n_genes`` rows; the index holds the names of the genes.
    positions
        From :func:`~dtcflow.genes.load_positions`.
    aliases
        From :func:`load_aliases`; ``None``: no renaming of superseded names.

    Returns
    -------
    ``n_genes`` rows in the order of ``var``, index = current symbol, made unique; columns ``symbol gene_id
    chromosome start end arm original_name renamed placement`` and then the other columns of ``var``. A gene without
    a place has ``""`` for chromosome and arm, -1 for start and end, and keeps its name. ``renamed`` is true
    when a symbol (not an Ensembl id) was superseded. ``placement`` tells how the place was found (``gene_id | symbol
    | previous | alias``) or why there is none (``not_found | taken | ambiguous``). Text is ``object``, coordinates
    are ``int64``.
    """
    names, ids = _names_and_ids(var)
    row_of_id = _single(list(positions["gene_id"]))
    row_of_symbol = _single([_canonical(str(symbol)) for symbol in positions["symbol"]])
    looked_up = [_as_in(row_of_symbol, name) for name in names]
    tiers: list[tuple[str, list[int]]] = [
        ("gene_id", [row_of_id.get(gene_id, -1) for gene_id in ids]),
        ("symbol", [row_of_symbol.get(name, -1) for name in looked_up]),
    ]
    if aliases is not None:
        for kind in ("previous", "alias"):
            known = aliases[aliases["kind"] == kind]
            target = dict(zip(known["alias"], known["symbol"], strict=True))
            tiers.append((kind, [row_of_symbol.get(target.get(name, ""), -1) for name in looked_up]))

    row, placement = _claim(tiers, len(names))
    symbols, gene_ids = list(names), list(ids)
    known_symbols, known_ids = list(positions["symbol"]), list(positions["gene_id"])
    for gene, place in enumerate(row):
        if place >= 0:
            gene_ids[gene] = known_ids[place] or gene_ids[gene]
            # a table without a symbol for this gene must not rename it to an Ensembl id
            if not ensembl_id(known_symbols[place]) or not names[gene]:
                symbols[gene] = known_symbols[place]
    renamed = [old != new and not ensembl_id(old) for old, new in zip(names, symbols, strict=True)]
    found = np.asarray(row, dtype=np.int64)
    has_place = found >= 0
    columns: dict[str, Any] = {"symbol": symbols, "gene_id": gene_ids}
    for column in ("chromosome", "start", "end", "arm"):
        values = positions[column].to_numpy()
        is_number = column in ("start", "end")
        out = np.full(len(names), -1 if is_number else "", dtype=np.int64 if is_number else object)
        out[has_place] = values[found[has_place]]
        columns[column] = out
    columns |= {"original_name": names, "renamed": np.asarray(renamed, dtype=np.bool_), "placement": placement}
    index = make_index_unique(pd.Index(symbols, dtype=object)).astype(object)
    typed = {
        name: pd.Series(
            values, index=index, dtype=values.dtype if isinstance(values, np.ndarray) else object, name=name
        )
        for name, values in ((column, columns[column]) for column in PLACED_COLUMNS)
    }
    placed = pd.DataFrame(typed, index=index, columns=list(PLACED_COLUMNS))
    for other in var.columns:
        if other not in PLACED_COLUMNS:
            placed[other] = pd.Series(var[other].array, index=index, dtype=var[other].dtype)
    return placed


def _claim(tiers: Sequence[tuple[str, Sequence[int]]], n_genes: int) -> tuple[list[int], list[str]]:
    """Hand out places, best kind of match first; return a gene's row (-1: none) and how it came to it."""
    row, placement, taken = [-1] * n_genes, ["not_found"] * n_genes, set[int]()
    for kind, wanted in tiers:
        free = [gene for gene in range(n_genes) if row[gene] < 0 and wanted[gene] >= 0]
        claims = Counter(wanted[gene] for gene in free)
        claimed = set[int]()
        for gene in free:
            place = wanted[gene]
            if place in taken or place in claimed:
                placement[gene] = "taken"
            elif kind in ("previous", "alias") and claims[place] > 1:
                placement[gene] = "ambiguous"
            else:
                row[gene], placement[gene] = place, kind
                claimed.add(place)
        taken |= claimed
    return row, placement


# ---------------------------------------------------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------------------------------------------------


def placement_report(placed: pd.DataFrame, counts: Any, *, build: str = "GRCh38") -> dict[str, Any]:
    """Count how many of the expressed genes have a place.

    Parameters
    ----------
    placed
        From :func:`place_genes`, ``n_genes`` rows.
    counts
        Cells x genes, sparse or dense.
    build
        The build the positions are said to be of.

    Returns
    -------
    ``n_genes n_expressed n_expressed_placed fraction_placed n_renamed placements expressed_rule unplaced_examples
    share_shifted n_compared build looks_like_other_build``. A gene is expressed when it is detected in at least
    3 cells, or in at least 1 % of the cells of a small sample (1 cell up to 100, 2 up to 200, then 3).
    ``fraction_placed`` is ``None`` without an expressed gene. ``looks_like_other_build``: more than half of at least
    50 placed genes start over 50 kb from where GRCh38 has them, although ``build`` is GRCh38, or less than half
    do, although it is not. ``unplaced_examples`` are the ten expressed genes without a place that most cells have.
    """
    cells = cells_per_gene(counts)
    if len(cells) != len(placed):
        raise ValueError(f"{len(cells)} genes in the counts, {len(placed)} in the placement")
    n_cells = counts.shape[0]
    expressed = cells >= max(1, min(3, -(-n_cells // 100)))
    has_place = (placed["chromosome"] != "").to_numpy(dtype=bool)
    share, n_compared = share_shifted(placed)
    looks_other = bool(n_compared >= MIN_SHARED and (share > 0.5) != (build != "GRCh38"))
    missing = np.flatnonzero(expressed & ~has_place)
    missing = missing[np.argsort(-cells[missing], kind="stable")][:10]
    n_expressed, n_placed = int(expressed.sum()), int((expressed & has_place).sum())
    return {
        "n_genes": len(placed),
        "n_expressed": n_expressed,
        "n_expressed_placed": n_placed,
        "fraction_placed": n_placed / n_expressed if n_expressed else None,
        "n_renamed": int(placed["renamed"].sum()),
        "placements": {str(kind): int(n) for kind, n in sorted(Counter(placed["placement"]).items())},
        "expressed_rule": EXPRESSED_RULE,
        "unplaced_examples": [str(name) for name in placed["original_name"].to_numpy()[missing]],
        "share_shifted": share,
        "n_compared": n_compared,
        "build": build,
        "looks_like_other_build": looks_other,
    }


def check_placement(report: Mapping[str, Any], *, minimum: float = 0.5, where: str = "counts") -> None:
    """Refuse a matrix whose genes cannot be placed, or positions of another build than was said.

    Parameters
    ----------
    report
        From :func:`placement_report`.
    minimum
        Smallest share of the expressed genes that must have a place.
    where
        The file, for the message.

    Raises
    ------
    InputError
        Below ``minimum``, without any expressed gene, or when the positions look like another build.
    """
    problems = []
    fraction = report["fraction_placed"]
    if fraction is None:
        problems.append(
            Problem(where, "no expressed gene", "genes with counts", "check that this is the count matrix", key="genes")
        )
    elif fraction < minimum:
        examples = ", ".join(report["unplaced_examples"][:5])
        problems.append(
            Problem(
                where,
                f"{report['n_expressed_placed']} of {report['n_expressed']} expressed genes have a position "
                f"({fraction:.1%}); without one: {examples}",
                f"at least {minimum:.0%}",
                "use human gene symbols or Ensembl ids, or give intake.gene_positions of your annotation; "
                "lower intake.min_placed_fraction only for a targeted panel",
                key="genes",
            )
        )
    if report["looks_like_other_build"]:
        said = report["build"]
        problems.append(
            Problem(
                where,
                f"{report['share_shifted']:.0%} of {report['n_compared']} genes start more than 50 kb from their place "
                f"in GRCh38, while the positions are said to be of {said}",
                f"positions of {said}",
                "set intake.genome_build to the build of intake.gene_positions",
                key="gene_positions",
            )
        )
    if problems:
        raise InputError("the genes of a matrix cannot be placed on the genome", problems)
