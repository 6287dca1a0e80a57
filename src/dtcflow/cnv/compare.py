"""Copy number from expression against a tumour's known copy number from DNA.

Per sample and clone, on chromosome arms and on 1 Mb bins (a bin has the level of the piece that
:mod:`dtcflow.cnv.seg` fits there). Both sides are relative to the tumour's level: the known profile to its median
number of copies, the measured one to the regions that the known profile calls neutral.
Gains and losses of the known profile are log2 ratios from 0.2 up and from -0.25 down (the limits by which CNVkit calls
a tumour of unknown purity; Talevich et al. 2016, PLoS Comput Biol 12:e1004873).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from dtcflow.cnv.arms import AUTOSOMES
from dtcflow.cnv.clone_arms import clone_arm_table
from dtcflow.cnv.given import GivenProfile, RegionProfile, read_given
from dtcflow.cnv.null import Floats
from dtcflow.cnv.packed import unpack_segments
from dtcflow.cnv.seg import clone_groups, clone_track, fitted_segments
from dtcflow.contracts import TABLES, InputError, Problem, read_stage, read_table
from dtcflow.genes import load_arms, load_positions

GAIN_LOG2: Final = 0.2
LOSS_LOG2: Final = -0.25
BIN: Final = 1_000_000
MIN_REGIONS: Final = 3
"""Regions that a correlation or a slope needs."""

Bools = npt.NDArray[np.bool_]


def known_states(copy_ratio: Floats) -> npt.NDArray[np.int64]:
    """Gain (1), loss (-1) or neutral (0) from copy ratios; NaN counts as neutral and must be left out before."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log2 = np.log2(copy_ratio)
    return np.asarray(np.where(log2 >= GAIN_LOG2, 1, np.where(log2 <= LOSS_LOG2, -1, 0)), dtype=np.int64)


def area_under_curve(score: Floats, positive: Bools) -> float:
    """Area under the ROC curve, ties counted half; NaN when there is only one class."""
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def f1_score(called: Bools, true: Bools) -> float:
    """F1 of calls against the truth; NaN when there is nothing to call and nothing was called."""
    either = int(called.sum() + true.sum())
    return float(2 * int((called & true).sum()) / either) if either else float("nan")


def comparison_metrics(
    log_ratio: Floats, copy_ratio: Floats, *, effect: float, called: npt.NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """Agreement of measured log ratios with known copy ratios, both one entry per region.

    Parameters
    ----------
    log_ratio
        Measured log ratio, which is ``U / I``, the relative change of expression; NaN where not measured.
    copy_ratio
        Known copies relative to the tumour's level; NaN where not covered. Regions that lack one of the two are left
        out.
    effect
        Absolute log ratio from which on a region counts as called, where ``called`` is not given.
    called
        Gain (1), loss (-1) or neither (0) per region, as the caller called it.

    Returns
    -------
    dict
        ``n_regions n_gain n_loss n_neutral pearson spearman auc_gain auc_loss f1 f1_gain f1_loss rmse_neutral offset
        dosage_slope``. AUC: gains against all other regions, losses likewise. ``f1`` takes gains and losses together
        (the sign must agree). ``offset`` is the median measured log ratio of the neutral regions, which is subtracted
        before ``rmse_neutral`` and ``called``-by-size. ``dosage_slope`` is the least-squares slope of the relative
        change of expression on the relative change of copies. NaN where a value has no meaning.
    """
    both = np.isfinite(log_ratio) & np.isfinite(copy_ratio)
    measured, known = log_ratio[both], copy_ratio[both]
    state = known_states(known)
    neutral = state == 0
    offset = float(np.median(measured[neutral])) if neutral.any() else 0.0
    centred = measured - offset
    by_size = np.where(centred >= effect, 1, np.where(centred <= -effect, -1, 0))
    call = np.asarray(by_size if called is None else called[both], dtype=np.int64)
    varied = len(known) >= MIN_REGIONS and np.ptp(known) > 0 and np.ptp(measured) > 0
    nan = float("nan")
    return {
        "n_regions": int(both.sum()),
        "n_gain": int((state == 1).sum()),
        "n_loss": int((state == -1).sum()),
        "n_neutral": int(neutral.sum()),
        "pearson": float(np.corrcoef(measured, known)[0, 1]) if varied else nan,
        "spearman": float(stats.spearmanr(measured, known).statistic) if varied else nan,
        "auc_gain": area_under_curve(measured, state == 1),
        "auc_loss": area_under_curve(-measured, state == -1),
        "f1": _signed_f1(call, state),
        "f1_gain": f1_score(call == 1, state == 1),
        "f1_loss": f1_score(call == -1, state == -1),
        "rmse_neutral": float(np.sqrt(np.mean(np.square(centred[neutral])))) if neutral.any() else nan,
        "offset": offset if neutral.any() else nan,
        "dosage_slope": float(np.polyfit(known - 1.0, centred, 1)[0]) if varied else nan,
    }


def _signed_f1(call: npt.NDArray[np.int64], state: npt.NDArray[np.int64]) -> float:
    altered = int((call != 0).sum() + (state != 0).sum())
    return float(2 * int(((call == state) & (state != 0)).sum()) / altered) if altered else float("nan")


# ---------------------------------------------------------------------------------------------------------------------
# Tracks along the genome
# ---------------------------------------------------------------------------------------------------------------------


def megabase_bins(build: str = "GRCh38", *, size: int = BIN) -> pd.DataFrame:
    """Bins of ``size`` base pairs on the autosomes, none across a centromere: ``chromosome start end arm``."""
    rows: list[tuple[str, int, int, str]] = []
    arms = load_arms(build)
    arms = arms[arms["chromosome"].isin(AUTOSOMES)]
    columns = (arms[name].tolist() for name in ("chromosome", "arm", "start", "end"))
    for chromosome, arm, first, last in zip(*columns, strict=True):
        rows += [(chromosome, start, min(start + size - 1, last), arm) for start in range(first, last + 1, size)]
    return pd.DataFrame(rows, columns=["chromosome", "start", "end", "arm"])


def over_bins(track: pd.DataFrame, bins: pd.DataFrame) -> Floats:
    """Mean of a track over each bin, weighted by overlap; NaN where no region of the bin's arm lies."""
    found = np.full(len(bins), np.nan)
    known = track[np.isfinite(track["log_ratio"].to_numpy(dtype=float))]
    for name, part in known.groupby("arm", sort=False):
        rows = np.flatnonzero((bins["arm"] == name).to_numpy())
        start, end = (bins[column].to_numpy()[rows][:, None] for column in ("start", "end"))
        overlap = np.minimum(part["end"].to_numpy(), end) - np.maximum(part["start"].to_numpy(), start) + 1
        overlap = np.maximum(overlap, 0).astype(np.float64)
        total = overlap.sum(axis=1)
        covered = total > 0
        found[rows[covered]] = (overlap @ part["log_ratio"].to_numpy(dtype=float))[covered] / total[covered]
    return found


# ---------------------------------------------------------------------------------------------------------------------
# A patient
# ---------------------------------------------------------------------------------------------------------------------


def compare_patient(
    given: GivenProfile,
    packed: ad.AnnData,
    calls: pd.DataFrame,
    *,
    patient_id: str,
    effect: float,
    build: str = "GRCh38",
) -> pd.DataFrame:
    """Table ``comparison`` of one patient: every sample and clone against the known profile, on arms and 1 Mb bins.

    Parameters
    ----------
    given
        The known profile.
    packed
        Stage ``cnv`` of the patient.
    calls
        Table ``calls``; cells of other patients are left out.
    effect
        ``copy_number.min_abs_log_ratio``.
    build
        Genome build of the gene positions.

    Returns
    -------
    pandas.DataFrame
        No rows when the patient has no clone or copy number was not assessable.
    """
    calls = calls.set_index("cell_id", drop=False).loc[list(packed.obs_names)].reset_index(drop=True)
    statistics, inflation, tau, _ = unpack_segments(packed)
    bins = megabase_bins(build)
    by_bin = given.over_regions(bins).copy_ratio
    rows: list[dict[str, Any]] = []
    for sample, clone, members in clone_groups(calls) if len(statistics.full.arms) else []:
        table = clone_arm_table(statistics[members], inflation=inflation, tau=tau, min_abs_log_ratio=effect)
        arms = _arm_profile(given, tuple(table.index), build)
        states = table["state"].to_numpy(dtype=object)
        state = np.where(states == "gain", 1, np.where(states == "loss", -1, 0)).astype(np.int64)
        measured: dict[str, tuple[Floats, Floats, npt.NDArray[np.int64] | None]] = {
            "arm": (table["log_ratio"].to_numpy(dtype=float), arms.copy_ratio, state),
            "1mb": (over_bins(fitted_segments(clone_track(packed, members)), bins), by_bin, None),
        }
        for resolution, (log_ratio, copy_ratio, called) in measured.items():
            rows.append(
                {
                    "patient_id": patient_id,
                    "sample_id": sample,
                    "clone_id": clone,
                    "resolution": resolution,
                    "n_cells": int(members.sum()),
                    "profile_format": given.source.format,
                    "profile_values": given.source.kind,
                }
                | comparison_metrics(log_ratio, copy_ratio, effect=effect, called=called)
            )
    return stack_comparisons([pd.DataFrame(rows)])


def compare_results(
    results: str | Path, profile: str | Path, *, patient_id: str, effect: float, build: str = "GRCh38"
) -> pd.DataFrame:
    """Table ``comparison`` of one patient of a finished run against a profile that need not have been part of it.

    Parameters
    ----------
    results
        Results folder of a run.
    profile
        SEG, BED, table of segments or of arms (:func:`dtcflow.io.copy_number.read_copy_number`).
    """
    stage = Path(results) / "cnv" / "patients" / f"{patient_id}.h5ad"
    if not stage.is_file():
        known = ", ".join(sorted(path.stem for path in stage.parent.glob("*.h5ad")))
        raise InputError(
            f"no copy number of patient {patient_id!r} in {results}",
            [
                Problem(
                    str(stage), "no such file", f"one of {known}" if known else "the results of a finished run",
                    "check the name of the patient" if known else "run the workflow, or check --results",
                )
            ],
        )  # fmt: skip
    packed = read_stage(stage, "cnv")
    calls = read_table(Path(results) / "calls" / "cells.tsv.gz", "calls")
    samples = sorted({str(name).split(":", 1)[0] for name in packed.obs_names})
    given = read_given(profile, patient_id=patient_id, sample_ids=samples, build=build)
    return compare_patient(given, packed, calls, patient_id=patient_id, effect=effect, build=build)


def _arm_profile(given: GivenProfile, arms: Sequence[str], build: str) -> RegionProfile:
    """The known profile on arms, weighted by genes where the gene positions that ship are those of the study."""
    if build == "GRCh38":
        genes = load_positions()
        index = {arm: i for i, arm in enumerate(arms)}
        genes = genes[genes["arm"].isin(index)]
        region = np.array([index[arm] for arm in genes["arm"]], dtype=np.int64)
        return given.over_genes(genes, region, list(arms))
    return given.over_regions(load_arms(build).set_index("arm").loc[list(arms)])


def stack_comparisons(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Comparisons of several patients as one table; only the header when there are none."""
    filled = [table for table in tables if len(table)]
    if not filled:
        return pd.DataFrame({column: pd.Series([], dtype=object) for column in TABLES["comparison"]})
    return pd.concat(filled, ignore_index=True)[list(TABLES["comparison"])]
