"""Operators drawn at random: MSB against consistency, with the fit at equal everything else and published operators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import stats

from invariscope.analysis.designs.assigned import DRAWN, HELD_OUT, LOGIT, POPULATION, SELECTIVITY
from invariscope.analysis.designs.heldout import constructed
from invariscope.analysis.designs.population import MSB_TERM, SQUARE, CellFit, EqualFit, fit_equal
from invariscope.analysis.figures import style
from invariscope.analysis.figures.assigned_rows import (
    RAIL_LINE,
    AssignedRows,
    assigned_rows,
    by_operator,
    logit_ticks,
    logits_label,
    outer,
    panels,
    rail,
    rail_handle,
    room,
)
from invariscope.analysis.figures.labels import Name, place_names
from invariscope.analysis.say.numbers import bracketed
from invariscope.analysis.stats.resampling import NOMINAL, Array
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING, PRIMARY_SCORE

RAMP = LinearSegmentedColormap.from_list("selectivity", style.RAMP)
PADDINGS = {"circular": "o", "zeros": "^"}
"""Markers of drawn operators, by the padding of their network."""
_OTHER_PADDING = "s"
_MEASURED = "selectivity"
BAND_ALPHA = 0.25


def population(
    frame: pd.DataFrame, *, score: str = PRIMARY_SCORE, data: str | None = None, width: style.Width = "double"
) -> style.CaptionedFigure:
    """Per data set and shift kind: measured MSB against the logit of ``score`` over the drawn operators.

    Colour is selectivity, measured where it was. The curve is what the fit of statement 3 (:func:`fit_equal`) says
    along assigned MSB with everything else at its mean in the cell, with a pointwise 95 % band (HC3). Published
    operators are outlined, named, and in no fit. ``frame`` is :func:`join`'s.

    Raises:
        TableError: no operator was drawn at random, or none that counts under a primary plan.
    """
    chosen = assigned_rows(
        frame, "population", [DRAWN, HELD_OUT], [PRIMARY_READING], score=score, data=data, width=width
    )
    shown = chosen.rows
    apart = _constructed(shown)
    notes: list[str] = []
    fits = _fits(chosen, notes)
    colour = _MEASURED if _is_measured(shown) else SELECTIVITY
    with style.theme(width):
        wide = width == "double"
        rows = len(chosen.kinds) if wide and len(chosen.cells) > 1 else len(chosen.cells)
        figure = style.new_figure(width, (0.8 + 2.35 * rows) if wide else (1.25 + 1.95 * rows))
        axes = panels(figure, chosen, width)
        for (cell, kind), ax in axes.items():
            _draw(ax, chosen, cell, kind, fits, colour)
            ax.set_title(_heading(chosen, cell, kind, fits, wide), loc="left", fontsize=style.SMALLEST_FONT)
            room(ax, [shown.loc[~apart, LOGIT]])
            room(ax, [shown[PRIMARY_READING]], "x", 0.03)
            if apart.any():
                held = _parts(chosen, cell, kind)[1]
                rail(ax, held[held["by_construction"]], PRIMARY_READING)
        for ax, bottom, left in outer(axes):
            logit_ticks(ax, top=RAIL_LINE if apart.any() else 1.0)
            ax.set_xlabel(style.label(PRIMARY_READING, short=not wide or len(chosen.cells) > 2) if bottom else "")
            ax.set_ylabel(logits_label(score, lines=2) if left else "")
        _colour_bar(figure, axes.values(), wide, rows)
        style.legend_below(figure, _handles(shown, fits, bool(apart.any())), width, columns=3 if wide else 2)
        figure.draw_without_rendering()
        for (cell, kind), ax in axes.items():
            _name(ax, *_parts(chosen, cell, kind), bool(apart.any()))
    figure.caption = _caption(chosen, fits, colour, notes)
    return figure


def _fits(chosen: AssignedRows, notes: list[str]) -> dict[str, EqualFit]:
    found = {}
    for kind in chosen.kinds:
        try:
            found[kind] = fit_equal(chosen.of(kind, DRAWN), score=chosen.score)
        except TableError as problem:
            notes.append(f"No fit under {kind} shifts: {problem}.")
    return found


def _is_measured(rows: pd.DataFrame) -> bool:
    return _MEASURED in rows and bool(np.isfinite(rows[_MEASURED].astype(float)).all())


def _constructed(shown: pd.DataFrame) -> pd.Series:
    """Published operators that are consistent by construction, which are set apart."""
    named = shown.assign(operator=shown["operator_spec"])
    found = [constructed(part, str(kind)) for kind, part in named.groupby("shift_kind")]
    return pd.concat(found).reindex(shown.index) & (shown[POPULATION] == HELD_OUT)


def _heading(chosen: AssignedRows, cell: str, kind: str, fits: Mapping[str, EqualFit], wide: bool) -> str:
    slopes = dict(_slopes(fits[kind])) if kind in fits else {}
    title = chosen.title(cell, kind)
    if cell not in slopes:
        return title
    return f"{title}\nslope {slopes[cell] if wide else slopes[cell].partition(', n')[0]}"


def _parts(chosen: AssignedRows, cell: str, kind: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Drawn operators of a panel, a row each, and published ones, a row per specification."""
    drawn, held = (chosen.of(kind, which) for which in (DRAWN, HELD_OUT))
    columns = [name for name in (PRIMARY_READING, LOGIT, _MEASURED) if name in held]
    return drawn[drawn["cell"] == cell], by_operator(held[held["cell"] == cell], columns, kind)


def curve_of(cell: CellFit, centre: float, points: int = 81) -> tuple[Array, Array, Array]:
    """Assigned MSB over its range in a cell, what the fit says there with the other terms at their means, and half the
    width of its 95 % interval (HC3, ``n - k`` degrees of freedom).
    """
    place = cell.at(MSB_TERM)
    x = np.linspace(cell.design[:, place].min(), cell.design[:, place].max(), points)
    at = np.tile(cell.design.mean(axis=0), (points, 1))
    at[:, place] = x
    if SQUARE in cell.names:
        at[:, cell.at(SQUARE)] = x**2
    covariance = cell.fit.influences.T @ cell.fit.influences
    error = np.sqrt(np.einsum("ij,jk,ik->i", at, covariance, at).clip(min=0))
    n, k = cell.design.shape
    return x + centre, at @ cell.fit.params, float(stats.t.ppf((1 + NOMINAL) / 2, n - k)) * error


def _draw(ax: Axes, chosen: AssignedRows, cell: str, kind: str, fits: Mapping[str, EqualFit], colour: str) -> None:
    drawn, held = _parts(chosen, cell, kind)
    look: dict[str, Any] = {"cmap": RAMP, "norm": Normalize(0, 1)}
    for padding, part in drawn.groupby("padding_mode"):
        ax.scatter(
            part[PRIMARY_READING], part[LOGIT], c=part[colour].astype(float), s=13, linewidths=0.3, zorder=2,
            marker=PADDINGS.get(str(padding), _OTHER_PADDING), edgecolors="#6f7f8c", label=f"drawn, {padding}", **look,
        )  # fmt: skip
    for found in fits[kind].cells if kind in fits else ():
        if found.name == cell and MSB_TERM in found.names:
            x, y, half = curve_of(found, fits[kind].centre)
            ax.plot(x, y, color=style.ACCENT, linewidth=1.8, zorder=4, label="fit")
            ax.fill_between(
                x, y - half, y + half, color=style.ACCENT, alpha=BAND_ALPHA, linewidth=0, zorder=1.8, label="band"
            )
    for name, path in held[~held["by_construction"]].groupby("operator"):
        for padding, of_padding in path.groupby("padding_mode"):
            if "strength" in path and of_padding["strength"].notna().all():
                doses = of_padding.sort_values("strength")
                ax.plot(
                    doses[PRIMARY_READING], doses[LOGIT], color=style.INK, linewidth=0.5, zorder=4.5,
                    label=f"_doses {name}, {padding}",
                )  # fmt: skip
        shade: dict[str, Any] = (
            {"c": path[_MEASURED].astype(float), **look} if _MEASURED in path else {"color": "white"}
        )
        ax.scatter(
            path[PRIMARY_READING], path[LOGIT], s=22, marker=style.marks([name])[str(name)].marker, linewidths=0.8,
            edgecolors=style.INK, zorder=5, label=str(name), **shade,
        )  # fmt: skip


def _name(ax: Axes, drawn: pd.DataFrame, held: pd.DataFrame, railed: bool) -> None:
    """The name of each published operator at its most solitary mark."""
    held = held[~held["by_construction"]]
    if held.empty:
        return
    places = ax.transData.transform(held[[PRIMARY_READING, LOGIT]].to_numpy(dtype=float))
    far = np.linalg.norm(places[:, None] - places[None], axis=2)
    other = held["operator"].to_numpy()[:, None] != held["operator"].to_numpy()[None]
    alone = np.where(other, far, np.inf).min(axis=1)
    best = held.assign(alone=alone).sort_values("alone", ascending=False).drop_duplicates("operator")
    names = [Name(*row) for row in best[["operator", PRIMARY_READING, LOGIT]].itertuples(index=False, name=None)]
    around = pd.concat([drawn, held[~held.index.isin(best.index)]])[[PRIMARY_READING, LOGIT]].to_numpy(dtype=float)
    curves = [np.asarray(line.get_xydata(), dtype=float) for line in ax.lines if line.get_label() == "fit"]
    place_names(ax, names, points=np.vstack([around, *curves]), top=RAIL_LINE if railed else 1.0)


def _colour_bar(figure: Figure, axes: Iterable[Axes], wide: bool, rows: int) -> None:
    mapped = ScalarMappable(Normalize(0, 1), RAMP)
    where: dict[str, Any] = (
        {"location": "right", "aspect": 32, "pad": 0.015}
        if wide
        else {"location": "top", "aspect": 45, "shrink": 0.9, "pad": 0.07 / rows}
    )
    bar = figure.colorbar(mapped, ax=list(axes), **where)
    bar.set_label("selectivity (1 = one pixel)")
    bar.outline.set_visible(False)


def _handles(shown: pd.DataFrame, fits: Mapping[str, EqualFit], railed: bool) -> list[Artist]:
    modes = sorted(shown["padding_mode"].astype(str).unique())
    grey: dict[str, Any] = {
        "color": "#9db4c6",
        "linestyle": "",
        "markersize": 4,
        "markeredgecolor": "#6f7f8c",
        "markeredgewidth": 0.4,
    }
    handles: list[Artist] = [
        Line2D(
            [], [], marker=PADDINGS.get(mode, _OTHER_PADDING), label=f"drawn, {mode.removesuffix('s')} padding", **grey
        )
        for mode in modes
    ]
    if fits:
        handles.append(Line2D([], [], color=style.ACCENT, linewidth=1.8, label="fit at equal all else"))
        handles.append(Patch(color=style.ACCENT, alpha=BAND_ALPHA, linewidth=0, label="95 % band"))
    outlined: dict[str, Any] = {"color": "white", "markeredgecolor": style.INK, "markeredgewidth": 0.8, "linestyle": ""}
    handles.append(Line2D([], [], marker="o", markersize=5, label="published, not in the fit", **outlined))
    return [*handles, rail_handle()] if railed else handles


def _caption(chosen: AssignedRows, fits: Mapping[str, EqualFit], colour: str, notes: list[str]) -> str:
    counts, slopes = [], []
    for kind in chosen.kinds:
        for cell in chosen.cells:
            drawn, held = _parts(chosen, cell, kind)
            counts.append(f"{chosen.title(cell, kind)} {len(drawn)} and {len(held)}")
        if kind in fits:
            told = [f"{chosen.named(name)} {text}" if name in chosen.cells else f"{name} {text}"
                    for name, text in _slopes(fits[kind])]  # fmt: skip
            slopes.append(f"{kind} shifts: {'; '.join(told)}.")
    what = "measured" if colour == _MEASURED else "assigned"
    return "\n".join(
        [
            f"Operators drawn at random (population P), a point per network: {style.label(PRIMARY_READING)}, as "
            f"measured, against {chosen.score}; colour: {what} selectivity. Outlined and named: published operators, "
            "held out of the fit, means over their runs; thin lines join the strengths of one under one "
            "padding; above the dashed line, at no scale: those consistent by construction. Networks drawn and "
            f"specifications held out: {'; '.join(counts)}.",
            chosen.plans(),
            "Logits are of (n c + ½) / (n + 1). Curve: least squares on assigned MSB and its square, low pass, "
            "asymmetry, root of selectivity, padding and augmentation (statement 3), with all but MSB at their means; "
            "95 % band: HC3. Slopes at the mean MSB, in logits per unit of MSB, with 95 % intervals:",
            *slopes,
            *notes,
            *chosen.notes,
        ]
    )


def _slopes(fit: EqualFit) -> Iterator[tuple[str, str]]:
    """The slope of MSB in each cell, and ``pooled`` over several, with its interval in words."""
    many = 0
    for cell in fit.cells:
        if MSB_TERM in cell.names:
            n, k = cell.design.shape
            slope, error = (float(part[cell.at(MSB_TERM)]) for part in (cell.fit.params, cell.fit.errors))
            half = float(stats.t.ppf((1 + NOMINAL) / 2, n - k)) * error
            many += 1
            yield cell.name, f"{bracketed(slope, slope - half, slope + half)}, n = {n}"
    if many > 1:
        together = fit.pooled(MSB_TERM)
        units = counted(fit.n_units, "drawn operator")
        yield "pooled", f"{bracketed(together.estimate, together.low, together.high)}, {units}"
