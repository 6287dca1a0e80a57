"""Simulated breast-cancer DTC cohorts with a planted truth.

``progenitor`` plants a self-renewing programme in disseminated tumour cells; ``null`` plants none, but every artefact
that imitates one (shallow cells, haematopoietic contamination, a proliferating primary). Marrow stem cells that score
high on stemness sets and are copy-number flat are in both.
"""

from dtcflow.simulate.cohort import SimulatedSample, Truth, cohort_truth, simulate_cohort, write_cohort
from dtcflow.simulate.design import SCENARIOS, Scenario, get_scenario, sample_sheet
from dtcflow.simulate.droplets import RawSample, simulate_raw
from dtcflow.simulate.study import write_study

__all__ = [
    "SCENARIOS",
    "RawSample",
    "Scenario",
    "SimulatedSample",
    "Truth",
    "cohort_truth",
    "get_scenario",
    "sample_sheet",
    "simulate_cohort",
    "simulate_raw",
    "write_cohort",
    "write_study",
]
