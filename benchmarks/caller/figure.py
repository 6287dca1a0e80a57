"""One picture of the benchmark: reference designs, rare runs, small clones and p-values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from caller import calibration
from caller.designs import by_design
from dtcflow.plot import style

COLOURS = {
    "infercnvpy": style.ORANGE,
    "infercnvpy_pooled": style.YELLOW,
    "ours_burden": style.SKY,
    "ours_full": style.BLUE,
}
LABELS = {
    "infercnvpy": "infercnvpy, default",
    "infercnvpy_pooled": "infercnvpy, pooled reference",
    "ours_burden": "burden",
    "ours_full": "clone likelihood, learned",
}
MARKS = {"dev": "o", "test": "D"}
JITTER = 0.008


def draw_designs(ax: Axes, runs: pd.DataFrame) -> None:
    """TPR at 1 % FPR of every design; circle: development patients, diamond: test patients."""
    table = by_design(runs)
    names = list(dict.fromkeys(table["design"]))
    for method, colour in COLOURS.items():
        for half, mark in MARKS.items():
            part = table[(table["method"] == method) & (table["half"] == half)]
            y = [len(names) - names.index(name) for name in part["design"]]
            ax.plot(part["tpr_0.01"], y, mark, color=colour, ms=5, alpha=0.85, markeredgewidth=0)
    ax.set_yticks(range(1, len(names) + 1), names[::-1])
    ax.set(xlim=(-0.02, 1.02), xlabel="TPR at 1 % FPR", title="Carcinoma against unseen normals")
    ax.grid(axis="y", color=style.PALE)
    handles = style.dots(list(COLOURS), COLOURS)
    style.legend(ax, handles, list(LABELS.values()), loc="lower left")


def draw_rare(ax: Axes, runs: pd.DataFrame) -> None:
    """Recall and precision of every rare run."""
    rng = np.random.default_rng(0)
    shown = {"infercnvpy_leiden": style.ORANGE, "ours_any": style.SKY, "ours_epithelial": style.BLUE}
    names = {
        "infercnvpy_leiden": "infercnvpy, best Leiden cluster",
        "ours_any": "any lineage",
        "ours_epithelial": "epithelial",
    }
    for method, colour in shown.items():
        for half, mark in MARKS.items():
            part = runs[(runs["method"] == method) & (runs["half"] == half)]
            nudge = rng.uniform(-JITTER, JITTER, (2, len(part)))
            ax.plot(
                part["recall"] + nudge[0],
                part["precision"].fillna(1.0) + nudge[1],
                mark,
                color=colour,
                ms=4,
                alpha=0.7,
                markeredgewidth=0,
            )
    ax.axhline(0.95, color=style.MUTED, linewidth=0.7, linestyle="--")
    ax.axvline(0.95, color=style.MUTED, linewidth=0.7, linestyle="--")
    n = runs[["patient", "number", "seed"]].drop_duplicates().shape[0]
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="recall", ylabel="precision (1 without calls)")
    ax.set_title(f"5 to 50 tumour cells in 1,200 (n = {n} runs)")
    style.legend(ax, style.dots(list(shown), shown), list(names.values()), loc="lower left")


def draw_qq(ax: Axes, values: pd.DataFrame) -> None:
    """Share of p-values at or below each level, both axes logarithmic, with the 95 % band."""
    levels = np.array(calibration.QUANTILES)
    for half, colour in (("dev", style.SKY), ("test", style.BLUE)):
        part = values[values["half"] == half]
        found = calibration.curve(part)
        ax.fill_between(levels, np.maximum(found["low"], 1e-5), found["high"], color=colour, alpha=0.15, linewidth=0)
        label = f"{half}, {part['cell'].nunique()} cells"
        ax.plot(levels, np.maximum(found["observed"], 1e-5), color=colour, marker="o", ms=3, linewidth=1, label=label)
    ax.plot([1e-3, 0.5], [1e-3, 0.5], color=style.MUTED, linewidth=0.8, linestyle="--")
    ax.set(xscale="log", yscale="log", xlabel="p-value", ylabel="share of held-out normals at or below")
    ax.set_title("P-values of unseen normal cells")
    ax.set_ylim(2e-4, 1)
    ax.legend(loc="upper left")


def draw_clone(ax: Axes, runs: pd.DataFrame) -> None:
    """Recall of the planted three-arm clone, draw by draw: what is called and what the ranking allows."""
    shown = (
        ("infercnvpy", "best_recall", "infercnvpy, ranking", style.ORANGE),
        ("ours_any", "best_recall", "any lineage, ranking", style.SKY),
        ("ours_any", "recall", "any lineage, calls", style.SKY),
        ("ours_epithelial", "best_recall", "epithelial, ranking", style.BLUE),
        ("ours_epithelial", "recall", "epithelial, calls", style.BLUE),
        ("given_any", "best_recall", "any lineage, profile given, ranking", style.GREEN),
        ("given_epithelial", "best_recall", "epithelial, profile given, ranking", style.GREEN),
    )
    for place, (method, column, _, colour) in enumerate(reversed(shown)):
        part = runs[runs["method"] == method]
        for half, mark in MARKS.items():
            x = part.loc[part["half"] == half, column]
            spread = np.linspace(-0.18, 0.18, len(x)) if len(x) > 1 else np.zeros(len(x))
            ax.plot(x, place + spread, mark, color=colour, ms=4, alpha=0.8, markeredgewidth=0)
    ax.set_yticks(range(len(shown)), [text for _, _, text, _ in reversed(shown)])
    ax.axvline(0.8, color=style.MUTED, linewidth=0.7, linestyle="--")
    ax.set(xlim=(-0.03, 1.03), xlabel="recall at a realised false share of 5 %")
    ax.set_title("30 planted cells in 1,500, three arms")


DRAWN = {"a": draw_designs, "d": draw_rare, "h": draw_qq, "c": draw_clone}


def draw(parts: Mapping[str, pd.DataFrame]) -> str:
    """SVG of the parts that were measured."""
    shown = [part for part in DRAWN if part in parts]
    with style.language():
        if not shown:
            return style.svg_file(style.sentence_figure("No part with a picture was measured."))
        figure = style.new_figure(style.FULL_WIDTH, 3.8 * ((len(shown) + 1) // 2))
        axes = figure.subplots((len(shown) + 1) // 2, min(2, len(shown)), squeeze=False).ravel()
        for ax, part in zip(axes, shown, strict=False):
            DRAWN[part](ax, parts[part])
        for ax in axes[len(shown) :]:
            ax.set_axis_off()
    return style.svg_file(figure)
