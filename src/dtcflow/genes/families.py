"""Gene families that are recognised by their symbols, and short published gene classes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow import resources

_MITO_UNHYPHENATED: Final = (
    *("MTATP6", "MTATP8", "MTCO1", "MTCO2", "MTCO3", "MTCYB", "MTND1", "MTND2", "MTND3", "MTND4", "MTND4L"),
    *("MTND5", "MTND6", "MTRNR1", "MTRNR2"),
)
_HAEMOGLOBIN: Final = ("HBA1", "HBA2", "HBB", "HBD", "HBE1", "HBG1", "HBG2", "HBM", "HBQ1", "HBZ")
# Single-copy genes of the male-specific region of Y that are read in many tissues, and the two transcripts that
# silence an X: presence of one or the other tells the sex of a cell's donor.
_SEX: Final = (
    *("XIST", "TSIX"),
    *("DDX3Y", "EIF1AY", "KDM5D", "NLGN4Y", "PRKY", "RPS4Y1", "RPS4Y2", "SRY", "TBL1Y", "TMSB4Y", "TTTY14"),
    *("TXLNGY", "USP9Y", "UTY", "ZFY"),
)


def _one_of(symbols: Iterable[str]) -> re.Pattern[str]:
    return re.compile("(?:" + "|".join(map(re.escape, symbols)) + ")$")


# `[-.]`: R turns the hyphen of a symbol into a full stop.
FAMILIES: Final[dict[str, re.Pattern[str]]] = {
    "mito": re.compile(r"MT[-.]|(?:" + "|".join(_MITO_UNHYPHENATED) + ")$"),
    # cytosolic ribosomal proteins and their paralogues; not their kinases (RPS6KA1), readthroughs or pseudogenes
    "ribo": re.compile(r"(?:RPLP[0-2]|RPSA2?|RP[LS]\d+(?:A|X|Y[12])?(?:L\d*)?)$"),
    "haemoglobin": _one_of(_HAEMOGLOBIN),
    # segments and constant regions, orphons and pseudogenes of the loci included: reads fall on them alike.
    # IGLL5 is made of IGLJ1 and IGLC1.
    "immunoglobulin": re.compile(
        r"IG(?:[HKL][VJ](?:\d|\(?[IV]|OR)|HJ|HD(?:\d|$)|H(?:A[12]|G[1-4P]|M|E|EP\d?)$|KC$|LC(?:\d|OR|$)|LL5$)"
    ),
    "tcr": re.compile(r"TR(?:[ABGD]V(?:\d|[A-C](?:P|$)|OR)|[ABGD]J(?:\d|P)|[BD]D\d|[AD]C$|[BG]C\d)"),
    "hla": re.compile(r"HLA[-.][A-Z]+\d*(?:P\d*)?$"),
    "sex": _one_of(_SEX),
}
"""Family -> pattern that matches from the start of a current symbol."""


def gene_mask(symbols: Iterable[str], kind: str) -> npt.NDArray[np.bool_]:
    """Tell which genes belong to a family.

    Parameters
    ----------
    symbols
        ``n_genes`` current gene symbols (see :func:`~dtcflow.genes.place_genes`).
    kind
        ``mito`` (encoded by the mitochondrial genome), ``ribo`` (cytosolic ribosomal proteins), ``haemoglobin``,
        ``immunoglobulin`` and ``tcr`` (receptor segments and constant regions), ``hla``, or ``sex``
        (X-inactivation transcripts and genes of the male-specific region of Y).

    Returns
    -------
    Boolean array of length ``n_genes``.

    Raises
    ------
    ValueError
        When ``kind`` is none of these.
    """
    if kind not in FAMILIES:
        raise ValueError(f"unknown gene family {kind!r}; allowed: {', '.join(FAMILIES)}")
    match = FAMILIES[kind].match
    return np.fromiter((match(str(symbol)) is not None for symbol in symbols), dtype=np.bool_)


@cache
def _classes() -> dict[str, tuple[str, ...]]:
    table = pd.read_csv(resources.path("gene_classes.tsv"), sep="\t", dtype=str, keep_default_na=False)
    return {str(name): tuple(group["gene"]) for name, group in table.groupby("class", sort=True)}


def gene_class(name: str) -> tuple[str, ...]:
    """Return a short published gene class as current symbols.

    Parameters
    ----------
    name
        ``S_phase`` and ``G2M_phase`` (Tirosh et al. 2016, PMID 27124452: 43 and 54 genes), or ``stress``: the
        immediate-early and heat-shock genes among those that tissue dissociation induces (van den Brink et al. 2017,
        PMID 28960196). The table beside the other resources has the citation of every gene.

    Raises
    ------
    ValueError
        When there is no such class.
    """
    classes = _classes()
    if name not in classes:
        raise ValueError(f"unknown gene class {name!r}; allowed: {', '.join(classes)}")
    return classes[name]
