"""Marrow samples with a population that a copy-number caller may take for a tumour, simulated or of real cells.

Every sample holds normal cells, one named confounder at a known share and, where asked for, real or simulated tumour
cells. Cell types and epithelial evidence come from the package's own first-pass marker annotation for simulated cells
and from the published labels (types) with computed epithelial evidence for real ones. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from semireal import thinned

from dtcflow.contracts import EPITHELIAL, UNKNOWN
from dtcflow.genes import load_positions
from dtcflow.genes.placement import load_aliases, place_genes
from dtcflow.qc.lineage import first_pass_lineage
from dtcflow.qc.loss_audit import epithelial_evidence
from dtcflow.simulate.cells import Cells
from dtcflow.simulate.counts import draw_counts
from dtcflow.simulate.design import CARCINOMA, SCENARIOS, STATES, join_events, plan_cohort
from dtcflow.simulate.expression import Patient, Universe, build_universe, draw_patient

Component = dict[str, Any]

EPITHELIAL_Z = 3.0
SETTINGS: dict[str, Any] = {
    "reference_key": None,
    "reference_labels": [],
    "max_reference_per_type": 300,
    "min_reference_cells": 50,
    "min_genes": 2000,
    "window_size": 100,
    "step": 10,
    "folds": 5,
    "fdr": 0.05,
    "min_abs_log_ratio": 0.15,
    "tumour_lineage": "epithelial",
}
"""The shipped defaults (config/config.yaml)."""
BASE: dict[str, int] = {
    "T_NK": 340,
    "monocyte": 240,
    "erythroid": 140,
    "B": 80,
    "HSPC": 60,
    "neutrophil": 40,
    "plasma": 30,
    "dendritic": 25,
    "megakaryocyte": 25,
    "fibroblast": 40,
}
"""Marrow cells around the confounder: the simulator's mixture, rounded, with some stroma."""
OVARIAN_TYPES: Mapping[str, str] = {
    "T_cell": "T_NK",
    "B_cell": "B",
    "Macrophage": "monocyte",
    "Fibroblast": "fibroblast",
    "Endothelial": "endothelial",
    "Epithelial": EPITHELIAL,
}
LEFT_OUT = "left_out"


@dataclass(frozen=True)
class Sample:
    """Cells of one patient and the truth: ``truth`` is ``normal``, ``confounder`` or ``tumour`` per cell."""

    adata: ad.AnnData
    cells: pd.DataFrame
    truth: np.ndarray
    true_type: np.ndarray

    def without_type(self, name: str, *, named: bool = False) -> tuple[Sample, dict[str, Any]]:
        """The sample with a true type dropped from the reference, and the settings that say so.

        The cells of that type lose their name as well unless ``named``: the annotation does not know them.
        """
        return self.without(self.true_type == name, named=named)

    def without(self, gone: np.ndarray, *, named: bool = False) -> tuple[Sample, dict[str, Any]]:
        """:meth:`without_type` for any set of cells, such as those of a donor."""
        cells = self.cells.copy()
        types = cells["cell_type"].to_numpy(dtype=object)
        usable = ~epithelial_evidence(cells, epithelial_z=EPITHELIAL_Z).to_numpy(dtype=bool)
        usable &= ~np.isin(types, [EPITHELIAL, UNKNOWN]) & ~gone
        cells["reference_label"] = np.where(usable, types, LEFT_OUT)
        if not named:
            cells["cell_type"] = np.where(gone & (types != EPITHELIAL), UNKNOWN, types)
        labels = sorted(set(cells["reference_label"]) - {LEFT_OUT})
        return replace(self, cells=cells), {"reference_key": "reference_label", "reference_labels": labels}

    def subset(self, keep: np.ndarray) -> Sample:
        """The chosen cells in their order."""
        rows = np.flatnonzero(keep) if keep.dtype == bool else keep
        return Sample(
            self.adata[rows].copy(),
            self.cells.iloc[rows].reset_index(drop=True),
            self.truth[rows],
            self.true_type[rows],
        )


def assemble(
    counts: sp.csr_matrix,
    genes: pd.Index,
    *,
    truth: np.ndarray,
    true_type: np.ndarray,
    labels: np.ndarray | None = None,
    name: str,
    seed: int = 0,
) -> Sample:
    """Place the genes, annotate the cells (``labels`` replace the annotated types) and put both together."""
    counts = sp.csr_matrix(counts, dtype=np.float32)
    var = _placed(tuple(genes.astype(str)))
    first = first_pass_lineage(counts, pd.Index(var.index.astype(str)), seed=seed).cells
    ids = [f"{name}:c{i:05d}" for i in range(counts.shape[0])]
    cells = pd.DataFrame(
        {
            "cell_id": ids,
            "sample_id": name,
            "patient_id": name,
            "compartment": "marrow",
            "cell_type": first["first_pass_type"].to_numpy(dtype=object) if labels is None else labels,
            "epithelial_z": first["epithelial_z"].to_numpy(dtype=float),
            "n_epithelial_markers": first["n_epithelial_markers"].to_numpy(dtype=int),
            "is_doublet": False,
        }
    )
    adata = ad.AnnData(obs=pd.DataFrame(index=pd.Index(ids, dtype=object)), var=var)
    adata.layers["counts"] = counts
    return Sample(adata, cells, np.asarray(truth, dtype=object), np.asarray(true_type, dtype=object))


@cache
def _placed(genes: tuple[str, ...]) -> pd.DataFrame:
    positions, aliases = load_positions(), load_aliases()
    return place_genes(pd.DataFrame(index=pd.Index(genes, dtype=object)), positions, aliases)


# ---------------------------------------------------------------------------------------------------------------------
# Simulated cells
# ---------------------------------------------------------------------------------------------------------------------


@cache
def _world(seed: int, patient: int) -> tuple[Universe, Patient]:
    shape = SCENARIOS["progenitor"]
    universe = build_universe(shape, seed)
    return universe, draw_patient(shape, seed, patient, len(universe.genes))


def simulated(
    seed: int,
    confounder: list[Component],
    *,
    tumour: int = 0,
    base: Mapping[str, int] = BASE,
    scale: float = 1.0,
    depth: float = 2_800,
    lysed_tumour: float = 0.0,
    patient: int = 0,
) -> Sample:
    """Draw a marrow with a confounder.

    Parameters
    ----------
    seed, patient
        Cohort seed and patient (from 0) of the simulator.
    confounder
        One entry per cell: ``state`` and any other column of a component that differs (``altered phase stray ambient
        depth`` ...; ``depth`` multiplies the library size).
    tumour
        Carcinoma cells with the patient's karyotype, 3,500 counts in the median.
    base, scale
        Normal cells per state, and a factor for all of them.
    depth
        Median counts of a marrow cell whose state has factor 1.
    lysed_tumour
        Share of the soup that comes from burst tumour cells.
    """
    shape = SCENARIOS["progenitor"]
    universe, person = _world(seed, patient)
    rng = np.random.default_rng([seed, patient, 31])
    rows: list[Component] = []

    def add(state: str, **changes: Any) -> None:
        factor = changes.pop("depth", 1.0)
        median = (3_500 if state == CARCINOMA else depth * STATES[state].library) * factor
        rows.append(
            {
                "barcode": len(rows),
                "state": state,
                "clone": "",
                "altered": "",
                "programme": False,
                "phase": int(rng.integers(1, 3)) if rng.random() < STATES[state].cycling else 0,
                "dying": 0.0,
                "stray": False,
                "ambient": float(rng.beta(0.04 * 40, 0.96 * 40)),
                "library": median * float(np.exp(rng.normal(0.0, shape.library_sd))),
                **changes,
            }
        )

    for state, n in base.items():
        for _ in range(round(n * scale)):
            add(state)
    n_base = len(rows)
    for cell in confounder:
        add(**cell)
    events = join_events(person.karyotype[person.dtc_clone])
    for _ in range(tumour):
        add(CARCINOMA, altered=events, clone=person.dtc_clone, programme=bool(rng.random() < person.programme_dtc))
    n = len(rows)
    if lysed_tumour > 0:
        total = sum(float(row["library"]) for row in rows)
        add(CARCINOMA, altered=events, clone=person.dtc_clone, ambient=0.0)
        rows[-1]["library"] = lysed_tumour / (1 - lysed_tumour) * total
    components = pd.DataFrame(rows)
    barcodes = np.array([f"b{i}" for i in range(len(rows))], dtype=object)
    plan = plan_cohort(patient + 1, n, 0)[2 * patient]
    counts = draw_counts(plan, Cells(barcodes, components, pd.DataFrame()), person, universe, shape, seed)[:n]
    truth = np.array(["normal"] * n_base + ["confounder"] * len(confounder) + ["tumour"] * tumour, dtype=object)
    types = np.array([STATES[row["state"]].cell_type for row in rows[:n]], dtype=object)
    return assemble(
        sp.csr_matrix(counts), universe.genes.index, truth=truth, true_type=types, name=f"sim{seed}", seed=seed
    )


# ---------------------------------------------------------------------------------------------------------------------
# Real cells
# ---------------------------------------------------------------------------------------------------------------------


@cache
def _ovarian(path: Path) -> tuple[ad.AnnData, sp.csr_matrix]:
    cells = ad.read_h5ad(path)
    return cells, sp.csr_matrix(cells.X, dtype=np.float32)


def ovarian(data: Path, donors: tuple[str, ...], *, tumour: int = 0, seed: int = 1, thin: float = 1.0) -> Sample:
    """Normal cells of ovarian patients with published types, and ``tumour`` carcinoma cells of the first of them."""
    source, counts = _ovarian(data / "ovarian_qian2020_swiftcnv" / "ovarian_qian2020_swiftcnv.h5ad")
    donor = source.obs["sample"].astype(str).to_numpy()
    kind = source.obs["cell_type"].astype(str).map(OVARIAN_TYPES).to_numpy(dtype=object)
    rng = np.random.default_rng([seed, 32])
    normal = np.flatnonzero(np.isin(donor, donors) & (kind != EPITHELIAL))
    carcinoma = rng.permutation(np.flatnonzero((donor == donors[0]) & (kind == EPITHELIAL)))[:tumour]
    rows = np.concatenate([normal, carcinoma])
    values = sp.csr_matrix(counts[rows])
    if thin < 1:
        values = thinned(values, thin, rng)
    sample = assemble(
        values,
        pd.Index(source.var_names),
        truth=np.array(["normal"] * len(normal) + ["tumour"] * len(carcinoma), dtype=object),
        true_type=kind[rows],
        labels=kind[rows].copy(),
        name="OV" + "_".join(donors),
    )
    sample.cells["donor"] = donor[rows]
    return sample


def immune(data: Path, *, seed: int = 1) -> Sample:
    """Normal immune cells of the CellTypist sample, types by the package's first-pass annotation."""
    source = ad.read_h5ad(data / "normal_immune_celltypist_sample" / "normal_immune_celltypist_sample.h5ad")
    n = source.n_obs
    sample = assemble(
        sp.csr_matrix(source.X, dtype=np.float32),
        pd.Index(source.var_names),
        truth=np.array(["normal"] * n, dtype=object),
        true_type=np.array([""] * n, dtype=object),
        name="IMM",
        seed=seed,
    )
    return replace(sample, true_type=sample.cells["cell_type"].to_numpy(dtype=object))
