"""What the genome of single cells and of groups of cells says beyond the score: which arms, on how many chromosomes.

Read from the additive statistics that the copy-number step leaves behind (stage ``cnv``), so that the classification
can ask a second question of every clone: is this a genome, or the expression of a cell type?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from dtcflow.cnv.arms import SplitStatistics
from dtcflow.cnv.coherence import Coherence, coherence
from dtcflow.cnv.null import Floats
from dtcflow.cnv.profile import arm_table, profile_of
from dtcflow.cnv.run import unpack, unpack_segments

Bools = npt.NDArray[np.bool_]

ALTERED_Z = 3.0
"""From here on, with the same sign in both halves of the genes, an arm of a cell is listed as altered."""
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

    @classmethod
    def read(cls, packed: ad.AnnData, *, min_abs_log_ratio: float) -> Genome | None:
        """From an object of stage ``cnv``; None when copy number was not assessed."""
        if not len(packed.uns["arm_noise"]):
            return None
        arms, inflation, tau = unpack(packed)
        segments, segment_inflation, _, _ = unpack_segments(packed)
        return cls(arms, inflation, tau, segments, segment_inflation, min_abs_log_ratio)

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
        table = arm_table(
            self.arms,
            inflation=self.inflation,
            tau=self.tau,
            min_abs_log_ratio=self.min_abs_log_ratio,
            weights=membership,
        )
        return pd.Series(profile_of(table), index=names)

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


def mosaic_hints(signs: npt.NDArray[np.int8], arms: Sequence[str], group: npt.NDArray[np.object_]) -> list[str]:
    """Altered arms that more cells of a type share than chance explains: possible benign mosaicism.

    Within each group the number of cells with a given arm altered in a given direction is compared with the rate of a
    typical arm of the same group (the 75th percentile over arms and directions, at least 0.2 %), one-sided binomial
    with Bonferroni over arms and directions.

    Returns
    -------
    list of str
        Per cell: the cell's own altered arms that stand out in its group (``12p+,12q+``), or empty.
    """
    hint = np.zeros_like(signs)
    for name in sorted(set(group.tolist())):
        rows = np.flatnonzero(group == name)
        for direction in (1, -1):
            own = signs[rows] == direction
            n_cells = own.sum(axis=0)
            rate = max(0.002, float(np.quantile([(signs[rows] == d).mean(axis=0) for d in (1, -1)], 0.75)))
            p = stats.binom.sf(n_cells - 1, len(rows), rate) * 2 * len(arms)
            shared = (p < MOSAIC_P) & (n_cells >= MOSAIC_CELLS)
            hint[rows] += (own & shared).astype(np.int8) * np.int8(direction)
    return [events(arms, row) for row in hint]
