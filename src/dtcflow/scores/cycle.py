"""Cell-cycle scores: S and G2/M phase as null-calibrated z.

The gene lists are those of Tirosh et al. 2016 (Science 352:189, PMID 27124452). They are short and hardly detected in a
tumour at rest, so they pass with the relaxed coverage gate of marker panels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from dtcflow.scores.calibrated import calibrated_z
from dtcflow.scores.signatures import GeneSet, Synonyms, load_panel

S_SCORE: Final = "S_score"
G2M_SCORE: Final = "G2M_score"
CYCLE_SETS: Final = {"TIROSH_S_PHASE": S_SCORE, "TIROSH_G2M_PHASE": G2M_SCORE}
"""Column of the score table for each cell-cycle set of the panel."""

CYCLING_Z: Final = 2.0
"""From here on a cell counts as cycling: about 2 % of cells at rest reach it in each score."""


def cycle_sets(panel: Sequence[GeneSet] | None = None) -> dict[str, GeneSet]:
    """Return the S and G2/M sets by the name of their column; from the shipped panel where ``panel`` lacks them."""
    known = {one.name: one for one in panel or ()}
    shipped: dict[str, GeneSet] = {}
    if any(name not in known for name in CYCLE_SETS):
        shipped = {one.name: one for one in load_panel(variants=False)}
    return {column: replace(known.get(name) or shipped[name], name=column) for name, column in CYCLE_SETS.items()}


def score_cycle(
    counts: Any,
    genes: pd.Index[Any],
    *,
    n_null: int = 1000,
    seed: int = 0,
    reference_rows: Any = None,
    statistics: pd.DataFrame | None = None,
    synonyms: Synonyms | pd.DataFrame | None = None,
    cells: pd.Index[Any] | None = None,
) -> pd.DataFrame:
    """Score cells for S and G2/M phase.

    Parameters are those of :func:`dtcflow.scores.calibrated.calibrated_z`.

    Returns
    -------
    Cells x (``S_score``, ``G2M_score``), float32, in standard deviations of matched random sets.
    """
    return calibrated_z(
        counts,
        genes,
        cycle_sets(),
        n_null=n_null,
        seed=seed,
        reference_rows=reference_rows,
        statistics=statistics,
        relaxed=True,
        synonyms=synonyms,
        cells=cells,
    ).z


def phase(scores: pd.DataFrame, *, threshold: float = CYCLING_Z) -> pd.Series[str]:
    """Name the phase of each cell: ``S`` or ``G2M``, whichever score is larger and reaches ``threshold``, or ``G1_G0``.

    A cell without either score has an empty field: unknown is not resting.
    """
    s, g2m = (scores[column].to_numpy(np.float64) for column in (S_SCORE, G2M_SCORE))
    known = np.isfinite(s) | np.isfinite(g2m)
    s, g2m = np.where(np.isfinite(s), s, -np.inf), np.where(np.isfinite(g2m), g2m, -np.inf)
    names = np.select([~known, np.maximum(s, g2m) < threshold, g2m >= s], ["", "G1_G0", "G2M"], default="S")
    return pd.Series(names.astype(object), index=scores.index, name="phase")
