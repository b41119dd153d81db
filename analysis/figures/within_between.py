"""The slope of consistency on MSB inside every operator, and the one between operators: two different questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy import special

from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.selection import FigureRows, Snapshots, counts, plan_sentence, select
from invariscope.analysis.say.numbers import bracketed, coverage
from invariscope.analysis.stats import regression
from invariscope.analysis.stats.cells import OPERATOR_CELL, operator_cells
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING, PRIMARY_SCORE

LEAST_SPREAD = 0.02
"""Operators whose reading has a smaller standard deviation inside their pairs of architecture and padding under every
shift kind have no line and no slope in the figure: rounding would decide them. Their numbers stand in the caption.
"""

REACH = 3.0
"""An interval may stretch the axis to so many times the largest slope."""

MOST_KINDS = {"double": 5, "single": 3}
"""Shift kinds that stand side by side at a width; the caption names those that do not."""

WITHIN, BETWEEN = "within operators", "between operators"
_POOLED = {WITHIN: style.Mark("#B2182B", "d"), BETWEEN: style.Mark(style.INK, "d")}


def within_between(
    frame: pd.DataFrame,
    *,
    reading: str = PRIMARY_READING,
    score: str = PRIMARY_SCORE,
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Per shift kind: ``reading`` against ``score`` with a line per operator, and below it every slope as a forest.

    Slopes are those of fractional logits, in logits of ``score`` per unit of ``reading``: of each operator alone, its
    pairs of architecture and padding as a factor (:func:`group_slopes`, errors clustered by run), and within and
    between operators given accuracy and architecture (:func:`within_between`, errors clustered by operator). A line
    runs through its operator's means over the range of its readings. Operators whose readings do not vary
    (:data:`LEAST_SPREAD`) have none. ``frame`` is :func:`join`'s. Raises :class:`TableError` when there is nothing to
    draw.
    """
    selection = select(frame, "within_between", [reading, score, "accuracy"], data, snapshots)
    kinds = selection.kinds[: MOST_KINDS[width]]
    slopes = {kind: _slopes(selection.kind(kind), reading, score) for kind in kinds}
    operators = style.operator_order(selection.rows["operator"])
    varying = _that_vary(operators, list(slopes.values()))
    order, sampled = style.some_rows(varying)
    joint, wide = " " if width == "double" else "\n", len(kinds) <= (4 if width == "double" else 2)
    with style.theme(width):
        heights = [2.0 if width == "double" else 1.6, 0.5 + 0.2 * (len(order) + 2)]
        figure = style.new_figure(width, 1.3 + sum(heights))
        axes = figure.subplots(2, len(kinds), squeeze=False, sharex="row", sharey="row", height_ratios=heights)
        for column, (kind, table) in enumerate(slopes.items()):
            top, bottom = axes[:, column]
            _lines(top, selection.kind(kind), table, reading, score, order)
            title = selection.title(kind) if wide else selection.title(kind).replace(", ", "\n", 1)
            top.set_title(title, loc="left", fontsize=style.SMALLEST_FONT)
            top.set_xlabel(_x_label(reading, width, len(slopes)))
            _forest(bottom, table, [*order, WITHIN, BETWEEN])
            bottom.set_xlabel(f"slope (logits{joint}per unit of the reading)")
        axes[0, 0].set_ylabel(style.label(score, lines=2))
        pooled = [WITHIN, BETWEEN] if width == "double" else ["within", "between"]
        axes[1, 0].set_yticks(range(len(order) + 2), [*order, *pooled])
        axes[1, 0].set_ylim(len(order) + 1.6, -0.6)
        _limit(axes[1], [table.reindex([*order, WITHIN, BETWEEN]) for table in slopes.values()])
        if len(varying) < len(operators):
            gap = " " if width == "double" else "\n"
            count = len(operators) - len(varying)
            steady = f"not drawn: {count} of {len(operators)} operators,{gap}whose readings hardly vary"
            axes[1, 0].set_title(steady, loc="left", fontsize=style.SMALLEST_FONT, color=style.GUIDE)
        style.legend_below(figure, [*style.operator_handles(operators), *_handles()], width)
    steady_ones = [name for name in operators if name not in varying]
    figure.caption = "\n".join([_caption(selection, slopes, reading, score, steady_ones), *sampled])
    return figure


def _that_vary(operators: Sequence[str], tables: Sequence[pd.DataFrame]) -> list[str]:
    """The operators of which some shift kind has a slope and enough spread of the reading."""

    def varies(name: str, table: pd.DataFrame) -> bool:
        if name not in table.index:
            return False
        row = table.loc[name]
        return bool(np.isfinite(row["estimate"]) and row["spread"] >= LEAST_SPREAD)

    return [name for name in operators if any(varies(name, table) for table in tables)]


def _x_label(reading: str, width: style.Width, panels: int) -> str:
    if width == "single" and panels > 1:
        return style.label(reading, short=True).replace(", ", ",\n")
    return style.label(reading, lines=1 if panels < 3 else 2)


def _slopes(rows: pd.DataFrame, reading: str, score: str) -> pd.DataFrame:
    """Of each operator and pooled: ``estimate, low, high, spread, coverage, n, n_clusters, reason``."""
    factors = ("architecture",) if "architecture" in rows and rows["architecture"].notna().all() else ()
    rows = rows.assign(**{OPERATOR_CELL: operator_cells(rows)})
    alone = regression.FractionalLogit("slope within each operator", score, (reading,), (OPERATOR_CELL,), "cluster")
    of_each = regression.group_slopes(rows, alone, "operator")
    of_each = of_each.set_index(of_each["group"].str.removeprefix("operator="))
    pooled = regression.FractionalLogit("within-between", score, (reading, "accuracy"), factors)
    both = regression.within_between(rows, pooled).set_index("term")
    both = both.reindex([f"{reading}_within", f"{reading}_between"]).set_axis([WITHIN, BETWEEN])
    table = pd.concat([of_each, both])[["estimate", "low", "high", "coverage", "n", "n_clusters", "reason"]]
    inside = rows[reading] - rows.groupby(OPERATOR_CELL)[reading].transform("mean")
    return table.assign(spread=inside.groupby(rows["operator"]).std(ddof=0).reindex(table.index))


def _lines(ax: Axes, rows: pd.DataFrame, slopes: pd.DataFrame, reading: str, score: str, sloped: Sequence[str]) -> None:
    style.scatter_operators(ax, rows, reading, score, size=7.0)
    means, looks = fits.operator_means(rows, [reading, score]), style.looks(rows["operator"])
    of_each = dict(list(rows[["operator", reading, score]].groupby("operator")))
    for name, mark in style.marks(rows["operator"]).items():
        if name not in sloped:
            continue
        of_operator = of_each[name]
        _line(ax, of_operator[reading], of_operator[score], float(slopes["estimate"][name]), mark.color, name)
    _line(ax, means[reading], means[score], float(slopes["estimate"][BETWEEN]), style.INK, BETWEEN, "--")
    for row in means.itertuples():
        mark = looks[str(row.operator)]
        ax.plot(
            [getattr(row, reading)], [getattr(row, score)], marker=mark.marker, markersize=6.5, color=mark.color,
            markeredgecolor=style.INK, markeredgewidth=0.7, linestyle="", zorder=5, label="_mean",
        )  # fmt: skip


def _line(ax: Axes, x: pd.Series, y: pd.Series, slope: float, color: str, name: str, dashes: str = "-") -> None:
    """``expit(logit(mean y) + slope (x - mean x))`` over the range of ``x``; nothing where a mean has no logit."""
    middle = float(y.mean())
    if not np.isfinite(slope) or not 0 < middle < 1:
        return
    at = np.linspace(x.min(), x.max(), 61)
    values = special.expit(special.logit(middle) + slope * (at - x.mean()))
    ax.plot(at, values, color=color, linestyle=dashes, linewidth=1.4, zorder=4, label=f"slope {name}")


def _forest(ax: Axes, slopes: pd.DataFrame, order: Sequence[str]) -> None:
    looks = {**style.marks(order[:-2]), **_POOLED}
    ax.axvline(0, color=style.GUIDE, linewidth=0.8, zorder=1)
    ax.axhline(len(order) - 2.5, color=style.GUIDE, linewidth=0.6, zorder=1)
    for y, name in enumerate(order):
        if name not in slopes.index or not np.isfinite(slopes["estimate"][name]):
            ax.text(
                0.03, y, "no slope", transform=ax.get_yaxis_transform(), va="center", color=style.GUIDE,
                fontsize=style.SMALLEST_FONT,
            )  # fmt: skip
            continue
        row, look = slopes.loc[name], looks[name]
        if np.isfinite(row["low"]):
            ax.plot([row["low"], row["high"]], [y, y], color=look.color, linewidth=1.4, zorder=2, label=f"_{name}")
        ax.plot(
            [row["estimate"]], [y], color=look.color, marker=look.marker, markersize=6.0 if name in _POOLED else 4.5,
            linestyle="", zorder=3, label=name,
        )  # fmt: skip
    ax.grid(axis="y", visible=False)


def _limit(axes: Sequence[Axes], tables: Sequence[pd.DataFrame]) -> None:
    """One slope axis wide enough for every slope and for the intervals up to :data:`REACH` times beyond the slopes;
    arrows where others leave it.
    """
    everything = pd.concat(tables)
    slopes = everything["estimate"].to_numpy(float)
    slopes = slopes[np.isfinite(slopes)]
    reach = REACH * max(np.abs(slopes).max(initial=0), 1.0)
    ends = everything[["low", "high", "estimate"]].to_numpy(float)
    ends = ends[np.isfinite(ends)]
    low, high = max(min(ends.min(initial=0), -1.0), -reach), min(max(ends.max(initial=0), 1.0), reach)
    margin = 0.08 * (high - low)
    for ax in axes:
        ax.set_xlim(low - margin, high + margin)
    for ax in axes:
        _arrows(ax)


def _arrows(ax: Axes) -> None:
    left, right = ax.get_xlim()
    for line in ax.lines[2:]:
        x, y = np.asarray(line.get_xdata(), float), float(np.asarray(line.get_ydata(), float)[0])
        for outside, end, marker in ((x.min() < left, left, "<"), (x.max() > right, right, ">")):
            if outside:
                ax.plot(
                    [end], [y], marker=marker, color=line.get_color(), markersize=4, linestyle="", clip_on=False,
                    zorder=4, label="_off",
                )  # fmt: skip


def _handles() -> list[Artist]:
    mean = {"markersize": 6.0, "markeredgecolor": style.INK, "markeredgewidth": 0.7, "linestyle": ""}
    return [
        Line2D([], [], color="#d0d0d0", marker="o", label="operator mean", **mean),  # type: ignore[arg-type]
        Line2D([], [], color=style.GUIDE, label="slope within"),
        Line2D([], [], color=style.INK, linestyle="--", label="slope between"),
    ]


def _caption(
    selection: FigureRows, slopes: dict[str, pd.DataFrame], reading: str, score: str, steady: Sequence[str]
) -> str:
    sentences = []
    for kind, table in slopes.items():
        told = [f"{name} {_slope(row, name in _POOLED)}" for name, row in table.iterrows()]
        sentences.append(f"{kind}, slope: {'; '.join(told)}.")
    return "\n".join(
        [
            f"{style.label(reading)} against {score}: one point per checkpoint ({counts(selection.rows)}), operator "
            "means outlined. Lines: slopes of the forest below, each through its operator's means; dashed: the slope "
            "between operators, through the mean of the operators' means.",
            plan_sentence(selection),
            "Forest: slopes of fractional logits with 95 % intervals: bias-reduced cluster-robust errors (CR2), t with "
            "Satterthwaite's degrees of freedom. Of one operator: within its pairs of architecture and padding, errors "
            "clustered by training run. Within and between operators (Mundlak): within is in each operator x "
            "architecture x padding; given accuracy and architecture, errors clustered by operator. An arrow marks "
            "what leaves the axis.",
            *_steady_told(steady, selection, reading),
            *sentences,
            *_left_out(selection, slopes),
            *selection.notes,
        ]
    )


def _steady_told(steady: Sequence[str], selection: FigureRows, reading: str) -> list[str]:
    if not steady:
        return []
    many = selection.rows["operator"].nunique()
    return [
        f"No line and no slope of {len(steady)} of {many} operators ({', '.join(steady)}): the standard deviation of "
        f"{style.label(reading, short=True)} inside their pairs is below {LEAST_SPREAD}."
    ]


def _slope(row: pd.Series, pooled: bool) -> str:
    if not np.isfinite(row["estimate"]):
        return f"none ({row['reason']})"
    units = counted(row["n_clusters"], "operator" if pooled else "run")
    slope = bracketed(row["estimate"], row["low"], row["high"])
    return f"{slope} (n = {row['n']:.0f}, resting on {units}{coverage(row, ', simulated coverage {:.2f}')})"


def _left_out(selection: FigureRows, slopes: dict[str, pd.DataFrame]) -> list[str]:
    others = [kind for kind in selection.kinds if kind not in slopes]
    return [f"Not shown, for want of room: {', '.join(others)} shifts."] if others else []
