"""One operator exchanged, every weight kept: the change of MSB against the change of consistency, swap by swap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from invariscope.analysis.designs.swaps import PLAIN
from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.selection import FigureRows, counts, plan_sentence, select
from invariscope.analysis.say.numbers import bracketed, nominal_and_coverage, r_in_words
from invariscope.analysis.tables.swapped import EVERY
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING, PRIMARY_SCORE

POSITIONS = {"first site": "first", "middle sites": "middle", "last site": "last", EVERY: "all"}
"""Which site is changed, and what it is called on the axis."""


def swap(
    frame: pd.DataFrame,
    *,
    reading: str = PRIMARY_READING,
    score: str = PRIMARY_SCORE,
    data: str | None = None,
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """What happens when a site's operator is replaced at test time: MSB of that site, ``score`` and accuracy.

    Per shift kind, and for accuracy on unshifted images: the change at every single swapped site against the change of
    the site's ``reading``, with each replacement's mean (95 % t intervals, networks as clusters) and Spearman's
    correlation; beside it the mean change by the site's place in the network, and with every site changed. ``frame`` is
    :func:`invariscope.analysis.tables.swapped.swap_frame`'s. Raises :class:`TableError` when there are no swaps.
    """
    x = f"{reading}_site"
    if frame.empty or not {x, reading, score, "accuracy"} <= set(frame.columns):
        raise TableError("swap has no swaps to draw: collect `swaps` with at least one shift kind first")
    # With every site changed the site's MSB is that of the network.
    frame = frame.assign(**{x: frame[x].where(frame["depth"].notna(), frame[reading])})
    selection = select(frame, "swap", [x, score, "accuracy"], data)
    rows = selection.rows.assign(name=_names(selection.rows["replacement"]))
    panels = [(selection.title(kind), rows[rows["shift_kind"] == kind], score) for kind in selection.kinds]
    panels.append(("no shift", rows.drop_duplicates(["checkpoint", "model", "depth", "replacement"]), "accuracy"))
    names = style.operator_order(rows["name"])
    with style.theme(width):
        wide = width == "double"
        shape = (2, len(panels)) if wide else (len(panels), 2)
        figure = style.new_figure(width, 4.5 if wide else 0.9 + 1.75 * len(panels))
        # A heading is as wide as its panel must be.
        axes = figure.subplots(*shape, squeeze=False, width_ratios=None if wide else [1.3, 1])
        axes = axes.T if wide else axes
        sentences = []
        for pair, (title, of_panel, y) in zip(axes, panels, strict=True):
            single = of_panel[of_panel["depth"].notna()]
            _scatter(pair[0], single, x, y, names)
            sentences += _heading(pair[0], single, x, y, title, wide)
            sentences += _by_position(pair[1], of_panel, y, names, title)
            for ax in pair:
                ax.set_ylabel(f"change of {y}")
        for row in axes.T:
            _share_limits(row)
        if not wide:
            _label_outside(axes)
        style.legend_below(figure, _handles(names), width, columns=4 if wide else 3)
    figure.caption = "\n".join([*_caption(rows, selection, reading, score), *sentences, *selection.notes])
    return figure


def _names(replacements: pd.Series) -> pd.Series:
    """The operator of each replacement, or its whole specification where several are of one operator."""
    operators = replacements.str.partition("(")[0]
    several = replacements.groupby(operators).transform("nunique") > 1
    return replacements.where(several, operators)


def _scatter(ax: Axes, rows: pd.DataFrame, x: str, y: str, names: Sequence[str]) -> None:
    look = style.marks(names)
    for name in names:
        found = rows[rows["name"] == name]
        ax.scatter(
            found[x], found[y], s=5, color=look[name].color, marker=look[name].marker, alpha=0.3, linewidths=0,
            label=name, zorder=2,
        )  # fmt: skip
    for name in names:
        found = rows[rows["name"] == name]
        across, along = (fits.clustered_mean(found[column], found["cluster"]) for column in (x, y))
        ax.errorbar(
            across[0], along[0], xerr=_reach(across), yerr=_reach(along), color=style.INK, marker=look[name].marker,
            markersize=5.0, markerfacecolor=look[name].color, markeredgecolor="white", markeredgewidth=0.7,
            elinewidth=1.0, zorder=4, label=f"mean of {name}",
        )  # fmt: skip
    ax.axvline(0, color=style.GUIDE, linewidth=0.6, zorder=1)
    ax.axhline(0, color=style.GUIDE, linewidth=0.6, zorder=1)
    ax.set_xlabel("change of the site's MSB")


def _reach(found: tuple[float, float, float]) -> np.ndarray:
    """Lengths of an interval's halves, as ``errorbar`` takes them; nothing where there is no interval."""
    mean, low, high = found
    return np.nan_to_num(np.array([[mean - low], [high - mean]]))


def _heading(ax: Axes, rows: pd.DataFrame, x: str, y: str, title: str, wide: bool) -> list[str]:
    """The panel's heading with Spearman's correlation, and the same with its coverage for the caption."""
    plain = rows["site_kind"].isin(PLAIN) | rows["replacement"].isin(PLAIN)
    row = fits.correlation_row(rows, x, y, "spearman", "cluster")
    lines = [title, r_in_words(row, "ρ")]
    told = f"{title}, {y}: over single sites {r_in_words(row, 'ρ')}{nominal_and_coverage(row)}"
    if 0 < plain.sum() < len(rows):
        rest = fits.correlation_row(rows[~plain], x, y, "spearman", "cluster")
        lines.append(r_in_words(rest, "ρ*"))
        told += f"; without swaps from or to plain subsampling {r_in_words(rest, 'ρ*')}{nominal_and_coverage(rest)}"
    ax.set_title("\n".join(lines), loc="left")
    return [f"{told}; n = {counted(len(rows), 'swap')}, {counted(rows['cluster'].nunique(), 'network')}."]


def _by_position(ax: Axes, rows: pd.DataFrame, y: str, names: Sequence[str], title: str) -> list[str]:
    """Mean change by the place of the changed site, the replacements beside each other."""
    present = set(rows["sites"])
    places = [place for place in POSITIONS if place in present]
    look, sentences = style.marks(names), []
    for index, name in enumerate(names):
        offset = (index - (len(names) - 1) / 2) * 0.8 / max(len(names), 4)
        means = []
        for position, place in enumerate(places):
            found = rows[(rows["sites"] == place) & (rows["name"] == name)]
            if found.empty:
                continue
            mean = fits.clustered_mean(found[y], found["cluster"])
            means.append(f"{POSITIONS[place]} {bracketed(*mean)}")
            ax.errorbar(
                position + offset, mean[0], yerr=_reach(mean), color=look[name].color, marker=look[name].marker,
                markersize=4.0, markeredgecolor="white", markeredgewidth=0.4, elinewidth=1.1, zorder=3,
                label=f"{name}, {place}",
            )  # fmt: skip
        sentences.append(f"{title}, mean change of {y}, {name}: {'; '.join(means)}.")
    ax.axhline(0, color=style.GUIDE, linewidth=0.6, zorder=1)
    ax.set_xticks(range(len(places)), [POSITIONS[place] for place in places])
    ax.set_xlim(-0.6, len(places) - 0.4)
    ax.grid(axis="x", visible=False)
    ax.set_xlabel("changed site")
    return sentences


def _share_limits(axes: Sequence[Axes]) -> None:
    low, high = min(ax.get_ylim()[0] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)


def _label_outside(axes: np.ndarray) -> None:
    """Only the last panels name the x axis, and only the left ones the y axis."""
    for (panel, part), ax in np.ndenumerate(axes):
        if panel < len(axes) - 1:
            ax.set_xlabel("")
        if part == 1:
            ax.set_ylabel("")


def _handles(names: Sequence[str]) -> list[Artist]:
    handles = style.operator_handles(names)
    for handle in handles:
        handle.set_label(f"to {handle.get_label()}")
    hollow = {"marker": "o", "markersize": 4.5, "markerfacecolor": "white"}
    handles.append(Line2D([], [], color=style.INK, label="mean, 95 %", **hollow))  # type: ignore[arg-type]
    handles.append(Line2D([], [], linestyle="", label="ρ*: without subsampling"))
    return handles


def _caption(rows: pd.DataFrame, selection: FigureRows, reading: str, score: str) -> list[str]:
    single = rows[rows["depth"].notna()]
    swaps = single.drop_duplicates(["checkpoint", "model", "depth", "replacement"])
    return [
        f"One site's operator of a trained network replaced, weights kept ({counts(rows)}; "
        f"{counted(len(swaps), 'swap')} of single sites, {counted(rows['n_images'].max(), 'image')}): change of "
        f"{score} and of accuracy against the change of the site's {style.label(reading, short=True)}. Points: swaps. "
        "Large marks: means by replacement with 95 % t intervals, networks as clusters; the panels beside or below "
        "show means by the place of the changed site, and with every site changed (all). The networks were not trained "
        "with the replacement.",
        plan_sentence(selection),
    ]
