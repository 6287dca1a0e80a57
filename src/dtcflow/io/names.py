"""What the names of a matrix tell before its counts are looked at: species, mangled names, a choice of genes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

import pandas as pd

from dtcflow.contracts import InputError, Problem
from dtcflow.genes import gene_mask, load_aliases, load_positions

HOUSEKEEPING: Final = (
    *("C1orf43", "CHMP2A", "EMC7", "GPI", "PSMB2", "PSMB4", "RAB7A", "REEP5", "SNRPD3", "VCP", "VPS29"),
)
"""Genes that every tissue expresses at much the same level (Eisenberg & Levanon 2013, PMID 23810203). No choice of
variable genes keeps them, and no filter of silent genes removes them."""
CHOSEN_HOUSEKEEPING: Final = 5
"""At most so many of the eleven are left when genes were chosen. Set on the ovarian set (none among the 500 to 3,000
most variable genes of three methods, 11 after any filter of silent genes); four other real sets: 0 to 4, and 9 to 11
as long as 1,900 genes were left."""
FEW_GENES: Final = 5000
PANEL_GENES: Final = 1000
KNOWN_GENES: Final = 0.1
"""Matrices whose names are less known than this are of another species, or hold something else than genes. Real sets
have 67 to 100 %."""
MIXED_GENES: Final = 20
MIXED_SHARE: Final = 0.02
"""From so many genes, and this share of all, of each species on, a matrix is a mixture. Transgenes and spike-ins
of another species stay below."""

OTHER_BUILD: Final = "superseded symbols are mapped to current ones, and genes are placed by their positions on GRCh38"
"""What happens to counts that were made with an annotation of GRCh37."""

_MOUSE_SYMBOL: Final = re.compile(r"^(?:[A-Z][a-z]+[0-9a-z.-]*|mt-[A-Z]\w+)$")
_HUMAN_LOWER: Final = re.compile(r"^C(?:\d+|X|Y)orf\d+")
_PREFIX: Final = re.compile(r"^(GRCh3[78]|hg19|hg38|human|GRCm3[89]|mm9|mm10|mm39|mouse)[-_.]+(?=\w)", re.IGNORECASE)
_FOREIGN_ID: Final = re.compile(r"^ENS([A-Z]{3,4})G\d{6,}")
_TRANSCRIPT: Final = re.compile(r"^(?:ENST\d{6,}|[NX][MR]_\d{5,})")
_SPECIES: Final[Mapping[str, str]] = {"MUS": "mouse", "RNO": "rat", "DAR": "zebrafish", "SSC": "pig", "MMU": "macaque"}

_MONTHS: Final[Mapping[str, int]] = {
    name: number
    for number, names in (
        (2, "feb fev"),
        (3, "mar mrz mär maa"),
        (4, "apr abr avr"),
        (9, "sep sept set"),
        (10, "oct okt out"),
        (11, "nov"),
        (12, "dec dez dic déc"),
    )
    for name in names.split()
}
_DAY_FIRST: Final = re.compile(r"^X?(\d{1,2})[-./ ]+([^\W\d_]{3,4})$")
_MONTH_FIRST: Final = re.compile(r"^([^\W\d_]{3,4})[-./ ]+(\d{1,2})$")
_ISO: Final = re.compile(r"^X?(\d{4})[-./](\d{1,2})[-./](\d{1,2})(?:[ T.]00[:.]00[:.]00)?$")
_NUMERIC: Final = re.compile(r"^X?\d{1,2}/\d{1,2}/(?:\d{2}|\d{4})$")
_EXPONENT: Final = re.compile(r"^X?\d(?:[.,]\d+)?E[+.]?\d{2,3}$", re.IGNORECASE)
_STEMS: Final[Mapping[int, tuple[str, ...]]] = {3: ("MARCH", "MARC"), 9: ("SEPT", "SEP"), 12: ("DEC",)}
"""Month -> what the approved symbols of the time started with. SEP15 is the only one of its kind: SEP1 and SEP3 never
were approved, so that they are looked up only where there is no SEPT."""


@cache
def known_names() -> frozenset[str]:
    """Names by which a human gene is recognised: current symbols, superseded ones, and Ensembl ids without version."""
    positions = load_positions()
    return frozenset(positions["symbol"]) | frozenset(positions["gene_id"]) | frozenset(load_aliases()["alias"])


def _bare(name: str) -> str:
    """Name without the prefix of a genome and the version of an Ensembl id."""
    name = _PREFIX.sub("", name)
    return name.split(".", 1)[0] if name.startswith("ENSG") else name


def share_known(names: Sequence[str], *, more: Collection[str] = ()) -> float:
    """Return the share of names that are of a human gene; ``more`` holds the names of the user's own positions."""
    return _share(tuple(names), frozenset(more))


@lru_cache(maxsize=64)
def _share(names: tuple[str, ...], more: frozenset[str]) -> float:
    # samples of one cohort have the same genes as a rule: one list is looked through once
    known = known_names()
    rest = [bare for name in names if name not in known for bare in (_bare(name),)]
    hits = len(names) - len(rest)
    hits += sum(bare in known or bare in more or bare.replace(".", "-") in known for bare in rest)
    return hits / len(names) if names else 0.0


@cache
def _symbol_of() -> dict[str, str]:
    positions, aliases = load_positions(), load_aliases()
    return dict(zip(aliases["alias"], aliases["symbol"], strict=True)) | dict(
        zip(positions["gene_id"], positions["symbol"], strict=True)
    )


def current_symbols(names: Sequence[str]) -> list[str]:
    """Return the current symbol of every name (Ensembl id, superseded symbol); an unknown name stays as it is."""
    symbol_of = _symbol_of()
    return [symbol_of.get(bare, bare) for bare in map(_bare, names)]


# ---------------------------------------------------------------------------------------------------------------------
# Species
# ---------------------------------------------------------------------------------------------------------------------


def _of_prefix(name: str) -> str:
    """Species that the prefix of a genome names, or ""."""
    match = _PREFIX.match(name)
    return "" if match is None else "human" if match.group(1).lower().startswith(("h", "grch")) else "mouse"


def _species_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Names by species; a name that could be of any is left out."""
    known = known_names()
    found: dict[str, list[str]] = {}
    for name in names:
        if name in known or (name.startswith("ENSG") and _bare(name) in known):
            species = "human"
        elif prefix := _of_prefix(name):
            species = prefix
        elif foreign := _FOREIGN_ID.match(name):
            species = _SPECIES.get(foreign.group(1), f"another species (ENS{foreign.group(1)}G)")
        elif _MOUSE_SYMBOL.match(name) and not _HUMAN_LOWER.match(name):
            species = "mouse"
        else:
            continue
        found.setdefault(species, []).append(name)
    return found


def check_species(names: Sequence[str], *, where: str) -> None:
    """Refuse the genes of a mouse (``Actb``, ``mt-Nd1``, ``ENSMUSG...``) or another animal, and mixtures with them.

    A mixture has both human genes and those of another species, told by the prefix of a genome (``GRCh38_``,
    ``mm10___``), Ensembl ids or the way symbols are written: at least :data:`MIXED_GENES` of each and
    :data:`MIXED_SHARE` of all.

    Raises
    ------
    InputError
        When most names are written as mouse genes are, a third are Ensembl ids of another species, or for a mixture;
        the numbers of genes of each are named.
    """
    species = _species_of(names)
    human = species.pop("human", [])
    if not species:
        return
    other = max(species, key=lambda name: len(species[name]))
    found = species[other]
    # a symbol such as Actb counts for a mixture only when it has a human counterpart: human lists hold Y_RNA, too
    known = known_names()
    sure = [name for name in found if _FOREIGN_ID.match(name) or _of_prefix(name) or _bare(name).upper() in known]
    shown = ", ".join(found[:3])
    few = min(len(human), len(sure))
    if few >= MIXED_GENES and few >= MIXED_SHARE * len(names):
        raise InputError(
            f"{where}: genes of human and {other}",
            [
                Problem(
                    where,
                    f"{len(human):,} human genes and {len(sure):,} {other} genes (for example {shown}): a xenograft or "
                    "another mixture",
                    "human genes only",
                    "keep the human cells (those with most counts on human genes) and the human genes, and save them "
                    "alone",
                    key="genes",
                )
            ],
        )
    ids = sum(bool(_FOREIGN_ID.match(name)) for name in found)
    if 3 * ids >= len(names) or 2 * len(found) > len(names):
        raise InputError(
            f"{where}: {other} genes",
            [
                Problem(
                    where,
                    f"{len(found):,} of {len(names):,} genes are named as in {_article(other)}, for example {shown}",
                    "human genes (ACTB, GAPDH, ENSG...)",
                    "give human data; of a xenograft, only the human cells and genes",
                    key="genes",
                )
            ],
        )


def _article(species: str) -> str:
    return species if species.startswith("another") else f"the {species}"


def check_known(names: Sequence[str], *, where: str, minimum: float = KNOWN_GENES, more: Collection[str] = ()) -> None:
    """Refuse names of which hardly any is a human gene's: transcripts, numbers, probes.

    Raises
    ------
    InputError
        When a smaller share than ``minimum`` is known.
    """
    share = share_known(names, more=more)
    if not names or share >= minimum:
        return
    transcripts = sum(bool(_TRANSCRIPT.match(name)) for name in names)
    fix = "write gene names as human symbols or Ensembl ids, or give intake.gene_positions of your annotation"
    if 2 * transcripts > len(names):
        fix = "these are transcripts: sum them up to genes (tximport, or the gene table of the same tool)"
    raise InputError(
        f"{where}: hardly any gene is recognised",
        [
            Problem(
                where,
                f"{share:.1%} of {len(names):,} gene names are known; the first are {', '.join(names[:3])}",
                "human gene symbols or Ensembl ids",
                fix,
                key="genes",
            )
        ],
    )


def is_grch37(genome: str) -> bool:
    """Whether the name of a genome is one of GRCh37's."""
    return genome.strip().lower().startswith(("hg19", "grch37", "b37", "hs37"))


# ---------------------------------------------------------------------------------------------------------------------
# Names that a spreadsheet changed
# ---------------------------------------------------------------------------------------------------------------------


def is_number(name: str) -> bool:
    """Whether a name was turned into a number with an exponent (``1.00E+11``)."""
    return _EXPONENT.match(name) is not None


@dataclass(frozen=True)
class Mangled:
    """Gene names that a spreadsheet turned into dates or numbers."""

    recovered: Mapping[str, str]
    """Date -> current symbol, where only one gene can be meant."""
    ambiguous: Mapping[str, tuple[str, ...]]
    """Date -> the symbols that it can stand for, none or several."""
    numbers: tuple[str, ...]
    """Names such as ``1.00E+11``, which nothing brings back."""

    @property
    def total(self) -> int:
        """Number of different names that were changed."""
        return len(self.recovered) + len(self.ambiguous) + len(self.numbers)

    def warnings(self) -> list[str]:
        """Say what happened, in one sentence for each kind."""
        found = []
        if self.recovered:
            old, new = next(iter(sorted(self.recovered.items())))
            found.append(
                f"{_names(len(self.recovered))} turned into dates by a spreadsheet could be recovered, because only "
                f"one gene can be meant, for example {old} = {new}"
            )
        if self.ambiguous:
            old, candidates = next(iter(sorted(self.ambiguous.items(), key=lambda item: (not item[1], item[0]))))
            could = f" ({' or '.join(candidates)})" if candidates else ""
            found.append(
                f"{_names(len(self.ambiguous))} turned into dates by a spreadsheet stay as they are, because it is not "
                f"certain which gene is meant, for example {old}{could}; export the matrix again without a spreadsheet"
            )
        if self.numbers:
            found.append(
                f"{_names(len(self.numbers))} turned into numbers by a spreadsheet, for example {self.numbers[0]}; "
                "export the matrix again without a spreadsheet"
            )
        return found


def _names(number: int) -> str:
    return "1 gene name" if number == 1 else f"{number:,} gene names"


def _date(name: str) -> tuple[int, set[int]] | None:
    """Month, and the numbers that a name turned into this date can have ended in; None when it is no date."""
    if match := _DAY_FIRST.match(name):
        month, numbers = _MONTHS.get(match.group(2).lower(), 0), {int(match.group(1))}
    elif match := _MONTH_FIRST.match(name):
        month, numbers = _MONTHS.get(match.group(1).lower(), 0), {int(match.group(2))}
    elif match := _ISO.match(name):
        year, month, day = (int(part) for part in match.groups())
        # "SEPT2" becomes the second of this September, or the first of September 2002
        numbers = {day, year % 100} if day == 1 else {day}
    elif _NUMERIC.match(name):
        return 0, set()
    else:
        return None
    return (month, numbers) if month in range(1, 13) else None


def _meant(month: int, numbers: Iterable[int], target: Mapping[str, str]) -> set[str]:
    """Current symbols that a date can stand for."""
    found: set[str] = set()
    for number in numbers:
        for stem in _STEMS.get(month, ()):
            if stem == "SEP" and number != 15:
                continue
            if (symbol := target.get(f"{stem}{number}")) is not None:
                found.add(symbol)
    return found


def find_mangled(names: Sequence[str], aliases: pd.DataFrame) -> Mangled:
    """Find gene names that a spreadsheet turned into dates (``1-Mar``, ``Mar-01``, ``2001-03-01``) or numbers.

    A date is recovered only where it can stand for one gene alone: ``7-Mar`` was MARCH7 (MARCHF7), ``2-Sep`` SEPT2
    (SEPTIN2), ``15-Sep`` SEP15 (SELENOF), but ``1-Mar`` was MARCH1 or MARC1. It is not recovered either when the gene
    is there under a name of its own, or two dates would become one gene. A fifth of the papers with gene lists have
    such names (Ziemann et al. 2016, doi:10.1186/s13059-016-1044-7).

    Parameters
    ----------
    names
        Gene names as in the file.
    aliases
        From :func:`dtcflow.genes.load_aliases`.
    """
    known = known_names()
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    dates = {name: date for name in unknown if (date := _date(name)) is not None}
    numbers = tuple(name for name in unknown if is_number(name))
    if not dates:
        return Mangled({}, {}, numbers)
    target = dict(zip(aliases["alias"], aliases["symbol"], strict=True))
    meant = {name: sorted(_meant(month, ends, target)) for name, (month, ends) in dates.items()}
    occurs = Counter(names)
    there = {target.get(name, name) for name in names}
    claims = Counter(symbols[0] for symbols in meant.values() if len(symbols) == 1)
    recovered = {
        name: symbols[0]
        for name, symbols in meant.items()
        if len(symbols) == 1 and occurs[name] == 1 and claims[symbols[0]] == 1 and symbols[0] not in there
    }
    return Mangled(
        recovered, {name: tuple(symbols) for name, symbols in meant.items() if name not in recovered}, numbers
    )


# ---------------------------------------------------------------------------------------------------------------------
# A choice of genes
# ---------------------------------------------------------------------------------------------------------------------


def chosen_genes(symbols: Sequence[str]) -> str | None:
    """Say that genes were chosen (a panel, or the most variable ones), or None when all seem to be there.

    Told from the genes that all tissues express (:data:`HOUSEKEEPING`). 5,000 and more variable genes look like
    filtered ones with some methods.

    Parameters
    ----------
    symbols
        Current symbols of all genes of the matrix.
    """
    n_genes = len(symbols)
    there = len(set(HOUSEKEEPING) & set(symbols))
    advice = "give the matrix with all genes: ambient RNA, doublets, signatures and copy number need them"
    if there > CHOSEN_HOUSEKEEPING:
        return (
            f"only {n_genes:,} genes: genes were filtered; copy number may not be assessable"
            if n_genes < FEW_GENES
            else None
        )
    if n_genes < PANEL_GENES:
        return (
            f"only {n_genes:,} genes: a targeted panel, or already cut to variable genes; copy number may not be "
            f"assessable; unless it is a panel, {advice}"
        )
    mito, ribo = int(gene_mask(symbols, "mito").sum()), int(gene_mask(symbols, "ribo").sum())
    return (
        f"already cut to variable genes: of {n_genes:,} genes {there} are among the {len(HOUSEKEEPING)} that every "
        f"cell expresses, {mito} are mitochondrial and {ribo} ribosomal; {advice}"
    )
