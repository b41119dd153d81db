"""What a folder of tables holds: which tasks are done, of which networks, under which conditions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from invariscope.base.errors import DataError, InputError
from invariscope.collectors.schema import TABLES
from invariscope.collectors.store.checked import part_errors
from invariscope.collectors.store.digest import Unpacked
from invariscope.collectors.store.keys import checkpoint_slot, replaces
from invariscope.collectors.store.reader import PartFile, list_parts, open_folder

HEAD = ("checkpoint", "sha256", "model", "task")
"""Columns that say whose rows a part holds."""

DAMAGED = "damaged"
"""The folder of parts that were set aside."""

_RETRIES = 5
"""A listing is taken anew so often where a part vanishes between listing and reading: another run replaced it."""

Result = TypeVar("Result")


class StoredTasks:
    """The tasks of one folder of tables, ``ROOT/<table>/<slot>.parquet``, one part per task.

    A part's name is its task's key, so that what is done is known from the names alone. Where a new task replaces the
    old one (a checkpoint described anew), the part has a fixed name, its *slot*, and the key stands inside. Compacted
    parts hold many tasks; a single part beats its rows in a compacted one.

    ``root`` is a path, or the URI of any file system of pyarrow or fsspec.

    Raises:
        DataError: for a URI of no known file system.
    """

    def __init__(self, root: Path | str) -> None:
        self.name = str(root)
        try:
            self.filesystem, self.base = open_folder(root)
        except ValueError as error:
            raise DataError(str(error)) from error

    @property
    def folder(self) -> Path | None:
        """The folder on this machine's file system; none where the tables are elsewhere."""
        return Path(self.base) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    overlooked: frozenset[str] = frozenset()
    """Paths of damaged parts, which count as not there."""

    def path(self, table: str, slot: str) -> str:
        """The part file of a slot, in the store's file system."""
        return f"{self.base}/{table}/{slot}.parquet"

    def parts(self, table: str) -> list[PartFile]:
        """All parts of a table, by name."""
        found = list_parts(self.filesystem, self.base, table)
        return [part for part in found if part.path not in self.overlooked] if self.overlooked else found

    def folders(self) -> list[str]:
        """The names of all folders in it, of tables and of others, but for that of parts that were set aside."""
        found = self.filesystem.get_file_info(fs.FileSelector(self.base, allow_not_found=True))
        names = (info.base_name for info in found if info.type == fs.FileType.Directory)
        return sorted(name for name in names if name != DAMAGED)

    def has(self, table: str, slot: str) -> bool:
        """Whether a single part of this name is there."""
        info: fs.FileInfo = self.filesystem.get_file_info(self.path(table, slot))
        return info.type == fs.FileType.File

    def has_task(self, table: str, slot: str, key: str) -> bool:
        """Whether the single part of a slot is there and holds the rows of this task."""
        if not self.has(table, slot):
            return False
        if slot == key:
            return True
        try:
            rows = pq.read_table(self.path(table, slot), columns=["task"], filesystem=self.filesystem)
            return set(rows["task"].to_pylist()) == {key}
        except (pa.ArrowException, OSError, ValueError, KeyError):  # damaged, or replaced at this moment
            return False

    def keys(self, table: str) -> set[str]:
        """Keys of the tasks whose rows are there, of a table whose parts are named by them."""

        def read() -> set[str]:
            parts = self.parts(table)
            inside = [part for part in parts if part.compacted]
            keys = {part.slot for part in parts if not part.compacted}
            return keys | {row["task"] for row in self.distinct(inside, ("task",))}

        return self._retried(read)

    def heads(
        self, table: str, known: Callable[[PartFile], dict[str, str] | None] = lambda part: None
    ) -> dict[str, dict[str, str]]:
        """Checkpoint, weights, model string and task of every task of a table, by slot.

        ``known`` gives the head of a single part where it is known without reading it.

        Raises:
            DataError: for a file that is no part of these tables.
        """

        def read() -> dict[str, dict[str, str]]:
            parts = self.parts(table)
            heads = {part.slot: known(part) for part in parts if not part.compacted}
            unknown = [part for part in parts if part.compacted or heads[part.slot] is None]
            inside: dict[str, dict[str, str]] = {}
            for row in self.distinct(unknown, HEAD):
                part = row.pop("part")
                slot = checkpoint_slot(row["checkpoint"]) if replaces(table) else row["task"]
                (inside if part.compacted else heads)[slot if part.compacted else part.slot] = row
            return inside | {slot: head for slot, head in heads.items() if head is not None}

        return self._retried(read)

    def rows(self, table: str, columns: tuple[str, ...]) -> list[dict[str, Any]]:
        """The different rows that these columns hold in all parts of a table, as :meth:`distinct` gives them."""
        return self._retried(lambda: self.distinct(self.parts(table), columns))

    def distinct(self, parts: list[PartFile], columns: tuple[str, ...]) -> list[dict[str, Any]]:
        """The different rows that the columns of these parts hold, each with its ``part``; text columns only.

        Raises:
            DataError: for a file without these columns or without rows.
        """
        if not parts:
            return []
        by_path = {part.path: part for part in parts}
        schema = pa.schema([(column, pa.string()) for column in columns])
        try:
            dataset = ds.dataset(list(by_path), schema=schema, format="parquet", filesystem=self.filesystem)
            _refuse_many(dataset, parts)
            found = dataset.to_table(columns=[*columns, "__filename"])
            rows = found.group_by([*columns, "__filename"]).aggregate([]).to_pylist()
        except (FileNotFoundError, InputError):
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._refusal(parts, columns) from error
        for row in rows:
            row["part"] = by_path[row.pop("__filename")]
        silent = set(by_path) - {row["part"].path for row in rows if None not in row.values()}
        if silent:
            raise _no_part(min(silent))
        return rows

    def combinations(self, table: str, columns: tuple[str, ...]) -> list[dict[str, Any]]:
        """The different rows that columns of any type hold in a table.

        Raises:
            DataError: for a file that is no part of these tables.
        """
        schema = TABLES[table]
        fields = pa.schema([schema.field(name).with_nullable(True) for name in columns])
        parts = self.parts(table)
        with part_errors(f"{self.name}/{table}", DataError):
            files = [part.path for part in parts]
            dataset = ds.dataset(files, schema=fields, format="parquet", filesystem=self.filesystem)
            _refuse_many(dataset, parts)
            rows: list[dict[str, Any]] = dataset.to_table().group_by(list(columns)).aggregate([]).to_pylist()
        return rows

    def _refusal(self, parts: list[PartFile], columns: tuple[str, ...]) -> DataError:
        """Which of the parts it is that cannot be read."""
        for part in parts:
            try:
                pq.read_table(part.path, columns=list(columns), filesystem=self.filesystem).to_pylist()
            except (pa.ArrowException, OSError, ValueError):
                return _no_part(part.path)
        return _no_part(f"{self.name}: a part")

    def _retried(self, read: Callable[[], Result]) -> Result:
        for _ in range(_RETRIES):
            try:
                return read()
            except FileNotFoundError:
                continue
        return read()


def _refuse_many(dataset: ds.Dataset, parts: list[PartFile]) -> None:
    sizes, unpacked = {part.path: part.size for part in parts}, Unpacked()
    for fragment in dataset.get_fragments():
        if (problem := unpacked.refusal(fragment.metadata.num_rows, sizes[fragment.path])) is not None:
            raise DataError(f"{fragment.path}: {problem}: delete it and collect again")


def _no_part(path: str) -> DataError:
    return DataError(f"{path}: is no parquet part of these tables: delete it")
