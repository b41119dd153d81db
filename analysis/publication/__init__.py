"""The paper's tables, by name: a function each, frame in, :class:`PaperTable` out, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import importlib
from typing import Any

from invariscope.analysis.figures import Entry

PAPER_TABLES: dict[str, Entry] = {
    "table_classification": Entry("invariscope.analysis.publication.tables:table_classification"),
    "table_segmentation": Entry("invariscope.analysis.publication.tables:table_segmentation", ("segmentation",)),
    "table_robustness": Entry("invariscope.analysis.publication.tables:table_robustness", ("robustness",)),
    "table_cost": Entry("invariscope.analysis.publication.tables:table_cost", ("cost",)),
    "table_ablation": Entry("invariscope.analysis.publication.tables:table_ablation"),
}
"""Where a table's function is (``module:function``), and the frame it takes: a name of ``FRAMES`` of the figures."""

_EXPORTS = {
    **dict.fromkeys(PAPER_TABLES, "invariscope.analysis.publication.tables"),
    **dict.fromkeys(("Column", "PaperTable"), "invariscope.analysis.publication.paper"),
    **dict.fromkeys(
        ("TABLE_FORMATS", "files", "to_csv", "to_latex", "to_markdown"), "invariscope.analysis.publication.writers"
    ),
}
__all__ = ["PAPER_TABLES", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
