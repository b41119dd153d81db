"""What was drawn: the assigned factors of a population of operators, how they cover their ranges and go together."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy import stats

from invariscope.analysis.figures import style
from invariscope.analysis.figures.selection import FigureRows, Snapshots, select_unshifted
from invariscope.base.errors import TableError

FACTORS = {
    "factor_assigned_msb": "MSB",
    "factor_assigned_selectivity": "selectivity",
    "factor_assigned_lambda": "low pass λ",
    "factor_assigned_asymmetry": "asymmetry",
}
"""The factors that are assigned to a drawn operator, and their names on an axis."""

DEALT = {"padding_mode": "Padding", "factor_augmentation": "Augmentation"}
"""What is dealt to drawn operators in balance."""

FAMILIES = {"rank": style.Mark("#0072B2", "o"), "channelranks": style.Mark("#D55E00", "^")}
OTHER = style.Mark("#009E73", "s")
"""Of families that are not ours, and of operators that name none."""
UNNAMED = "no family named"
LABELS = {"rank": "weights by rank", "channelranks": "a rank per channel"}
ROTATIONS = style.Mark(style.GUIDE, "x")
BINS = 12
FEWEST = 4
"""Operators without which there is no correlation."""
NOTABLE = 0.3
"""A correlation beyond it is set bold."""


def drawn(
    frame: pd.DataFrame, *, snapshots: Snapshots = "final", width: style.Width = "double"
) -> style.CaptionedFigure:
    """The assigned factors against each other: histograms on the diagonal, operators below, Spearman's rho above.

    An operator counts once, whatever it was trained on and how often. Rotations (operators with a ``block``) are drawn
    as crosses and enter no correlation. ``frame`` is :func:`invariscope.analysis.tables.joined.join`'s.

    Raises:
        TableError: no checkpoint has the assigned factors.
    """
    selection, rows = drawn_operators(frame, "drawn", snapshots)
    population, rotations = rows[~rows["rotation"]], rows[rows["rotation"]]
    main = population if len(population) else rows
    with style.theme(width):
        figure = style.new_figure(width, {"double": 6.4, "single": 3.9}[width])
        axes = figure.subplots(len(FACTORS), len(FACTORS), squeeze=False)
        for (i, y), (j, x) in itertools.product(enumerate(FACTORS), enumerate(FACTORS)):
            ax = axes[i, j]
            if i == j:
                ax.hist(main[x], bins=BINS, color="#b8c4cc", edgecolor="white", linewidth=0.4)
                ax.set_yticks([])
            elif i > j:
                _operators(ax, population, rotations, x, y)
                ax.sharey(axes[i, 0])
            else:
                _correlation(ax, main, x, y)
            if i >= j:
                ax.sharex(axes[-1, j])
                ax.locator_params(nbins=4 if width == "double" else 3)
                ax.tick_params(labelbottom=i == len(FACTORS) - 1, labelleft=j == 0 < i)
        for place, name in enumerate(FACTORS.values()):
            axes[-1, place].set_xlabel(name)
            axes[place, 0].set_ylabel(name if place else "operators")
        style.legend_below(figure, _handles(population, rotations), width, columns=3 if width == "double" else 1)
    figure.caption = _caption(selection, rows, main)
    return figure


def drawn_operators(frame: pd.DataFrame, what: str, snapshots: Snapshots = "final") -> tuple[FigureRows, pd.DataFrame]:
    """The checkpoints of drawn operators, and a row per operator with the column ``rotation``: whether of a block."""
    missing = [name for name in FACTORS if name not in frame]
    if missing or frame[list(FACTORS)].isna().all().any():
        raise TableError(f"{what}: no operator was drawn at random: train a recipe that `invariscope draw` wrote")
    drawn_alone = frame[frame[list(FACTORS)].notna().all(axis=1)].drop(columns="data")
    family = drawn_alone.get("factor_family", pd.Series(None, index=drawn_alone.index, dtype=object))
    drawn_alone = drawn_alone.assign(factor_family=family.astype(object).where(family.notna(), UNNAMED).astype(str))
    selection = select_unshifted(drawn_alone, what, "checkpoints", list(FACTORS), None, snapshots)
    once = selection.rows.drop_duplicates("checkpoint")
    names = [name for name in ("factor_draw", "operator_spec") if name in once and once[name].notna().any()]
    rows = once.drop_duplicates(names) if names else once
    block = rows["factor_block"].notna() if "factor_block" in rows else pd.Series(False, index=rows.index)
    numbers = {name: rows[name].astype(float) for name in FACTORS}
    return selection, rows.assign(rotation=block, **numbers)


def spearman(rows: pd.DataFrame, x: str, y: str) -> tuple[float, float, float]:
    """Spearman's rho of two factors with its 95 % interval on Fisher's z; NaN where one of them does not vary.

    The error of z is ``sqrt((1 + rho² / 2) / (n - 3))`` (Bonett and Wright 2000).
    """
    n = len(rows)
    if n < FEWEST or rows[x].nunique() < 2 or rows[y].nunique() < 2:
        return np.nan, np.nan, np.nan
    rho = float(stats.spearmanr(rows[x], rows[y]).statistic)
    half = float(stats.norm.ppf(0.975)) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    z = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
    return rho, float(np.tanh(z - half)), float(np.tanh(z + half))


def _operators(ax: Axes, population: pd.DataFrame, rotations: pd.DataFrame, x: str, y: str) -> None:
    ax.scatter(rotations[x], rotations[y], s=7, color=ROTATIONS.color, marker=ROTATIONS.marker, linewidths=0.5)
    for family in _families(population):
        part, mark = population[population["factor_family"] == family], FAMILIES.get(family, OTHER)
        ax.scatter(
            part[x], part[y], s=9, color=mark.color, marker=mark.marker, alpha=0.7, linewidths=0.2, edgecolors="white"
        )


def _correlation(ax: Axes, rows: pd.DataFrame, x: str, y: str) -> None:
    rho = spearman(rows, x, y)[0]
    ax.set_axis_off()
    text = "–" if np.isnan(rho) else f"ρ = {round(rho, 2) + 0.0:+.2f}"
    weight = "bold" if abs(rho) > NOTABLE else "normal"
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, fontweight=weight)


def _handles(population: pd.DataFrame, rotations: pd.DataFrame) -> list[Artist]:
    handles: list[Artist] = []
    families = _families(population)
    handles += [_handle(FAMILIES[family], LABELS[family]) for family in families if family in FAMILIES]
    if other := [family for family in families if family not in FAMILIES]:
        handles.append(_handle(OTHER, ", ".join(other)))
    if len(rotations):
        handles.append(_handle(ROTATIONS, "rotations"))
    return handles


def _families(population: pd.DataFrame) -> list[str]:
    """The families of a population: ours first."""
    there = population["factor_family"].unique()
    return [*(name for name in FAMILIES if name in there), *sorted(name for name in there if name not in FAMILIES)]


def _handle(mark: style.Mark, label: str) -> Line2D:
    return Line2D([], [], color=mark.color, marker=mark.marker, linestyle="", markersize=4, label=label)


def _caption(selection: FigureRows, rows: pd.DataFrame, main: pd.DataFrame) -> str:
    population, rotations = rows[~rows["rotation"]], rows[rows["rotation"]]
    lines = [
        f"Assigned factors of the drawn operators of {selection.rows['checkpoint'].nunique()} checkpoints, each "
        "operator once: histograms, operators against each other, and Spearman's rho over the population.",
    ]
    if len(population):
        lines.append(f"Population: {_described(population)}.")
        dealt = [name for name in DEALT if name in population and population[name].notna().any()]
        lines += [f"{DEALT[name]} by family: {_balance(population, name)}." for name in dealt]
    if len(rotations):
        spans = rotations.groupby("factor_block")["factor_assigned_msb"].agg(np.ptp)
        lines.append(
            f"Rotations: {_described(rotations)}; {len(spans)} blocks, range of MSB within a block "
            f"{spans.median():.2f} (median; {spans.min():.2f} to {spans.max():.2f})."
        )
    told = []
    for x, y in itertools.combinations(FACTORS, 2):
        rho, low, high = spearman(main, x, y)
        if not np.isnan(rho):
            told.append(f"{FACTORS[x]} with {FACTORS[y]} {rho:.2f} [{low:.2f}, {high:.2f}]")
    if told:
        lines.append(f"Spearman's rho with 95 % interval on Fisher's z: {'; '.join(told)}.")
    return "\n".join([*lines, *selection.notes])


def _described(rows: pd.DataFrame) -> str:
    filtered, placed = (rows[f"factor_assigned_{name}"] > 0 for name in ("lambda", "asymmetry"))
    ranges = [
        f"{label} {rows[name].min():.2f} to {rows[name].max():.2f} (median {rows[name].median():.2f})"
        for name, label in FACTORS.items()
    ]
    shares = f"{filtered.sum()} with a low pass, {placed.sum()} with a preferred place"
    return f"{len(rows)} operators, {shares}; {', '.join(ranges)}"


def _balance(rows: pd.DataFrame, name: str) -> str:
    parts = []
    for family, part in rows.groupby("factor_family"):
        told = ", ".join(f"{value} {count}" for value, count in part[name].value_counts().sort_index().items())
        parts.append(f"{family} {told}")
    return "; ".join(parts)
