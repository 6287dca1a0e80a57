"""Which signatures share genes: two sets that share many are one piece of evidence, not two."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Final

import pandas as pd

from dtcflow.scores.signatures import GeneSet

OVERLAP_COLUMNS: Final = ("signature", "other", "n_genes", "n_other", "n_shared", "share", "role", "other_role")


def overlap_table(sets: Sequence[GeneSet]) -> pd.DataFrame:
    """Return every pair of sets that share a gene, up and down genes alike, variants and masks included.

    Returns
    -------
    :data:`OVERLAP_COLUMNS`, each pair once, sorted by name: sizes of both sets, genes they share, and what share that
    is of the smaller set. Pairs without a common gene are left out.
    """
    members = {one.name: (frozenset(one.genes), one.role) for one in sets}
    rows = []
    for name, other in combinations(sorted(members), 2):
        (own, role), (others, other_role) = members[name], members[other]
        shared = len(own & others)
        if shared:
            share = shared / min(len(own), len(others))
            rows.append((name, other, len(own), len(others), shared, share, role, other_role))
    return pd.DataFrame(rows, columns=list(OVERLAP_COLUMNS))
