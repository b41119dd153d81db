"""Published operators that took no part in the fit: predicted against measured consistency, by what predicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from invariscope.analysis.designs.assigned import DRAWN, HELD_OUT, ROTATED
from invariscope.analysis.designs.heldout import EXACT, MODELS, Prediction, predict_held_out
from invariscope.analysis.figures import style
from invariscope.analysis.figures.assigned_rows import (
    RAIL_LINE,
    AssignedRows,
    assigned_rows,
    logit_ticks,
    operators_of,
    rail,
    rail_handle,
    room,
)
from invariscope.analysis.figures.labels import Name, place_names
from invariscope.analysis.say.numbers import bracketed
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_SCORE

SHOWN = {"double": ("MSB", "see", "MSB and see"), "single": ("MSB", "see")}
"""Models that have a column at a width; the caption has the numbers of the others too."""

_WORDS = {"see": "equivariance error", "MSB and see": "both", "MSB, see and selectivity": "both and selectivity"}
_FILLS = ("full", "none", "left", "bottom")
_ERROR, _EXPLAINED = "mean absolute error in points", "R² on logits"


def heldout(
    frame: pd.DataFrame, *, score: str = PRIMARY_SCORE, data: str | None = None, width: style.Width = "double"
) -> style.CaptionedFigure:
    """Per shift kind and model: predicted against measured ``score`` of the published operators, on logit axes.

    Predictions, R² and errors are those of statement 5 (:func:`predict_held_out`). An operator is named at the mark
    that lies farthest from the diagonal. Those consistent by construction stand above the data. ``frame`` is
    :func:`join`'s.

    Raises:
        TableError: no operator was drawn at random, none is held out, or nothing was measured of both.
    """
    chosen = assigned_rows(frame, "heldout", [HELD_OUT, DRAWN, ROTATED], score=score, data=data, width=width)
    found: dict[str, Prediction] = {}
    for kind in chosen.kinds:
        try:
            found[kind] = predict_held_out(chosen.of(kind, HELD_OUT, DRAWN, ROTATED))
        except TableError as problem:
            raise TableError(f"heldout: {kind} shifts: {problem}") from problem
    known = {name for one in found.values() for name in one.networks["model"]}
    models = [name for name in SHOWN[width] if name in known]
    if not models:
        raise TableError(f"heldout: no prediction by {' or '.join(SHOWN[width])}: collect `layers` again")
    networks = pd.concat([one.networks.assign(kind=kind) for kind, one in found.items()], ignore_index=True)
    railed = networks["by_construction"] & (networks["observed"] >= EXACT)
    networks = networks.assign(name=operators_of(networks["operator"]), railed=railed)
    with style.theme(width):
        figure, axes = _layout(chosen, models, width)
        for (kind, model), ax in axes.items():
            mine = networks[(networks["kind"] == kind) & (networks["model"] == model)]
            _draw(ax, mine, chosen)
            summary = found[kind].summary
            ax.set_title(_heading(summary, kind, model, width), loc="left", fontsize=style.SMALLEST_FONT)
        _settle(axes, networks, score)
        above = [rail_handle()] if railed.any() else []
        handles = [*style.operator_handles(networks["name"]), *_handles(chosen), *above]
        style.legend_below(figure, handles, width, columns=8 if width == "double" else 3)
        style.lay_out(figure)
        for (kind, model), ax in axes.items():
            mine = networks[(networks["kind"] == kind) & (networks["model"] == model)]
            _name(ax, mine, RAIL_LINE if mine["railed"].any() else 1.0)
    figure.caption = _caption(chosen, found, networks)
    return figure


def _layout(
    chosen: AssignedRows, models: Sequence[str], width: style.Width
) -> tuple[style.CaptionedFigure, dict[tuple[str, str], Axes]]:
    kinds, wide = chosen.kinds, width == "double"
    figure = style.new_figure(width, (0.85 if wide else 1.35) + (2.7 if wide else 2.1) * len(kinds))
    axes = figure.subplots(len(kinds), len(models), squeeze=False, sharex="row", sharey="row")
    return figure, {
        (kind, model): axes[row, column] for row, kind in enumerate(kinds) for column, model in enumerate(models)
    }


def _draw(ax: Axes, networks: pd.DataFrame, chosen: AssignedRows) -> None:
    plain, looks = networks[~networks["railed"]], style.looks(networks["name"])
    for name, part in plain.groupby("name"):
        look = looks[str(name)]
        for fill, cell in zip(_FILLS, chosen.cells, strict=False):
            rows = part[part["cell"] == cell]
            ax.plot(
                rows["predicted_logit"], rows["observed_logit"], color=look.color, marker=look.marker, linestyle="",
                markersize=4.6, fillstyle=fill, markerfacecoloralt="white", markeredgewidth=0.8, zorder=3,
                label=f"{name}, {cell}",
            )  # fmt: skip


def _settle(axes: Mapping[tuple[str, str], Axes], networks: pd.DataFrame, score: str) -> None:
    """Limits, diagonal, the rail above the data, ticks and axis labels."""
    apart = networks["railed"]
    plain = networks[~apart]
    for (kind, model), ax in axes.items():
        shown = plain.loc[plain["kind"] == kind, ["predicted_logit", "observed_logit"]]
        room(ax, [shown.to_numpy(dtype=float)])
        low, high = ax.get_ylim()
        ax.set_xlim(low, high)
        ax.plot([low, high], [low, high], color=style.GUIDE, linewidth=0.8, linestyle=":", zorder=1, label="equal")
        railed = apart[networks["kind"] == kind].any()
        if railed:
            mine = networks[apart & (networks["kind"] == kind) & (networks["model"] == model)]
            once = mine.groupby("operator", as_index=False)[["predicted_logit"]].mean()
            once = once.assign(operator=operators_of(once["operator"]))
            rail(ax, once.assign(predicted_logit=once["predicted_logit"].clip(low, high)), "predicted_logit")
        logit_ticks(ax, top=RAIL_LINE if railed else 1.0)
        logit_ticks(ax, "x", gap=0.14)
        place = ax.get_subplotspec()
        if place is not None and place.is_last_row():
            ax.set_xlabel(f"predicted {score} (%)")
        if place is not None and place.is_first_col():
            ax.set_ylabel(f"measured {score} (%)")


def _name(ax: Axes, networks: pd.DataFrame, top: float) -> None:
    plain = networks[~networks["railed"]]
    if plain.empty:
        return
    missed = (plain["observed_logit"] - plain["predicted_logit"]).abs()
    first = plain.assign(missed=missed).sort_values("missed", ascending=False).drop_duplicates("name")
    looks = style.looks(networks["name"])
    names = [
        Name(name, x, y, looks[name].color)
        for name, x, y in first[["name", "predicted_logit", "observed_logit"]].itertuples(index=False, name=None)
    ]
    others = plain[~plain.index.isin(first.index)][["predicted_logit", "observed_logit"]].to_numpy(dtype=float)
    low, high = ax.get_xlim()
    diagonal = np.linspace(low, high, 40)
    place_names(ax, names, points=np.vstack([others, np.column_stack([diagonal, diagonal])]), top=top)


def _heading(summary: pd.DataFrame, kind: str, model: str, width: style.Width) -> str:
    mine = {row["measure"]: row for row in summary[summary["model"] == model].to_dict("records")}
    told = []
    row = mine.get(_EXPLAINED)
    if row is not None and np.isfinite(row["estimate"]):
        told.append(f"R² = {bracketed(row['estimate'], row['low'], row['high'])}")
    if _ERROR in mine:
        told.append(f"error {mine[_ERROR]['estimate']:.1f} points")
    joint = " " if width == "double" else "\n"
    return "\n".join([f"by {_WORDS.get(model, model)},{joint}{kind} shift", *told])


def _handles(chosen: AssignedRows) -> list[Artist]:
    shared = {"color": style.GUIDE, "marker": "o", "linestyle": "", "markersize": 4.6, "markerfacecoloralt": "white"}
    if len(chosen.cells) == 1:
        return []
    return [
        Line2D([], [], fillstyle=fill, label=chosen.named(cell), **shared)  # type: ignore[arg-type]
        for fill, cell in zip(_FILLS, chosen.cells, strict=False)
    ]


def _caption(chosen: AssignedRows, found: Mapping[str, Prediction], networks: pd.DataFrame) -> str:
    apart = sorted(networks.loc[networks["railed"], "operator"].unique())
    tied = sorted(networks.loc[networks["by_construction"] & ~networks["railed"], "operator"].unique())
    once = networks.drop_duplicates(["cell", "operator", "padding_mode"])
    several = f"; marks by data set: {', '.join(map(chosen.named, chosen.cells))}" if len(chosen.cells) > 1 else ""
    railed = "Above the dashed line, at no scale and in no number, where they are predicted on average: consistent by "
    return "\n".join(
        [
            f"Published operators (population H; {counted(once['operator'].nunique(), 'specification')}, "
            f"{len(once)} means over runs{several}), held out of every fit: predicted against measured {chosen.score}, "
            "logit axes. Predicted by least squares over the drawn operators and rotations (P and R) of a data set "
            "on what was measured of the sites, with padding and augmentation; MSB with its square (statement 5).",
            chosen.plans(),
            "R² = 1 − squared errors by squared distances from the data set's mean, on logits: below 0 where the mean "
            "predicts better. Error: mean absolute, in points. 95 % intervals: bootstrap over operators.",
            *(f"{kind} shifts: {'; '.join(_told(one.summary))}." for kind, one in found.items()),
            *([f"{railed}construction ({', '.join(apart)})."] if apart else []),
            *(
                [f"Drawn, and in no number: built to be consistent, and not, by ties ({', '.join(tied)})."]
                if tied
                else []
            ),
            *chosen.notes,
        ]
    )


def _told(summary: pd.DataFrame) -> Iterator[str]:
    for model in MODELS:
        mine = summary[summary["model"] == model]
        for row in mine.to_dict("records"):
            digits = 2 if "R²" in row["measure"] else 1
            value = bracketed(row["estimate"], row["low"], row["high"], digits)
            yield f"{row['measure']}, by {model} {value} (n = {row['n']}, {counted(row['n_units'], 'operator')})"
