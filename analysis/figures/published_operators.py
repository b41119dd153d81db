"""Published operators and their doses within one cell: MSB, as the words of its definition and corrected, and what
rivals it, against consistency and fidelity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from invariscope.analysis.designs.assigned import published
from invariscope.analysis.designs.published_cell import OVER, WITHIN, PublishedCell
from invariscope.analysis.figures import style
from invariscope.analysis.figures.labels import Name, place_names
from invariscope.analysis.figures.selection import FigureRows, plan_sentence, select
from invariscope.analysis.say.numbers import bracketed
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING

MOST, OF_A_CROWD = 24, 12
"""Names that a panel has room for, and how many of a crowd's are written."""

LITERAL, SEE = "msb", "see"
READINGS = (LITERAL, PRIMARY_READING, SEE)
SCORES = ("consistency", "fidelity")
_SHORT = {LITERAL: "literal MSB", PRIMARY_READING: "corrected MSB", SEE: "site equivariance error"}


def published_operators(
    frame: pd.DataFrame, *, data: str | None = None, width: style.Width = "double"
) -> style.CaptionedFigure:
    """Per shift kind and score a row, per reading a column: the published operators of the cell that has most of them.

    A cell is data set × architecture × padding (× augmentation). A large mark is the mean of a specification's runs,
    which are small marks; lines join the strengths of one operator. ``r`` is Pearson's over specifications, and within
    operators (deviations from the mean of an operator's strengths); 95 % intervals: jackknife over operators, or over
    specifications within them. Operators that are consistent by construction under circular shifts are hollow and in no
    ``r``. ``frame`` is :func:`join`'s.

    Raises:
        TableError: the tables hold no published operators with MSB, consistency and fidelity, or no cell of several.
    """
    chosen = select(published(frame), "published_operators", [LITERAL, PRIMARY_READING, *SCORES], data)
    try:
        cell = PublishedCell.of(chosen.rows)
    except TableError as problem:
        raise TableError(f"published_operators: {problem}") from problem
    rows = cell.rows
    wide = width == "double"
    known = [name for name in READINGS if name in rows and np.isfinite(rows[name].astype(float)).any()]
    readings = known if wide else [name for name in known if name != LITERAL]
    means = {kind: cell.means(kind, [*readings, *SCORES]) for kind in chosen.kinds}
    found: dict[tuple[str, str, str], str] = {}
    with style.theme(width):
        grid = [(kind, score) for kind in chosen.kinds for score in SCORES]
        figure = style.new_figure(width, 0.7 + (1.95 if wide else 1.45) * len(grid))
        axes = figure.subplots(len(grid), len(readings), squeeze=False, sharex="col", sharey="row")
        for at, (kind, score) in zip(axes, grid, strict=True):
            told = _told(cell.coefficients(kind, readings, score), readings)
            for ax, reading in zip(at, readings, strict=True):
                _draw(ax, rows[rows["shift_kind"] == kind], means[kind], reading, score)
                ax.set_title(_heading(told[reading], wide), loc="left", fontsize=style.SMALLEST_FONT)
                found[kind, score, reading] = ", ".join(told[reading])
            at[0].set_ylabel(f"{score} (%)\n{kind} shifts")
        for ax, reading in zip(axes[-1], readings, strict=True):
            ax.set_xlabel(_SHORT[reading] if wide else _SHORT[reading].replace(" error", "\nerror"))
            ax.locator_params(axis="x", nbins=5 if wide else 3)
        style.legend_below(figure, _handles(means), width, columns=7 if wide else 3)
        style.lay_out(figure)
        for at, (kind, score) in zip(axes, grid, strict=True) if wide else ():
            _name(at[0], means[kind], readings[0], score)
            if len(readings) > 2:
                _name(at[-1], means[kind], readings[-1], score)
    figure.caption = _caption(chosen, cell, means, found, readings, wide)
    return figure


def _told(table: pd.DataFrame, readings: Sequence[str]) -> dict[str, list[str]]:
    """Coefficients in words, by reading."""
    made: dict[str, list[str]] = {reading: [] for reading in readings}
    for row in table.to_dict("records"):
        words = "r" if row["level"] == OVER else WITHIN
        made[str(row["reading"])].append(f"{words} {bracketed(row['r'], row['low'], row['high'])}")
    return made


def _heading(told: Sequence[str], wide: bool) -> str:
    return "\n".join(told) if wide else "\n".join(text.partition(" [")[0].replace(WITHIN, "within") for text in told)


def _draw(ax: Axes, rows: pd.DataFrame, means: pd.DataFrame, reading: str, score: str) -> None:
    rows = rows[["operator", reading, score]]
    for name, (look, operators) in style.together(rows["operator"]).items():
        runs, path = rows[rows["operator"].isin(operators)], means[means["operator"].isin(operators)]
        ax.scatter(
            runs[reading], 100 * runs[score], s=5, color=look.color, marker=look.marker, alpha=0.45, linewidths=0,
            zorder=2, label=f"_runs {name}",
        )  # fmt: skip
        several = path[path["operator"].duplicated(keep=False)]
        for operator, doses in several.groupby("operator") if "strength" in path else ():
            if doses["strength"].notna().all():
                doses = doses.sort_values("strength")
                ax.plot(
                    doses[reading], 100 * doses[score], color=look.color, linewidth=0.9, alpha=0.8, zorder=2.5,
                    label=f"_doses {operator}",
                )  # fmt: skip
        apart = path["by_construction"].to_numpy()
        for mask, fill in ((~apart, look.color), (apart, "white")):
            if mask.any():
                part = path[mask]
                ax.scatter(
                    part[reading], 100 * part[score], s=24, color=fill, marker=look.marker, linewidths=0.8, zorder=4,
                    edgecolors=look.color if fill == "white" else "white", label=name,
                )  # fmt: skip


def _name(ax: Axes, means: pd.DataFrame, reading: str, score: str) -> None:
    """The name of each operator at its most solitary mark."""
    known = means[np.isfinite(means[[reading, score]].astype(float)).all(axis=1)].reset_index(drop=True)
    if known.empty:
        return
    points = np.column_stack([known[reading].to_numpy(dtype=float), 100 * known[score].to_numpy(dtype=float)])
    places = ax.transData.transform(points)
    far = np.linalg.norm(places[:, None] - places[None], axis=2)
    other = known["operator"].to_numpy()[:, None] != known["operator"].to_numpy()[None]
    alone = np.where(other, far, np.inf).min(axis=1)
    best = known.assign(alone=alone).sort_values("alone", ascending=False).drop_duplicates("operator")
    best = best if len(best) <= MOST else best[:OF_A_CROWD]
    looks = style.marks(known["operator"])
    named = {at: str(known["operator"].iloc[at]) for at in best.index}
    names = [Name(name, float(points[at, 0]), float(points[at, 1]), looks[name].color) for at, name in named.items()]
    place_names(ax, names, points=points[[at for at in known.index if at not in set(best.index)]])


def _handles(means: Mapping[str, pd.DataFrame]) -> list[Artist]:
    every = pd.concat(means.values())
    handles = style.operator_handles(every["operator"])
    grey = {"color": style.GUIDE, "marker": "o", "linestyle": ""}
    handles.append(Line2D([], [], markersize=2.2, label="a run", **grey))  # type: ignore[arg-type]
    if every["by_construction"].any():
        hollow = {**grey, "markerfacecolor": "white"}
        handles.append(
            Line2D([], [], markersize=4.6, label="consistent, ties aside", **hollow)  # type: ignore[arg-type]
        )
    return handles


def _caption(
    chosen: FigureRows,
    cell: PublishedCell,
    means: Mapping[str, pd.DataFrame],
    found: Mapping[tuple[str, str, str], str],
    readings: Sequence[str],
    wide: bool,
) -> str:
    first = next(iter(means.values()))
    many = first["operator"].nunique() > MOST
    apart = sorted(set(first.loc[first["by_construction"], "operator_spec"]))
    lines = [
        f"Published operators and their strengths within one cell, {chosen.data}, {cell.name}: {len(first)} "
        f"specifications of {counted(first['operator'].nunique(), 'operator')}; large marks are means over "
        f"{counted(cell.rows['run'].nunique(), 'run')}, "
        "lines join the strengths of one operator."
        + (
            f" Where a panel has more than {MOST} operators, the {OF_A_CROWD} most solitary have their names."
            if wide and many
            else ""
        ),
        plan_sentence(chosen),
        f"{LITERAL}: share of windows whose output is their maximum. {PRIMARY_READING}: weight on the maximum, "
        f"corrected for chance. {SEE}: what is left after the best shift when a site's input is moved.",
        "r: Pearson's over specifications, and within operators (deviations from the mean of an operator's strengths); "
        "95 % intervals by the jackknife over operators, within them over specifications. Associations of these "
        "operators, not causes.",
        *(
            f"{kind} shifts, {score}, {_SHORT[reading]}: {text or 'no number'}."
            for (kind, score, reading), text in found.items()
        ),
    ]
    if apart:
        lines.append(
            f"Hollow, and in no r under circular shifts: consistent by construction, ties aside ({', '.join(apart)})."
        )
    if LITERAL not in readings:
        lines.append("Literal MSB has no room at this width.")
    if SEE not in readings:
        lines.append(f"{SEE} was not measured: collect `layers` again.")
    if cell.others:
        lines.append(f"Other cells of these tables, not shown: {'; '.join(cell.others)}.")
    return "\n".join([*lines, *chosen.notes])
