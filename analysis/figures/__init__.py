"""The figures, by name: each is one module and one line here, and is drawn from tables alone."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from invariscope.base.errors import TableError

if TYPE_CHECKING:
    import pandas as pd

    from invariscope.analysis.figures.style import CaptionedFigure, Width
    from invariscope.analysis.tables.joined import Tables


class Entry(NamedTuple):
    """Where a figure's function is (``module:function``), and the frames it takes in order: names of :data:`FRAMES`."""

    target: str
    frames: tuple[str, ...] = ("joined",)


FIGURES: dict[str, Entry] = {
    "msb_invariance": Entry("invariscope.analysis.figures.msb_invariance:msb_invariance"),
    "msb_by_operator": Entry("invariscope.analysis.figures.msb_by_operator:msb_by_operator", ("joined", "sites")),
    "shift_surface": Entry("invariscope.analysis.figures.shift_surface:shift_surface", ("surface",)),
    "confounding": Entry("invariscope.analysis.figures.confounding:confounding"),
    "dose_response": Entry("invariscope.analysis.figures.dose_response:dose_response"),
    "influence": Entry("invariscope.analysis.figures.influence:influence"),
    "within_between": Entry("invariscope.analysis.figures.within_between:within_between"),
    "msb_by_depth": Entry("invariscope.analysis.figures.msb_by_depth:msb_by_depth", ("sites",)),
    "robustness": Entry("invariscope.analysis.figures.robustness:robustness", ("robustness",)),
    "segmentation": Entry("invariscope.analysis.figures.segmentation:segmentation", ("segmentation",)),
    "cost": Entry("invariscope.analysis.figures.cost:cost", ("cost",)),
    "swap": Entry("invariscope.analysis.figures.swap:swap", ("swaps",)),
}

FRAMES: dict[str, str] = {
    "joined": "invariscope.analysis.tables.joined:join",
    "sites": "invariscope.analysis.figures.frames:site_frame",
    "surface": "invariscope.analysis.figures.frames:surface_frame",
    "robustness": "invariscope.analysis.figures.frames:robustness_frame",
    "segmentation": "invariscope.analysis.figures.frames:segmentation_frame",
    "cost": "invariscope.analysis.figures.frames:cost_frame",
    "swaps": "invariscope.analysis.designs:swap_frame",
}
"""How each kind of frame is made from the tables."""

FORMATS = ("png", "pdf", "svg")
# Dates and version strings left out, so that equal tables give equal bytes.
_NO_STAMPS = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}, "svg": {"Date": None}}


def draw(name: str, tables: Tables, *, width: Width = "double", **options: Any) -> CaptionedFigure:
    """The figure ``name`` from ``tables``; its ``caption`` says what it shows. Options go to the figure's function.

    Raises:
        TableError: no such figure, or nothing in the tables that it could show.
    """
    if name not in FIGURES:
        raise TableError(f"unknown figure {name!r}: known are {', '.join(FIGURES)}")
    figure: CaptionedFigure = make(FIGURES[name], tables, {}, width=width, **options)
    return figure


def render(figure: CaptionedFigure, kind: str = "png", *, width: Width = "double") -> bytes:
    """The bytes of a figure's file, the same for the same figure."""
    from invariscope.analysis.figures.style import theme

    buffer = io.BytesIO()
    with theme(width):
        figure.savefig(buffer, format=kind, metadata=_NO_STAMPS[kind])
    return buffer.getvalue()


def make(entry: Entry, tables: Tables, made: dict[str, pd.DataFrame], **options: Any) -> Any:
    """What the entry's function returns, from frames that are kept in ``made`` for the next one."""
    for frame in entry.frames:
        if frame not in made:
            made[frame] = _load(FRAMES[frame])(tables)
    return _load(entry.target)(*(made[frame] for frame in entry.frames), **options)


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def known_formats(formats: Iterable[str]) -> list[str]:
    """The formats as a list; raises :class:`TableError` where one is unknown."""
    kinds = list(formats)
    for kind in kinds:
        if kind not in FORMATS:
            raise TableError(f"unknown figure format {kind!r}: choose from {', '.join(FORMATS)}")
    return kinds
