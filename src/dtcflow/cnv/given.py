r"""A tumour's known copy number as the profile that cells are scored by.

A place with :math:`c` copies where the tumour's level is :math:`p` has the copy ratio :math:`r = c / p`, and its genes
are expressed :math:`1 + s\,(r - 1)` times as much, with the dosage slope :math:`s = 0.8`; the expected log ratio of an
arm or segment is the logarithm of the mean over its genes. A profile that was not learned from the cells needs no
seeds and no leave-out: every cell, those of the reference included, is scored by the same numbers, on segments of some
forty genes, so that events within an arm count.

What a profile does not cover is *not covered*, which is not neutral: such segments take no part in the score. The
score statistic ``T``, from which the p-values come, depends on nothing but the profile and the cell, and a shift of all
log ratios leaves it as it is. The likelihood ratio and the share of the profile in a cell need its scale, too; the
purity of bulk DNA and a tumour's own dosage slope are unknown, so that one scale per patient is estimated from the
candidates that ``T`` points out, on one half of the genes for cells chosen by the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow.cnv.arms import AUTOSOMES, ArmModel, ArmStatistics, SplitStatistics
from dtcflow.cnv.decoys import decoy_profiles
from dtcflow.cnv.null import Floats, tail_p_values
from dtcflow.cnv.profile import BestMatch, best_match, score_against
from dtcflow.cnv.scoring import Scored
from dtcflow.genes import load_arms
from dtcflow.io.copy_number import KnownCopyNumber, read_copy_number, weighted_median

DOSAGE_SLOPE: Final = 0.8
"""Expression follows copies with this slope: a gain of 50 % in copies gives 40 % more transcripts."""
MAX_COPY_RATIO: Final = 4.0
"""Copies above four times the tumour's level count as this: amplicons are focal and their dosage saturates."""
MIN_COVERED: Final = 0.5
"""Share of the genes (or base pairs) of a region that the profile must cover."""
MIN_GENOME_FOR_LEVEL: Final = 0.5
"""Share of the autosomes from which on the profile's own median is the tumour's level; a list of events alone is
taken relative to two copies (log2 ratio 0)."""
MIN_ARMS: Final = 3
"""Covered arms that a profile needs."""
FLAT: Final = 0.02
"""A profile whose expected log ratios vary less than this (SD) holds nothing to recognise a tumour by."""
SCALE_P: Final = 0.01
"""Candidates with a smaller p-value on one half of the genes tell the scale on the other half."""
SCALE_CELLS: Final = 5
SCALE_MAX_ERROR: Final = 0.15
SCALE_RANGE: Final = (0.4, 2.5)
"""A profile of a third of tumour DNA is 2.5 times too flat; an estimate outside is no scale but another genome."""
N_DECOYS: Final = 99
"""Arm-permuted decoys beside the flipped one. They need no loop, and with 100 a single cell can reach a rate of .01."""
MIN_AGREEMENT: Final = 0.5
"""Correlation of given and learned profile over arms below which the cells do not show the given profile. Chosen on
simulation (20 arms, 6 of them altered, seeds 1 and 2): of 48 profiles with their arms permuted 95 % stay below it, the
right profile has .93 and more."""


@dataclass(frozen=True)
class GivenProfile:
    """Copy ratio of a tumour along the genome, relative to its own level."""

    segments: pd.DataFrame
    """``chromosome start end ratio``, 1-based and inclusive, in genome order, without overlaps."""
    source: KnownCopyNumber
    level: float
    """Copies (or log2 ratio, or natural log ratio) that count as neutral: the length-weighted median of the autosomes,
    or two copies (ratio 0) where less than half of them is covered."""
    genome_covered: float
    """Share of the autosomes with a value."""

    def at(self, chromosome: Sequence[str], position: npt.NDArray[np.int64]) -> Floats:
        """Copy ratio at single places; NaN where the profile has none."""
        found = np.full(len(position), np.nan)
        names = np.asarray(chromosome, dtype=object)
        for name, part in self.segments.groupby("chromosome", sort=False):
            here = np.flatnonzero(names == name)
            row = np.searchsorted(part["start"].to_numpy(), position[here], side="right") - 1
            inside = (row >= 0) & (position[here] <= part["end"].to_numpy()[np.maximum(row, 0)])
            found[here[inside]] = part["ratio"].to_numpy()[row[inside]]
        return found

    def over_genes(self, genes: pd.DataFrame, region: npt.NDArray[np.int64], names: Sequence[str]) -> RegionProfile:
        """Expected log ratio of groups of genes.

        Parameters
        ----------
        genes
            ``chromosome start end`` per gene.
        region
            Index into ``names`` per gene (an arm or a segment).
        names
            Names of the regions.
        """
        middle = (genes["start"].to_numpy(dtype=np.int64) + genes["end"].to_numpy(dtype=np.int64)) // 2
        ratio = self.at(genes["chromosome"].astype(str).tolist(), middle)
        known = np.isfinite(ratio)
        total = np.bincount(region, minlength=len(names)).astype(np.float64)
        covered = np.bincount(region[known], minlength=len(names)).astype(np.float64)
        summed = np.bincount(region[known], weights=ratio[known], minlength=len(names))
        return _regions(names, summed / np.maximum(covered, 1.0), covered / np.maximum(total, 1.0))

    def over_regions(self, regions: pd.DataFrame) -> RegionProfile:
        """Expected log ratio of stretches of the genome (``chromosome start end``, index = names), by length."""
        ratio = np.zeros(len(regions))
        covered = np.zeros(len(regions))
        by_chromosome = {str(name): part for name, part in self.segments.groupby("chromosome", sort=False)}
        rows = zip(regions["chromosome"].astype(str), regions["start"], regions["end"], strict=True)
        for i, (name, start, end) in enumerate(rows):
            part = by_chromosome.get(name)
            if part is None:
                continue
            overlap = np.minimum(part["end"].to_numpy(), end) - np.maximum(part["start"].to_numpy(), start) + 1
            overlap = np.maximum(overlap, 0).astype(np.float64)
            covered[i] = overlap.sum() / (end - start + 1)
            ratio[i] = overlap @ part["ratio"].to_numpy() / max(float(overlap.sum()), 1.0)
        return _regions([str(name) for name in regions.index], ratio, covered)

    def on_model(self, genes: pd.DataFrame, model: ArmModel) -> PlacedProfile:
        """Expected log ratios of a model's segments and arms; ``genes`` are the columns of its count matrix."""
        layout = model.layout
        used = genes.iloc[model.genes]
        segment = layout.column_bin[model.genes] // 2
        return PlacedProfile(
            self.over_genes(used, segment, layout.segments),
            self.over_genes(used, layout.segment_arm[segment], layout.arms),
        )


@dataclass(frozen=True)
class RegionProfile:
    """A given profile on arms or segments."""

    names: tuple[str, ...]
    copy_ratio: Floats
    """Mean copy ratio relative to the tumour's level; NaN where the profile covers less than half."""
    expected: Floats
    """Expected natural log ratio of expression; NaN where not covered."""
    covered: Floats
    """Share of the region with a value."""

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Regions that the profile covers."""
        return np.isfinite(self.expected)

    @property
    def relative_change(self) -> Floats:
        """Expected relative change of expression, the scale of learned profiles; 0 where not covered."""
        return np.where(self.known, np.expm1(np.where(self.known, self.expected, 0.0)), 0.0)


@dataclass(frozen=True)
class PlacedProfile:
    """A given profile on the segments and the arms of one patient's model."""

    segments: RegionProfile
    arms: RegionProfile

    @property
    def problem(self) -> str:
        """Why cells cannot be scored by this profile; empty when they can."""
        n_arms = int(self.arms.known.sum())
        if n_arms < MIN_ARMS:
            return f"covers {n_arms} of {len(self.arms.names)} arms, {MIN_ARMS} are needed"
        if np.std(self.segments.expected[self.segments.known]) < FLAT:
            return "is flat where it covers the genome (neutral parts must be given, too)"
        return ""


def _regions(names: Sequence[str], ratio: Floats, covered: Floats) -> RegionProfile:
    ratio = np.where(covered >= MIN_COVERED, ratio, np.nan)
    return RegionProfile(tuple(names), ratio, np.log1p(DOSAGE_SLOPE * (ratio - 1.0)), covered)


def read_given(
    path: str | Path, *, patient_id: str = "", sample_ids: Sequence[str] = (), build: str = "GRCh38"
) -> GivenProfile:
    """Read a profile (:func:`dtcflow.io.copy_number.read_copy_number`) and put it relative to the tumour's level."""
    known = read_copy_number(path, patient_id=patient_id, sample_ids=sample_ids, build=build)
    return relative_to_level(known, build=build)


def relative_to_level(known: KnownCopyNumber, *, build: str = "GRCh38") -> GivenProfile:
    """Turn copies, log2 ratios, natural log ratios of expression or states into copy ratios.

    Absolute copies are divided by the tumour's level, which is the length-weighted median over the autosomes, close to
    its ploidy (two copies where less than half of them is covered). log2 ratios are centred by their median and taken
    as they are, as if the DNA were all tumour. A natural log ratio is of expression and gives itself back.
    """
    frame = known.segments
    autosomal = frame[frame["chromosome"].isin(AUTOSOMES).to_numpy()]
    width = (autosomal["end"] - autosomal["start"] + 1).to_numpy(dtype=np.float64)
    arms = load_arms(build)
    genome = float((arms["end"] - arms["start"] + 1)[arms["chromosome"].isin(AUTOSOMES)].sum())
    share = float(width.sum() / genome)
    value = frame["value"].to_numpy(dtype=np.float64)
    neutral = 2.0 if known.kind == "copy_number" else 0.0
    level = neutral
    if share >= MIN_GENOME_FOR_LEVEL and known.kind != "state":
        level = weighted_median(autosomal["value"].to_numpy(dtype=np.float64), width)
    if known.kind == "copy_number":
        # half of the genome without copies is no tumour's genome; tiny negative estimates are 0
        level = level if level > 0.5 else neutral
        ratio = np.maximum(value, 0.0) / level
    elif known.kind == "state":
        ratio = (2.0 + value) / 2.0
    elif known.kind == "log2":
        ratio = np.exp2(value - level)
    else:
        ratio = np.maximum(1.0 + np.expm1(value - level) / DOSAGE_SLOPE, 0.0)
    segments = frame[["chromosome", "start", "end"]].assign(ratio=np.minimum(ratio, MAX_COPY_RATIO))
    return GivenProfile(segments, known, float(level), share)


# ---------------------------------------------------------------------------------------------------------------------
# Scoring
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GivenScores:
    """All cells against a given profile."""

    best: BestMatch
    """Of every cell: ``t`` by the profile as given, the other fields by the scaled one, which is in ``profiles``."""
    matched: BestMatch
    """Of held-out reference cells, types in the reference."""
    unseen: BestMatch
    """The same where the cell's type was left out of the reference."""
    decoys: dict[str, Floats]
    """``T`` of every cell by the profile with its sign flipped, and with its arms permuted."""
    scale: float
    scale_se: float
    """NaN when too few cells show the profile to tell its scale; it is then 1."""
    scale_cells: int


def covered_only(statistics: ArmStatistics, covered: npt.NDArray[np.bool_]) -> ArmStatistics:
    """The same cells with no information on the regions that a profile does not cover."""
    return ArmStatistics(statistics.u * covered, statistics.info * covered, statistics.arms)


def score_patient(
    placed: PlacedProfile, scored: Scored, candidates: npt.NDArray[np.bool_], *, seed: int
) -> GivenScores:
    """Score all cells of a patient against a given profile, on segments; decoys on arms.

    Parameters
    ----------
    placed
        The profile on the patient's model (:meth:`GivenProfile.on_model`).
    scored
        All cells and the held-out reference cells.
    candidates
        Cells that may be tumour; the scale is estimated on those that ``T`` points out.
    seed
        Of the permuted decoys.
    """
    null = scored.null
    matched = null.matched.segments().full
    unseen = null.unseen.segments().full if len(null.unseen.u) else matched
    inflation = null.noise(of="segments").inflation
    best, of_matched, of_unseen, scale = score_given(
        placed.segments, scored.bins.segments(), matched, unseen, inflation, candidates
    )
    arms, known = covered_only(scored.statistics.full, placed.arms.known), np.flatnonzero(placed.arms.known)
    decoys = {}
    pooled = arms.info[candidates if candidates.any() else slice(None)].sum(axis=0)
    for name, decoy in decoy_profiles(pooled[known], n_permuted=N_DECOYS, seed=seed).items():
        spoilt = np.zeros(len(placed.arms.names))
        spoilt[known] = decoy(placed.arms.relative_change[known])
        decoys[name] = score_against(spoilt, arms, scored.noise.inflation)[0]
    return GivenScores(best, of_matched, of_unseen, decoys, *scale)


def score_given(
    profile: RegionProfile,
    statistics: SplitStatistics,
    matched: ArmStatistics,
    unseen: ArmStatistics,
    inflation: Floats,
    candidates: npt.NDArray[np.bool_],
) -> tuple[BestMatch, BestMatch, BestMatch, tuple[float, float, int]]:
    """Score cells and two nulls against a profile on the regions of ``statistics``.

    Returns
    -------
    BestMatch
        Of the cells, of the ``matched`` and of the ``unseen`` reference cells.
    tuple
        Scale of the profile in this patient's tumour cells, its standard error (NaN: too few cells, the scale is 1)
        and the number of cells that told it.
    """
    change = profile.relative_change
    whole, matched, unseen, *halves = (
        covered_only(part, profile.known) for part in (statistics.full, matched, unseen, *statistics.halves)
    )
    scale = _scale(change, halves, unseen, inflation, candidates)

    def scores(part: ArmStatistics) -> BestMatch:
        scaled = best_match((change * scale[0])[None, :], part, inflation)
        return replace(scaled, t=score_against(change, part, inflation)[0])

    return scores(whole), scores(matched), scores(unseen), scale


def _scale(
    change: Floats,
    halves: Sequence[ArmStatistics],
    null: ArmStatistics,
    inflation: Floats,
    candidates: npt.NDArray[np.bool_],
) -> tuple[float, float, int]:
    """Scale of the profile in this patient's tumour cells, its standard error and the number of cells.

    Cells are chosen by one half of the genes and measured on the other, so that choosing them does not inflate it.
    """
    null_t = score_against(change, null, inflation)[0]
    numerator = denominator = variance = 0.0
    chosen_cells = np.zeros(len(candidates), dtype=bool)
    for chosen_by, measured_on in ((0, 1), (1, 0)):
        t = score_against(change, halves[chosen_by], inflation)[0]
        chosen = candidates & (np.nan_to_num(tail_p_values(t, null_t), nan=1.0) <= SCALE_P)
        chosen_cells |= chosen
        part = halves[measured_on][chosen]
        info = part.info
        centred = change - (info @ change / np.maximum(info.sum(axis=1), 1e-9))[:, None]
        numerator += float((centred * part.u).sum())
        denominator += float((np.square(centred) * info).sum())
        variance += float((np.square(centred) * info * inflation).sum())
    n_cells = int(chosen_cells.sum())
    if n_cells < SCALE_CELLS or denominator <= 0:
        return 1.0, float("nan"), n_cells
    scale, error = numerator / denominator, float(np.sqrt(variance)) / denominator
    if error > SCALE_MAX_ERROR or not SCALE_RANGE[0] <= scale <= SCALE_RANGE[1]:
        return 1.0, float("nan"), n_cells
    return scale, error, n_cells


def agreement(profile: RegionProfile, learned: Floats) -> float:
    """Pearson correlation of a given with a learned profile over the covered regions; NaN where it has no meaning."""
    both = profile.known & np.isfinite(learned)
    change = profile.relative_change[both]
    if both.sum() < MIN_ARMS or np.ptp(change) == 0 or np.ptp(learned[both]) == 0:
        return float("nan")
    return float(np.corrcoef(change, learned[both])[0, 1])


def profile_status(
    profile: PlacedProfile | None,
    scores: GivenScores | None,
    *,
    learned: Floats | None,
    believed: bool,
) -> dict[str, Any]:
    """Entries of ``status`` about where the profile came from that the cells were scored by.

    Parameters
    ----------
    profile, scores
        The given profile and what came of it; ``None`` without one, scores also when it could not be used.
    learned
        Log ratio per arm of the profile that was learned from the cells; ``None`` when there is none.
    believed
        Whether the learned profile is strong enough to score cells by.

    Returns
    -------
    dict
        ``profile_source`` (given, learned, none), ``profile_warnings``, and with a given profile its ``profile_scale``
        (with standard error and number of cells) and ``profile_agreement`` with the learned one.
    """
    status: dict[str, Any] = {
        "profile_source": "given" if scores is not None else "learned" if believed else "none",
        "profile_warnings": [],
    }
    if profile is None:
        return status
    agreed = float("nan") if learned is None else agreement(profile.arms, learned)
    status["profile_agreement"] = agreed
    if scores is None:
        status["profile_warnings"].append(f"the given profile {profile.problem}; it was not used")
        return status
    status.update(profile_scale=scores.scale, profile_scale_se=scores.scale_se, profile_scale_cells=scores.scale_cells)
    if believed and agreed < MIN_AGREEMENT:
        status["profile_warnings"].append(
            f"the cells show another genome than the given profile (correlation over arms {agreed:.2f} with the one "
            "learned from them): is it of this patient, and of this build?"
        )
    return status


def describe(given: GivenProfile, profile: PlacedProfile) -> dict[str, Any]:
    """Entries of ``status`` about a given profile itself: what it is and what it covers."""
    known = given.source
    return {
        "profile_format": known.format,
        "profile_values": known.kind,
        "profile_id": known.profile_id,
        "profile_build": known.build,
        "profile_build_known_by": known.build_known_by,
        "profile_level": given.level,
        "profile_genome_covered": given.genome_covered,
        "profile_not_covered": [n for n, k in zip(profile.arms.names, profile.arms.known, strict=True) if not k],
    }


def as_table(profile: RegionProfile) -> pd.DataFrame:
    """A given profile on arms (or segments) as a table: ``arm copy_ratio expected covered``."""
    return pd.DataFrame(
        {
            "arm": pd.Series(list(profile.names), dtype=object),
            "copy_ratio": profile.copy_ratio,
            "expected": profile.expected,
            "covered": profile.covered,
        }
    )
