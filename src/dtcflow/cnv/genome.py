"""What the genome of single cells and of groups of cells says beyond the score: which arms, on how many chromosomes.

Read from the additive statistics that the copy-number step leaves behind (stage ``cnv``), so that the classification
can ask a second question of every clone: is this a genome, or the expression of a cell type?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from dtcflow.cnv.arms import ArmStatistics, SplitStatistics
from dtcflow.cnv.coherence import Coherence, coherence, shared_profile_z, strongest_pool
from dtcflow.cnv.null import TAU_FLOOR, Floats
from dtcflow.cnv.profile import arm_table, profile_of
from dtcflow.cnv.run import unpack, unpack_segments

Bools = npt.NDArray[np.bool_]

ALTERED_Z = 3.0
"""From here on, with the same sign in both halves of the genes, an arm of a cell is listed as altered."""
MIN_MOSAIC_STRENGTH = 40.0
"""Strength of the strongest pool of a type, on one chromosome, from which on it is a hint. Types in a reference that
holds them reach 29 in ovarian patients 11 and 13; the fibroblasts of 14 have 50 on chromosome 12."""
MAX_POOLED = 1_500
"""Larger types are not searched for a handful of cells: the search compares all cells with all."""
MOSAIC_Z = 2.0
MIN_MOSAIC_GROUP = 30
MOSAIC_CELLS = 5
"""Fewer cells of a type with the same altered chromosome are no sign of mosaicism."""
MOSAIC_P = 1e-3
"""Bonferroni-adjusted p-value of their number among the cells of their type."""


@dataclass(frozen=True)
class Genome:
    """Additive statistics of all cells of one patient, in the order of the cell table."""

    arms: SplitStatistics
    inflation: Floats
    tau: Floats
    segments: SplitStatistics
    segment_inflation: Floats
    min_abs_log_ratio: float
    given_change: Floats | None = None
    """Relative change per segment of the profile that the user gave; None when cells were not scored by one."""

    @classmethod
    def read(cls, packed: ad.AnnData, *, min_abs_log_ratio: float) -> Genome | None:
        """From an object of stage ``cnv``; None when copy number was not assessed."""
        if not len(packed.uns["arm_noise"]):
            return None
        arms, inflation, tau = unpack(packed)
        segments, segment_inflation, _, _ = unpack_segments(packed)
        change = None
        if "given_segments" in packed.uns:
            change = np.expm1(packed.uns["given_segments"]["expected"].to_numpy(dtype=float))
        return cls(arms, inflation, tau, segments, segment_inflation, min_abs_log_ratio, change)

    def signs(self) -> npt.NDArray[np.int8]:
        """Cells x arms: +1 or -1 for an altered arm of a cell (see :data:`ALTERED_Z`), else 0."""
        log_ratio, _ = self.arms.full.centred()
        z = log_ratio / np.sqrt(self.inflation / np.maximum(self.arms.full.info, 1e-9) + self.tau**2)
        sides = [np.sign(half.centred()[0]) for half in self.arms.halves]
        altered = (np.abs(z) >= ALTERED_Z) & (sides[0] == np.sign(z)) & (sides[1] == np.sign(z))
        return np.where(altered, np.sign(z), 0).astype(np.int8)

    def clone_profile(self, membership: Floats) -> pd.Series:
        """Log ratio per called arm of the learned clone (cells weighted by ``membership``), 0 elsewhere."""
        names = pd.Index(self.arms.full.arms, name="arm")
        if not (membership > 0.5).any():
            return pd.Series(0.0, index=names)
        # believed already: which arms, not whether
        table = arm_table(
            replace(self.arms, segments=None, segment_arm=None),
            inflation=self.inflation,
            tau=self.tau,
            min_abs_log_ratio=self.min_abs_log_ratio,
            weights=membership,
        )
        return pd.Series(profile_of(table), index=names)

    def shares_given(self, members: Bools) -> float:
        """How clearly the cells share the given profile (z, :func:`dtcflow.cnv.coherence.shared_profile_z`)."""
        change = np.full(len(self.segment_inflation), np.nan) if self.given_change is None else self.given_change
        return shared_profile_z(self.segments.full[members], change, inflation=self.segment_inflation)

    def coherence(self, members: Bools) -> Coherence:
        """Whether the cells share a genome or an expression (:mod:`dtcflow.cnv.coherence`)."""
        return coherence(
            self.segments.full[members], inflation=self.segment_inflation, min_abs_log_ratio=self.min_abs_log_ratio
        )


def events(arms: Sequence[str], signs: npt.NDArray[np.generic] | Floats) -> str:
    """``1q+,16q-`` for the arms with a sign; empty when there is none."""
    return ",".join(f"{arm}{'+' if sign > 0 else '-'}" for arm, sign in zip(arms, signs, strict=True) if sign)


def chromosomes(arms: Sequence[str]) -> set[str]:
    """Chromosomes of arms (``1q`` -> ``1``)."""
    return {arm[:-1] for arm in arms}


def mosaic_hints(genome: Genome, group: npt.NDArray[np.object_]) -> list[str]:
    """Altered arms or chromosomes that more cells of a type share than chance explains: possible benign mosaicism.

    A cell counts for an arm, or for a whole chromosome, when its z (with the error of a matched reference, and relative
    to the median of its type) reaches 2 and both halves of the genes agree in sign. Within each type the number
    of such cells is compared with the rate of a typical arm in the same cells (the 75th percentile over arms and
    directions, at least 1 %): one-sided binomial, Bonferroni over arms, chromosomes and directions. A handful of cells
    is found by another way: the strongest pool of neighbours of the type when its genome, on genes that did not choose
    it, is altered on one chromosome only. Mosaicism of more than about a third of a type shifts the reference itself
    and is not seen.

    Parameters
    ----------
    genome
        Statistics of the cells.
    group
        Type of each cell.

    Returns
    -------
    list of str
        Per cell: the altered arms it shares (``12p+,12q+``), or empty.
    """
    arms = genome.arms.full.arms
    units = [[a] for a in range(len(arms))]
    for chromosome in sorted(chromosomes(arms)):
        both = [a for a, arm in enumerate(arms) if arm[:-1] == chromosome]
        units += [both] if len(both) > 1 else []
    member = np.zeros((len(arms), len(units)))
    for k, unit in enumerate(units):
        member[unit, k] = 1.0
    sides = [_relative(part, member) for part in (genome.arms.full, *genome.arms.halves)]
    info = genome.arms.full.info @ member
    inflation = (genome.arms.full.info * genome.inflation) @ member / np.maximum(info, 1e-9)
    error = np.sqrt(inflation / np.maximum(info, 1e-9) + TAU_FLOOR**2)
    hint = np.zeros((len(group), len(arms)), dtype=np.int8)
    for name in sorted(set(group.tolist())):
        rows = np.flatnonzero(group == name)
        if len(rows) < MIN_MOSAIC_GROUP:
            continue
        _hint_pool(genome, rows, hint)
        whole, first, second = (side[rows] - np.median(side[rows], axis=0) for side in sides)
        z = whole / error[rows]
        own = np.where((np.abs(z) >= MOSAIC_Z) & (first * z > 0) & (second * z > 0), np.sign(z), 0).astype(np.int8)
        n_cells = np.stack([(own == direction).sum(axis=0) for direction in (1, -1)])
        rate = max(0.01, float(np.quantile(n_cells, 0.75)) / len(rows))
        p = stats.binom.sf(n_cells - 1, len(rows), rate) * n_cells.size
        for d, direction in enumerate((1, -1)):
            for k in np.flatnonzero((p[d] < MOSAIC_P) & (n_cells[d] >= MOSAIC_CELLS)).tolist():
                hint[np.ix_(rows[own[:, k] == direction], units[k])] = direction
    return [events(arms, row) for row in hint]


def _hint_pool(genome: Genome, rows: npt.NDArray[np.int64], hint: npt.NDArray[np.int8]) -> None:
    """Mark the cells of the type's strongest pool when it is altered on one chromosome."""
    if len(rows) > MAX_POOLED:
        return
    pool = strongest_pool(
        genome.segments[rows], inflation=genome.segment_inflation, min_abs_log_ratio=genome.min_abs_log_ratio
    )
    if pool is None or pool.coherence.n_chromosomes != 1 or pool.coherence.strength < MIN_MOSAIC_STRENGTH:
        return
    table = pool.coherence.arms
    for a, arm in enumerate(genome.arms.full.arms):
        if table.loc[arm, "counts"]:
            hint[rows[pool.rows], a] = np.sign(float(table["log_ratio"][arm]))


def _relative(statistics: ArmStatistics, member: Floats) -> Floats:
    """Log ratio per cell and group of arms, relative to the cell's median arm."""
    log_ratio = statistics.u / np.maximum(statistics.info, 1e-9)
    centre = np.median(log_ratio, axis=1, keepdims=True)
    return np.asarray((statistics.u @ member) / np.maximum(statistics.info @ member, 1e-9) - centre)
