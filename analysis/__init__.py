"""What the tables mean: correlations, regressions, a summary in words, figures, a report; reads parquet, never imports
torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "TableError": "invariscope.base.errors",
    "Tables": "invariscope.analysis.tables.joined",
    "load": "invariscope.analysis.tables.joined",
    "load_table": "invariscope.analysis.tables.joined",
    "join": "invariscope.analysis.tables.joined",
    "scan": "invariscope.analysis.tables.joined",
    "with_sites": "invariscope.analysis.tables.joined",
    "Results": "invariscope.analysis.study",
    "analyze": "invariscope.analysis.study",
    "analyze_tables": "invariscope.analysis.study",
    "write_results": "invariscope.analysis.study",
    "write_report": "invariscope.analysis.report",
}
__all__ = [
    "Results",
    "TableError",
    "Tables",
    "analyze",
    "analyze_tables",
    "join",
    "load",
    "load_table",
    "scan",
    "with_sites",
    "write_report",
    "write_results",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
