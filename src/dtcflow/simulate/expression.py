"""Genes, cell-state expression profiles and programmes of a simulated cohort.

Everything that the samples of a cohort share is drawn here once, from the cohort's seed alone, so that any sample can
be made on its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtcflow.contracts import InputError, Problem
from dtcflow.genes import gene_mask, load_aliases, load_positions
from dtcflow.scores.signatures import GeneSet, load_markers, load_panel
from dtcflow.simulate.design import (
    ABUNDANT,
    BATCHES,
    CARCINOMA,
    EVERYWHERE,
    STATES,
    STRAY_KERATINS,
    Scenario,
    draw_karyotype,
)

Floats = NDArray[np.float64]

S_PHASE: Final = "TIROSH_S_PHASE"
G2M_PHASE: Final = "TIROSH_G2M_PHASE"
PROLIFERATION_FAMILY: Final = "proliferation"
"""Family of the panel whose genes are never part of the programme."""

MARKER_SHARE: Final = 6e-4
"""Median share of counts of a marker gene in its own state (2 UMI in a cell of 3,500)."""
MARKER_SD: Final = 0.6
"""SD of the natural log of that share."""
MARKER_LEAK: Final = 0.02
"""A marker's level in all other states, relative to its own state."""

# Genes of a shared marker panel that one of its states does not express
_NOT_EXPRESSED: Final[Mapping[str, frozenset[str]]] = {
    "monocyte": frozenset({"C1QA", "C1QB", "C1QC", "CD163", "MRC1", "MSR1", "VSIG4"}),
    "macrophage": frozenset({"FCN1", "CD300E", "VCAN"}),
    CARCINOMA: frozenset({"KRT5", "KRT14", "KRT17"}),
}
# The gene table has no biotype. These symbols are of non-coding, pseudo-, receptor-segment or tissue-restricted genes
_NOT_FILLER: Final = re.compile(
    r"\.\d+$|\d[A-Z]?P\d*$|^(LINC|MIR|SNOR|SCARNA|RNU|RNV|RNY|RNA5|RN7|VTRNA|TRNA|FAM138|WASH\d|OR\d+[A-Z]|TAS2R|KRTAP|PRAMEF|DEFB|USP17L)"
    r"|-(AS\d*|DT|IT\d*|OT\d*|\dP|HG|PS\d*)$|HG$|^(IG[HKL]|TR[ABGD])[VDJC]|^(C\d+orf|ENSG|LOC)|^HLA-|^MT-|^MT[A-Z0-9]+P\d+$"
    r"|^(GAGE|MAGE|SSX|CT45|CT47|XAGE|PAGE|SPANX|TSPY|NBPF)\w*"
)
_PSEUDO: Final = re.compile(r"^(.+?)P\d*$")


@dataclass(frozen=True)
class Universe:
    """What all samples of a cohort share. ``n`` genes, in genomic order."""

    genes: pd.DataFrame
    """Index symbol; ``gene_id``, ``chromosome``, ``arm``."""
    profiles: Mapping[str, Floats]
    """State -> expected share of counts per gene, sums to one."""
    dispersion: Floats
    """Gamma-Poisson phi per gene."""
    dosage: Floats
    """Exponent of copies / 2 per gene."""
    programme: Floats
    """Log2 fold change of the self-renewing programme, zero outside it."""
    quiescence: Floats
    """Log2 fold change of the quiescence genes."""
    s_phase: Floats
    """Log2 fold change in S phase."""
    g2m_phase: Floats
    """Log2 fold change in G2/M."""
    mitochondrial: NDArray[np.bool_]
    keratins: NDArray[np.intp]
    """Positions of the two keratins of stray expression."""
    batches: Mapping[str, Floats]
    """Batch -> multiplicative factor per gene."""


@dataclass(frozen=True)
class Patient:
    """What the two samples of one patient share."""

    index: int
    karyotype: Mapping[str, Mapping[str, int]]
    """Clone (``trunk``, ``A``, ``B``) -> arm -> change of copies."""
    dtc_clone: str
    """Clone of the disseminated cells."""
    programme_scale: float
    """Strength of the programme, as a multiple."""
    programme_dtc: float
    """Share of disseminated cells that run it."""
    shift: float
    """Log2 shift of the programme genes in all disseminated cells."""
    own: Floats
    """Multiplicative factor per gene in all cells."""
    tumour: Floats
    """The same in tumour cells."""
    niche: Floats
    """The same in disseminated tumour cells."""


def stream(seed: int, *key: int) -> np.random.Generator:
    """Return an independent random generator for one part of the cohort; the same key gives the same numbers."""
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=key))


@cache
def _tables() -> tuple[pd.DataFrame, dict[str, str]]:
    """The shipped gene positions, and a map of current symbols to themselves and of old ones to their current one.

    Read once per process; nobody changes them. A symbol that was given up by more than one gene is left out.
    """
    positions = load_positions()
    current = set(positions["symbol"].astype(str))
    table = load_aliases()
    table = table[table["kind"].eq("previous") & table["symbol"].isin(current) & ~table["alias"].isin(current)]
    table = table[~table["alias"].duplicated(keep=False)]
    renamed = dict(zip(table["alias"].astype(str), table["symbol"].astype(str), strict=True))
    return positions, {symbol: symbol for symbol in current} | renamed


def _current(genes: Iterable[str], resolver: Mapping[str, str]) -> set[str]:
    return {resolver[gene] for gene in genes if gene in resolver}


def _panel(names: Iterable[str], panel: Mapping[str, GeneSet]) -> list[GeneSet]:
    """Look up signatures by name.

    Raises
    ------
    InputError
        When a scenario names signatures that the shipped panel does not hold.
    """
    names = list(names)
    if missing := [name for name in names if name not in panel]:
        raise InputError(
            "the scenario names signatures that the panel does not hold",
            [Problem("scenario", name, ", ".join(sorted(panel)), "name one of these") for name in missing],
        )
    return [panel[name] for name in names]


def _ordinary(positions: pd.DataFrame) -> NDArray[np.bool_]:
    """Genes that may fill up the matrix: probably protein-coding, on an autosome or chromosome X."""
    symbols = positions["symbol"].astype(str)
    known = set(symbols)

    def pseudogene(symbol: str) -> bool:
        found = _PSEUDO.match(symbol)
        return found is not None and len(found[1]) > 2 and found[1] in known

    odd = np.array([bool(_NOT_FILLER.search(symbol)) or pseudogene(symbol) for symbol in symbols])
    placed = positions["arm"].notna().to_numpy(bool) & ~positions["chromosome"].isin(["chrY", "chrM"]).to_numpy(bool)
    ordinary: NDArray[np.bool_] = placed & ~odd
    return ordinary


def _choose_genes(
    positions: pd.DataFrame, required: set[str], n_genes: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, NDArray[np.bool_], NDArray[np.bool_]]:
    """All required, ribosomal and mitochondrial genes, and others drawn from the whole genome, in genomic order."""
    symbols = positions["symbol"].astype(str)
    ordinary = _ordinary(positions)
    mitochondrial = gene_mask(symbols, "mito") & ~symbols.str.match(r"MT-(T|RNR)").to_numpy(bool)
    ribosomal = gene_mask(symbols, "ribo") & ordinary
    keep = symbols.isin(required).to_numpy(bool) | mitochondrial | ribosomal
    others = np.flatnonzero(ordinary & ~keep)
    n_others = min(max(0, n_genes - int(keep.sum())), len(others))
    chosen = rng.choice(others, size=n_others, replace=False)
    keep[chosen] = True
    table = positions.loc[keep, ["symbol", "gene_id", "chromosome", "arm"]].set_index("symbol")
    return table, mitochondrial[keep], ribosomal[keep]


def _mask(symbols: pd.Index, genes: set[str]) -> NDArray[np.bool_]:
    return np.asarray(symbols.isin(list(genes)), dtype=bool)


def build_universe(scenario: Scenario, seed: int) -> Universe:
    """Draw genes, profiles and programmes of a cohort.

    Parameters
    ----------
    scenario
        Its gene-level parameters are used.
    seed
        Seed of the cohort.

    Returns
    -------
    The same universe for the same arguments.
    """
    positions, resolver = _tables()
    panel = {gene_set.name: gene_set for gene_set in load_panel(variants=False)}
    markers = {cell_type: _current(genes.up, resolver) for cell_type, genes in load_markers().items()}

    def members(names: Iterable[str], *, down: bool = False) -> set[str]:
        sets = _panel(names, panel)
        return set().union(*(_current(gene_set.down if down else gene_set.up, resolver) for gene_set in sets))

    proliferation = [name for name, gene_set in panel.items() if gene_set.family == PROLIFERATION_FAMILY]
    required = set(EVERYWHERE).union(STRAY_KERATINS, *ABUNDANT.values(), *markers.values())
    required |= set().union(*(_current((*s.up, *s.down), resolver) for s in panel.values()))
    genes, mitochondrial, ribosomal = _choose_genes(positions, required, scenario.n_genes, stream(seed, 0))
    symbols, n = genes.index, len(genes)

    rng = stream(seed, 1)
    base = rng.normal(0.0, scenario.abundance_sd, n)
    base[ribosomal] = rng.normal(0.0, 0.6, n)[ribosomal]
    base[mitochondrial] = rng.normal(0.0, 0.6, n)[mitochondrial]
    low, high = np.log(scenario.dispersion)
    dispersion = np.exp(rng.uniform(low, high, n))
    dosage = np.clip(rng.normal(scenario.dosage, scenario.dosage_sd, n), 0.0, 1.5)
    marker_share = MARKER_SHARE * np.exp(rng.normal(0.0, MARKER_SD, n))
    batches = {batch: np.exp(rng.normal(0.0, scenario.batch_sd, n)) for batch in BATCHES}

    programme_mask = _mask(symbols, members(scenario.programme_sets) - members(proliferation))
    spread = rng.normal(scenario.programme_log2fc, scenario.programme_gene_sd, n)
    in_hspc = rng.random(n)
    hspc = np.where(programme_mask & (in_hspc < scenario.hspc_programme[0]), scenario.hspc_programme[1], 0.0)
    control = _mask(symbols, members(scenario.hspc_control_sets)) & (in_hspc < scenario.hspc_control[0])
    hspc = np.maximum(hspc, np.where(control, scenario.hspc_control[1], 0.0))

    quiescent_up = _mask(symbols, members(scenario.quiescence_sets))
    quiescent_down = _mask(symbols, members(scenario.quiescence_sets, down=True))

    nodes = {node: k for k, node in enumerate(dict.fromkeys(node for state in STATES.values() for node in state.tree))}
    profiles = {}
    for name, state in STATES.items():
        level = base + sum(_deviation(scenario, seed, nodes[node], n) for node in state.tree)
        if name == "HSPC":
            level = level + np.log(2.0) * hspc
        fixed = _fixed_shares(name, symbols, markers, marker_share)
        profiles[name] = _profile(np.exp(level), fixed, mitochondrial, ribosomal, scenario, state.ribosomal)

    return Universe(
        genes=genes,
        profiles=profiles,
        dispersion=dispersion,
        dosage=dosage,
        programme=np.where(programme_mask, spread, 0.0),
        quiescence=scenario.quiescence_log2fc * (quiescent_up.astype(np.float64) - quiescent_down.astype(np.float64)),
        s_phase=np.where(_mask(symbols, members([S_PHASE])), scenario.cycling_log2fc, 0.0),
        g2m_phase=np.where(_mask(symbols, members([G2M_PHASE])), scenario.cycling_log2fc, 0.0),
        mitochondrial=mitochondrial,
        keratins=np.array([symbols.get_loc(gene) for gene in STRAY_KERATINS], dtype=np.intp),
        batches=batches,
    )


def _deviation(scenario: Scenario, seed: int, node: int, n: int) -> Floats:
    """Log deviation of one node of the cell-type tree: zero for most genes."""
    rng = stream(seed, 2, node)
    moved = rng.random(n) < scenario.deviation_share
    return np.where(moved, rng.normal(0.0, scenario.deviation_sd, n), 0.0)


def _fixed_shares(state: str, symbols: pd.Index, markers: Mapping[str, set[str]], marker_share: Floats) -> Floats:
    """Absolute shares of counts of marker and abundant genes in ``state``; NaN for all other genes."""
    shares = np.full(len(symbols), np.nan)
    for genes in markers.values():
        mask = _mask(symbols, genes)
        shares[mask] = marker_share[mask] * MARKER_LEAK
    own = _mask(symbols, markers.get(STATES[state].cell_type, set()) - _NOT_EXPRESSED.get(state, frozenset()))
    shares[own] = marker_share[own]
    elsewhere = {gene for other in ABUNDANT.values() for gene in other}
    for gene in sorted(elsewhere):
        if gene in symbols and not own[symbols.get_loc(gene)]:
            shares[symbols.get_loc(gene)] = MARKER_LEAK * MARKER_SHARE
    for table in (EVERYWHERE, ABUNDANT.get(state, {})):
        for gene, share in table.items():
            if gene in symbols:
                shares[symbols.get_loc(gene)] = share
    return shares


def _profile(
    level: Floats,
    fixed: Floats,
    mitochondrial: NDArray[np.bool_],
    ribosomal: NDArray[np.bool_],
    scenario: Scenario,
    ribosomal_share: float,
) -> Floats:
    """Expected share of counts per gene: absolute shares first, the rest of the genes share what remains."""
    is_fixed = ~np.isnan(fixed)
    profile: Floats = np.where(is_fixed, fixed, 0.0)
    groups = (
        (mitochondrial & ~is_fixed, scenario.mitochondrial_share),
        (ribosomal & ~is_fixed, ribosomal_share),
    )
    for mask, share in groups:
        if mask.any():
            profile[mask] = share * level[mask] / level[mask].sum()
    rest = ~is_fixed & ~mitochondrial & ~ribosomal
    profile[rest] = (1.0 - profile.sum()) * level[rest] / level[rest].sum()
    profile /= profile.sum()
    return profile


def draw_patient(scenario: Scenario, seed: int, index: int, n_genes: int) -> Patient:
    """Draw what the samples of patient ``index`` (from 0) share.

    ``n_genes`` is the number of genes of the :class:`Universe`.
    """
    rng = stream(seed, 3, index)
    karyotype = draw_karyotype(scenario, rng)
    clone = ("A", "B")[int(rng.integers(2))]
    strength = max(0.0, float(rng.normal(1.0, scenario.programme_patient_sd)))
    share = float(rng.uniform(*scenario.programme_dtc))
    shift = float(rng.normal(0.0, scenario.shift_sd))
    genes = stream(seed, 4, index)
    return Patient(
        index=index,
        karyotype=karyotype,
        dtc_clone=clone,
        programme_scale=strength * (scenario.weak_scale if index in scenario.weak_patients else 1.0),
        programme_dtc=share,
        shift=shift,
        own=np.exp(genes.normal(0.0, scenario.patient_sd, n_genes)),
        tumour=np.exp(genes.normal(0.0, scenario.tumour_sd, n_genes)),
        niche=np.exp(genes.normal(0.0, scenario.niche_sd, n_genes)),
    )


def dosage_factor(universe: Universe, changes: Mapping[str, int]) -> Floats:
    """Multiplicative factor per gene of a cell with ``changes`` of copies per arm."""
    arms = universe.genes["arm"].astype(object).fillna("")
    change = arms.map(dict(changes)).fillna(0).to_numpy(np.float64)
    factor: Floats = ((2.0 + change) / 2.0) ** universe.dosage
    return factor
