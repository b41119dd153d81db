"""The figures, by name: each is one module and one line here, and is drawn from tables alone; and how they are drawn
and saved, the paper's tables with them.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from analysis.errors import TableError
from analysis.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

    from analysis.figures.style import CaptionedFigure, Width
    from analysis.publication.paper import PaperTable
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
    "influence": Entry("analysis.figures.influence:influence"),
    "within_between": Entry("analysis.figures.within_between:within_between"),
    "msb_by_depth": Entry("analysis.figures.msb_by_depth:msb_by_depth", ("sites",)),
    "robustness": Entry("analysis.figures.robustness:robustness", ("robustness",)),
    "segmentation": Entry("analysis.figures.segmentation:segmentation", ("segmentation",)),
    "cost": Entry("analysis.figures.cost:cost", ("cost",)),
    "swap": Entry("analysis.figures.swap:swap", ("swaps",)),
}

FRAMES: dict[str, str] = {
    "joined": "analysis.tables:join",
    "sites": "analysis.figures.frames:site_frame",
    "surface": "analysis.figures.frames:surface_frame",
    "robustness": "analysis.figures.frames:robustness_frame",
    "segmentation": "analysis.figures.frames:segmentation_frame",
    "cost": "analysis.figures.frames:cost_frame",
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


@dataclass(frozen=True)
class Drawn:
    """Figures by name, as drawn at one width, and the paper's tables; ``reasons`` says why the others are not there."""

    figures: dict[str, CaptionedFigure]
    tables: dict[str, PaperTable]
    reasons: dict[str, str]
    width: Width = "double"

    def write(self, folder: Path | str, formats: Iterable[str] = ("png",)) -> list[Path]:
        """Write each figure as ``folder/NAME.FORMAT``, its caption as ``NAME.txt`` beside it, and each table as
        ``NAME.csv``, ``.md`` and ``.tex``; returns the files.

        One-column figures are named ``NAME-single``. A file appears whole or not at all; equal figures give equal
        bytes.

        Raises:
            TableError: an unknown format, a folder that cannot be written to, or no figure at all.
        """
        from analysis.publication.writers import files

        kinds = known_formats(formats)
        if self.reasons and not self.figures and not self.tables:
            raise TableError(f"no figure could be drawn: {next(iter(self.reasons.values()))}")
        written = []
        for name, figure in self.figures.items():
            path = Path(folder) / (name if self.width == "double" else f"{name}-{self.width}")
            for kind in kinds:
                written.append(write_whole(path.with_suffix(f".{kind}"), render(figure, kind, width=self.width)))
            written.append(write_whole(path.with_suffix(".txt"), f"{figure.caption}\n".encode()))
        for name, table in self.tables.items():
            for kind, content in files(table).items():
                written.append(write_whole(Path(folder) / f"{name}.{kind}", content))
        return written


def draw_figures(
    tables: Tables, only: Iterable[str] | None = None, *, width: Width = "double", data: str | None = None
) -> Drawn:
    """Draw every figure and make every table of :data:`analysis.publication.PAPER_TABLES` (``only`` the named ones);
    those for which the tables have no rows are told with the reason.

    ``data`` names the data set to draw where the tables hold several.

    Raises:
        TableError: an unknown figure or width.
    """
    from analysis.figures.style import WIDTHS
    from analysis.publication import PAPER_TABLES

    names = list([*FIGURES, *PAPER_TABLES] if only is None else only)
    for name in names:
        if name not in PAPER_TABLES:
            _entry(name)
    if width not in WIDTHS:
        raise TableError(f"unknown figure width {width!r}: choose one of {', '.join(WIDTHS)}")
    drawn = Drawn({}, {}, {}, width)
    made: dict[str, pd.DataFrame] = {}
    for name in names:
        try:
            if name in PAPER_TABLES:
                drawn.tables[name] = _make(PAPER_TABLES[name], tables, made, data=data)
            else:
                drawn.figures[name] = _draw(name, tables, made, width=width, data=data)
        except TableError as error:
            drawn.reasons[name] = str(error)
    return drawn


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
    """:func:`draw_figures` and :meth:`Drawn.write` in one; returns the files written.

    A figure for which the tables have no rows is passed over and told to ``skipped(name, reason)``, by default a line
    on stderr.

    Raises:
        TableError: an unknown figure, format or width, a folder that cannot be written to, or nothing that could be
            drawn at all.
    """
    kinds = known_formats(formats)
    drawn = draw_figures(tables, only, width=width, data=data)
    for name, reason in drawn.reasons.items():
        (skipped or tell_skipped)(name, reason)
    return drawn.write(folder, kinds)


def render(figure: CaptionedFigure, kind: str = "png", *, width: Width = "double") -> bytes:
    """The bytes of a figure's file, the same for the same figure."""
    from analysis.figures.style import theme

    buffer = io.BytesIO()
    with theme(width):
        figure.savefig(buffer, format=kind, metadata=_NO_STAMPS[kind])
    return buffer.getvalue()


def _draw(name: str, tables: Tables, made: dict[str, pd.DataFrame], **options: Any) -> CaptionedFigure:
    figure: CaptionedFigure = _make(_entry(name), tables, made, **options)
    return figure


def _make(entry: Entry, tables: Tables, made: dict[str, pd.DataFrame], **options: Any) -> Any:
    """What the entry's function returns, from frames that are kept in ``made`` for the next one."""
    for frame in entry.frames:
        if frame not in made:
            made[frame] = _load(FRAMES[frame])(tables)
    return _load(entry.target)(*(made[frame] for frame in entry.frames), **options)


def _entry(name: str) -> Entry:
    if name not in FIGURES:
        from analysis.publication import PAPER_TABLES

        known = f"{', '.join(FIGURES)}; tables of the paper: {', '.join(PAPER_TABLES)}"
        raise TableError(f"unknown figure {name!r}: known are {known}")
    return FIGURES[name]


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


def tell_skipped(name: str, reason: str) -> None:
    """Say on stderr that a figure or a table was passed over."""
    kind = "figure" if name in FIGURES else "table"
    sys.stderr.write(f"{kind} {name} skipped: {reason}\n")
