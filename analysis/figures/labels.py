"""Names beside marks: each where it covers neither another name nor a mark, with a line to its mark where it is far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.text import Annotation
from numpy.typing import NDArray

from invariscope.analysis.figures import style

Array = NDArray[np.float64]

DISTANCES = (4.0, 7.0, 11.0, 16.0, 22.0, 29.0, 37.0, 46.0)
"""Points from a mark to the nearest edge of its name."""
_NEAR = 8.0
_DIRECTIONS = 16
_ROUNDS = 4
_PAD = 0.6
# Overlap, in points², is dear with names and marks that have one, cheap with the many points, forbidden outside.
_NAMES, _MARKS, _POINTS, _OUTSIDE, _LINES = 60.0, 12.0, 0.6, 300.0, 40.0


class Name(NamedTuple):
    """A text and the place of its mark, in the axes' data."""

    text: str
    x: float
    y: float
    color: str = style.INK


def place_names(
    ax: Axes, names: Sequence[Name], *, points: Array | None = None, mark: float = 3.5, top: float = 1.0
) -> list[Annotation]:
    """Write ``names`` beside their marks of radius ``mark`` (in points), around small ``points (n, 2)`` of the data, in
    the axes below the part ``top`` of its height.

    The places are those of the layout at this moment: limits and layout must be settled before. Each name takes the
    cheapest of places all around its mark, in turns, until none moves.
    """
    if not names:
        return []
    scale = 72 / ax.figure.dpi
    where = ax.transData.transform([[name.x, name.y] for name in names]) * scale
    cloud = ax.transData.transform(points) * scale if points is not None and len(points) else np.empty((0, 2))
    frame = np.array(ax.get_window_extent().extents) * scale
    frame[3] = frame[1] + top * (frame[3] - frame[1])
    written = [_written(ax, name) for name in names]
    # One for all: without, each text makes a renderer of the whole figure, of which matplotlib keeps every one.
    renderer = RendererAgg(*ax.figure.bbox.size, ax.figure.dpi)
    sizes = (
        np.array([[box.width, box.height] for box in (text.get_window_extent(renderer) for text in written)]) * scale
    )
    offers = [_offers(size, mark) for size in sizes]
    fixed = [
        _cost(anchor, offer, size, where, index, cloud, frame, mark)
        for index, (anchor, offer, size) in enumerate(zip(where, offers, sizes, strict=True))
    ]
    chosen = [int(np.argmin(cost)) for cost in fixed]
    for _ in range(_ROUNDS):
        before = list(chosen)
        for index in range(len(names)):
            others = [other for other in range(len(names)) if other != index]
            boxes = np.array([_box(where[o] + offers[o][chosen[o]], sizes[o]) for o in others]).reshape(-1, 4)
            ends = np.array([where[o] + offers[o][chosen[o]] for o in others]).reshape(-1, 2)
            mine = _boxes(where[index] + offers[index], sizes[index])
            cost = fixed[index] + _NAMES * _overlaps(mine, boxes).sum(axis=1)
            cost = cost + _LINES * _crossed(where[index], offers[index], where[others], ends)
            chosen[index] = int(np.argmin(cost))
        if chosen == before:
            break
    for text, offer, choice in zip(written, offers, chosen, strict=True):
        text.set_position(tuple(offer[choice]))
        if choice // _DIRECTIONS < np.searchsorted(DISTANCES, _NEAR):
            text.arrowprops = text.arrow_patch = None  # hidden, its path would still be made in every pass
    return written


def _written(ax: Axes, name: Name) -> Annotation:
    """The name, centred on its place, with a hidden line to its mark."""
    text = ax.annotate(
        name.text, (name.x, name.y), xytext=(0, 0), textcoords="offset points", ha="center", va="center",
        fontsize=style.SMALLEST_FONT, color=name.color, zorder=7, annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": name.color, "linewidth": 0.5, "shrinkA": 0.5, "shrinkB": 2.5},
    )  # fmt: skip
    text.set_path_effects([patheffects.withStroke(linewidth=1.6, foreground="white")])
    text.set_in_layout(False)
    return text


def _offers(size: Array, mark: float) -> Array:
    """``(distances x directions, 2)``: the centres of the name, in points from its mark."""
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    around = np.column_stack([np.cos(angles), np.sin(angles)])
    # How far the centre is from the nearest edge in this direction: half of a box with rounded corners.
    reach = np.sign(around.round(6)) * np.minimum(np.abs(around) * 1.42, 1) * size / 2
    return np.concatenate([reach + around * (mark + distance - 3.0) for distance in DISTANCES])


def _cost(
    anchor: Array, offer: Array, size: Array, marks: Array, own: int, cloud: Array, frame: Array, mark: float
) -> Array:
    boxes = _boxes(anchor + offer, size)
    cost = np.repeat(np.array(DISTANCES) ** 1.15, _DIRECTIONS)
    others = np.delete(marks, own, axis=0)
    cost = cost + _MARKS * _overlaps(boxes, np.hstack([others - mark, others + mark])).sum(axis=1)
    cost = cost + _MARKS * _overlaps(boxes, np.array([[*(anchor - mark), *(anchor + mark)]])).sum(axis=1)
    cost = cost + _POINTS * _overlaps(boxes, np.hstack([cloud - 1.5, cloud + 1.5])).sum(axis=1)
    beyond = np.maximum(frame[:2] - boxes[:, :2], 0).sum(axis=1) + np.maximum(boxes[:, 2:] - frame[2:], 0).sum(axis=1)
    return np.asarray(cost + _OUTSIDE * beyond, dtype=float)


def _box(centre: Array, size: Array) -> Array:
    return np.concatenate([centre - size / 2 - _PAD, centre + size / 2 + _PAD])


def _boxes(centres: Array, size: Array) -> Array:
    return np.hstack([centres - size / 2 - _PAD, centres + size / 2 + _PAD])


def _overlaps(one: Array, other: Array) -> Array:
    """``(n, m)`` areas that boxes ``(n, 4)`` and ``(m, 4)`` have in common."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    return np.asarray(np.prod(np.maximum(high - low, 0), axis=2), dtype=float)


def _crossed(anchor: Array, offer: Array, starts: Array, ends: Array) -> Array:
    """How many of the lines ``starts (m, 2)`` to ``ends (m, 2)`` each line from a mark to one of its offers crosses."""
    tips = (anchor + offer)[:, None]
    apart = _side(anchor, tips, starts) * _side(anchor, tips, ends) < 0
    around = _side(starts, ends, anchor) * _side(starts, ends, tips) < 0
    return np.asarray((apart & around).sum(axis=1), dtype=float)


def _side(p: Array, q: Array, r: Array) -> Array:
    """On which side of the line from ``p`` to ``q`` the point ``r`` lies, by its sign."""
    found: Array = (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])
    return found
