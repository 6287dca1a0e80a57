"""One picture: who rejects when nothing is there, what the verdict says, and whether fast and slow simulation agree."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from dtcflow.plot import style
from evidence.summary import TESTS, VERDICTS

OURS = ("p_sign_flip", "ci_excludes_0")
SHOWN_NULLS = ("null, plain", "null, slope SD 0", "null, slope SD 1", "null, depth .3")


def draw_tests(ax: Axes, tests: pd.DataFrame) -> None:
    """Rejection rate of each test where the claim is false, with two standard errors."""
    nulls = [name for name in SHOWN_NULLS if name in set(tests["scenario"])]
    colours = dict(zip(SHOWN_NULLS, (style.BLUE, style.SKY, style.ORANGE, style.PURPLE), strict=True))
    labels = list(TESTS.values())[::-1]
    for i, name in enumerate(nulls):
        own = tests[(tests["scenario"] == name) & tests["what"].isin(labels)]
        y = [labels.index(what) + 0.16 * (len(nulls) / 2 - i) for what in own["what"]]
        ax.errorbar(own["rate"], y, xerr=2 * own["se"], fmt="o", ms=4, color=colours[name], linewidth=1, label=name)
    ax.axvline(0.05, color=style.MUTED, linewidth=0.8, linestyle="--")
    ax.set_yticks(range(len(labels)), labels)
    ax.set(xlabel="share of null cohorts rejected at .05", xlim=(0, None))
    ax.set_title("Type-I error")
    if nulls:
        ax.legend(loc="upper right")


def draw_verdicts(ax: Axes, claims: pd.DataFrame, claim: str = "P2") -> None:
    """Shares of the verdicts of one claim in every scenario."""
    own = claims[claims["claim"] == claim].iloc[::-1].reset_index(drop=True)
    left = pd.Series(0.0, index=own.index)
    for verdict in VERDICTS:
        part = own[verdict.lower()]
        ax.barh(own.index, part, left=left, color=style.VERDICT_COLOURS[verdict], label=verdict, height=0.75)
        left = left + part
    names = [f"{name} (n = {n})" for name, n in zip(own["scenario"], own["cohorts"], strict=True)]
    ax.set_yticks(own.index, names)
    ax.set(xlim=(0, 1), xlabel="share of cohorts", title=f"Verdict of {claim}")


def draw(claims: pd.DataFrame, tests: pd.DataFrame) -> str:
    """SVG of the study."""
    with style.language():
        if claims.empty:
            return style.svg_file(style.sentence_figure("No cohort was simulated."))
        n = int((claims["claim"] == "P2").sum())
        figure = style.new_figure(style.FULL_WIDTH, 3.4 + 0.22 * n + 1.0)
        top, bottom = figure.subplots(2, 1, height_ratios=[3.2, 0.22 * n + 1.0])
        draw_tests(top, tests)
        draw_verdicts(bottom, claims)
        handles, labels = bottom.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return style.svg_file(figure)
