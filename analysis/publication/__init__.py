"""The paper's tables, by name: a function each, frame in, :class:`PaperTable` out, as CSV, Markdown and LaTeX.

Others add theirs with :func:`register_paper_table`, or as an entry point of the group ``invariscope.paper_tables``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from invariscope.analysis.figures import FigureEntry, check_entry
from invariscope.base.errors import TableError
from invariscope.base.registry import Registry

if TYPE_CHECKING:
    from invariscope.analysis.publication.drawn_table import table_drawn
    from invariscope.analysis.publication.paper import Column, PaperTable
    from invariscope.analysis.publication.paper_tables import (
        table_ablation,
        table_classification,
        table_cost,
        table_robustness,
        table_segmentation,
    )
    from invariscope.analysis.publication.writers import TABLE_FORMATS, files, to_csv, to_latex, to_markdown

_TABLES = "invariscope.analysis.publication.paper_tables"

PAPER_TABLES = Registry(
    "table of the paper",
    {
        "table_classification": FigureEntry(f"{_TABLES}:table_classification"),
        "table_segmentation": FigureEntry(f"{_TABLES}:table_segmentation", ("segmentation",)),
        "table_robustness": FigureEntry(f"{_TABLES}:table_robustness", ("robustness",)),
        "table_cost": FigureEntry(f"{_TABLES}:table_cost", ("cost",)),
        "table_ablation": FigureEntry(f"{_TABLES}:table_ablation"),
        "table_drawn": FigureEntry("invariscope.analysis.publication.drawn_table:table_drawn"),
    },
    TableError,
    group="invariscope.paper_tables",
    check=check_entry("table of the paper"),
)
"""Every table of the paper by name: :class:`FigureEntry`, or a function of the joined frame."""

__all__ = [
    "PAPER_TABLES",
    "TABLE_FORMATS",
    "Column",
    "PaperTable",
    "files",
    "register_paper_table",
    "table_ablation",
    "table_classification",
    "table_cost",
    "table_drawn",
    "table_robustness",
    "table_segmentation",
    "to_csv",
    "to_latex",
    "to_markdown",
]
_HOMES = {
    **dict.fromkeys(("Column", "PaperTable"), "paper"),
    **dict.fromkeys(("TABLE_FORMATS", "files", "to_csv", "to_latex", "to_markdown"), "writers"),
}


def register_paper_table(name: str, function: Callable[..., PaperTable], frames: Iterable[str] = ("joined",)) -> None:
    """Make a table of the paper known by name for this process; as :func:`register_figure`, with a
    :class:`PaperTable` in the place of the Figure.

    Raises:
        TableError: the name is taken or cannot name a file, this is no function, or a frame is not known.
    """
    PAPER_TABLES.add(name, FigureEntry(function, tuple(frames)))


def __getattr__(name: str) -> Any:
    if name in PAPER_TABLES.own:
        return PAPER_TABLES[name].load()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
