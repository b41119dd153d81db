"""Operators drawn at random: MSB against consistency, with the fit at equal everything else and published operators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
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
from invariscope.analysis.figures.alone import AloneFit, alone_fit
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
from invariscope.analysis.say.numbers import bracketed, number
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
    frame: pd.DataFrame,
    *,
    reading: str = PRIMARY_READING,
    score: str = PRIMARY_SCORE,
    data: str | None = None,
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Per data set and shift kind: the measured ``reading`` against the logit of ``score`` over the drawn operators.

    Colour is selectivity, measured where it was; MSB where selectivity is drawn across. Along MSB the curve is what the
    fit of statement 3 (:func:`fit_equal`) says along assigned MSB with everything else at its mean in the cell, with a
    pointwise 95 % band (HC3). Along another reading it is that of the reading and its square alone
    (:func:`alone_fit`): exploratory, and of no statement. Published operators are outlined, named, and in no fit.
    ``frame`` is :func:`join`'s.

    Raises:
        TableError: no operator was drawn at random, or none that counts under a primary plan.
    """
    chosen = assigned_rows(frame, "population", [DRAWN, HELD_OUT], [reading], score=score, data=data, width=width)
    shown = chosen.rows
    apart = _constructed(shown)
    notes: list[str] = []
    fits: Fits = _fits(chosen, notes) if reading == PRIMARY_READING else _alone(chosen, reading)
    shade = _MEASURED if reading != _MEASURED else PRIMARY_READING
    across = _Across(reading, shade, shade if shade in shown and _is_known(shown[shade]) else SELECTIVITY)
    with style.theme(width):
        wide = width == "double"
        rows = len(chosen.kinds) if wide and len(chosen.cells) > 1 else len(chosen.cells)
        figure = style.new_figure(width, (0.8 + 2.35 * rows) if wide else (1.25 + 1.95 * rows))
        axes = panels(figure, chosen, width)
        held_of = {panel: _parts(chosen, *panel, across)[1] for panel in axes}
        reach = [shown.loc[~apart, LOGIT], *(held.loc[~held["by_construction"], LOGIT] for held in held_of.values())]
        for (cell, kind), ax in axes.items():
            _draw(ax, chosen, cell, kind, fits, across)
            ax.set_title(_heading(chosen, cell, kind, fits, wide), loc="left", fontsize=style.SMALLEST_FONT)
            room(ax, reach)
            room(ax, [shown[reading]], "x", 0.03)
            if apart.any():
                held = held_of[cell, kind]
                rail(ax, held[held["by_construction"]], reading)
        for ax, bottom, left in outer(axes):
            logit_ticks(ax, top=RAIL_LINE if apart.any() else 1.0)
            ax.set_xlabel(style.label(reading, short=not wide or len(chosen.cells) > 2) if bottom else "")
            ax.set_ylabel(logits_label(score, lines=2) if left else "")
        _colour_bar(figure, axes.values(), wide, rows, shade)
        style.legend_below(figure, _handles(shown, fits, bool(apart.any()), reading), width, columns=3 if wide else 2)
        style.lay_out(figure)
        for (cell, kind), ax in axes.items():
            _name(ax, *_parts(chosen, cell, kind, across), reading, bool(apart.any()))
    figure.caption = _caption(chosen, fits, across, notes)
    return figure


@dataclass(frozen=True)
class _Across:
    """The reading that is drawn across, that of the colours, and the column that colours drawn operators."""

    reading: str
    shade: str
    colour: str


Fits = Mapping[str, EqualFit] | Mapping[tuple[str, str], AloneFit]
"""Fits at equal everything else per shift kind, or of one reading alone per cell and kind."""


def _alone(chosen: AssignedRows, reading: str) -> dict[tuple[str, str], AloneFit]:
    found = {}
    for kind in chosen.kinds:
        rows = chosen.of(kind, DRAWN)
        for cell in chosen.cells:
            part = rows[rows["cell"] == cell]
            fit = alone_fit(part[reading], part[LOGIT])
            if fit is not None:
                found[cell, kind] = fit
    return found


def _fits(chosen: AssignedRows, notes: list[str]) -> dict[str, EqualFit]:
    found = {}
    for kind in chosen.kinds:
        try:
            found[kind] = fit_equal(chosen.of(kind, DRAWN), score=chosen.score)
        except TableError as problem:
            notes.append(f"No fit under {kind} shifts: {problem}.")
    return found


def _is_known(values: pd.Series) -> bool:
    return bool(np.isfinite(values.astype(float)).all())


def _constructed(shown: pd.DataFrame) -> pd.Series:
    """Published operators that are consistent by construction, which are set apart."""
    named = shown.assign(operator=shown["operator_spec"])
    found = [constructed(part, str(kind)) for kind, part in named.groupby("shift_kind")]
    return pd.concat(found).reindex(shown.index) & (shown[POPULATION] == HELD_OUT)


def _heading(chosen: AssignedRows, cell: str, kind: str, fits: Fits, wide: bool) -> str:
    title = chosen.title(cell, kind)
    found = _fit_of(fits, cell, kind)
    if isinstance(found, AloneFit):
        return f"{title}\nR² = {number(found.r_squared)}"
    slopes = dict(_slopes(found)) if found is not None else {}
    if cell not in slopes:
        return title
    return f"{title}\nslope {slopes[cell] if wide else slopes[cell].partition(', n')[0]}"


def _fit_of(fits: Any, cell: str, kind: str) -> EqualFit | AloneFit | None:
    """The fit that a panel shows."""
    found: EqualFit | AloneFit | None = fits.get(kind, fits.get((cell, kind)))
    return found


def _parts(chosen: AssignedRows, cell: str, kind: str, across: _Across) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Drawn operators of a panel, a row each, and published ones, a row per specification."""
    drawn, held = (chosen.of(kind, which) for which in (DRAWN, HELD_OUT))
    columns = [name for name in (across.reading, LOGIT, across.shade) if name in held]
    return drawn[drawn["cell"] == cell], by_operator(held[held["cell"] == cell], columns, kind, chosen.score)


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


def _draw(ax: Axes, chosen: AssignedRows, cell: str, kind: str, fits: Fits, across: _Across) -> None:
    drawn, held = _parts(chosen, cell, kind, across)
    reading, shade_of = across.reading, across.shade
    look: dict[str, Any] = {"cmap": RAMP, "norm": Normalize(0, 1)}
    for padding, part in drawn.groupby("padding_mode"):
        ax.scatter(
            part[reading], part[LOGIT], c=part[across.colour].astype(float), s=13, linewidths=0.3, zorder=2,
            marker=PADDINGS.get(str(padding), _OTHER_PADDING), edgecolors="#6f7f8c", label=f"drawn, {padding}", **look,
        )  # fmt: skip
    for x, y, half in _curves(_fit_of(fits, cell, kind), cell):
        ax.plot(x, y, color=style.ACCENT, linewidth=1.8, zorder=4, label="fit")
        ax.fill_between(
            x, y - half, y + half, color=style.ACCENT, alpha=BAND_ALPHA, linewidth=0, zorder=1.8, label="band"
        )
    looks = style.looks(held["operator"])
    for name, path in held[~held["by_construction"]].groupby("operator"):
        for padding, of_padding in path.groupby("padding_mode"):
            if "strength" in path and of_padding["strength"].notna().all():
                doses = of_padding.sort_values("strength")
                ax.plot(
                    doses[reading], doses[LOGIT], color=style.INK, linewidth=0.5, zorder=4.5,
                    label=f"_doses {name}, {padding}",
                )  # fmt: skip
        shade: dict[str, Any] = {"c": path[shade_of].astype(float), **look} if shade_of in path else {"color": "white"}
        ax.scatter(
            path[reading], path[LOGIT], s=22, marker=looks[str(name)].marker, linewidths=0.8,
            edgecolors=style.INK, zorder=5, label=str(name), **shade,
        )  # fmt: skip


def _curves(found: EqualFit | AloneFit | None, cell: str) -> Iterator[tuple[Array, Array, Array]]:
    """The curve of a cell with half the width of its band, where there is one."""
    if isinstance(found, AloneFit):
        yield found.x, found.y, found.half
    elif found is not None:
        for one in found.cells:
            if one.name == cell and MSB_TERM in one.names:
                yield curve_of(one, found.centre)


def _name(ax: Axes, drawn: pd.DataFrame, held: pd.DataFrame, reading: str, railed: bool) -> None:
    """The name of each published operator at its most solitary mark."""
    held = held[~held["by_construction"]]
    if held.empty:
        return
    places = ax.transData.transform(held[[reading, LOGIT]].to_numpy(dtype=float))
    far = np.linalg.norm(places[:, None] - places[None], axis=2)
    other = held["operator"].to_numpy()[:, None] != held["operator"].to_numpy()[None]
    alone = np.where(other, far, np.inf).min(axis=1)
    best = held.assign(alone=alone).sort_values("alone", ascending=False).drop_duplicates("operator")
    names = [Name(*row) for row in best[["operator", reading, LOGIT]].itertuples(index=False, name=None)]
    around = pd.concat([drawn, held[~held.index.isin(best.index)]])[[reading, LOGIT]].to_numpy(dtype=float)
    curves = [np.asarray(line.get_xydata(), dtype=float) for line in ax.lines if line.get_label() == "fit"]
    place_names(ax, names, points=np.vstack([around, *curves]), top=RAIL_LINE if railed else 1.0)


def _colour_bar(figure: Figure, axes: Iterable[Axes], wide: bool, rows: int, shade: str) -> None:
    mapped = ScalarMappable(Normalize(0, 1), RAMP)
    where: dict[str, Any] = (
        {"location": "right", "aspect": 32, "pad": 0.015}
        if wide
        else {"location": "top", "aspect": 45, "shrink": 0.9, "pad": 0.07 / rows}
    )
    bar = figure.colorbar(mapped, ax=list(axes), **where)
    bar.set_label(style.label(shade))
    bar.outline.set_visible(False)


def _handles(shown: pd.DataFrame, fits: Fits, railed: bool, reading: str) -> list[Artist]:
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
        name = "fit at equal all else" if reading == PRIMARY_READING else f"fit of {reading.replace('_', ' ')} alone"
        handles.append(Line2D([], [], color=style.ACCENT, linewidth=1.8, label=name))
        handles.append(Patch(color=style.ACCENT, alpha=BAND_ALPHA, linewidth=0, label="95 % band"))
    outlined: dict[str, Any] = {"color": "white", "markeredgecolor": style.INK, "markeredgewidth": 0.8, "linestyle": ""}
    handles.append(Line2D([], [], marker="o", markersize=5, label="published, not in the fit", **outlined))
    return [*handles, rail_handle()] if railed else handles


def _caption(chosen: AssignedRows, fits: Any, across: _Across, notes: list[str]) -> str:
    counts = []
    for kind in chosen.kinds:
        for cell in chosen.cells:
            drawn, held = _parts(chosen, cell, kind, across)
            counts.append(f"{chosen.title(cell, kind)} {len(drawn)} and {len(held)}")
    what = (
        "assigned selectivity" if across.colour == SELECTIVITY else f"measured {style.label(across.shade, short=True)}"
    )
    return "\n".join(
        [
            f"Operators drawn at random (population P), a point per network: {style.label(across.reading)}, as "
            f"measured, against {chosen.score}; colour: {what}. Outlined and named: published "
            "operators, held out of the fit, means over their runs; thin lines join the strengths of one under one "
            "padding; above the dashed line, at no scale: those consistent by construction. Networks drawn and "
            f"specifications held out: {'; '.join(counts)}.",
            chosen.plans(),
            *(_equal_told(chosen, fits) if across.reading == PRIMARY_READING else _alone_told(chosen, fits, across)),
            *notes,
            *chosen.notes,
        ]
    )


def _equal_told(chosen: AssignedRows, fits: Mapping[str, EqualFit]) -> list[str]:
    slopes = []
    for kind in chosen.kinds:
        if kind in fits:
            told = [f"{chosen.named(name)} {text}" if name in chosen.cells else f"{name} {text}"
                    for name, text in _slopes(fits[kind])]  # fmt: skip
            slopes.append(f"{kind} shifts: {'; '.join(told)}.")
    return [
        "Logits are of (n c + ½) / (n + 1). Curve: least squares on assigned MSB and its square, low pass, "
        "asymmetry, root of selectivity, padding and augmentation (statement 3), with all but MSB at their means; "
        "95 % band: HC3. Slopes at the mean MSB, in logits per unit of MSB, with 95 % intervals:",
        *slopes,
    ]


def _alone_told(chosen: AssignedRows, fits: Mapping[tuple[str, str], AloneFit], across: _Across) -> list[str]:
    told = [f"{chosen.title(*key)} {number(fit.r_squared)} (n = {fit.n})" for key, fit in fits.items()]
    return [
        f"Exploratory, and of no statement fixed in advance: {across.reading} was measured, not assigned. Logits are "
        f"of (n c + ½) / (n + 1). Curve: least squares on {across.reading} and its square alone; 95 % band: HC3. R² of "
        f"it: {'; '.join(told) or 'no fit'}."
    ]


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
