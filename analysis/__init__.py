"""What the tables mean: correlations, regressions, a summary in words, figures, a report; reads parquet, never imports
torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "TableError": "analysis.errors",
    "Tables": "analysis.tables",
    "load": "analysis.tables",
    "join": "analysis.tables",
    "scan": "analysis.tables",
    "with_sites": "analysis.tables",
    "Results": "analysis.study",
    "analyze": "analysis.study",
    "analyze_tables": "analysis.study",
    "write_results": "analysis.study",
    "write_report": "analysis.report",
}
__all__ = [
    "Results",
    "TableError",
    "Tables",
    "analyze",
    "analyze_tables",
    "join",
    "load",
    "scan",
    "with_sites",
    "write_report",
    "write_results",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
