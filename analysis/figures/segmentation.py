"""Segmentation: does a network that segments well also segment alike under a shift, and does MSB tell?"""

from __future__ import annotations

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.selection import FigureRows, Snapshots, counts, plan_sentence, select, without
from invariscope.analysis.say.numbers import bracketed, nominal_and_coverage, r_in_words
from invariscope.analysis.say.vocabulary import PIXELS
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING

SCORE = PIXELS.score
MIN_RUNS = 3
"""Training runs of an operator from which on an interval of its mean is drawn."""


def segmentation(
    frame: pd.DataFrame,
    *,
    reading: str = PRIMARY_READING,
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Per shift kind: mIoU against per-pixel consistency, and ``reading`` against it.

    Pale points are checkpoints; outlined marks with bars are operator means with 95 % t intervals, training runs as the
    sampling unit. The curve is a fractional logit with a 95 % band (errors clustered by operator), dashed without plain
    subsampling. Checkpoints without MSB are missing in the second panel only. ``frame`` is
    :func:`segmentation_frame`'s. Raises :class:`TableError` when there is nothing to draw.
    """
    if "shift_kind" in frame.columns and frame.empty:
        raise TableError("table `segmentation` holds no rows: collect `segmentation` first")
    selection = select(frame, "segmentation", [PIXELS.accuracy, SCORE], data, snapshots)
    rows = selection.rows
    readings = [reading] if reading in rows and rows[reading].notna().any() else []
    columns = [PIXELS.accuracy, *readings]
    with style.theme(width):
        down = len(selection.kinds)
        figure = style.new_figure(width, 0.8 + down * (2.2 if width == "double" else 1.9))
        axes = figure.subplots(down, len(columns), squeeze=False, sharex="col", sharey="row")
        sentences = []
        for line, kind in zip(axes, selection.kinds, strict=True):
            of_kind = selection.kind(kind)
            line[0].set_ylabel(style.label(SCORE, lines=2))
            for ax, column in zip(line, columns, strict=True):
                title = selection.title(kind)
                sentences.append(_panel(ax, of_kind.dropna(subset=[column]), title, column, kind, width))
        for ax, column in zip(axes[-1], columns, strict=True):
            ax.set_xlabel(style.label(column, lines=2))
        handles = [*style.operator_handles(rows["operator"]), _mean_handle()]
        handles += style.fit_handles("fractional logit", without(rows) is not None, "double")
        style.legend_below(figure, handles, width)
    figure.caption = _caption(selection, reading, bool(readings), sentences)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, title: str, column: str, kind: str, width: style.Width) -> str:
    style.scatter_operators(ax, rows, column, SCORE, size=8.0)
    style.draw_curve(ax, fits.logit_curve(rows[column], rows[SCORE], rows["operator"]))
    rest = without(rows)
    if rest is not None:
        style.draw_curve(ax, fits.logit_curve(rest[column], rest[SCORE], rest["operator"]), apart=True)
    looks = style.looks(rows["operator"])
    told = [_mean(ax, part, column, str(name), looks[str(name)]) for name, part in rows.groupby("operator")]
    row = fits.correlation_row(rows, column, SCORE)
    joint = ", " if width == "double" else "\n"
    heading = f"{title}{joint}n = {row['n']}\n{r_in_words(row)}"
    ax.set_title(heading, loc="left", fontsize=style.SMALLEST_FONT, linespacing=1.3)
    count = f"n = {row['n']}, {counted(row['n_clusters'], 'operator')}"
    return (
        f"{kind}, {column} against {SCORE}: Pearson {r_in_words(row)} over {count}"
        f"{nominal_and_coverage(row)}. Operator means of {column} and {SCORE}: {'; '.join(told)}."
    )


def _mean(ax: Axes, rows: pd.DataFrame, column: str, name: str, mark: style.Mark) -> str:
    across, up = (fits.clustered_mean(rows[value], rows["cluster"]) for value in (column, SCORE))
    # The t interval of two runs is 13 times their standard error: it would be all that is seen.
    enough = rows["cluster"].nunique() >= MIN_RUNS
    for ends, fixed, horizontal in ((across[1:], up[0], True), (up[1:], across[0], False)):
        if enough and ends[0] == ends[0]:
            line = (ends, [fixed, fixed]) if horizontal else ([fixed, fixed], ends)
            ax.plot(*line, color=mark.color, linewidth=1.0, zorder=4, label="_interval")
    ax.plot(
        [across[0]], [up[0]], color=mark.color, marker=mark.marker, markersize=5.5, markeredgecolor=style.INK,
        markeredgewidth=0.6, linestyle="", zorder=5, label="_mean",
    )  # fmt: skip
    return f"{name} {bracketed(*across)} and {bracketed(*up)}"


def _mean_handle() -> Artist:
    return Line2D(
        [], [], color="#d0d0d0", marker="o", markersize=5.5, markeredgecolor=style.INK, markeredgewidth=0.6,
        linestyle="", label="operator mean",
    )  # fmt: skip


def _caption(selection: FigureRows, reading: str, with_reading: bool, sentences: list[str]) -> str:
    return "\n".join(
        [
            f"{PIXELS.accuracy_word}{' and ' + style.label(reading) if with_reading else ''} against "
            f"{PIXELS.score_word}: one point per checkpoint ({counts(selection.rows)}), operator means outlined, with "
            f"95 % t intervals over training runs where there are {MIN_RUNS} or more.",
            plan_sentence(selection),
            "Curves: fractional logit, dashed without subsample; bands: pointwise 95 %, errors clustered by operator. "
            f"Brackets after r: 95 % {fits.INTERVAL_OF_R}, operators as clusters.",
            *([] if with_reading else [f"No {reading} in the tables: collect `layers` to draw it."]),
            *sentences,
            *selection.notes,
        ]
    )
