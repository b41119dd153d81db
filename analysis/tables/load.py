"""From a folder of parquet tables to frames, as they were measured."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from invariscope.base.errors import TableError
from invariscope.base.names import unknown
from invariscope.collectors.schema import TABLES
from invariscope.collectors.store.reader import RowFilter, TableReader


def _empty(name: str) -> pd.DataFrame:
    frame: pd.DataFrame = TABLES[name].empty_table().to_pandas()
    return frame


@dataclass(frozen=True)
class Tables:
    """The tables that the analysis of this package reads, each with the columns of :data:`TABLES`; empty where not
    collected.

    They are these, whatever collectors are known: :func:`load_table` and :func:`scan` read the table of any other
    collector from its folder.
    """

    checkpoints: pd.DataFrame
    layers: pd.DataFrame
    invariance: pd.DataFrame
    surface: pd.DataFrame
    swaps: pd.DataFrame = field(default_factory=lambda: _empty("swaps"))
    robustness: pd.DataFrame = field(default_factory=lambda: _empty("robustness"))
    segmentation: pd.DataFrame = field(default_factory=lambda: _empty("segmentation"))
    cost: pd.DataFrame = field(default_factory=lambda: _empty("cost"))
    failures: pd.DataFrame = field(default_factory=lambda: _empty("failures"))


def load(
    folder: Path | str, *, checkpoints: Collection[str] | None = None, where: Mapping[str, Any] | None = None
) -> Tables:
    """Read ``folder/<table>/*.parquet``, all parts of each table together, each task once.

    Columns beyond the schema are left out. A table without parts is an empty frame. ``folder`` is a path, or the URI
    of a file system that pyarrow or fsspec knows (``s3://...``).

    Args:
        checkpoints: names; only the networks of these names are read.
        where: column -> value, or a list of them: only such rows are read, of every table that has the column, as in
            ``{"data": "digits/test", "shift_kind": ["none", "circular"]}``. Row groups without such rows are skipped.

    Raises:
        TableError: no such folder, no parts at all, a part that cannot be read, that lacks a column, whose column has
            another type, or that was written under another schema version; a checkpoint or a column that is not there.
    """
    reader = TableReader(folder)
    names = [table.name for table in fields(Tables)]
    if not any(reader.parts(name) for name in names):
        raise TableError(f"{folder}: holds no table parts; fill it with `invariscope collect ZOO --out {folder}`")
    wanted = RowFilter.checked(where, names)
    if checkpoints is not None:
        wanted = replace(wanted, networks=reader.networks(checkpoints))
    return Tables(**{name: reader.read(name, wanted).to_pandas() for name in names})


def load_table(folder: Path | str, table: str, *, where: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """One table as a frame, whoever's collector filled it; empty where not collected. Arguments as for :func:`scan`."""
    _check_table(table)
    frame: pd.DataFrame = TableReader(folder).read(table, RowFilter.checked(where, [table])).to_pandas()
    return frame


def scan(
    folder: Path | str,
    table: str,
    *,
    columns: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
    batch_rows: int = 1 << 17,
) -> Iterator[pd.DataFrame]:
    """The rows of one table, in frames of at most ``batch_rows``: for tables that do not fit into memory.

    Args:
        table: a name of :data:`TABLES`, ``predictions``, ``failures`` and ``timings`` among them.
        columns: columns to read; all by default.
        where: as for :func:`load`.

    Raises:
        TableError: as :func:`load`; an unknown table.
    """
    _check_table(table)
    for column in columns or ():
        if column not in TABLES[table].names:
            raise TableError(f"table {table}: {unknown('column', column, TABLES[table].names)}")
    batches = TableReader(folder).stream(table, RowFilter.checked(where, [table]), columns, batch_rows)
    return (batch.to_pandas() for batch in batches)


def _check_table(name: str) -> None:
    if name not in TABLES:
        raise TableError(unknown("table", name, TABLES))
