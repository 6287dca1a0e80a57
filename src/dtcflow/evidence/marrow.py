"""How much of a tumour cell's transcripts come from its surroundings: the axis that P1 and P4 are freed of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import scipy.sparse as sp

from dtcflow.evidence.contrasts import Floats, Layout
from dtcflow.evidence.layout import capped
from dtcflow.evidence.paired import Cohort
from dtcflow.evidence.plan import GROUPS

MARROW_AXIS: Final = "marrow_axis"
MARROW_CELLS: Final = 30
"""Normal marrow cells of one patient that the marrow's profile is taken from."""
MIN_REFERENCE: Final = 30
"""Reference cells of the whole cohort below which no slope, no unit and no axis is taken from them."""


def marrow_axis(
    cohort: Cohort, counts: sp.csr_matrix, layout: Layout, *, group: str, exclude: Sequence[str], seed: int
) -> Floats | None:
    """How much of a cell's transcripts look like the normal cells of its tissue rather than like primary tumour cells.

    Ambient RNA, a neighbour in the droplet or a wrong call add the profile of normal marrow to a tumour cell. Whatever
    the marrow expresses less (or more) than the tumour then falls (or rises) together, in any two halves of a
    signature. The axis is the linear discriminant ``sum_g share_g (m_g - t_g) / v_g`` with m and t the mean shares of
    gene g in normal cells and in reference cells, and v the variance of a share in a tumour cell of the group's depth
    with a tenth of marrow in it: linear in the contaminating share, loudest where the marrow is heard best. Genes of
    ``exclude`` take no part, so that a score is not adjusted for itself.

    Parameters
    ----------
    counts
        Cells of ``layout`` x genes, not thinned.
    exclude
        Symbols left out.

    Returns
    -------
    One value per cell; None without :data:`MIN_REFERENCE` normal and reference cells.
    """
    cells = cohort.cells
    normal = cells[(cells["malignant_call"] == "normal") & (cells["compartment"] == GROUPS[group])]
    rows = [
        capped(own, MARROW_CELLS, seed, name, "normal").index.to_numpy(dtype=np.int64)
        for name, own in normal.groupby(normal["patient_id"].astype(str), sort=True)
    ]
    chosen = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
    reference = np.flatnonzero(layout.side == 1)
    if min(chosen.size, reference.size) < MIN_REFERENCE:
        return None
    used = ~np.asarray(cohort.symbols.isin(list(exclude)), dtype=bool)

    def shares(matrix: sp.csr_matrix) -> tuple[sp.csr_matrix, Floats]:
        total = np.maximum(np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel(), 1.0)
        return sp.csr_matrix(sp.diags_array(1.0 / total) @ matrix.astype(np.float64)), total

    def mean(matrix: sp.csr_matrix) -> Floats:
        return np.asarray(matrix.mean(axis=0), dtype=float).ravel()

    own, total = shares(counts)
    m, t = mean(shares(cohort.take(chosen))[0]), mean(own[reference])
    # between cells beyond counting noise, then the counting noise of a cell of the group
    between = mean(own[reference].power(2)) - t**2 - t / np.median(total[reference])
    v = np.maximum(between, 0.0) + (t + 0.1 * m) / np.median(total[layout.side == 0])
    weight = np.divide(m - t, v, out=np.zeros_like(m), where=(v > 0) & used)
    return np.asarray(own @ weight, dtype=float)
