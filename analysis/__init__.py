"""What the tables mean: correlations, regressions, a summary in words and figures; reads parquet, never imports
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
    "Results": "analysis.study",
    "analyze": "analysis.study",
    "write_results": "analysis.study",
}
__all__ = ["Results", "TableError", "Tables", "analyze", "join", "load", "scan", "write_results"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
