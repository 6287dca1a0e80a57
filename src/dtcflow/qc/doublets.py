"""Doublet scores (Scrublet). They annotate; nothing is removed for them.

A tumour cell in one droplet with a marrow cell, or on the way from one state to another, looks like a doublet. So the
score and the flag are columns, and a flagged cell with tumour evidence is listed in the loss audit.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.qc.scrublet import scrublet_scores
from dtcflow.sparse import cells_per_gene, genes_per_cell

logger = logging.getLogger(__name__)

MIN_CELLS: Final = 50
"""Cells (with at least :data:`MIN_CELL_GENES` genes) below which Scrublet is not run: too few neighbours to compare."""
MIN_CELL_GENES: Final = 3
MIN_GENES: Final = 50
"""Genes seen in at least three cells; fewer do not support 30 principal components of variable genes."""
RATE_PER_CELL: Final = 0.8e-2 / 1000
"""Droplet instruments' rule of thumb: 0.8 % doublets per 1,000 cells recovered (10x Chromium multiplet-rate tables)."""
MAX_RATE: Final = 0.4
IMPLAUSIBLE: Final = (3.0, 0.1)
"""An automatic threshold is not believed when it flags more than 3 x the expected rate and more than 10 % of cells."""


@dataclass(frozen=True)
class Doublets:
    """Scrublet's result for one sample.

    ``score``: per cell, NaN where not scored; ``is_doublet``: False where not scored; ``status``: ``run`` or
    ``not_run: why``; ``threshold_origin``: ``automatic``, ``expected_rate`` or ``none``.
    """

    score: npt.NDArray[np.float64]
    is_doublet: npt.NDArray[np.bool_]
    status: str
    expected_rate: float
    threshold: float = np.nan
    threshold_origin: str = "none"
    message: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the JSON summary."""
        return {
            "status": self.status,
            "expected_rate": self.expected_rate,
            "threshold": self.threshold,
            "threshold_origin": self.threshold_origin,
            "message": self.message,
            "n_scored": int(np.isfinite(self.score).sum()),
            "n_flagged": int(self.is_doublet.sum()),
        }


def expected_doublet_rate(n_cells: int) -> float:
    """Expected share of doublets among ``n_cells`` recovered from a droplet run, at most 0.4."""
    return min(n_cells * RATE_PER_CELL, MAX_RATE)


def score_doublets(
    counts: sp.csr_matrix,
    *,
    cell_ids: pd.Index,
    genes: pd.Index,
    expected_rate: float | None = None,
    seed: int = 0,
) -> Doublets:
    """Score doublets with Scrublet (Wolock 2019, PMID 30954476), see :mod:`dtcflow.qc.scrublet`.

    Cells and genes are put in the order of their names before, and linear algebra is kept on one thread, so that the
    result depends on neither the order of the input nor the number of threads.

    Parameters
    ----------
    counts
        Raw counts of one sample, cells x genes.
    cell_ids, genes
        Names of the rows and columns.
    expected_rate
        Expected share of doublets; ``None`` takes :func:`expected_doublet_rate` of the number of cells with counts.
    seed
        Seed of the simulated doublets and of the principal components.

    Returns
    -------
    :class:`Doublets` in the order of the input. With too few cells or genes, or when Scrublet finds no structure to
    work on, the status says so and every score is NaN. When the histogram of simulated scores has no valley, or the
    valley would flag an implausible share, the highest scores at the expected rate are flagged instead and
    ``threshold_origin`` is ``expected_rate``.
    """
    n = counts.shape[0]
    n_genes = genes_per_cell(counts)
    rate = expected_doublet_rate(int((n_genes > 0).sum())) if expected_rate is None else float(expected_rate)
    score = np.full(n, np.nan)
    flagged = np.zeros(n, dtype=bool)
    usable = n_genes >= MIN_CELL_GENES

    def not_run(why: str) -> Doublets:
        return Doublets(score, flagged, f"not_run: {why}", rate)

    if usable.sum() < MIN_CELLS:
        return not_run(f"{int(usable.sum())} cells with {MIN_CELL_GENES} or more genes, {MIN_CELLS} are needed")
    n_seen = int((cells_per_gene(counts) >= 3).sum())
    if n_seen < MIN_GENES:
        return not_run(f"{n_seen} genes seen in three or more cells, {MIN_GENES} are needed")

    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(cell_ids.to_numpy(str)[rows], kind="stable")]
    columns = np.argsort(genes.to_numpy(str), kind="stable")
    try:
        found, threshold = scrublet_scores(counts, rows=rows, columns=columns, rate=rate, seed=seed)
    except (ValueError, IndexError, ZeroDivisionError, np.linalg.LinAlgError) as error:
        logger.warning("Scrublet could not be run: %s", error)
        return not_run(f"Scrublet found nothing to work on ({error})")
    score[rows] = found
    return _flag(score, threshold, rate)


def _flag(score: npt.NDArray[np.float64], automatic: float | None, rate: float) -> Doublets:
    """Flag by the automatic threshold where it is believable, else the highest scores at the expected rate."""
    scored = np.isfinite(score)
    n_scored = int(scored.sum())
    if not n_scored:
        return Doublets(score, scored, "not_run: no cell could be scored", rate)
    message = "the histogram of simulated scores has no valley"
    if automatic is not None:
        share = float((score[scored] > automatic).mean())
        if share <= max(IMPLAUSIBLE[0] * rate, IMPLAUSIBLE[1]):
            return Doublets(score, scored & (score > automatic), "run", rate, automatic, "automatic")
        message = f"the automatic threshold {automatic:.3f} would flag {share:.1%} of the cells"
    n_expected = round(rate * n_scored)
    ordered = np.sort(score[scored])[::-1]
    # the first score that is not flagged: cells tied with it stay unflagged
    threshold = float(ordered[min(n_expected, n_scored - 1)])
    message += f"; the highest scores at the expected rate ({rate:.2%}) are flagged instead"
    logger.info("Scrublet: %s", message)
    return Doublets(score, scored & (score > threshold), "run", rate, threshold, "expected_rate", message)
