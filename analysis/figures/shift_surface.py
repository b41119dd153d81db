"""Where predictions change: agreement with the unshifted image over vertical and horizontal shift, per operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import SubFigure
from numpy.typing import NDArray

from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.selection import FigureRows, Snapshots, counts, plan_sentence, select
from invariscope.analysis.say.numbers import bracketed, number
from invariscope.base.errors import TableError

COLORS = "viridis"
MOST_KINDS = 2


class Mean(NamedTuple):
    """The mean of an operator's checkpoints, its 95 % interval, and how many they are."""

    value: float
    low: float
    high: float
    n: int

    @property
    def text(self) -> str:
        return bracketed(self.value, self.low, self.high)


def shift_surface(
    frame: pd.DataFrame,
    *,
    value: str = "agreement",
    kinds: Sequence[str] | None = None,
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """A heat map per operator and shift kind, and three of them as 3-D surfaces, on one colour scale.

    ``value`` is ``agreement`` (share of images predicted as without the shift) or ``accuracy``, averaged over an
    operator's checkpoints; over each map its mean over all shifts but the null shift, with a 95 % t interval over
    training runs. At most two kinds are drawn unless ``kinds`` names them. ``frame`` is
    :func:`surface_frame`'s. Raises :class:`TableError` when there is nothing to draw.
    """
    if "dy" in frame.columns and frame.empty:
        raise TableError("shift_surface has no rows to draw: collect `surface` first")
    selection = select(frame, "shift_surface", ["dy", "dx", value], data, snapshots)
    drawn = _kinds(selection, kinds)
    maps = {kind: _maps(selection.kind(kind), value) for kind in drawn}
    means = {kind: _means(selection.kind(kind), value) for kind in drawn}
    order = sorted(means[drawn[0]], key=lambda name: -means[drawn[0]][name].value)
    scale = Normalize(
        np.floor(20 * min(m.min().min() for of_kind in maps.values() for m in of_kind.values()) - 1e-9) / 20, 1.0
    )
    across = min(6 if width == "double" else 4, len(order))
    down = -(-len(order) // across)
    cell = 1.38 if width == "double" else 0.88
    heights = [*(0.7 + cell * down for _ in drawn), 2.3 if width == "double" else 1.8]
    with style.theme(width):
        figure = style.new_figure(width, sum(heights))
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, kind in zip(parts[:-1], drawn, strict=True):
            _heat_maps(part, selection, kind, order, maps[kind], means[kind], scale, (down, across), value, width)
        _surfaces(
            parts[-1],
            selection.title(drawn[0]),
            _ends(order, 3 if width == "double" else 2),
            maps[drawn[0]],
            scale,
            value,
        )
    figure.caption = _caption(selection, drawn, order, means, value)
    return figure


def _kinds(selection: FigureRows, kinds: Sequence[str] | None) -> list[str]:
    wanted = list(selection.kinds[:MOST_KINDS] if kinds is None else kinds)
    for kind in wanted:
        if kind not in selection.kinds:
            raise TableError(f"shift_surface: no rows of kind {kind!r}; the tables hold {', '.join(selection.kinds)}")
    return wanted


def _maps(rows: pd.DataFrame, value: str) -> dict[str, pd.DataFrame]:
    """Per operator: mean over checkpoints, rows ``dy``, columns ``dx``, every step of the grid."""
    steps = {axis: np.unique(rows[axis].to_numpy(int)) for axis in ("dy", "dx")}
    return {
        str(name): of_operator.pivot_table(index="dy", columns="dx", values=value, aggfunc="mean").reindex(
            index=steps["dy"], columns=steps["dx"]
        )
        for name, of_operator in rows.groupby("operator")
    }


def _means(rows: pd.DataFrame, value: str) -> dict[str, Mean]:
    """Per operator, over checkpoints and all shifts but the null shift."""
    moved = rows[(rows["dy"] != 0) | (rows["dx"] != 0)]
    each = moved.groupby(["operator", "cluster", "checkpoint", "model"], as_index=False)[value].mean()
    return {
        str(name): Mean(*_clipped(fits.clustered_mean(of_operator[value], of_operator["cluster"])), len(of_operator))
        for name, of_operator in each.groupby("operator")
    }


def _clipped(estimate: tuple[float, float, float]) -> tuple[float, float, float]:
    """A mean with its interval, cut at the ends of a share."""
    mean, low, high = estimate
    return mean, float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))


def _heat_maps(
    part: SubFigure,
    selection: FigureRows,
    kind: str,
    order: list[str],
    maps: dict[str, pd.DataFrame],
    means: dict[str, Mean],
    scale: Normalize,
    shape: tuple[int, int],
    value: str,
    width: style.Width,
) -> None:
    axes = part.subplots(*shape, squeeze=False, sharex=True, sharey=True)
    part.suptitle(selection.title(kind), x=0.01, ha="left", fontsize=8)
    names = [name for name in order if name in maps]
    for ax in axes.ravel()[len(names) :]:
        ax.set_axis_off()
    for index, (ax, name) in enumerate(zip(axes.ravel(), names, strict=False)):
        _heat_map(ax, maps[name], scale)
        mean = means[name]
        lines = [f"{name} (n = {mean.n})", mean.text] if width == "double" else [name, number(mean.value)]
        ax.set_title("\n".join(lines), fontsize=style.SMALLEST_FONT, linespacing=1.2)
        lowest = index + shape[1] >= len(names)
        ax.tick_params(labelbottom=lowest, labelleft=index % shape[1] == 0)
    part.supxlabel("shift right (px)", fontsize=style.SMALLEST_FONT)
    part.supylabel("shift down (px)", fontsize=style.SMALLEST_FONT)
    bar = part.colorbar(ScalarMappable(scale, COLORS), ax=axes, location="right", aspect=25, pad=0.01)
    bar.set_label(style.label(value, lines=2), fontsize=style.SMALLEST_FONT)
    bar.outline.set_visible(False)


def _heat_map(ax: Axes, values: pd.DataFrame, scale: Normalize) -> None:
    dy, dx = values.index.to_numpy(int), values.columns.to_numpy(int)
    ax.set_facecolor("#d9d9d9")
    ax.grid(visible=False)
    half_y, half_x = (0.5 * (steps[1] - steps[0]) if len(steps) > 1 else 0.5 for steps in (dy, dx))
    extent = (dx[0] - half_x, dx[-1] + half_x, dy[-1] + half_y, dy[0] - half_y)
    ax.imshow(values.to_numpy(), extent=extent, cmap=COLORS, norm=scale, interpolation="nearest", aspect="equal")
    ax.set_xticks(_ends_and_zero(dx))
    ax.set_yticks(_ends_and_zero(dy))
    ax.spines[["left", "bottom"]].set_visible(False)


def _ends_and_zero(steps: Sequence[int] | NDArray[np.int_]) -> list[int]:
    return sorted({int(steps[0]), 0, int(steps[-1])})


def _ends(order: list[str], count: int) -> list[str]:
    """The operators drawn in 3-D: highest, middle and lowest mean, or as many of them as there are."""
    wanted = [0, len(order) // 2, len(order) - 1] if count == 3 else [0, len(order) - 1]
    return list(dict.fromkeys(order[index] for index in wanted))


def _surfaces(
    part: SubFigure, title: str, names: list[str], maps: dict[str, pd.DataFrame], scale: Normalize, value: str
) -> None:
    part.suptitle(f"{title}: highest to lowest mean", x=0.01, ha="left", fontsize=8)
    for index, name in enumerate(names):
        ax = part.add_subplot(1, len(names), index + 1, projection="3d")
        dx, dy = np.meshgrid(maps[name].columns, maps[name].index)
        ax.plot_surface(
            dx, dy, maps[name].to_numpy(), cmap=COLORS, norm=scale, rstride=1, cstride=1, linewidth=0.2,
            edgecolor="#ffffff80",
        )  # fmt: skip
        ax.set(zlim=(scale.vmin, 1.0), xlabel="right (px)", ylabel="down (px)", zlabel=value)
        ax.set_title(name, fontsize=style.SMALLEST_FONT, y=0.97)
        ax.set_xticks(_ends_and_zero(maps[name].columns.to_numpy(int)))
        ax.set_yticks(_ends_and_zero(maps[name].index.to_numpy(int)))
        ax.view_init(elev=26, azim=-58)
        ax.tick_params(pad=-3)
        for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
            axis.labelpad = -8
            axis.set_pane_color((1, 1, 1, 0))
        ax.set_box_aspect((1, 1, 0.75), zoom=0.9 if len(names) > 2 else 0.8)
        ax.locator_params(axis="z", nbins=5 if len(names) > 2 else 3)


def _caption(
    selection: FigureRows, kinds: list[str], order: list[str], means: dict[str, dict[str, Mean]], value: str
) -> str:
    rows = selection.rows
    left_out = [kind for kind in selection.kinds if kind not in kinds]
    sentences = [
        f"{kind}, {name}: mean {means[kind][name].text}, n = {means[kind][name].n}."
        for kind in kinds
        for name in order
        if name in means[kind]
    ]
    what = "agreement with the prediction on the unshifted image" if value == "agreement" else value
    return "\n".join(
        [
            f"Mean {what} over shifts, per operator, on one colour scale ({counts(rows)}). Over each map: mean over "
            "all shifts but the null shift with its 95 % t interval, training runs as clusters. Below: operators from "
            "the highest to the lowest mean as surfaces.",
            plan_sentence(selection),
            *sentences,
            *([f"Also in the tables, not drawn here: shift kinds {', '.join(left_out)}."] if left_out else []),
            *selection.notes,
        ]
    )
