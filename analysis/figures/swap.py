"""One operator exchanged, every weight kept: how consistency and accuracy change, swap by swap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from invariscope.analysis.designs.swaps import PLAIN
from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.selection import FigureRows, counts, plan_sentence, select
from invariscope.analysis.say.numbers import bracketed, nominal_and_coverage, number, r_in_words
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
    """What happens when a site's operator is replaced at test time: the distribution of the changes over networks.

    Per shift kind the change of ``score``, and of accuracy on unshifted images, in percentage points: a dot per swap,
    by replacement and by the place of the changed site (or every site); box: quartiles, line in it: median, mark: mean
    with its 95 % t interval, networks as clusters. The caption has Spearman's correlation with the change of the site's
    ``reading``. ``frame`` is :func:`invariscope.analysis.tables.swapped.swap_frame`'s. Raises :class:`TableError` when
    there are no swaps.
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
    names, sampled = style.some_rows(style.operator_order(rows["name"]), "replacements")
    strips = [
        (name, place)
        for name in names
        for place in POSITIONS
        if ((rows["name"] == name) & (rows["sites"] == place)).any()
    ]
    with style.theme(width):
        wide = width == "double"
        height = 0.17 * len(strips) + 0.12 * len(names)
        figure = style.new_figure(width, 0.9 + height if wide else min(0.9 + 0.75 * height * len(panels), 9.5))
        shape = (1, len(panels)) if wide else (len(panels), 1)
        axes = figure.subplots(*shape, squeeze=False, sharey=True).ravel()
        places = _heights(strips)
        sentences = []
        for ax, (title, of_panel, y) in zip(axes, panels, strict=True):
            sentences += _distributions(ax, of_panel, y, strips, places, title)
            sentences += _correlations(of_panel[of_panel["depth"].notna()], x, y, title)
            ax.set_title(title, loc="left")
            ax.set_xlabel(f"change of {y} (points)")
        ends = np.array([ax.get_xlim() for ax in axes[:-1]])
        for ax in axes[:-1]:
            ax.set_xlim(ends[:, 0].min(), ends[:, 1].max())
        axes[0].set_ylim(places[-1] + 0.7, places[0] - 0.7)
        axes[0].set_yticks(places, [f"{name}: {POSITIONS[place]}" for name, place in strips])
        style.legend_below(figure, _handles(names), width, columns=4 if wide else 3)
    figure.caption = "\n".join([*_caption(rows, selection, reading, score), *sampled, *sentences, *selection.notes])
    return figure


def _heights(strips: Sequence[tuple[str, str]]) -> list[float]:
    """A row for each strip, with room between replacements."""
    found: list[float] = []
    for row, (name, _) in enumerate(strips):
        gap = 0.7 if row and strips[row - 1][0] != name else 0.0
        found.append((found[-1] + 1 if found else 0.0) + gap)
    return found


def _distributions(
    ax: Axes, rows: pd.DataFrame, y: str, strips: Sequence[tuple[str, str]], places: Sequence[float], title: str
) -> list[str]:
    """The changes of each strip, and the sentences with their means, medians and quartiles."""
    look = style.marks({name for name, _ in strips})
    told: dict[str, list[str]] = {}
    ax.axvline(0, color=style.GUIDE, linewidth=0.8, zorder=1, label="_zero")
    for (name, place), height in zip(strips, places, strict=True):
        part = rows[(rows["name"] == name) & (rows["sites"] == place)].sort_values(["checkpoint", y])
        if part.empty:
            continue
        changes = 100 * part[y].astype(float)
        mark, label = look[name], f"{name}, {place}"
        beside = height + 0.32 * np.sin(2.399963 * np.arange(len(changes)))  # golden angle: neighbours apart
        ax.scatter(changes, beside, s=4, color=mark.color, alpha=0.4, linewidths=0, zorder=2, label=label)
        low, middle, high = np.quantile(changes, [0.25, 0.5, 0.75])
        ax.plot([low, high], [height, height], color=mark.color, linewidth=5, alpha=0.35, zorder=2.5,
                solid_capstyle="butt", label=f"quartiles of {label}")  # fmt: skip
        ax.plot([middle, middle], [height - 0.3, height + 0.3], color=style.INK, linewidth=1.2, zorder=3,
                label=f"median of {label}")  # fmt: skip
        mean = fits.clustered_mean(changes, part["cluster"])
        ax.errorbar(
            mean[0], height, xerr=_reach(mean), color=style.INK, marker=mark.marker, markersize=4.0,
            markerfacecolor=mark.color, markeredgecolor="white", markeredgewidth=0.4, elinewidth=0.9, zorder=4,
            label=label,
        )  # fmt: skip
        told.setdefault(name, []).append(
            f"{POSITIONS[place]} {bracketed(*mean, 1)}, median {number(middle, 1)} ({number(low, 1)} to "
            f"{number(high, 1)}), n = {len(changes)}"
        )
    ax.grid(axis="y", visible=False)
    return [
        f"{title}, change of {y} in points, to {name}, mean with interval, median with quartiles: {'; '.join(parts)}."
        for name, parts in told.items()
    ]


def _names(replacements: pd.Series) -> pd.Series:
    """The operator of each replacement, or its whole specification where several are of one operator."""
    operators = replacements.str.partition("(")[0]
    several = replacements.groupby(operators).transform("nunique") > 1
    return replacements.where(several, operators)


def _reach(found: tuple[float, float, float]) -> np.ndarray:
    """Lengths of an interval's halves, as ``errorbar`` takes them; nothing where there is no interval."""
    mean, low, high = found
    return np.nan_to_num(np.array([[mean - low], [high - mean]]))


def _correlations(rows: pd.DataFrame, x: str, y: str, title: str) -> list[str]:
    """Spearman's correlation of the changes of the reading and of ``y`` over single sites."""
    plain = rows["site_kind"].isin(PLAIN) | rows["replacement"].isin(PLAIN)
    row = fits.correlation_row(rows, x, y, "spearman", "cluster")
    told = f"{title}, change of {y} with that of the site's MSB: {r_in_words(row, 'ρ')}{nominal_and_coverage(row)}"
    if 0 < plain.sum() < len(rows):
        rest = fits.correlation_row(rows[~plain], x, y, "spearman", "cluster")
        told += f"; without swaps from or to plain subsampling {r_in_words(rest, 'ρ')}{nominal_and_coverage(rest)}"
    return [f"{told}; n = {counted(len(rows), 'swap')}, {counted(rows['cluster'].nunique(), 'network')}."]


def _handles(names: Sequence[str]) -> list[Artist]:
    handles = style.operator_handles(names)
    for handle in handles:
        handle.set_label(f"to {handle.get_label()}: mean, 95 %" if handle is handles[0] else f"to {handle.get_label()}")
    handles.append(Patch(color=style.GUIDE, alpha=0.35, linewidth=0, label="quartiles"))
    handles.append(Line2D([], [], color=style.INK, linewidth=1.2, label="median"))
    return handles


def _caption(rows: pd.DataFrame, selection: FigureRows, reading: str, score: str) -> list[str]:
    single = rows[rows["depth"].notna()]
    swaps = single.drop_duplicates(["checkpoint", "model", "depth", "replacement"])
    return [
        f"One site's operator of a trained network replaced, weights kept ({counts(rows)}; "
        f"{counted(len(swaps), 'swap')} of single sites, {counted(rows['n_images'].max(), 'image')}): change of "
        f"{score} and of accuracy in percentage points, by replacement and by the place of the changed site; all: "
        "every site changed. Dots: swaps. Boxes: quartiles, with the median. Marks: means with 95 % t intervals, "
        f"networks as clusters. ρ: Spearman with the change of the site's {style.label(reading, short=True)} over "
        f"single sites, 95 % {fits.INTERVAL_OF_R}. The networks were not trained with the replacement.",
        plan_sentence(selection),
    ]
