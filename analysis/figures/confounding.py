"""What accuracy has to do with it: accuracy against consistency, and MSB against consistency with accuracy held fixed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.errors import TableError
from analysis.figures import fits, style
from analysis.figures.frames import Selection, plan_sentence, select
from analysis.figures.msb_invariance import coverage
from collectors.schema import PRIMARY_READING, PRIMARY_SCORE


def confounding(
    frame: pd.DataFrame,
    *,
    reading: str = PRIMARY_READING,
    score: str = PRIMARY_SCORE,
    data: str | None = None,
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Per shift kind: accuracy against ``score``, and the partial residual plot of ``reading`` given accuracy.

    The residual plot is of the OLS ``score ~ reading + accuracy`` (and architecture, where there are several); a point is
    ``residual + b (x - mean x) + mean score``, the line has slope ``b``. Bands: 95 %, errors clustered by operator. ``frame`` is
    :func:`analysis.tables.join`'s. Raises :class:`TableError` when there is nothing to draw.
    """
    if score == "accuracy":
        raise TableError("confounding draws accuracy against another score: choose a score such as consistency")
    selection = select(frame, "confounding", [reading, score, "accuracy"], data)
    covariates = ["accuracy"]
    if "architecture" in selection.rows and selection.rows["architecture"].nunique() > 1:
        covariates.append("architecture")
    with style.theme(width):
        rows = len(selection.kinds)
        figure = style.new_figure(width, 0.75 + rows * (2.2 if width == "double" else 1.85))
        axes = figure.subplots(rows, 2, squeeze=False, sharex="col", sharey="row")
        sentences = []
        for (left, right), kind in zip(axes, selection.kinds, strict=True):
            sentences.append(_accuracy_panel(left, selection, kind, score, width))
            sentences.append(_residual_panel(right, selection.kind(kind), reading, score, covariates, width))
            left.set_ylabel(style.label(score, lines=2))
            right.set_ylabel(f"{score.replace('_', ' ')} at mean accuracy\n(partial residual)")
        axes[-1, 0].set_xlabel(style.label("accuracy"))
        axes[-1, 1].set_xlabel(style.label(reading, lines=1 if width == "double" else 2))
        handles = style.operator_handles(selection.rows["operator"])
        handles.append(Line2D([], [], color=style.INK, label="fit"))
        handles.append(Patch(color=style.INK, alpha=style.BAND, linewidth=0, label="95 % band"))
        style.legend_below(figure, handles, width)
    figure.caption = _caption(selection, reading, score, covariates, sentences)
    return figure


def _accuracy_panel(ax: Axes, selection: Selection, kind: str, score: str, width: style.Width) -> str:
    rows = selection.kind(kind)
    style.scatter_operators(ax, rows, "accuracy", score)
    _draw_curve(ax, fits.logit_curve(rows["accuracy"], rows[score], rows["operator"]))
    row = fits.correlation_row(rows, "accuracy", score)
    count = f"n = {row['n']}, {row['n_clusters']} operators"
    text = f"{fits.in_words(row)}, {count}" if width == "double" else f"{count}\n{fits.in_words(row)}"
    ax.set_title(f"{selection.title(kind)}\n{text}", loc="left", fontsize=style.SMALLEST_FONT, linespacing=1.3)
    return f"{kind}, accuracy against {score}: Pearson {fits.in_words(row)} over {count}{coverage(row)}."


def _residual_panel(
    ax: Axes, rows: pd.DataFrame, reading: str, score: str, covariates: list[str], width: style.Width
) -> str:
    found = fits.partial_residuals(rows, reading, score, covariates, "operator")
    if found is None:
        ax.set_title(f"no partial residuals:\n{reading} or accuracy\ndoes not vary", loc="left", fontsize=style.SMALLEST_FONT)
        return f"No partial residuals: {reading} does not vary once {' and '.join(covariates)} are given."
    residuals, curve = found
    style.scatter_operators(ax, rows.assign(partial_residual=residuals), reading, "partial_residual")
    _draw_curve(ax, curve)
    row = fits.correlation_row(rows, reading, score, "partial_pearson", covariates=tuple(covariates))
    slope = f"slope {fits.number(curve.slope)}"
    if np.isfinite(curve.slope_low):
        slope += f" [{fits.number(curve.slope_low)}, {fits.number(curve.slope_high)}]"
    given = "given " + " and ".join(covariates)
    partial = fits.in_words(row, "partial r" if width == "double" else "r")
    head = given if width == "single" else f"MSB {given}"
    lines = [head, f"{partial}, {slope}"] if width == "double" else [head, partial, slope]
    ax.set_title("\n".join(lines), loc="left", fontsize=style.SMALLEST_FONT, linespacing=1.3)
    return f"{reading} against {score} {given}: {fits.in_words(row, 'partial r')}{coverage(row)}, {slope}."


def _draw_curve(ax: Axes, curve: fits.Curve | None) -> None:
    if curve is not None:
        ax.plot(curve.x, curve.y, color=style.INK, zorder=4, label="fit")
        ax.fill_between(curve.x, curve.low, curve.high, color=style.INK, alpha=style.BAND, linewidth=0, zorder=2, label="band")


def _caption(selection: Selection, reading: str, score: str, covariates: list[str], sentences: list[str]) -> str:
    rows = selection.rows
    return "\n".join(
        [
            f"Left: accuracy against {score}, with a fractional logit. Right: partial residuals of {style.label(reading)} in the OLS "
            f"of {score} on it and {' and '.join(covariates)}. One point per checkpoint ({rows['checkpoint'].nunique()} checkpoints, "
            f"{rows['operator'].nunique()} operators, {rows['cluster'].nunique()} operator × run clusters).",
            plan_sentence(selection),
            "Bands and slopes: 95 %, errors clustered by operator with t quantiles of (operators - 1) degrees of freedom. Brackets "
            "after r: 95 % percentile intervals of a bootstrap that draws whole operators.",
            *sentences,
            *selection.notes,
        ]
    )
