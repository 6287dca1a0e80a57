"""Score a patient's cells against a reference that has been screened for hidden tumour cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.cnv.arms import ArmModel, ArmStatistics, BinStatistics, SplitStatistics, bin_statistics, fit_arm_model
from dtcflow.cnv.burden import burden
from dtcflow.cnv.clones import find_clones
from dtcflow.cnv.coherence import MIN_COHERENT_STRENGTH, coherence
from dtcflow.cnv.null import TAU_FEW_TYPES, TAU_PRIOR, Floats, Noise, ReferenceNull, cross_fit, tail_p_values
from dtcflow.cnv.profile import (
    MANY_CHROMOSOMES,
    MIN_EPITHELIAL_STRENGTH,
    MIN_MISLABELLED_CHROMOSOMES,
    MIN_PROFILE_STRENGTH,
    MIN_SEEDS,
    BestMatch,
    LearnedProfile,
    arm_table,
    believable,
    believable_profile,
    best_match,
    learn_clone,
    n_chromosomes,
    profile_of,
)
from dtcflow.cnv.reference import Reference
from dtcflow.order import stable_order

MIN_TYPES_TO_SCREEN = 3
"""Screening a type needs two others: one to model it, and one to say how far a normal type may be off."""
MOST_OF_A_TYPE = 0.5
"""Share of a type's cells from which on a common profile is first taken for the type (plasma cells among B cells) and
only with twice the strength for a hidden clone."""


@dataclass(frozen=True)
class Scored:
    """All cells of a patient against one reference; reference cells by models they had no part in."""

    reference: Reference
    model: ArmModel
    bins: BinStatistics
    null: ReferenceNull
    noise: Noise
    """Per arm."""
    with_scatter: bool = True
    """Whether the scatter of a group's own segments bounds what its arms can say
    (:func:`dtcflow.cnv.profile.scatter_tau`)."""

    @property
    def min_strength(self) -> float:
        """Strength from which on a profile is believed."""
        return MIN_PROFILE_STRENGTH if self.with_scatter else MIN_EPITHELIAL_STRENGTH

    @cached_property
    def statistics(self) -> SplitStatistics:
        """All cells x arms."""
        arms = self.bins.arms()
        return arms if self.with_scatter else replace(arms, segments=None, segment_arm=None)

    @cached_property
    def matched(self) -> ArmStatistics:
        """Null for a cell whose type is in the reference."""
        return self.null.matched.arms().full

    @cached_property
    def unseen(self) -> ArmStatistics:
        """Null for a cell that no reference type matches; the matched null where only one type is there."""
        return self.null.unseen.arms().full if len(self.null.unseen.u) else self.matched


def score_cells(
    counts: sp.csr_matrix,
    cell_ids: list[str],
    reference: Reference,
    arms: npt.NDArray[np.object_],
    usable: npt.NDArray[np.bool_],
    *,
    folds: int,
    seed: int,
) -> Scored:
    """Fit the reference model and score every cell."""
    rows = reference.rows
    reference_counts = sp.csr_matrix(counts[rows])
    model = fit_arm_model(reference_counts, reference.types, arms, usable)
    null = cross_fit(
        reference_counts,
        reference.types,
        [cell_ids[i] for i in rows],
        arms,
        usable,
        model,
        folds=folds,
        seed=seed,
        few_types_prior=TAU_PRIOR if reference.by_user else TAU_FEW_TYPES,
    )
    # no cell is judged by a model it shaped
    bins = bin_statistics(model, counts)
    bins.u[rows], bins.info[rows] = null.matched.u, null.matched.info
    return Scored(reference, model, bins, null, null.noise())


def suspect_reference(scored: Scored, *, seed: int, folds: int, effect: float) -> npt.NDArray[np.bool_]:
    """Reference cells that share a tumour-like genome although their annotation is normal.

    Carcinoma cells can look like fibroblasts. Every type is scored by a model fitted on the other types and goes
    through the same seed loop as tumour candidates; the members of a believable clone leave the reference. When most
    of the type would leave, what it shares is more likely its expression, and twice the strength is asked for.
    """
    null, noise, suspect = scored.null, scored.noise, np.zeros(len(scored.reference.rows), dtype=bool)
    whole = null.unseen.arms()
    names = sorted(set(null.unseen_types.tolist()))
    if len(names) < MIN_TYPES_TO_SCREEN:
        return suspect
    segments, segment_inflation = null.unseen.segments().full, null.noise(of="segments").inflation
    for name in names:
        inside = null.unseen_types == name
        tau = noise.tau_without(name)
        own = burden(whole.full[inside], noise.inflation, tau)
        others = burden(whole.full[~inside], noise.inflation, tau)
        order = stable_order([str(i) for i in null.unseen_rows[inside]], seed=seed)
        learned = learn_clone(
            whole[inside],
            np.ones(int(inside.sum()), dtype=bool),
            tail_p_values(own, others),
            (order % np.uint64(folds)).astype(np.int64),
            inflation=noise.inflation,
            tau=tau,
            min_abs_log_ratio=effect,
        )
        # also a mosaic with a single altered chromosome has no place in a diploid reference
        profile, strength = believable_profile(learned, min_chromosomes=1)
        members = learned.membership > 0.5
        most = members.mean() > MOST_OF_A_TYPE
        if profile is None or (most and strength < 2 * MIN_PROFILE_STRENGTH):
            continue
        shared = coherence(segments[inside][members], inflation=segment_inflation, min_abs_log_ratio=effect)
        if not shared.strength < MIN_COHERENT_STRENGTH:
            suspect[null.unseen_rows[inside]] = members
    return suspect


@dataclass(frozen=True)
class Tumour:
    """The profile of a patient's tumour, and how it was found."""

    scored: Scored
    """With the scatter as it was used."""
    learned: LearnedProfile
    taking_part: npt.NDArray[np.bool_]
    """Cells it was learned among; they are scored by profiles that their fold had no part in."""
    profile: Floats | None
    """None unless it can be believed."""
    strength: float
    among: str
    """``candidates``, ``candidates_and_suspects`` or ``every_lineage``."""


def learn_tumour(
    scored: Scored,
    candidate: npt.NDArray[np.bool_],
    suspect: npt.NDArray[np.bool_],
    burden_p: Floats,
    fold: npt.NDArray[np.int64],
    *,
    effect: float,
    own_lineage: bool,
) -> Tumour:
    """The profile of a patient's tumour, asked for in up to four ways; the first that can be believed counts.

    1. Of the candidates, the scatter of their own segments included. 2. With ``own_lineage`` (every candidate has
    epithelial evidence, so that no resident type stands behind them) without the scatter, if enough of the profile lies
    off its strongest chromosome. 3. Of the cells that left the reference, too: they may be the tumour itself or a
    benign mosaic, and more chromosomes are asked of them. 4. With ``own_lineage``, of all cells outside the reference,
    and on so many chromosomes that no benign mosaic comes into question: a carcinoma may show no epithelial marker, and
    a mosaic with some must not stand in its light. This one therefore goes before a profile on few chromosomes.
    """

    def learn(using: Scored, taking_part: npt.NDArray[np.bool_], among: str, **asked: float) -> Tumour:
        learned = learn_clone(
            using.statistics,
            taking_part,
            burden_p,
            fold,
            inflation=using.noise.inflation,
            tau=using.noise.tau,
            min_abs_log_ratio=effect,
        )
        profile, strength = believable_profile(learned, **asked)  # type: ignore[arg-type]
        return Tumour(using, learned, taking_part, profile, strength, among)

    first = found = learn(scored, candidate, "candidates")
    if found.profile is None and own_lineage:
        plain = replace(scored, with_scatter=False)
        found = learn(plain, candidate, "candidates", min_strength=plain.min_strength)
    if found.profile is None and suspect.any():
        found = learn(
            scored, candidate | suspect, "candidates_and_suspects", min_chromosomes=MIN_MISLABELLED_CHROMOSOMES
        )
    few = found.profile is None or found.learned.table is None or n_chromosomes(found.learned.table) < MANY_CHROMOSOMES
    if few and own_lineage:
        outside = np.ones(len(candidate), dtype=bool)
        outside[scored.reference.rows] = False
        wider = learn(scored, outside, "every_lineage", min_chromosomes=MANY_CHROMOSOMES)
        if wider.profile is not None:
            return wider
    return first if found.profile is None else found


def believable_clones(
    scored: Scored, learned: LearnedProfile, compartment: npt.NDArray[np.object_], *, effect: float
) -> list[npt.NDArray[np.bool_]]:
    """Members of each clone of the learned tumour whose own profile can be believed; none for a single clone."""
    statistics, noise = scored.statistics, scored.noise
    members = learned.membership > 0.5
    clones = find_clones(statistics, members, compartment, inflation=noise.inflation, min_abs_log_ratio=effect)
    groups = [clones.label == k for k in range(clones.n_clones)] if clones.n_clones > 1 else []
    tables = [
        arm_table(statistics[g], inflation=noise.inflation, tau=noise.tau, min_abs_log_ratio=effect)
        for g in groups
        if g.sum() >= MIN_SEEDS
    ]
    groups = [g for g in groups if g.sum() >= MIN_SEEDS]
    return [g for g, table in zip(groups, tables, strict=True) if believable(table, min_strength=scored.min_strength)]


def score_against_clones(
    scored: Scored,
    learned: LearnedProfile,
    profile: Floats,
    compartment: npt.NDArray[np.object_],
    fold: npt.NDArray[np.int64],
    *,
    effect: float,
) -> BestMatch:
    """Score every cell against the tumour's profile and those of its clones; the best match counts.

    A subclone's private events are diluted in the profile of the whole tumour, and a disseminated cell may come from a
    small subclone. Candidates (``fold`` >= 0) are scored by profiles to which their fold contributed nothing; null
    cells take the best of the same profiles, so that the choice is paid for. Which arms count and how many clones there
    are is decided on all members.
    """
    statistics, noise = scored.statistics, scored.noise
    groups = believable_clones(scored, learned, compartment, effect=effect)

    def table(rows: npt.NDArray[np.bool_]) -> pd.DataFrame:
        return arm_table(statistics[rows], inflation=noise.inflation, tau=noise.tau, min_abs_log_ratio=effect)

    profiles = np.vstack([profile, *(profile_of(table(g)) for g in groups)])
    best = best_match(profiles, statistics.full, noise.inflation)
    for k in range(learned.fold_profiles.shape[0]):
        held = fold == k
        if not held.any():
            continue
        rest = [g & ~held for g in groups]
        # a clone that the held cells leave too small keeps its place, empty, so that cells do not change columns
        own = [profile_of(table(g)) if g.sum() >= MIN_SEEDS else np.zeros(len(profile)) for g in rest]
        part = best_match(np.vstack([learned.fold_profiles[k], *own]), statistics.full[held], noise.inflation)
        for name in ("t", "llr", "fraction", "fraction_se"):
            getattr(best, name)[held] = getattr(part, name)
    return best
