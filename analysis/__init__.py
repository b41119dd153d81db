"""What the tables mean: correlations, regressions, a summary in words, figures, a report; reads parquet, never imports
torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invariscope.analysis.designs.compared import compare
    from invariscope.analysis.designs.drilldown import class_stability, image_flips, shift_flips
    from invariscope.analysis.drawing import draw_figures, save_figures
    from invariscope.analysis.figures import draw, register_figure
    from invariscope.analysis.publication import register_paper_table
    from invariscope.analysis.report import report_page, write_report
    from invariscope.analysis.results import Results, write_results
    from invariscope.analysis.stats.correlation import correlate
    from invariscope.analysis.study import analyze, analyze_tables
    from invariscope.analysis.tables.frames import Frames, register_frame
    from invariscope.analysis.tables.joined import join, with_sites
    from invariscope.analysis.tables.load import Tables, load, load_table, scan
    from invariscope.base.errors import TableError

_HOMES = {
    "Frames": "invariscope.analysis.tables.frames",
    "Results": "invariscope.analysis.results",
    "TableError": "invariscope.base.errors",
    "Tables": "invariscope.analysis.tables.load",
    "analyze": "invariscope.analysis.study",
    "analyze_tables": "invariscope.analysis.study",
    "class_stability": "invariscope.analysis.designs.drilldown",
    "compare": "invariscope.analysis.designs.compared",
    "correlate": "invariscope.analysis.stats.correlation",
    "draw": "invariscope.analysis.figures",
    "draw_figures": "invariscope.analysis.drawing",
    "image_flips": "invariscope.analysis.designs.drilldown",
    "join": "invariscope.analysis.tables.joined",
    "load": "invariscope.analysis.tables.load",
    "load_table": "invariscope.analysis.tables.load",
    "register_figure": "invariscope.analysis.figures",
    "register_frame": "invariscope.analysis.tables.frames",
    "register_paper_table": "invariscope.analysis.publication",
    "report_page": "invariscope.analysis.report",
    "save_figures": "invariscope.analysis.drawing",
    "scan": "invariscope.analysis.tables.load",
    "shift_flips": "invariscope.analysis.designs.drilldown",
    "with_sites": "invariscope.analysis.tables.joined",
    "write_report": "invariscope.analysis.report",
    "write_results": "invariscope.analysis.results",
}
__all__ = [
    "Frames",
    "Results",
    "TableError",
    "Tables",
    "analyze",
    "analyze_tables",
    "class_stability",
    "compare",
    "correlate",
    "draw",
    "draw_figures",
    "image_flips",
    "join",
    "load",
    "load_table",
    "register_figure",
    "register_frame",
    "register_paper_table",
    "report_page",
    "save_figures",
    "scan",
    "shift_flips",
    "with_sites",
    "write_report",
    "write_results",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
