"""What a simulated cohort looks like before any gene is drawn: scenarios, cell states, karyotypes, samples.

All numbers of the simulator are here, as named fields with units. Where a number has a published origin the field
says so; the others are order-of-magnitude choices for droplet data, checked against real counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd

from dtcflow.contracts import EPITHELIAL, InputError, Problem

TRUNK: Final = "trunk"
SUBCLONES: Final = ("A", "B")
BATCHES: Final = ("batch1", "batch2")
CARCINOMA: Final = "carcinoma"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Every parameter of a simulated cohort. Use :data:`SCENARIOS` or ``dataclasses.replace`` one of them.

    The count model is gamma-Poisson with log-normal abundances and library sizes (Zappia 2017, PMID 28899397).
    """

    name: str
    """What the scenario is called in tables and study titles."""

    n_genes: int = 12_000
    """Genes of the matrix; every marker, signature, cell-cycle, mitochondrial and ribosomal gene is among them."""
    abundance_sd: float = 1.5
    """SD of the natural log of a gene's abundance (heavy tail)."""
    mitochondrial_share: float = 0.06
    """Share of a healthy cell's counts on mitochondrial genes."""
    deviation_share: float = 0.4
    """Share of genes that each node of the cell-type tree (lineage, branch, state) moves."""
    deviation_sd: float = 0.5
    """SD of such a move, natural log. Two states of different lineages then differ by about 0.6-0.8 SD over all genes,
    as carcinoma, stroma and leukocytes of the ovarian cohort of Qian 2020 do."""
    patient_sd: float = 0.12
    """SD of a patient's gene-wise log deviation in all of her cells."""
    tumour_sd: float = 0.4
    """SD of a tumour's own gene-wise log deviation, shared by its primary and its disseminated cells."""
    niche_sd: float = 0.1
    """SD of the gene-wise log deviation of one patient's disseminated cells from her primary."""
    batch_sd: float = 0.15
    """SD of the gene-wise log factor of a batch; batches split patients, never compartments."""
    dispersion: tuple[float, float] = (0.1, 0.5)
    """Range of the gamma-Poisson dispersion phi (variance = mu + phi mu^2), log-uniform over genes."""

    library_sd: float = 0.45
    """SD of the natural log of library sizes within a cell state."""
    library_marrow: float = 2_800
    """Median UMI of a marrow cell whose state has factor 1."""
    library_primary: float = 3_500
    """Median UMI of a non-malignant cell of the primary whose state has factor 1."""
    library_carcinoma: float = 6_000
    """Median UMI of a carcinoma cell of the primary."""
    library_dtc: float = 3_500
    """Median UMI of a disseminated tumour cell."""

    ambient_mean: float = 0.04
    """Mean share of a cell's counts that come from the sample's soup (the 2-10 % of droplet data; Young and Behjati
    2020, PMID 33367645)."""
    ambient_dtc: float = 0.04
    """The same for disseminated tumour cells."""
    ambient_concentration: float = 40.0
    """Concentration of the Beta distribution of those shares."""
    leak_sd: float = 0.0
    """SD over cell states of the natural log of how much a state leaves in the soup, relative to the counts of its
    captured cells. 0: the soup is the mean of the captured cells. Red cells burst and plasma cells do not, so real
    soups differ from it."""
    doublet_rate: float = 0.04
    """Share of barcodes with two cells."""
    dying_rate: float = 0.04
    """Share of single cells that are dying: few counts, many of them mitochondrial."""
    dying_library: float = 0.35
    """Library size of a dying cell relative to its state."""
    dying_mitochondrial: tuple[float, float] = (0.3, 0.7)
    """Range of the mitochondrial share of a dying cell (uniform)."""
    stray_keratin_rate: float = 0.03
    """Share of haematopoietic cells with some KRT8 and KRT18 of their own."""
    stray_keratin_share: float = 3e-4
    """Share of such a cell's counts on each of the two."""

    dtc_fractions: tuple[float, ...] = (0.018, 0.030, 0.012, 0.025, 0.010, 0.020, 0.015, 0.0)
    """Disseminated tumour cells per marrow barcode of patient 1, 2, ... (repeated after the last)."""
    min_dtc: int = 8
    """Smallest number where the fraction is not zero (never more than half of the cells)."""

    altered_arms: tuple[int, int] = (6, 10)
    """Altered chromosome arms of a tumour: trunk and both subclones together, inclusive range."""
    private_arms: tuple[int, int] = (1, 3)
    """Altered arms private to a subclone, inclusive range."""
    min_trunk_arms: int = 4
    """Altered arms that all tumour cells of a patient share, at least."""
    clone_shares: tuple[float, float, float] = (0.2, 0.45, 0.35)
    """Share of the primary's carcinoma cells with the trunk only, in subclone A and in subclone B."""
    missing_event_rate: float = 0.15
    """Share of disseminated cells that lack one event of their clone (they are genetically dissimilar:
    Demeulemeester 2016, doi:10.1186/s13059-016-1109-7)."""
    dosage: float = 0.8
    """Expression goes with (copies / 2) ** dosage (most expressed genes follow their copy number: Fehrmann 2015,
    doi:10.1038/ng.3173)."""
    dosage_sd: float = 0.25
    """SD over genes of that exponent, cut to [0, 1.5]."""

    programme_sets: tuple[str, ...] = ("LIM_MAMMARY_STEM_CELL_UP", "PECE_MAMMARY_STEM_CELL_UP")
    """Signatures whose genes, without proliferation genes, make up the self-renewing programme."""
    programme_log2fc: float = 0.65
    """Mean log2 fold change of those genes in a cell that runs the programme.

    Moves a patient's mean score by about 1.2 SD between primary tumour cells, so that the weak patient, at a third of
    it, does not make the spread over patients wider than the analysis plan allows for a verdict."""
    programme_gene_sd: float = 0.4
    """SD of that fold change over genes, log2."""
    programme_patient_sd: float = 0.15
    """SD over patients of the programme's strength, as a multiple of ``programme_log2fc``."""
    programme_dtc: tuple[float, float] = (0.6, 0.8)
    """Range over patients of the share of disseminated cells that run the programme."""
    programme_primary: float = 0.05
    """Share of the primary's carcinoma cells that run it."""
    weak_patients: tuple[int, ...] = ()
    """Patients (from 0) in whom the programme is weak."""
    weak_scale: float = 0.3
    """Strength of a weak programme, as a multiple."""
    shift_sd: float = 0.06
    """SD over patients of a shift of all programme genes in all of the patient's disseminated cells, log2: the
    patient-by-compartment variation without which every paired test would look too good."""
    quiescence_sets: tuple[str, ...] = ()
    """Signatures whose genes go up (or down, where the signature says so) in programme cells that do not cycle."""
    quiescence_log2fc: float = 0.0
    """By how much, log2."""
    cycling_primary: float = 0.20
    """Share of cycling cells in the primary's carcinoma."""
    cycling_dtc: float = 0.05
    """Share of cycling cells among disseminated tumour cells."""
    cycling_log2fc: float = 2.0
    """Log2 fold change of S genes in S phase and of G2/M genes in G2/M."""

    hspc_programme: tuple[float, float] = (0.5, 1.0)
    """Share of programme genes that are high in haematopoietic stem and progenitor cells, and by how much (log2): the
    copy-number-flat trap."""
    hspc_control_sets: tuple[str, ...] = ("EPPERT_HSC_R", "JAATINEN_HEMATOPOIETIC_STEM_CELL_UP")
    """Haematopoietic stem-cell signatures (the negative controls)."""
    hspc_control: tuple[float, float] = (0.8, 1.5)
    """Share of their genes that are high in haematopoietic stem and progenitor cells, and by how much (log2)."""


SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        "progenitor": Scenario(
            name="progenitor",
            weak_patients=(4,),
            quiescence_sets=("WIECEK_G0_ARREST",),
            quiescence_log2fc=0.6,
        ),
        # No biology that differs between the compartments, and every artefact that imitates it
        "null": Scenario(
            name="null",
            library_dtc=2_400,
            ambient_dtc=0.20,
            programme_dtc=(0.05, 0.05),
            programme_patient_sd=0.0,
            cycling_primary=0.25,
            cycling_dtc=0.03,
        ),
    }
)


def get_scenario(scenario: Scenario | str) -> Scenario:
    """Return a preset by its name; a :class:`Scenario` is returned as it is.

    Raises
    ------
    InputError
        When no preset has that name.
    """
    if isinstance(scenario, Scenario):
        return scenario
    if scenario not in SCENARIOS:
        allowed = " | ".join(SCENARIOS)
        raise InputError(
            f"no simulated scenario {scenario!r}",
            [Problem("configuration", repr(scenario), allowed, f"set it to {allowed}", key="simulate.scenario")],
        )
    return SCENARIOS[scenario]


# ---------------------------------------------------------------------------------------------------------------------
# Cell states
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CellState:
    """One kind of cell: where it stands in the tree of cell types and what sets its counts apart."""

    cell_type: str
    """Entry of ``contracts.CELL_TYPES``: the truth an annotation is compared with."""
    tree: tuple[str, ...]
    """Nodes from the lineage down; states that share a node share its expression."""
    library: float = 1.0
    """Median library size relative to the compartment's."""
    ribosomal: float = 0.25
    """Share of counts on ribosomal protein genes."""
    cycling: float = 0.02
    """Share of cycling cells (carcinoma: see the scenario)."""


STATES: Final[Mapping[str, CellState]] = MappingProxyType(
    {
        "T_NK": CellState("T_NK", ("blood", "lymphoid", "T_NK"), 0.85, 0.30),
        "B": CellState("B", ("blood", "lymphoid", "B"), 0.85, 0.30),
        "plasma": CellState("plasma", ("blood", "lymphoid", "plasma"), 1.6, 0.15),
        "monocyte": CellState("monocyte", ("blood", "myeloid", "monocyte"), 1.1, 0.22),
        "macrophage": CellState("monocyte", ("blood", "myeloid", "macrophage"), 1.4, 0.20),
        "dendritic": CellState("dendritic", ("blood", "myeloid", "dendritic"), 1.3, 0.25),
        "neutrophil": CellState("neutrophil", ("blood", "myeloid", "neutrophil"), 0.65, 0.15),
        "mast": CellState("mast", ("blood", "myeloid", "mast"), 0.9, 0.20),
        "erythroid": CellState("erythroid", ("blood", "erythroid_line", "erythroid"), 1.3, 0.15, 0.25),
        "megakaryocyte": CellState("megakaryocyte", ("blood", "erythroid_line", "megakaryocyte"), 1.4, 0.18, 0.05),
        "HSPC": CellState("HSPC", ("blood", "progenitor", "HSPC"), 1.7, 0.30, 0.15),
        "fibroblast": CellState("fibroblast", ("stroma", "mesenchymal", "fibroblast"), 1.3, 0.22),
        "pericyte": CellState("pericyte", ("stroma", "mesenchymal", "pericyte"), 0.9, 0.22),
        "endothelial": CellState("endothelial", ("stroma", "vessel", "endothelial"), 1.0, 0.22),
        "luminal": CellState(EPITHELIAL, ("epithelium", "luminal_line", "luminal"), 1.3, 0.24),
        CARCINOMA: CellState(EPITHELIAL, ("epithelium", "luminal_line", CARCINOMA), 1.0, 0.24),
    }
)
MIXTURES: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        # non-tumour cells of a marrow aspirate; disseminated cells are set by the scenario
        "marrow": MappingProxyType(
            {
                "T_NK": 0.350,
                "B": 0.080,
                "plasma": 0.030,
                "monocyte": 0.250,
                "dendritic": 0.025,
                "neutrophil": 0.040,
                "erythroid": 0.150,
                "megakaryocyte": 0.015,
                "HSPC": 0.060,
            }
        ),
        "primary": MappingProxyType(
            {
                CARCINOMA: 0.60,
                "luminal": 0.03,
                "fibroblast": 0.14,
                "endothelial": 0.06,
                "pericyte": 0.02,
                "T_NK": 0.08,
                "B": 0.015,
                "macrophage": 0.05,
                "mast": 0.005,
            }
        ),
    }
)
MIXTURE_CONCENTRATION: Final = 120.0
"""Concentration of the Dirichlet distribution by which samples differ in composition."""

# Genes so abundant in one state that they shape its counts: share of all counts
ABUNDANT: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        "T_NK": {"IL32": 0.002, "CCL5": 0.003},
        "B": {"IGKC": 0.006, "IGHM": 0.003, "CD74": 0.010},
        "plasma": {
            "IGKC": 0.060,
            "IGHG1": 0.040,
            "IGHA1": 0.030,
            "IGLC2": 0.030,
            "IGHG3": 0.012,
            "IGLC3": 0.012,
            "JCHAIN": 0.015,
            "MZB1": 0.004,
        },
        "monocyte": {"S100A8": 0.012, "S100A9": 0.016, "LYZ": 0.014, "CD74": 0.004},
        "macrophage": {"APOE": 0.006, "C1QA": 0.004, "C1QB": 0.004, "CD74": 0.010, "LYZ": 0.004},
        "dendritic": {"CD74": 0.018, "LYZ": 0.006},
        "neutrophil": {"S100A8": 0.030, "S100A9": 0.035, "LYZ": 0.010},
        "mast": {"TPSAB1": 0.015, "TPSB2": 0.015},
        "erythroid": {"HBB": 0.120, "HBA2": 0.090, "HBA1": 0.070, "HBD": 0.004},
        "megakaryocyte": {"PPBP": 0.020, "PF4": 0.018},
        "fibroblast": {"COL1A1": 0.008, "COL1A2": 0.007, "COL3A1": 0.007, "DCN": 0.004, "LUM": 0.003},
        "pericyte": {"ACTA2": 0.006, "RGS5": 0.005, "TAGLN": 0.005},
        "endothelial": {"VWF": 0.002, "PECAM1": 0.002},
        "luminal": {"KRT8": 0.003, "KRT18": 0.003, "KRT19": 0.004, "EPCAM": 0.0012},
        CARCINOMA: {"KRT8": 0.004, "KRT18": 0.004, "KRT19": 0.005, "EPCAM": 0.0015},
    }
)
EVERYWHERE: Final[Mapping[str, float]] = MappingProxyType(
    {
        "B2M": 0.008,
        "TMSB4X": 0.008,
        "ACTB": 0.006,
        "FTL": 0.006,
        "FTH1": 0.008,
        "EEF1A1": 0.008,
        "TPT1": 0.005,
        "MALAT1": 0.012,
        "XIST": 0.0005,
    }
)
"""Share of counts of genes that are abundant in all states (the patients are women)."""
STRAY_KERATINS: Final = ("KRT8", "KRT18")

# ---------------------------------------------------------------------------------------------------------------------
# Copy number
# ---------------------------------------------------------------------------------------------------------------------

ARM_WEIGHTS: Final[Mapping[str, tuple[int, float]]] = MappingProxyType(
    {
        # copies gained or lost, weight of being drawn. The commonest arms and their directions are those of the TCGA
        # breast cancers (PMID 23000897; common arm gains 1q, 8q, 16p and losses 16q, 17p, 8p in the analysis of
        # doi:10.1080/07357907.2020.1863418). Weights are rounded order-of-magnitude frequencies, not estimates.
        "1q": (1, 0.55),
        "8q": (1, 0.50),
        "16p": (1, 0.35),
        "20q": (1, 0.30),
        "17q": (1, 0.25),
        "20p": (1, 0.15),
        "7p": (1, 0.12),
        "5p": (1, 0.12),
        "16q": (-1, 0.50),
        "17p": (-1, 0.45),
        "8p": (-1, 0.40),
        "11q": (-1, 0.32),
        "13q": (-1, 0.32),
        "22q": (-1, 0.28),
        "6q": (-1, 0.20),
        "18q": (-1, 0.18),
        "9p": (-1, 0.18),
        "4q": (-1, 0.15),
        "1p": (-1, 0.15),
        "14q": (-1, 0.14),
    }
)
DOUBLE_GAIN_RATE: Final = 0.25
"""Share of gains with four copies instead of three."""


def event_label(arm: str, change: int) -> str:
    """``+1q`` for one more copy, ``++8q`` for two, ``-16q`` for one less."""
    return ("+" * change if change > 0 else "-" * -change) + arm


def join_events(changes: Mapping[str, int]) -> str:
    """All events of a cell as one field, in the order of :data:`ARM_WEIGHTS` (empty: diploid)."""
    return ";".join(event_label(arm, changes[arm]) for arm in ARM_WEIGHTS if changes.get(arm))


def draw_karyotype(scenario: Scenario, rng: np.random.Generator) -> dict[str, dict[str, int]]:
    """Draw a tumour: for ``trunk``, ``A`` and ``B`` the change of copies per altered arm.

    Both subclones carry the trunk's events and their own; no arm is altered twice.
    """
    private = rng.integers(scenario.private_arms[0], scenario.private_arms[1], size=2, endpoint=True)
    total = int(rng.integers(scenario.altered_arms[0], scenario.altered_arms[1], endpoint=True))
    n_trunk = max(scenario.min_trunk_arms, total - int(private.sum()))
    arms = np.array(list(ARM_WEIGHTS), dtype=object)
    weights = np.array([weight for _, weight in ARM_WEIGHTS.values()])
    n_arms = min(n_trunk + int(private.sum()), len(arms))
    drawn = rng.choice(len(arms), size=n_arms, replace=False, p=weights / weights.sum())
    doubled = rng.random(n_arms) < DOUBLE_GAIN_RATE
    changes = {}
    for position, double in zip(drawn, doubled, strict=True):
        change = ARM_WEIGHTS[arms[position]][0]
        changes[str(arms[position])] = 2 if change > 0 and double else change
    names = list(changes)
    own = (names[n_trunk : n_trunk + int(private[0])], names[n_trunk + int(private[0]) :])
    trunk = {arm: changes[arm] for arm in names[:n_trunk]}
    return {TRUNK: trunk, **{clone: trunk | {a: changes[a] for a in own[k]} for k, clone in enumerate(SUBCLONES)}}


# ---------------------------------------------------------------------------------------------------------------------
# Samples
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SamplePlan:
    """One sample of the cohort before anything is drawn."""

    sample_id: str
    patient: int
    """Index of the patient, from 0."""
    patient_id: str
    compartment: str
    batch: str
    n_cells: int


def plan_cohort(n_patients: int, marrow_cells: int, primary_cells: int) -> list[SamplePlan]:
    """List the samples: ``P01_marrow``, ``P01_primary``, ``P02_marrow`` ... Batches alternate between patients."""
    if min(n_patients, marrow_cells, primary_cells) < 0:
        raise ValueError("numbers of patients and cells must not be negative")
    sizes = {"marrow": marrow_cells, "primary": primary_cells}
    return [
        SamplePlan(f"P{p + 1:02d}_{where}", p, f"P{p + 1:02d}", where, BATCHES[p % len(BATCHES)], size)
        for p in range(n_patients)
        for where, size in sizes.items()
    ]


def n_dtc(scenario: Scenario, patient: int, marrow_cells: int) -> int:
    """Return the number of disseminated tumour cells (single barcodes) among ``marrow_cells``."""
    fraction = scenario.dtc_fractions[patient % len(scenario.dtc_fractions)]
    if fraction <= 0:
        return 0
    return min(marrow_cells // 2, max(scenario.min_dtc, round(fraction * marrow_cells)))


# Invented patients of the demo: the fields a clinical claim would read. No outcome: those claims must end NO_DATA.
_CLINICAL: Final = pd.DataFrame(
    {
        "age": [54, 61, 47, 66, 58, 43, 70, 51],
        "stage": ["II", "III", "II", "I", "II", "III", "II", "I"],
        "grade": [2, 3, 2, 2, 2, 3, 2, 1],
        "er": ["positive", "negative", "positive", "positive", "positive", "negative", "positive", "positive"],
        "pr": ["positive", "negative", "positive", "positive", "negative", "negative", "positive", "positive"],
        "her2": ["negative", "negative", "negative", "positive", "negative", "negative", "negative", "negative"],
    }
)


def sample_sheet(n_patients: int = 10, *, path: str = "results/simulated/matrices/{sample_id}.h5ad") -> pd.DataFrame:
    """Return the sample sheet of a simulated cohort; ``path`` is filled in with each ``sample_id``."""
    rows = []
    for sample in plan_cohort(n_patients, 0, 0):
        marrow = sample.compartment == "marrow"
        rows.append(
            {
                "sample_id": sample.sample_id,
                "patient_id": sample.patient_id,
                "compartment": sample.compartment,
                "path": path.format(sample_id=sample.sample_id),
                "platform": "droplet",
                "batch": sample.batch,
                "timepoint": "pre",
                "enrichment": "depletion" if marrow else "none",
                "nucleated_cells_screened": "2000000" if marrow else "",
                "sex": "female",
                **{key: str(_CLINICAL[key].iloc[sample.patient % len(_CLINICAL)]) for key in _CLINICAL},
            }
        )
    return pd.DataFrame(rows)
