"""Droplets with two cells, from expression alone: what calls and the identity gate must not take for a tumour cell."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

TWO_IN_ONE_P: Final = 0.95
"""Probability of two cells from which the arbitration is believed."""


def two_in_one(cells: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Droplets that the arbitration takes for an epithelial cell and a resident cell; none where it was not run.

    Parameters
    ----------
    cells
        With ``arbitration`` and ``p_doublet`` where quality control gave them. The malignant call plays no part.
    """
    if not {"arbitration", "p_doublet"} <= set(cells.columns):
        return np.zeros(len(cells), dtype=bool)
    sure = cells["p_doublet"].to_numpy(dtype=float) >= TWO_IN_ONE_P
    return np.asarray((cells["arbitration"] == "doublet").to_numpy(dtype=bool) & sure)
