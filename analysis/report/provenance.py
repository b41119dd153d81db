"""Where the numbers of a report come from: data, shift plans, versions, counts, failures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version

import pandas as pd

from invariscope.analysis.tables.load import Tables
from invariscope.collectors.schema import PLAN_COLUMNS

LIBRARIES = ("invariscope", "numpy", "pandas", "scipy", "statsmodels", "matplotlib")
"""What analysed the tables and made the page."""


def provenance(tables: Tables) -> dict[str, pd.DataFrame]:
    """Frames by title: the data measured on, the shift plans, the versions that measured and analysed, the rows of each
    table, and the tasks that failed where there are any.
    """
    frames = {
        "Data": _data(tables),
        "Shift plans": _plans(tables),
        "Versions": _versions(tables),
        "Rows of the tables": _rows(tables),
    }
    if len(tables.failures):
        order = ["checkpoint", "stage", "error"]
        shown = tables.failures[["checkpoint", "stage", "error", "message", "data", "sha256"]]
        frames["Tasks that failed"] = shown.sort_values(order, ignore_index=True)
    return frames


def _each(tables: Tables, *columns: str) -> Iterator[pd.DataFrame]:
    """Those columns of every table that has them all and has rows."""
    for field in fields(tables):
        table = getattr(tables, field.name)
        if len(table) and set(columns) <= set(table.columns):
            yield table[list(columns)].assign(table=field.name)


def _data(tables: Tables) -> pd.DataFrame:
    keys = ["data", "data_fingerprint"]
    rows = pd.concat(_each(tables, *keys, "checkpoint", "n_images"))
    groups = rows.groupby(keys, as_index=False)
    return groups.agg(checkpoints=("checkpoint", "nunique"), most_images=("n_images", "max"), tables=("table", _listed))


def _plans(tables: Tables) -> pd.DataFrame:
    rows = pd.concat(_each(tables, *PLAN_COLUMNS, "data", "checkpoint"))
    keys = [*PLAN_COLUMNS, "data"]
    groups = rows.groupby(keys, as_index=False, dropna=False)
    return groups.agg(checkpoints=("checkpoint", "nunique"), tables=("table", _listed))


def _versions(tables: Tables) -> pd.DataFrame:
    measured = pd.concat(_each(tables, "invariscope_version", "torch_version")).drop_duplicates()
    by = {"invariscope": measured["invariscope_version"], "torch": measured["torch_version"]}
    rows = [("measuring", name, ", ".join(sorted(found.astype(str).unique()))) for name, found in by.items()]
    rows += [("analysing", library, _version(library)) for library in LIBRARIES]
    return pd.DataFrame(rows, columns=["used for", "library", "version"])


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _rows(tables: Tables) -> pd.DataFrame:
    counts = [
        (field.name, len(table), table["checkpoint"].nunique())
        for field in fields(tables)
        if len(table := getattr(tables, field.name))
    ]
    return pd.DataFrame(counts, columns=["table", "rows", "checkpoints"])


def _listed(names: pd.Series) -> str:
    return ", ".join(dict.fromkeys(names))
