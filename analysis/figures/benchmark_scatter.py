"""Accuracy against accuracy on logit axes with the fitted line: what a benchmark of many models is drawn as."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray
from scipy import special

from invariscope.analysis.figures import fits, style
from invariscope.analysis.say.numbers import r_in_words
from invariscope.analysis.tables.checkpoints import NOT_GIVEN
from invariscope.base.errors import TableError
from invariscope.base.words import counted

TICKS = (0.1, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9)
"""Percentages that a logit axis may name."""

_ONE_GROUP = "model"
_ONE_MARK = style.Mark("#0072B2", "o")


class Words(NamedTuple):
    """What a panel says in words: r with its interval, the number of points, the slope in logits (empty without)."""

    r: str
    n: int
    slope: str

    def __str__(self) -> str:
        return f"{self.r}, n = {self.n}" + (f", {self.slope}" if self.slope else "")


def benchmark_scatter(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    group: str | None = None,
    clusters: str | None = None,
    percent: bool | None = None,
    labels: tuple[str, str] | None = None,
    width: style.Width = "single",
) -> style.CaptionedFigure:
    """One point per row of ``frame``: accuracy ``x`` against accuracy ``y`` on logit axes, and the line through them.

    The line is least squares in logits, ``logit y = a + b logit x``, with a pointwise 95 % band; the thin line is
    ``y = x``. Taori et al., Measuring robustness to natural distribution shifts in image classification, 2020.

    Args:
        group: column that colours the points.
        clusters: column of rows that belong together, for the band and the interval of r; None: each row by itself.
        percent: whether accuracies are percentages; None: they are where one exceeds 1.
        labels: axis labels in place of the columns' names.

    Raises:
        TableError: a column is missing or there twice, an accuracy is outside the scale, or no row has both accuracies.
    """
    rows, notes = _rows(frame, x, y, group, clusters, percent)
    with style.theme(width):
        figure = style.new_figure(width, 3.6 if width == "single" else 5.0)
        ax = figure.subplots()
        words = draw_panel(ax, rows, "x", "y", clusters="cluster", marks=_marks(rows))
        names = labels or (x, y)
        ax.set_xlabel(f"{names[0]} (%)")
        ax.set_ylabel(f"{names[1]} (%)")
        ax.set_title(str(words), loc="left", fontsize=style.SMALLEST_FONT)
        handles = style.operator_handles(rows["operator"]) if group else []
        style.legend_below(figure, [*handles, *line_handles()], width, columns=3 if width == "single" else 5)
    figure.caption = "\n".join(
        [
            f"{names[0]} against {names[1]}, logit axes: one point per row (n = {len(rows)}, "
            f"{_cluster_words(rows, clusters)}).",
            f"{LINE_SENTENCE} {'Rows' if clusters is None else clusters} as clusters. {words}.",
            *notes,
        ]
    )
    return figure


LINE_SENTENCE = (
    "Line: least squares in logits, with a pointwise 95 % band from cluster-robust errors; thin line: equal "
    f"accuracies. r: Pearson between logits, with its 95 % {fits.INTERVAL_OF_R}."
)
"""What the captions say about the line, the band and r."""


def draw_panel(
    ax: Axes, rows: pd.DataFrame, x: str, y: str, *, clusters: str, marks: dict[str, style.Mark] | None = None
) -> Words:
    """Points per ``operator``, line, band and ``y = x`` on ``ax``.

    ``rows``: accuracies strictly between 0 and 1 in ``x`` and ``y``, and a column ``clusters``.
    """
    for name, mark in (marks or style.marks(rows["operator"])).items():
        of_group = rows[rows["operator"] == name]
        ax.scatter(
            of_group[x], of_group[y], s=11, color=mark.color, marker=mark.marker, alpha=0.6, linewidths=0.3,
            edgecolors="white", label=name, zorder=3,
        )  # fmt: skip
    curve = fits.logit_line(rows[x], rows[y], rows[clusters])
    style.draw_curve(ax, curve)
    logit_axes(ax, rows[x], rows[y])
    ends = [max(ax.get_xlim()[0], ax.get_ylim()[0]), min(ax.get_xlim()[1], ax.get_ylim()[1])]
    if ends[0] < ends[1]:
        ax.plot(ends, ends, color=style.GUIDE, linewidth=0.8, linestyle=":", zorder=1.5, label="equal")
    logits = rows.assign(x_logit=special.logit(rows[x]), y_logit=special.logit(rows[y]))
    row = fits.correlation_row(logits, "x_logit", "y_logit", clusters=clusters)
    return Words(r_in_words(row), len(rows), fits.slope_in_words(curve, "slope") if curve else "")


def logit_axes(ax: Axes, x: ArrayLike, y: ArrayLike, *, margin: float = 0.06, gap: float = 0.07) -> None:
    """Logit scales over the range of the data, named in percent at round numbers that stand apart."""
    for axis, values in (("x", x), ("y", y)):
        low, high = special.logit([np.min(values), np.max(values)])
        beyond = max(margin * (high - low), 0.25 - (high - low) / 2)
        low, high = low - beyond, high + beyond
        ends = special.expit([low, high])
        getattr(ax, f"set_{axis}scale")("logit")
        getattr(ax, f"set_{axis}lim")(*ends)
        target = ax.xaxis if axis == "x" else ax.yaxis
        target.set_major_locator(FixedLocator(_ticks(low, high, gap)))
        target.set_minor_locator(NullLocator())
        target.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}"))


def effective_robustness(x: pd.Series, y: pd.Series, curve: fits.Curve) -> NDArray[np.float64]:
    """``y`` minus what the line of :func:`logit_line` says at ``x`` (Taori et al. 2020)."""
    start, stop = special.logit(curve.x[[0, -1]])
    first, last = special.logit(curve.y[[0, -1]])
    slope = (last - first) / (stop - start)
    return y.to_numpy(float) - special.expit(first + slope * (special.logit(x.to_numpy(float)) - start))


def line_handles() -> list[Artist]:
    """Legend handles of the line, its band and ``y = x``."""
    equal = Line2D([], [], color=style.GUIDE, linewidth=0.8, linestyle=":", label="equal accuracies")
    return [*style.fit_handles("line in logits", False, "double"), equal]


def _ticks(low: float, high: float, gap: float) -> list[float]:
    """Shares between two logits, at least ``gap`` of the axis apart, those nearest the middle of the scale first."""
    ends = 100 * special.expit([low, high])
    named = [percent for percent in TICKS if ends[0] <= percent <= ends[1]]
    if len(named) < 3:
        named = [percent for percent in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(*ends) if 0 < percent < 100]
    places = special.logit(np.array(sorted(named, key=lambda percent: abs(percent - 50))) / 100)
    return [float(special.expit(place)) for place in style.spaced(places, low, high, gap)]


def _rows(
    frame: pd.DataFrame, x: str, y: str, group: str | None, clusters: str | None, percent: bool | None
) -> tuple[pd.DataFrame, list[str]]:
    columns = [x, y, *(name for name in (group, clusters) if name)]
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise TableError(
            f"benchmark_scatter: no column {', '.join(missing)}; the frame has {', '.join(map(str, frame.columns[:8]))}"
        )
    several = [name for name in dict.fromkeys(columns) if (frame.columns == name).sum() > 1]
    if several:
        raise TableError(f"benchmark_scatter: several columns are named {', '.join(several)}; keep one of each")
    values = frame[[x, y]].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    finite = np.isfinite(values).all(axis=1)
    scale = 100.0 if percent or (percent is None and (values[finite] > 1).any()) else 1.0
    shares = values / scale
    if (shares[finite] < 0).any() or (shares[finite] > 1).any():
        raise TableError(f"benchmark_scatter: {x} or {y} leaves 0 to {scale:g}; give accuracies, both on one scale")
    inside = finite & (shares > 0).all(axis=1) & (shares < 1).all(axis=1)
    if not inside.any():
        raise TableError(f"benchmark_scatter: no row has both {x} and {y} between 0 and 1; choose other columns")
    kept = frame[inside]
    names = kept[group].astype(object).where(kept[group].notna(), NOT_GIVEN) if group else _ONE_GROUP
    rows = pd.DataFrame({"x": shares[inside, 0], "y": shares[inside, 1]}, index=kept.index)
    rows = rows.assign(operator=names, cluster=kept[clusters] if clusters else np.arange(len(kept)))
    notes = []
    if not finite.all():
        notes.append(f"Not shown, for want of {x} or {y}: {counted((~finite).sum(), 'row')}.")
    if (finite & ~inside).any():
        notes.append(f"Not shown, since a logit has no 0 and no 1: {counted((finite & ~inside).sum(), 'row')}.")
    return rows.reset_index(drop=True), notes


def _marks(rows: pd.DataFrame) -> dict[str, style.Mark]:
    names = style.operator_order(rows["operator"])
    return {_ONE_GROUP: _ONE_MARK} if names == [_ONE_GROUP] else style.marks(names)


def _cluster_words(rows: pd.DataFrame, clusters: str | None) -> str:
    return "each a cluster of its own" if clusters is None else f"{rows['cluster'].nunique()} clusters of {clusters}"
