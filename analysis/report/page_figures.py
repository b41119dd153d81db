"""The figures of a page: of every data set, as small images with the text beside them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from invariscope.analysis.drawing import Drawn, caption_of, draw_figures
from invariscope.analysis.figures import FIGURES, FigureEntry
from invariscope.analysis.figures.style import theme
from invariscope.analysis.report.packed import data_url
from invariscope.analysis.report.titles import title_of
from invariscope.analysis.tables.frames import Frames
from invariscope.base.errors import TableError
from invariscope.base.progress import each

DOTS_PER_INCH = 144
"""Of the figures: 1008 pixels across two columns, which the page shows at half a screen's width."""

STEP = 25.5
"""Between the eleven levels of red, green and blue, black and white among them: half the bytes, and hard to see."""


EFFORT = 50
"""Of Pillow's lossless WebP, 0 to 100: half the time of 100 for 6 % more bytes."""


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page: its image as a data URL, the text beside it; ``data`` where it is of one of several."""

    anchor: str
    name: str
    source: str
    width: int
    height: int
    alt: str
    caption: str
    data: str = ""


@dataclass(frozen=True)
class FigureGroup:
    """A figure of each data set, or one figure of all of them."""

    anchor: str
    name: str
    figures: list[PageFigure]
    note: str = ""


@dataclass(frozen=True)
class DrawnOfData:
    """Figures by name and data set (the empty text: of all), and by their titles why others are not there."""

    figures: dict[str, dict[str, Figure]]
    reasons: dict[str, str] = field(default_factory=dict)


def data_sets(frames: Frames) -> list[str]:
    """The data sets that were measured under a shift, the one with most rows first, as figures choose it."""
    counts: dict[str, int] = {}
    for name in ("joined", "pixels"):
        try:
            found = frames[name]["data"].value_counts(sort=False)
        except TableError:
            continue
        for data, count in found.items():
            counts[str(data)] = counts.get(str(data), 0) + int(count)
    return sorted(counts, key=lambda data: (-counts[data], data))


def takes_data(name: str) -> bool:
    """Whether a figure is of one data set, which it can be asked for."""
    return name in FIGURES and "data" in inspect.signature(FigureEntry.of(FIGURES[name]).load()).parameters


def drawn_of_data(frames: Frames, drawn: Drawn) -> DrawnOfData:
    """``drawn``, and beside it those of its figures that are of one data set, drawn for the others.

    A figure that cannot be drawn for a data set is told in ``reasons``.
    """
    first, *others = data_sets(frames) or [""]
    of_one = [name for name in drawn.figures if takes_data(name)] if others else []
    figures = {name: {first if name in of_one else "": figure} for name, figure in drawn.figures.items()}
    reasons = {title_of(name): reason for name, reason in drawn.reasons.items()}

    def add(names: list[str], data: str) -> list[str]:
        """Draw them for one data set; returns those that are what was drawn already, for this data set after all."""
        more = draw_figures(frames, names, width=drawn.width, data=data)
        reasons.update({f"{title_of(name)}, {data}": reason for name, reason in more.reasons.items()})
        known = [name for name, figure in more.figures.items() if caption_of(figure) == caption_of(drawn.figures[name])]
        for name, figure in more.figures.items():
            figures[name][data] = drawn.figures[name] if name in known else figure
        return known

    elsewhere = [name for data in others for name in add(of_one, data)] if of_one else []
    if elsewhere:
        add(elsewhere, first)
    return DrawnOfData(figures, reasons)


def figure_groups(found: DrawnOfData, without: Figure | None = None) -> list[FigureGroup]:
    """Every figure but one that stands elsewhere, by name."""
    groups = []
    for name, by_data in each("page", found.figures.items(), "figure"):
        shown = [page_figure(name, figure, data) for data, figure in by_data.items() if figure is not without]
        if shown:
            elsewhere = [data for data, figure in by_data.items() if figure is without]
            note = f"That of {elsewhere[0]} stands beside the verdict." if elsewhere else ""
            groups.append(FigureGroup(f"figure-{name}", title_of(name), shown, note))
    return groups


def page_figure(name: str, figure: Figure, data: str = "", *, dots: int = DOTS_PER_INCH) -> PageFigure:
    """A figure as a WebP data URL of few colours, without loss beyond them."""
    pixels = _pixels(figure, dots)
    height, width = pixels.shape[:2]
    source = data_url(np.round(pixels / STEP) * STEP, "webp", lossless=True, quality=EFFORT)
    caption = caption_of(figure)
    first = caption.partition("\n")[0] or title_of(name)
    return PageFigure(f"figure-{name}", title_of(name), source, width, height, first, caption, data)


def _pixels(figure: Figure, dots: int) -> np.ndarray:
    """Red, green and blue ``(height, width, 3)`` as ``savefig`` makes them, which draws everything twice."""
    canvas, before = figure.canvas, figure.dpi
    try:
        with theme():
            figure.dpi = dots
            drawn = FigureCanvasAgg(figure)
            drawn.draw()
        return np.array(drawn.buffer_rgba())[:, :, :3]
    finally:
        figure.set_canvas(canvas)
        figure.dpi = before
