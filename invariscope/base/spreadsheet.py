"""Tables as CSV files whose cells are read as values, also by a spreadsheet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet takes for a formula (OWASP, CSV injection)."""


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV. A text that a spreadsheet would run as a formula has an apostrophe before it."""
    texts = table.select_dtypes(exclude=["number", "bool", "datetime"])
    shown = table.copy()
    for name in texts:
        shown[name] = texts[name].map(_cell)
    text: str = shown.to_csv(index=False, lineterminator="\n")
    return text


def _cell(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        return value if math.isfinite(float(value)) else f"'{value}"
    except ValueError:
        return f"'{value}"
