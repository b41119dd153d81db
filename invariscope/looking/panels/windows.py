"""Panel (b): where the windows of one site have their maximum, and what the site samples, on the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import SubFigure

from invariscope.analysis.figures import style
from invariscope.looking.panels.image import show_pixels

if TYPE_CHECKING:
    from invariscope.looking.found import Look

MAXIMUM, SAMPLED = "#D55E00", "#0072B2"


def draw_windows(figure: SubFigure, look: Look) -> None:
    """A ring at the maximum of each window, a dot at what is sampled, a line between them, on the image."""
    ax = figure.subplots()
    picks = look.picks
    if picks is None:
        ax.set_axis_off()
        ax.set_title("(b) no site whose windows are known", loc="left")
        return
    pixels = look.shown.pixels
    scale = np.array(pixels.shape[:2]) / np.array(picks.site.input_size)
    show_pixels(ax, pixels, faint=True)
    known = np.isfinite(picks.weight)
    maxima, sampled = ((each[known] + 0.5) * scale - 0.5 for each in (picks.maxima, picks.sampled))
    stride = np.array(picks.site.stride or (1, 1))
    corners = picks.outputs * stride
    for line in np.unique(np.concatenate([corners[:, 1], corners[:, 1] + stride[1]])):
        ax.plot([line * scale[1] - 0.5] * 2, _ends(corners[:, 0], stride[0], scale[0]), color="white", linewidth=0.3)
    for line in np.unique(np.concatenate([corners[:, 0], corners[:, 0] + stride[0]])):
        ax.plot(_ends(corners[:, 1], stride[1], scale[1]), [line * scale[0] - 0.5] * 2, color="white", linewidth=0.3)
    for start, end in zip(maxima, sampled, strict=True):
        ax.plot([start[1], end[1]], [start[0], end[0]], color=style.INK, linewidth=0.6, zorder=3)
    size = 16 if len(maxima) > 80 else 26
    ax.scatter(maxima[:, 1], maxima[:, 0], s=size, facecolors="white", edgecolors=MAXIMUM, linewidths=1.1, zorder=4,
               label="maximum of the window")  # fmt: skip
    ax.scatter(sampled[:, 1], sampled[:, 0], s=size / 3, color=SAMPLED, linewidths=0, zorder=5, label="what is sampled")
    rows, columns = _ends(corners[:, 0], stride[0], scale[0]), _ends(corners[:, 1], stride[1], scale[1])
    for set_limits, (low, high), side in ((ax.set_xlim, columns, 1), (ax.set_ylim, rows[::-1], 0)):
        margin = 0.6 * scale[side] * (1 if high > low else -1)
        set_limits(low - margin, high + margin)
    told = f"mean weight on the maximum {np.nanmean(picks.weight):.2f}" if known.any() else "every window is flat"
    ax.set_title(f"(b) {picks.site.name} ({picks.site.kind}), channel {picks.channel}\n{told}", loc="left")
    figure.legend(loc="outside lower center", ncols=2, handlelength=1.0)


def _ends(starts: np.ndarray, stride: int, scale: float) -> tuple[float, float]:
    return float(starts.min() * scale - 0.5), float((starts.max() + stride) * scale - 0.5)
