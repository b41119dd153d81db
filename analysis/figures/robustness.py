"""Accuracy under attacks, corruptions and other data: along their strength, and against clean accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.benchmark_scatter import LINE_SENTENCE, draw_panel, effective_robustness, line_handles
from invariscope.analysis.figures.selection import FigureRows, Snapshots, counts, select_unshifted
from invariscope.analysis.say.conditions import conditions_said
from invariscope.analysis.say.numbers import bracketed
from invariscope.analysis.tables.robust import measured_once
from invariscope.base.errors import TableError
from invariscope.base.words import counted

_NORMS = {"linf": "L∞", "l2": "L2"}
MOST = {"double": 8, "single": 4}
"""Conditions that find room on a page at a width."""


@dataclass(frozen=True)
class ConditionRows:
    """What robustness is measured under: ``rows`` with ``accuracy`` at each ``strength``, a row per checkpoint."""

    name: str
    axis: str
    rows: pd.DataFrame

    @property
    def strengths(self) -> list[float]:
        """The strengths measured, rising; one NaN where the condition has none."""
        return sorted(self.rows["strength"].unique())

    def typical(self) -> tuple[list[str], pd.DataFrame]:
        """The rows at the middle strength, and the words that name them."""
        if len(self.strengths) == 1 and np.isnan(self.strengths[0]):
            return [self.name], self.rows
        middle = self.strengths[len(self.strengths) // 2]
        return [self.name, f"{self.axis} {middle:g}"], self.rows[self.rows["strength"] == middle]


def robustness(
    frame: pd.DataFrame,
    *,
    only: Sequence[str] | None = None,
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Above: accuracy against the strength of each attack and of the corruptions, a line with band per operator.

    Below: clean against robust accuracy of every checkpoint on logit axes, at the middle strength, with the line and
    band of :func:`benchmark_scatter`. Corruptions are averaged. Accuracies are
    taken as ``(n a + ½) / (n + 1)`` for the logits, with ``n`` the images. ``only`` names conditions by their titles
    (``pgd L∞``); else the first are drawn that find room, and the caption names the others. ``frame`` is
    :func:`robustness_frame`'s. Raises :class:`TableError` when there is nothing to draw.
    """
    selection = select_unshifted(frame, "robustness", "robustness", ["accuracy"], data, snapshots)
    rows, notes = measured_once(selection.rows)
    clean = rows[rows["condition_kind"] == "clean"]
    found, more = conditions(rows)
    found, left_out = _chosen(found, only, MOST[width])
    if not found:
        raise TableError("robustness has clean accuracies only: collect `robustness` with an attack or corruptions")
    graded = [condition for condition in found if not np.isnan(condition.strengths[0])]
    against = found if len(clean) else []
    if not graded and not against:
        raise TableError("robustness has accuracies on other data sets only: collect `robustness` with clean ones too")
    most = max(len(graded), len(against))
    across = min(4 if width == "double" else 2, most)
    rows_of_curves = -(-len(graded) // across)
    down = rows_of_curves - (-len(against) // across)
    with style.theme(width):
        figure = style.new_figure(width, min(0.8 + down * (2.3 if width == "double" else 1.95), 9.7))
        axes = figure.subplots(down, across, squeeze=False)
        curves = list(axes[:rows_of_curves].ravel())
        scatters = list(axes[rows_of_curves:].ravel())
        told = [_curves(ax, condition, clean) for ax, condition in zip(curves, graded, strict=False)]
        told += [_against(ax, condition, clean) for ax, condition in zip(scatters, against, strict=False)]
        for ax in [*curves[len(graded) :], *scatters[len(against) :]]:
            ax.set_axis_off()
        for ax in curves[: len(graded) : across]:
            ax.set_ylabel(style.label("accuracy", lines=2 if width == "single" else 1))
        for ax in scatters[: len(against) : across]:
            ax.set_ylabel("robust accuracy (%)")
        handles = style.operator_handles(rows["operator"])
        style.legend_below(figure, [*handles, *(line_handles() if len(clean) else [])], width)
    figure.caption = _caption(
        selection, told, [*conditions_said(rows), *notes, *more, *left_out, *([] if len(clean) else [_NO_CLEAN])]
    )
    return figure


_NO_CLEAN = "No clean accuracy in the table: nothing to set robust accuracies against."


def _chosen(found: list[ConditionRows], only: Sequence[str] | None, most: int) -> tuple[list[ConditionRows], list[str]]:
    names = [condition.name for condition in found]
    unknown = [name for name in only or [] if name not in names]
    if unknown:
        raise TableError(f"robustness: no condition {unknown[0]!r}; the tables hold {', '.join(names)}")
    kept = [condition for condition in found if only is None or condition.name in only][:most]
    others = [name for name in names if name not in [condition.name for condition in kept]]
    return kept, [f"Not shown here: {', '.join(others)}."] if others else []


def conditions(rows: pd.DataFrame) -> tuple[list[ConditionRows], list[str]]:
    """Attacks by name and norm, the corruptions together, each other data set; and what was left out."""
    found: list[ConditionRows] = []
    attacks = rows[rows["condition_kind"] == "adversarial"]
    norms = attacks["norm"].astype(object).where(attacks["norm"].notna(), "")
    for (name, key), part in attacks.groupby([attacks["condition"], norms], sort=True):
        norm = str(key)
        pixels = norm == "linf"
        of_attack = part.assign(strength=(part["strength"] * (255 if pixels else 1)).round(6))
        title = f"{name} {_NORMS.get(norm, norm)}".strip()
        found.append(ConditionRows(title, "ε × 255 =" if pixels else "ε =", of_attack.dropna(subset=["strength"])))
    corrupted, notes = _corruptions(rows[rows["condition_kind"] == "corruption"])
    found += [corrupted] if corrupted else []
    others = rows[rows["condition_kind"] == "data"]
    found += [ConditionRows(str(name), "", part) for name, part in others.groupby("condition", sort=True)]
    return [condition for condition in found if len(condition.rows)], notes


def _corruptions(rows: pd.DataFrame) -> tuple[ConditionRows | None, list[str]]:
    """The mean over corruptions per severity, of the checkpoints that were measured under all of them."""
    if rows.empty:
        return None, []
    kinds, keys = rows["condition"].nunique(), ["checkpoint", "model"]
    cells = rows.groupby(keys)["accuracy"].transform("count")
    whole = rows[cells == cells.max()]
    notes = []
    if len(whole) < len(rows):
        lost = rows.loc[cells < cells.max(), "checkpoint"].nunique()
        notes.append(
            f"Measured under some of the corruptions only, left out of their mean: {counted(lost, 'checkpoint')}."
        )
    kept = ["operator", "cluster", "n_images"]
    means = whole.groupby([*keys, "strength"], as_index=False).agg({"accuracy": "mean", **dict.fromkeys(kept, "first")})
    return ConditionRows(f"mean of {kinds} corruptions", "severity", means), notes


def _curves(ax: Axes, condition: ConditionRows, clean: pd.DataFrame) -> str:
    ends = [float(condition.strengths[0]), float(condition.strengths[-1])]
    unshifted = clean[clean["checkpoint"].isin(condition.rows["checkpoint"])].assign(strength=0.0)
    rows = pd.concat([unshifted[["operator", "cluster", "strength", "accuracy"]], condition.rows])
    told = []
    for name, mark in style.marks(rows["operator"]).items():
        by_strength = rows[rows["operator"] == name].groupby("strength")
        found = np.array([fits.clustered_mean(part["accuracy"], part["cluster"]) for _, part in by_strength])
        at = np.array([strength for strength, _ in by_strength])
        ax.plot(
            at, found[:, 0], color=mark.color, marker=mark.marker, markersize=3.5, linewidth=1.0, label=name,
            markeredgecolor="white", markeredgewidth=0.3, zorder=3,
        )  # fmt: skip
        ax.fill_between(
            at, found[:, 1].clip(0, 1), found[:, 2].clip(0, 1), color=mark.color, alpha=0.12, linewidth=0, zorder=2
        )
        mean, low, high = found[-1]
        told.append(f"{name} {bracketed(mean, *np.clip([low, high], 0, 1))}")
    title = f"{condition.name}\nn = {condition.rows['checkpoint'].nunique()}"
    ax.set_title(title, loc="left", fontsize=style.SMALLEST_FONT, linespacing=1.3)
    ax.set_xlabel({"severity": "severity (0 = clean)"}.get(condition.axis, condition.axis.removesuffix(" =")))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    ax.set_ylim(bottom=0)
    return f"{condition.name}, strengths {ends[0]:g} to {ends[1]:g}, accuracy at the last: {'; '.join(told)}."


def _against(ax: Axes, condition: ConditionRows, clean: pd.DataFrame) -> str:
    names, robust = condition.typical()
    title = ", ".join(names)
    keys = ["checkpoint", "model"]
    rows = robust.merge(clean[[*keys, "accuracy", "n_images"]], on=keys, suffixes=("", "_clean"))
    if rows.empty:
        ax.set_axis_off()
        return f"{title}: no checkpoint has a clean accuracy as well."
    rows = rows.assign(
        robust_share=_inside(rows["accuracy"], rows["n_images"]),
        clean_share=_inside(rows["accuracy_clean"], rows["n_images_clean"]),
    )
    words = draw_panel(ax, rows, "clean_share", "robust_share", clusters="operator")
    heading = "\n".join([*names, words.r])
    ax.set_title(heading, loc="left", fontsize=style.SMALLEST_FONT, linespacing=1.3)
    ax.set_xlabel("clean accuracy (%)")
    return (
        f"{title}, against clean accuracy: {words} in {counted(rows['operator'].nunique(), 'operator')}.{_beyond(rows)}"
    )


def _beyond(rows: pd.DataFrame) -> str:
    curve = fits.logit_line(rows["clean_share"], rows["robust_share"], rows["operator"])
    if curve is None:
        return ""
    beyond = rows.assign(beyond=effective_robustness(rows["clean_share"], rows["robust_share"], curve))
    told = [
        f"{name} {bracketed(*fits.clustered_mean(part['beyond'], part['cluster']))}"
        for name, part in beyond.groupby("operator")
    ]
    return f" Effective robustness (accuracy above the line): {'; '.join(told)}."


def _inside(accuracy: pd.Series, images: pd.Series) -> pd.Series:
    return (images * accuracy + 0.5) / (images + 1)


def _caption(selection: FigureRows, told: list[str], notes: list[str]) -> str:
    rows = selection.rows
    return "\n".join(
        [
            f"Accuracy under attacks, corruptions and other data ({counts(rows)}; measured on {selection.data}). "
            "Curves: means over checkpoints with 95 % t intervals, training runs as clusters. Scatter: one point per "
            "checkpoint, at the middle strength; accuracies as (n a + ½) / (n + 1), n images.",
            f"{LINE_SENTENCE} Operators as clusters.",
            *told,
            *notes,
            *selection.notes,
        ]
    )
