"""The report, one self-contained HTML page: verdict, explorer of the networks, single images, figures, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invariscope.base.errors import TableError
from invariscope.base.files import write_whole

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from invariscope.analysis.drawing import Drawn
    from invariscope.analysis.results import Results
    from invariscope.analysis.tables.frames import Frames
    from invariscope.analysis.tables.load import Tables

__all__ = ["report_page", "write_report"]


def write_report(
    tables: Tables | Frames,
    path: Path | str,
    *,
    results: Results | None = None,
    drawn: Drawn | None = None,
    predictions: pd.DataFrame | Path | str | None = None,
    networks: Sequence[str] | None = None,
    thumbnails: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write :func:`report_page` to ``path``, whole or not at all.

    Raises:
        TableError: tables that cannot be analysed, or a path that cannot be written to.
    """
    target = Path(path)
    if target.is_dir():
        raise TableError(f"{target}: is a folder; name a file in it, such as {target / 'report.html'}")
    page = report_page(
        tables, results=results, drawn=drawn, predictions=predictions, networks=networks, thumbnails=thumbnails
    )
    return write_whole(target, page.encode())


def report_page(
    tables: Tables | Frames,
    *,
    results: Results | None = None,
    drawn: Drawn | None = None,
    predictions: pd.DataFrame | Path | str | None = None,
    networks: Sequence[str] | None = None,
    thumbnails: Mapping[str, np.ndarray] | None = None,
) -> str:
    """The page as HTML: the verdict with its figure and the primary statements; an explorer of all networks; single
    images; every figure of every data set; what ``analyze`` found in words; every table of the results; sources.

    ``results`` (of :func:`analyze_tables`), ``drawn`` (of :func:`draw_figures`) and :class:`Frames` of the tables save
    doing that work again. The page loads nothing from anywhere: its content security policy forbids it. Equal tables
    give equal bytes under equal versions of the libraries.

    Args:
        predictions: table ``predictions``, or the folder of tables that holds it, for the part on single images.
        networks: checkpoints whose images are shown, twelve at most; by default one per operator.
        thumbnails: per data set (as tables name it) its images, uint8 ``(N, H, W)`` or ``(N, C, H, W)``; what is shown
            of them becomes part of the page.

    Raises:
        TableError: tables that cannot be analysed; networks or thumbnails that there are no predictions of.
    """
    from invariscope.analysis.drawing import draw_figures
    from invariscope.analysis.report.drilled import drilled
    from invariscope.analysis.report.page import build_page
    from invariscope.analysis.say.vocabulary import first_measured
    from invariscope.analysis.study import analyze_tables
    from invariscope.analysis.tables.frames import Frames

    frames = Frames.of(tables)
    images = drilled(predictions, frames[first_measured(frames.tables).frame], networks, thumbnails)
    return build_page(frames, results or analyze_tables(frames), drawn or draw_figures(frames), images)
