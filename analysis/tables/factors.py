"""Factors by the names that a user gives them: those of every checkpoint, and the further ones of a manifest."""

from __future__ import annotations

from typing import Any

import pandas as pd

from invariscope.analysis.tables.checkpoints import FACTORS, NOT_GIVEN
from invariscope.base.errors import TableError
from invariscope.base.names import unknown

_FURTHER = "factor_"


def known_factors(frame: pd.DataFrame) -> list[str]:
    """The factors that ``frame`` has a value of, as a manifest calls them."""
    own = [name for name in FACTORS if name in frame.columns]
    further = [str(name).removeprefix(_FURTHER) for name in frame.columns if str(name).startswith(_FURTHER)]
    return [name for name in [*own, *further] if frame[_place(frame, name)].notna().any()]


def factor_column(frame: pd.DataFrame, name: str) -> str:
    """The column of the factor ``name``: ``width`` is ``factor_width`` where it is a further one of the manifest.

    Raises:
        TableError: no checkpoint has such a factor; names those that there are.
    """
    column = _place(frame, name)
    if column not in frame.columns:
        raise TableError(unknown("factor", name, known_factors(frame)))
    return column


def factor_text(values: pd.Series) -> pd.Series:
    """The values of a factor as text: numbers without an idle ``.0``, missing ones as :data:`NOT_GIVEN`."""
    return values.map(_text).astype(object)


def factor_levels(values: pd.Series) -> list[str]:
    """The distinct texts of a factor, numbers by size, others by name, what is not given last."""
    once = values.drop_duplicates()
    numbers = pd.to_numeric(once, errors="coerce")
    texts = factor_text(once)
    order = pd.DataFrame({"number": numbers, "text": texts, "none": once.isna()})
    return list(dict.fromkeys(order.sort_values(["none", "number", "text"])["text"]))


def _place(frame: pd.DataFrame, name: str) -> str:
    further = name if name.startswith(_FURTHER) else f"{_FURTHER}{name}"
    return name if name in FACTORS or further not in frame.columns else further


def _text(value: Any) -> str:
    if value is None or (not isinstance(value, (list, dict, tuple)) and pd.isna(value)):
        return NOT_GIVEN
    return f"{value:g}" if isinstance(value, float) else str(value)
