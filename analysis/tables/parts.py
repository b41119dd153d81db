"""From the parquet parts of a folder to the rows that are wanted, each task once, filters pushed down to the files."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from invariscope.base.errors import TableError
from invariscope.collectors.schema import (
    COMPACTED,
    FORMER_COLUMNS,
    LATER_COLUMNS,
    SCHEMA_VERSION,
    TABLES,
    open_folder,
    part_key,
)

VERSION_KEY = b"schema_version"
"""Where a part states its schema version, in its parquet metadata; a part without it is judged by its columns alone."""

_RETRIES = 5
"""So often a table is read anew whose parts were compacted between listing and reading."""

_NETWORK = ["sha256", "model"]


@dataclass(frozen=True)
class Selection:
    """Which rows are wanted: ``column -> values``, for every table with the column; and the networks, where not all.

    ``networks`` holds the columns ``checkpoint``, ``sha256`` and ``model``.
    """

    where: Mapping[str, Sequence[Any]]
    networks: pd.DataFrame | None = None

    @classmethod
    def checked(cls, where: Mapping[str, Any] | None, tables: Collection[str]) -> Selection:
        """A selection by ``column -> value or list``.

        Raises:
            TableError: for a column that none of the tables has, or a value of another type than the column.
        """
        columns = {field.name: field.type for table in tables for field in TABLES[table]}
        checked = {}
        for column, value in (where or {}).items():
            if column not in columns:
                raise TableError(f"where: {_unknown('column', column, columns)}")
            values = [value] if isinstance(value, str) or not isinstance(value, Collection) else list(value)
            try:
                pa.array(values, columns[column])
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise TableError(f"where: {column} is of type {columns[column]}, which {values!r} is not") from error
            checked[column] = values
        return cls(checked)

    def expression(self, table: str) -> ds.Expression | None:
        """What the files are filtered with."""
        schema = TABLES[table]
        wanted = {column: values for column, values in self.where.items() if column in schema.names}
        if self.networks is not None:
            own = _NETWORK if _by_network(table) else ["checkpoint"]
            wanted |= {column: self.networks[column].unique().tolist() for column in own}
        found: ds.Expression | None = None
        for column, values in wanted.items():
            known = pa.array([value for value in values if value is not None], schema.field(column).type)
            part = ds.field(column).isin(known)
            if None in values:
                part = part | ds.field(column).is_null()
            found = part if found is None else found & part
        return found

    def exact(self, table: str, rows: pd.DataFrame) -> pd.DataFrame:
        """Of rows that passed the filter, those of the wanted networks: the files know no pairs of columns."""
        if self.networks is None or not _by_network(table):
            return rows
        return rows[pd.MultiIndex.from_frame(rows[_NETWORK]).isin(pd.MultiIndex.from_frame(self.networks[_NETWORK]))]


class Parts:
    """The parts of a folder of tables.

    Raises:
        TableError: there is no such folder.
    """

    def __init__(self, folder: Path | str) -> None:
        self.name = str(folder)
        try:
            self._filesystem, self._base = open_folder(folder)
        except ValueError as error:
            raise TableError(str(error)) from error
        if self._filesystem.get_file_info(self._base).type != fs.FileType.Directory:
            raise TableError(
                f"{self.name}: no such folder of tables; make one with `invariscope collect ZOO --out {self.name}`"
            )

    def files(self, table: str) -> list[str]:
        """Paths of the parts of a table."""
        selector = fs.FileSelector(f"{self._base}/{table}", allow_not_found=True)
        found = self._filesystem.get_file_info(selector)
        return sorted(i.path for i in found if i.path.endswith(".parquet") and not i.base_name.startswith("."))

    def read(self, table: str, selection: Selection) -> pd.DataFrame:
        """The selected rows of a table.

        Raises:
            TableError: for a part that cannot be read or is of another schema.
        """
        for _ in range(_RETRIES):
            try:
                batches = list(self._batches(table, selection, None, 1 << 20))
                break
            except FileNotFoundError:
                continue
        else:
            raise TableError(f"{self.name}: table {table} changes while it is read; read it when that has ended")
        rows = pa.Table.from_batches(batches) if batches else TABLES[table].empty_table()
        return selection.exact(table, rows.to_pandas()).reset_index(drop=True)

    def stream(
        self, table: str, selection: Selection, columns: Sequence[str] | None, batch_rows: int
    ) -> Iterator[pd.DataFrame]:
        """The selected rows of a table, in frames of at most ``batch_rows``.

        Raises:
            TableError: as :meth:`read`, and where a part vanishes on the way.
        """
        try:
            for batch in self._batches(table, selection, columns, batch_rows):
                if len(batch):
                    yield batch.to_pandas()
        except FileNotFoundError as error:
            raise TableError(f"{self.name}: table {table} changed while it was read; read it again") from error

    def _batches(
        self, table: str, selection: Selection, columns: Sequence[str] | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        selected = selection.expression(table)
        for files, once in self._sources(table):
            dataset = self._dataset(table, files)
            expression = once if selected is None else selected if once is None else once & selected
            projection = {column: _column(column) for column in columns or TABLES[table].names}
            scanner = dataset.scanner(columns=projection, filter=expression, batch_size=batch_rows)
            with _named_errors(f"{self._base}/{table}"):
                yield from scanner.to_batches()

    def _sources(self, table: str) -> Iterator[tuple[list[str], ds.Expression | None]]:
        """Files that are read together, and what of them counts, so that each task is read once.

        Compaction leaves one compacted part; more, or single parts of the same tasks beside it, are there while it is
        at work and after it was killed.
        """
        files = self.files(table)
        singles = [file for file in files if not _is_compacted(file)]
        compacted = [file for file in files if _is_compacted(file)]
        if singles:
            yield singles, None
        if not compacted:
            return
        key = part_key(table)
        seen = set(self._values(table, singles, key)) if table == "checkpoints" else set(map(_stem, singles))
        for number, file in enumerate(compacted):
            yield [file], ~ds.field(key).isin(pa.array(sorted(seen), pa.string())) if seen else None
            if number + 1 < len(compacted):
                seen |= set(self._values(table, [file], key))

    def _values(self, table: str, files: list[str], column: str) -> list[str]:
        if not files:
            return []
        values: list[str] = self._dataset(table, files).to_table(columns=[column])[column].unique().to_pylist()
        return values

    def _dataset(self, table: str, files: list[str]) -> ds.Dataset:
        schema = TABLES[table].remove_metadata()
        for name, former in FORMER_COLUMNS.items():
            if name in schema.names:
                schema = schema.append(pa.field(former, schema.field(name).type))
        with _named_errors(f"{self._base}/{table}"):
            dataset = ds.dataset(files, schema=schema, format="parquet", filesystem=self._filesystem)
        for fragment in dataset.get_fragments():
            _check_part(table, fragment)
        return dataset


def _column(name: str) -> ds.Expression:
    """A column, also where a part has it under its former name."""
    former = FORMER_COLUMNS.get(name)
    return ds.field(name) if former is None else pc.coalesce(ds.field(name), ds.field(former))


def _check_part(table: str, fragment: ds.Fragment) -> None:
    file = fragment.path
    try:
        found = fragment.physical_schema
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError(f"{file}: not a readable parquet file; delete it and collect again") from error
    version = (found.metadata or {}).get(VERSION_KEY)
    if version is not None and version != str(SCHEMA_VERSION).encode():
        raise TableError(
            f"{file}: written under schema version {version.decode(errors='replace')}, this package reads version "
            f"{SCHEMA_VERSION}; collect into a new folder"
        )
    names = set(found.names)
    names |= {name for name, former in FORMER_COLUMNS.items() if former in names}
    missing = [column for column in TABLES[table].names if column not in names | LATER_COLUMNS]
    if missing:
        raise TableError(f"{file}: table {table} lacks the columns {', '.join(missing)}; collect into a new folder")


@contextmanager
def _named_errors(folder: str) -> Iterator[None]:
    """Completes what pyarrow says of a column, in one line that names the folder."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise TableError(
            f"{folder}: a column has another type than the schema ({reason}); collect into a new folder"
        ) from error


def _by_network(table: str) -> bool:
    """Whether the rows of a table belong to a network, whatever names it has; descriptions and failures to a name."""
    return table != "checkpoints" and set(_NETWORK) <= set(TABLES[table].names)


def networks(rows: pd.DataFrame, checkpoints: Collection[str]) -> pd.DataFrame:
    """``checkpoint``, ``sha256`` and ``model`` of these names, from the table ``checkpoints``.

    Raises:
        TableError: for a name that is not described.
    """
    for name in checkpoints:
        if name not in set(rows["checkpoint"]):
            raise TableError(_unknown("checkpoint", name, rows["checkpoint"].tolist()))
    return rows.loc[rows["checkpoint"].isin(list(checkpoints)), ["checkpoint", *_NETWORK]]


def _unknown(kind: str, name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown {kind} {name!r}: " + (f"did you mean {near[0]!r}?" if near else f"known are {_few(known)}")


def _few(names: Collection[str]) -> str:
    shown = sorted(names)[:20]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def _is_compacted(file: str) -> bool:
    return _stem(file).startswith(COMPACTED)


def _stem(file: str) -> str:
    return file.rpartition("/")[2].removesuffix(".parquet")
