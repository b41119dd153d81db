"""One wide table: a row per checkpoint and data set, every score under every shift plan as a column."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from math import isclose
from typing import Any

import pandas as pd

from invariscope.analysis.exports.fields import Field, field_of, scored
from invariscope.analysis.tables.checkpoints import DETERMINISTIC, NETWORK, SAME, describe_names, function_marks
from invariscope.analysis.tables.load import Tables
from invariscope.analysis.tables.plans import PLAN, filled
from invariscope.analysis.tables.sites import network_readings
from invariscope.base.errors import TableError
from invariscope.base.names import unknown
from invariscope.collectors.schema import UNSHIFTED

ERRORS = ("se", "low", "high")
"""Standard error and ends of the 95 % interval, which a score has beside it."""

LAST = ("score", "error", "count")
"""Roles of the columns that come last, in this order."""

_KEYS = [*NETWORK, "data"]
LEFT_OUT = ("surface", "swaps", "drift", "predictions")
"""Tables with many rows per checkpoint, of which a wide one has nothing."""


@dataclass(frozen=True)
class Wide:
    """A wide table and what its columns are, in their order."""

    rows: pd.DataFrame
    fields: tuple[Field, ...]

    @property
    def scores(self) -> list[str]:
        """The columns that hold measured numbers, without their errors."""
        return [one.name for one in self.fields if one.role == "score"]

    @property
    def described(self) -> pd.DataFrame:
        """The columns themselves as a table: name, role, unit, meaning."""
        return pd.DataFrame([vars(one) for one in self.fields])


def wide_table(tables: Tables, only: str = "*") -> Wide:
    """A row per checkpoint and data set that it was measured on: factors, metrics, and every score as a column.

    Columns, in this order: ``checkpoint``, ``same_as`` (the first name of a network that has several, or that computes
    the same as another one: the analysis counts it once), ``sha256``, ``model``, the factors (further ones of the
    manifest as ``factor_<name>``), its metrics as ``metric_<name>``, ``deterministic``, ``data``; the scores; their
    errors; numbers of images and sites.

    Scores: the readings of the sites (``msb_corrected``, ``see``, ...), each the unweighted mean over a network's
    sites, and missing where one of its shrinks is not explained; ``accuracy``, ``miou`` and ``pixel_accuracy`` of
    unshifted images; every score under a shift as ``<score>_<kind>_<largest shift>px``, of zero shifts
    ``<score>_zero_<fill>_<largest shift>px`` (``consistency_zero_background_4px``); ``robust_accuracy_<condition>``;
    ``cost_<quantity>``. Two plans that would share a name have ``_<plan><shifts per image>`` behind it. A score has
    its standard error (``_se``) and the ends of its 95 % interval (``_low``, ``_high``) as further columns.

    Args:
        tables: as :func:`load` gives them.
        only: pattern of names; only such checkpoints are there.

    Raises:
        TableError: no checkpoint described, none of such a name, or two measurements of the same thing.
    """
    names = describe_names(tables)
    kept = fitting(list(names["checkpoint"]), only)
    parts = [part for part in (*_shift_scores(tables), _readings(tables), _robust(tables), _cost(tables)) if part]
    measured = pd.DataFrame(columns=[*_KEYS])
    for rows, _ in parts:
        measured = measured.merge(rows, on=[key for key in _KEYS if key in rows], how="outer")
    marks = function_marks(tables)
    names[DETERMINISTIC] = [marks.get(network) for network in zip(names["sha256"], names["model"], strict=True)]
    names[SAME] = names[SAME].where(names[SAME] != names["checkpoint"], None)
    wide = names[names["checkpoint"].isin(kept)].merge(measured, on=NETWORK, how="left")
    fields = [
        *(field_of(name) for name in names.columns),
        field_of("data"),
        *(one for _, some in parts for one in some),
    ]
    place = {"checkpoint": 0, SAME: 1}
    first = sorted((one for one in fields if one.role not in LAST), key=lambda one: place.get(one.name, 2))
    ordered = (*first, *(one for role in LAST for one in fields if one.role == role))
    rows = wide[[one.name for one in ordered]].sort_values(["checkpoint", "data"], ignore_index=True)
    return Wide(rows.dropna(axis=1, how="all"), tuple(one for one in ordered if rows[one.name].notna().any()))


_Part = tuple[pd.DataFrame, list[Field]] | None


def _shift_scores(tables: Tables) -> Iterable[_Part]:
    """The scores of images and those of pixels, under every plan and without a shift."""
    for table in ("invariance", "segmentation"):
        rows: pd.DataFrame = getattr(tables, table)
        if len(rows):
            rows = filled(rows)
            plans = _plan_names(rows)
            label = pd.Series([plans[plan] for plan in rows[PLAN].itertuples(index=False, name=None)], rows.index)
            rows = rows.assign(column=rows["score"] + label, images=f"n_images_{table}" + label)
            rows = rows.sort_values("shift_kind", key=lambda kinds: kinds != UNSHIFTED, kind="stable")
            fields = [
                scored(one.column, one.score, shift=None if one.shift_kind == UNSHIFTED else one) for one in _once(rows)
            ]
            yield _wide(rows, table, fields)
            images = rows.groupby([*_KEYS, "images"])["n_images"].max().reset_index()
            images = images.rename(columns={"images": "column", "n_images": "value"})
            about = f"images measured for table {table}"
            yield _wide(images, table, [Field(one.column, "count", "images", about) for one in _once(images)])


def _plan_names(rows: pd.DataFrame) -> dict[tuple[object, ...], str]:
    """What stands behind a score's name for each plan: nothing without a shift."""
    plans = rows[PLAN].drop_duplicates()
    plans = plans.assign(name=[_plan_name(*plan) for plan in plans[PLAN].itertuples(index=False, name=None)])
    shared = plans["name"].duplicated(keep=False) & (plans["shift_kind"] != UNSHIFTED)
    further = "_" + plans["plan"].astype(str) + plans["n_shifts"].astype(str)
    plans["name"] = plans["name"].where(~shared, plans["name"] + further)
    return {plan[:-1]: plan[-1] for plan in plans[[*PLAN, "name"]].itertuples(index=False, name=None)}


def _plan_name(kind: str, fill: str, largest: int, *_: object) -> str:
    return "" if kind == UNSHIFTED else f"_{_word(kind)}{f'_{_word(fill)}' if fill else ''}_{largest}px"


def _word(text: str) -> str:
    return re.sub(r"\W+", "_", text)


def _wide(rows: pd.DataFrame, table: str, fields: list[Field]) -> _Part:
    """Rows with a ``column``, a ``value`` and its errors as columns."""
    keys = [key for key in _KEYS if key in rows.columns]  # a cost is of no data
    repeated = rows[rows.duplicated([*keys, "column"])]
    if len(repeated):
        first = repeated.iloc[0]
        raise TableError(
            f"table {table} holds two measurements of {first['column']} of checkpoint {first['checkpoint']!r}; collect "
            "each setting into a folder of its own"
        )
    values = [name for name in ("value", *ERRORS) if name in rows.columns]
    wide = rows.pivot(index=keys, columns="column", values=values)
    pairs: Any = wide.columns
    wide.columns = pd.Index([f"{name}_{kind}".removesuffix("_value") for kind, name in pairs])
    every = [one for field in fields for one in (field, *(field.error(kind) for kind in values[1:]))]
    return wide.astype(float).reset_index(), every


def _readings(tables: Tables) -> _Part:
    if tables.layers.empty:
        return None
    rows = network_readings(tables.layers, _KEYS)
    return rows, [field_of(name) for name in rows.columns if name not in _KEYS]


def _robust(tables: Tables) -> _Part:
    rows = tables.robustness
    if rows.empty:
        return None
    base = [
        "robust_accuracy_" + "_".join(_word(str(part)) for part in parts if part)
        for parts in zip(
            rows["condition"].where(rows["condition_kind"] != "clean", "clean"),
            rows["norm"].fillna(""),
            map(_severity, rows["severity"], rows["condition_kind"]),
            strict=True,
        )
    ]
    rows = _told_apart(rows.assign(column=base, value=rows["accuracy"]), ["steps", "restarts", "step_size", "seed"])
    fields = [scored(one.column, "robust_accuracy", condition=one) for one in _once(rows)]
    return _wide(rows, "robustness", fields)


def _severity(value: float, kind: str) -> str:
    if pd.isna(value):
        return ""
    part = Fraction(value).limit_denominator(255)
    is_part = kind == "adversarial" and isclose(part, value, rel_tol=1e-6)
    return str(part) if is_part else f"{value:g}"


def _cost(tables: Tables) -> _Part:
    rows = tables.cost
    if rows.empty:
        return None
    rows = rows.assign(column="cost_" + rows["quantity"].map(_word))
    rows = _told_apart(rows, ["input_size", "batch_size", "device", "threads"])
    fields = [Field(one.column, "score", one.unit, _COSTS.get(one.quantity, one.quantity)) for one in _once(rows)]
    return _wide(rows.drop(columns=["low", "high"]), "cost", fields)


_COSTS = {
    "parameters": "number of parameters",
    "multiply_adds": "multiply-adds of one image's forward pass",
    "latency": "median time of a forward pass of a batch",
    "training_step": "median time of a training step of a batch",
}


def _told_apart(rows: pd.DataFrame, settings: list[str]) -> pd.DataFrame:
    """``rows`` whose ``column`` says the settings behind its name where it was measured under several of them."""
    shown = rows[settings].astype(object).where(rows[settings].notna(), "")
    several = shown.groupby(rows["column"]).transform("nunique") > 1
    added = pd.Series("", index=rows.index)
    for name in settings:
        text = shown[name].map(lambda value: _word(f"{value:g}" if isinstance(value, float) else str(value)))
        added += ("_" + _word(name) + text).where(several[name], "")
    return rows.assign(column=rows["column"] + added)


def _once(rows: pd.DataFrame) -> list[Any]:
    return list(rows.drop_duplicates("column").itertuples())


def fitting(names: list[str], only: str) -> list[str]:
    """The names that fit a pattern.

    Raises:
        TableError: there is none.
    """
    found = [name for name in names if fnmatchcase(name, only)]
    if not found:
        hint = unknown("checkpoint", only, names) if not set(only) & set("*?[") else f"{names[0]} is one"
        raise TableError(f"only {only!r}: no checkpoint has such a name ({hint})")
    return found
