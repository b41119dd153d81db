"""What rows that somebody else may have written are checked for: whole texts, no gaps, numbers that can be."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from invariscope.base.bounds import LARGEST_INTEGER
from invariscope.base.errors import InputError, TableError
from invariscope.base.terminal import one_line_of
from invariscope.collectors.schema import DESCRIPTION, TABLES

_SLACK = 1e-6
_LARGEST = float(LARGEST_INTEGER)
_ANY = (-_LARGEST, _LARGEST)
_SHARE, _SIGNED, _POSITIVE = (0.0, 1.0), (-1.0, 1.0), (0.0, _LARGEST)

_COMMON: Mapping[str, tuple[float, float]] = {"dy": _ANY, "dx": _ANY, "strength": (-math.inf, math.inf)}
"""Bounds of columns of any table; of whole numbers by default at least 0, of others :data:`_LARGEST` in size."""

_BOUNDS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "checkpoints": {"operator_equivariance_error": _POSITIVE, "epoch": _ANY, "seed": _ANY},
    "layers": {
        **dict.fromkeys(("msb", "msb_all", "msb_top", "flat_fraction", "position", "aliasing"), _SHARE),
        "see": _POSITIVE,
        "n_sites": _POSITIVE,
    },
    "invariance": dict.fromkeys(("value", "low", "high"), _SIGNED),
    "surface": dict.fromkeys(("agreement", "accuracy"), _SHARE),
    "robustness": {**dict.fromkeys(("accuracy", "low", "high"), _SHARE), "seed": _ANY},
    "segmentation": dict.fromkeys(("value", "low", "high"), _SIGNED),
    "predictions": {"label": _ANY, "clean_probability": _SHARE},
    "cost": dict.fromkeys(("value", "low", "high", "relative", "relative_low", "relative_high"), _POSITIVE),
    "timings": {"seconds": _POSITIVE},
}
"""Bounds of a table's own columns, by what they are; errors (``se``) are at least 0 everywhere."""

NUMBERED = (
    "checkpoints",
    "layers",
    "invariance",
    "surface",
    "robustness",
    "segmentation",
    "drift",
    "swaps",
    "predictions",
    "cost",
    "timings",
    "failures",
)
"""The tables of this package whose numbers are checked; those of other packages have bounds of their own."""

LONGEST_TEXT = 1_000_000
"""Bytes of one text of a row."""


SIGNED_SCORES = ("kappa",)
"""Scores that may be below 0; the others of the tables of scores are shares."""


@contextmanager
def part_errors(place: str, error: type[InputError] = TableError) -> Iterator[None]:
    """Makes one line, which names the place, of whatever a damaged or foreign part makes pyarrow and Python raise.

    A part that is gone is not damaged: FileNotFoundError passes, for the caller to look again.
    """
    try:
        yield
    except (InputError, FileNotFoundError):
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as problem:
        reason = one_line_of(problem)[:200] or type(problem).__name__
        raise error(
            f"{place}: cannot be read as parts of this table ({reason}): delete what is damaged and collect again, or "
            "collect into a new folder"
        ) from problem


def checked_rows(rows: pa.Table, table: str, place: str) -> pa.Table:
    """The rows, as they are.

    Raises:
        TableError: text that is no UTF-8, a missing value where there is always one, a number that cannot be.
    """
    with part_errors(place):
        problem = problem_of(rows, table)
    if problem is not None:
        raise TableError(f"{place}: {problem}: delete those rows' parts and collect again")
    return rows


def problem_of(rows: pa.Table, table: str) -> str | None:
    """Why no reader takes these rows, in words; None where every reader does.

    Raises:
        pa.ArrowInvalid: text that is no UTF-8, or other bytes that are not of their type.
    """
    rows.validate(full=True)
    schema = TABLES[table]
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        field, problem = schema.field(name), None
        if not field.nullable and column.null_count:
            return f"{name} has missing values"
        if table in NUMBERED and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
            problem = _out_of_bounds(column, name, _bounds(field, table))
        elif pa.types.is_string(field.type):
            longest = pc.max(pc.binary_length(column)).as_py() or 0
            if longest > LONGEST_TEXT:
                problem = f"{name} holds a text of {longest:,} bytes, and at most {LONGEST_TEXT:,} are read"
        if problem is not None:
            return problem
    if (
        table == DESCRIPTION
        and "factors" in rows.column_names
        and not all(map(_is_mapping, rows["factors"].to_pylist()))
    ):
        return "factors are no mapping in JSON"
    if "score" in rows.column_names and "value" in rows.column_names:
        shares = rows.filter(pc.invert(pc.is_in(rows["score"], pa.array(SIGNED_SCORES))))
        return _out_of_bounds(shares["value"], "value", _SHARE)
    return None


def _is_mapping(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _out_of_bounds(column: pa.ChunkedArray, name: str, bounds: tuple[float, float]) -> str | None:
    low, high = bounds
    found = pc.min_max(column).as_py()  # which passes over NaN; of NaN alone the least is inf and the most -inf
    for value in (found["min"], found["max"]) if found["min"] is not None and found["min"] <= found["max"] else ():
        if not low - _SLACK <= value <= high + _SLACK:
            return f"{name} is {value:g}, and lies from {low:g} to {high:g}"
    return None


def _bounds(field: pa.Field, table: str) -> tuple[float, float]:
    if (own := _BOUNDS.get(table, {}).get(field.name) or _COMMON.get(field.name)) is not None:
        return own
    if field.name == "se" or field.name.endswith("_se") or pa.types.is_integer(field.type):
        return _POSITIVE
    return _ANY
