"""Reads the tables of a folder, each task once, filters pushed down to the files; pyarrow alone, no torch, no pandas.

A table is a folder ``TABLES/<name>`` of parquet parts. A part holds the rows of one task and is named by it. One whose
name begins with :data:`COMPACTED` holds the rows of many; where it and another part hold the same thing (the same value
of :func:`invariscope.collectors.store.keys.part_key`), one of the two counts. Older parts have some columns under
another name, and lack others.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from invariscope.base.errors import TableError, one_line
from invariscope.base.names import unknown
from invariscope.base.paths import checked_path
from invariscope.collectors.schema import DESCRIPTION, FORMER_COLUMNS, LATER_COLUMNS, SCHEMA_VERSION, TABLES
from invariscope.collectors.store.checked import checked_rows, part_errors
from invariscope.collectors.store.digest import Unpacked, check
from invariscope.collectors.store.keys import part_key, replaces

COMPACTED = "compacted-"
"""How the name of a part begins that ``invariscope compact`` made of many."""

VERSION_KEY = b"schema_version"
"""Where a part states its schema version, in its parquet metadata; a part without it is judged by its columns alone."""

_RETRIES = 5
"""So often a table is read anew whose parts were compacted between listing and reading."""

NETWORK = ("sha256", "model")
"""The columns that tell one network from another."""


def open_folder(folder: Path | str) -> tuple[fs.FileSystem, str]:
    """The file system of a folder of tables and the path in it, from a path or a URI.

    ``s3://...``, ``gs://...``, ``hdfs://...`` and ``file://...`` are pyarrow's own; any other scheme is looked up in
    fsspec, which the extra ``measure`` brings.

    Raises:
        ValueError: for a URI that neither knows; the message is one line.
    """
    text = str(folder)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text}: the name holds bytes that are no UTF-8: rename the folder") from None
    if "://" not in text:
        return fs.LocalFileSystem(), os.path.abspath(checked_path(text))
    found: list[tuple[fs.FileSystem, str]] = []
    problems: list[BaseException] = []

    def ask() -> None:
        try:
            filesystem, path = _of_uri(text)
            filesystem.get_file_info(path)
            found.append((filesystem, path))
        except Exception as problem:  # of whichever package knows the scheme
            problems.append(problem)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    if found:
        return found[0]
    reason = one_line(problems[0]) if problems else f"it does not answer within {_PATIENCE} s"
    raise ValueError(f"{text}: no such file system ({reason}): give a folder, or a URI such as s3://...")


def _of_uri(text: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI, of pyarrow where it knows the scheme."""
    try:
        known: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(text)
        return known
    except pa.ArrowInvalid:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(text)
        return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


_PATIENCE = 6
"""Seconds that a file system elsewhere has to answer: one of a cloud whose machine is not there waits for minutes."""


@dataclass(frozen=True)
class PartFile:
    """A part file: its path in the file system, its size in bytes and its time of change in nanoseconds."""

    path: str
    size: int
    mtime_ns: int

    @property
    def slot(self) -> str:
        """The file's name without its ending."""
        return self.path.rpartition("/")[2].removesuffix(".parquet")

    @property
    def compacted(self) -> bool:
        """Whether it holds the rows of many tasks."""
        return self.slot.startswith(COMPACTED)


def list_parts(filesystem: fs.FileSystem, base: str, table: str) -> list[PartFile]:
    """All parts of a table in a folder, by name."""
    place = f"{base}/{table}"
    if filesystem.get_file_info(place).type not in (fs.FileType.Directory, fs.FileType.NotFound):
        raise TableError(f"{place}: is no folder, and table {table} is one: move it away")
    found = filesystem.get_file_info(fs.FileSelector(place, allow_not_found=True))
    for info in found:
        if info.path.endswith(".parquet") and info.type != fs.FileType.File and not info.base_name.startswith("."):
            kind = "a folder" if info.type == fs.FileType.Directory else "a pipe, a device or a link to nothing"
            raise TableError(f"{info.path}: is {kind} and no part: move it away")
    if isinstance(filesystem, fs.LocalFileSystem) and os.path.isdir(place):
        _refuse_links(place, {info.base_name for info in found})
    parts = [
        PartFile(info.path, info.size, info.mtime_ns or 0)
        for info in found
        if info.path.endswith(".parquet") and not info.base_name.startswith(".")
    ]
    return sorted(parts, key=lambda part: part.path)


def _refuse_links(folder: str, found: set[str]) -> None:
    """Refuse links to nothing and to themselves, which a listing leaves out."""
    for name in set(os.listdir(folder)) - found:
        path = os.path.join(folder, name)
        if name.endswith(".parquet") and not name.startswith(".") and os.path.islink(path) and not os.path.exists(path):
            raise TableError(f"{path}: is a link to nothing and no part: move it away")


def completed(rows: pa.Table, table: str) -> pa.Table:
    """The columns of a table's schema, by their names of today; those that an older part lacks as nulls.

    Raises:
        KeyError, pa.ArrowInvalid: a column that is missing, or of another type.
    """
    schema = TABLES[table]
    former = {old: new for new, old in FORMER_COLUMNS.items()}
    rows = rows.rename_columns([former.get(name, name) for name in rows.column_names])
    for name in LATER_COLUMNS & set(schema.names) - set(rows.column_names):
        rows = rows.append_column(schema.field(name), pa.nulls(len(rows), schema.field(name).type))
    return rows.select(schema.names).cast(schema)


@dataclass(frozen=True)
class RowFilter:
    """Which rows are wanted: ``column -> values``, for every table with the column; and the networks, where not all.

    ``networks`` are names of checkpoints with their ``sha256`` and ``model``: a table whose rows belong to a network is
    filtered by the last two, whatever names it has, and another one by the name.
    """

    where: Mapping[str, Sequence[Any]]
    networks: Sequence[tuple[str, str, str]] | None = None

    @classmethod
    def checked(cls, where: Mapping[str, Any] | None, tables: Collection[str]) -> RowFilter:
        """A filter by ``column -> value or list``.

        Raises:
            TableError: for a column that none of the tables has, or a value of another type than the column.
        """
        columns = {field.name: field.type for table in tables for field in TABLES[table]}
        checked = {}
        for column, value in (where or {}).items():
            if column not in columns:
                raise TableError(f"where: {unknown('column', column, columns)}")
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
        wanted = {column: list(values) for column, values in self.where.items() if column in schema.names}
        if self.networks is not None:
            own = ("checkpoint", *NETWORK)
            kept = NETWORK if by_network(table) else own[:1]
            wanted |= {column: sorted({row[own.index(column)] for row in self.networks}) for column in kept}
        found: ds.Expression | None = None
        for column, values in wanted.items():
            part = _is_in(schema.field(column), values)
            found = part if found is None else found & part
        return found

    def exact(self, table: str, rows: pa.Table) -> pa.Table:
        """Of rows that passed the filter, those of the wanted networks: the files know no pairs of columns."""
        if self.networks is None or not by_network(table):
            return rows
        wanted = {(sha256, model) for _, sha256, model in self.networks}
        found = zip(*(rows[column].to_pylist() for column in NETWORK), strict=True)
        return rows.filter(pa.array([pair in wanted for pair in found], pa.bool_()))


def _is_in(field: pa.Field, values: list[Any]) -> ds.Expression:
    known = pa.array([value for value in values if value is not None], field.type)
    inside = ds.field(field.name).isin(known)
    return inside | ds.field(field.name).is_null() if None in values else inside


class TableReader:
    """The tables of a folder.

    Raises:
        TableError: there is no such folder.
    """

    def __init__(self, folder: Path | str) -> None:
        self.name = str(folder)
        self._sound: set[str] = set()
        try:
            self._filesystem, self._base = open_folder(folder)
        except ValueError as error:
            raise TableError(str(error)) from error
        if self._filesystem.get_file_info(self._base).type != fs.FileType.Directory:
            raise TableError(
                f"{self.name}: no such folder of tables; make one with `invariscope collect ZOO --out {self.name}`"
            )

    def parts(self, table: str) -> list[PartFile]:
        """The parts of a table, by name."""
        return list_parts(self._filesystem, self._base, table)

    def read(self, table: str, wanted: RowFilter, columns: Sequence[str] | None = None) -> pa.Table:
        """The wanted rows of a table; of its ``columns`` those alone are read, where they are given.

        Raises:
            TableError: for a part that cannot be read or is of another schema.
        """
        for _ in range(_RETRIES):
            try:
                batches = list(self._batches(table, wanted, columns, 1 << 20))
                break
            except FileNotFoundError:
                continue
        else:
            raise TableError(f"{self.name}: table {table} changes while it is read; read it when that has ended")
        if not batches:
            return _empty(table, columns)
        return wanted.exact(table, checked_rows(pa.Table.from_batches(batches), table, f"{self._base}/{table}"))

    def networks(self, checkpoints: Collection[str]) -> list[tuple[str, str, str]]:
        """Name, ``sha256`` and ``model`` of these checkpoints, from the table of descriptions.

        Raises:
            TableError: for a name that is not described.
        """
        rows = self.read(DESCRIPTION, RowFilter({})).select(["checkpoint", *NETWORK])
        found = list(zip(*(column.to_pylist() for column in rows.columns), strict=True))
        described = {name for name, _, _ in found}
        for name in checkpoints:
            if name not in described:
                raise TableError(unknown("checkpoint", name, described))
        return [row for row in found if row[0] in set(checkpoints)]

    def stream(
        self, table: str, wanted: RowFilter, columns: Sequence[str] | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """The wanted rows of a table, in batches of at most ``batch_rows``.

        Raises:
            TableError: as :meth:`read`, and where a part vanishes on the way.
        """
        try:
            for batch in self._batches(table, wanted, columns, batch_rows):
                if len(batch):
                    yield batch
        except FileNotFoundError as error:
            raise TableError(f"{self.name}: table {table} changed while it was read; read it again") from error

    def _batches(
        self, table: str, wanted: RowFilter, columns: Sequence[str] | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        selected = wanted.expression(table)
        for files, once in self._sources(table):
            dataset = self._dataset(table, files)
            expression = once if selected is None else selected if once is None else once & selected
            projection = {column: _column(column) for column in columns or TABLES[table].names}
            scanner = dataset.scanner(columns=projection, filter=expression, batch_size=batch_rows)
            with part_errors(f"{self._base}/{table}"):
                yield from scanner.to_batches()

    def _sources(self, table: str) -> Iterator[tuple[list[str], ds.Expression | None]]:
        """Files that are read together, and what of them counts, so that each task is read once.

        Compaction leaves one compacted part; more, or single parts of the same tasks beside it, are there while it is
        at work and after it was killed.
        """
        parts = self.parts(table)
        singles = [part for part in parts if not part.compacted]
        compacted = [part.path for part in parts if part.compacted]
        paths = [part.path for part in singles]
        if paths:
            yield paths, None
        if not compacted:
            return
        key = part_key(table)
        seen = set(self._values(table, paths, key)) if replaces(table) else {part.slot for part in singles}
        for number, file in enumerate(compacted):
            yield [file], ~ds.field(key).isin(pa.array(sorted(seen), pa.string())) if seen else None
            if number + 1 < len(compacted):
                seen |= set(self._values(table, [file], key))

    def _values(self, table: str, files: list[str], column: str) -> list[str]:
        if not files:
            return []
        with part_errors(f"{self._base}/{table}"):
            values: list[str] = self._dataset(table, files).to_table(columns=[column])[column].unique().to_pylist()
        return values

    def _dataset(self, table: str, files: list[str]) -> ds.Dataset:
        schema = TABLES[table].remove_metadata()
        for name, former in FORMER_COLUMNS.items():
            if name in schema.names:
                schema = schema.append(pa.field(former, schema.field(name).type))
        self._verify(files)
        with part_errors(f"{self._base}/{table}"):
            dataset = ds.dataset(files, schema=schema, format="parquet", filesystem=self._filesystem)
        unpacked = Unpacked()
        for fragment in dataset.get_fragments():
            _check_part(table, fragment, unpacked)
        return dataset

    def _verify(self, files: list[str]) -> None:
        """Refuse parts that are not as they were written; an object store checks that itself."""
        if not isinstance(self._filesystem, fs.LocalFileSystem):
            return
        for file in files:
            if file not in self._sound:
                if (reason := check(self._filesystem, file).damage) is not None:
                    raise TableError(f"{file}: {reason}: run collect again, which sets it aside and measures it anew")
                self._sound.add(file)


def _empty(table: str, columns: Sequence[str] | None) -> pa.Table:
    found: pa.Table = TABLES[table].empty_table()
    return found if columns is None else found.select(columns)


def _column(name: str) -> ds.Expression:
    """A column, also where a part has it under its former name."""
    former = FORMER_COLUMNS.get(name)
    return ds.field(name) if former is None else pc.coalesce(ds.field(name), ds.field(former))


def _check_part(table: str, fragment: ds.Fragment, unpacked: Unpacked) -> None:
    file = fragment.path
    try:
        found = fragment.physical_schema
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TableError(f"{file}: not a readable parquet file; delete it and collect again") from error
    rows, size = fragment.metadata.num_rows, fragment.filesystem.get_file_info(file).size or 0
    if (problem := unpacked.refusal(rows, size)) is not None:
        raise TableError(f"{file}: {problem}; delete it and collect again")
    version = (found.metadata or {}).get(VERSION_KEY)
    if version is not None and version != str(SCHEMA_VERSION).encode():
        raise TableError(
            f"{file}: written under schema version {version.decode(errors='replace')}, this package reads version "
            f"{SCHEMA_VERSION}; collect into a new folder"
        )
    names = set(found.names)
    names |= {name for name, former in FORMER_COLUMNS.items() if former in names}
    if len(set(found.names)) < len(found.names):
        raise TableError(f"{file}: has a column twice; delete it and collect again")
    missing = [column for column in TABLES[table].names if column not in names | LATER_COLUMNS]
    if missing:
        raise TableError(f"{file}: table {table} lacks the columns {', '.join(missing)}; collect into a new folder")


def by_network(table: str) -> bool:
    """Whether the rows of a table belong to a network, whatever names it has; descriptions and failures to a name."""
    return not replaces(table) and set(NETWORK) <= set(TABLES[table].names)
