"""One picture of what a design can show: the chance of each verdict by true effect, a panel per number of patients."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from dtcflow.plot import style

VERDICTS = {"supported": "SUPPORTED", "not_supported": "NOT_SUPPORTED", "inconclusive": "INCONCLUSIVE"}
COLUMNS = 3


def draw_power(table: pd.DataFrame) -> Figure:
    """Draw the table of :func:`dtcflow.evidence.planning.plan_design`, one or more designs stacked.

    Stacked areas are the chance of each verdict; the dashed line is the power of the test alone, the dotted one the
    smallest effect of interest. Call it within :func:`dtcflow.plot.style.language`.
    """
    if table["effect"].nunique() < 2:
        return style.sentence_figure("A picture needs two true effects or more.")
    designs = [own for _, own in table.groupby("patients", sort=True)]
    columns = min(COLUMNS, len(designs))
    rows = -(-len(designs) // columns)
    figure = style.new_figure(style.FULL_WIDTH, 2.7 * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for ax, own in zip(axes, designs, strict=False):
        own = own.sort_values("effect")
        colours = [style.VERDICT_COLOURS[name] for name in VERDICTS.values()]
        areas = ax.stackplot(own["effect"], *[own[name] for name in VERDICTS], colors=colours, alpha=0.75, linewidth=0)
        (line,) = ax.plot(own["effect"], own["power"], color=style.INK, linewidth=1.2, linestyle="--")
        edge = ax.axvline(float(own["sesoi"].iloc[0]), color=style.INK, linewidth=0.8, linestyle=":")
        ax.set(xlim=(own["effect"].min(), own["effect"].max()), ylim=(0, 1), xlabel="true effect (SD)")
        ax.set_title(f"{own['patients'].iloc[0]} patients, {own['dtcs'].iloc[0]:g} DTCs each")
    for ax in axes[::columns]:
        ax.set_ylabel("chance")
    for ax in axes[len(designs) :]:
        ax.set_axis_off()
    handles = [*areas, line, edge]
    labels = [*VERDICTS.values(), "p below alpha", "smallest effect of interest"]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure
