"""Where predictions change: agreement with the unshifted image over vertical and horizontal shift, per operator, as the
difference from max pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import SubFigure
from numpy.typing import NDArray

from invariscope.analysis.designs.dose import ALIKE
from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.selection import FigureRows, Snapshots, counts, plan_sentence, select
from invariscope.analysis.say.numbers import bracketed, number
from invariscope.analysis.tables.plans import filled
from invariscope.base.errors import TableError
from invariscope.base.words import counted

COLORS, DIFFERENCES = "viridis", "RdBu"
MOST_KINDS = 2
MOST_MAPS = {"double": 18, "single": 12}
"""Operators that find room at a width; the caption names the others."""

MOST_OF_THEM = 0.9
"""The share of differences that lies within the colour scale; those beyond have its last colours."""

_SHIFT = ["dy", "dx"]


@dataclass(frozen=True)
class _Maps:
    """The maps of one shift kind: the reference's own, and per operator the mean difference from it with its mean over
    shifts; the operators' own maps where there is no reference.
    """

    own: pd.DataFrame | None
    maps: dict[str, pd.DataFrame]
    means: dict[str, tuple[float, float, float]]
    n: dict[str, int]
    level: tuple[float, float, float]
    unmatched: int


def shift_surface(
    frame: pd.DataFrame,
    *,
    value: str = "agreement",
    reference: str = "max",
    kinds: Sequence[str] | None = None,
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Heat maps per shift kind: the ``reference`` operator's own, and of every other one the difference from it.

    ``value`` is ``agreement`` (share of images predicted as without the shift) or ``accuracy``. A difference is taken
    between networks of the same architecture, padding, training data and seed, and averaged over an operator's
    networks; over each map stands its mean over all shifts but the null shift, in percentage points, with a 95 % t
    interval over training runs. Where no network is of the reference, the operators' own maps are drawn. At most two
    kinds are drawn unless ``kinds`` names them. ``frame`` is :func:`surface_frame`'s. Raises :class:`TableError` when
    there is nothing to draw.
    """
    if "dy" in frame.columns and frame.empty:
        raise TableError("shift_surface has no rows to draw: collect `surface` first")
    selection = select(frame, "shift_surface", ["dy", "dx", value], data, snapshots)
    drawn = _kinds(selection, kinds)
    found = {kind: _of_kind(selection.kind(kind), value, reference) for kind in drawn}
    first = found[drawn[0]]
    order = sorted(first.means, key=lambda name: -first.means[name][0])
    left_out, order = order[MOST_MAPS[width] - 1 :], order[: MOST_MAPS[width] - 1]
    panels = len(order) + (first.own is not None)
    across = min(6 if width == "double" else 4, panels)
    down = -(-panels // across)
    cell = 1.42 if width == "double" else 1.12
    heights = [*(0.55 + cell * down for _ in drawn), 0.6]
    scales = _scales(list(found.values()))
    with style.theme(width):
        figure = style.new_figure(width, sum(heights))
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, kind in zip(parts[:-1], drawn, strict=True):
            title = f"{selection.title(kind)}, {_images(selection)}"
            _draw(part, title, found[kind], order, reference, scales, (down, across), width)
        _bars(parts[-1], scales, first.own is not None, reference, value)
    figure.caption = _caption(selection, drawn, found, value, reference, left_out)
    return figure


def _images(selection: FigureRows) -> str:
    """On how many images the surface is."""
    counts_ = sorted(selection.rows["n_images"].dropna().unique()) if "n_images" in selection.rows else []
    if not counts_:
        return "number of images not given"
    return f"{counts_[0]:.0f} images" if len(counts_) == 1 else f"{counts_[0]:.0f} to {counts_[-1]:.0f} images"


def _kinds(selection: FigureRows, kinds: Sequence[str] | None) -> list[str]:
    wanted = list(selection.kinds[:MOST_KINDS] if kinds is None else kinds)
    for kind in wanted:
        if kind not in selection.kinds:
            raise TableError(f"shift_surface: no rows of kind {kind!r}; the tables hold {', '.join(selection.kinds)}")
    return wanted


def _of_kind(rows: pd.DataFrame, value: str, reference: str) -> _Maps:
    rows = filled(rows).assign(**{name: rows[name].astype(object).where(rows[name].notna(), "") for name in ALIKE})
    apart = rows["operator"] == reference
    if not apart.any() or apart.all():
        means = {str(name): _over_shifts(part, value) for name, part in rows.groupby("operator")}
        n = {str(name): part["checkpoint"].nunique() for name, part in rows.groupby("operator")}
        maps = {str(name): _map(part, rows, value) for name, part in rows.groupby("operator")}
        return _Maps(None, maps, means, n, (np.nan,) * 3, 0)
    same = [*ALIKE, *_SHIFT]
    beside = rows[apart].groupby(same)[value].mean().rename("reference")
    others = rows[~apart].merge(beside.reset_index(), on=same, how="left")
    others = others.assign(difference=100 * (others[value] - others["reference"]))
    matched = others[others["difference"].notna()]
    unmatched = others["checkpoint"].nunique() - matched["checkpoint"].nunique()
    grouped = list(matched.groupby("operator"))
    return _Maps(
        _map(rows[apart], rows, value),
        {str(name): _map(part, rows, "difference") for name, part in grouped},
        {str(name): _over_shifts(part, "difference") for name, part in grouped},
        {str(name): part["checkpoint"].nunique() for name, part in grouped}
        | {reference: rows.loc[apart, "checkpoint"].nunique()},
        _over_shifts(rows[apart], value),
        unmatched,
    )


def _map(rows: pd.DataFrame, every: pd.DataFrame, value: str) -> pd.DataFrame:
    """Mean over networks, rows ``dy``, columns ``dx``, every step of the grid."""
    steps = {axis: np.unique(every[axis].to_numpy(int)) for axis in _SHIFT}
    wide = rows.pivot_table(index="dy", columns="dx", values=value, aggfunc="mean")
    return wide.reindex(index=steps["dy"], columns=steps["dx"])


def _over_shifts(rows: pd.DataFrame, value: str) -> tuple[float, float, float]:
    """The mean over all shifts but the null shift, and over networks, with its interval."""
    moved = rows[(rows["dy"] != 0) | (rows["dx"] != 0)]
    each = moved.groupby(["cluster", "checkpoint", "model"], as_index=False)[value].mean()
    return fits.mean_interval(each[value], each["cluster"], value)


def _scales(found: Sequence[_Maps]) -> tuple[Normalize, Normalize]:
    """The scale of levels up to 1, and that of differences about 0, which most of them stay within."""
    levels = [maps.own for maps in found if maps.own is not None]
    levels = levels or [one for maps in found for one in maps.maps.values()]
    lowest = min(float(np.nanmin(one.to_numpy(float))) for one in levels)
    changes = [one.to_numpy(float).ravel() for maps in found if maps.own is not None for one in maps.maps.values()]
    far = float(np.nanquantile(np.abs(np.concatenate(changes)), MOST_OF_THEM)) if changes else 0.0
    reach = max(5.0 * np.ceil(far / 5), 5.0)
    return Normalize(np.floor(20 * lowest - 1e-9) / 20, 1.0), TwoSlopeNorm(0.0, -reach, reach)


def _draw(
    part: SubFigure,
    title: str,
    found: _Maps,
    order: list[str],
    reference: str,
    scales: tuple[Normalize, Normalize],
    shape: tuple[int, int],
    width: style.Width,
) -> None:
    axes = part.subplots(*shape, squeeze=False, sharex=True, sharey=True)
    part.suptitle(title, x=0.01, ha="left", fontsize=8)
    own, change = scales
    panels = [(reference, found.own, own, COLORS)] if found.own is not None else []
    looks = (change, DIFFERENCES) if found.own is not None else (own, COLORS)
    panels += [(name, found.maps[name], *looks) for name in order if name in found.maps]
    for ax in axes.ravel()[len(panels) :]:
        ax.set_axis_off()
    for index, (ax, (name, values, scale, colors)) in enumerate(zip(axes.ravel(), panels, strict=False)):
        _heat_map(ax, values, scale, colors)
        ax.set_title(_heading(name, found, reference, width), fontsize=style.SMALLEST_FONT, linespacing=1.2)
        lowest = index + shape[1] >= len(panels)
        ax.tick_params(labelbottom=lowest, labelleft=index % shape[1] == 0)
    part.supxlabel("shift right (px)", fontsize=style.SMALLEST_FONT)
    part.supylabel("shift down (px)", fontsize=style.SMALLEST_FONT)


def _bars(part: SubFigure, scales: tuple[Normalize, Normalize], paired: bool, reference: str, value: str) -> None:
    """The colour scales, side by side below the maps."""
    own, change = scales
    bars = [(own, COLORS, "neither", f"{reference} alone: {value}" if paired else style.label(value))]
    if paired:
        bars.append((change, DIFFERENCES, "both", f"minus {reference} (percentage points)"))
    for ax, (scale, colors, extend, text) in zip(part.subplots(1, 2)[: len(bars)], bars, strict=True):
        bar = part.colorbar(ScalarMappable(scale, colors), cax=ax, orientation="horizontal", extend=extend)
        bar.set_label(text, fontsize=style.SMALLEST_FONT)
        bar.outline.set_visible(False)
        bar.ax.locator_params(nbins=5)
    for ax in part.axes[len(bars) :]:
        ax.set_axis_off()


def _heading(name: str, found: _Maps, reference: str, width: style.Width) -> str:
    level = found.own is not None and name == reference
    mean = found.level if level else found.means[name]
    digits = 2 if level or found.own is None else 0
    if width == "single":
        return f"{name}\n{number(mean[0], digits)}"
    return f"{name} (n = {found.n[name]})\n{bracketed(*mean, digits)}"


def _heat_map(ax: Axes, values: pd.DataFrame, scale: Normalize, colors: str) -> None:
    dy, dx = values.index.to_numpy(int), values.columns.to_numpy(int)
    ax.set_facecolor("#bdbdbd")
    ax.grid(visible=False)
    half_y, half_x = (0.5 * (steps[1] - steps[0]) if len(steps) > 1 else 0.5 for steps in (dy, dx))
    extent = (dx[0] - half_x, dx[-1] + half_x, dy[-1] + half_y, dy[0] - half_y)
    ax.imshow(values.to_numpy(float), extent=extent, cmap=colors, norm=scale, interpolation="nearest", aspect="equal")
    ax.set_xticks(_ends_and_zero(dx))
    ax.set_yticks(_ends_and_zero(dy))
    ax.spines[["left", "bottom"]].set_visible(False)


def _ends_and_zero(steps: Sequence[int] | NDArray[np.int_]) -> list[int]:
    return sorted({int(steps[0]), 0, int(steps[-1])})


def _caption(
    selection: FigureRows, kinds: list[str], found: dict[str, _Maps], value: str, reference: str, left_out: list[str]
) -> str:
    what = "agreement with the prediction on the unshifted image" if value == "agreement" else value
    paired = any(maps.own is not None for maps in found.values())
    how = (
        f"{reference}'s own map, and the other operators' minus it in percentage points, between networks of the same "
        "architecture, padding, training data and seed"
        if paired
        else f"the operators' own maps, for want of networks of {reference} or of others"
    )
    sentences = []
    for kind, maps in found.items():
        told = [f"{reference} {bracketed(*maps.level)}, n = {maps.n[reference]}"] if maps.own is not None else []
        digits = 2 if maps.own is None else 1
        told += [f"{name} {bracketed(*mean, digits)}, n = {maps.n[name]}" for name, mean in maps.means.items()]
        lost = f" Without a network of {reference} to match: {counted(maps.unmatched, 'checkpoint')}."
        sentences.append(f"{kind}, mean over shifts: {'; '.join(told)}.{lost if maps.unmatched else ''}")
    others = [kind for kind in selection.kinds if kind not in kinds]
    return "\n".join(
        [
            f"Mean {what} over shifts, per operator, on {_images(selection)} ({counts(selection.rows)}): {how}. Over "
            "each map: mean over all shifts but the null shift with its 95 % t interval, training runs as clusters. "
            "Operators from the highest to the lowest mean.",
            plan_sentence(selection),
            *sentences,
            *([f"Not shown, for want of room: {', '.join(left_out)}."] if left_out else []),
            *([f"Also in the tables, not drawn here: shift kinds {', '.join(others)}."] if others else []),
            *selection.notes,
        ]
    )
