"""Panel (a): one image, and what the network says of it as it moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import SubFigure

from invariscope.analysis.figures import style
from invariscope.collectors.shift_kinds import SHIFT_KINDS

if TYPE_CHECKING:
    from invariscope.looking.found import Look, Shown

MAP = LinearSegmentedColormap.from_list("look", ["#ffffff", *style.RAMP[:4]])
FLIP = style.ACCENT
MOST_NAMED = 14
"""Letters of a class's name that are drawn."""


def short(name: str) -> str:
    """A class's name, cut."""
    return name if len(name) <= MOST_NAMED else f"{name[: MOST_NAMED - 1]}…"


def draw_image(figure: SubFigure, look: Look) -> None:
    """The image, the probability along both axes, the map over all shifts."""
    shown = look.shown
    image, lines, map_ = figure.subplots(1, 3, width_ratios=[1, 1.45, 1.25])
    show_pixels(image, shown.pixels)
    label = f"\nlabel {short(look.named(shown.label))}" if look.has_labels else ""
    image.set_title(
        f"(a) predicted {short(look.named(shown.prediction))}, {100 * shown.probability:.3g} %{label}", loc="left"
    )
    _lines(lines, shown)
    _map(map_, figure, look)


def show_pixels(ax: Axes, pixels: np.ndarray, *, faint: bool = False) -> None:
    """An image without axes; ``faint`` where something is drawn on it."""
    grey = pixels.mean(2) if faint and pixels.ndim == 3 else pixels
    ax.imshow(grey, cmap="gray", vmin=-0.6 if faint else 0, vmax=1, interpolation="nearest", label="image")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _lines(ax: Axes, shown: Shown) -> None:
    centre = len(shown.steps) // 2
    moves = {"right": (shown.probabilities[centre], shown.flips[centre], "-"),
             "down": (shown.probabilities[:, centre], shown.flips[:, centre], "--")}  # fmt: skip
    color = SHIFT_KINDS[shown.kind].color
    for name, (values, flips, dashes) in moves.items():
        ax.plot(shown.steps, values, linestyle=dashes, color=color, label=f"moved {name}", zorder=2)
        ax.plot(shown.steps[flips], values[flips], "x", color=FLIP, markersize=5, zorder=3, label=f"_flips {name}")
    ax.plot([], [], "x", color=FLIP, markersize=5, label="another class")
    ax.set_ylim(-0.03 * _top(shown), 1.03 * _top(shown))
    ax.set_xlabel(f"{SHIFT_KINDS[shown.kind].words} (px)")
    ax.set_ylabel("probability of the\nclass predicted unshifted")
    ax.legend(loc="best", handlelength=1.6)


def _top(shown: Shown) -> float:
    """The end of the axis of probabilities: 1, but for networks that are sure of nothing."""
    most = float(shown.probabilities.max())
    return 1.0 if most > 0.25 else max(most, 1e-6)


def _map(ax: Axes, figure: SubFigure, look: Look) -> None:
    shown = look.shown
    steps = shown.steps
    half = (steps[1] - steps[0]) / 2
    extent = (steps[0] - half, steps[-1] + half, steps[-1] + half, steps[0] - half)
    drawn = ax.imshow(shown.probabilities, cmap=MAP, vmin=0, vmax=_top(shown), extent=extent, interpolation="nearest")
    down, right = np.nonzero(shown.flips)
    ax.plot(steps[right], steps[down], "x", color=FLIP, markersize=4, markeredgewidth=1.2, label="another class")
    ax.plot(0, 0, "s", markerfacecolor="none", markeredgecolor=style.INK, markersize=6, label="unshifted")
    ax.grid(visible=False)
    ax.set_xlabel("right (px)")
    ax.set_ylabel("down (px)")
    share = shown.flips.mean()
    others, counts = np.unique(shown.predictions[shown.flips], return_counts=True)
    most = f", mostly {short(look.named(int(others[counts.argmax()])))}" if len(others) else ""
    ax.set_title(f"{100 * share:.0f} % of shifts flip it{most}", loc="left")
    bar = figure.colorbar(drawn, ax=ax, fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
