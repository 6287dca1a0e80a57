"""Cells of one group inside their own patient: chosen, brought to a common footing, freed from depth and cell cycle.

Claims about differences *among* the disseminated tumour cells of a patient (P1, P4) need no second compartment. Primary
tumour cells serve only to learn what depth, cell cycle and stress do to a score, and as the unit scores are given in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from dtcflow.cells import single_malignant
from dtcflow.evidence.adjust import MIN_KNOWN
from dtcflow.evidence.contrasts import SMALL_SAMPLES, Floats, Layout, ThinnedDraws, tumour_patients
from dtcflow.evidence.design import PROTOCOL, mixes_protocols
from dtcflow.evidence.inference import MetaAnalysis, random_effects
from dtcflow.evidence.layout import capped
from dtcflow.evidence.marrow import MARROW_AXIS, MIN_REFERENCE, marrow_axis
from dtcflow.evidence.paired import PATIENT_COLUMNS, Cohort, samples_of
from dtcflow.evidence.plan import CELL_COVARIATES, GROUPS, CoverageGates
from dtcflow.evidence.scoring import balanced_statistics
from dtcflow.scores.calibrated import OK, apply_sets, draw_matched_sets, log_normalise
from dtcflow.scores.signatures import GeneSet, Synonyms

SAMPLE_CELLS: Final = 3
"""Samples of a patient with fewer cells are taken together, as in the paired contrasts."""


@dataclass(frozen=True)
class Within:
    """How cells of one group are asked a question.

    Attributes
    ----------
    group, reference
        Whose cells are asked about, and which teach what the covariates do; keys of
        :data:`dtcflow.evidence.plan.GROUPS`.
    cells
        Cells of the group a patient needs to have a value.
    covariates
        Names as in the plan: signatures, or ``log_genes``, ``log_counts``, ``pct_mt``. Adjusted for with slopes from
        reference cells.
    estimate_patients
        Fewer usable patients: no estimate.
    random_sets, gates
        Random sets of a signature, and what a signature must reach to be scored.
    max_cells, max_reference
        Most cells of one patient.
    seed
        Start of every random stream.
    """

    group: str = "DTC"
    reference: str = "PT"
    cells: int = 5
    covariates: tuple[str, ...] = ()
    estimate_patients: int = 3
    random_sets: int = 500
    gates: CoverageGates = field(default_factory=CoverageGates)
    max_cells: int = 150
    max_reference: int = 60
    seed: int = 0


@dataclass(frozen=True)
class Prepared:
    """Cells of the group (side 0) and reference cells (side 1), ready to be scored.

    Attributes
    ----------
    layout
        All cells; ``overview`` has one row per patient of the cohort.
    lognorm
        Cells x genes, log1p counts per 10,000, both sides of a patient at the lower of their two depths.
    statistics
        Gene statistics random sets are matched on.
    covariates
        Cells x covariates whose slopes are taken from reference cells; NaN-free.
    used, missing
        Names of the covariates in ``covariates``, and of those that could not be had.
    nuisance
        Cells x (log transcripts, and where normal marrow cells are known the marrow axis): slopes on these are the
        patient's own.
    median_genes
        Median over patients of the median number of genes per cell of the group, at its original depth.
    median_genes_reference
        The same of the reference cells; NaN without any.
    mixed_protocols
        Whether group and reference cells come from different platforms (:func:`design.mixes_protocols`).
    """

    layout: Layout
    lognorm: sp.csr_matrix
    statistics: pd.DataFrame
    covariates: Floats
    used: tuple[str, ...]
    missing: tuple[str, ...]
    nuisance: Floats
    median_genes: float
    median_genes_reference: float = float("nan")
    mixed_protocols: bool = False

    @property
    def own(self) -> NDArray[np.bool_]:
        """Which cells are of the group itself."""
        return np.asarray(self.layout.side == 0, dtype=bool)

    @property
    def enough_reference(self) -> bool:
        """Whether slopes and units can be learned."""
        return int((~self.own).sum()) >= MIN_REFERENCE

    def blocks(self) -> dict[str, NDArray[np.int64]]:
        """Rows of the group's cells per usable patient."""
        usable = self.layout.overview.loc[self.layout.overview["usable"].astype(bool), "patient_id"]
        own, patient = self.own, self.layout.table["patient_id"].to_numpy()
        return {str(name): np.flatnonzero(own & (patient == name)) for name in usable}


def choose(
    cells: pd.DataFrame, *, group: str, reference: str, minimum: int, max_cells: int, max_reference: int, seed: int
) -> Layout:
    """Choose the malignant cells of a group and the reference cells, patient by patient.

    A patient without a primary keeps its cells; a patient with fewer than ``minimum`` cells of the group is not usable
    (``overview["reason"]``), its reference cells still serve. See :func:`dtcflow.evidence.contrasts.lay_out` for the
    columns and the random choice beyond ``max_cells``.
    """
    malignant = cells[single_malignant(cells)]
    compartment = malignant["compartment"].astype(str).to_numpy()
    patient = malignant["patient_id"].astype(str).to_numpy()
    sampled = set(cells.loc[cells["compartment"] == GROUPS[group], "patient_id"].astype(str))
    parts: list[pd.DataFrame] = []
    overview: list[dict[str, object]] = []
    for name in tumour_patients(cells):
        counts = []
        for side, one in enumerate((group, reference)):
            found = malignant[(patient == name) & (compartment == GROUPS[one])]
            counts.append(len(found))
            if found.empty:
                continue
            chosen = capped(found, max_reference if side else max_cells, seed, name, one)
            sample = chosen["sample_id"].astype(str)
            sizes = sample.map(sample.value_counts())
            parts.append(
                pd.DataFrame(
                    {
                        "cell_id": chosen["cell_id"].astype(str),
                        "row": chosen.index.to_numpy(dtype=np.int64),
                        "patient_id": name,
                        "side": side,
                        "sample": sample.where(sizes >= SAMPLE_CELLS, SMALL_SAMPLES),
                    }
                )
            )
        n = counts[0]
        if name not in sampled:
            reason = f"no {GROUPS[group]} sample"
        elif n == 0:
            reason = f"no malignant cell in {GROUPS[group]}"
        else:
            reason = "" if n >= minimum else f"{n} malignant cells in {GROUPS[group]}, {minimum} needed"
        overview.append(
            {"patient_id": name, "n_cells_a": n, "n_cells_b": counts[1], "usable": not reason, "reason": reason}
        )
    columns = ["cell_id", "row", "patient_id", "side", "sample"]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({name: [] for name in columns})
    with_cells = tuple(sorted(set(table["patient_id"].astype(str))))
    return Layout(
        table,
        with_cells,
        pd.DataFrame(overview, columns=["patient_id", "n_cells_a", "n_cells_b", "usable", "reason"]),
    )


def _of_usable(samples: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Samples without those of the group's cells in patients that have too few of them for a value."""
    usable = layout.overview.loc[layout.overview["usable"].astype(bool), "patient_id"].astype(str)
    return samples[(samples["side"] != 0) | samples["patient_id"].astype(str).isin(usable)]


def depth_shares(totals: Floats, layout: Layout, protocol: NDArray[np.object_] | None = None) -> Floats:
    """Share of its transcripts each cell keeps so that both sides of a patient have the lower of their two medians.

    The unit of the claim is the spread of scores between reference cells, and scores spread more in deeper cells: were
    only the reference thinned, DTCs deeper than the primary would look more coherent than they are. Where a patient
    lacks one side, the median over the patients of her protocol that have it stands in; where none has, nothing is
    thinned.

    Parameters
    ----------
    totals
        Transcripts per cell of ``layout.table``.
    layout
        The cells.
    protocol
        Platform per cell, where known: reads and molecules have no common depth.

    Returns
    -------
    numpy.ndarray
        One share in (0, 1] per cell.
    """
    share = np.ones(totals.size)
    patient, side = layout.patient, layout.side
    platform = np.full(totals.size, "") if protocol is None else protocol
    people = range(len(layout.patients))
    own = {(p, k): (patient == p) & (side == k) for p in people for k in (0, 1)}
    depth = {key: float(np.median(totals[mask])) for key, mask in own.items() if mask.any()}
    of = {key: set(platform[own[key]].tolist()) for key in depth}
    for p in people:
        here = {k: depth[p, k] for k in (0, 1) if (p, k) in depth}
        for k in {0, 1} - set(here):
            alike = [depth[other] for other in depth if other[1] == k and of[other] == of[p, 1 - k]]
            if alike:
                here[k] = float(np.median(alike))
        for k in (0, 1):
            if (p, k) in depth:
                share[own[p, k]] = min(1.0, min(here.values()) / max(depth[p, k], 1.0))
    return share


def prepare(cohort: Cohort, how: Within, *, exclude: Sequence[str]) -> Prepared | Layout:
    """Choose, thin and normalise the cells, and compute their covariates.

    Parameters
    ----------
    cohort, how
        Cells, counts, signatures; and what is asked of them.
    exclude
        Genes of the tested signatures, kept out of the marrow axis.

    Returns
    -------
    Prepared, or only the Layout when no patient has enough cells.
    """
    seed = how.seed
    layout = choose(
        cohort.cells,
        group=how.group,
        reference=how.reference,
        minimum=how.cells,
        max_cells=how.max_cells,
        max_reference=how.max_reference,
        seed=seed,
    )
    if not layout.overview["usable"].astype(bool).any():
        return layout
    rows = layout.table["row"].to_numpy(dtype=np.int64)
    counts = cohort.take(rows)
    protocol = cohort.cells.loc[rows, PROTOCOL].astype(str).to_numpy() if PROTOCOL in cohort.cells else None
    detected = np.diff(counts.indptr).astype(np.float64)
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    axis = marrow_axis(cohort, counts, layout, group=how.group, exclude=exclude, seed=seed)
    counts = ThinnedDraws(counts, depth_shares(totals, layout, protocol), layout, seed=seed).whole(0)
    lognorm = log_normalise(counts)
    side = layout.side
    # without reference cells the group's own statistics are all there is to match random sets on
    statistics = balanced_statistics(lognorm, cohort.symbols, side if (side == 1).any() else np.zeros_like(side))
    if not (side == 1).any():
        statistics = balanced_statistics(
            sp.vstack([lognorm, lognorm], format="csr"), cohort.symbols, np.repeat([0, 1], len(side))
        )
    columns, used, missing = _covariates(cohort, layout, counts, lognorm, statistics, how)
    own = side == 0
    patient = layout.patient
    scored = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    nuisance = [np.log(np.maximum(scored, 1.0))]
    if axis is None:
        missing = (*missing, MARROW_AXIS)
    else:
        nuisance.append(axis)
        used = (*used, MARROW_AXIS)
    medians = [[np.median(detected[mask & (patient == p)]) for p in np.unique(patient[mask])] for mask in (own, ~own)]
    return Prepared(
        layout=layout,
        lognorm=lognorm,
        statistics=statistics,
        covariates=columns,
        used=used,
        missing=missing,
        nuisance=np.column_stack(nuisance),
        median_genes=float(np.median(medians[0])),
        median_genes_reference=float(np.median(medians[1])) if medians[1] else float("nan"),
        mixed_protocols=mixes_protocols(_of_usable(samples_of(cohort.cells, layout), layout)),
    )


def _covariates(
    cohort: Cohort,
    layout: Layout,
    counts: sp.csr_matrix,
    lognorm: sp.csr_matrix,
    statistics: pd.DataFrame,
    how: Within,
) -> tuple[Floats, tuple[str, ...], tuple[str, ...]]:
    names = how.covariates
    sets = {name: cohort.panel[name] for name in names if name in cohort.panel}
    matched = draw_matched_sets(
        statistics, sets, n_null=how.random_sets, seed=how.seed, synonyms=cohort.synonyms, **how.gates
    )
    z = apply_sets(lognorm, matched).z.astype(np.float64)
    own = cohort.cells.loc[layout.table["row"].to_numpy(dtype=np.int64)]
    columns: list[Floats] = []
    used: list[str] = []
    missing: list[str] = []
    for name in names:
        if name in matched.names:
            columns.append(np.nan_to_num(z[:, matched.names.index(name)]))
        elif name == "log_genes":
            columns.append(np.log(np.maximum(np.diff(counts.indptr), 1.0)))
        elif name == "log_counts":
            columns.append(np.log(np.maximum(np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel(), 1.0)))
        elif name in CELL_COVARIATES and name in own and pd.to_numeric(own[name]).notna().mean() >= MIN_KNOWN:
            share = pd.to_numeric(own[name]).reset_index(drop=True)
            share = share.fillna(share.groupby(layout.patient).transform("median")).fillna(share.median())
            columns.append(share.to_numpy(dtype=float))
        else:
            missing.append(name)
            continue
        used.append(name)
    stacked = np.column_stack(columns) if columns else np.zeros((len(layout.table), 0))
    return stacked, tuple(used), tuple(missing)


def reference_residual(prepared: Prepared, z: Floats) -> Floats:
    """Take out what the covariates predict, with slopes from reference cells centred within their patient.

    Parameters
    ----------
    z
        Cells x scores, in the order of ``prepared.layout.table``; changed in no way outside the covariates' span.

    Returns
    -------
    Cells x scores. Levels of patients are arbitrary: what follows centres within the patient.
    """
    x, own, patient = prepared.covariates, prepared.own, prepared.layout.patient
    if x.shape[1] == 0:
        return z
    base_x, base_z = x[~own].copy(), z[~own].copy()
    for p in np.unique(patient[~own]):
        rows = patient[~own] == p
        base_x[rows] -= base_x[rows].mean(axis=0)
        base_z[rows] -= base_z[rows].mean(axis=0)
    spread = base_x.std(axis=0)
    varying = spread > 1e-8
    if not varying.any():
        return z
    slopes = np.linalg.lstsq(base_x[:, varying] / spread[varying], base_z, rcond=1e-8)[0]
    return np.asarray(z - (x[:, varying] / spread[varying]) @ slopes, dtype=float)


# ---------------------------------------------------------------------------------------------------------------------
# Patients
# ---------------------------------------------------------------------------------------------------------------------


def annihilator(sample: NDArray[np.object_], nuisance: Floats) -> tuple[Floats, int]:
    """Projection that takes sample means and the patient's own slopes on depth and contamination out of her scores.

    The score of a signature grows with depth, and falls with contamination, wherever the patient's cells as a group
    differ from the random sets: by slopes that are the patient's own, which reference cells cannot tell.

    Parameters
    ----------
    sample
        Sample per cell of one patient.
    nuisance
        Her rows of :attr:`Prepared.nuisance`.

    Returns
    -------
    The symmetric idempotent matrix, cells x cells, and its rank (degrees of freedom left).
    """
    names = sorted(set(sample.tolist()))
    spread = nuisance.std(axis=0)
    scaled = (nuisance - nuisance.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    design = np.column_stack([*((sample == name).astype(float) for name in names), scaled])
    basis, size, _ = np.linalg.svd(design, full_matrices=False)
    kept = basis[:, size > 1e-8 * size.max()]
    return np.eye(len(sample)) - kept @ kept.T, len(sample) - kept.shape[1]


def meta(difference: Floats, variance: Floats) -> MetaAnalysis:
    """Random-effects meta-analysis of the patients that have both numbers."""
    kept = np.isfinite(difference) & np.isfinite(variance)
    return random_effects(difference[kept], variance[kept])


def weighted_null(null: Floats, variance: Floats, tau2: float) -> Floats:
    """Estimate of every random set: mean over patients with the weights of the observed estimate.

    Parameters
    ----------
    null
        Patients x random sets, each less the mean over the sets.
    variance, tau2
        Of the observed analysis.
    """
    kept = np.isfinite(variance) & np.isfinite(null).all(axis=1)
    if not kept.any():
        return np.zeros(0)
    weight = 1.0 / (variance[kept] + (tau2 if np.isfinite(tau2) else 0.0))
    return np.asarray(weight @ null[kept] / weight.sum(), dtype=float)


def leave_one_out(names: Sequence[str], difference: Floats, variance: Floats) -> pd.DataFrame:
    """Estimate without each patient in turn: ``patient_id estimate ci_low ci_high ci90_low ci90_high``."""
    rows = []
    for left_out, name in enumerate(names):
        others = np.arange(len(names)) != left_out
        fit = meta(difference[others], variance[others])
        rows.append((name, fit.estimate, fit.ci_low, fit.ci_high, fit.ci90_low, fit.ci90_high))
    return pd.DataFrame(rows, columns=["patient_id", "estimate", "ci_low", "ci_high", "ci90_low", "ci90_high"])


def patient_table(
    layout: Layout,
    *,
    contrast: str,
    signature: str,
    reason: str = "",
    names: Sequence[str] = (),
    values: Mapping[str, Floats] | None = None,
) -> pd.DataFrame:
    """One row per patient of the cohort, ``PATIENT_COLUMNS`` and the columns of ``values``.

    Parameters
    ----------
    layout
        From :func:`choose`.
    contrast, signature
        What is written into these columns.
    reason
        Why patients with enough cells have no value, where none has.
    names, values
        Patients with a value, and theirs by column; None where nothing could be computed.
    """
    overview = layout.overview.set_index("patient_id")
    enough = overview["usable"].astype(bool)
    columns = [*PATIENT_COLUMNS[1:], *(name for name in values or () if name not in PATIENT_COLUMNS)]
    text = {"contrast": contrast, "signature": signature, "usable": False, "reason": ""}
    frame = pd.DataFrame({name: text.get(name, np.nan) for name in columns}, index=overview.index)
    for side in ("a", "b"):
        frame[f"n_cells_{side}"] = frame[f"n_called_{side}"] = overview[f"n_cells_{side}"].astype("int64")
    if values is not None:
        reason = "too few cells once sample means and depth are taken out"
    frame["reason"] = overview["reason"].where(~enough, reason).astype(object)
    if values is not None:
        kept = list(names)
        frame.loc[kept, "reason"] = ""
        frame.loc[kept, "usable"] = True
        for name, own in values.items():
            frame.loc[kept, name] = own
    return frame.rename_axis("patient_id").reset_index()


def check_coverage(
    prepared: Prepared, sets: Mapping[str, GeneSet], *, gates: CoverageGates, synonyms: Synonyms | pd.DataFrame | None
) -> pd.DataFrame:
    """Table ``signature_coverage`` of these sets in the prepared cells."""
    # the random sets themselves are not wanted here: as few as can be, from as small a pool
    matched = draw_matched_sets(prepared.statistics, sets, n_null=2, pool_size=2, synonyms=synonyms, **gates)
    return matched.coverage.reset_index(drop=True)


def scorable(coverage: pd.DataFrame, name: str) -> bool:
    """Whether a signature met the coverage rule."""
    return bool(((coverage["signature"] == name) & (coverage["status"] == OK)).any())
