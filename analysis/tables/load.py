"""From a folder of parquet tables to frames, as they were measured."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from invariscope.analysis.tables.truth import functions_only, newest_only
from invariscope.base.errors import TableError
from invariscope.base.names import unknown
from invariscope.base.terminal import plain
from invariscope.collectors.schema import TABLES
from invariscope.collectors.store.reader import RowFilter, TableReader

NOTES = "notes"
"""Key of the ``attrs`` of table ``checkpoints``: what :func:`load` left out."""


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
    drift: pd.DataFrame = field(default_factory=lambda: _empty("drift"))
    failures: pd.DataFrame = field(default_factory=lambda: _empty("failures"))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the tables, a line each."""
        return tuple(self.checkpoints.attrs.get(NOTES, ()))


def load(
    folder: Path | str,
    *,
    checkpoints: Collection[str] | None = None,
    where: Mapping[str, Any] | None = None,
    keep_nondeterministic: bool = False,
    keep_older: bool = False,
) -> Tables:
    """Read ``folder/<table>/*.parquet``, all parts of each table together, each task once, one truth per network.

    Where a network was measured on data of one name more than once, with other images, preprocessing or code, the
    newest measurement counts; networks that are marked as no function of the image are left out. ``notes`` of what is
    returned says of both which they were.

    Columns beyond the schema are left out. A table without parts is an empty frame. ``folder`` is a path, or the URI
    of a file system that pyarrow or fsspec knows (``s3://...``).

    Args:
        checkpoints: names; only the networks of these names are read.
        where: column -> value, or a list of them: only such rows are read, of every table that has the column, as in
            ``{"data": "digits/test", "shift_kind": ["none", "circular"]}``. Row groups without such rows are skipped.
        keep_nondeterministic: also networks whose logits change from pass to pass or from batch to batch.
        keep_older: also older measurements of what was measured again; most of the analysis refuses them.

    Raises:
        TableError: measurements of which no timings say which is newer; no such folder, no parts at all, a part that
            cannot be read, that lacks a column, whose column has another type, or that was written under another schema
            version; a checkpoint or a column that is not there.
    """
    reader = TableReader(folder)
    names = [table.name for table in fields(Tables)]
    if not any(reader.parts(name) for name in names):
        raise TableError(f"{folder}: holds no table parts; fill it with `invariscope collect ZOO --out {folder}`")
    wanted = RowFilter.checked(where, names)
    if checkpoints is not None:
        wanted = replace(wanted, networks=reader.networks(checkpoints))
    tables, notes = {name: _frame(reader.read(name, wanted)) for name in names}, list[str]()
    _refuse_mixed(tables, folder)
    if not keep_older:
        tables, notes = newest_only(tables, reader)
    if not keep_nondeterministic:
        tables, more = functions_only(tables)
        notes += more
    tables["checkpoints"].attrs[NOTES] = notes
    return Tables(**tables)


def _frame(rows: pa.Table) -> pd.DataFrame:
    """Rows as a frame, its texts of characters that stand for themselves: a name steers no terminal and no font."""
    for place, found in enumerate(rows.schema):
        if pa.types.is_string(found.type) and found.name not in AS_WRITTEN:
            column = rows.column(place).combine_chunks().dictionary_encode()
            texts = column.dictionary.to_pylist()
            shown = [plain(text) for text in texts]
            if shown != texts:
                made = pa.array(shown, found.type).take(column.indices)
                rows = rows.set_column(place, found, made)
    frame: pd.DataFrame = rows.to_pandas()
    return frame


AS_WRITTEN = ("factors", "metrics")
"""Texts that are JSON, whose values are shown and not they."""


def _refuse_mixed(tables: Mapping[str, pd.DataFrame], folder: Path | str) -> None:
    """Refuse scores of passes in several precisions, which would be pooled."""
    for name, rows in tables.items():
        found = sorted(rows["precision"].dropna().unique()) if "precision" in rows else []
        if len(found) > 1:
            raise TableError(
                f"{folder}: table {name} holds measurements in {' and '.join(found)}, which are not pooled: collect "
                "all in one precision into a new folder, or load one with where={'precision': ...}"
            )


def load_table(
    folder: Path | str,
    table: str,
    *,
    columns: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """One table as a frame, whoever's collector filled it; empty where not collected. Arguments as for :func:`scan`:
    other columns, and row groups without a wanted row, are not read from the files.

    Every row is there, also of measurements that newer ones replace.
    """
    _check_table(table)
    _check_columns(table, columns)
    frame: pd.DataFrame = TableReader(folder).read(table, RowFilter.checked(where, [table]), columns).to_pandas()
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
    _check_columns(table, columns)
    batches = TableReader(folder).stream(table, RowFilter.checked(where, [table]), columns, batch_rows)
    return (batch.to_pandas() for batch in batches)


def _check_columns(table: str, columns: Sequence[str] | None) -> None:
    for column in columns or ():
        if column not in TABLES[table].names:
            raise TableError(f"table {table}: {unknown('column', column, TABLES[table].names)}")


def _check_table(name: str) -> None:
    if name not in TABLES:
        raise TableError(unknown("table", name, TABLES))
