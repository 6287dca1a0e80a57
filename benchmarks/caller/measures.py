"""Measures of a ranking and of calls, and the rows of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
LEVELS = (0.01, 0.001)
"""False-positive rates at which the true-positive rate is read."""


@dataclass(frozen=True)
class Row:
    """One line of the table; a value that a column cannot have is empty."""

    part: str
    what: str
    infercnvpy_dev: str
    infercnvpy_test: str
    ours_dev: str
    ours_test: str
    target: str
    reached: str
    """``yes`` or ``no`` for the test half; empty where there is no target."""


def row(
    part: str,
    what: str,
    *,
    theirs: tuple[Any, Any] = ("", ""),
    ours: tuple[Any, Any] = ("", ""),
    target: str = "",
    reached: bool | None = None,
) -> Row:
    """Make a row; ``theirs`` and ``ours`` are (development half, test half)."""
    verdict = "" if reached is None else ("yes" if reached else "no")
    return Row(part, what, *(shown(v) for v in (*theirs, *ours)), target, verdict)


def shown(value: Any) -> str:
    """Number as text: three digits, more near 1; text as it is."""
    if isinstance(value, str):
        return value
    if value is None or not np.isfinite(value):
        return ""
    if isinstance(value, int | np.integer):
        return str(value)
    return f"{value:.4f}" if 0.995 <= value < 1 else f"{value:.3g}"


def auc(positive: Floats, negative: Floats) -> float:
    """Area under the ROC curve by ranks, ties count half; NaN when a side is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    ranks = stats.rankdata(np.concatenate([positive, negative]))[: len(positive)]
    return float((ranks.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def tpr_at(positive: Floats, negative: Floats, rate: float) -> float:
    """Share of positives above the threshold that at most ``rate`` of the negatives exceed."""
    if not len(positive) or not len(negative):
        return float("nan")
    threshold = np.sort(negative)[::-1][min(int(np.floor(rate * len(negative))), len(negative) - 1)]
    return float(np.mean(positive > threshold))


def ranking(score: Floats, tumour: Bools, normal: Bools) -> dict[str, float]:
    """AUC and TPR at :data:`LEVELS` of tumour against normal cells."""
    positive, negative = score[tumour], score[normal]
    return {
        "auc": auc(positive, negative),
        **{f"tpr_{level:g}": tpr_at(positive, negative, level) for level in LEVELS},
    }


@dataclass(frozen=True)
class Counts:
    """Calls of one run or of several together."""

    tumour: int
    called: int
    """Tumour cells called."""
    false: int

    @property
    def recall(self) -> float:
        """Share of the tumour cells that are called."""
        return self.called / self.tumour if self.tumour else float("nan")

    @property
    def precision(self) -> float:
        """Share of tumour cells among the calls; NaN without calls."""
        total = self.called + self.false
        return self.called / total if total else float("nan")

    @property
    def false_share(self) -> float:
        """Share of false calls; 0 without calls."""
        total = self.called + self.false
        return self.false / total if total else 0.0


def counted(called: Bools, tumour: Bools, *, n_tumour: int | None = None, of: Bools | None = None) -> Counts:
    """Count calls; ``n_tumour`` includes tumour cells that quality control removed, ``of`` are the cells that count."""
    of = np.ones(len(called), dtype=bool) if of is None else of
    n = int((tumour & of).sum()) if n_tumour is None else n_tumour
    return Counts(n, int((called & tumour & of).sum()), int((called & ~tumour & of).sum()))


def together(counts: Sequence[Counts]) -> Counts:
    """Sum over runs."""
    return Counts(sum(c.tumour for c in counts), sum(c.called for c in counts), sum(c.false for c in counts))


def best_recall(score: Floats, tumour: Bools, *, false_share: float, n_tumour: int | None = None) -> float:
    """Largest recall of a threshold at which the realised false share is at most ``false_share``.

    ``n_tumour`` includes tumour cells that are not ranked.
    """
    order = np.lexsort((tumour, -score))  # ties: normal cells first, the unfavourable order
    hits = np.cumsum(tumour[order])
    share = 1.0 - hits / np.arange(1, len(order) + 1)
    good = share <= false_share
    return float(hits[good].max() / (n_tumour or tumour.sum())) if good.any() and tumour.any() else 0.0


def per_10_000(false: int, cells: int) -> float:
    """False calls per 10,000 cells."""
    return 1e4 * false / cells if cells else float("nan")


def upper_per_10_000(false: int, cells: int) -> float:
    """One-sided 95 % upper limit (Clopper and Pearson 1934) of :func:`per_10_000`."""
    return 1e4 * float(stats.beta.ppf(0.95, false + 1, cells - false)) if cells else float("nan")
