"""Accuracy under attacks, corruptions and other data, as the difference from max pooling: a panel per operator."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from invariscope.analysis.designs.dose import ALIKE
from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.condition_rows import ConditionRows, chosen, conditions
from invariscope.analysis.figures.selection import FigureRows, Snapshots, counts, select_unshifted
from invariscope.analysis.say.conditions import conditions_said
from invariscope.analysis.say.numbers import bracketed
from invariscope.analysis.tables.robust import measured_once
from invariscope.base.errors import TableError
from invariscope.base.words import counted

MOST_PANELS = {"double": (8, 6), "single": (4, 6)}
"""Panels across and down that a page holds at a width."""

WRAPPED = 12
"""Letters in a line of a heading, so that it stays over its panel."""

LEVELS = "alone"
"""The heading of the panels that show the reference itself."""


def robustness(
    frame: pd.DataFrame,
    *,
    reference: str = "max",
    only: Sequence[str] | None = None,
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """A row per condition (attack, the corruptions together, other data), a column per operator: along the strength,
    accuracy minus that of the ``reference`` in percentage points; in the first column the reference's own accuracy.

    Differences are between networks of the same architecture, padding, training data and seed; thin lines are such
    pairs, thick ones their means with 95 % t intervals over training runs. Strength 0 is the clean accuracy. Where no
    network is of the reference, the operators' own accuracies are drawn. ``only`` names conditions by their titles
    (``pgd L∞``). ``frame`` is :func:`robustness_frame`'s. Raises :class:`TableError` when there is nothing to draw.
    """
    selection = select_unshifted(frame, "robustness", "robustness", ["accuracy"], data, snapshots)
    rows, notes = measured_once(selection.rows)
    found, more = conditions(rows)
    columns, most_down = MOST_PANELS[width]
    every = style.operator_order(rows["operator"])
    paired = reference in every and len(every) > 1
    names = [reference, *(name for name in every if name != reference)] if paired else every
    deep = -(-len(names) // columns)
    found, left_out = chosen(found, "robustness", only, max(most_down // deep, 1))
    if not found:
        raise TableError("robustness has clean accuracies only: collect `robustness` with an attack or corruptions")
    if len(names) > columns * most_down:
        left_out.append(f"Not shown, for want of room: {', '.join(names[columns * most_down :])}.")
        names = names[: columns * most_down]
    clean = rows[rows["condition_kind"] == "clean"]
    if clean.empty:
        left_out.append("No clean accuracy in the table: nothing at strength 0.")
    across, down = min(columns, len(names)), deep * len(found)
    told: list[str] = []
    with style.theme(width):
        figure = style.new_figure(width, 0.8 + down * (1.35 if width == "double" else 1.3))
        axes = figure.subplots(down, across, squeeze=False)
        for place, condition in enumerate(found):
            of_condition = list(axes[place * deep : (place + 1) * deep].ravel())
            told.append(_condition(of_condition, condition, clean, names, reference if paired else None, across))
            first = f"{names[0]} {LEVELS if paired else ''}".strip()
            of_condition[0].set_title("\n".join([*wrap(condition.name, WRAPPED), first]), loc="left")
        style.legend_below(figure, _handles(paired, reference), width, columns=4 if width == "double" else 2)
    figure.caption = _caption(
        selection, rows, told, [*conditions_said(rows), *notes, *more, *left_out], reference if paired else ""
    )
    return figure


def _condition(
    axes: Sequence[Axes],
    condition: ConditionRows,
    clean: pd.DataFrame,
    names: Sequence[str],
    reference: str | None,
    across: int,
) -> str:
    """The panels of one condition, and its sentence."""
    rows = _with_clean(condition, clean)
    rows, unmatched = _differences(rows, reference)
    looks, told = style.marks(names), []
    for place, (ax, name) in enumerate(zip(axes, names, strict=False)):
        level = reference is None or name == reference
        part = rows[rows["operator"] == name]
        value = "accuracy" if level else "difference"
        part = part[part[value].notna()]
        ax.set_title(name, loc="left")
        if not level:
            ax.axhline(0, color=style.GUIDE, linewidth=0.8, zorder=1, label="_zero")
        if part.empty:
            ax.text(0.5, 0.5, "no pair", transform=ax.transAxes, ha="center", color=style.GUIDE)
            continue
        told.append(_panel(ax, part, value, name, looks[name]))
        ax.tick_params(labelleft=place in (0, 1) or place % across == 0)
        ax.set_xlabel(_strength(condition) if place + across >= len(names) else "")
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    _scales(axes[: len(names)], reference is not None)
    axes[0].set_ylabel("accuracy (%)")
    if reference is not None and len(names) > 1:
        axes[1].set_ylabel(f"minus {reference} (points)", labelpad=1)
    lost = f" Without a network of {reference} to match: {counted(unmatched, 'checkpoint')}." if unmatched else ""
    return f"{condition.name}, strength {_text(condition.strengths[-1])}: {'; '.join(told)}.{lost}"


def _with_clean(condition: ConditionRows, clean: pd.DataFrame) -> pd.DataFrame:
    """The rows of a condition with the clean accuracies of its checkpoints at strength 0."""
    rows = condition.rows.assign(strength=condition.rows["strength"].fillna(1.0))
    keys = ["checkpoint", "model"]
    about = [*keys, "operator", "cluster", *ALIKE]
    unshifted = clean[clean["checkpoint"].isin(rows["checkpoint"])].assign(strength=0.0)
    return pd.concat([part[[*about, "strength", "accuracy"]] for part in (unshifted, rows)], ignore_index=True)


def _differences(rows: pd.DataFrame, reference: str | None) -> tuple[pd.DataFrame, int]:
    """Accuracies in percent, with the difference from the reference's in points; how many networks have none."""
    rows = rows.assign(
        accuracy=100 * rows["accuracy"].astype(float),
        **{name: rows[name].astype(object).where(rows[name].notna(), "") for name in ALIKE},
    )
    if reference is None:
        return rows.assign(difference=np.nan), 0
    same = [*ALIKE, "strength"]
    beside = rows[rows["operator"] == reference].groupby(same)["accuracy"].mean().rename("beside").reset_index()
    rows = rows.merge(beside, on=same, how="left")
    rows = rows.assign(difference=rows["accuracy"] - rows["beside"])
    others = rows[rows["operator"] != reference]
    matched = others.loc[others["difference"].notna(), "checkpoint"].nunique()
    return rows, others["checkpoint"].nunique() - matched


def _panel(ax: Axes, rows: pd.DataFrame, value: str, name: str, mark: style.Mark) -> str:
    for _, one in rows.groupby(["checkpoint", "model"]):
        ordered = one.sort_values("strength")
        ax.plot(ordered["strength"], ordered[value], color=mark.color, linewidth=0.5, alpha=0.5, zorder=2, label="_run")
    by_strength = list(rows.groupby("strength"))
    at = np.array([strength for strength, _ in by_strength])
    found = np.array([_mean(part, value) for _, part in by_strength])
    ax.fill_between(at, found[:, 1], found[:, 2], color=mark.color, alpha=style.BAND, linewidth=0, zorder=1.5)
    ax.plot(
        at, found[:, 0], color=mark.color, marker=mark.marker, markersize=3.5, linewidth=1.3, label=name,
        markeredgecolor="white", markeredgewidth=0.3, zorder=3,
    )  # fmt: skip
    mean, low, high = found[-1]
    return f"{name} {bracketed(mean, low, high, 1)} (n = {rows['checkpoint'].nunique()})"


def _mean(rows: pd.DataFrame, value: str) -> tuple[float, float, float]:
    if value != "accuracy":
        return fits.clustered_mean(rows[value], rows["cluster"])
    mean, low, high = fits.mean_interval(rows[value] / 100, rows["cluster"], "accuracy")
    return 100 * mean, 100 * low, 100 * high


def _scales(axes: Sequence[Axes], paired: bool) -> None:
    """One scale for the differences of a condition; the reference's accuracies have their own."""
    group = axes[1:] if paired else axes
    ends = np.array([ax.get_ylim() for ax in group if ax.lines])
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 2.5, 5, 10]))
        ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
    for ax in group:
        if len(ends):
            ax.set_ylim(ends[:, 0].min(), ends[:, 1].max())


def _strength(condition: ConditionRows) -> str:
    return {"severity": "severity", "": ""}.get(condition.axis, condition.axis.removesuffix(" ="))


def _text(strength: float) -> str:
    return "none" if np.isnan(strength) else f"{strength:g}"


def _handles(paired: bool, reference: str) -> list[Artist]:
    what = f"minus {reference}, same seed" if paired else "accuracy"
    return [
        Line2D([], [], color=style.GUIDE, linewidth=0.6, label=f"one network {what}"),
        Line2D([], [], color=style.GUIDE, linewidth=1.3, marker="o", markersize=3.5, label="mean"),
        Patch(color=style.GUIDE, alpha=style.BAND, linewidth=0, label="95 % interval"),
    ]


def _caption(selection: FigureRows, rows: pd.DataFrame, told: list[str], notes: list[str], reference: str) -> str:
    how = (
        f"First column: {reference}'s own; others: minus that of {reference} in percentage points, between networks of "
        "the same architecture, padding, training data and seed"
        if reference
        else "The operators' own, for want of networks of the reference or of others"
    )
    return "\n".join(
        [
            f"Accuracy under attacks, corruptions and other data along their strength, 0 being clean images "
            f"({counts(rows)}; measured on {selection.data}). {how}. Thick: means with 95 % t intervals, training runs "
            "as clusters (of accuracies on the logit scale). Numbers: at the greatest strength.",
            *told,
            *notes,
            *selection.notes,
        ]
    )
