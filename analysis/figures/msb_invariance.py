"""The headline figure: maximum-sampling bias against consistency and fidelity, one panel per score and shift kind."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.selection import FigureRows, Snapshots, counts, plan_sentence, select, without
from invariscope.analysis.say.numbers import nominal_and_coverage, r_in_words
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING


def msb_invariance(
    frame: pd.DataFrame,
    *,
    reading: str = PRIMARY_READING,
    scores: Sequence[str] = ("consistency", "fidelity"),
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Every checkpoint as a point: ``reading`` on the x axis, each score on a y axis, shift kinds as facets.

    The curve is a fractional logit with a 95 % band (errors clustered by operator), dashed without plain subsampling.
    Over each panel: Pearson's r over checkpoints and Spearman's rho over operator means with their 95 %
    intervals over operators. ``frame`` is :func:`join`'s. Raises :class:`TableError` when there is
    nothing to draw.
    """
    selection = select(frame, "msb_invariance", [reading, *scores], data, snapshots, elsewhere=True)
    with style.theme(width):
        panels = _panels(selection, scores, width)
        rows, columns = len(panels), len(panels[0])
        across = panels[0][0][1] == panels[0][-1][1]
        lines = 1 if width == "double" and columns < 3 else 2
        figure = style.new_figure(width, 0.7 + rows * (2.5 if width == "double" else 2.1))
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey="row" if across else "col")
        sentences = []
        for line, names in zip(axes, panels, strict=True):
            for ax, (kind, score) in zip(line, names, strict=True):
                sentences.append(_panel(ax, selection, kind, reading, score, width))
                if ax is line[0] or not across:
                    ax.set_ylabel(style.label(score, lines=1 if width == "double" else 2))
        for ax in axes[-1]:
            ax.set_xlabel(style.label(reading, lines=lines))
        handles = style.operator_handles(selection.operators)
        handles += style.elsewhere_handles(selection.elsewhere)
        handles += style.fit_handles("fractional logit", without(selection.rows) is not None, width)
        style.legend_below(figure, handles, width)
    figure.caption = _caption(selection, reading, scores, sentences)
    return figure


def _panels(selection: FigureRows, scores: Sequence[str], width: style.Width) -> list[list[tuple[str, str]]]:
    """(kind, score) of each panel, by rows: kinds side by side where they fit, else one below the other."""
    across = 1 < len(selection.kinds) <= (3 if width == "double" else 2)
    if across:
        return [[(kind, score) for kind in selection.kinds] for score in scores]
    return [[(kind, score) for score in scores] for kind in selection.kinds]


def _panel(ax: Axes, selection: FigureRows, kind: str, reading: str, score: str, width: style.Width) -> str:
    rows = selection.kind(kind)
    rest = without(rows)
    style.scatter_operators(ax, rows, reading, score)
    style.scatter_elsewhere(ax, selection.apart(kind), reading, score)
    style.draw_curve(ax, fits.logit_curve(rows[reading], rows[score], rows["operator"]))
    if rest is not None:
        style.draw_curve(ax, fits.logit_curve(rest[reading], rest[score], rest["operator"]), apart=True)
    lines, sentence = _notes(rows, rest, kind, reading, score, width)
    ax.set_title("\n".join([selection.title(kind), *lines]), loc="left", fontsize=style.SMALLEST_FONT, linespacing=1.3)
    return sentence


def _notes(
    rows: pd.DataFrame, rest: pd.DataFrame | None, kind: str, reading: str, score: str, width: style.Width
) -> tuple[list[str], str]:
    """The lines over a panel and the sentence of the caption, from the same numbers."""
    over_operators = fits.correlation_row(rows, reading, score)
    over_runs = fits.correlation_row(rows, reading, score, clusters="cluster")
    means = fits.operator_means(rows, [reading, score])
    ranks = fits.correlation_row(means, reading, score, "spearman")
    lines = [r_in_words(over_operators), r_in_words(ranks, "ρ")]
    count = f"n = {over_operators['n']}, {counted(over_operators['n_clusters'], 'operator')}"
    sentence = (
        f"{score}, {kind}: Pearson {r_in_words(over_operators)} over {count}"
        f"{nominal_and_coverage(over_operators)}; {r_in_words(over_runs)} over "
        f"{counted(over_runs['n_clusters'], 'operator × run cluster')}{nominal_and_coverage(over_runs)}; "
        f"Spearman over operator means {r_in_words(ranks, 'ρ')}{nominal_and_coverage(ranks)}"
    )
    if rest is not None:
        apart = fits.correlation_row(rest, reading, score)
        lines.append(f"without subsample: {r_in_words(apart)}" if width == "double" else r_in_words(apart, "r*"))
        sentence += f"; without subsample {r_in_words(apart)} (n = {apart['n']})"
    if width == "double":
        lines = [f"{lines[0]}, {count}", f"{lines[1]} (operator means)", *lines[2:]]
    else:
        lines = [count, *lines]
    return lines, f"{sentence}."


def _caption(selection: FigureRows, reading: str, scores: Sequence[str], sentences: list[str]) -> str:
    rows = selection.rows
    return "\n".join(
        [
            f"{style.label(reading)} against {' and '.join(scores)}: one point per checkpoint ({counts(rows)}).",
            plan_sentence(selection),
            "Curves: fractional logit, dashed without subsample; bands: pointwise 95 %, errors clustered by operator "
            "with t quantiles of (operators - 1) degrees of freedom. r: Pearson over checkpoints; ρ: Spearman over "
            "operator means; r*: r without subsample. "
            f"Brackets: 95 % {fits.INTERVAL_OF_R}, operators as clusters.",
            *_standard_errors(rows, scores),
            *sentences,
            *selection.notes,
        ]
    )


def _standard_errors(rows: pd.DataFrame, scores: Sequence[str]) -> list[str]:
    known = {score: rows[f"{score}_se"].median() for score in scores if f"{score}_se" in rows}
    told = [f"{score} {error:.3f}" for score, error in known.items() if error == error]
    return [f"Median standard error of one point, over images: {', '.join(told)}."] if told else []
