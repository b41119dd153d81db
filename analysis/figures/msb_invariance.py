"""The headline figure: maximum-sampling bias against consistency and fidelity, one panel per score and shift kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.groups import (
    GROUP,
    Groups,
    condition_handles,
    conditions_of,
    conditions_told,
    draw_means,
    mean_handle,
    means_told,
    scatter_groups,
)
from invariscope.analysis.figures.labels import Name, place_names
from invariscope.analysis.figures.selection import FigureRows, Snapshots, counts, plan_sentence, select, without
from invariscope.analysis.say.numbers import nominal_and_coverage, r_in_words
from invariscope.analysis.tables.factors import factor_column, factor_levels, factor_text
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING

HEAP = 0.06
"""Groups whose mean reading is nearer to 0 than this part of its range are a heap; :data:`CROWD` of them are shown
again, stretched.
"""
CROWD = 4

MOST_ROWS = {"double": 4, "single": 5}
"""Rows of panels that a page holds at a width."""

FACET = "facet"


@dataclass(frozen=True)
class _Panel:
    kind: str
    score: str
    level: str = ""


@dataclass(frozen=True)
class _What:
    """What is drawn in every panel."""

    selection: FigureRows
    groups: Groups
    conditions: dict[str, list[str]]
    reading: str
    heap: tuple[str, ...]
    stretch: tuple[float, float]

    def rows(self, panel: _Panel) -> pd.DataFrame:
        rows = self.selection.kind(panel.kind)
        return rows[rows[FACET] == panel.level] if panel.level else rows

    def apart(self, panel: _Panel) -> pd.DataFrame:
        rows = self.selection.apart(panel.kind)
        return rows[rows[FACET] == panel.level] if panel.level and len(rows) else rows


def msb_invariance(
    frame: pd.DataFrame,
    *,
    reading: str = PRIMARY_READING,
    scores: Sequence[str] = ("consistency", "fidelity"),
    hue: str | None = None,
    facet: str | None = None,
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Every checkpoint as a point: ``reading`` on the x axis, each score on a y axis, shift kinds as facets.

    Outlined marks are means of the groups by the factor ``hue`` (operators unless asked) with 95 % bars over training
    runs, named where they are. Where several lie near a reading of 0, these are shown again beside the panel,
    stretched. Filling and edge of points tell padding and architecture. ``facet`` gives each value of a factor
    panels of its own, of the first score. The curve is a fractional logit with a 95 % band (errors clustered by
    operator), dashed without plain subsampling; its numbers, Pearson's r over checkpoints and Spearman's rho over
    operator means with their 95 % intervals over operators stand in the caption. ``frame`` is :func:`join`'s.
    Raises :class:`TableError` when there is nothing to draw.
    """
    selection = select(frame, "msb_invariance", [reading, *scores], data, snapshots, elsewhere=True)
    selection, groups = Groups.of(selection, hue)
    notes: list[str] = []
    levels = _facets(selection, facet, notes, width) if facet else [""]
    selection = _with_facets(selection, facet)
    chosen = scores[:1] if facet else scores
    what = _What(
        selection, groups, conditions_of(selection.rows, hue, facet), reading, *_heap(selection.rows, groups, reading)
    )
    with style.theme(width):
        panels = _panels(selection, chosen, levels, width)
        figure, axes = _axes(panels, what, width)
        for line, of_line in zip(panels, axes, strict=True):
            for place, (panel, pair) in enumerate(zip(line, of_line, strict=True)):
                _draw(pair, what, panel)
                if place == 0 or panel.score != line[0].score:
                    pair[0].set_ylabel(style.label(panel.score, lines=1 if width == "double" else 2))
        for pair in axes[-1]:
            pair[-1].set_xlabel(
                style.label(reading, lines=1 if width == "double" and len(panels[0]) < 3 and not what.heap else 2)
            )
        handles = [] if groups.by_operator else groups.handles()
        handles += [mean_handle(groups), *condition_handles(what.conditions)]
        handles += style.elsewhere_handles(selection.elsewhere)
        handles += style.fit_handles("fractional logit", without(selection.rows) is not None, "double")
        style.legend_below(figure, handles, width, columns=5 if width == "double" else 2)
        style.lay_out(figure)
        for line, of_line in zip(panels, axes, strict=True):
            for panel, pair in zip(line, of_line, strict=True):
                _name(pair, what, panel)
    figure.caption = _caption(what, chosen, panels, notes)
    return figure


def _facets(selection: FigureRows, facet: str, notes: list[str], width: style.Width) -> list[str]:
    levels = factor_levels(selection.rows[factor_column(selection.rows, facet)])
    most = MOST_ROWS[width] if _across(selection, width) else MOST_ROWS[width] // max(len(selection.kinds), 1)
    if len(levels) > max(most, 1):
        notes.append(f"Not shown, for want of room: {facet} {', '.join(levels[max(most, 1) :])}.")
    return [f"{_named(facet)} {level}" for level in levels[: max(most, 1)]]


def _named(factor: str) -> str:
    return factor.removeprefix("factor_").replace("_", " ")


def _with_facets(selection: FigureRows, facet: str | None) -> FigureRows:
    if facet is None:
        return selection
    marked = [
        rows.assign(**{FACET: _named(facet) + " " + factor_text(rows[factor_column(rows, facet)])})
        if len(rows)
        else rows
        for rows in (selection.rows, selection.elsewhere)
    ]
    return replace(selection, rows=marked[0], elsewhere=marked[1])


def _heap(rows: pd.DataFrame, groups: Groups, reading: str) -> tuple[tuple[str, ...], tuple[float, float]]:
    """The groups that lie near 0, and the part of the axis that holds them; none where they are no crowd."""
    span = float(np.ptp(rows[reading].to_numpy(dtype=float)))
    means = rows.groupby(GROUP)[reading].mean()
    near = [name for name in groups.marks if name in means.index and abs(means[name]) < HEAP * span]
    if len(near) < CROWD or len(near) == len(means):
        return (), (0.0, 0.0)
    inside = rows.loc[rows[GROUP].isin(near), reading].to_numpy(dtype=float)
    inside = inside[np.abs(inside) < 2 * HEAP * span]
    pad = 0.12 * max(float(np.ptp(inside)), 0.01 * span)
    return tuple(near), (float(inside.min()) - pad, float(inside.max()) + pad)


def _across(selection: FigureRows, width: style.Width) -> bool:
    return 1 < len(selection.kinds) <= 3 and width == "double"


def _panels(
    selection: FigureRows, scores: Sequence[str], levels: Sequence[str], width: style.Width
) -> list[list[_Panel]]:
    """The panels by rows: kinds side by side where they fit, else one below the other."""
    if _across(selection, width):
        return [[_Panel(kind, score, level) for kind in selection.kinds] for score in scores for level in levels]
    if width == "single" or levels != [""]:
        of_kinds = [(kind, level) for kind in selection.kinds for level in levels]
        return [[_Panel(kind, score, level)] for score in scores for kind, level in of_kinds][: MOST_ROWS["single"]]
    return [[_Panel(kind, score) for score in scores] for kind in selection.kinds]


def _axes(
    panels: list[list[_Panel]], what: _What, width: style.Width
) -> tuple[style.CaptionedFigure, list[list[list[Axes]]]]:
    """The figure, and per row and panel the axes: the stretched heap, where there is one, and the whole range."""
    down, across = len(panels), len(panels[0])
    height = (2.35 if down < 4 else 2.05) if width == "double" else min(1.9, 8.4 / down)
    figure = style.new_figure(width, 0.75 + down * height)
    parts = 2 if what.heap else 1
    ratios = [0.62, 1.0] * across if what.heap else [1.0] * across
    grid = figure.subplots(down, parts * across, squeeze=False, sharex="col", width_ratios=ratios)
    made = []
    for line, row in zip(panels, grid, strict=True):
        pairs = [list(row[place * parts : (place + 1) * parts]) for place in range(across)]
        alike = all(panel.score == line[0].score for panel in line)
        for number, pair in enumerate(pairs):
            if parts > 1:
                pair[1].sharey(pair[0])
                pair[1].tick_params(labelleft=False)
            if number and alike:
                pair[0].sharey(pairs[0][0])
                pair[0].tick_params(labelleft=False)
        made.append(pairs)
    return figure, made


def _draw(pair: Sequence[Axes], what: _What, panel: _Panel) -> None:
    rows, rest = what.rows(panel), without(what.rows(panel))
    for ax in pair:
        scatter_groups(ax, rows, what.reading, panel.score, what.groups, what.conditions)
        style.scatter_elsewhere(ax, what.apart(panel), what.reading, panel.score)
    whole = pair[-1]
    if len(rows):
        style.draw_curve(whole, fits.logit_curve(rows[what.reading], rows[panel.score], rows["operator"]))
    if rest is not None:
        style.draw_curve(whole, fits.logit_curve(rest[what.reading], rest[panel.score], rest["operator"]), apart=True)
    others = [name for name in what.groups.marks if name not in what.heap]
    draw_means(whole, rows, what.reading, panel.score, what.groups, names=others)
    title = what.selection.title(panel.kind) + (f", {panel.level}" if panel.level else "")
    if len(pair) > 1:
        draw_means(pair[0], rows, what.reading, panel.score, what.groups, names=what.heap)
        pair[0].set_xlim(*what.stretch)
        pair[0].locator_params(axis="x", nbins=3)
        pair[0].set_facecolor("#f6f6f6")
        whole.axvspan(*what.stretch, color="#ececec", zorder=0, label="_stretched")
    pair[0].set_title(title, loc="left")


def _name(pair: Sequence[Axes], what: _What, panel: _Panel) -> None:
    """The names of the operators at their means; of another factor's values the legend has them."""
    if not what.groups.by_operator:
        return
    rows = what.rows(panel)
    means = rows.groupby(GROUP)[[what.reading, panel.score]].mean()
    apart = what.apart(panel)
    if len(apart):  # operators that no other network has
        alone = apart[~apart["operator"].isin(means.index)]
        means = pd.concat([means, alone.groupby("operator")[[what.reading, panel.score]].mean()])
    points = rows[[what.reading, panel.score]].to_numpy(dtype=float)
    for ax in pair:
        stretched = len(pair) > 1 and ax is pair[0]
        wanted = what.heap if stretched else [name for name in means.index if name not in what.heap]
        names = [Name(str(name), x, y) for name, x, y in means.itertuples(name=None) if name in wanted]
        low, high = sorted(ax.get_xlim())
        inside = points[(points[:, 0] >= low) & (points[:, 0] <= high)]
        place_names(ax, names, points=inside)


def _numbers(rows: pd.DataFrame, panel: _Panel, what: _What) -> str:
    """The sentence of the caption on a panel."""
    reading, score = what.reading, panel.score
    over_operators = fits.correlation_row(rows, reading, score)
    over_runs = fits.correlation_row(rows, reading, score, clusters="cluster")
    ranks = fits.correlation_row(fits.operator_means(rows, [reading, score]), reading, score, "spearman")
    count = f"n = {over_operators['n']}, {counted(over_operators['n_clusters'], 'operator')}"
    where = f"{score}, {panel.kind}" + (f", {panel.level}" if panel.level else "")
    told = (
        f"{where}: Pearson {r_in_words(over_operators)} over {count}"
        f"{nominal_and_coverage(over_operators)}; {r_in_words(over_runs)} over "
        f"{counted(over_runs['n_clusters'], 'operator × run cluster')}{nominal_and_coverage(over_runs)}; "
        f"Spearman over operator means {r_in_words(ranks, 'ρ')}{nominal_and_coverage(ranks)}"
    )
    rest = without(rows)
    if rest is not None:
        apart = fits.correlation_row(rest, reading, score)
        told += f"; without subsample {r_in_words(apart)} (n = {apart['n']})"
    return f"{told}. Means: {means_told(rows, score, what.groups)}."


def _caption(what: _What, scores: Sequence[str], panels: list[list[_Panel]], notes: list[str]) -> str:
    rows, groups = what.selection.rows, what.groups
    heap = f" Left parts: the grey part of the axis stretched, where {', '.join(what.heap)} lie." if what.heap else ""
    return "\n".join(
        [
            f"{style.label(what.reading)} against {' and '.join(scores)}: one point per checkpoint ({counts(rows)})"
            f"{conditions_told(what.conditions)}. Outlined: means by {groups.hue} with 95 % intervals, training runs "
            f"as clusters (t; of shares on the logit scale).{heap}",
            plan_sentence(what.selection),
            "Curves: fractional logit, dashed without subsample; bands: pointwise 95 %, errors clustered by operator "
            "with t quantiles of (operators - 1) degrees of freedom. r: Pearson over checkpoints; ρ: Spearman over "
            f"operator means. Brackets after r and ρ: 95 % {fits.INTERVAL_OF_R}, operators as clusters.",
            *_standard_errors(rows, scores),
            *(_numbers(found, panel, what) for line in panels for panel in line if len(found := what.rows(panel))),
            *notes,
            *what.selection.notes,
        ]
    )


def _standard_errors(rows: pd.DataFrame, scores: Sequence[str]) -> list[str]:
    known = {score: rows[f"{score}_se"].median() for score in scores if f"{score}_se" in rows}
    told = [f"{score} {error:.3f}" for score, error in known.items() if error == error]
    images = f" ({rows['n_images'].max():.0f})" if "n_images" in rows else ""
    return [f"Median standard error of one point, over images{images}: {', '.join(told)}."] if told else []
