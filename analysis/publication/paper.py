"""What a table of a paper is before it is written: numbers with intervals, their headings, and what to set bold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from invariscope.analysis.figures import fits, style
from invariscope.analysis.say.numbers import bracketed, plus_minus
from invariscope.analysis.tables.factors import factor_column, factor_levels
from invariscope.base.errors import TableError

MISSING = "–"

OPERATOR, STRENGTH = "_operator", "_strength"
"""Columns of rows that are not in order yet: what they are ordered by."""

KEY_NAMES = {
    "architecture": "architecture",
    "padding_mode": "padding",
    "operator_spec": "operator",
    "factor_losses": "losses",
    "factor_alpha": "α",
    "factor_failure_weight": "weight of L_FM",
    "factor_wake_up": "wake-up",
    "factor_pool": "pool",
    "factor_hard": "hard",
    "factor_failure": "form of L_FM",
}
"""Headings of the columns that say what a row is."""


@dataclass(frozen=True)
class Column:
    """A quantity: columns ``key``, ``key_low`` and ``key_high`` of the rows, under ``header`` and a shared ``group``.

    ``best``: which end is set bold among comparable rows, if any. ``spread``: how the interval is written, ``±`` its
    half-width or ``[low, high]``.
    """

    key: str
    header: str
    group: str = ""
    best: Literal["max", "min", ""] = ""
    digits: int = 3
    spread: Literal["±", "[]"] = "±"

    @property
    def label(self) -> str:
        """Header and group on one line."""
        return f"{self.group}: {self.header}" if self.group else self.header


@dataclass(frozen=True)
class PaperTable:
    """A table ready to be written: ``rows`` hold ``keys`` (text), the columns' numbers, ``n`` checkpoints and ``runs``.

    ``caption`` says what is shown, from how many checkpoints and clusters, with what interval. Rows that agree in all
    keys but the last are comparable: the best of them is set bold.
    """

    name: str
    rows: pd.DataFrame
    keys: tuple[str, ...]
    columns: tuple[Column, ...]
    caption: str

    def cells(self) -> pd.DataFrame:
        """Every entry as text, a column per key, per quantity (``key``), and ``n`` and ``runs``."""
        made = {key: self.rows[key].astype(str) for key in self.keys}
        for column in self.columns:
            made[column.key] = pd.Series([_cell(row, column) for _, row in self.rows.iterrows()])
        made |= {name: self.rows[name].astype(str) for name in ("n", "runs")}
        return pd.DataFrame(made)

    def bold(self) -> pd.DataFrame:
        """Where an entry is the best of at least two comparable ones, to the digits shown; a column per quantity."""
        groups = self.rows.groupby(list(self.keys[:-1])) if len(self.keys) > 1 else None
        marked = {}
        for column in self.columns:
            values = self.rows[column.key].round(column.digits)
            same = values.groupby(groups.ngroup()) if groups is not None else values.groupby(np.zeros(len(values)))
            enough = same.transform("nunique") > 1
            end = same.transform(column.best) if column.best else np.nan
            marked[column.key] = (values == end) & enough
        return pd.DataFrame(marked)

    def headings(self) -> dict[str, str]:
        """The heading of every column of :meth:`cells`."""
        keys = {key: KEY_NAMES.get(key, key.removeprefix("factor_")) for key in self.keys}
        return keys | {column.key: column.label for column in self.columns} | {"n": "n", "runs": "runs"}


def by_key(rows: pd.DataFrame, wanted: Sequence[str]) -> tuple[pd.DataFrame, tuple[str, ...], str]:
    """``rows`` with their keys as text, those of ``wanted`` that vary (the last one always), and what is constant.

    ``wanted`` are factors as a manifest calls them. A specification that is not known gives way to the operator's name,
    so that operators of one's own are rows of their own.
    """
    if not wanted:
        raise TableError("a table needs a factor to tell its rows apart: no name given")
    wanted = list(dict.fromkeys(factor_column(rows, name) for name in wanted))
    values = {name: rows[name].astype(object) for name in wanted}
    if "operator_spec" in values:
        values["operator_spec"] = values["operator_spec"].where(rows["operator_spec"].notna(), rows["operator"])
    named = {name: of_factor.map(_text) for name, of_factor in values.items()}
    *others, last = wanted
    keys = tuple(name for name in others if named[name].nunique() > 1)
    constant = [f"{KEY_NAMES.get(name, name)} {named[name].iloc[0]}" for name in others if name not in keys]
    said = f"{', '.join(text for text in constant if MISSING not in text)}"
    return rows.assign(**named), (*keys, last), f"All: {said}." if said else ""


def summarise(rows: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """One row per combination of ``keys``: mean of each value with its 95 % t interval, training runs as clusters.

    ``rows`` hold one row per checkpoint with ``cluster``, ``operator`` and ``strength``; a mean is taken over the rows
    that have the value. Ordered by the keys, the last one by operator and strength.
    """
    records = []
    rows = rows[list(dict.fromkeys([*keys, *values, "checkpoint", "cluster", "operator", "strength"]))]
    rows = rows.astype(dict.fromkeys(set(values) - set(keys), float))
    for group, part in rows.groupby(list(keys), sort=False):
        record: dict[str, object] = dict(zip(keys, group, strict=True))
        for value in values:
            there = part[value].notna()
            known = part if there.all() else part[there]
            mean, low, high = fits.clustered_mean(known[value], known["cluster"])
            record |= {value: mean, f"{value}_low": low, f"{value}_high": high}
        records.append({**record, **_counts(part), **_place(part)})
    return in_order(pd.DataFrame(records), keys)


def in_order(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Rows sorted by the keys, numbers by size; operators and their specifications in legend order and by strength."""
    places = {name: place for place, name in enumerate(style.operator_order(rows[OPERATOR]))}
    levels = {key: factor_levels(_as_numbers(rows[key])) for key in keys}
    ranks = {f"_{key}": rows[key].map({level: rank for rank, level in enumerate(levels[key])}) for key in keys}
    of_operators = keys[-1] in ("operator", "operator_spec")
    ranked = rows.assign(_place=rows[OPERATOR].map(places) if of_operators else 0, **ranks)
    strength = [STRENGTH] if of_operators else []
    order = [*(f"_{key}" for key in keys[:-1]), "_place", *strength, f"_{keys[-1]}"]
    ranked = ranked.sort_values(order, kind="stable")
    return ranked.drop(columns=["_place", OPERATOR, STRENGTH, *ranks]).reset_index(drop=True)


def _as_numbers(texts: pd.Series) -> pd.Series:
    """The texts of numbers as numbers, and others as they are."""
    numbers = pd.to_numeric(texts, errors="coerce")
    return numbers if numbers.notna().all() else texts


def _counts(part: pd.DataFrame) -> dict[str, object]:
    return {"n": int(part["checkpoint"].nunique()), "runs": int(part["cluster"].nunique())}


def _place(part: pd.DataFrame) -> dict[str, object]:
    first = part.iloc[0]
    return {OPERATOR: first["operator"], STRENGTH: first["strength"]}


def _text(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return MISSING
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(row: pd.Series, column: Column) -> str:
    value, low, high = (float(row[name]) for name in (column.key, f"{column.key}_low", f"{column.key}_high"))
    if not np.isfinite(value):
        return MISSING
    write = plus_minus if column.spread == "±" else bracketed
    return write(value, low, high, column.digits)
