"""The figures, by name: each is one module and one line here, and is drawn from tables alone."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from analysis.errors import TableError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.figures.style import CaptionedFigure, Width
    from analysis.tables import Tables


class Entry(NamedTuple):
    """Where a figure's function is (``module:function``), and the frames it takes in order: names of :data:`FRAMES`."""

    target: str
    frames: tuple[str, ...] = ("joined",)


FIGURES: dict[str, Entry] = {
    "msb_invariance": Entry("analysis.figures.msb_invariance:msb_invariance"),
    "msb_by_operator": Entry("analysis.figures.msb_by_operator:msb_by_operator", ("joined", "sites")),
    "shift_surface": Entry("analysis.figures.shift_surface:shift_surface", ("surface",)),
    "confounding": Entry("analysis.figures.confounding:confounding"),
    "dose_response": Entry("analysis.figures.dose_response:dose_response"),
    "swap": Entry("analysis.figures.swap:swap", ("swaps",)),
}

FRAMES: dict[str, str] = {
    "joined": "analysis.tables:join",
    "sites": "analysis.figures.frames:site_frame",
    "surface": "analysis.figures.frames:surface_frame",
    "swaps": "analysis.designs:swap_frame",
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
    return _draw(name, tables, {}, width=width, **options)


def save_figures(
    tables: Tables,
    folder: Path | str,
    only: Iterable[str] | None = None,
    formats: Iterable[str] = ("png",),
    *,
    width: Width = "double",
    data: str | None = None,
    skipped: Callable[[str, str], None] | None = None,
) -> list[Path]:
    """Write each figure (``only`` the named ones) as ``folder/NAME.FORMAT``, its caption as ``NAME.txt`` beside it.

    One-column figures are named ``NAME-single``. A file is written under another name and renamed, so that it exists
    whole or not at all. A figure for which the tables have no rows is passed over and told to
    ``skipped(name, reason)``, by default a line on stderr. Equal tables give equal bytes. ``data`` names the data set
    to draw where the tables hold several. Returns the files written.

    Raises:
        TableError: an unknown figure, format or width, or nothing that could be drawn at all.
    """
    from analysis.figures.style import WIDTHS

    names, kinds = list(FIGURES if only is None else only), list(formats)
    for name in names:
        _entry(name)
    for kind in kinds:
        if kind not in FORMATS:
            raise TableError(f"unknown figure format {kind!r}: choose from {', '.join(FORMATS)}")
    if width not in WIDTHS:
        raise TableError(f"unknown figure width {width!r}: choose one of {', '.join(WIDTHS)}")
    target, written = Path(folder), []
    made: dict[str, pd.DataFrame] = {}
    reasons: dict[str, str] = {}
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            figure = _draw(name, tables, made, width=width, data=data)
        except TableError as error:
            reasons[name] = str(error)
            (skipped or _tell)(name, str(error))
            continue
        stem = name if width == "double" else f"{name}-{width}"
        written += [_write(target / f"{stem}.{kind}", render(figure, kind, width=width)) for kind in kinds]
        written.append(_write(target / f"{stem}.txt", f"{figure.caption}\n".encode()))
    if reasons and not written:
        raise TableError(f"no figure could be drawn: {next(iter(reasons.values()))}")
    return written


def render(figure: CaptionedFigure, kind: str = "png", *, width: Width = "double") -> bytes:
    """The bytes of a figure's file, the same for the same figure."""
    from analysis.figures.style import theme

    buffer = io.BytesIO()
    with theme(width):
        figure.savefig(buffer, format=kind, metadata=_NO_STAMPS[kind])
    return buffer.getvalue()


def _draw(name: str, tables: Tables, made: dict[str, pd.DataFrame], **options: Any) -> CaptionedFigure:
    """The figure, from frames that are kept in ``made`` for the next one."""
    entry = _entry(name)
    for frame in entry.frames:
        if frame not in made:
            made[frame] = _load(FRAMES[frame])(tables)
    figure: CaptionedFigure = _load(entry.target)(*(made[frame] for frame in entry.frames), **options)
    return figure


def _entry(name: str) -> Entry:
    if name not in FIGURES:
        raise TableError(f"unknown figure {name!r}: known are {', '.join(FIGURES)}")
    return FIGURES[name]


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _tell(name: str, reason: str) -> None:
    sys.stderr.write(f"figure {name} skipped: {reason}\n")


def _write(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
