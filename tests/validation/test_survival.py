"""Tumour cells in quality control: who passes, and that every one that does not is named. Simulated, planted truth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import qc_survival

from dtcflow.contracts import COUNTS, TABLES
from dtcflow.qc.loss_audit import audit_losses
from dtcflow.qc.run import qc_sample
from dtcflow.simulate.cohort import simulate_cohort
from dtcflow.simulate.design import Scenario, get_scenario

pytestmark = pytest.mark.validation


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """A small version of the committed table, on another cohort."""
    return qc_survival.survival(seeds=[5], ratios=[1.0, 5.0, 8.0], samples={0.001: 2, 0.005: 1, 0.02: 1})


def test_living_tumour_cells_of_every_size_pass(table: pd.DataFrame) -> None:
    overall = table[table["tumour_percent"].isna()].set_index("size_ratio")
    assert (overall["tumour_alive"] > 130).all()
    # 130 cells: one lost one is 0.8 %
    assert (overall["passing"] >= 99).all()
    assert (overall["mito_rich_passing"] >= 97).all()
    assert (overall["dying_flagged"] >= 95).all()
    assert (overall["immune_passing"] >= 99).all()


def test_the_usual_filter_loses_large_and_mitochondria_rich_tumour_cells(table: pd.DataFrame) -> None:
    overall = table[table["tumour_percent"].isna()].set_index("size_ratio")
    assert overall.loc[8.0, "passing_5mad"] < 50
    assert (overall["mito_rich_passing_5mad"] < 5).all()


def test_the_economical_decision_is_that_of_quality_control() -> None:
    scenario = get_scenario("progenitor")
    universe = qc_survival.build_universe(scenario, 6)
    adata, _ = qc_survival.draw_sample(universe, scenario, ratio=5.0, fraction=0.02, patient=0, cells=600, seed=6)
    whole, _ = qc_sample(adata, settings={}, epithelial_z_threshold=3.0, seed=6)
    alone = qc_survival.decide(adata, seed=6)
    for column in ("pass_qc", "qc_reasons", "lineage"):
        assert (whole[column].to_numpy() == alone[column].to_numpy()).all()


POOR = dataclasses.replace(
    get_scenario("progenitor"), name="poor", library_dtc=250, ambient_dtc=0.3, dying_rate=0.15, dtc_fractions=(0.05,)
)
"""Tumour cells of 250 counts in 30 % ambient RNA, many of them dying with less than 100."""


@pytest.mark.parametrize(
    ("scenario", "seed"), [("progenitor", 6), ("progenitor", 7), ("null", 6), (POOR, 6), (POOR, 7)]
)
def test_every_tumour_cell_that_quality_control_removes_is_in_the_loss_audit(
    scenario: str | Scenario, seed: int
) -> None:
    tables, tumour = [], set()
    for sample in simulate_cohort(scenario, seed=seed, n_patients=3):
        adata = sample.adata
        adata.layers[COUNTS] = adata.X.astype(np.float32)
        adata.obs_names = f"{sample.sample_id}:" + adata.obs_names
        for key in ("sample_id", "patient_id", "compartment"):
            adata.obs[key] = getattr(sample, key)
        cells, _ = qc_sample(adata, settings={}, epithelial_z_threshold=3.0, seed=seed)
        tables.append(cells)
        tumour |= set(sample.truth.loc[sample.truth["is_tumour"], "cell_id"])
    cells = pd.concat(tables, ignore_index=True)
    removed = set(cells.loc[~cells["pass_qc"], "cell_id"]) & tumour
    assert len(removed) >= 10
    nothing = pd.DataFrame(columns=list(TABLES["calls"]))
    audit = audit_losses(cells[~cells["pass_qc"]], nothing, epithelial_z=3.0)
    assert removed <= set(audit["cell_id"])
    # left undecided, they are all listed, too
    undecided = audit_losses(cells[cells["pass_qc"]], nothing, epithelial_z=3.0)
    assert (set(cells.loc[cells["pass_qc"], "cell_id"]) & tumour) <= set(undecided["cell_id"])
    # the list stays a list: cells that are plainly of another lineage are not on it
    assert len(audit) < 0.75 * (~cells["pass_qc"]).sum()
