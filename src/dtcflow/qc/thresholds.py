"""Which cells are too poor to use: one-sided MAD rules per sample and lineage, with fixed overrides.

Only signs of a broken or empty droplet remove a cell: few counts, few genes, a high mitochondrial share (leaking
cytoplasm keeps its mitochondria; Ilicic 2016, PMID 26887813). Nothing here removes a cell for having *many* counts,
many genes or high complexity, or for being unlike its neighbours. Median +/- k MAD limits are set per lineage, because
these metrics differ between healthy cell types (Subramanian 2022, doi:10.1186/s13059-022-02820-w).

How a rare group is protected:

* A lineage with fewer than :data:`MIN_GROUP` cells has no stable spread of its own. It borrows the sample's limit, but
  only as far as that is the more lenient one of the sample's and its own (own median, the larger of both spreads): five
  tumour cells are not dropped for being unlike a thousand marrow cells.
* A cell that has as many counts and genes as the sample asks for is never too poor for its own, richer lineage; and
  an epithelial cell within the sample's mitochondrial limit is not dying.
* Cells of no recognised lineage always take the sample's limits: dying cells gather there, so the group's own centre
  would excuse them.
* Malignant cells carry more mitochondrial RNA than their neighbours while alive (Yates 2025,
  doi:10.1186/s13059-025-03559-w), and a living cell with a high share still has many genes (Hippen 2021,
  doi:10.1371/journal.pcbi.1009290). A cell above the mitochondrial limit but not above the cap is kept, with a note,
  when it is rich in genes: an unrecognised cell with at least as many genes as the sample's median cell, an epithelial
  one with at least :data:`LIVING_GENES` of that (or of its own group's median, where that is lower). A large dying
  tumour cell below the cap can be kept by this; it is ``ambiguous`` and named as such.

A cell that passes only because of one of these, or with any other remark, is ``ambiguous`` (:func:`qc_classes`): it is
used like every cell that passes, and whoever looks at it knows what to look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow import contracts
from dtcflow.qc.lineage import EPITHELIAL, LINEAGES, UNKNOWN

Origin = Literal["mad", "fixed", "borrowed", "none"]

MIN_GROUP: Final = 50
"""Cells a lineage needs for limits of its own."""
MIN_SAMPLE: Final = 20
"""Cells with counts a sample needs before any MAD rule is used; below it only fixed limits and the cap act."""
MAD_TO_SD: Final = 1.4826
"""Scales the median absolute deviation to the standard deviation of a normal distribution."""
MIN_FOLD: Final = {"n_counts": 3.0, "n_genes": 2.0}
"""A cell within this fold of the median is never a low outlier, however tight the group (MAD may be 0)."""
MIN_PCT_MT_DISTANCE: Final = 5.0
"""Percentage points above the median that are never a high outlier (nuclei have a median near 0)."""
MIN_COMPLEXITY_DISTANCE: Final = 0.05
LIVING_GENES: Final = 0.4
"""Genes of an epithelial cell, relative to the median cell, from which a high mitochondrial share is no sign of death.
Chosen on simulated cohorts 1 and 2: dying marrow cells have about 0.3, living tumour cells of median size 0.75."""

REMOVING: Final = ("empty_droplet", "empty", "low_counts", "low_genes", "high_mt")
"""Reasons that remove a cell, in the order of the waterfall."""
NOTE: Final = "note:"
"""Prefix of a remark that does not remove the cell."""

GOOD: Final = "good"
AMBIGUOUS: Final = "ambiguous"
POOR: Final = "poor"
QC_CLASSES: Final = (GOOD, AMBIGUOUS, POOR)
FIXED_KEYS: Final = {"min_counts": "n_counts", "min_genes": "n_genes", "max_pct_mt": "pct_mt"}
"""Settings that replace the MAD rule of a metric, in all lineages or (``qc.lineages``) in one."""


@dataclass(frozen=True)
class Rule:
    """Settings of the threshold rule (``config["qc"]``).

    ``n_mads``: distance from the median; ``min_counts``, ``min_genes``, ``max_pct_mt``: fixed limits that replace the
    MAD rule for that metric in every lineage; ``max_pct_mt_cap``: the MAD rule never allows a larger percentage;
    ``lineages``: the same three fixed limits for single lineages, which go before those of all lineages.
    """

    n_mads: float = 5.0
    min_counts: float | None = None
    min_genes: float | None = None
    max_pct_mt: float | None = None
    max_pct_mt_cap: float = 50.0
    lineages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def fixed(self, metric: str, lineage: str) -> float | None:
        """Fixed limit of a metric for a lineage, or None where the MAD rule decides."""
        key = next((key for key, of in FIXED_KEYS.items() if of == metric), None)
        if key is None:
            return None
        own = self.lineages.get(lineage, {}).get(key)
        value = getattr(self, key) if own is None else own
        return None if value is None else float(value)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Rule:
        """Take the rule's keys out of ``config["qc"]``; other keys belong to other steps.

        Raises
        ------
        dtcflow.contracts.InputError
            Naming every value that is not a number in its range.
        """
        problems: list[contracts.Problem] = []
        values: dict[str, Any] = {
            key: settings[key]
            for key in ("n_mads", *FIXED_KEYS, "max_pct_mt_cap")
            if key in settings and _in_range(key, settings[key], f"qc.{key}", problems)
        }
        lineages = settings.get("lineages") or {}
        for name in sorted(set(lineages) - set(LINEAGES)):
            problems.append(
                contracts.Problem("config", repr(name), ", ".join(LINEAGES), "name one of these", key="qc.lineages")
            )
        values["lineages"] = {
            name: {
                key: value
                for key, value in (lineages[name] or {}).items()
                if value is not None and _in_range(key, value, f"qc.lineages.{name}.{key}", problems)
            }
            for name in LINEAGES
            if name in lineages
        }
        if problems:
            raise contracts.InputError("the quality-control settings cannot be used", problems)
        return cls(**values)


_RANGES: Final = {
    "n_mads": (0.0, np.inf, False),
    "min_counts": (0.0, np.inf, True),
    "min_genes": (0.0, np.inf, True),
    "max_pct_mt": (0.0, 100.0, True),
    "max_pct_mt_cap": (0.0, 100.0, False),
}
"""Smallest and largest value of a setting, and whether null is allowed."""


def _in_range(key: str, value: Any, name: str, problems: list[contracts.Problem]) -> bool:
    """Whether a setting can be used; else a problem is added."""
    if key not in _RANGES:
        problems.append(
            contracts.Problem("config", "an unknown key", ", ".join(FIXED_KEYS), "name one of these", key=name)
        )
        return False
    low, high, optional = _RANGES[key]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if (value is None and optional) or (number and low <= value <= high and (key != "n_mads" or value > 0)):
        return True
    upper = "" if high == np.inf else f" and at most {high:g}"
    start = "above 0" if key == "n_mads" else f"at least {low:g}"
    problems.append(
        contracts.Problem(
            "config",
            repr(value),
            f"a number {start}{upper}{', or null' if optional else ''}",
            "correct the value",
            key=name,
        )
    )
    return False


@dataclass(frozen=True)
class Threshold:
    """One limit: ``metric`` of cells of ``lineage`` must not be below (``side="low"``) or above it (``"high"``).

    ``value`` is NaN when there is no limit (``origin="none"``). ``n_cells`` were used for ``median`` and ``spread``
    (MAD scaled to a standard deviation; on log1p for counts and genes, where ``median`` is on the metric's own scale).
    ``strict`` is the limit that would hold without the protection of rare and rich groups; it differs from ``value``
    only where a limit was borrowed.
    """

    metric: str
    lineage: str
    side: Literal["low", "high"]
    value: float
    origin: Origin
    n_cells: int
    median: float
    spread: float
    removes: bool
    strict: float = np.nan

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the JSON summary."""
        return asdict(self)


@dataclass(frozen=True)
class _Centre:
    n: int
    median: float
    spread: float


def _centre(values: npt.NDArray[np.float64]) -> _Centre:
    values = values[np.isfinite(values)]
    if values.size == 0:
        return _Centre(0, np.nan, np.nan)
    median = float(np.median(values))
    return _Centre(int(values.size), median, MAD_TO_SD * float(np.median(np.abs(values - median))))


def _limit(centre: _Centre, spread: float, *, side: str, n_mads: float, least: float) -> float:
    """Median -/+ n_mads x spread, but never closer to the median than ``least``."""
    distance = max(n_mads * spread, least)
    return centre.median - distance if side == "low" else centre.median + distance


def _one_metric(
    transformed: npt.NDArray[np.float64],
    groups: Mapping[str, npt.NDArray[np.bool_]],
    *,
    side: Literal["low", "high"],
    n_mads: float,
    least: float,
) -> dict[str, tuple[float, Origin, _Centre, float]]:
    """Limits of every lineage on the transformed scale, and the stricter ones that protection replaced.

    NaN where the sample is too small for a MAD rule.
    """
    sample = _centre(transformed)
    if sample.n < MIN_SAMPLE:
        return dict.fromkeys(groups, (np.nan, "none", sample, np.nan))
    shared = _limit(sample, sample.spread, side=side, n_mads=n_mads, least=least)
    more_lenient = min if side == "low" else max
    stricter = max if side == "low" else min
    found: dict[str, tuple[float, Origin, _Centre, float]] = {}
    for lineage, members in groups.items():
        own = _centre(transformed[members])
        if lineage == UNKNOWN or own.n == 0:
            found[lineage] = (shared, "borrowed", sample, shared)
        elif own.n >= MIN_GROUP:
            alone = _limit(own, own.spread, side=side, n_mads=n_mads, least=least)
            keep_own = alone == more_lenient(shared, alone) or (side == "high" and lineage != EPITHELIAL)
            found[lineage] = (alone, "mad", own, alone) if keep_own else (shared, "borrowed", sample, alone)
        else:
            spread = max(own.spread, sample.spread)
            alone = _limit(own, spread, side=side, n_mads=n_mads, least=least)
            limit, of = more_lenient(shared, alone), own if alone != shared else sample
            found[lineage] = (limit, "borrowed", of, stricter(shared, alone))
    return found


def find_thresholds(metrics: pd.DataFrame, lineage: pd.Series, *, rule: Rule | None = None) -> list[Threshold]:
    """Limits of one sample, per metric and lineage.

    Parameters
    ----------
    metrics
        Output of :func:`dtcflow.qc.metrics.qc_metrics` for one sample, cells x metrics.
    lineage
        First-pass lineage of the same cells (:data:`dtcflow.qc.lineage.LINEAGES`).
    rule
        Settings; the defaults are those of the shipped configuration.

    Returns
    -------
    One :class:`Threshold` per metric (``n_counts``, ``n_genes``, ``pct_mt``, ``log10_genes_per_count``) and lineage
    that occurs, in a fixed order. Cells without counts never take part in a median. Complexity limits have
    ``removes=False``.
    """
    rule = rule or Rule()
    used = metrics["n_counts"].to_numpy(float) > 0
    labels = lineage.to_numpy(object)
    groups = {name: (labels == name) & used for name in LINEAGES if (labels == name).any()}
    plan: tuple[tuple[str, Literal["low", "high"], float], ...] = (
        ("n_counts", "low", float(np.log(MIN_FOLD["n_counts"]))),
        ("n_genes", "low", float(np.log(MIN_FOLD["n_genes"]))),
        ("pct_mt", "high", MIN_PCT_MT_DISTANCE),
        ("log10_genes_per_count", "low", MIN_COMPLEXITY_DISTANCE),
    )
    thresholds: list[Threshold] = []
    for metric, side, least in plan:
        on_log = metric in MIN_FOLD
        values = metrics[metric].to_numpy(float)
        transformed = np.where(used, np.log1p(values) if on_log else values, np.nan)
        limits = _one_metric(transformed, groups, side=side, n_mads=rule.n_mads, least=least)
        for name, (limit, origin, centre, stricter) in limits.items():
            value, strict = (float(np.expm1(limit)), float(np.expm1(stricter))) if on_log else (limit, stricter)
            if metric == "pct_mt" and np.isfinite(values[used]).any():
                # without enough cells the cap is still a limit: it is fixed by the configuration
                value, origin = (rule.max_pct_mt_cap, "fixed") if origin == "none" else (value, origin)
                value = min(value, rule.max_pct_mt_cap)
                strict = min(value, strict) if np.isfinite(strict) else value
            override = rule.fixed(metric, name)
            if override is not None:
                value, strict, origin = override, override, "fixed"
            thresholds.append(
                Threshold(
                    metric=metric,
                    lineage=name,
                    side=side,
                    value=value,
                    origin=origin,
                    n_cells=centre.n,
                    median=float(np.expm1(centre.median)) if on_log else centre.median,
                    spread=centre.spread,
                    removes=metric != "log10_genes_per_count",
                    strict=strict,
                )
            )
    return thresholds


def apply_thresholds(
    metrics: pd.DataFrame, lineage: pd.Series, thresholds: list[Threshold], *, rule: Rule | None = None
) -> pd.DataFrame:
    """Which cells pass, and why the others do not.

    Parameters
    ----------
    metrics, lineage
        As for :func:`find_thresholds`.
    thresholds
        Its result for the same cells.
    rule
        The same settings (the cap limits the exception for mitochondria-rich living cells).

    Returns
    -------
    Frame indexed as ``metrics``: ``pass_qc`` (bool) and ``qc_reasons``, for example
    ``low_counts(212<348);high_mt(61.0>50)``. Each reason carries the value and its limit. A remark that does not remove
    the cell starts with ``note:``. A missing metric never removes a cell.
    """
    rule = rule or Rule()
    labels = lineage.to_numpy(object)
    n = len(metrics)
    limit = {(t.metric, t.lineage): t for t in thresholds}

    def per_cell(metric: str, attribute: str) -> npt.NDArray[np.float64]:
        table = {name: getattr(t, attribute) for (of, name), t in limit.items() if of == metric}
        return np.array([table.get(name, np.nan) for name in labels], dtype=float)

    value = {name: metrics[name].to_numpy(float) for name in ("n_counts", "n_genes", "pct_mt", "log10_genes_per_count")}
    cut = {name: per_cell(name, "value") for name in value}
    empty = ~(value["n_counts"] > 0)
    low_counts = ~empty & (value["n_counts"] < cut["n_counts"])
    low_genes = ~empty & (value["n_genes"] < cut["n_genes"])
    above_mt = ~empty & (value["pct_mt"] > cut["pct_mt"])
    low_complexity = ~empty & (value["log10_genes_per_count"] < cut["log10_genes_per_count"])

    may_be_spared = np.isin(labels, [EPITHELIAL, UNKNOWN])
    typical = float(np.median(value["n_genes"][~empty])) if not empty.all() else np.nan
    needed = np.fmin(per_cell("n_genes", "median"), typical) * np.where(labels == EPITHELIAL, LIVING_GENES, 1.0)
    rich = (value["n_genes"] >= needed) & ~low_counts & ~low_genes
    spared = above_mt & may_be_spared & rich & (value["pct_mt"] <= rule.max_pct_mt_cap)
    spared &= ~np.isin(labels, [name for name in LINEAGES if rule.fixed("pct_mt", name) is not None])
    high_mt = above_mt & ~spared
    passed = ~(empty | low_counts | low_genes | high_mt)
    strict = {name: per_cell(name, "strict") for name in ("n_counts", "n_genes", "pct_mt")}
    lent = {name: passed & (value[name] < strict[name]) for name in ("n_counts", "n_genes")}
    lent["pct_mt"] = passed & ~above_mt & (value["pct_mt"] > strict["pct_mt"])
    unjudged = passed & ~np.isfinite(cut["n_counts"]) & ~np.isfinite(cut["n_genes"])

    parts: list[list[str]] = [[] for _ in range(n)]
    for flag, name, metric, sign, places in (
        (low_counts, "low_counts", "n_counts", "<", 0),
        (low_genes, "low_genes", "n_genes", "<", 0),
        (high_mt, "high_mt", "pct_mt", ">", 2),
        (spared, f"{NOTE}high_mt_rna_rich", "pct_mt", ">", 2),
        (low_complexity, f"{NOTE}low_complexity", "log10_genes_per_count", "<", 3),
    ):
        for row in np.flatnonzero(flag):
            parts[row].append(f"{name}({_text(value[metric][row], places)}{sign}{_text(cut[metric][row], places)})")
    for metric, sign, places in (("n_counts", "<", 0), ("n_genes", "<", 0), ("pct_mt", ">", 2)):
        for row in np.flatnonzero(lent[metric]):
            own = f"{_text(value[metric][row], places)}{sign}{_text(strict[metric][row], places)}"
            parts[row].append(f"{NOTE}borrowed_limit({metric} {own})")
    for row in np.flatnonzero(unjudged):
        parts[row].append(f"{NOTE}not_judged(fewer than {MIN_SAMPLE} cells)")
    for row in np.flatnonzero(empty):
        parts[row].append("empty(0 counts)")
    reasons = np.array([contracts.join_reasons(part) for part in parts], dtype=object)
    return pd.DataFrame({"pass_qc": passed, "qc_reasons": reasons}, index=metrics.index)


def _text(value: float, places: int) -> str:
    """Fixed point; a whole number without decimals where the metric is a count."""
    return f"{value:.0f}" if places == 0 and value == round(value) else f"{value:.{max(places, 1)}f}"


def qc_classes(qc_reasons: pd.Series, pass_qc: pd.Series, is_doublet: pd.Series) -> npt.NDArray[np.object_]:
    """Class of every cell: ``good``, ``ambiguous`` or ``poor`` (:data:`QC_CLASSES`).

    ``poor`` is a cell that does not pass. ``ambiguous`` passes and is either flagged as a doublet or has a remark in
    ``qc_reasons``: above the mitochondrial limit but rich in genes (``note:high_mt_rna_rich``), beyond a limit that a
    more lenient one replaced (``note:borrowed_limit``), few genes for its counts (``note:low_complexity``), or from a
    sample too small for any limit (``note:not_judged``). No step treats it differently from a good cell.
    """
    remark = qc_reasons.fillna("").astype(str).ne("").to_numpy(bool) | is_doublet.fillna(False).to_numpy(bool)
    passed = pass_qc.to_numpy(bool)
    return np.where(passed, np.where(remark, AMBIGUOUS, GOOD), POOR).astype(object)


def removing_reasons(qc_reasons: str) -> list[str]:
    """Names of the reasons in a ``qc_reasons`` field that remove the cell (``["low_counts", "high_mt"]``)."""
    parts = [part for part in qc_reasons.split(";") if part and not part.startswith(NOTE)]
    return [part.split("(", 1)[0] for part in parts]
