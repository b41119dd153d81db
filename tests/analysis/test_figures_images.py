"""The headline figures look as they did: drawings without their text, against the images in ``baseline/``.

``INVARISCOPE_REBASE=1 pytest`` on this file makes the images anew; look at them before they are
committed. Text and layout are left out, since they move with the fonts of a machine (other tests read them): panels
stand on matplotlib's plain grid. Two images are compared in blocks of 4 × 4 pixels, by the largest root mean square
difference of two blocks' mean colours (0 to 255). Measured: 0 with other text hinting, 16.1 at most between drawing at
3, 4, 6 and 8 times the resolution.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from invariscope.analysis import Frames
from invariscope.analysis.figures import draw, style
from invariscope.analysis.figures.style import CaptionedFigure

BASELINE = Path(__file__).with_name("baseline")
NAMES = ("msb_invariance", "confounding", "dose_response", "within_between")
TOLERANCE = 18.0
BLOCK, DPI = 4, 60

Drawn = Callable[[str, style.Width], CaptionedFigure]


@pytest.fixture(scope="module")
def drawn(simulate: ModuleType) -> Drawn:
    """The figures of a simulated zoo, bare: without text and legend, panels on matplotlib's plain grid."""
    tables = Frames(simulate.simulate_tables(simulate.Zoo(seeds=2, epochs=(8.0,), padding_modes=("zeros",))))

    @functools.cache
    def bare(name: str, width: style.Width) -> CaptionedFigure:
        figure = draw(name, tables, width=width)
        figure.set_layout_engine("none")
        for artist in [*figure.legends, *figure.findobj(Text)]:
            artist.set_visible(False)
        for ax in figure.axes:
            ax.set_position(ax.get_subplotspec().get_position(figure))
        return figure

    return bare


def pixels(figure: CaptionedFigure, width: style.Width, fineness: int = 4) -> Image.Image:
    """Drawn at a multiple of the resolution and averaged, so that snapping to pixels matters little."""
    buffer = io.BytesIO()
    with style.theme(width):
        figure.savefig(buffer, format="png", dpi=fineness * DPI)
    fine = Image.open(buffer).convert("RGB")
    return fine.resize([round(DPI * inches) for inches in figure.get_size_inches()], Image.Resampling.BOX)


def difference(one: Image.Image, other: Image.Image) -> float:
    if one.size != other.size:
        return np.inf
    gap = (blocks(one) - blocks(other)) ** 2
    return float(np.sqrt(gap.mean(axis=-1)).max())


def blocks(image: Image.Image) -> np.ndarray:
    values = np.asarray(image, dtype=float)
    height, width = (size // BLOCK for size in values.shape[:2])
    cut = values[: height * BLOCK, : width * BLOCK]
    return cut.reshape(height, BLOCK, width, BLOCK, 3).mean(axis=(1, 3))


@pytest.mark.parametrize(
    ("name", "width"),
    [
        pytest.param(name, width, marks=pytest.mark.full if (place + other) % 2 else ())
        for place, name in enumerate(NAMES)
        for other, width in enumerate(("double", "single"))
    ],
)
def test_a_headline_figure_looks_as_it_did_and_not_without_a_curve(drawn: Drawn, name: str, width: style.Width) -> None:
    figure, path = drawn(name, width), BASELINE / f"{name}-{width}.png"
    found = pixels(figure, width)
    if os.environ.get("INVARISCOPE_REBASE") == "1":
        path.parent.mkdir(exist_ok=True)
        found.save(path, optimize=True)
    wanted = Image.open(path).convert("RGB")
    assert difference(found, wanted) < TOLERANCE
    hidden = longest_curve(figure)
    hidden.set_visible(False)
    without = pixels(figure, width)
    hidden.set_visible(True)
    assert difference(without, wanted) > TOLERANCE, f"{hidden.get_label()} can vanish unseen"


def longest_curve(figure: CaptionedFigure) -> Line2D:
    """Of the first panel's curves the one with most points that is not the thin line of one run."""
    lines = [line for line in figure.axes[0].lines if line.get_label() != "_run"]
    return max(lines, key=lambda line: (len(line.get_xdata()), line.get_linestyle() == "-"))


def test_missing_points_a_moved_axis_and_another_size_are_seen(drawn: Drawn) -> None:
    figure = drawn("msb_invariance", "double")
    before, ax = pixels(figure, "double"), figure.axes[0]
    points = max(ax.collections, key=lambda found: len(found.get_offsets()))
    points.set_visible(False)
    assert difference(pixels(figure, "double"), before) > TOLERANCE
    points.set_visible(True)
    low, high = ax.get_xlim()
    ax.set_xlim(low, high + 0.03 * (high - low))
    assert difference(pixels(figure, "double"), before) > TOLERANCE
    ax.set_xlim(low, high)
    assert difference(pixels(figure, "double"), before) == 0
    assert difference(before.resize((420, 300)), before) == np.inf


def test_rendering_noise_passes(drawn: Drawn) -> None:
    figure = drawn("within_between", "double")
    noise = [difference(pixels(figure, "double"), pixels(figure, "double", other)) for other in (3, 6, 8)]
    assert 0 < max(noise) < TOLERANCE
