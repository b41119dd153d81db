"""How strongly each operator prefers the maximum: the distribution over checkpoints, and the change with depth."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.selection import Snapshots, counts, once_per_checkpoint, select
from invariscope.analysis.say.numbers import bracketed
from invariscope.analysis.tables.checkpoints import operators_named
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING

ABOVE, BELOW = 0.14, 0.27
"""How far, of a row's height, the points stand above its middle and the mean below it: a tight cloud stays visible."""


_SITES_SENTENCE = (
    "Right: mean per site over the same checkpoints, of the commonest architecture alone, the first site on top."
)


def msb_by_operator(
    frame: pd.DataFrame,
    sites: pd.DataFrame | None = None,
    *,
    reading: str = PRIMARY_READING,
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Operators ordered by their mean ``reading``: every checkpoint (mean over its sites), the mean and its interval.

    With ``sites`` (:func:`site_frame`) a second panel shows each operator's mean per site, from
    the first to the last in the network. ``frame`` is :func:`join`'s. Intervals: 95 % t, training runs
    as the sampling unit. Raises :class:`TableError` when there is nothing to draw.
    """
    selection = select(frame, "msb_by_operator", [reading], data, snapshots)
    rows = once_per_checkpoint(selection.rows)
    means = rows.groupby("operator")[reading].mean().sort_values(ascending=False, kind="stable")
    order, sampled = style.some_rows(means.index.tolist())
    depths = _depths(sites, rows, selection.data, reading)
    with style.theme(width):
        figure = style.new_figure(width, 0.8 + 0.27 * max(len(order), 3))
        panels = 2 if len(depths) else 1
        axes = figure.subplots(1, panels, squeeze=False, sharey=True, width_ratios=[1.4, 1.0][:panels])[0]
        sentences = [
            _distribution(axes[0], y, name, rows[rows["operator"] == name], reading) for y, name in enumerate(order)
        ]
        axes[0].set_yticks(range(len(order)), [_tick(name, rows) for name in order])
        axes[0].set_ylim(len(order) - 0.4, -0.6)
        # No reading exceeds 1; the interval of two or three runs may, and would squeeze the points.
        axes[0].set_xlim(min(0.0, float(rows[reading].min())) - 0.05, 1.05)
        for ax in axes:
            narrow = width == "single" and panels == 2
            ax.set_xlabel(
                style.label(reading, short=True).replace(", ", ",\n") if narrow else style.label(reading, lines=2)
            )
        axes[0].set_title("checkpoints", loc="left")
        axes[0].grid(axis="y", visible=False)
        if panels == 2:
            _by_depth(axes[1], depths, order, reading)
        style.legend_below(figure, _handles(panels), width, columns=4 if width == "double" else 2)
    figure.caption = "\n".join(
        [
            f"{style.label(reading)} by operator, ordered by the mean ({counts(rows)}; measured on {selection.data}). "
            "Points: checkpoints, each the mean over its sites. Circles with bars: mean over checkpoints with its 95 % "
            "t interval, training runs as clusters.",
            *sampled,
            *sentences,
            *([_SITES_SENTENCE] if panels == 2 else []),
            *selection.notes,
        ]
    )
    return figure


def _tick(name: str, rows: pd.DataFrame) -> str:
    return f"{name} (n = {(rows['operator'] == name).sum()})"


def _distribution(ax: Axes, y: int, name: str, rows: pd.DataFrame, reading: str) -> str:
    mark = style.marks([name])[name]
    spread = _spread(rows[reading].to_numpy(float)) - ABOVE
    ax.scatter(
        rows[reading], y + spread, s=11, color=mark.color, marker=mark.marker, alpha=0.6, linewidths=0.3,
        edgecolors="white", label=name, zorder=2.5,
    )  # fmt: skip
    mean, low, high = fits.clustered_mean(rows[reading], rows["cluster"])
    if np.isfinite(low):
        ax.plot([low, high], [y + BELOW, y + BELOW], color=style.INK, linewidth=1.6, zorder=3, solid_capstyle="butt")
    ax.plot(
        [mean],
        [y + BELOW],
        color=style.INK,
        marker="o",
        markersize=3.0,
        markeredgewidth=0.8,
        markerfacecolor="white",
        zorder=3.5,
        linestyle="",
    )
    return f"{name}: {bracketed(mean, low, high)}, n = {len(rows)} in {counted(rows['cluster'].nunique(), 'run')}."


def _spread(values: np.ndarray, height: float = 0.2, bins: int = 40) -> np.ndarray:
    """Vertical offsets that keep near-equal values apart, without chance: each bin's points fan out from the middle."""
    scale = np.floor(np.nan_to_num(values) * bins).astype(int)
    within = pd.Series(scale).groupby(scale).cumcount().to_numpy()
    largest = max(int(within.max(initial=0)), 6)
    side = np.where(within % 2 == 0, 1.0, -1.0)
    return side * np.ceil(within / 2) / np.ceil(largest / 2) * height


def _depths(sites: pd.DataFrame | None, rows: pd.DataFrame, data: str, reading: str) -> pd.DataFrame:
    """Mean reading per operator and depth, over the checkpoints drawn of the commonest architecture, in which alone the
    depths stand for the same sites; empty without sites or with one site only.
    """
    if sites is None or sites.empty:
        return pd.DataFrame()
    known = operators_named(sites)
    known = known.loc[(known["data"] == data) & known["checkpoint"].isin(rows["checkpoint"])].dropna(subset=[reading])
    known = known[known["architecture"].isin([*known["architecture"].mode()[:1], None])]
    means = known.groupby(["operator", "depth"])[[reading]].mean().reset_index()
    return means if means["depth"].nunique() > 1 else pd.DataFrame()


def _by_depth(ax: Axes, depths: pd.DataFrame, order: list[str], reading: str) -> None:
    last = int(depths["depth"].max())
    for y, name in enumerate(order):
        of_operator = depths[depths["operator"] == name].sort_values("depth")
        mark = style.marks([name])[name]
        progress = of_operator["depth"].to_numpy() / last
        # The first site stands highest, so that sites of equal value do not hide each other.
        heights = y + 0.3 * (2 * progress - 1)
        ax.plot(of_operator[reading], heights, color=mark.color, linewidth=0.8, zorder=2)
        shades = [(*to_rgba(mark.color)[:3], 0.15 + 0.85 * share) for share in progress]
        ax.scatter(of_operator[reading], heights, s=11, color="white", marker=mark.marker, linewidths=0, zorder=2.5)
        ax.scatter(
            of_operator[reading], heights, s=11, c=shades, marker=mark.marker, edgecolors=mark.color, linewidths=0.6,
            label=name, zorder=3,
        )  # fmt: skip
    ax.set_title("mean by site", loc="left")
    ax.grid(axis="y", visible=False)


def _handles(panels: int) -> list[Artist]:
    mean = {"color": style.INK, "marker": "o", "markersize": 3.0, "markeredgewidth": 0.8, "markerfacecolor": "white"}
    handles: list[Artist] = [
        Line2D([], [], color=style.GUIDE, marker="o", markersize=3.5, linestyle="", alpha=0.7, label="checkpoint"),
        Line2D([], [], linewidth=1.6, label="mean, 95 % interval", **mean),  # type: ignore[arg-type]
    ]
    if panels == 2:
        pale = Line2D([], [], color=style.GUIDE, marker="o", markersize=3.8, linewidth=0.8, label="first site (pale)")
        pale.set_markerfacecolor("#e8e8e8")
        dark = Line2D([], [], color=style.GUIDE, marker="o", markersize=3.8, linewidth=0.8, label="last site (dark)")
        handles += [pale, dark]
    return handles
