"""Rotations of rank weights, block by block: what consistency does when weight moves to the maximum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from invariscope.analysis.designs.assigned import BLOCK, LOGIT, MSB, ROTATED, Settings
from invariscope.analysis.designs.rotations import BOUND, RotationEffect, rotation_effect
from invariscope.analysis.figures import style
from invariscope.analysis.figures.assigned_rows import AssignedRows, assigned_rows, outer, panels, room
from invariscope.analysis.say.numbers import bracketed, number
from invariscope.analysis.stats.resampling import Array
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_SCORE

RISING, FALLING = "#0072B2", "#CC79A7"
"""Of blocks whose own slope is above zero, and not."""
_FAN = 0.25
_MATTERS = "#e9e9e9"


def rotations(
    frame: pd.DataFrame, *, score: str = PRIMARY_SCORE, data: str | None = None, width: style.Width = "double"
) -> style.CaptionedFigure:
    """Per data set and shift kind: assigned MSB against the logit of ``score`` less its block's mean, with the slope
    within each block, and the slope of statement 1 with its 95 % interval on top; beside it the slopes as a forest.

    A block's line is least squares through its own networks. The slope on top is :func:`rotation_effect`'s: given how
    the weight of the other ranks is spread, CR2 by block; hollow in the forest: the plain one. ``frame`` is
    :func:`join`'s.

    Raises:
        TableError: no operator was drawn at random, no rotations, or none that count under a primary plan.
    """
    chosen = assigned_rows(frame, "rotations", [ROTATED], score=score, data=data, width=width)
    once = Settings(draws=1)  # the p are in `statements.csv`
    found: dict[str, tuple[RotationEffect, RotationEffect]] = {}
    for kind in chosen.kinds:
        rows = chosen.of(kind, ROTATED)
        try:
            found[kind] = rotation_effect(rows, once, each=False), rotation_effect(rows, once, spread=False, each=False)
        except TableError as problem:
            raise TableError(f"rotations: {kind} shifts: {str(problem).removeprefix('no rotations: ')}") from problem
    blocks = {(cell, kind): whole(chosen.of(kind, ROTATED), cell) for cell in chosen.cells for kind in chosen.kinds}
    with style.theme(width):
        figure, axes, forest = _layout(chosen, width)
        everything = pd.concat(blocks.values())
        for (cell, kind), ax in axes.items():
            _blocks(ax, blocks[cell, kind])
            _pooled(ax, found[kind][0], cell, blocks[cell, kind])
            title = chosen.title(cell, kind)
            ax.set_title(_heading(found[kind][0], cell, title), loc="left", fontsize=style.SMALLEST_FONT)
            room(ax, [everything["within"]])
            room(ax, [everything[MSB]], "x", 0.03)
        for ax, bottom, left in outer(axes):
            ax.set_xlabel("assigned MSB" if bottom else "")
            ax.locator_params(axis="x", nbins=4)
            ax.set_ylabel(f"{score}, change\nwithin block (logits)" if left else "")
        _forest(forest, chosen, found, width)
        style.legend_below(figure, _handles(), width, columns=3 if width == "double" else 2)
    figure.caption = _caption(chosen, found, blocks)
    return figure


def _layout(
    chosen: AssignedRows, width: style.Width
) -> tuple[style.CaptionedFigure, dict[tuple[str, str], Axes], Axes]:
    cells, kinds = len(chosen.cells), len(chosen.kinds)
    if width == "single":
        forest = 0.35 + 0.17 * kinds * (cells + 2 if cells > 1 else 2)
        above = 2.1 if cells == 1 else 1.75 * cells
        figure = style.new_figure(width, 1.9 + above + forest)
        place = figure.add_gridspec(2, 1, height_ratios=[above, forest])
        return figure, panels(figure, chosen, width, place=place[0]), figure.add_subplot(place[1])
    rows, columns = (kinds, cells) if cells > 1 else (1, kinds)
    figure = style.new_figure(width, 0.6 + 2.3 * rows)
    place = figure.add_gridspec(1, 2, width_ratios=[columns, 0.8])
    return figure, panels(figure, chosen, width, place=place[0]), figure.add_subplot(place[1])


def whole(rows: pd.DataFrame, cell: str) -> pd.DataFrame:
    """The networks of a cell's whole blocks, with ``within``, their logits less the block's mean, and ``own``, the
    least-squares slope of their block.
    """
    mine = rows[rows["cell"] == cell]
    sizes = mine.groupby(BLOCK)[MSB].transform("size")
    mine = mine[sizes == sizes.max()]
    blocks = mine[BLOCK].astype(str)
    x, y = (
        mine[name].astype(float) - mine[name].astype(float).groupby(blocks).transform("mean") for name in (MSB, LOGIT)
    )
    slopes = (x * y).groupby(blocks).sum() / (x**2).groupby(blocks).sum()
    return mine.assign(within=y, own=blocks.map(slopes))


def _blocks(ax: Axes, rows: pd.DataFrame) -> None:
    for name, block in rows.groupby(BLOCK):
        slope = float(block["own"].iloc[0])
        color = RISING if slope > 0 else FALLING
        middle = float(block[MSB].mean())
        ends = np.array([block[MSB].min(), block[MSB].max()])
        ax.plot(ends, slope * (ends - middle), color=color, linewidth=0.7, alpha=0.55, zorder=2, label=f"block {name}")
    rising = rows["own"] > 0
    for color, part in ((RISING, rows[rising]), (FALLING, rows[~rising])):
        ax.scatter(part[MSB], part["within"], s=4, color=color, alpha=0.45, linewidths=0, zorder=1.8, label="_networks")
    ax.axhline(0, color=style.GUIDE, linewidth=0.6, zorder=1)


def _pooled(ax: Axes, effect: RotationEffect, cell: str, rows: pd.DataFrame) -> None:
    """The cell's slope through the mean of its blocks, and between the ends of its interval."""
    mine = effect.cells[effect.cells["cell"] == cell]
    for row in mine.to_dict("records"):
        x = np.linspace(rows[MSB].min(), rows[MSB].max(), 61)
        away = x - float(rows[MSB].mean())
        low, high = _ordered(row["low"] * away, row["high"] * away)
        ax.fill_between(x, low, high, color=style.INK, alpha=_FAN, linewidth=0, zorder=3, label="interval")
        ax.plot(x, row["slope"] * away, color="white", linewidth=3.2, zorder=3.8, label="_halo")
        ax.plot(x, row["slope"] * away, color=style.INK, linewidth=1.8, zorder=4, label="slope")


def _ordered(one: Array, other: Array) -> tuple[Array, Array]:
    return np.minimum(one, other), np.maximum(one, other)


def _heading(effect: RotationEffect, cell: str, title: str) -> str:
    mine = effect.cells[effect.cells["cell"] == cell]
    if mine.empty:
        return f"{title}\nno slope"
    row = mine.iloc[0]
    return f"{title}\nslope {bracketed(row['slope'], row['low'], row['high'])}"


def _forest(
    ax: Axes, chosen: AssignedRows, found: Mapping[str, tuple[RotationEffect, RotationEffect]], width: style.Width
) -> None:
    """Slopes of every cell and pooled, by shift kind; hollow: the plain slope."""
    ax.axvspan(-BOUND, BOUND, color=_MATTERS, linewidth=0, zorder=0)
    ax.axvline(0, color=style.GUIDE, linewidth=0.8, zorder=1)
    names: list[str] = []
    headings: list[int] = []
    for kind, (effect, plain) in found.items():
        headings.append(len(names))
        names.append(f"{kind} shift")
        for row in effect.cells.to_dict("records"):
            name, other = chosen.named(row["cell"]), plain.cells.loc[plain.cells["cell"] == row["cell"], "slope"]
            _estimate(ax, len(names), (row["slope"], row["low"], row["high"]), other, "o", name)
            names.append(name)
        if effect.pooled.df:
            pooled = effect.pooled
            other = pd.Series([plain.pooled.estimate])
            _estimate(ax, len(names), (pooled.estimate, pooled.low, pooled.high), other, "D", "pooled")
            names.append("pooled")
    ax.set_yticks(range(len(names)), names)
    for place, tick in enumerate(ax.get_yticklabels()):
        tick.set_fontweight("bold" if place in headings else "normal")
    ax.set_ylim(len(names) - 0.4, -0.6)
    joint = "\n" if width == "double" else " "
    ax.set_xlabel(f"slope (logits{joint}per unit of MSB)")
    ax.set_title(f"slopes within blocks,{joint}95 % intervals", loc="left", fontsize=style.SMALLEST_FONT)
    ax.locator_params(axis="x", nbins=5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="y", visible=False)
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, -1.4 * BOUND), max(high, 1.4 * BOUND))


def _estimate(ax: Axes, y: int, values: tuple[float, float, float], plain: pd.Series, marker: str, name: str) -> None:
    slope, low, high = values
    ax.plot([low, high], [y, y], color=style.INK, linewidth=1.4, zorder=2, label=f"_interval {name}")
    ax.plot([slope], [y], color=style.INK, marker=marker, markersize=4.5, linestyle="", zorder=3, label=name)
    ax.plot(
        plain, [y + 0.28] * len(plain), marker="o", markersize=3, markerfacecolor="white", markeredgecolor=style.GUIDE,
        linestyle="", zorder=2.5, label=f"_plain {name}",
    )  # fmt: skip


def _handles() -> list[Artist]:
    return [
        Line2D([], [], color=RISING, linewidth=0.9, marker="o", markersize=2, label="block that rises"),
        Line2D([], [], color=FALLING, linewidth=0.9, marker="o", markersize=2, label="block that falls"),
        Line2D([], [], color=style.INK, linewidth=1.8, label="slope within blocks"),
        Patch(color=style.INK, alpha=_FAN, linewidth=0, label="95 % interval"),
        Line2D(
            [], [], marker="o", markersize=3, markerfacecolor="white", markeredgecolor=style.GUIDE, linestyle="",
            label="plain slope",
        ),
        Patch(color=_MATTERS, linewidth=0, label=f"within ±{BOUND:g}: too small to matter"),
    ]  # fmt: skip


def _caption(
    chosen: AssignedRows,
    found: Mapping[str, tuple[RotationEffect, RotationEffect]],
    blocks: Mapping[tuple[str, str], pd.DataFrame],
) -> str:
    told = []
    for kind, (effect, plain) in found.items():
        parts = []
        plain_slopes = dict(zip(plain.cells["cell"], plain.cells["slope"], strict=True))
        for row in effect.cells.to_dict("records"):
            own = blocks[row["cell"], kind].drop_duplicates(BLOCK)["own"].to_numpy(dtype=float)
            lost = f", {counted(row['n_incomplete'], 'block')} left out that lack a network" * bool(row["n_incomplete"])
            parts.append(
                f"{chosen.named(row['cell'])} {bracketed(row['slope'], row['low'], row['high'])} (plain "
                f"{number(plain_slopes.get(row['cell'], np.nan))}; {counted(row['n_blocks'], 'block')}, "
                f"{counted(row['n'], 'network')}{lost}; {(own > 0).sum()} of {len(own)} blocks rise)"
            )
        if effect.pooled.df:
            pooled = effect.pooled
            parts.append(f"pooled {bracketed(pooled.estimate, pooled.low, pooled.high)} (Q = {pooled.q:.2f})")
        parts += [f"{chosen.named(cell)}: no slope" for cell in effect.left_out]
        told.append(f"{kind} shifts: {'; '.join(parts)}.")
    return "\n".join(
        [
            "Rotations (population R): within a block only the ranks differ that an operator's weights go to; "
            f"selectivity, low pass and seed are the same. A point per network: assigned MSB against {chosen.score}, "
            "logits of (n c + ½) / (n + 1) less the block's mean; thin lines: least squares within each block.",
            chosen.plans(),
            "On top, and in the forest: the slope within blocks in logits per unit of MSB, given how the weight of the "
            "other ranks is spread (statement 1), with its 95 % interval: CR2 by block in a data set, normal where "
            "pooled by inverse variance. Hollow: the plain slope. Grey: slopes within "
            f"±{BOUND:g}, which count as too small to matter if a pooled interval of 90 % lies inside.",
            *told,
            *chosen.notes,
        ]
    )
