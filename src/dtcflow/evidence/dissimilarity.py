"""C3: are the disseminated tumour cells of a patient genetically dissimilar?

For each patient::

    R = (S - floor) / (ceiling - floor)

S is the mean pairwise correlation of the arm profiles of the patient's disseminated cells, the floor that of pairs of
disseminated cells of *different* patients (what technique, cell type and the common arms of the disease make alike),
the ceiling that of pairs of primary tumour cells of one clone at the disseminated cells' depth (what one genome looks
like through the same noise). R is 1 for cells of one clone and 0 for cells no more alike than strangers.

A correlation falls with noise, so both kinds of cells must carry the same: every primary cell is matched at random
with a disseminated cell of the patient and the other way round, and where the cell has more information on an arm than
its match it is given Gaussian noise of variance ``inflation * (1/I_low - 1/I_high)`` there, in several repeats that are
averaged. Both kinds then have the distribution of the smaller information of a pair, and are attenuated alike.

Errors shared with the patient's normal cells of the same sample are taken out by subtracting those cells' mean
profile, where every sample has enough of them. What remains are errors that all tumour cells of *one* patient share,
her tumour's own expression: they are in S and in the ceiling, not in the floor, and pull R towards 1. That is against
a finding of dissimilarity, but in favour of refuting it. So a second value, R low, has the floor raised by what such
errors add: the variance of arms around their levels (lost, unaltered, gained) in the pooled profiles of the patient's
clones (:mod:`dtcflow.evidence.shared_errors`). What events of one level differ among each other, and what the patients
have in common, counts as error, too. R is judged for support, R low for refutation. Two kinds of error stay: of the
primary sample alone, in the ceiling only, which make R small; and of the marrow sample alone, in S only, which make it
large.

Cells are called by their likeness to a learned tumour profile, so that disseminated cells unlike any may be missing:
this too pulls R towards 1, and nothing here can see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtcflow.cells import single_malignant
from dtcflow.cnv.arms import ArmStatistics, arm_sort_key
from dtcflow.evidence.contrasts import Floats, stream
from dtcflow.evidence.inference import MetaAnalysis, SignFlip, sign_flip
from dtcflow.evidence.paired import BLANK, NO_TEST, PATIENT_COLUMNS
from dtcflow.evidence.plan import GROUPS
from dtcflow.evidence.shared_errors import shared_variance
from dtcflow.evidence.within import leave_one_out, meta

NAN: Final = float("nan")
DTC: Final = "DTC"
PRIMARY: Final = "PT"
NORMAL: Final = "normal"
OWN_EXPRESSION: Final = "own_expression"
"""``analysis`` of the rows of ``patients.tsv`` with R low."""
MIN_ARMS: Final = 10
MIN_NORMAL: Final = 20
"""Normal cells of a sample whose mean profile is worth subtracting."""
REPEATS: Final = 20
MAX_CELLS: Final = 100
MIN_RANGE: Final = 0.05
"""Smallest distance of ceiling and floor that R is divided by."""
RANGE_ERRORS: Final = 2.0
"""That distance must also exceed this many of its standard errors."""
DISSIMILARITY_COLUMNS: Final = (
    *PATIENT_COLUMNS,
    "similarity",
    "floor",
    "ceiling",
    "range_error",
    "n_pairs",
    "n_pairs_ceiling",
    "n_clones",
    "own_expression",
    "value_low",
    "variance_low",
)


@dataclass(frozen=True)
class ArmCells:
    """Cells of one patient with their additive statistics.

    Attributes
    ----------
    cells
        One row per cell: ``cell_id sample_id group clone_id``; ``group`` is :data:`DTC`, :data:`PRIMARY`,
        :data:`NORMAL` or anything else (left out).
    statistics
        Score and information, rows in the order of ``cells``.
    inflation
        Variance of a cell's noise relative to ``1 / information``, per arm; empty means 1.
    """

    cells: pd.DataFrame
    statistics: ArmStatistics
    inflation: Floats = field(default_factory=lambda: np.zeros(0))


def arm_cells(cells: pd.DataFrame, statistics: ArmStatistics, inflation: Floats) -> ArmCells:
    """Bring the cell table and the statistics of a patient together.

    Parameters
    ----------
    cells
        Rows in the order of ``statistics``: ``cell_id sample_id compartment malignant_call clone_id`` and, where known,
        ``malignant_class``. Droplets with a tumour cell and another one take no part.
    statistics, inflation
        From :func:`dtcflow.cnv.packed.unpack`.
    """
    single = single_malignant(cells)
    compartment = cells["compartment"].astype(str).to_numpy()
    normal = (cells["malignant_call"] == "normal").to_numpy(dtype=bool)
    group = np.full(len(cells), "", dtype=object)
    group[normal] = NORMAL
    for name in (DTC, PRIMARY):
        group[single & (compartment == GROUPS[name])] = name
    columns = {"cell_id": cells["cell_id"], "sample_id": cells["sample_id"], "clone_id": cells["clone_id"]}
    table = pd.DataFrame({name: column.to_numpy(dtype=object) for name, column in columns.items()})
    return ArmCells(table.assign(group=group), statistics, np.asarray(inflation, dtype=float))


@dataclass(frozen=True)
class Dissimilarity:
    """C3, computed; the defaults stand for "nothing to compute".

    Attributes
    ----------
    patients
        One row per patient, :data:`DISSIMILARITY_COLUMNS`: ``value_a`` is R, ``value_b`` the threshold, ``difference``
        their difference, ``variance`` that of R (jackknife over cells, pooled over patients). ``own_expression`` is
        what the floor is raised by for R low, ``value_low``, with its ``variance_low``.
    fit
        R over patients: supported below the threshold.
    fit_low
        R low over patients: refuted above the threshold.
    test
        Sign-flip test of R against the threshold.
    leave_one_out, leave_one_out_low
        R and R low without each patient.
    n_called
        Disseminated cells of the cohort.
    arms
        Arms that all patients have.
    repeats
        Draws of the matching noise.
    """

    patients: pd.DataFrame
    fit: MetaAnalysis = BLANK
    fit_low: MetaAnalysis = BLANK
    test: SignFlip = NO_TEST
    leave_one_out: pd.DataFrame = field(default_factory=pd.DataFrame)
    leave_one_out_low: pd.DataFrame = field(default_factory=pd.DataFrame)
    n_called: int = 0
    arms: tuple[str, ...] = ()
    repeats: int = 0


# ---------------------------------------------------------------------------------------------------------------------
# Profiles
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Profiles:
    """Log ratios and their noise variances, cells x arms, of the two kinds of cells of one patient."""

    dtc: Floats
    dtc_noise: Floats
    dtc_ids: tuple[str, ...]
    primary: Floats
    primary_noise: Floats
    primary_ids: tuple[str, ...]
    clone: NDArray[np.object_]


def _own_group(one: ArmCells, group: str, limit: int, *, patient: str, seed: int) -> NDArray[np.int64]:
    """Rows of a group in the order of cell ids; for the primary only cells with a clone of two cells or more."""
    cells = one.cells
    keep = (cells["group"] == group).to_numpy()
    if group == PRIMARY:
        clone = cells["clone_id"].fillna("").astype(str).where(keep, "")
        keep = keep & ((clone != "") & (clone.map(clone.value_counts()) > 1)).to_numpy()
    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(cells["cell_id"].astype(str).to_numpy(dtype=object)[rows], kind="stable")]
    if rows.size > limit:
        rng = stream(seed, "cap", patient, group)
        rows = rows[np.sort(rng.choice(rows.size, size=limit, replace=False))]
    return rows.astype(np.int64)


def _log_ratio(u: Floats, info: Floats) -> Floats:
    """Log ratio per cell and arm, less the cell's own median."""
    ratio = u / np.maximum(info, 1e-9)
    return np.asarray(ratio - np.median(ratio, axis=1, keepdims=True), dtype=float)


def _sorted(one: ArmCells) -> ArmCells:
    """Cells in the order of their ids: sums of floating-point numbers depend on the order of cells."""
    order = np.argsort(one.cells["cell_id"].astype(str).to_numpy(dtype=object), kind="stable")
    return ArmCells(one.cells.iloc[order].reset_index(drop=True), one.statistics[order], one.inflation)


def _profiles(one: ArmCells, arms: list[str], max_cells: int, *, patient: str, seed: int) -> _Profiles:
    one = _sorted(one)
    place = {arm: j for j, arm in enumerate(one.statistics.arms)}
    columns = [place[arm] for arm in arms]
    u, info = one.statistics.u[:, columns], one.statistics.info[:, columns]
    inflation = one.inflation[columns] if one.inflation.size else np.ones(len(columns))
    ratio, noise = _log_ratio(u, info), inflation / np.maximum(info, 1e-9)
    sample = one.cells["sample_id"].astype(str).to_numpy(dtype=object)
    normal = (one.cells["group"] == NORMAL).to_numpy()
    counted = one.cells["group"].isin([DTC, PRIMARY]).to_numpy()
    base = {name: normal & (sample == name) for name in sorted(set(sample[counted].tolist()))}
    # in all samples or in none: what is taken out of one kind of cells only would make R of the other
    if base and min(int(rows.sum()) for rows in base.values()) >= MIN_NORMAL:
        for name, rows in base.items():
            pooled = u[rows].sum(axis=0) / np.maximum(info[rows].sum(axis=0), 1e-9)
            ratio[sample == name] -= pooled - np.median(pooled)
    ids = one.cells["cell_id"].astype(str).to_numpy(dtype=object)
    dtc, primary = (_own_group(one, group, max_cells, patient=patient, seed=seed) for group in (DTC, PRIMARY))
    return _Profiles(
        ratio[dtc],
        noise[dtc],
        tuple(ids[dtc]),
        ratio[primary],
        noise[primary],
        tuple(ids[primary]),
        one.cells["clone_id"].astype(str).to_numpy(dtype=object)[primary],
    )


def _levelled(own: _Profiles, *, repeat: int, seed: int) -> tuple[Floats, Floats]:
    """Both kinds of cells with the noise of the shallower of a random pair, arm by arm."""

    def add(ids: tuple[str, ...], ratio: Floats, noise: Floats, other: Floats) -> Floats:
        out = ratio.copy()
        for i, name in enumerate(ids):
            rng = stream(seed, "level", name, repeat)
            target = other[rng.integers(len(other))]
            out[i] += rng.standard_normal(ratio.shape[1]) * np.sqrt(np.maximum(target - noise[i], 0.0))
        return out

    return (
        add(own.dtc_ids, own.dtc, own.dtc_noise, own.primary_noise),
        add(own.primary_ids, own.primary, own.primary_noise, own.dtc_noise),
    )


def _centred(profiles: Floats, weight: Floats) -> Floats:
    """Rows centred, arms times the root of their weight: the sum of squares of a row is its weighted variance."""
    w = weight / weight.sum()
    return np.asarray((profiles - (profiles @ w)[:, None]) * np.sqrt(w), dtype=float)


def _unit(profiles: Floats, weight: Floats) -> Floats:
    """Rows centred and scaled so that a product of two is their weighted correlation; 0 for a flat profile."""
    scaled = _centred(profiles, weight)
    length = np.sqrt((scaled**2).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(scaled, length, out=np.zeros_like(scaled), where=length > 1e-12), dtype=float)


# ---------------------------------------------------------------------------------------------------------------------
# Means of pairs, with their jackknife
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mean:
    """Mean over pairs, the same without each cell, and the number of pairs."""

    value: float
    without: Floats
    n: int

    @property
    def variance(self) -> float:
        """Jackknife over cells."""
        n = self.without.size
        return float((n - 1) / n * ((self.without - self.without.mean()) ** 2).sum()) if n > 1 else NAN

    def raised(self, by: float) -> _Mean:
        """The same with a constant added."""
        return _Mean(self.value + by, self.without + by, self.n)


def _mean_of_pairs(correlation: Floats, pairs: NDArray[np.bool_]) -> _Mean:
    """Mean over the marked pairs (symmetric, no diagonal); a cell whose removal leaves no pair changes nothing."""
    sums, counts = np.where(pairs, correlation, 0.0).sum(axis=1), pairs.sum(axis=1)
    total, n = float(sums.sum() / 2), int(counts.sum() // 2)
    value = total / n if n else NAN
    left = n - counts
    without = np.where(left > 0, (total - sums) / np.maximum(left, 1), value)
    return _Mean(value, np.asarray(without, dtype=float), n)


def _mean_of_cells(cross: Floats) -> _Mean:
    """Mean over the cells (rows) of their mean correlation with strangers."""
    n = len(cross)
    own = cross.mean(axis=1)
    without = (own.sum() - own) / max(n - 1, 1)
    return _Mean(float(own.mean()), np.asarray(without, dtype=float), n)


def _jackknife_ratio(similar: _Mean, floor: _Mean, ceiling: _Mean) -> tuple[float, float, float]:
    """R, its variance, and the standard error of ceiling - floor; removing a DTC moves S and the floor together."""
    span = ceiling.value - floor.value
    ratio = (similar.value - floor.value) / span
    by_dtc = (similar.without - floor.without) / (ceiling.value - floor.without)
    by_primary = (similar.value - floor.value) / (ceiling.without - floor.value)
    variance = sum(_Mean(0.0, part, 0).variance for part in (by_dtc, by_primary))
    error = np.sqrt(floor.variance + ceiling.variance)
    return float(ratio), float(variance), float(error)


def _low(ratio: float, variance: float, similar: _Mean, raised: _Mean, ceiling: _Mean) -> tuple[float, float]:
    """R above the raised floor and its variance; between R and 0, which it is where nothing is left to compare with.

    Cells as alike as those of one clone stay so above any floor.
    """
    if ratio >= 1.0:
        return ratio, variance
    if not ceiling.value - raised.value > MIN_RANGE:
        return min(ratio, 0.0), variance
    low, variance_low, _ = _jackknife_ratio(similar, raised, ceiling)
    return max(low, min(ratio, 0.0)), variance_low


# ---------------------------------------------------------------------------------------------------------------------
# The claim
# ---------------------------------------------------------------------------------------------------------------------


def evaluate_dissimilarity(
    patients: Mapping[str, ArmCells],
    *,
    sesoi: float = 0.5,
    cells: int = 3,
    estimate_patients: int = 3,
    repeats: int = REPEATS,
    max_cells: int = MAX_CELLS,
    seed: int = 0,
) -> Dissimilarity:
    """Compute C3.

    Parameters
    ----------
    patients
        Cells and statistics by patient; every patient of the cohort, also those without disseminated cells.
    sesoi
        Value of R below which cells count as dissimilar.
    cells
        Disseminated cells a patient needs (three make three pairs), and primary cells of one clone.
    estimate_patients
        Fewer usable patients: no estimate.
    repeats
        Draws of the matching noise.
    max_cells
        Most cells of either kind of one patient.
    seed
        Start of every random stream; each cell has its own.

    Returns
    -------
    Dissimilarity
        The rule: supported when ``fit.ci_high < sesoi``, refuted when ``fit_low.ci90_low > sesoi``.
    """
    names = sorted(patients)
    count = {name: (patients[name].cells["group"] == DTC).sum() for name in names}
    frame = pd.DataFrame(dict.fromkeys(DISSIMILARITY_COLUMNS[1:], np.nan), index=pd.Index(names, dtype=object))
    frame["contrast"], frame["signature"], frame["usable"], frame["reason"] = "pairs of DTC", "", False, ""
    frame["value_b"] = sesoi
    for name in names:
        primary = patients[name].cells["group"] == PRIMARY
        frame.loc[name, ["n_cells_a", "n_called_a"]] = count[name]
        frame.loc[name, ["n_cells_b", "n_called_b"]] = int(primary.sum())
    start = Dissimilarity(_finished(frame), n_called=int(sum(count.values())), repeats=repeats)
    able = [name for name in names if count[name] >= cells]
    for name in names:
        if name not in able:
            n = count[name]
            frame.loc[name, "reason"] = f"{n} disseminated cells, {cells} needed" if n else "no disseminated cell"
    if not able:
        return _with(start, frame)
    shared = set.intersection(*(set(patients[name].statistics.arms) for name in able))
    arms = sorted(shared, key=arm_sort_key)
    if len(arms) < MIN_ARMS or len(able) < 2:
        few = len(arms) < MIN_ARMS
        reason = f"{len(arms)} arms assessed in all patients, {MIN_ARMS} needed" if few else "no other patient as floor"
        frame.loc[able, "reason"] = reason
        return _with(start, frame, arms)
    profiles = {name: _profiles(patients[name], arms, max_cells, patient=name, seed=seed) for name in able}
    frame = _measure(frame, profiles, cells=cells, repeats=repeats, seed=seed)
    usable = frame["usable"].astype(bool)
    frame.loc[usable, "difference"] = frame.loc[usable, "value_a"].astype(float) - sesoi
    # each patient's jackknife rests on few cells: what a cell contributes is pooled over patients
    used = frame.loc[usable, "n_cells_a"].astype(float).clip(upper=max_cells)
    for name in ("variance", "variance_low"):
        frame.loc[usable, name] = float((frame.loc[usable, name].astype(float) * used).mean()) / used
    found = _with(start, frame, arms)
    kept = found.patients[found.patients["usable"]]
    if len(kept) < estimate_patients:
        return found
    value, variance = (kept[name].to_numpy(dtype=float) for name in ("value_a", "variance"))
    low, variance_low = (kept[name].to_numpy(dtype=float) for name in ("value_low", "variance_low"))
    ids = kept["patient_id"].tolist()
    return Dissimilarity(
        patients=found.patients,
        fit=meta(value, variance),
        fit_low=meta(low, variance_low),
        test=sign_flip(value - sesoi, seed=seed),
        leave_one_out=leave_one_out(ids, value, variance),
        leave_one_out_low=leave_one_out(ids, low, variance_low),
        n_called=found.n_called,
        arms=found.arms,
        repeats=repeats,
    )


def _finished(frame: pd.DataFrame) -> pd.DataFrame:
    out = frame.rename_axis("patient_id").reset_index()[list(DISSIMILARITY_COLUMNS)]
    whole = dict.fromkeys(("n_cells_a", "n_cells_b", "n_called_a", "n_called_b"), "int64")
    return out.astype(whole).astype({"usable": bool})


def _with(start: Dissimilarity, frame: pd.DataFrame, arms: list[str] | None = None) -> Dissimilarity:
    return Dissimilarity(_finished(frame), n_called=start.n_called, arms=tuple(arms or ()), repeats=start.repeats)


def _measure(
    frame: pd.DataFrame, profiles: Mapping[str, _Profiles], *, cells: int, repeats: int, seed: int
) -> pd.DataFrame:
    """Fill in the patients' similarities, or the reason why there is none."""
    frame = frame.copy()
    names = list(profiles)
    weight = np.median(np.concatenate([1.0 / one.dtc_noise for one in profiles.values()]), axis=0)
    inside = {name: np.zeros((len(one.dtc), len(one.dtc))) for name, one in profiles.items()}
    clones = {name: np.zeros((len(one.primary), len(one.primary))) for name, one in profiles.items()}
    cross = {name: np.zeros((len(one.dtc), len(names) - 1)) for name, one in profiles.items()}
    whole = dict.fromkeys(names, 0.0)
    for repeat in range(repeats):
        units: dict[str, Floats] = {}
        for name, one in profiles.items():
            if len(one.primary):
                dtc, primary = _levelled(one, repeat=repeat, seed=seed)
                unit = _unit(primary, weight)
                clones[name] += unit @ unit.T / repeats
                both = _centred(np.concatenate([dtc, primary]), weight)
                whole[name] += float((both**2).sum(axis=1).mean()) / repeats
            else:
                dtc = one.dtc
            units[name] = _unit(dtc, weight)
            inside[name] += units[name] @ units[name].T / repeats
        for name in names:
            # every other patient weighs the same, however many cells she has
            others = np.column_stack([units[other].mean(axis=0) for other in names if other != name])
            cross[name] += units[name] @ others / repeats
    for name, one in profiles.items():
        similar = _mean_of_pairs(inside[name], ~np.eye(len(one.dtc), dtype=bool))
        floor = _mean_of_cells(cross[name])
        same = (one.clone[:, None] == one.clone[None, :]) & ~np.eye(len(one.primary), dtype=bool)
        ceiling = _mean_of_pairs(clones[name], same)
        frame.loc[name, ["similarity", "floor", "n_pairs"]] = [similar.value, floor.value, similar.n]
        sizes = pd.Series(one.clone).value_counts()
        if sizes.empty or sizes.max() < cells:
            frame.loc[name, "reason"] = f"no clone with {cells} primary cells"
            continue
        ratio, variance, error = _jackknife_ratio(similar, floor, ceiling)
        frame.loc[name, ["ceiling", "range_error"]] = [ceiling.value, error]
        frame.loc[name, ["n_pairs_ceiling", "n_clones"]] = [ceiling.n, len(sizes)]
        span = ceiling.value - floor.value
        if not span > max(MIN_RANGE, RANGE_ERRORS * error):
            frame.loc[name, "reason"] = "pairs of one clone are not reliably more alike than pairs of strangers"
            continue
        own = shared_variance(one.primary, one.primary_noise, one.clone) / whole[name]
        low, variance_low = _low(ratio, variance, similar, floor.raised(own), ceiling)
        frame.loc[name, ["value_a", "variance", "own_expression"]] = [ratio, variance, own]
        frame.loc[name, ["value_low", "variance_low"]] = [low, variance_low]
        frame.loc[name, "usable"] = True
    return frame
