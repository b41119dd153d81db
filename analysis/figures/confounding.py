"""What accuracy has to do with it: accuracy against consistency, and MSB against consistency given accuracy."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.selection import FigureRows, Snapshots, counts, plan_sentence, select, without
from invariscope.analysis.say.numbers import nominal_and_coverage, r_in_words
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING, PRIMARY_SCORE


def confounding(
    frame: pd.DataFrame,
    *,
    reading: str = PRIMARY_READING,
    score: str = PRIMARY_SCORE,
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Per shift kind: accuracy against ``score``, and the partial residual plot of ``reading`` given accuracy.

    The residual plot is of the OLS ``score ~ reading + accuracy`` (and architecture, where there are several); a
    point is ``residual + b (x - mean x) + mean score``, the line has slope ``b``. Bands: 95 %, errors clustered by
    operator; dashed: without plain subsampling. ``frame`` is :func:`invariscope.analysis.tables.joined.join`'s. Raises
    :class:`TableError` when there is nothing to draw.
    """
    if score == "accuracy":
        raise TableError("confounding draws accuracy against another score: choose a score such as consistency")
    selection = select(frame, "confounding", [reading, score, "accuracy"], data, snapshots, elsewhere=True)
    covariates = ["accuracy"]
    if "architecture" in selection.rows and selection.rows["architecture"].nunique() > 1:
        covariates.append("architecture")
    with style.theme(width):
        rows = len(selection.kinds)
        figure = style.new_figure(width, 0.75 + rows * (2.2 if width == "double" else 1.85))
        axes = figure.subplots(
            rows, 2, squeeze=False, sharex="col", sharey="row", width_ratios=[1, 1 if width == "double" else 1.12]
        )
        sentences = []
        for (left, right), kind in zip(axes, selection.kinds, strict=True):
            sentences.append(_accuracy_panel(left, selection, kind, score, width))
            sentences.append(_residual_panel(right, selection.kind(kind), reading, score, covariates, width))
            left.set_ylabel(style.label(score, lines=2))
            adjusted = "{}\nat mean accuracy" if width == "double" else "adjusted {}"
            right.set_ylabel(adjusted.format(style.word(score)))
        axes[-1, 0].set_xlabel(style.label("accuracy", lines=1 if width == "double" else 2))
        axes[-1, 0].locator_params(axis="x", nbins=6 if width == "double" else 3)
        axes[-1, 1].set_xlabel(style.label(reading, lines=1 if width == "double" else 2))
        handles = style.operator_handles(selection.operators)
        handles += style.elsewhere_handles(selection.elsewhere)
        handles += style.fit_handles("fit", without(selection.rows) is not None, width)
        style.legend_below(figure, handles, width)
    figure.caption = _caption(selection, reading, score, covariates, sentences)
    return figure


def _accuracy_panel(ax: Axes, selection: FigureRows, kind: str, score: str, width: style.Width) -> str:
    rows = selection.kind(kind)
    rest = without(rows)
    style.scatter_operators(ax, rows, "accuracy", score)
    style.scatter_elsewhere(ax, selection.apart(kind), "accuracy", score)
    style.draw_curve(ax, fits.logit_curve(rows["accuracy"], rows[score], rows["operator"]))
    row = fits.correlation_row(rows, "accuracy", score)
    count = f"n = {row['n']}, {counted(row['n_clusters'], 'operator')}"
    lines = [f"{r_in_words(row)}, {count}"] if width == "double" else [count, r_in_words(row)]
    sentence = f"{kind}, accuracy against {score}: Pearson {r_in_words(row)} over {count}{nominal_and_coverage(row)}"
    if rest is not None:
        style.draw_curve(ax, fits.logit_curve(rest["accuracy"], rest[score], rest["operator"]), apart=True)
        apart = fits.correlation_row(rest, "accuracy", score)
        lines.append(f"without subsample: {r_in_words(apart)}" if width == "double" else r_in_words(apart, "r*"))
        sentence += f"; without subsample {r_in_words(apart)} (n = {apart['n']})"
    ax.set_title("\n".join([selection.title(kind), *lines]), loc="left", fontsize=style.SMALLEST_FONT, linespacing=1.3)
    return f"{sentence}."


def _residual_panel(
    ax: Axes, rows: pd.DataFrame, reading: str, score: str, covariates: list[str], width: style.Width
) -> str:
    given = "given " + " and ".join(covariates)
    found = fits.partial_residuals(rows, reading, score, covariates, "operator")
    if found is None:
        text = f"no partial residuals: {reading}\ndoes not vary {given}"
        ax.set_title(text, loc="left", fontsize=style.SMALLEST_FONT, linespacing=1.3)
        return f"No partial residuals: {reading} does not vary enough {given}."
    residuals, curve = found
    style.scatter_operators(ax, rows.assign(partial_residual=residuals), reading, "partial_residual")
    style.draw_curve(ax, curve)
    row = fits.correlation_row(rows, reading, score, "partial_pearson", covariates=tuple(covariates))
    partial, slope = r_in_words(row, "partial r"), fits.slope_in_words(curve, "slope")
    sentence = f"{reading} against {score} {given}: {partial}{nominal_and_coverage(row)}, {slope}"
    if width == "double":
        lines = [f"{style.word(reading)} {given}", partial, slope]
    else:
        lines = [given, r_in_words(row), fits.slope_in_words(curve, "b")]
    rest = without(rows)
    apart = None if rest is None else fits.partial_residuals(rest, reading, score, covariates, "operator")
    if rest is not None and apart is not None:
        style.draw_curve(ax, apart[1], apart=True)
        row = fits.correlation_row(rest, reading, score, "partial_pearson", covariates=tuple(covariates))
        sentence += f"; without subsample {r_in_words(row, 'partial r')}, {fits.slope_in_words(apart[1], 'slope')}"
        if width == "double":
            lines.append(f"without subsample: {r_in_words(row, 'partial r')}")
        else:
            lines.append(r_in_words(row, "r*"))
    ax.set_title("\n".join(lines), loc="left", fontsize=style.SMALLEST_FONT, linespacing=1.3)
    return f"{sentence}."


def _caption(selection: FigureRows, reading: str, score: str, covariates: list[str], sentences: list[str]) -> str:
    rows = selection.rows
    return "\n".join(
        [
            f"Left: accuracy against {score}, with a fractional logit. Right: partial residuals of "
            f"{style.label(reading)} in the OLS of {score} on it and {' and '.join(covariates)}, shown as "
            f"{score} adjusted to mean accuracy. One point per checkpoint ({counts(rows)}). Dashed: without subsample.",
            plan_sentence(selection),
            "Bands and slopes: 95 %, errors clustered by operator with t quantiles of (operators - 1) degrees of "
            f"freedom. Brackets after r: 95 % {fits.INTERVAL_OF_R}, operators as clusters.",
            *sentences,
            *selection.notes,
        ]
    )
