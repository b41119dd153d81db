"""Where in the network the maximum is preferred: MSB from the first downsampling site to the last, per operator."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.selection import Snapshots, counts, select_unshifted
from invariscope.analysis.say.numbers import bracketed
from invariscope.analysis.tables.checkpoints import NOT_GIVEN
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING

DODGE = 0.5
"""Operators stand side by side at a site, over this share of the distance between two sites."""


def msb_by_depth(
    frame: pd.DataFrame,
    *,
    reading: str = PRIMARY_READING,
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """One panel per architecture: ``reading`` at every site in the order of the forward pass, a line per operator.

    Points are means over checkpoints with 95 % t intervals, training runs as the sampling unit. ``frame`` is
    :func:`invariscope.analysis.tables.frames.site_frame`'s. Raises :class:`TableError` when there is nothing to draw.
    """
    selection = select_unshifted(frame, "msb_by_depth", "layers", [reading, "depth"], data, snapshots)
    rows = selection.rows
    names = rows["architecture"].astype(object).where(rows["architecture"].notna(), NOT_GIVEN)
    rows = rows.assign(architecture=names, place=rows["depth"] + 1)
    sizes = rows["architecture"].value_counts().sort_index()
    architectures = [str(name) for name in sizes.sort_values(ascending=False, kind="stable").index]
    order, looks = style.operator_order(rows["operator"]), style.looks(rows["operator"])
    if len(order) > style.MOST_ROWS:  # then the sample is even over what is drawn
        order = rows.groupby("operator")[reading].mean().sort_values(kind="stable").index.tolist()
    order, sampled = style.some_rows(order)
    across = min(len(architectures), 3 if width == "double" else 1)
    down = -(-len(architectures) // across)
    with style.theme(width):
        figure = style.new_figure(width, min(0.9 + down * (2.7 if width == "double" else 2.3), 9.5))
        axes = figure.subplots(down, across, squeeze=False, sharey=True)
        sentences = []
        for ax, name in zip(axes.ravel(), architectures, strict=False):
            sentences.append(_panel(ax, rows[rows["architecture"] == name], name, reading, order, looks))
        for ax in axes.ravel()[len(architectures) :]:
            ax.set_axis_off()
        for line in axes:
            line[0].set_ylabel(style.label(reading, lines=2))
        style.legend_below(figure, style.operator_handles(rows["operator"]), width)
    figure.caption = "\n".join(
        [
            f"{style.label(reading)} from the first to the last downsampling site ({counts(rows)}; measured on "
            f"{selection.data}). Points: means over checkpoints, of all strengths of an operator, with 95 % t "
            "intervals, training runs as clusters; operators stand side by side at a site.",
            *sampled,
            *sentences,
            *selection.notes,
        ]
    )
    return figure


def _panel(
    ax: Axes, rows: pd.DataFrame, name: str, reading: str, chosen: list[str], looks: dict[str, style.Mark]
) -> str:
    there = set(rows["operator"])
    order = [operator for operator in chosen if operator in there]
    offsets = np.linspace(-DODGE / 2, DODGE / 2, len(order)) if len(order) > 1 else np.zeros(1)
    told = []
    for offset, operator in zip(offsets, order, strict=True):
        mark = looks[operator]
        sites = rows[rows["operator"] == operator].groupby("place")
        found = np.array([fits.clustered_mean(site[reading], site["cluster"]) for _, site in sites])
        places = np.array([place for place, _ in sites], dtype=float)
        errors = np.nan_to_num(np.stack([found[:, 0] - found[:, 1], found[:, 2] - found[:, 0]]))
        ax.errorbar(
            places + offset, found[:, 0], yerr=errors, color=mark.color, marker=mark.marker, markersize=4.0,
            linewidth=0.9, elinewidth=0.9, markeredgecolor="white", markeredgewidth=0.3, label=operator, zorder=3,
        )  # fmt: skip
        means = ", ".join(bracketed(*site) for site in found)
        told.append(f"{operator} {means}")
    checkpoints, runs = rows["checkpoint"].nunique(), rows["cluster"].nunique()
    ax.set_title(f"{name}: n = {checkpoints}, {counted(runs, 'run')}", loc="left", fontsize=style.SMALLEST_FONT)
    ax.set_xlabel("downsampling site, in order")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    ax.set_xlim(0.5, rows["place"].max() + 0.5)
    ax.grid(axis="x", visible=False)
    return f"{name} (n = {checkpoints} in {counted(runs, 'run')}), by site: {'; '.join(told)}."
