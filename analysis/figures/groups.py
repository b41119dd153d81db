"""Which group a point is of, by any factor, and how the conditions that it was trained under are seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.selection import FigureRows
from invariscope.analysis.say.numbers import bracketed
from invariscope.analysis.tables.factors import factor_column, factor_levels, factor_text
from invariscope.base.errors import TableError

GROUP = "group"
"""Column of the rows of a figure: what their colour and marker are of."""

CONDITIONS = ("padding_mode", "architecture")
"""Factors that points show by their filling and their edge, where they vary."""

_FACES, _EDGES = (0.75, 0.12, 0.42), (None, style.INK, style.GUIDE)


@dataclass(frozen=True)
class Groups:
    """The groups of a figure in legend order with their marks; ``hue`` is the factor, ``operator`` unless asked."""

    hue: str
    marks: dict[str, style.Mark]

    @classmethod
    def of(cls, selection: FigureRows, hue: str | None) -> tuple[FigureRows, Groups]:
        """The selection with the column :data:`GROUP`, and its groups by the factor ``hue``.

        Raises:
            TableError: no such factor.
        """
        name = hue or "operator"
        column = factor_column(selection.rows, name)
        shown = [selection.rows, selection.elsewhere] if len(selection.elsewhere) else [selection.rows]
        marked = [rows.assign(**{GROUP: factor_text(rows[column])}) for rows in shown]
        made = replace(selection, rows=marked[0], elsewhere=marked[1] if len(marked) > 1 else selection.elsewhere)
        every = pd.concat([rows[column] for rows in shown])
        names = style.operator_order(every) if column == "operator" else factor_levels(every)
        if len(names) > len(style.OTHER_MARKS):
            raise TableError(
                f"--hue {name} has {len(names)} values, which no colours and markers tell apart: "
                f"choose a factor with {len(style.OTHER_MARKS)} at most"
            )
        return made, cls(name, style.marks(names, in_order=True))

    @property
    def by_operator(self) -> bool:
        """Whether the groups are the operators."""
        return self.hue == "operator"

    def handles(self) -> list[Artist]:
        """A legend handle per group; names of another factor begin with it."""
        made: list[Artist] = []
        for place, (name, mark) in enumerate(self.marks.items()):
            text = name if self.by_operator or place else f"{self.hue} {name}"
            made.append(Line2D([], [], color=mark.color, marker=mark.marker, linestyle="", markersize=4.5, label=text))
        return made


def conditions_of(rows: pd.DataFrame, *other: str | None) -> dict[str, list[str]]:
    """Per factor of :data:`CONDITIONS` that varies, its values, the most frequent first; the first factor is drawn by
    the filling, the second by the edge of points. ``other``: factors that the figure shows otherwise.
    """
    found = {
        name: list(factor_text(rows[name]).value_counts().index)
        for name in CONDITIONS
        if name in rows and name not in other and rows[name].nunique(dropna=False) > 1
    }
    return {name: levels for name, levels in found.items() if len(levels) <= len(_FACES)}


def scatter_groups(
    ax: Axes, rows: pd.DataFrame, x: str, y: str, groups: Groups, shown: dict[str, list[str]], *, size: float = 11.0
) -> None:
    """One scatter collection per group (its name is the label); conditions by filling and edge, subsampling larger."""
    for name, mark in groups.marks.items():
        part = rows[rows[GROUP] == name]
        if part.empty:
            continue
        faces, edges = (list(map(tuple, colors)) for colors in _looks(part, mark.color, shown))
        large = groups.by_operator and name == "subsample"
        ax.scatter(
            part[x], part[y], s=size * (1.7 if large else 1.0), facecolors=faces, edgecolors=edges,
            marker=mark.marker, linewidths=0.6, label=name, zorder=3.2 if large else 3.0,
        )  # fmt: skip


def _looks(rows: pd.DataFrame, color: str, shown: dict[str, list[str]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Face and edge colours of each row."""
    rgb = np.array(mpl.colors.to_rgb(color))
    names = list(shown)
    faces = _places(rows, names[0], shown) if names else np.zeros(len(rows), dtype=int)
    edges = _places(rows, names[1], shown) if len(names) > 1 else np.zeros(len(rows), dtype=int)
    tints = np.array(_FACES)[faces][:, None]
    around = np.array([mpl.colors.to_rgb(edge or color) for edge in _EDGES])[edges]
    return tints * rgb + (1 - tints), around


def _places(rows: pd.DataFrame, name: str, shown: dict[str, list[str]]) -> NDArray[np.int_]:
    found = factor_text(rows[name]).map({level: place for place, level in enumerate(shown[name])})
    return np.asarray(found.to_numpy(dtype=int))


def conditions_told(shown: dict[str, list[str]]) -> str:
    """``; filling: padding mode (circular, zeros)``; nothing where points show no condition."""
    told = [
        f"; {'edge' if place else 'filling'}: {name.replace('_', ' ')} ({', '.join(levels)})"
        for place, (name, levels) in enumerate(shown.items())
    ]
    return "".join(told)


def condition_handles(shown: dict[str, list[str]]) -> list[Artist]:
    """Legend handles of the fillings and the edges."""
    made: list[Artist] = []
    grey = np.array(mpl.colors.to_rgb(style.GUIDE))
    for axis, (name, levels) in enumerate(shown.items()):
        for place, level in enumerate(levels):
            tint = _FACES[place] if axis == 0 else _FACES[0]
            edge = (_EDGES[place] if axis else None) or style.GUIDE
            look: dict[str, Any] = {"markerfacecolor": tint * grey + (1 - tint), "markeredgecolor": edge}
            text = f"{level} padding" if name == "padding_mode" else level
            made.append(
                Line2D([], [], marker="o", markersize=4.5, linestyle="", markeredgewidth=0.8, label=text, **look)
            )
    return made


def draw_means(
    ax: Axes, rows: pd.DataFrame, x: str, y: str, groups: Groups, *, names: Sequence[str] | None = None
) -> dict[str, tuple[float, float]]:
    """The mean of each group with 95 % bars over training runs (:func:`fits.mean_interval`); where each is drawn."""
    found = {}
    for name, mark in groups.marks.items():
        part = rows[rows[GROUP] == name]
        if part.empty or (names is not None and name not in names):
            continue
        across, up = (fits.mean_interval(part[column], part["cluster"], column) for column in (x, y))
        bars: dict[str, Any] = {"color": style.INK, "linewidth": 0.9, "zorder": 4.5, "label": "_interval"}
        if np.isfinite(across[1]):
            ax.plot(across[1:], [up[0], up[0]], **bars)
        if np.isfinite(up[1]):
            ax.plot([across[0], across[0]], up[1:], **bars)
        ax.plot(
            [across[0]], [up[0]], color=mark.color, marker=mark.marker, markersize=6.0, markeredgecolor=style.INK,
            markeredgewidth=0.7, linestyle="", zorder=5, label=f"mean of {name}",
        )  # fmt: skip
        found[name] = (across[0], up[0])
    return found


def means_told(rows: pd.DataFrame, y: str, groups: Groups) -> str:
    """``max 0.84 [0.80, 0.88]; avg ...`` of each group."""
    told = []
    for name in groups.marks:
        part = rows[rows[GROUP] == name]
        if len(part):
            told.append(f"{name} {bracketed(*fits.mean_interval(part[y], part['cluster'], y))}")
    return "; ".join(told)


def mean_handle(groups: Groups) -> Artist:
    """The legend's handle of the means."""
    look: dict[str, Any] = {"markersize": 5.5, "markeredgecolor": style.INK, "markeredgewidth": 0.7, "linewidth": 0.9}
    return Line2D(
        [], [], color=style.INK, marker="o", markerfacecolor="#d0d0d0",
        label=f"{groups.hue.removeprefix('factor_').replace('_', ' ')} mean, 95 %", **look,
    )  # fmt: skip
