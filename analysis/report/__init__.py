"""The report: one self-contained HTML page of findings in words, an interactive scatter, figures and tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from invariscope.base.errors import TableError
from invariscope.base.files import write_whole

if TYPE_CHECKING:
    from invariscope.analysis.drawing import Drawn
    from invariscope.analysis.results import Results
    from invariscope.analysis.tables.frames import Frames
    from invariscope.analysis.tables.load import Tables

__all__ = ["report_page", "write_report"]


def write_report(
    tables: Tables | Frames, path: Path | str, *, results: Results | None = None, drawn: Drawn | None = None
) -> Path:
    """Write :func:`report_page` to ``path``, whole or not at all.

    Raises:
        TableError: tables that cannot be analysed, or a path that cannot be written to.
    """
    target = Path(path)
    if target.is_dir():
        raise TableError(f"{target}: is a folder; name a file in it, such as {target / 'report.html'}")
    return write_whole(target, report_page(tables, results=results, drawn=drawn).encode())


def report_page(tables: Tables | Frames, *, results: Results | None = None, drawn: Drawn | None = None) -> str:
    """The page as HTML: what ``analyze`` found in words, an interactive scatter of the checkpoints, every figure with
    its caption, every table of the results, and where the numbers come from.

    ``results`` (of :func:`analyze_tables`), ``drawn`` (of :func:`draw_figures`) and :class:`Frames` of the tables save
    doing that work again. The page loads nothing from anywhere: its content security policy forbids it. Equal tables
    give equal bytes under equal versions of the libraries.

    Raises:
        TableError: tables that cannot be analysed.
    """
    from invariscope.analysis.drawing import draw_figures
    from invariscope.analysis.report.page import build_page
    from invariscope.analysis.study import analyze_tables
    from invariscope.analysis.tables.frames import Frames

    frames = Frames.of(tables)
    return build_page(frames, results or analyze_tables(frames), drawn or draw_figures(frames))
