"""Parquet parts that exist whole or not at all, and the task keys that say what is done."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from invariscope.base.errors import DataError, OutputError
from invariscope.collectors.schema import COMPACTED, SCHEMA_VERSION, TABLES, open_folder, part_key

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HEAD = ("checkpoint", "sha256", "model", "task")
"""Columns that say whose rows a part holds."""

_RETRIES = 5
"""A listing is taken anew so often where a part vanishes between listing and reading: another run replaced it."""

Result = TypeVar("Result")


def task_key(**parts: Any) -> str:
    """Key of a task: a hash of plain values (strings, numbers, lists, dicts) and of the schema version.

    Equal parts give equal keys on every machine; tensors and modules are refused (``TypeError`` from ``json``).
    """
    text = json.dumps({**parts, "schema": SCHEMA_VERSION}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def description_slot(checkpoint: str) -> str:
    """Name of the part that describes a checkpoint: a new description replaces the old one."""
    return task_key(name=checkpoint)


@dataclass(frozen=True)
class Part:
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


class Store:
    """The tables of one folder: ``ROOT/<table>/<slot>.parquet``, one part per task.

    A part's name is its task's key, so that what is done is known from the names alone. Where a new task replaces the
    old one (a checkpoint described anew), the part has a fixed name, its *slot*, and the key stands inside. Compacted
    parts (:func:`compact`) hold many tasks; a single part beats its rows in a compacted one.

    ``root`` is a path, or the URI of any file system of pyarrow or fsspec. A part is written under a temporary name and
    then moved: on a local disk that is one atomic step, and an object store shows an object only once it is complete.

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

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            OutputError: the folder cannot be made or written to.
        """
        probe = f"{self.base}/.writable"
        with self.writing():
            for table in TABLES:
                self.filesystem.create_dir(f"{self.base}/{table}", recursive=True)
        with self.replacing(probe) as file:
            file.write(b"0")
        self.delete(probe)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Completes what the operating system says of a write that failed, in one line.

        Raises:
            OutputError: for any ``OSError`` inside.
        """
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())[:200]
            raise OutputError(
                f"{self.name}: cannot write tables here ({reason}): make room or name another --out; "
                "what is there is whole"
            ) from error

    def path(self, table: str, slot: str) -> str:
        """The part file of a slot, in the store's file system."""
        return f"{self.base}/{table}/{slot}.parquet"

    def parts(self, table: str) -> list[Part]:
        """All parts of a table, by name."""
        selector = fs.FileSelector(f"{self.base}/{table}", allow_not_found=True)
        return sorted(
            (
                Part(info.path, info.size, info.mtime_ns or 0)
                for info in self.filesystem.get_file_info(selector)
                if info.path.endswith(".parquet") and not info.base_name.startswith(".")
            ),
            key=lambda part: part.path,
        )

    def keys(self, table: str) -> set[str]:
        """Keys of the tasks whose rows are there (of ``checkpoints``, see :meth:`heads`)."""

        def read() -> set[str]:
            parts = self.parts(table)
            inside = [part for part in parts if part.compacted]
            keys = {part.slot for part in parts if not part.compacted}
            return keys | {row["task"] for row in self.distinct(inside, ("task",))}

        return self._retried(read)

    def heads(
        self, table: str, known: Callable[[Part], dict[str, str] | None] = lambda part: None
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
                slot = description_slot(row["checkpoint"]) if table == "checkpoints" else row["task"]
                (inside if part.compacted else heads)[slot if part.compacted else part.slot] = row
            return inside | {slot: head for slot, head in heads.items() if head is not None}

        return self._retried(read)

    def rows(self, table: str, columns: tuple[str, ...]) -> list[dict[str, Any]]:
        """The different rows that these columns hold in all parts of a table, as :meth:`distinct` gives them."""
        return self._retried(lambda: self.distinct(self.parts(table), columns))

    def distinct(self, parts: list[Part], columns: tuple[str, ...]) -> list[dict[str, Any]]:
        """The different rows that the columns of these parts hold, each with its ``part``; text columns only.

        Raises:
            DataError: for a file without these columns or without rows.
        """
        if not parts:
            return []
        by_path = {part.path: part for part in parts}
        schema = pa.schema([(column, pa.string()) for column in columns])
        try:
            rows = (
                ds.dataset(list(by_path), schema=schema, format="parquet", filesystem=self.filesystem)
                .to_table(columns=[*columns, "__filename"])
                .group_by([*columns, "__filename"])
                .aggregate([])
                .to_pylist()
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise self._refusal(parts, columns) from error
        for row in rows:
            row["part"] = by_path[row.pop("__filename")]
        silent = set(by_path) - {row["part"].path for row in rows if None not in row.values()}
        if silent:
            raise _no_part(min(silent))
        return rows

    def _refusal(self, parts: list[Part], columns: tuple[str, ...]) -> DataError:
        """Which of the parts it is that cannot be read."""
        for part in parts:
            try:
                pq.read_table(part.path, columns=list(columns), filesystem=self.filesystem)
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                return _no_part(part.path)
        return _no_part(f"{self.name}: a part")

    def _retried(self, read: Callable[[], Result]) -> Result:
        for _ in range(_RETRIES):
            try:
                return read()
            except FileNotFoundError:
                continue
        return read()

    def has(self, table: str, slot: str) -> bool:
        """Whether a single part of this name is there."""
        info: fs.FileInfo = self.filesystem.get_file_info(self.path(table, slot))
        return info.type == fs.FileType.File

    def write(self, table: str, slot: str, rows: pd.DataFrame) -> str:
        """Write one part, atomically: under a temporary name in the same folder, then moved.

        Raises:
            ValueError: a column of the schema is missing, unknown, or empty where it may not be.
            OutputError: the disk is full, or the folder cannot be written to.
        """
        data = _to_arrow(table, rows)
        path = self.path(table, slot)
        with self.replacing(path) as file:
            pq.write_table(data, file, compression="zstd")
        return path

    @contextmanager
    def replacing(self, path: str) -> Iterator[Any]:
        """A file to write into that takes the place of ``path`` at the end, and leaves nothing where that fails.

        Raises:
            OutputError: as :meth:`write`.
        """
        folder, _, name = path.rpartition("/")
        # Unique per writer, so that two runs into one folder cannot write into the same temporary file.
        temporary = f"{folder}/.{name.strip('.').partition('.')[0]}.{_unique()}.tmp"
        with self.writing():
            try:
                with self.filesystem.open_output_stream(temporary) as file:
                    yield file
                self.filesystem.move(temporary, path)
            except BaseException:
                self.delete(temporary)
                raise

    def delete(self, path: str) -> None:
        """Delete a file where it is there."""
        try:
            self.filesystem.delete_file(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if self.filesystem.get_file_info(path).type != fs.FileType.NotFound:
                raise OutputError(f"{path}: cannot be deleted ({error}): make its folder writable") from error

    def remove(self, table: str, slots: set[str]) -> None:
        """Remove what these slots hold, in single parts and in compacted ones.

        Raises:
            OutputError: the folder cannot be written to.
        """
        for slot in slots:
            self.delete(self.path(table, slot))
        if not slots or not any(part.compacted for part in self.parts(table)):
            return
        key = part_key(table)
        with self.lock("rewrite"):
            for part in filter(lambda part: part.compacted, self.parts(table)):
                rows = pq.read_table(part.path, filesystem=self.filesystem)
                values = rows[key].to_pylist()
                kept = [(description_slot(v) if key == "checkpoint" else v) not in slots for v in values]
                if not any(kept):
                    self.delete(part.path)
                elif not all(kept):
                    with self.replacing(part.path) as file:
                        pq.write_table(rows.filter(pa.array(kept)), file, compression="zstd")

    def remove_networks(self, networks: set[tuple[str, str]]) -> None:
        """Remove every measurement of these networks (SHA-256 of the weights, model string).

        Raises:
            OutputError: the folder cannot be written to.
        """
        if not networks:
            return
        for table, schema in TABLES.items():
            if table != "checkpoints" and {"sha256", "model"} <= set(schema.names):
                heads = self.heads(table)
                slots = {slot for slot, head in heads.items() if (head["sha256"], head["model"]) in networks}
                self.remove(table, slots)

    @contextmanager
    def lock(self, name: str, *, shared: bool = False, busy: str = "") -> Iterator[None]:
        """Hold one of the folder's locks; the system frees it when the process ends, however it ends.

        Where tables are on no local disk there are no locks, and the caller is to see that runs do not overlap.

        Args:
            busy: refuse with this line where another process holds the lock; wait by default.

        Raises:
            OutputError: with ``busy``, where it is held.
        """
        if self.folder is None or fcntl is None:
            yield
            return
        with ExitStack() as stack:
            with self.writing():
                file = stack.enter_context(open(self.folder / f".{name}.lock", "a"))
                try:
                    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (fcntl.LOCK_NB if busy else 0))
                except BlockingIOError as error:
                    raise OutputError(f"{self.name}: {busy}") from error
            yield

    def scratch(self) -> str:
        """Name of a folder for what one run shares with its workers, which :meth:`sweep` knows."""
        return f"{self.base}/.run.{_unique()}.tmp"

    def sweep(self) -> None:
        """Remove temporary files that a killed run of this machine left behind, and no others."""
        if self.folder is None:
            return
        for path in [*self.folder.glob("*/.*.tmp"), *self.folder.glob(".*.tmp")]:
            name = path.name.split(".")
            mine = len(name) == 6 and name[2] == _machine() and name[3].isdecimal()
            if mine and not _alive(int(name[3])):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _no_part(path: str) -> DataError:
    return DataError(f"{path}: is no parquet part of these tables: delete it")


def _unique() -> str:
    return f"{_machine()}.{os.getpid()}.{uuid.uuid4().hex}"


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _to_arrow(table: str, rows: pd.DataFrame) -> pa.Table:
    schema = TABLES[table]
    missing = [name for name in schema.names if name not in rows.columns]
    extra = [name for name in rows.columns if name not in schema.names]
    if missing or extra:
        raise ValueError(f"rows for table {table}: missing columns {missing}, unknown columns {extra}")
    data = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
    return data.replace_schema_metadata(schema.metadata)
