"""Two rivals for consistency side by side: assigned MSB, and the equivariance error of the downsampling sites."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from invariscope.analysis.designs.assigned import DRAWN, LOGIT, MSB
from invariscope.analysis.designs.population import MSB_TERM, SQUARE, CellFit, EqualFit, alone, fit_equal
from invariscope.analysis.figures import style
from invariscope.analysis.figures.assigned_rows import (
    AssignedRows,
    assigned_rows,
    logit_ticks,
    logits_label,
    room,
)
from invariscope.analysis.say.numbers import bracketed, number
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_SCORE

SEE = "see"
RIVALS = {MSB: ((MSB_TERM, SQUARE), "assigned MSB"), SEE: ((SEE,), "site equivariance error")}
"""Columns that are drawn against the score, the terms of their curves, and their names."""

PADDINGS = {"circular": style.Mark("#0072B2", "o"), "zeros": style.Mark("#E69F00", "^")}
_OTHER_PADDING = style.Mark("#7A7A7A", "s")


def mechanism(
    frame: pd.DataFrame, *, score: str = PRIMARY_SCORE, data: str | None = None, width: style.Width = "double"
) -> style.CaptionedFigure:
    """Per data set and shift kind, over the drawn operators: assigned MSB and, beside it, the measured site
    equivariance error against the logit of ``score``.

    Curves and R² are those of statement 4: least squares in the cell on MSB and its square alone, and on the
    equivariance error alone (:func:`alone`). ``frame`` is :func:`join`'s.

    Raises:
        TableError: no operator was drawn at random, no ``see``, or too few operators that count.
    """
    chosen = assigned_rows(frame, "mechanism", [DRAWN], [SEE, MSB], score=score, data=data, width=width)
    fits: dict[str, EqualFit] = {}
    for kind in chosen.kinds:
        try:
            fits[kind] = fit_equal(chosen.of(kind, DRAWN), [SEE], score=chosen.score)
        except TableError as problem:
            raise TableError(f"mechanism: {problem}") from problem
    with style.theme(width):
        figure, pairs = _layout(chosen, width)
        for (cell, kind), pair in pairs.items():
            fit = next((one for one in fits[kind].cells if one.name == cell), None)
            rows = chosen.of(kind, DRAWN)
            for ax, column in zip(pair, RIVALS, strict=True):
                _draw(ax, rows[rows["cell"] == cell], fit, column, fits[kind].centre)
                room(ax, [chosen.rows[LOGIT]])
                room(ax, [chosen.rows[column]], "x", 0.04)
            named = chosen.title(cell, kind)
            pair[0].set_title(f"{named}\n{_explained(fit, MSB)}", loc="left", fontsize=style.SMALLEST_FONT)
            pair[1].set_title(_explained(fit, SEE), loc="left", fontsize=style.SMALLEST_FONT)
        _label(pairs, score, width)
        style.legend_below(figure, _handles(chosen.rows), width, columns=4 if width == "double" else 2)
    figure.caption = _caption(chosen, fits)
    return figure


def _layout(
    chosen: AssignedRows, width: style.Width
) -> tuple[style.CaptionedFigure, dict[tuple[str, str], tuple[Axes, Axes]]]:
    """A pair of axes per cell and kind: kinds beside each other across two columns, else below."""
    wide = width == "double"
    cells, kinds = chosen.cells, chosen.kinds
    rows, columns = (len(cells), len(kinds)) if wide else (len(cells) * len(kinds), 1)
    each = 2.1 if wide and columns > 1 else 2.5 if wide else 1.4 if rows > 2 else 1.8
    figure = style.new_figure(width, 0.75 + each * rows)
    axes = figure.subplots(rows, 2 * columns, squeeze=False, sharey=True)
    found = {}
    for row, cell in enumerate(cells):
        for column, kind in enumerate(kinds):
            at = (row, 2 * column) if wide else (row * len(kinds) + column, 0)
            found[cell, kind] = (axes[at], axes[at[0], at[1] + 1])
    return figure, found


def _draw(ax: Axes, rows: pd.DataFrame, fit: CellFit | None, column: str, centre: float) -> None:
    for padding, part in rows.groupby("padding_mode"):
        look = PADDINGS.get(str(padding), _OTHER_PADDING)
        ax.scatter(
            part[column].astype(float), part[LOGIT], s=9, color=look.color, marker=look.marker, alpha=0.65,
            linewidths=0.2, edgecolors="white", zorder=2, label=str(padding),
        )  # fmt: skip
    terms = RIVALS[column][0]
    if fit is None or not set(terms) <= set(fit.names):
        return
    params = alone(fit, terms)[0]
    drawn = fit.design[:, fit.at(terms[0])]
    x = np.linspace(drawn.min(), drawn.max(), 61)
    y = np.column_stack([x**power for power in range(len(params))]) @ params
    for color, linewidth, name in (("white", 3.0, "_halo"), (style.INK, 1.6, "fit")):
        ax.plot(x + (centre if column == MSB else 0.0), y, color=color, linewidth=linewidth, zorder=4, label=name)


def _explained(fit: CellFit | None, column: str) -> str:
    terms = RIVALS[column][0]
    if fit is None or terms[0] not in fit.names:
        return "no fit"
    return f"R² = {number(alone(fit, terms)[1])}"


def _label(pairs: dict[tuple[str, str], tuple[Axes, Axes]], score: str, width: style.Width) -> None:
    names = {MSB: "assigned MSB", SEE: "site equivariance\nerror" if width == "double" else "site equivariance error"}
    for pair in pairs.values():
        for ax, column in zip(pair, RIVALS, strict=True):
            logit_ticks(ax)
            place = ax.get_subplotspec()
            if place is not None and place.is_last_row():
                ax.set_xlabel(names[column])
            if place is not None and place.is_first_col():
                ax.set_ylabel(logits_label(score, lines=2) if width == "double" else f"{score}\n(%, logit scale)")
            ax.locator_params(axis="x", nbins=4)
            if place is not None and not place.is_last_row():
                ax.tick_params(labelbottom=False)


def _handles(rows: pd.DataFrame) -> list[Artist]:
    handles: list[Artist] = []
    for padding in sorted(rows["padding_mode"].astype(str).unique()):
        look = PADDINGS.get(padding, _OTHER_PADDING)
        label = f"drawn, {padding.removesuffix('s')} padding"
        handles.append(Line2D([], [], color=look.color, marker=look.marker, linestyle="", markersize=4, label=label))
    return [*handles, Line2D([], [], color=style.INK, linewidth=1.6, label="least squares on it alone")]


def _caption(chosen: AssignedRows, fits: dict[str, EqualFit]) -> str:
    return "\n".join(
        [
            "Operators drawn at random (population P), a point per network: assigned MSB, and the site equivariance "
            f"error (`see`: what is left after the best shift when a site's input is moved) as measured, against "
            f"{chosen.score}, logits of (n c + ½) / (n + 1).",
            chosen.plans(),
            "Curves and R² of each alone: least squares on MSB and its square, and on the equivariance error "
            "(statement 4). Slopes with everything assigned in one model, in logits per unit, with 95 % intervals "
            "(HC3). The equivariance error was not assigned: association, not cause.",
            *(f"{kind} shifts: {'; '.join(_told(chosen, fit))}." for kind, fit in fits.items()),
            *chosen.notes,
        ]
    )


def _told(chosen: AssignedRows, fit: EqualFit) -> Iterator[str]:
    for cell in fit.cells:
        name = chosen.named(cell.name)
        explained = [f"{words} {_explained(cell, column)}" for column, (_, words) in RIVALS.items()]
        yield f"{name} {', '.join(explained)} (n = {len(cell.y)})"
    terms = [term for term in (SEE, MSB_TERM) if any(term in cell.names for cell in fit.cells)]
    for term in terms:
        found = fit.pooled(term)
        which = "equivariance error" if term == SEE else "MSB given it"
        together = "pooled slope" if len(fit.cells) > 1 else "slope"
        yield f"{together} of {which} {bracketed(found.estimate, found.low, found.high)}"
    yield counted(fit.n_units, "drawn operator")
