"""Clean against robust accuracy of every checkpoint on logit axes, an attack or the corruptions at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.benchmark_scatter import LINE_SENTENCE, draw_panel, effective_robustness, line_handles
from invariscope.analysis.figures.condition_rows import ConditionRows, chosen, conditions
from invariscope.analysis.figures.selection import Snapshots, counts, select_unshifted
from invariscope.analysis.say.conditions import conditions_said
from invariscope.analysis.say.numbers import bracketed
from invariscope.analysis.tables.robust import measured_once
from invariscope.base.errors import TableError
from invariscope.base.words import counted

MOST = {"double": 12, "single": 8}
"""Conditions that find room on a page at a width."""


def clean_accuracy(
    frame: pd.DataFrame,
    *,
    only: Sequence[str] | None = None,
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Clean against robust accuracy, at the middle strength of each condition, with the line and band of
    :func:`benchmark_scatter`.

    Corruptions are averaged. Accuracies are taken as ``(n a + ½) / (n + 1)`` for the logits, with ``n`` the images.
    ``only`` names conditions by their titles (``pgd L∞``); else the first are drawn that find room, and the caption
    names the others. ``frame`` is :func:`robustness_frame`'s. Raises :class:`TableError` when there is nothing to draw.
    """
    selection = select_unshifted(frame, "clean_accuracy", "robustness", ["accuracy"], data, snapshots)
    rows, notes = measured_once(selection.rows)
    clean = rows[rows["condition_kind"] == "clean"]
    found, more = conditions(rows)
    found, left_out = chosen(found, "clean_accuracy", only, MOST[width])
    if not found:
        raise TableError("clean_accuracy has clean accuracies only: collect `robustness` with an attack or corruptions")
    if clean.empty:
        raise TableError("clean_accuracy has no clean accuracies to draw against: collect `robustness` with them too")
    across = min(4 if width == "double" else 2, len(found))
    down = -(-len(found) // across)
    with style.theme(width):
        figure = style.new_figure(width, 0.8 + down * (2.3 if width == "double" else 1.95))
        axes = figure.subplots(down, across, squeeze=False)
        told = [_against(ax, condition, clean) for ax, condition in zip(axes.ravel(), found, strict=False)]
        for ax in axes.ravel()[len(found) :]:
            ax.set_axis_off()
        for ax in axes[:, 0]:
            ax.set_ylabel("robust accuracy (%)")
        style.legend_below(figure, [*style.operator_handles(rows["operator"]), *line_handles()], width)
    figure.caption = "\n".join(
        [
            f"Clean against robust accuracy: one point per checkpoint, at the middle strength ({counts(rows)}; "
            f"measured on {selection.data}); accuracies as (n a + ½) / (n + 1), n images.",
            f"{LINE_SENTENCE} Operators as clusters.",
            *told,
            *conditions_said(rows),
            *notes,
            *more,
            *left_out,
            *selection.notes,
        ]
    )
    return figure


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
    ax.set_title("\n".join(names), loc="left", fontsize=style.SMALLEST_FONT, linespacing=1.3)
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
