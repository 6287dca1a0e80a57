r"""A tumour's known copy number as the profile that cells are scored by.

A place with :math:`c` copies where the tumour's level is :math:`p` has the copy ratio :math:`r = c / p`, and its genes
are expressed :math:`1 + s\,(r - 1)` times as much, with the dosage slope :math:`s = 0.8`; the expected log ratio of an
arm or segment is the logarithm of the mean over its genes. A profile that was not learned from the cells needs no
seeds and no leave-out: every cell, those of the reference included, is scored by the same numbers.

What a profile does not cover is *not covered*, which is not neutral: such arms take no part in the score. The score
statistic ``T`` does not depend on the level or the scale of the profile. The likelihood ratio and the share of the
profile in a cell do; the purity of bulk DNA and a tumour's own dosage slope are unknown, so that one scale per patient
is estimated from the candidates that ``T`` points out, on one half of the genes for cells chosen by the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow.cnv.arms import AUTOSOMES, ArmStatistics
from dtcflow.cnv.null import Floats, tail_p_values
from dtcflow.cnv.profile import BestMatch, SplitStatistics, best_match
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
MIN_AGREEMENT: Final = 0.5
"""Correlation of given and learned profile over arms below which the cells do not show the given profile. Chosen on
simulation (20 arms, 6 of them altered, seeds 1 and 2): of 48 profiles with their arms permuted 95 % stay below it, the
right profile has .92 and more."""


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
    def problem(self) -> str:
        """Why cells cannot be scored by this profile; empty when they can."""
        known = self.expected[np.isfinite(self.expected)]
        if len(known) < MIN_ARMS:
            return f"covers {len(known)} of {len(self.names)} arms, {MIN_ARMS} are needed"
        if np.std(known) < FLAT:
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

    Absolute copies are divided by the tumour's level, which is the length-weighted median over the autosomes: the
    commonest number of copies, close to its ploidy. log2 ratios are centred by their median and taken as they are, as
    if the DNA were all tumour. A natural log ratio (our own ``arms.tsv``) is of expression and gives itself back.
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
    """Of every cell; ``profiles`` is the one that was used (scaled; 0 where it is not covered)."""
    matched_t: Floats
    """Score statistic of the held-out reference cells (types in the reference)."""
    unseen_t: Floats
    """The same where the cell's type was left out of the reference."""
    scale: float
    scale_se: float
    """NaN when too few cells show the profile to tell its scale; it is then 1."""
    scale_cells: int


def covered_only(statistics: ArmStatistics, covered: npt.NDArray[np.bool_]) -> ArmStatistics:
    """The same cells with no information on the regions that a profile does not cover."""
    return ArmStatistics(statistics.u * covered, statistics.info * covered, statistics.arms)


def score_given(
    profile: RegionProfile,
    statistics: SplitStatistics,
    matched: ArmStatistics,
    unseen: ArmStatistics,
    inflation: Floats,
    candidates: npt.NDArray[np.bool_],
) -> GivenScores:
    """Score all cells against a given profile.

    Parameters
    ----------
    profile
        On the regions of ``statistics``, in their order.
    statistics
        All cells of the patient.
    matched, unseen
        Held-out reference cells under both nulls.
    inflation
        Variance of the reference's z per region.
    candidates
        Cells that may be tumour; the scale is estimated on those that ``T`` points out.
    """
    covered = np.isfinite(profile.expected)
    expected = np.where(covered, profile.expected, 0.0)
    halves = [covered_only(half, covered) for half in statistics.halves]
    null = covered_only(unseen if len(unseen.u) else matched, covered)
    scale, error, n_cells = _scale(expected, halves, null, inflation, candidates)
    used = (expected * scale)[None, :]
    whole, matched, unseen = (covered_only(part, covered) for part in (statistics.full, matched, unseen))
    return GivenScores(
        best_match(used, whole, inflation),
        best_match(used, matched, inflation).t,
        best_match(used, unseen, inflation).t,
        scale,
        error,
        n_cells,
    )


def _scale(
    expected: Floats,
    halves: Sequence[ArmStatistics],
    null: ArmStatistics,
    inflation: Floats,
    candidates: npt.NDArray[np.bool_],
) -> tuple[float, float, int]:
    """Scale of the profile in this patient's tumour cells, its standard error and the number of cells.

    Cells are chosen by one half of the genes and measured on the other, so that choosing them does not inflate it.
    """
    null_t = best_match(expected[None, :], null, inflation).t
    numerator = denominator = variance = 0.0
    chosen_cells = np.zeros(len(candidates), dtype=bool)
    for chosen_by, measured_on in ((0, 1), (1, 0)):
        t = best_match(expected[None, :], halves[chosen_by], inflation).t
        chosen = candidates & (np.nan_to_num(tail_p_values(t, null_t), nan=1.0) <= SCALE_P)
        chosen_cells |= chosen
        part = halves[measured_on][chosen]
        info = part.info
        centred = expected - (info @ expected / np.maximum(info.sum(axis=1), 1e-9))[:, None]
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
    both = np.isfinite(profile.expected) & np.isfinite(learned)
    if both.sum() < MIN_ARMS or np.ptp(profile.expected[both]) == 0 or np.ptp(learned[both]) == 0:
        return float("nan")
    return float(np.corrcoef(profile.expected[both], learned[both])[0, 1])


def profile_status(
    profile: RegionProfile | None,
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
    agreed = float("nan") if learned is None else agreement(profile, learned)
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


def describe(given: GivenProfile, profile: RegionProfile) -> dict[str, Any]:
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
        "profile_not_covered": [n for n, e in zip(profile.names, profile.expected, strict=True) if not np.isfinite(e)],
    }


def as_table(profile: RegionProfile) -> pd.DataFrame:
    """A given profile as a table: ``arm copy_ratio expected covered``."""
    return pd.DataFrame(
        {
            "arm": pd.Series(list(profile.names), dtype=object),
            "copy_ratio": profile.copy_ratio,
            "expected": profile.expected,
            "covered": profile.covered,
        }
    )
