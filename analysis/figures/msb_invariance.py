"""The headline figure: maximum-sampling bias against consistency and fidelity, one panel per score and shift kind."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures import fits, style
from analysis.figures.frames import Selection, plan_sentence, select
from collectors.schema import PRIMARY_READING

APART = "subsample"
"""The operator with and without which everything is reported."""


def msb_invariance(
    frame: pd.DataFrame,
    *,
    reading: str = PRIMARY_READING,
    scores: Sequence[str] = ("consistency", "fidelity"),
    data: str | None = None,
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Every checkpoint as a point: ``reading`` on the x axis, each score on a y axis, shift kinds as facets.

    The curve is a fractional logit with a 95 % band (errors clustered by operator), dashed without plain subsampling. Over
    each panel: Pearson's r over checkpoints and Spearman's rho over operator means with their 95 % bootstrap intervals over
    operators. ``frame`` is :func:`analysis.tables.join`'s. Raises :class:`TableError` when there is nothing to draw.
    """
    selection = select(frame, "msb_invariance", [reading, *scores], data)
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
        style.legend_below(figure, _handles(selection.rows, width), width)
    figure.caption = _caption(selection, reading, scores, sentences)
    return figure


def _panels(selection: Selection, scores: Sequence[str], width: style.Width) -> list[list[tuple[str, str]]]:
    """(kind, score) of each panel, by rows: kinds side by side where they fit, else one below the other."""
    across = 1 < len(selection.kinds) <= (3 if width == "double" else 2)
    if across:
        return [[(kind, score) for kind in selection.kinds] for score in scores]
    return [[(kind, score) for score in scores] for kind in selection.kinds]


def _panel(ax: Axes, selection: Selection, kind: str, reading: str, score: str, width: style.Width) -> str:
    rows = selection.kind(kind)
    rest = rows[rows["operator"] != APART]
    style.scatter_operators(ax, rows, reading, score)
    curves = [(rows, "-", True)] + ([(rest, "--", False)] if 0 < len(rest) < len(rows) else [])
    for subset, dashes, band in curves:
        curve = fits.logit_curve(subset[reading], subset[score], subset["operator"])
        if curve is None:
            continue
        ax.plot(curve.x, curve.y, color=style.INK, linestyle=dashes, zorder=4, label="fit" if band else "fit without subsample")
        if band:
            ax.fill_between(curve.x, curve.low, curve.high, color=style.INK, alpha=style.BAND, linewidth=0, zorder=2, label="band")
    text, sentence = _notes(rows, rest, kind, reading, score, width)
    ax.set_title(f"{selection.title(kind)}\n{text}", loc="left", fontsize=style.SMALLEST_FONT, linespacing=1.3)
    return sentence


def _notes(
    rows: pd.DataFrame, rest: pd.DataFrame, kind: str, reading: str, score: str, width: style.Width
) -> tuple[str, str]:
    """The lines over a panel and the sentence of the caption, from the same numbers."""
    over_operators = fits.correlation_row(rows, reading, score)
    over_runs = fits.correlation_row(rows, reading, score, clusters="cluster")
    means = fits.operator_means(rows, [reading, score])
    ranks = fits.correlation_row(means, reading, score, "spearman", clusters=None)
    lines = [fits.in_words(over_operators), fits.in_words(ranks, "ρ")]
    count = f"n = {over_operators['n']}, {over_operators['n_clusters']} operators"
    sentence = (
        f"{score}, {kind}: Pearson {fits.in_words(over_operators)} over {count}"
        f"{coverage(over_operators)}; {fits.in_words(over_runs)} from the bootstrap over {over_runs['n_clusters']} "
        f"operator × run clusters{coverage(over_runs)}; Spearman over operator means {fits.in_words(ranks, 'ρ')}"
    )
    if 0 < len(rest) < len(rows):
        without = fits.correlation_row(rest, reading, score)
        lines.append(f"without subsample: {fits.in_words(without)}" if width == "double" else fits.in_words(without, "r*"))
        sentence += f"; without subsample {fits.in_words(without)} (n = {without['n']})"
    if width == "double":
        lines = [f"{lines[0]}, {count}", f"{lines[1]} (operator means)", *lines[2:]]
    else:
        lines = [count, *lines]
    return "\n".join(lines), sentence + "."


def coverage(row: pd.Series) -> str:
    """`` (nominal 0.95, simulated coverage 0.90)``: what an interval is worth, beside it."""
    value = row["coverage"]
    return f" (nominal {row['nominal']:.2f}, simulated coverage {value:.2f})" if value == value else ""


def _handles(rows: pd.DataFrame, width: style.Width) -> list[Line2D | Patch]:
    handles = style.operator_handles(rows["operator"])
    handles.append(Line2D([], [], color=style.INK, label="fractional logit"))
    handles.append(Patch(color=style.INK, alpha=style.BAND, linewidth=0, label="95 % band"))
    if APART in set(rows["operator"]) and rows["operator"].nunique() > 1:
        text = "without subsample" if width == "double" else "without subsample (r*)"
        handles.append(Line2D([], [], color=style.INK, linestyle="--", label=text))
    return handles


def _caption(selection: Selection, reading: str, scores: Sequence[str], sentences: list[str]) -> str:
    rows = selection.rows
    return "\n".join(
        [
            f"{style.label(reading)} against {' and '.join(scores)}: one point per checkpoint "
            f"({rows['checkpoint'].nunique()} checkpoints, {rows['operator'].nunique()} operators, "
            f"{rows['cluster'].nunique()} operator × run clusters).",
            plan_sentence(selection),
            "Curves: fractional logit; bands: pointwise 95 %, errors clustered by operator with t quantiles of (operators - 1) "
            "degrees of freedom. Brackets: 95 % percentile intervals of a bootstrap that draws whole operators.",
            *sentences,
            *selection.notes,
        ]
    )
