"""Cells with a normal label and an abnormal genome: their truth is open, so that they are judged apart.

Two groups stand out among the normal cells of ovarian patient 12: fibroblasts with trisomy 12, a known benign mosaic,
and keratin-positive cells with trisomy 7 and loss of 21q, none of which the patient's carcinoma has. A cell belongs to
a group when each half of the genes alone speaks for the group's events; the caller's decisions have no part in it.
"""

from __future__ import annotations

import numpy as np

from caller import ours
from caller.data import Bools, Pool, sample_of
from dtcflow.cnv.packed import unpack
from dtcflow.cnv.profile import score_against

DONOR = "12"
GROUPS = {
    "trisomy 7, loss of 21q": {"7p": 1, "7q": 1, "21q": -1},
    "trisomy 12": {"12p": 1, "12q": 1},
}
MIN_T = 2.0
"""Score of each half of the genes: by chance 1 in 2,000 cells passes both."""
LOG_RATIO = {1: np.log(1.4), -1: np.log(0.6)}


def find(pool: Pool) -> Bools:
    """Mark the cells of the two groups, scored against the other donors' normal cells.

    Returns
    -------
    One entry per cell of the pool.
    """
    normal = pool.normals
    mine = pool.donor[normal] == DONOR
    statistics, inflation, _ = unpack(ours.evidence(sample_of(pool[normal], reference=~mine)).packed)
    marked = np.zeros(len(pool), dtype=bool)
    for group, events in GROUPS.items():
        profile = np.array([LOG_RATIO[events[a]] if a in events else 0.0 for a in statistics.full.arms])
        halves = [score_against(profile, half, inflation)[0] for half in statistics.halves]
        inside = normal[mine & (np.min(halves, axis=0) >= MIN_T)]
        print(f"  normal label, {group}: {len(inside)} cells of patient {DONOR}", flush=True)
        marked[inside] = True
    return marked
