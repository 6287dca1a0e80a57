"""From cells to one value per patient and compartment, and to within-patient differences.

The order is fixed: choose the cells, bring both compartments of a patient to one depth, score each cell
(``scoring``), reduce the cells of a patient to a trimmed mean, take the difference, express it in standard deviations
between reference cells.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from dtcflow.cells import single_malignant
from dtcflow.contracts import NORMAL_COMPARTMENTS
from dtcflow.evidence.plan import GROUPS

Floats = NDArray[np.float64]
Aggregation = Literal["trimmed_mean", "median"]

SMALL_SAMPLES: Final = "(small samples)"
"""Label under which the cells of a patient's samples with too few cells are taken together."""
MEDIAN_VARIANCE: Final = np.pi / 2
"""Variance of a median relative to that of a mean, for normal cells."""


@dataclass(frozen=True)
class Layout:
    """Which cell belongs to which patient, side of the contrast and sample.

    Attributes
    ----------
    table
        One row per scored cell, sorted by patient, side and cell id: ``cell_id row patient_id side sample strict``;
        ``row`` is the cell's row in the matrix, ``side`` 0 (a) or 1 (b), ``strict`` whether the cell meets the strict
        call.
    patients
        Patients with enough cells on both sides, sorted.
    overview
        One row per patient of the cohort: ``patient_id n_cells_a n_cells_b usable reason``.
    """

    table: pd.DataFrame
    patients: tuple[str, ...]
    overview: pd.DataFrame

    @property
    def patient(self) -> NDArray[np.int64]:
        """Index into :attr:`patients` per cell."""
        order = {name: i for i, name in enumerate(self.patients)}
        return np.asarray([order[name] for name in self.table["patient_id"]], dtype=np.int64)

    @property
    def side(self) -> NDArray[np.int64]:
        """0 or 1 per cell."""
        return self.table["side"].to_numpy(dtype=np.int64)


def stream(seed: int, *names: object) -> np.random.Generator:
    """Return the random stream of (seed, names): what one patient draws never depends on which others there are."""
    return np.random.default_rng([seed, *(zlib.crc32(str(name).encode()) for name in names)])


def tumour_patients(cells: pd.DataFrame) -> list[str]:
    """Patients of the cohort, sorted; donors who only have normal samples are no patients."""
    kept = cells.loc[~cells["compartment"].isin(NORMAL_COMPARTMENTS), "patient_id"]
    return sorted(set(kept.astype(str)))


def _why_unusable(counts: tuple[int, int], sampled: tuple[bool, bool], groups: tuple[str, str], minimum: int) -> str:
    reasons = []
    for n, there, group in zip(counts, sampled, groups, strict=True):
        if not there:
            reasons.append(f"no {GROUPS[group]} sample")
        elif n == 0:
            reasons.append(f"no malignant cell in {GROUPS[group]}")
        elif n < minimum:
            reasons.append(f"{n} malignant cell{'s' if n > 1 else ''} in {GROUPS[group]}, {minimum} needed")
    return "; ".join(reasons)


def lay_out(
    cells: pd.DataFrame,
    *,
    a: str,
    b: str,
    strict_q: float,
    minimum: int = 3,
    max_cells: int = 150,
    seed: int = 0,
) -> Layout:
    """Choose the malignant cells of a contrast.

    Parameters
    ----------
    cells
        One row per QC-passed cell: ``cell_id sample_id patient_id compartment malignant_call`` and, for the strict
        call, ``malignancy_q``. The index is the cell's row in the count matrix.
    a, b
        Groups, keys of :data:`dtcflow.evidence.plan.GROUPS`.
    strict_q
        Largest q-value of the strict call.
    minimum
        Cells a patient needs on either side.
    max_cells
        Most cells of one patient and side; of more, a seeded random choice that does not depend on their order.
    seed
        Start of the random choice.

    Notes
    -----
    Samples of a patient with fewer than ``minimum`` cells are taken together instead of being dropped: rare tumour
    cells spread over several aspirates still count. Droplets of a tumour cell and another cell take no part: half of
    what they express is the other cell's.
    """
    malignant = cells[single_malignant(cells)]
    patients = tumour_patients(cells)
    sampled = {(str(p), str(c)) for p, c in zip(cells["patient_id"], cells["compartment"], strict=True)}
    keys = malignant["patient_id"].astype(str), malignant["compartment"].astype(str)
    grouped = {(str(p), str(c)): part for (p, c), part in malignant.groupby(list(keys), sort=True)}
    parts: list[pd.DataFrame] = []
    overview: list[dict[str, object]] = []
    usable: list[str] = []
    for patient in patients:
        found = [grouped.get((patient, GROUPS[group])) for group in (a, b)]
        counts = tuple(0 if part is None else len(part) for part in found)
        there = ((patient, GROUPS[a]) in sampled, (patient, GROUPS[b]) in sampled)
        fine = min(counts) >= minimum
        reason = "" if fine else _why_unusable((counts[0], counts[1]), there, (a, b), minimum)
        overview.append(
            {"patient_id": patient, "n_cells_a": counts[0], "n_cells_b": counts[1], "usable": fine, "reason": reason}
        )
        if not fine:
            continue
        usable.append(patient)
        for side, part in enumerate(found):
            assert part is not None
            chosen = part.sort_values("cell_id", kind="stable")
            if len(chosen) > max_cells:
                rng = stream(seed, "cap", patient, (a, b)[side])
                chosen = chosen.iloc[np.sort(rng.choice(len(chosen), size=max_cells, replace=False))]
            sample = chosen["sample_id"].astype(str)
            sizes = sample.map(sample.value_counts())
            # a q-value depends on a cell's company, the strict call on its own evidence wherever that is known
            own = next((name for name in ("clone_llr_p", "malignancy_q") if name in chosen), None)
            q = pd.Series(np.nan, index=chosen.index) if own is None else chosen[own].fillna(chosen["malignancy_q"])
            parts.append(
                pd.DataFrame(
                    {
                        "cell_id": chosen["cell_id"].astype(str),
                        "row": chosen.index.to_numpy(dtype=np.int64),
                        "patient_id": patient,
                        "side": side,
                        "sample": sample.where(sizes >= minimum, SMALL_SAMPLES),
                        "strict": (q <= strict_q).to_numpy(dtype=bool),
                    }
                )
            )
    columns = ["cell_id", "row", "patient_id", "side", "sample", "strict"]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({name: [] for name in columns})
    return Layout(
        table,
        tuple(usable),
        pd.DataFrame(overview, columns=["patient_id", "n_cells_a", "n_cells_b", "usable", "reason"]),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Depth
# ---------------------------------------------------------------------------------------------------------------------


def depth_fractions(totals: Floats, layout: Layout) -> Floats:
    """Share of its transcripts each cell keeps so that both sides of a patient have one median depth.

    The deeper side's cells all keep ``lower median / higher median``, the other side's cells keep everything: the
    spread of depths within the compartment stays as it is.

    Parameters
    ----------
    totals
        UMIs per cell of ``layout.table``.
    layout
        The cells.

    Returns
    -------
    numpy.ndarray
        One share in (0, 1] per cell.
    """
    shares = np.ones(totals.size)
    patient, side = layout.patient, layout.side
    for index in range(len(layout.patients)):
        own = [(patient == index) & (side == k) for k in (0, 1)]
        medians = [float(np.median(totals[mask])) for mask in own]
        deeper = int(medians[1] > medians[0])
        if medians[deeper] > 0 and medians[0] != medians[1]:
            shares[own[deeper]] = medians[1 - deeper] / medians[deeper]
    return shares


def thin(counts: sp.csr_matrix, share: Floats, layout: Layout, *, seed: int, repeat: int) -> sp.csr_matrix:
    """Binomially thin each cell to its share of transcripts.

    Parameters
    ----------
    counts
        Cells x genes, whole numbers, rows in the order of ``layout.table``; sorted indices.
    share
        Probability with which each transcript of a cell is kept.
    layout
        The cells; each patient has a random stream of their own.
    seed, repeat
        Start of the streams, and which of the repeated draws this is.

    Returns
    -------
    scipy.sparse.csr_matrix
        float32, zeros removed.
    """
    lengths = np.diff(counts.indptr)
    kept = np.array(counts.data, dtype=np.int64)
    patient = layout.patient
    for index, name in enumerate(layout.patients):
        rng = stream(seed, "thin", name, repeat)
        rows = np.flatnonzero((patient == index) & (share < 1.0))
        if rows.size == 0:
            continue
        entries = np.concatenate([np.arange(counts.indptr[r], counts.indptr[r + 1]) for r in rows])
        kept[entries] = rng.binomial(kept[entries], np.repeat(share[rows], lengths[rows]))
    out = sp.csr_matrix((kept.astype(np.float32), counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)
    out.eliminate_zeros()
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Values of patients
# ---------------------------------------------------------------------------------------------------------------------


def trimmed_mean(values: Floats, trim: float = 0.1) -> Floats:
    """Mean of each column without the ``floor(trim * n)`` smallest and largest entries."""
    n = values.shape[0]
    cut = int(np.floor(trim * n))
    return np.asarray(np.sort(values, axis=0)[cut : n - cut].mean(axis=0), dtype=float)


def _reduce(block: Floats, aggregation: Aggregation, trim: float) -> tuple[Floats, Floats]:
    """Centre and sum of squares of each column; a missing score (a cell without a null) does not count."""
    if np.isnan(block).any():
        parts = [column[np.isfinite(column)][:, None] for column in block.T]
        pairs = [_reduce(part, aggregation, trim) if part.size else (np.array([np.nan]), np.zeros(1)) for part in parts]
        return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
    centre = np.asarray(np.median(block, axis=0), dtype=float) if aggregation == "median" else trimmed_mean(block, trim)
    return centre, np.asarray(((block - block.mean(axis=0)) ** 2).sum(axis=0), dtype=float)


@dataclass(frozen=True)
class GroupValues:
    """Values per patient and side.

    Attributes
    ----------
    value
        Patients x 2 x scores.
    variance
        Patients x 2 x scores: variance between the cells of one sample, pooled over the samples.
    n
        Patients x 2: cells.
    freedom
        Patients x 2: degrees of freedom of the variance (cells minus samples).
    """

    value: Floats
    variance: Floats
    n: NDArray[np.int64]
    freedom: NDArray[np.int64]


def group_values(
    z: Floats,
    layout: Layout,
    *,
    aggregation: Aggregation = "trimmed_mean",
    trim: float = 0.1,
    cells: NDArray[np.bool_] | None = None,
    side: NDArray[np.int64] | None = None,
) -> GroupValues:
    """Reduce cells to patients.

    Parameters
    ----------
    z
        Cells x scores, rows in the order of ``layout.table``.
    layout
        The cells.
    aggregation, trim
        How the cells of one sample are reduced.
    cells
        Use only these cells.
    side
        Another assignment of the cells to the two sides (controls); -1 leaves a cell out.

    Notes
    -----
    Several samples of a patient are averaged with weights proportional to their cells, which is precision weighting
    under one variance between cells. Patients without a cell on a side get NaN there.
    """
    n_patients, n_scores = len(layout.patients), z.shape[1]
    value = np.full((n_patients, 2, n_scores), np.nan)
    variance = np.zeros((n_patients, 2, n_scores))
    n = np.zeros((n_patients, 2), dtype=np.int64)
    freedom = np.zeros((n_patients, 2), dtype=np.int64)
    used = np.ones(len(layout.table), dtype=bool) if cells is None else cells
    sides = layout.side if side is None else side
    patient = layout.patient
    sample = layout.table["sample"].to_numpy()
    for p in range(n_patients):
        for k in (0, 1):
            rows = np.flatnonzero((patient == p) & (sides == k) & used)
            if rows.size == 0:
                continue
            total = np.zeros(n_scores)
            squares = np.zeros(n_scores)
            names = sorted(set(sample[rows]))
            for name in names:
                block = z[rows[sample[rows] == name]]
                centre, own_squares = _reduce(block, aggregation, trim)
                total += len(block) * centre
                squares += own_squares
            n[p, k], freedom[p, k] = rows.size, rows.size - len(names)
            value[p, k] = total / rows.size
            variance[p, k] = squares / freedom[p, k] if freedom[p, k] > 0 else np.nan
    return GroupValues(value, variance, n, freedom)


def average(parts: Sequence[GroupValues]) -> GroupValues:
    """Average values and variances over depth repeats."""
    return GroupValues(
        np.mean([part.value for part in parts], axis=0),
        np.mean([part.variance for part in parts], axis=0),
        parts[0].n,
        parts[0].freedom,
    )


@dataclass(frozen=True)
class Differences:
    """Standardised within-patient differences, patients x scores.

    ``difference = value_a - value_b`` and its ``variance``, everything in units of ``scale`` (one per score): the
    median over patients of the standard deviation between reference cells. ``usable`` marks patients (patients,).
    """

    value_a: Floats
    value_b: Floats
    difference: Floats
    variance: Floats
    scale: Floats
    usable: NDArray[np.bool_]
    n: NDArray[np.int64]


def differences(
    groups: GroupValues, *, minimum: int = 3, scale: Floats | None = None, aggregation: Aggregation = "trimmed_mean"
) -> Differences:
    """Take the difference a - b of each patient.

    The variance of a patient's difference is ``s_a^2 / n_a + s_b^2 / n_b``, with ``s_k^2`` the variance between cells
    of side k pooled over patients by degrees of freedom: with five cells a patient's own variance says little.

    Parameters
    ----------
    groups
        Values per patient and side.
    minimum
        Cells a patient needs on either side.
    scale
        Use this unit (one per score) instead of the one of these data, for results that are compared with each other.
    aggregation
        ``"median"`` multiplies the variance by pi/2.
    """
    usable: NDArray[np.bool_] = np.all(groups.n >= minimum, axis=1)
    n_scores = groups.value.shape[2]
    if not usable.any():
        empty = np.full((groups.n.shape[0], n_scores), np.nan)
        return Differences(empty, empty, empty, empty, np.full(n_scores, np.nan), usable, groups.n)
    freedom = np.where(usable[:, None], groups.freedom, 0).astype(float)
    spread = np.where(np.isfinite(groups.variance), groups.variance, 0.0)
    pooled = (freedom[:, :, None] * spread).sum(axis=0) / np.maximum(freedom.sum(axis=0), 1.0)[:, None]
    reference = usable & (groups.freedom[:, 1] > 0)
    unit = np.median(np.sqrt(spread[reference, 1]), axis=0) if scale is None else np.asarray(scale, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = np.where(unit > 0, unit, np.nan)
        sampling = (pooled[None] / groups.n[:, :, None]).sum(axis=1) * (
            MEDIAN_VARIANCE if aggregation == "median" else 1.0
        )
        value = np.where(usable[:, None, None], groups.value, np.nan) / unit
        variance = np.where(usable[:, None], sampling, np.nan) / unit**2
    return Differences(value[:, 0], value[:, 1], value[:, 0] - value[:, 1], variance, unit, usable, groups.n)
