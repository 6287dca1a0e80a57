"""Droplets with more in them than one cell: Scrublet, the test for two types and the arbitration, put together.

All of it annotates. ``doublet_score`` stays Scrublet's; ``is_doublet`` is the combined class; ``doublet_methods`` says
who flagged the cell; nothing is removed.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow import contracts
from dtcflow.qc.arbitrate import Arbitration, arbitrate, candidates, not_arbitrated
from dtcflow.qc.doublets import Doublets, expected_doublet_rate
from dtcflow.qc.metrics import counts_per_cell
from dtcflow.qc.profiles import resident_profiles
from dtcflow.qc.two_types import TwoTypes, find_two_types, not_tested

METHODS: Final = ("scrublet", "two_types", "arbitration")
COLUMNS: Final = (
    *("doublet_methods", "arbitration", "p_single", "p_doublet", "p_coated", "doublet_partner"),
    "is_doublet",
)


def mixed_droplets(
    counts: sp.csr_matrix,
    symbols: pd.Index,
    first_pass: pd.DataFrame,
    scrublet: Doublets,
    *,
    cell_ids: pd.Index,
    panel: tuple[str, ...],
    ambient_mean: float = np.nan,
    ambient_counts: npt.NDArray[np.float64] | None = None,
    plate: bool = False,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Arbitrate the candidates, test the other cells for two types, and join both with Scrublet's flags.

    Parameters
    ----------
    counts
        Raw counts, cells x genes.
    symbols
        Gene symbols of the columns.
    first_pass
        ``first_pass_type``, ``epithelial_z`` and ``n_epithelial_markers`` of every cell.
    scrublet
        Its result for the same cells.
    cell_ids
        Names of the cells, index of the result.
    panel
        Epithelial marker genes; empty where the user's panels have none.
    ambient_mean, ambient_counts
        As for :func:`dtcflow.qc.arbitrate.arbitrate`.
    plate
        Plate data have no soup and are not arbitrated; they are tested for two types where Scrublet was run.

    Returns
    -------
    ``(cells, summary)``: ``cells`` with :data:`COLUMNS`, ``summary`` with ``arbitration`` and ``two_types``.
    """
    n = counts.shape[0]
    z = first_pass["epithelial_z"].to_numpy(np.float64)
    types = first_pass["first_pass_type"].to_numpy(object)
    totals = counts_per_cell(counts)
    is_candidate = candidates(z, first_pass["n_epithelial_markers"].to_numpy(np.int64)) & (totals > 0)
    n_candidates = int(is_candidate.sum())
    profiles = resident_profiles(counts, types, cell_ids, excluded=is_candidate)
    judged: Arbitration
    if plate:
        judged = not_arbitrated(n, "plate data", n_candidates=n_candidates)
    elif not panel:
        judged = not_arbitrated(n, "no epithelial marker panel", n_candidates=n_candidates)
    else:
        judged = arbitrate(
            counts,
            symbols,
            first_pass,
            cell_ids=cell_ids,
            panel=panel,
            ambient_mean=ambient_mean,
            ambient_counts=ambient_counts,
            profiles=profiles,
        )
    decision = judged.cells["arbitration"].to_numpy(object)
    two: TwoTypes
    if plate and scrublet.status.startswith("not_run"):
        two = not_tested(n, "plate data; set qc.expected_doublet_rate to run it")
    else:
        # a type without a profile looks like a mixture of those that have one
        comparable = np.isin(types, [*profiles.types, contracts.UNKNOWN, contracts.EPITHELIAL])
        tested = comparable & (~is_candidate | (decision == "coated"))
        known = np.isfinite(scrublet.expected_rate)
        rate = scrublet.expected_rate if known else expected_doublet_rate(int((totals > 0).sum()))
        two = find_two_types(counts, profiles, tested, expected_rate=rate)

    flags = np.column_stack([scrublet.is_doublet, two.flagged, decision == "doublet"])
    cells = judged.cells.set_axis(cell_ids, axis=0)
    cells["doublet_methods"] = np.array(
        [contracts.join_reasons(m for m, on in zip(METHODS, row, strict=True) if on) for row in flags], dtype=object
    )
    cells["is_doublet"] = np.asarray(flags.any(axis=1), dtype=bool)
    return cells[list(COLUMNS)], {"arbitration": judged.as_dict(), "two_types": two.as_dict()}
