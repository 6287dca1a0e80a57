"""Whether the cells of a sample are a woman's or a man's, from XIST and the genes of Y.

Compared with the sample sheet and between the samples of a patient this finds swapped samples. It is a warning, never a
reason to stop: tumour cells lose an inactive X or a Y often, and a marrow transplant gives blood of another sex.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy import stats

Y_GENES: Final = ("RPS4Y1", "DDX3Y", "EIF1AY", "KDM5D", "UTY", "USP9Y", "ZFY", "NLGN4Y")
"""Genes of the male-specific region of Y that many tissues express. TMSB4Y and RPS4Y2 are left out: in 559 real immune
cells without any other read of Y they have 55 and 5 counts per million, which are those of their copies elsewhere."""
XIST: Final = "XIST"
XIST_CPM: Final = 10.0
"""XIST counts per million from which on cells have a silenced X. Set on five glioma patients of the oligodendroglioma
set (two with 123 and 525, three below 1); the geometric mean is about 10."""
Y_CPM: Final = 50.0
"""Counts per million of all genes of Y together from which on cells have a Y. Set on the same patients (three with
385 to 670, two below 10, which are reads of DDX3X taken for DDX3Y)."""
MIN_CELLS: Final = 20
"""Fewer cells than this are not judged: in a female tumour XIST was detected in 26 % of the cells only, so that it is
missed in all of 20 with a probability of 0.3 %."""
_ALPHA: Final = 0.05
CALLS: Final = ("female", "male", "ambiguous", "not_assessable")


def _state(count: float, total: float, threshold: float, n_cells: int) -> str:
    """``present``, ``absent`` or ``unclear``: the 90 % Poisson interval of the rate against the threshold."""
    low = stats.chi2.ppf(_ALPHA, 2 * count) / 2 if count else 0.0
    high = stats.chi2.ppf(1 - _ALPHA, 2 * count + 2) / 2
    per_million = 1e6 / total
    if low * per_million >= threshold and n_cells >= 2:
        return "present"
    return "absent" if high * per_million < threshold else "unclear"


def call_sex(counts: Any, symbols: Sequence[str]) -> dict[str, Any]:
    """Call the sex of the donor of a sample from the sum of its cells.

    Female: XIST present and Y not; male: the other way round. Both present, or both absent, is ``ambiguous``. A gene
    group is present (absent) when the 90 % Poisson interval of its counts per million lies above (below) its
    threshold, and seen in two cells; two genes of Y must be seen. Too few cells or counts, or genes that the matrix
    lacks, end ``not_assessable``.

    Parameters
    ----------
    counts
        Cells x genes, whole numbers.
    symbols
        ``n_genes`` current symbols.

    Returns
    -------
    ``call`` (one of :data:`CALLS`), ``reason``, ``mixed`` (XIST and Y both present), ``xist_cpm y_cpm xist_cells
    y_cells both_cells`` (counts per million; shares of cells; None when not measured) and ``y_genes`` (number of
    :data:`Y_GENES` in the matrix).
    """
    matrix = sp.csc_matrix(counts)
    n_cells, total = matrix.shape[0], float(matrix.sum())
    symbols = list(symbols)
    x = [column for column, symbol in enumerate(symbols) if symbol == XIST]
    y = [column for column, symbol in enumerate(symbols) if symbol in Y_GENES]
    found: dict[str, Any] = dict.fromkeys(("xist_cpm", "y_cpm", "xist_cells", "y_cells", "both_cells"))
    found |= {"call": "not_assessable", "mixed": False, "y_genes": len({symbols[column] for column in y})}
    if n_cells < MIN_CELLS or total == 0:
        return found | {"reason": f"fewer than {MIN_CELLS} cells" if n_cells < MIN_CELLS else "no counts"}
    in_x = np.asarray(matrix[:, x].sum(axis=1)).ravel()
    in_y = np.asarray(matrix[:, y].sum(axis=1)).ravel()
    state_x = state_y = "not measured"
    if x:
        state_x = _state(float(in_x.sum()), total, XIST_CPM, int((in_x > 0).sum()))
        found |= {"xist_cpm": float(in_x.sum()) / total * 1e6, "xist_cells": float((in_x > 0).mean())}
    if y:
        state_y = _state(float(in_y.sum()), total, Y_CPM, int((in_y > 0).sum()))
        seen = int((np.asarray(matrix[:, y].sum(axis=0)).ravel() > 0).sum())
        state_y = "unclear" if state_y == "present" and seen < 2 else state_y
        found |= {"y_cpm": float(in_y.sum()) / total * 1e6, "y_cells": float((in_y > 0).mean())}
    if x and y:
        found["both_cells"] = float(((in_x > 0) & (in_y > 0)).mean())
    call, reason = _decide(state_x, state_y, found)
    mixed = (state_x, state_y) == ("present", "present")
    return found | {"call": call, "reason": reason, "mixed": mixed}


def _decide(state_x: str, state_y: str, found: dict[str, Any]) -> tuple[str, str]:
    if state_x == "present" and state_y == "present":
        return "ambiguous", (
            f"XIST in {found['xist_cells']:.0%}, genes of Y in {found['y_cells']:.0%} and both in "
            f"{found['both_cells']:.0%} of the cells: cells of a woman and of a man, or of one with both"
        )
    if state_x == "present" and (state_y != "unclear" or found["y_cpm"] < Y_CPM):
        return "female", f"XIST {found['xist_cpm']:.0f} counts per million, genes of Y {state_y}"
    if state_y == "present" and (state_x != "unclear" or found["xist_cpm"] < XIST_CPM):
        return "male", f"genes of Y {found['y_cpm']:.0f} counts per million, XIST {state_x}"
    if state_x == "absent" and state_y == "absent":
        return "ambiguous", "neither XIST nor genes of Y: tumour cells that lost them, or genes that were filtered out"
    if "not measured" in (state_x, state_y):
        missing = [name for name, state in (("XIST", state_x), ("genes of Y", state_y)) if state == "not measured"]
        return "not_assessable", f"not in the matrix: {' and '.join(missing)}"
    return "not_assessable", "too few counts of XIST and of Y to tell"


def sex_of_samples(counts: Any, symbols: Sequence[str], samples: pd.Series[Any]) -> dict[str, dict[str, Any]]:
    """Return :func:`call_sex` for every group of cells that ``samples`` (one entry per cell) names, sorted by name."""
    matrix = sp.csr_matrix(counts)
    names = samples.astype(str).to_numpy()
    return {name: call_sex(matrix[names == name], symbols) for name in sorted(set(names))}
