"""Count-level cohorts of called tumour cells with a known answer to each claim, small enough to make thousands of.

The demo cohorts of this package go through the whole workflow; these start where the analysis plan starts, at cells
that passed quality control and were called, and end as the input of :func:`dtcflow.evidence.run.evaluate_plan`. A
cell's counts are gamma-Poisson. What differs between cells is a *programme*: a latent value ``u`` in standard
deviations of the score between primary cells, which moves the natural log expression of the programme's genes by
``gain * u``::

    u = patient + [DTC] * (effect + slope of the patient) + cell        gain: see GAINS

Patient values cancel in a within-patient difference; the slopes do not, and they are what a test over cells ignores.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy import stats

from dtcflow.contracts import COUNTS
from dtcflow.scores.signatures import load_panel

Floats = NDArray[np.float64]

SETS: Final[Mapping[str, float]] = {
    "LIM_MAMMARY_STEM_CELL_UP": 0.7,
    "PECE_MAMMARY_STEM_CELL_UP": 1.0,
    "LIM_MAMMARY_LUMINAL_PROGENITOR_UP": 1.0,
    "WIECEK_G0_ARREST": 1.0,
    "EPPERT_HSC_R": 1.0,
    "JAATINEN_HEMATOPOIETIC_STEM_CELL_UP": 0.7,
    "TIROSH_S_PHASE": 1.0,
    "TIROSH_G2M_PHASE": 1.0,
    "GAVISH_MP5_STRESS": 1.0,
    "HALLMARK_EPITHELIAL_MESENCHYMAL_TRANSITION": 0.7,
    "HALLMARK_HYPOXIA": 0.7,
}
"""Signatures whose genes are simulated, and the share of them that "was measured" (the plan asks for 0.6)."""
PROGRAMMES: Final[Mapping[str, tuple[str, ...]]] = {
    "stemness": ("LIM_MAMMARY_STEM_CELL_UP", "PECE_MAMMARY_STEM_CELL_UP"),
    "progenitor": ("LIM_MAMMARY_LUMINAL_PROGENITOR_UP",),
    "arrest": ("WIECEK_G0_ARREST",),
}
"""Programmes that vary between cells, patients and compartments: genes of these sets, proliferation genes left out."""
SCORES: Final[Mapping[str, str]] = {
    "stemness": "LIM_MAMMARY_STEM_CELL_UP_NOPROLIF",
    "progenitor": "LIM_MAMMARY_LUMINAL_PROGENITOR_UP",
    "arrest": "WIECEK_G0_ARREST",
}
"""Score in whose standard deviations a programme's latent value is expressed."""
GAINS: Final[Mapping[str, float]] = {"stemness": 0.1156, "progenitor": 0.253, "arrest": 0.41}
"""Natural-log fold change of a programme's genes per unit of the latent value."""
CELL_SD: Final = 0.7
"""Spread of the latent value between cells of one sample; the rest of a score's standard deviation of 1 is sampling."""
N_BACKGROUND: Final = 1600
_PROLIFERATION: Final = "proliferation"
_UNIVERSE_SEED: Final = 20260


@dataclass(frozen=True)
class EvidenceScenario:
    """One cell of the simulation grid.

    Attributes
    ----------
    n_patients
        Patients, each with a marrow and a primary sample.
    dtc_mean, dtc_size, dtc_floor
        DTCs of a patient: negative binomial (mean, size), never below the floor.
    pt_cells
        Primary tumour cells of a patient.
    effects
        Programme -> true shift of the DTCs, in units of the latent value.
    patient_sd, slope_sd
        Spread between patients of a programme's level, and of its difference between the compartments.
    depth, depth_ratio
        Median transcripts of a primary cell; that of a DTC as a share of it.
    contamination
        Share of a DTC's transcripts that are a haematopoietic progenitor's (ambient RNA, doublets).
    miscalled
        Share of the called DTCs that are haematopoietic progenitors.
    cycling_dtc, cycling_pt
        Share of cells in cycle; a cycling cell also has ``cycling_spill`` more of the stemness programme, carried by
        genes that no proliferation set lists.
    aliased
        DTCs of all patients come from one study and primary cells from another, with a shift of every gene between
        them.
    subset_share, subset_log2fc
        Share of the DTCs that have ``subset_genes`` genes of the stemness programme raised by this log2 fold change.
    false_putative
        Mean number of epithelial-looking marrow cells a patient has that are not called.
    blood_cells
        Haematopoietic marrow cells of a patient, called normal: what adjustments and controls are made from.
    stratified
        Slopes at the quantiles of their distribution instead of random ones: for measuring a true value.
    """

    name: str
    n_patients: int = 8
    dtc_mean: float = 12.0
    dtc_size: float = 3.0
    dtc_floor: int = 3
    pt_cells: int = 60
    effects: Mapping[str, float] = field(default_factory=dict)
    patient_sd: float = 0.7
    slope_sd: float = 0.5
    depth: float = 4500.0
    depth_ratio: float = 1.0
    contamination: float = 0.0
    miscalled: float = 0.0
    cycling_dtc: float = 0.1
    cycling_pt: float = 0.1
    cycling_spill: float = 0.5
    aliased: bool = False
    subset_share: float = 0.0
    subset_log2fc: float = 0.0
    subset_genes: int = 100
    false_putative: float = 0.3
    blood_cells: int = 40
    stratified: bool = False

    def large(self, *, patients: int, cells: int) -> EvidenceScenario:
        """Return the same scenario with many patients and cells, for measuring what an estimate converges to."""
        return replace(self, n_patients=patients, dtc_floor=cells, dtc_mean=0.0, pt_cells=cells, stratified=True)


@dataclass(frozen=True)
class EvidenceUniverse:
    """Genes of the simulated cohorts: the same for every cohort, as genes are in the world.

    ``base`` is log expression, ``shape`` the gamma shape (1 / dispersion), ``haematopoietic`` the log expression of a
    marrow progenitor, ``study`` the log shift of a second study; all of length genes. ``members`` gives the positions
    of each simulated set, ``programmes`` those of each programme.
    """

    genes: pd.Index[str]
    base: Floats
    shape: Floats
    haematopoietic: Floats
    study: Floats
    members: Mapping[str, NDArray[np.intp]]
    programmes: Mapping[str, NDArray[np.intp]]


@dataclass(frozen=True)
class EvidenceCohort:
    """Input of ``evaluate_plan`` with its truth.

    ``slopes`` has one row per patient and one column per programme: the patient's own difference DTC - PT.
    """

    adata: ad.AnnData
    cells: pd.DataFrame
    slopes: pd.DataFrame


def _measured(genes: Collection[str], share: float) -> list[str]:
    """Genes of a set that the simulated assay measures: a fixed choice that depends on the symbol only."""
    return sorted(gene for gene in genes if zlib.crc32(gene.encode()) % 1000 < 1000 * share)


@functools.cache
def evidence_universe() -> EvidenceUniverse:
    """Genes of the shipped signatures plus background genes of the same distribution of expression and dispersion."""
    panel = {one.name: one for one in load_panel()}
    chosen = {name: _measured(panel[name].genes, share) for name, share in SETS.items()}
    # a gene that one set measures is measured for all sets that list it
    symbols = sorted({gene for genes in chosen.values() for gene in genes})
    background = [f"BG{i:04d}" for i in range(N_BACKGROUND)]
    genes = pd.Index([*symbols, *background])
    position = {gene: i for i, gene in enumerate(genes)}
    members = {
        name: np.array([position[gene] for gene in sorted(panel[name].genes) if gene in position], dtype=np.intp)
        for name in SETS
    }
    growth = {gene for one in panel.values() if one.family == _PROLIFERATION for gene in one.genes}
    up = {
        name: np.array(
            sorted({position[g] for one in sets for g in panel[one].up if g in position and g not in growth}),
            dtype=np.intp,
        )
        for name, sets in PROGRAMMES.items()
    }
    rng = np.random.default_rng(_UNIVERSE_SEED)
    base = rng.normal(0.0, 1.1, genes.size)
    shape = np.exp(rng.uniform(np.log(0.5), np.log(8.0), genes.size))
    haematopoietic = base + rng.normal(0.0, 0.8, genes.size)
    for name in ("EPPERT_HSC_R", "JAATINEN_HEMATOPOIETIC_STEM_CELL_UP"):
        haematopoietic[members[name]] = base[members[name]] + 1.8
    # marrow progenitors look stem-like and at rest: that is why the negative controls are there
    for name, by in (("stemness", 0.8), ("arrest", 0.8)):
        rows = np.setdiff1d(
            up[name], np.union1d(members["EPPERT_HSC_R"], members["JAATINEN_HEMATOPOIETIC_STEM_CELL_UP"])
        )
        haematopoietic[rows] = base[rows] + by + rng.normal(0.0, 0.5, rows.size)
    return EvidenceUniverse(genes, base, shape, haematopoietic, rng.normal(0.0, 0.3, genes.size), members, up)


def _n_dtcs(scenario: EvidenceScenario, rng: np.random.Generator) -> int:
    if scenario.dtc_mean <= 0:
        return scenario.dtc_floor
    size = scenario.dtc_size
    return max(scenario.dtc_floor, int(rng.negative_binomial(size, size / (size + scenario.dtc_mean))))


def _counts(rates: Floats, totals: Floats, shape: Floats, rng: np.random.Generator) -> sp.csr_matrix[Any]:
    """Gamma-Poisson counts; rows of ``rates`` are brought to sum 1."""
    mean = rates / rates.sum(axis=1, keepdims=True)
    mean *= rng.standard_gamma(np.broadcast_to(shape, mean.shape)) / shape
    mean *= totals[:, None]
    return sp.csr_matrix(rng.poisson(mean).astype(np.float32))


def _draw_slopes(scenario: EvidenceScenario, rng: np.random.Generator) -> Floats:
    n = scenario.n_patients
    if not scenario.stratified:
        return np.asarray(scenario.slope_sd * rng.standard_normal((n, len(PROGRAMMES))))
    quantiles = stats.norm.ppf((np.arange(n) + 0.5) / n)
    return np.asarray(scenario.slope_sd * np.column_stack([rng.permutation(quantiles) for _ in PROGRAMMES]))


def _stream(scenario: EvidenceScenario, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(scenario.name.encode())])


def planted_slopes(scenario: EvidenceScenario, seed: int) -> pd.DataFrame:
    """Slopes of the cohort of a seed, without its cells: patients x programmes."""
    patients = [f"P{p:02d}" for p in range(scenario.n_patients)]
    return pd.DataFrame(_draw_slopes(scenario, _stream(scenario, seed)), index=patients, columns=list(PROGRAMMES))


def simulate_evidence(scenario: EvidenceScenario, seed: int) -> EvidenceCohort:
    """Draw one cohort.

    Parameters
    ----------
    scenario
        What is planted.
    seed
        The same scenario and seed give the same counts. Scenarios with one seed share no random numbers on purpose:
        the name is part of the seed.

    Returns
    -------
    EvidenceCohort
        Layer ``counts`` (cells x genes, float32 whole numbers) and the joined cell table that ``evaluate_plan`` reads.
    """
    universe = evidence_universe()
    rng = _stream(scenario, seed)
    slopes = _draw_slopes(scenario, rng)
    blocks: list[sp.csr_matrix[Any]] = []
    tables: list[pd.DataFrame] = []
    for p in range(scenario.n_patients):
        own = universe.base + rng.normal(0.0, 0.3, universe.base.size)
        level = scenario.patient_sd * rng.standard_normal(len(PROGRAMMES))
        n_dtc = _n_dtcs(scenario, rng)
        n_false = int(rng.poisson(scenario.false_putative))
        for side, n, call in (
            ("marrow", n_dtc, "malignant"),
            ("primary", scenario.pt_cells, "malignant"),
            ("marrow", n_false, "normal"),
        ):
            if n == 0:
                continue
            shift = level + (slopes[p] + [scenario.effects.get(name, 0.0) for name in PROGRAMMES]) * (side == "marrow")
            counts = _sample(scenario, universe, own, shift, side=side, n=n, rng=rng)
            blocks.append(counts)
            tables.append(_cell_rows(scenario, p, side, call, n, rng))
        if scenario.blood_cells:
            rng_blood = np.random.default_rng([seed, zlib.crc32(f"{scenario.name}:blood".encode()), p])
            blocks.append(_blood(scenario, universe, rng_blood))
            rows = _cell_rows(scenario, p, "marrow", "blood", scenario.blood_cells, rng_blood)
            tables.append(
                rows.assign(malignant_call="normal", cell_type="HSPC", epithelial_z=0.0, n_epithelial_markers=0)
            )
    cells = pd.concat(tables, ignore_index=True)
    adata = ad.AnnData(
        obs=pd.DataFrame(index=pd.Index(cells["cell_id"].astype(object))),
        var=pd.DataFrame(index=universe.genes.astype(object)),
    )
    adata.layers[COUNTS] = sp.vstack(blocks, format="csr")
    return EvidenceCohort(adata, cells, planted_slopes(scenario, seed))


def _sample(
    scenario: EvidenceScenario,
    universe: EvidenceUniverse,
    own: Floats,
    shift: Floats,
    *,
    side: str,
    n: int,
    rng: np.random.Generator,
) -> sp.csr_matrix[Any]:
    """Counts of the cells of one sample."""
    marrow = side == "marrow"
    log_rate = np.tile(own + rng.normal(0.0, 0.05, own.size) + universe.study * (scenario.aliased and marrow), (n, 1))
    cycling = rng.random(n) < (scenario.cycling_dtc if marrow else scenario.cycling_pt)
    g2m = rng.random(n) < 0.5
    for i, (name, rows) in enumerate(universe.programmes.items()):
        u = shift[i] + CELL_SD * rng.standard_normal(n)
        if name == "stemness":
            u += scenario.cycling_spill * cycling
        log_rate[:, rows] += GAINS[name] * u[:, None]
    for name, phase in (("TIROSH_S_PHASE", cycling & ~g2m), ("TIROSH_G2M_PHASE", cycling & g2m)):
        log_rate[:, universe.members[name]] += 1.2 * phase[:, None]
    # stress differs between cells and, a little, between samples; no claim is about it
    stress = 0.1 * rng.standard_normal() + 0.3 * rng.standard_normal(n)
    log_rate[:, universe.members["GAVISH_MP5_STRESS"]] += stress[:, None]
    if marrow and scenario.subset_share > 0:
        inside = rng.random(n) < scenario.subset_share
        rows = universe.programmes["stemness"]
        strongest = rows[np.argsort(-universe.base[rows], kind="stable")[: scenario.subset_genes]]
        log_rate[np.ix_(inside, strongest)] += scenario.subset_log2fc * np.log(2.0)
    rates = np.exp(log_rate)
    if marrow and (scenario.contamination or scenario.miscalled):
        foreign = np.exp(universe.haematopoietic)
        foreign /= foreign.sum()
        share = np.where(rng.random(n) < scenario.miscalled, 1.0, scenario.contamination)[:, None]
        rates = (1 - share) * rates / rates.sum(axis=1, keepdims=True) + share * foreign
    totals = scenario.depth * (scenario.depth_ratio if marrow else 1.0) * np.exp(0.35 * rng.standard_normal(n))
    return _counts(rates, totals, universe.shape, rng)


def _blood(scenario: EvidenceScenario, universe: EvidenceUniverse, rng: np.random.Generator) -> sp.csr_matrix[Any]:
    """Counts of haematopoietic cells, as deep as the disseminated cells of the scenario."""
    n = scenario.blood_cells
    log_rate = np.tile(universe.haematopoietic + rng.normal(0.0, 0.1, universe.base.size), (n, 1))
    totals = scenario.depth * scenario.depth_ratio * np.exp(0.35 * rng.standard_normal(n))
    return _counts(np.exp(log_rate + universe.study * scenario.aliased), totals, universe.shape, rng)


def _cell_rows(
    scenario: EvidenceScenario, p: int, side: str, call: str, n: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Rows of the cell table: what the caller and the annotation would have written."""
    sample = f"P{p:02d}_{side}"
    malignant = call == "malignant"
    return pd.DataFrame(
        {
            "cell_id": [f"{sample}:{call}{i:03d}" for i in range(n)],
            "sample_id": sample,
            "patient_id": f"P{p:02d}",
            "compartment": side,
            "malignant_call": call,
            "malignancy_q": 10.0 ** -rng.uniform(1.3, 5.0, n) if malignant else 0.5,
            "epithelial_z": rng.uniform(4.0, 9.0, n),
            "n_epithelial_markers": rng.integers(3, 9, n),
            "cell_type": "epithelial",
            "pct_mt": rng.uniform(1.0, 10.0, n),
            "study": "second" if scenario.aliased and side == "marrow" else "first",
            "batch": sample if not scenario.aliased else ("b" if side == "marrow" else "a"),
            "platform": "droplet",
        }
    )
