"""How the variance of consistency that the factors of drawn operators explain is shared out among them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from invariscope.analysis.designs.assigned import DRAWN
from invariscope.analysis.designs.population import PLAYERS, fit_equal, shares
from invariscope.analysis.figures import style
from invariscope.analysis.figures.assigned_rows import AssignedRows, assigned_rows
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_SCORE

SEE = "see"
COLORS = {
    "MSB": "#D55E00",
    SEE: "#009E73",
    "low pass": "#56B4E9",
    "selectivity": "#0072B2",
    "position": "#CC79A7",
    "padding": "#E69F00",
    "augmentation": "#F0E442",
}
"""Okabe and Ito's colours of who shares, in the order of the bars; :data:`PLAYERS` and the equivariance error."""

NAMES = {SEE: "equivariance error (measured)", "MSB": "MSB and its square", "low pass": "low pass λ"}
UNEXPLAINED = "#f1f1f1"

LEAST_NAMED = {"double": 0.05, "single": 0.07}
"""Smaller shares have no number in their bar."""


def importance(
    frame: pd.DataFrame, *, score: str = PRIMARY_SCORE, data: str | None = None, width: style.Width = "double"
) -> style.CaptionedFigure:
    """LMG shares of the variance of the logit of ``score`` over the drawn operators: a bar per data set and shift kind,
    a part per assigned factor; and the same with the measured site equivariance error as one more, where it was.

    :func:`shares` of the fits of statements 3 and 4. ``frame`` is :func:`join`'s.

    Raises:
        TableError: no operator was drawn at random, or too few that count.
    """
    chosen = assigned_rows(frame, "importance", [DRAWN], score=score, data=data, width=width)
    found = {"assigned factors": _table(chosen, [])}
    notes = []
    if _is_measured(chosen.rows):
        found["with the measured equivariance error"] = _table(chosen, [SEE])
    else:
        notes.append("The site equivariance error `see` was not measured: no bars with it.")
    bars = [(kind, cell) for kind in chosen.kinds for cell in chosen.cells]
    with style.theme(width):
        wide = width == "double"
        deep = 0.27 * (len(bars) + len(chosen.kinds) - 1) + 0.6
        across = wide and len(found) > 1
        figure = style.new_figure(width, 0.75 + deep * (1 if across else len(found)) + (0.35 if not wide else 0.0))
        axes = figure.subplots(
            *((1, len(found)) if across else (len(found), 1)), squeeze=False, sharex=True, sharey=True
        )
        for ax, (title, table) in zip(axes.ravel(), found.items(), strict=True):
            _bars(ax, chosen, table, LEAST_NAMED[width])
            ax.set_title(title, loc="left")
        for ax in axes[-1]:
            ax.set_xlabel(f"share of variance of {score} (logits, %)")
        style.legend_below(figure, _handles(found), width, columns=4 if wide else 2)
    figure.caption = _caption(chosen, found, notes)
    return figure


def _is_measured(rows: pd.DataFrame) -> bool:
    return SEE in rows and bool(np.isfinite(rows[SEE].astype(float)).any())


def _table(chosen: AssignedRows, readings: list[str]) -> pd.DataFrame:
    """The shares of every kind and cell, with ``kind``, and ``n`` networks in the fit."""
    parts = []
    for kind in chosen.kinds:
        try:
            fit = fit_equal(chosen.of(kind, DRAWN), readings, score=chosen.score)
        except TableError as problem:
            raise TableError(f"importance: {problem}") from problem
        sizes = {cell.name: len(cell.y) for cell in fit.cells}
        found = shares(fit, readings)
        parts.append(found.assign(kind=kind, n=found["cell"].map(sizes)))
    return pd.concat(parts, ignore_index=True)


def places(chosen: AssignedRows) -> dict[tuple[str, str], float]:
    """The height of each bar, by kind and cell; kinds stand a little apart."""
    found = {}
    for group, kind in enumerate(chosen.kinds):
        for place, cell in enumerate(chosen.cells):
            found[kind, cell] = group * (len(chosen.cells) + 0.6) + place
    return found


def _bars(ax: Axes, chosen: AssignedRows, table: pd.DataFrame, least: float) -> None:
    where = places(chosen)
    for (kind, cell), y in where.items():
        mine = table[(table["kind"] == kind) & (table["cell"] == cell)]
        parts = dict(zip(mine["player"], mine["share"], strict=True))
        ax.barh(y, 100, height=0.78, color=UNEXPLAINED, linewidth=0, zorder=0, label="_unexplained")
        start = 0.0
        for player in [name for name in COLORS if name in parts]:
            share = 100 * float(parts[player])
            color = COLORS[player]
            ax.barh(y, share, left=start, height=0.78, color=color, edgecolor="white", linewidth=0.6, label=player)
            if share >= 100 * least:
                ax.text(
                    start + share / 2, y, f"{share:.0f}", ha="center", va="center", fontsize=style.SMALLEST_FONT,
                    color=_readable(color),
                )  # fmt: skip
            start += share
        if mine.empty:
            ax.text(1, y, "no fit", va="center", fontsize=style.SMALLEST_FONT, color=style.GUIDE)
        else:
            ax.text(
                start + 1.2, y, f"{start:.0f} %", va="center", fontsize=style.SMALLEST_FONT, fontweight="bold",
            )  # fmt: skip
    ax.set_xlim(0, 113)
    ax.set_xticks([0, 25, 50, 75, 100])
    ax.set_yticks(list(where.values()), [f"{chosen.named(cell)}, {kind}" for kind, cell in where])
    ax.set_ylim(max(where.values()) + 0.6, -0.6)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def _readable(color: str) -> str:
    """Ink or white, whichever stands out more against a colour (WCAG 2's relative luminance)."""
    value = np.array(to_rgb(color))
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return style.INK if float(linear @ [0.2126, 0.7152, 0.0722]) > 0.25 else "white"


def _handles(found: Mapping[str, pd.DataFrame]) -> list[Artist]:
    present = {player for table in found.values() for player in table["player"]}
    parts = [(color, NAMES.get(name, name)) for name, color in COLORS.items() if name in present]
    return [Patch(color=color, linewidth=0, label=label) for color, label in [*parts, (UNEXPLAINED, "not explained")]]


def _caption(chosen: AssignedRows, found: Mapping[str, pd.DataFrame], notes: list[str]) -> str:
    sentences = []
    for title, table in found.items():
        for (kind, cell), part in table.groupby(["kind", "cell"], sort=False):
            told = [f"{player} {100 * share:.1f}" for player, share in zip(part["player"], part["share"], strict=True)]
            whole = f"all {100 * part['r_squared'].iloc[0]:.1f}"
            many = counted(int(part["n"].iloc[0]), "network")
            sentences.append(f"{title}, {chosen.title(str(cell), str(kind))} ({many}): {', '.join([*told, whole])}.")
    return "\n".join(
        [
            f"Shares (%) of the variance of {chosen.score} (logits) over the operators drawn at random (population P): "
            "LMG, the mean gain in R² over all orders in which the factors enter; bold: R² of all. Least squares in "
            f"each data set on {', '.join(NAMES.get(name, name) for name in PLAYERS)} (statement 3) that vary there. "
            "The equivariance error is a result of the factors, measured and not assigned: what it takes is shared "
            "with them. A share says how much varies with a factor over this population; it has no sign.",
            chosen.plans(),
            *sentences,
            *notes,
            *chosen.notes,
        ]
    )
