"""Cells with a normal label whose genome is not normal: their truth is open, and calls of them are counted apart.

The labels are those of clusters. Two kinds of cells stand out. *Mosaic*: fibroblasts of patient 12 with trisomy 12, and
keratin-positive cells of patient 12 with trisomy 7 and loss of 21q, none of which the patient's carcinoma has; they are
no tumour cells as far as anybody knows and must not be called. *Carcinoma*: cells that carry the events of their own
patient's carcinoma, as droplets of a carcinoma and a normal cell do. A cell belongs to a kind when each half of the
genes alone speaks for the events; the events come from labelled cells, and the caller's decisions have no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caller import ours
from caller.data import PATIENTS, Bools, Pool, sample_of
from dtcflow.cnv.arms import SplitStatistics
from dtcflow.cnv.packed import unpack
from dtcflow.cnv.profile import arm_table, profile_of, score_against

MOSAIC_DONOR = "12"
MOSAIC = {
    "trisomy 7, loss of 21q": {"7p": 1, "7q": 1, "21q": -1},
    "trisomy 12": {"12p": 1, "12q": 1},
}
MIN_T = 2.0
"""Score of each half of the genes: by chance 1 normal cell in 2,000 passes both."""
EFFECT = 0.15
LOG_RATIO = {1: np.log(1.4), -1: np.log(0.6)}


@dataclass(frozen=True)
class OpenTruth:
    """One entry per cell of the pool."""

    mosaic: Bools
    carcinoma: Bools

    @property
    def either(self) -> Bools:
        """Cells of open truth."""
        return self.mosaic | self.carcinoma

    def __getitem__(self, rows: np.ndarray) -> OpenTruth:
        return OpenTruth(self.mosaic[rows], self.carcinoma[rows])


def none(n: int) -> OpenTruth:
    """No cell of open truth among ``n``."""
    return OpenTruth(np.zeros(n, dtype=bool), np.zeros(n, dtype=bool))


def _carried(profile: np.ndarray, statistics: SplitStatistics, inflation: np.ndarray) -> Bools:
    """Cells in which each half of the genes speaks for the profile."""
    halves = [score_against(profile, half, inflation)[0] for half in statistics.halves]
    return np.asarray(np.min(halves, axis=0) >= MIN_T)


def find(pool: Pool) -> OpenTruth:
    """Score each patient's normal cells against the other patients' normal cells, by the events of both kinds."""
    found = none(len(pool))
    normal = pool.normals
    for donor in PATIENTS:
        rows = np.concatenate([normal, pool.carcinoma(donor)])
        mine = pool.donor[rows] == donor
        labelled = np.isin(rows, normal)
        sample = sample_of(pool[rows], reference=~mine)
        statistics, inflation, tau = unpack(ours.evidence(sample, tumour_lineage="any").packed)
        table = arm_table(
            statistics[np.flatnonzero(mine & ~labelled)], inflation=inflation, tau=tau, min_abs_log_ratio=EFFECT
        )
        inside = _carried(profile_of(table), statistics, inflation) & mine & labelled
        found.carcinoma[rows[inside]] = True
        print(f"  normal label, events of the carcinoma: {inside.sum()} cells of patient {donor}", flush=True)
        for group, events in MOSAIC.items() if donor == MOSAIC_DONOR else ():
            profile = np.array([LOG_RATIO[events[a]] if a in events else 0.0 for a in statistics.full.arms])
            inside = _carried(profile, statistics, inflation) & mine & labelled
            found.mosaic[rows[inside]] = True
            print(f"  normal label, {group}: {inside.sum()} cells of patient {donor}", flush=True)
    return found
