"""From a frame to the rows of a figure of operators drawn at random: those that count, under the primary plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import ArrayLike
from scipy import special

from invariscope.analysis.designs.assigned import POPULATION, Settings, admitted, cells_of, has_population
from invariscope.analysis.designs.heldout import EXACT, constructed
from invariscope.analysis.designs.verdicts import is_primary_plan
from invariscope.analysis.figures import style
from invariscope.analysis.figures.selection import copies_told
from invariscope.analysis.say.plan_words import plan_in_caption
from invariscope.analysis.tables.checkpoints import is_elsewhere
from invariscope.analysis.tables.plans import PLAN, kind_order
from invariscope.base.errors import TableError
from invariscope.base.words import counted

MOST_CELLS = {"double": 4, "single": 3}
"""Data sets that have room at a width; the caption names those that have none."""

SHARES = (50, 90, 99, 75, 25, 95, 99.9, 10, 98, 97, 80, 60, 99.5, 5, 1, 40, 85, 70, 30, 99.99)
"""Percentages that a logit axis may name; the first ones win."""


@dataclass(frozen=True)
class AssignedRows:
    """The networks of a figure: admitted by the plan, of the primary plans, of the ``cells`` that are drawn.

    ``rows`` have the logit of the ``score`` in the column ``logit``; ``notes`` say what is not drawn.
    """

    rows: pd.DataFrame
    kinds: tuple[str, ...]
    cells: tuple[str, ...]
    score: str
    notes: tuple[str, ...]

    def of(self, kind: str, *populations: str) -> pd.DataFrame:
        """The rows of one shift kind, of these populations."""
        return self.rows[(self.rows["shift_kind"] == kind) & self.rows[POPULATION].isin(populations)]

    def title(self, cell: str, kind: str = "") -> str:
        """``mnist, circular shift``; the architecture where a data set has several."""
        name = self.named(cell)
        return f"{name}, {kind} shift" if kind else name

    def named(self, cell: str) -> str:
        """The data set of a cell; with its architecture where a data set has several."""
        data = cell.rpartition("/")[0]
        several = sum(other.rpartition("/")[0] == data for other in self.cells) > 1
        return cell.replace("/", " ") if several else data

    def plans(self) -> str:
        """Data sets and shift plans in one sentence, for the caption."""
        plans = self.rows.drop_duplicates(PLAN).to_dict("records")
        told = [plan_in_caption(plan) for kind in self.kinds for plan in plans if plan["shift_kind"] == kind]
        images = sorted({int(number) for number in self.rows["n_images"]})
        many = f"{images[0]} images" if len(images) == 1 else f"{images[0]} to {images[-1]} images"
        return f"Measured on {', '.join(map(self.named, self.cells))} ({many}); shifts: {', '.join(told)}."


def assigned_rows(
    frame: pd.DataFrame,
    figure: str,
    populations: Sequence[str],
    needed: Sequence[str] = (),
    *,
    score: str,
    data: str | None,
    width: style.Width,
) -> AssignedRows:
    """The rows that a figure of a study with assigned MSB is drawn from, of one data set or of all.

    What counts is decided by :func:`invariscope.analysis.designs.assigned.admitted`, which plans are primary by
    :func:`invariscope.analysis.designs.verdicts.is_primary_plan`. ``populations``: those that the figure draws, first
    the one that it cannot do without. ``needed``: measured columns without which there is nothing to draw; networks
    that lack a number in one are not drawn.

    Raises:
        TableError: no drawn operators, or none of the first population; a reading that was not measured; no row that
            counts.
    """
    if not has_population(frame):
        raise TableError(f"{figure}: no operator was drawn at random: train a recipe that `invariscope draw` wrote")
    notes = copies_told(frame)
    frame = _of_the_zoo(frame, notes)
    if not frame[POPULATION].eq(populations[0]).any():
        raise TableError(f"{figure}: no network of population {populations[0]}: train that part of the recipe too")
    rows, out = admitted(frame, Settings(score=score))
    rows, out = (part[part[POPULATION].isin(populations)] for part in (rows, out))
    primary = is_primary_plan(rows)
    _tell_plans(rows[~primary], notes)
    rows = rows[primary]
    rows = _of_data(rows, figure, data)
    out = out[out["data"].isin(rows["data"].unique())]
    notes += [f"Left out, {reason}: {counted(count, 'network')}." for reason, count in _counts(out).items()]
    rows = _with_numbers(rows, figure, needed, notes)
    parts = dict(cells_of(rows))
    if lacking := [name for name, part in parts.items() if not part[POPULATION].eq(populations[0]).any()]:
        notes.append(f"Not shown, without a network of population {populations[0]}: {', '.join(lacking)}.")
        parts = {name: part for name, part in parts.items() if name not in lacking}
    if not parts:
        raise TableError(f"{figure}: no network of population {populations[0]} counts: {' '.join(notes)}")
    names = list(parts)[: MOST_CELLS[width]]
    if len(names) < len(parts):
        notes.append(f"Not shown, for want of room: {', '.join(list(parts)[len(names) :])}.")
    rows = pd.concat([part.assign(cell=name) for name, part in parts.items() if name in names])
    return AssignedRows(rows, kind_order(rows["shift_kind"]), tuple(names), score, tuple(notes))


def _of_the_zoo(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    marked = is_elsewhere(frame)
    if marked.any():
        names = sorted(frame.loc[marked, "checkpoint"].unique())
        notes.append(f"Not shown: networks from elsewhere ({', '.join(names)}).")
    return frame[~marked]


def _tell_plans(others: pd.DataFrame, notes: list[str]) -> None:
    plans = others.drop_duplicates(["shift_kind", "fill", "max_shift", "n_shifts", "plan"])
    if len(plans):
        told = ", ".join(plan_in_caption(plan) for plan in plans.to_dict("records"))
        notes.append(f"Other shift plans in the tables, not shown here: {told}.")


def _of_data(rows: pd.DataFrame, figure: str, data: str | None) -> pd.DataFrame:
    if rows.empty:
        raise TableError(
            f"{figure}: no network that counts under a primary plan: collect `invariance` with circular shifts, or "
            "zero shifts filled with the background, 9 per image"
        )
    known = sorted(rows["data"].unique())
    if data is not None and data not in known:
        raise TableError(f"{figure}: no rows measured on {data!r}; the tables hold {', '.join(known)}")
    return rows if data is None else rows[rows["data"] == data]


def _counts(out: pd.DataFrame) -> dict[str, int]:
    once = out.drop_duplicates(["checkpoint", "data", "reason"])
    return {str(reason): len(part) for reason, part in once.groupby("reason", sort=False)}


def _with_numbers(rows: pd.DataFrame, figure: str, needed: Sequence[str], notes: list[str]) -> pd.DataFrame:
    for name in needed:
        if name not in rows.columns or not np.isfinite(rows[name].astype(float)).any():
            raise TableError(f"{figure}: {name} was not measured: collect `layers` again with this version")
    finite = pd.Series(np.isfinite(rows[list(needed)].to_numpy(dtype=float)).all(axis=1), index=rows.index)
    if not finite.all():
        lost = rows.loc[~finite, "checkpoint"].nunique()
        notes.append(f"Not shown, for want of {' or '.join(needed)}: {counted(lost, 'checkpoint')}.")
    return rows[finite]


def panels(
    figure: Figure, chosen: AssignedRows, width: style.Width, *, place: SubplotSpec | None = None, share: bool = True
) -> dict[tuple[str, str], Axes]:
    """An axes per cell and shift kind: kinds below each other where there are several cells across two columns."""
    cells, kinds = chosen.cells, chosen.kinds
    across = len(cells) > 1 and width == "double"
    shape = (len(kinds), len(cells)) if across else (len(cells), len(kinds))
    grid = figure.add_gridspec(*shape) if place is None else place.subgridspec(*shape)
    axes = grid.subplots(squeeze=False, sharex=share, sharey=share)
    return {
        (cell, kind): axes[column, row] if across else axes[row, column]
        for row, cell in enumerate(cells)
        for column, kind in enumerate(kinds)
    }


def outer(axes: Mapping[tuple[str, str], Axes]) -> Iterator[tuple[Axes, bool, bool]]:
    """Each axes, whether it stands at the bottom and whether at the left of its grid."""
    for ax in axes.values():
        place = ax.get_subplotspec()
        if place is not None:
            yield ax, place.is_last_row(), place.is_first_col()


def logit_ticks(ax: Axes, which: str = "y", *, gap: float = 0.085, top: float = 1.0) -> None:
    """Name an axis of logits by the percentages that they are of, up to the part ``top`` of its length."""
    axis = ax.yaxis if which == "y" else ax.xaxis
    low, high = ax.get_ylim() if which == "y" else ax.get_xlim()
    high = low + top * (high - low)
    places = style.spaced(special.logit(np.array(SHARES) / 100), low, high, gap)
    axis.set_major_locator(FixedLocator(places))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * special.expit(value):.4g}"))


def room(ax: Axes, values: Sequence[ArrayLike], which: str = "y", margin: float = 0.06) -> None:
    """Limits of an axis round all ``values``."""
    ends = np.concatenate([np.asarray(part, dtype=float).ravel() for part in values])
    ends = ends[np.isfinite(ends)]
    beyond = max(margin * float(np.ptp(ends)), 0.1)
    limits = float(ends.min()) - beyond, float(ends.max()) + beyond
    ax.set_ylim(*limits) if which == "y" else ax.set_xlim(*limits)


RAIL, RAIL_LINE = 0.955, 0.915
"""Heights, in parts of an axes, of marks that are set apart above the data, and of the line below them."""


def rail(ax: Axes, marks: pd.DataFrame, x: str) -> None:
    """Make room above the data for what is consistent by construction, and draw it there, named, along ``x``.

    ``marks``: a row per specification with its ``operator``. To be called once limits are set.
    """
    low, high = ax.get_ylim()
    ax.set_ylim(low, low + (high - low) / RAIL_LINE)
    if marks.empty:
        return
    ax.axhline(high, color=style.GUIDE, linewidth=0.6, linestyle=(0, (2, 2)), zorder=1, label="_rail")
    looks = style.looks(marks["operator"])
    for name, part in marks.groupby("operator"):
        ax.scatter(
            part[x], [RAIL] * len(part), s=22, marker=looks[str(name)].marker, color=style.GUIDE,
            edgecolors=style.INK, linewidths=0.6, transform=ax.get_xaxis_transform(), zorder=5,
            label=f"{name}, by construction",
        )  # fmt: skip
    left, right = ax.get_xlim()
    after = marks[x].max() < (left + right) / 2
    edge = float(marks[x].max() if after else marks[x].min())
    names = ", ".join(style.operator_order(marks["operator"]))
    ax.annotate(
        names, (edge, RAIL), xycoords=ax.get_xaxis_transform(),
        xytext=(5 if after else -5, 0), textcoords="offset points", ha="left" if after else "right", va="center",
        fontsize=style.SMALLEST_FONT, color=style.INK,
    ).set_in_layout(False)  # fmt: skip


def rail_handle() -> Line2D:
    """The legend's handle of marks above the data."""
    return Line2D(
        [], [], color=style.GUIDE, marker="o", markersize=4.6, markeredgecolor=style.INK, markeredgewidth=0.6,
        linestyle="", label="consistent by construction",
    )  # fmt: skip


def operators_of(specifications: pd.Series) -> pd.Series:
    """The operator of each specification."""
    return specifications.map(lambda text: str(text).partition("(")[0])


def by_operator(rows: pd.DataFrame, columns: Sequence[str], kind: str, score: str) -> pd.DataFrame:
    """A row per specification and padding: the mean over its runs, its ``operator``, its ``strength`` where it has one,
    and whether it is consistent ``by_construction``, as its score says.
    """
    known = [name for name in dict.fromkeys((*columns, score, "strength")) if name in rows]
    found = rows.groupby(["operator_spec", "padding_mode"], as_index=False)[known].mean()
    found = found.rename(columns={"operator_spec": "operator"})
    exact = constructed(found, kind) & (found[score] >= EXACT)
    found = found.assign(by_construction=exact, specification=found["operator"])
    return found.assign(operator=operators_of(found["operator"]))


def logits_label(score: str, *, lines: int = 1) -> str:
    """``consistency (% of shift pairs, logit scale)``."""
    text = style.label(score)
    name, _, unit = text.partition(" (")
    unit = unit.removesuffix(")").replace("share of", "% of") or "%"
    joint = "\n(" if lines == 2 else " ("
    return f"{name}{joint}{unit}, logit scale)"
