"""What an operator costs: parameters, multiply-adds, latency and training step relative to the reference's."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from invariscope.analysis.figures import style
from invariscope.analysis.figures.selection import FigureRows, Snapshots, counts, select_unshifted

QUANTITIES = {
    "parameters": "parameters",
    "multiply_adds": "multiply-adds",
    "latency": "latency",
    "training_step": "training step",
}
"""Every quantity of table ``cost`` and its name on an axis."""

IDLE = 0.05
"""A quantity in which no operator differs by more from the reference has no panel; the caption has its numbers."""

RATIOS = (1, 2, 0.5, 5, 0.2, 10, 0.1, 20, 50, 100, 1.5, 3, 0.7, 1.2, 1.1, 0.9, 1.05)
"""Ratios that an axis may name, the most telling first."""


def cost(
    frame: pd.DataFrame,
    *,
    snapshots: Snapshots = "final",
    data: str | None = None,
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """One panel per quantity: every network's cost as a multiple of the reference's, and the operator's median.

    A quantity in which no operator differs (:data:`IDLE`) is told in the caption alone.

    Thin bars are the quartiles of the ratios of each pair of passes, measured in turn; the thick bar spans the
    operator's quartiles over networks. Log axis. ``frame`` is :func:`cost_frame`'s; costs
    depend on no data set, ``data`` is ignored. Raises :class:`TableError` when there is nothing to draw.
    """
    selection = select_unshifted(frame, "cost", "cost", ["relative"], data, snapshots)
    rows = selection.rows.drop_duplicates(["checkpoint", "model", "quantity", "input_size", "batch_size", "device"])
    measured = [name for name in QUANTITIES if (rows["quantity"] == name).any()]
    idle = [name for name in measured if _is_idle(rows[rows["quantity"] == name])]
    quantities = [name for name in measured if name not in idle] or measured
    idle = [name for name in measured if name not in quantities]
    order, sampled = style.some_rows(style.operator_order(rows["operator"]))
    across = len(quantities) if width == "double" else min(len(quantities), 2)
    down = -(-len(quantities) // across)
    with style.theme(width):
        figure = style.new_figure(width, 0.7 + down * (0.55 + 0.19 * max(len(order), 4)))
        axes = figure.subplots(down, across, squeeze=False, sharey=True)
        told = []
        for ax, quantity in zip(axes.ravel(), quantities, strict=False):
            told.append(_panel(ax, rows[rows["quantity"] == quantity], order, quantity))
        for ax in axes.ravel()[len(quantities) :]:
            ax.set_axis_off()
        axes[0, 0].set_yticks(range(len(order)), order)
        axes[0, 0].set_ylim(len(order) - 0.5, -0.5)
        style.legend_below(figure, _handles(), width, columns=2 if width == "double" else 1)
        told += [_idle_told(rows[rows["quantity"] == name], name) for name in idle]
    figure.caption = _caption(selection, rows, [*sampled, *told])
    return figure


def _is_idle(rows: pd.DataFrame) -> bool:
    """Whether every operator's median is within :data:`IDLE` of the reference."""
    medians = rows.groupby("operator")["relative"].median()
    return bool((np.abs(np.log(medians.astype(float))) <= np.log(1 + IDLE)).all())


def _idle_told(rows: pd.DataFrame, quantity: str) -> str:
    told = [f"{name} {value:.2f}" for name, value in rows.groupby("operator")["relative"].median().items()]
    return (
        f"{QUANTITIES[quantity]}, not drawn since all medians are within {100 * IDLE:g} % of {_references(rows)}: "
        f"{'; '.join(told)}."
    )


def _panel(ax: Axes, rows: pd.DataFrame, order: list[str], quantity: str) -> str:
    told = []
    ax.axvline(1, color=style.GUIDE, linewidth=0.8, zorder=1)
    for y, name in enumerate(order):
        of_operator = rows[rows["operator"] == name].sort_values("checkpoint")
        if of_operator.empty:
            continue
        mark = style.marks([name])[name]
        heights = y + np.linspace(-0.3, 0.3, len(of_operator)) if len(of_operator) > 1 else np.array([float(y)])
        ends = of_operator[["relative_low", "relative_high"]].astype(float).to_numpy()
        ax.hlines(heights, ends[:, 0], ends[:, 1], color=mark.color, linewidth=0.5, alpha=0.6, zorder=2)
        ax.scatter(of_operator["relative"], heights, s=5, color=mark.color, linewidths=0, alpha=0.6, zorder=2.5)
        low, middle, high = np.quantile(of_operator["relative"], [0.25, 0.5, 0.75])
        ax.plot([low, high], [y, y], color=style.INK, linewidth=1.8, zorder=3, label="_quartiles")
        ax.plot(
            [middle], [y], color=mark.color, marker=mark.marker, markersize=5.5, markeredgecolor=style.INK,
            markeredgewidth=0.6, linestyle="", zorder=4, label=name,
        )  # fmt: skip
        told.append(f"{name} {middle:.2f} [{low:.2f}, {high:.2f}] (n = {len(of_operator)})")
    ax.set_xscale("log")
    ax.set_title(QUANTITIES[quantity], loc="left")
    ax.set_xlabel(f"× {_references(rows)}")
    _ticks(ax)
    ax.grid(axis="y", visible=False)
    return f"{QUANTITIES[quantity]}, relative to {_references(rows)}: {'; '.join(told)}."


def _ticks(ax: Axes) -> None:
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.9), max(high, 1.12))
    low, high = np.log(ax.get_xlim())
    places = np.exp(style.spaced(np.log(RATIOS), low, high, gap=0.16))
    ax.set_xticks(places, [f"{ratio:g}" for ratio in places.round(6)])
    ax.xaxis.set_minor_locator(NullLocator())


def _references(rows: pd.DataFrame) -> str:
    names = sorted(rows["reference"].dropna().astype(str).unique())
    return " or ".join(names) if names else "reference"


def _handles() -> list[Artist]:
    network = {"color": style.GUIDE, "markersize": 2.5, "linewidth": 0.6}
    operator = {"color": style.INK, "markersize": 5.0, "markerfacecolor": "#d0d0d0", "linewidth": 1.8}
    return [
        Line2D([], [], marker="o", label="one network, quartiles of its passes", **network),  # type: ignore[arg-type]
        Line2D([], [], marker="o", label="operator: median and quartiles over networks", **operator),  # type: ignore[arg-type]
    ]


def _caption(selection: FigureRows, rows: pd.DataFrame, told: list[str]) -> str:
    conditions = [
        f"{name} {', '.join(sorted(rows[column].dropna().astype(str).unique()))}"
        for name, column in (("input", "input_size"), ("images per pass", "batch_size"), ("device", "device"))
        if rows[column].notna().any()
    ]
    return "\n".join(
        [
            f"Cost relative to the reference operator's, all else equal ({counts(rows)}; {'; '.join(conditions)}). "
            "Dots: networks; thin bars: quartiles of the ratios of pairs of passes measured in turn. Outlined: the "
            "operator's median, thick bar and brackets: its quartiles over networks (spread, no confidence interval).",
            *told,
            *selection.notes,
        ]
    )
