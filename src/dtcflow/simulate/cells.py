"""The hidden truth of one sample: which cells it holds, before any count is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtcflow.contracts import HAEMATOPOIETIC_TYPES
from dtcflow.simulate.design import (
    CARCINOMA,
    MIXTURE_CONCENTRATION,
    MIXTURES,
    STATES,
    SUBCLONES,
    TRUNK,
    SamplePlan,
    Scenario,
    join_events,
    n_dtc,
)
from dtcflow.simulate.expression import Patient, stream

TRUTH_COLUMNS: Final = (
    "cell_id",
    "sample_id",
    "patient_id",
    "compartment",
    "true_type",
    "second_type",
    "clone",
    "is_tumour",
    "is_dtc",
    "is_doublet",
    "doublet_kind",
    "is_dying",
    "programme",
    "cycling",
    "ambient_fraction",
    "library_size",
    "altered_arms",
)
"""Columns of the truth table. ``true_type`` is in the vocabulary of ``contracts.CELL_TYPES`` (carcinoma is epithelial
with ``is_tumour``); ``second_type`` and ``doublet_kind`` (``heterotypic``, ``homotypic``) are empty for single cells;
``clone`` and ``altered_arms`` (``+1q;-16q``) are empty for diploid cells; ``programme`` is 0 or 1; ``library_size`` is
the expected number of counts. A barcode with a tumour cell in it ``is_tumour``, and its tumour cell comes first."""

_COMPARTMENT_KEY: Final = {"marrow": 0, "primary": 1}
_BASES: Final = np.array(list("ACGT"))


@dataclass(frozen=True)
class Cells:
    """The hidden truth of one sample.

    ``components`` has one row per cell; a barcode has one or, for a doublet, two of them: ``barcode`` (position),
    ``state``, ``clone``, ``altered``, ``programme``, ``phase`` (0 none, 1 S, 2 G2/M), ``dying`` (mitochondrial share,
    0 for healthy cells), ``stray`` (keratins), ``ambient``, ``library``.
    """

    barcodes: NDArray[np.object_]
    components: pd.DataFrame
    truth: pd.DataFrame


def sample_key(sample: SamplePlan) -> tuple[int, int]:
    """Part of the random stream's key that belongs to one sample."""
    return sample.patient, _COMPARTMENT_KEY[sample.compartment]


def _apportion(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers that add up to ``total`` in proportion to ``shares`` (largest remainders)."""
    exact = shares / shares.sum() * total
    counts: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    return counts


def _barcodes(n: int, rng: np.random.Generator) -> NDArray[np.object_]:
    """Return ``n`` different 16-base barcodes with the usual suffix, sorted as an export lists them."""
    drawn: set[str] = set()
    while len(drawn) < n:
        bases = _BASES[rng.integers(4, size=(n - len(drawn), 16))]
        drawn.update("".join(row) + "-1" for row in bases)
    return np.array(sorted(drawn), dtype=object)


def _draw_states(
    sample: SamplePlan, scenario: Scenario, rng: np.random.Generator
) -> tuple[NDArray[np.object_], NDArray[np.intp], NDArray[np.bool_]]:
    """State, barcode position and doublet flag of every component; tumour cells come first within a barcode."""
    mixture: Mapping[str, float] = MIXTURES[sample.compartment]
    names = np.array(list(mixture), dtype=object)
    expected = np.array(list(mixture.values()))
    shares = rng.dirichlet(expected / expected.sum() * MIXTURE_CONCENTRATION)
    disseminated = n_dtc(scenario, sample.patient, sample.n_cells) if sample.compartment == "marrow" else 0
    n_doublets = min(round(scenario.doublet_rate * sample.n_cells), sample.n_cells - disseminated)
    n_others = sample.n_cells - disseminated - n_doublets

    singles = np.concatenate([np.repeat(names, _apportion(shares, n_others)), np.repeat([CARCINOMA], disseminated)])
    if disseminated:
        names, shares = np.append(names, CARCINOMA), np.append(shares, disseminated / max(1, n_others))
    pairs = names[rng.choice(len(names), size=(n_doublets, 2), p=shares / shares.sum())]
    swap = (pairs[:, 1] == CARCINOMA) & (pairs[:, 0] != CARCINOMA)
    pairs[swap] = pairs[swap][:, ::-1]

    place = rng.permutation(sample.n_cells)
    states = np.concatenate([singles, pairs[:, 0], pairs[:, 1]]).astype(object)
    barcode = np.concatenate([place, place[len(singles) :]]).astype(np.intp)
    doublet = np.concatenate([np.zeros(len(singles), bool), np.ones(2 * n_doublets, bool)])
    return states, barcode, doublet


def _clones(
    sample: SamplePlan, patient: Patient, scenario: Scenario, tumour: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Clone and altered arms of every component."""
    n = len(tumour)
    clone = np.full(n, "", dtype=object)
    altered = np.full(n, "", dtype=object)
    u, missing, which = rng.random(n), rng.random(n), rng.random(n)
    thresholds = np.cumsum(scenario.clone_shares)[:2] / sum(scenario.clone_shares)
    for i in np.flatnonzero(tumour):
        name = patient.dtc_clone
        if sample.compartment == "primary":
            name = (TRUNK, *SUBCLONES)[int(np.searchsorted(thresholds, u[i], side="right"))]
        changes = dict(patient.karyotype[name])
        if sample.compartment == "marrow" and missing[i] < scenario.missing_event_rate:
            del changes[list(changes)[int(which[i] * len(changes))]]
        clone[i], altered[i] = name, join_events(changes)
    return clone, altered


def draw_cells(sample: SamplePlan, patient: Patient, scenario: Scenario, seed: int) -> Cells:
    """Draw the hidden truth of one sample.

    Parameters
    ----------
    sample
        Which sample, and its number of barcodes (zero is allowed).
    patient
        The patient it belongs to.
    scenario
        Rates, shares and library sizes.
    seed
        Seed of the cohort.

    Returns
    -------
    Barcodes, components and truth; the same for the same arguments, whatever else is drawn.
    """
    rng = stream(seed, 5, *sample_key(sample))
    marrow = sample.compartment == "marrow"
    barcodes = _barcodes(sample.n_cells, rng)
    states, barcode, doublet = _draw_states(sample, scenario, rng)
    n = len(states)
    tumour = states == CARCINOMA
    clone, altered = _clones(sample, patient, scenario, tumour, rng)

    runs = np.where(tumour, patient.programme_dtc if marrow else scenario.programme_primary, 0.0)
    programme = rng.random(n) < runs
    cycle_rate = np.array([STATES[state].cycling for state in states])
    cycle_rate[tumour] = scenario.cycling_dtc if marrow else scenario.cycling_primary
    phase = np.where(rng.random(n) < cycle_rate, rng.integers(1, 3, size=n), 0)
    low, high = scenario.dying_mitochondrial
    dying = np.where((rng.random(n) < scenario.dying_rate) & ~doublet, rng.uniform(low, high, n), 0.0)
    blood = np.isin([STATES[state].cell_type for state in states], HAEMATOPOIETIC_TYPES)
    stray = (rng.random(n) < scenario.stray_keratin_rate) & blood

    median = (scenario.library_marrow if marrow else scenario.library_primary) * np.array(
        [STATES[state].library for state in states]
    )
    median[tumour] = scenario.library_dtc if marrow else scenario.library_carcinoma
    library = median * np.exp(rng.normal(0.0, scenario.library_sd, n))
    library[dying > 0] *= scenario.dying_library
    mean = np.where(tumour & marrow, scenario.ambient_dtc, scenario.ambient_mean)
    ambient = rng.beta(mean * scenario.ambient_concentration, (1.0 - mean) * scenario.ambient_concentration)

    components = pd.DataFrame(
        {
            "barcode": barcode,
            "state": states,
            "clone": clone,
            "altered": altered,
            "programme": programme,
            "phase": phase,
            "dying": dying,
            "stray": stray,
            "ambient": ambient,
            "library": library,
        }
    )
    return Cells(barcodes, components, _truth(sample, barcodes, components, doublet))


def _truth(
    sample: SamplePlan, barcodes: NDArray[np.object_], components: pd.DataFrame, doublet: NDArray[np.bool_]
) -> pd.DataFrame:
    """One row per barcode, in the order of ``barcodes``; columns :data:`TRUTH_COLUMNS`."""
    n = len(barcodes)
    cell_type = np.array([STATES[state].cell_type for state in components["state"]], dtype=object)
    rows = components.assign(cell_type=cell_type, tumour=components["state"].eq(CARCINOMA))
    rows["soup"] = rows["ambient"] * rows["library"]
    first = rows.drop_duplicates("barcode").set_index("barcode").sort_index()
    second = rows[rows["barcode"].duplicated()].set_index("barcode")
    by_barcode = rows.groupby("barcode", sort=True)
    library = by_barcode["library"].sum()
    second_type = pd.Series("", index=range(n), dtype=object)
    second_type[second.index] = second["cell_type"]
    second_state = second["state"].reindex(range(n))
    is_doublet = np.zeros(n, dtype=bool)
    is_doublet[components["barcode"].to_numpy()[doublet]] = True
    homotypic = first["state"].eq(second_state).to_numpy()
    tumour = first["tumour"].to_numpy(bool)
    truth = pd.DataFrame(
        {
            "cell_id": np.array([f"{sample.sample_id}:{barcode}" for barcode in barcodes], dtype=object),
            "sample_id": sample.sample_id,
            "patient_id": sample.patient_id,
            "compartment": sample.compartment,
            "true_type": first["cell_type"].to_numpy(object),
            "second_type": second_type.to_numpy(object),
            "clone": first["clone"].to_numpy(object),
            "is_tumour": tumour,
            "is_dtc": tumour & (sample.compartment == "marrow"),
            "is_doublet": is_doublet,
            "doublet_kind": np.where(is_doublet, np.where(homotypic, "homotypic", "heterotypic"), "").astype(object),
            "is_dying": first["dying"].gt(0).to_numpy(bool),
            "programme": by_barcode["programme"].max().astype(np.int64).to_numpy(),
            "cycling": by_barcode["phase"].max().gt(0).astype(np.int64).to_numpy(),
            "ambient_fraction": (by_barcode["soup"].sum() / library).to_numpy(np.float64),
            "library_size": library.round().astype(np.int64).to_numpy(),
            "altered_arms": first["altered"].to_numpy(object),
        }
    )
    return truth[list(TRUTH_COLUMNS)]
