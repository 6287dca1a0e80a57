"""Simulated cohorts with a planted truth, sample by sample or written to a folder."""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anndata as ad
import h5py
import pandas as pd

from dtcflow.contracts import InputError, Problem, write_bytes, write_json, write_table
from dtcflow.simulate.cells import TRUTH_COLUMNS, Cells, draw_cells
from dtcflow.simulate.counts import draw_counts
from dtcflow.simulate.design import SamplePlan, Scenario, get_scenario, n_dtc, plan_cohort
from dtcflow.simulate.expression import Patient, build_universe, draw_patient

log = logging.getLogger(__name__)

N_PATIENTS: Final = 10
"""Holm over four confirmatory claims asks for p <= .0125, which needs eight usable patients; one of the ten has no
disseminated cell."""
MARROW_CELLS: Final = 1_200
PRIMARY_CELLS: Final = 300


@dataclass(frozen=True)
class SimulatedSample:
    """One sample and its truth."""

    sample_id: str
    patient_id: str
    compartment: str
    batch: str
    adata: ad.AnnData
    """Counts as an export of Cell Ranger holds them: ``X`` CSR ``int32``, ``obs`` index barcodes and no column,
    ``var`` index symbol with ``gene_ids``, ``feature_types`` and ``genome``. Nothing of the truth is in it."""
    truth: pd.DataFrame
    """One row per barcode, in the order of ``adata``; columns ``cells.TRUTH_COLUMNS``."""
    karyotype: pd.DataFrame
    """``patient_id``, ``clone``, ``arm``, ``copy_change`` of the patient's tumour."""


@dataclass(frozen=True)
class Truth:
    """The truth of a whole cohort."""

    cells: pd.DataFrame
    """Columns ``cells.TRUTH_COLUMNS``."""
    karyotypes: pd.DataFrame
    """``patient_id``, ``clone``, ``arm``, ``copy_change`` (copies more or less than two)."""
    patients: pd.DataFrame
    """``patient_id``, ``batch``, ``n_dtc`` (single cells), ``dtc_clone``, ``programme_scale``, ``programme_dtc``,
    ``shift_log2``."""


def _karyotype(patient_id: str, patient: Patient) -> pd.DataFrame:
    rows = [
        (patient_id, clone, arm, change)
        for clone, changes in patient.karyotype.items()
        for arm, change in changes.items()
    ]
    return pd.DataFrame(rows, columns=["patient_id", "clone", "arm", "copy_change"])


def _selected(plans: list[SamplePlan], samples: Collection[str] | None) -> list[SamplePlan]:
    """Keep the plans that ``samples`` names.

    Raises
    ------
    InputError
        When a name is not a sample of the cohort.
    """
    if samples is None:
        return plans
    known = {plan.sample_id for plan in plans}
    if unknown := sorted(set(samples) - known):
        raise InputError(
            "samples that the simulated cohort does not have",
            [
                Problem("simulated cohort", name, ", ".join(sorted(known)) or "no sample", "ask for one of these")
                for name in unknown
            ],
        )
    return [plan for plan in plans if plan.sample_id in set(samples)]


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise InputError(
            "the seed of a simulated cohort must not be negative",
            [Problem("configuration", str(seed), "a whole number from 0 on", "choose another", key="simulate.seed")],
        )


def simulate_cohort(
    scenario: Scenario | str,
    *,
    seed: int,
    n_patients: int = N_PATIENTS,
    marrow_cells: int = MARROW_CELLS,
    primary_cells: int = PRIMARY_CELLS,
    samples: Collection[str] | None = None,
) -> Iterator[SimulatedSample]:
    """Simulate a cohort of breast cancer patients, one sample at a time.

    Each patient ``P01``, ``P02``, ... has a bone-marrow aspirate (``P01_marrow``) with a few disseminated tumour cells
    and a primary tumour (``P01_primary``).

    Parameters
    ----------
    scenario
        A preset's name (``"progenitor"``, ``"null"``) or a :class:`~dtcflow.simulate.design.Scenario`.
    seed
        Seed, from 0 on. The same scenario, seed and numbers of cells give the same sample, whichever other samples
        are made and however many patients there are.
    n_patients, marrow_cells, primary_cells
        Size of the cohort: patients, and barcodes per sample (zero is allowed).
    samples
        Only these samples, in the cohort's order; ``None``: all.

    Yields
    ------
    One sample after the other, so that memory holds one.

    Raises
    ------
    InputError
        For an unknown scenario or sample, or a negative seed.
    """
    scenario = get_scenario(scenario)
    _check_seed(seed)
    plans = _selected(plan_cohort(n_patients, marrow_cells, primary_cells), samples)
    universe = build_universe(scenario, seed)
    var = pd.DataFrame(
        {
            "gene_ids": universe.genes["gene_id"].to_numpy(object),
            "feature_types": "Gene Expression",
            "genome": "GRCh38",
        },
        index=pd.Index(universe.genes.index.to_numpy(object), dtype=object),
    ).astype(object)
    for plan in plans:
        patient = draw_patient(scenario, seed, plan.patient, len(universe.genes))
        cells = draw_cells(plan, patient, scenario, seed)
        counts = draw_counts(plan, cells, patient, universe, scenario, seed)
        obs = pd.DataFrame(index=pd.Index(cells.barcodes, dtype=object))
        yield SimulatedSample(
            sample_id=plan.sample_id,
            patient_id=plan.patient_id,
            compartment=plan.compartment,
            batch=plan.batch,
            adata=ad.AnnData(counts, obs=obs, var=var.copy()),
            truth=cells.truth,
            karyotype=_karyotype(plan.patient_id, patient),
        )


def cohort_truth(
    scenario: Scenario | str,
    *,
    seed: int,
    n_patients: int = N_PATIENTS,
    marrow_cells: int = MARROW_CELLS,
    primary_cells: int = PRIMARY_CELLS,
) -> Truth:
    """Return the truth of a cohort without drawing a single count.

    Parameters and errors are those of :func:`simulate_cohort`.
    """
    scenario = get_scenario(scenario)
    _check_seed(seed)
    cells, karyotypes, patients = [], [], []
    for plan in plan_cohort(n_patients, marrow_cells, primary_cells):
        patient = draw_patient(scenario, seed, plan.patient, 0)
        drawn: Cells = draw_cells(plan, patient, scenario, seed)
        cells.append(drawn.truth)
        if plan.compartment == "marrow":
            karyotypes.append(_karyotype(plan.patient_id, patient))
            patients.append(
                {
                    "patient_id": plan.patient_id,
                    "batch": plan.batch,
                    "n_dtc": n_dtc(scenario, plan.patient, marrow_cells),
                    "dtc_clone": patient.dtc_clone,
                    "programme_scale": patient.programme_scale,
                    "programme_dtc": patient.programme_dtc,
                    "shift_log2": patient.shift,
                }
            )
    if not cells:
        empty = pd.DataFrame(columns=list(TRUTH_COLUMNS))
        return Truth(empty, pd.DataFrame(columns=["patient_id", "clone", "arm", "copy_change"]), pd.DataFrame())
    return Truth(pd.concat(cells, ignore_index=True), pd.concat(karyotypes, ignore_index=True), pd.DataFrame(patients))


def write_matrix(adata: ad.AnnData, path: str | Path) -> None:
    """Write ``adata`` as ``.h5ad``, all or nothing and byte for byte the same for the same content."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as handle:
        ad.io.write_elem(handle, "/", adata, dataset_kwargs={"compression": "gzip", "compression_opts": 1})
    write_bytes(path, buffer.getvalue())


def write_cohort(
    out_dir: str | Path,
    scenario: Scenario | str,
    *,
    seed: int,
    n_patients: int = N_PATIENTS,
    marrow_cells: int = MARROW_CELLS,
    primary_cells: int = PRIMARY_CELLS,
    samples: Collection[str] | None = None,
) -> None:
    """Simulate a cohort into a folder.

    Writes ``matrices/{sample_id}.h5ad`` and, always for the whole cohort, ``truth/cells.tsv.gz``,
    ``truth/karyotypes.tsv``, ``truth/patients.tsv`` and ``truth/parameters.json``. The same arguments give the same
    bytes; ``samples`` only chooses which matrices are written.

    Parameters
    ----------
    out_dir
        Folder; made when it is not there.
    scenario, seed, n_patients, marrow_cells, primary_cells, samples
        See :func:`simulate_cohort`.

    Raises
    ------
    InputError
        For an unknown scenario or sample, or a negative seed.
    """
    scenario = get_scenario(scenario)
    out_dir = Path(out_dir)
    size = {"n_patients": n_patients, "marrow_cells": marrow_cells, "primary_cells": primary_cells}
    for sample in simulate_cohort(scenario, seed=seed, samples=samples, **size):
        write_matrix(sample.adata, out_dir / "matrices" / f"{sample.sample_id}.h5ad")
        log.info("%s: %d cells, %d genes", sample.sample_id, *sample.adata.shape)
    truth = cohort_truth(scenario, seed=seed, **size)
    write_table(truth.cells, out_dir / "truth" / "cells.tsv.gz")
    write_table(truth.karyotypes, out_dir / "truth" / "karyotypes.tsv")
    write_table(truth.patients, out_dir / "truth" / "patients.tsv")
    write_json(
        out_dir / "truth" / "parameters.json",
        {"seed": seed, **size, "scenario": dataclasses.asdict(scenario)},
    )
