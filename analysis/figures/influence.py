"""Who carries the slope: MSB's slope at equal accuracy with one operator or architecture left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from invariscope.analysis.figures import style
from invariscope.analysis.figures.selection import FigureRows, Snapshots, counts, need, plan_sentence, select
from invariscope.analysis.say.numbers import bracketed, number
from invariscope.analysis.stats.regression import FractionalLogit, leave_one_out
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING, PRIMARY_SCORE

_KINDS = {"operator": "", "data": "data set ", "architecture": "architecture "}
_OTHER = style.Mark(style.GUIDE, "o")


def influence(
    frame: pd.DataFrame,
    *,
    reading: str = PRIMARY_READING,
    score: str = PRIMARY_SCORE,
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Per shift kind: the fractional logit's slope of ``score`` on ``reading`` without each operator, and Cook's
    distance of each.

    The model is that of statement (b): accuracy as a covariate, architecture (and data set) as factors, errors
    clustered by operator (CR2, Satterthwaite's degrees of freedom). One row per operator and per architecture left
    out, the least slope on top in the first panel; line and band: nothing left out. The figure is of one data set;
    slopes with a data set left out are in ``influence.csv``. ``frame`` is :func:`join`'s. Raises
    :class:`TableError` when there is nothing to draw.
    """
    if score == "accuracy":
        raise TableError("influence draws slopes at equal accuracy: choose a score such as consistency")
    need(frame, ["architecture"], "influence")
    selection = select(frame, "influence", [reading, score, "accuracy"], data, snapshots)
    tables = {kind: _slopes(selection.kind(kind), reading, score) for kind in selection.kinds}
    every = _order(tables)
    order, sampled = _drawn(every, tables)
    with style.theme(width):
        rows = len(selection.kinds)
        figure = style.new_figure(width, 0.75 + rows * (0.5 + 0.15 * max(len(order), 3)))
        axes = figure.subplots(
            rows, 2, squeeze=False, sharex="col", sharey=True, width_ratios=[2.2 if width == "double" else 1.5, 1]
        )
        for (left, right), (kind, table) in zip(axes, tables.items(), strict=True):
            _forest(left, table, order)
            _distances(right, table, order)
            left.set_title(_heading(selection, kind, table, width), loc="left", fontsize=style.SMALLEST_FONT)
            left.set_yticks(range(len(order)), [f"{_KINDS[what]}{name}" for what, name in order])
            left.set_ylim(len(order) - 0.4, -0.6)
            left.set_ylabel("left out")
        axes[0, 0].set_xlim(_limits(pd.concat(list(tables.values()))))
        axes[-1, 0].set_xlabel(
            "slope (logits per unit of MSB)" if width == "double" else "slope\n(logits per unit of MSB)"
        )
        axes[-1, 1].set_xlabel("Cook's distance" if width == "double" else "Cook's\ndistance")
        style.legend_below(figure, _handles(), width, columns=3 if width == "double" else 2)
    figure.caption = _caption(selection, reading, score, tables, order, sampled)
    return figure


def _slopes(rows: pd.DataFrame, reading: str, score: str) -> pd.DataFrame:
    factors = rows.assign(architecture=rows["architecture"].astype(object).where(rows["architecture"].notna(), "—"))
    model = FractionalLogit("fractional logit", score, (reading, "accuracy"), ("architecture", "data"))
    return leave_one_out(factors, model)


def _order(tables: dict[str, pd.DataFrame]) -> list[tuple[str, str]]:
    """What was left out, by the slope in the first panel; kinds of one value, whose leaving out leaves nothing, not."""
    every = pd.concat(list(tables.values()), ignore_index=True)
    every = every[every["left_out_kind"] != ""]
    several = every.groupby("left_out_kind")["left_out"].transform("nunique") > 1
    first = every[several].drop_duplicates(["left_out_kind", "left_out"])
    first = first.assign(rank=first["left_out_kind"].map(list(_KINDS).index))
    first = first.sort_values(["rank", "estimate", "left_out"], kind="stable")
    return list(zip(first["left_out_kind"], first["left_out"], strict=True))


def _drawn(order: list[tuple[str, str]], tables: dict[str, pd.DataFrame]) -> tuple[list[tuple[str, str]], list[str]]:
    """The rows to draw, in their order: all, or those of the largest Cook's distances; and what that leaves out."""
    if len(order) <= style.MOST_ROWS:
        return order, []
    every = pd.concat(list(tables.values())).set_index(["left_out_kind", "left_out"])
    greatest = every["cooks_distance"].fillna(0).groupby(level=[0, 1]).max().reindex(order)
    kept = set(greatest.sort_values(ascending=False, kind="stable").index[: style.MOST_ROWS])
    others = every["estimate"][[row in order and row not in kept for row in every.index]]
    said = (
        f"Drawn are the {style.MOST_ROWS} of {len(order):,} with the largest Cook's distance; without one of the "
        f"others the slopes are {number(others.min())} to {number(others.max())}, over all shift kinds. The table of "
        "influence holds all."
    )
    return [row for row in order if row in kept], [said]


def _forest(ax: Axes, table: pd.DataFrame, order: list[tuple[str, str]]) -> None:
    whole = table[table["left_out_kind"] == ""].iloc[0]
    if np.isfinite(whole["estimate"]):
        ax.axvline(whole["estimate"], color=style.INK, linewidth=1.0, zorder=2, label="nothing left out")
    if np.isfinite(whole["low"]):
        ax.axvspan(whole["low"], whole["high"], color=style.INK, alpha=style.BAND, linewidth=0, zorder=1)
    ax.axvline(0, color=style.GUIDE, linewidth=0.8, linestyle=":", zorder=1.5)
    for y, row in _rows(table, order):
        mark = _mark(row)
        if np.isfinite(row["low"]):
            ax.plot([row["low"], row["high"]], [y, y], color=mark.color, linewidth=1.1, zorder=3)
        ax.plot(
            [row["estimate"]], [y], color=mark.color, marker=mark.marker, markersize=4.5, linestyle="", zorder=3.5,
            label=row["left_out"], markeredgecolor="white", markeredgewidth=0.4,
        )  # fmt: skip
    ax.grid(axis="y", visible=False)


def _limits(table: pd.DataFrame) -> tuple[float, float] | None:
    """Room for every estimate and the intervals of all rows, and twice as much on each side for the other intervals."""
    whole = table[table["left_out_kind"] == ""]
    core = pd.concat([table["estimate"], whole["low"], whole["high"], pd.Series([0.0])])
    low, high = core.min(), core.max()
    room = 2 * (high - low)
    if not room > 0:
        return None
    # fmin and fmax: no row may have an interval.
    low = float(np.fmin(low, table["low"].clip(lower=low - room).min()))
    high = float(np.fmax(high, table["high"].clip(upper=high + room).max()))
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def _distances(ax: Axes, table: pd.DataFrame, order: list[tuple[str, str]]) -> None:
    for y, row in _rows(table, order):
        mark = _mark(row)
        ax.plot([0, row["cooks_distance"]], [y, y], color=mark.color, linewidth=1.1, zorder=2.5)
        ax.plot(
            [row["cooks_distance"]], [y], color=mark.color, marker=mark.marker, markersize=4.5, linestyle="",
            label=row["left_out"], markeredgecolor="white", markeredgewidth=0.4, zorder=3,
        )  # fmt: skip
    ax.grid(axis="y", visible=False)
    ax.locator_params(axis="x", nbins=4)


def _rows(table: pd.DataFrame, order: list[tuple[str, str]]) -> list[tuple[int, pd.Series]]:
    """Position and row of what can be drawn."""
    found = [
        (y, table[(table["left_out_kind"] == kind) & (table["left_out"] == name)])
        for y, (kind, name) in enumerate(order)
    ]
    return [(y, rows.iloc[0]) for y, rows in found if len(rows) and np.isfinite(rows.iloc[0]["estimate"])]


def _mark(row: pd.Series) -> style.Mark:
    return style.marks([row["left_out"]])[row["left_out"]] if row["left_out_kind"] == "operator" else _OTHER


def _heading(selection: FigureRows, kind: str, table: pd.DataFrame, width: style.Width) -> str:
    whole = table[table["left_out_kind"] == ""].iloc[0]
    if not np.isfinite(whole["estimate"]):
        text = whole["reason"] if width == "double" else "no slope"
        return f"{selection.title(kind)}\nno slope: {text}" if width == "double" else f"{selection.title(kind)}\n{text}"
    slope = bracketed(whole["estimate"], whole["low"], whole["high"])
    count = f"n = {whole['n']:.0f}, {counted(whole['n_clusters'], 'operator')}"
    if width == "single":
        return f"{selection.title(kind)}\n{count}\n{slope}"
    return f"{selection.title(kind)}: {count}\nnothing left out: {slope}"


def _handles() -> list[Artist]:
    return [
        Line2D([], [], color=style.INK, linewidth=1.0, label="nothing left out"),
        Patch(color=style.INK, alpha=style.BAND, linewidth=0, label="its 95 % interval"),
        Line2D([], [], color=style.GUIDE, marker="o", markersize=4.5, linewidth=1.1, label="left out, 95 % interval"),
    ]


def _caption(
    selection: FigureRows,
    reading: str,
    score: str,
    tables: dict[str, pd.DataFrame],
    order: list[tuple[str, str]],
    sampled: list[str],
) -> str:
    sentences = []
    for kind, table in tables.items():
        for row in table.to_dict("records"):
            if sampled and row["left_out"] and (row["left_out_kind"], row["left_out"]) not in order:
                continue
            what = f"without {row['left_out_kind']} {row['left_out']}" if row["left_out"] else "nothing left out"
            slope = bracketed(row["estimate"], row["low"], row["high"])
            told = row["reason"] if not np.isfinite(row["estimate"]) else slope
            cook = f", Cook's distance {number(row['cooks_distance'])}" if row["cooks_distance"] > 0 else ""
            sentences.append(
                f"{kind}, {what}: {told}{cook} (n = {row['n']:.0f}, {counted(row['n_clusters'], 'operator')})."
            )
    return "\n".join(
        [
            f"Slope of {score} on {style.label(reading)} in a fractional logit with accuracy and architecture, with "
            f"one operator or architecture left out at a time ({counts(selection.rows)}), and Cook's distance of what "
            "was left out.",
            plan_sentence(selection),
            "Intervals: 95 %, errors clustered by operator (CR2), t with Satterthwaite's degrees of freedom; what runs "
            "off the axis is longer.",
            *sampled,
            *sentences,
            *selection.notes,
        ]
    )
