"""From the hidden truth of a sample to its counts."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from dtcflow.simulate.cells import Cells, sample_key
from dtcflow.simulate.design import CARCINOMA, STATES, SamplePlan, Scenario
from dtcflow.simulate.expression import Floats, Patient, Universe, dosage_factor, stream

BLOCK: Final = 256
"""Cells drawn at a time. Part of the model: the draws depend on it, so it is not an option."""


def parse_events(altered: str) -> dict[str, int]:
    """Read the field that ``design.join_events`` writes: ``++8q;-16q`` -> ``{"8q": 2, "16q": -1}``."""
    changes = {}
    for event in filter(None, altered.split(";")):
        arm = event.lstrip("+-")
        sign = event[: len(event) - len(arm)]
        changes[arm] = len(sign) if sign[0] == "+" else -len(sign)
    return changes


def _state_profiles(sample: SamplePlan, patient: Patient, universe: Universe, states: pd.Series) -> dict[str, Floats]:
    """Profile of every state in this sample: patient and batch included, copy number not. Rows sum to one."""
    common = patient.own * universe.batches[sample.batch]
    profiles = {}
    for state in sorted(states.unique()):
        profile = universe.profiles[state] * common
        if state == CARCINOMA:
            profile = profile * patient.tumour
            if sample.compartment == "marrow":
                in_programme = (universe.programme != 0) * patient.shift
                profile = profile * patient.niche * np.exp2(in_programme)
        profiles[state] = profile / profile.sum()
    return profiles


def _soup(components: pd.DataFrame, profiles: dict[str, Floats], universe: Universe, leak: dict[str, float]) -> Floats:
    """The sample's ambient profile: the mean of its cells, weighted by counts and the state's leak. Sums to one."""
    soup: Floats = np.zeros(len(universe.genes))
    totals = components.groupby(["state", "altered"], as_index=False, sort=True)["library"].sum()
    for state, altered, library in totals.itertuples(index=False, name=None):
        profile = profiles[state]
        if altered:
            profile = profile * dosage_factor(universe, parse_events(altered))
            profile = profile / profile.sum()
        soup += leak.get(str(state), 1.0) * library * profile
    soup /= soup.sum()
    return soup


def _leak(sample: SamplePlan, scenario: Scenario, seed: int) -> dict[str, float]:
    """How much each cell state leaves in the soup, relative to its captured counts."""
    if scenario.leak_sd == 0:
        return {}
    drawn = np.exp(stream(seed, 7, *sample_key(sample)).normal(0.0, scenario.leak_sd, len(STATES)))
    return dict(zip(STATES, drawn.tolist(), strict=True))


def soup_profile(
    sample: SamplePlan, cells: Cells, patient: Patient, universe: Universe, scenario: Scenario, seed: int
) -> Floats:
    """Share of every gene in the sample's soup, as :func:`draw_counts` uses it.

    Returns
    -------
    Length n genes, sums to one; zeros for a sample without cells.
    """
    if cells.components.empty:
        return np.zeros(len(universe.genes))
    profiles = _state_profiles(sample, patient, universe, cells.components["state"])
    return _soup(cells.components, profiles, universe, _leak(sample, scenario, seed))


def _own_rates(
    block: pd.DataFrame, profile: Floats, patient: Patient, universe: Universe, scenario: Scenario
) -> NDArray[np.float32]:
    """Expected share of counts per cell and gene, without the soup. Rows sum to one."""
    rates = np.repeat(profile[None, :].astype(np.float32), len(block), axis=0)
    for altered in sorted(set(block["altered"]) - {""}):
        rows = block["altered"].eq(altered).to_numpy()
        rates[rows] *= dosage_factor(universe, parse_events(altered)).astype(np.float32)
    programme = block["programme"].to_numpy(bool)
    phase = block["phase"].to_numpy()
    changes = (
        (programme, universe.programme * patient.programme_scale),
        (programme & (phase == 0), universe.quiescence * patient.programme_scale),
        (phase == 1, universe.s_phase),
        (phase == 2, universe.g2m_phase),
    )
    for rows, log2fc in changes:
        if rows.any() and log2fc.any():
            rates[rows] *= np.exp2(log2fc).astype(np.float32)
    rates /= rates.sum(axis=1, keepdims=True)
    stray = block["stray"].to_numpy(bool)
    rates[np.ix_(stray, universe.keratins)] += np.float32(scenario.stray_keratin_share)
    dying = block["dying"].to_numpy(np.float32)
    for row in np.flatnonzero(dying):
        mitochondrial = rates[row, universe.mitochondrial].sum()
        rates[row] *= (1 - dying[row]) / (1 - mitochondrial)
        rates[row, universe.mitochondrial] *= dying[row] * (1 - mitochondrial) / ((1 - dying[row]) * mitochondrial)
    rates /= rates.sum(axis=1, keepdims=True)
    return rates


def draw_counts(
    sample: SamplePlan, cells: Cells, patient: Patient, universe: Universe, scenario: Scenario, seed: int
) -> sp.csr_matrix:
    """Draw the counts of one sample.

    A cell's count of a gene is Poisson with mean ``library * ((1 - a) * share * gamma + a * soup)``, where ``a`` is the
    ambient fraction and gamma has mean one and variance phi (Zappia 2017, PMID 28899397, for the gamma-Poisson).
    Doublets are the sum of two such cells. Memory is bounded by :data:`BLOCK` dense rows and the sparse result.

    Returns
    -------
    barcodes x genes, ``int32``, sorted indices.
    """
    n_genes = len(universe.genes)
    n_barcodes = len(cells.barcodes)
    if n_barcodes == 0:
        return sp.csr_matrix(np.zeros((0, n_genes), dtype=np.int32))
    components = cells.components
    profiles = _state_profiles(sample, patient, universe, components["state"])
    soup = _soup(components, profiles, universe, _leak(sample, scenario, seed)).astype(np.float32)
    phi = universe.dispersion.astype(np.float32)
    rng = stream(seed, 6, *sample_key(sample))
    blocks, rows = [], []
    for state, group in components.groupby("state", sort=True):
        for start in range(0, len(group), BLOCK):
            block = group.iloc[start : start + BLOCK]
            rates = _own_rates(block, profiles[str(state)], patient, universe, scenario)
            rates *= rng.standard_gamma(1 / phi, size=rates.shape, dtype=np.float32) * phi
            ambient = block["ambient"].to_numpy(np.float32)[:, None]
            rates *= 1 - ambient
            rates += ambient * soup
            rates *= block["library"].to_numpy(np.float32)[:, None]
            blocks.append(sp.csr_matrix(rng.poisson(rates).astype(np.int32)))
            rows.append(block["barcode"].to_numpy())
    place = np.concatenate(rows)
    ones = np.ones(len(place), dtype=np.int32)
    collect = sp.csr_matrix((ones, (place, np.arange(len(place)))), shape=(n_barcodes, len(place)), dtype=np.int32)
    counts = sp.csr_matrix(collect @ sp.vstack(blocks, format="csr"), dtype=np.int32)
    counts.sort_indices()
    return counts
