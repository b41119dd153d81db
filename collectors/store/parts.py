"""Writes parquet parts that exist whole or not at all, and removes them; locks, and what a killed run left."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from invariscope.base.errors import DataError, OutputError
from invariscope.base.flushing import flush_files, flush_folders, make_folder
from invariscope.base.paths import unreadable
from invariscope.collectors.schema import TABLES
from invariscope.collectors.store.checked import problem_of
from invariscope.collectors.store.contents import checked_part
from invariscope.collectors.store.digest import write_digested
from invariscope.collectors.store.done import DAMAGED, StoredTasks
from invariscope.collectors.store.keys import checkpoint_slot, part_key, replaces
from invariscope.collectors.store.locking import held
from invariscope.collectors.store.reader import PartFile

if TYPE_CHECKING:
    import pandas as pd

LONGEST_WAIT = 1.0
"""Seconds of finished work that wait to be flushed with more: what a kill may take back."""


class Store(StoredTasks):
    """The tables of one folder, to be written to.

    A part is written under a temporary name, flushed, and then moved: on a local disk that is one atomic step, after
    which its folder is flushed; an object store shows an object only once it is complete.
    """

    _held: list[tuple[str, str]] | None = None
    _since = 0.0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Parts written within are flushed and take their names together: at the end, or where :meth:`settle` has it.

        A file system commits at once what is flushed at once: ten parts cost about as much as one.

        Raises:
            OutputError: as :meth:`write`.
        """
        self._held, self._since = [], time.monotonic()
        try:
            yield
        finally:
            held, self._held = self._held, None
            self._take_names(held)

    def settle(self) -> None:
        """Within :meth:`together`, after a task: give its parts their names where more than a moment's work waits.

        Raises:
            OutputError: as :meth:`write`.
        """
        if self._held and time.monotonic() - self._since > LONGEST_WAIT:
            held, self._held = self._held, []
            self._take_names(held)
            self._since = time.monotonic()

    def _take_names(self, written: list[tuple[str, str]]) -> None:
        # Timings first: a run that ends in between measures the task again, and its time with it.
        written = sorted(written, key=lambda names: not names[1].startswith(f"{self.base}/timings/"))
        left = dict(written)
        try:
            with self.writing():
                if self.folder is not None:
                    flush_files(left)
                for temporary, path in written:
                    self.filesystem.move(temporary, path)
                    del left[temporary]
                if self.folder is not None:
                    flush_folders(path.rpartition("/")[0] for _, path in written)
        finally:
            for temporary in left:
                self.delete(temporary)

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            OutputError: the folder cannot be made or written to.
        """
        probe = f"{self.base}/.writable"
        with self.writing():
            for table in TABLES:
                if self.folder is not None:
                    make_folder(self.folder / table)
                else:
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

    def write(self, table: str, slot: str, rows: pd.DataFrame) -> str:
        """Write one part, atomically: under a temporary name in the same folder, then moved.

        Raises:
            ValueError: a column of the schema is missing, unknown, or empty where it may not be, or holds what no
                reader takes.
            OutputError: the disk is full, or the folder cannot be written to.
        """
        data = _to_arrow(table, rows)
        if (problem := problem_of(data, table)) is not None:
            raise ValueError(f"rows for table {table}: {problem}")
        path = self.path(table, slot)
        temporary = self._temporary(path)
        with self._whole(temporary) as file:
            write_digested(file, data, path)
        if self._held is None:
            self._take_names([(temporary, path)])
            return path
        self._held.append((temporary, path))
        return path

    @contextmanager
    def replacing(self, path: str) -> Iterator[Any]:
        """A file to write into that takes the place of ``path`` at the end, and leaves nothing where that fails.

        Raises:
            OutputError: as :meth:`write`.
        """
        temporary = self._temporary(path)
        with self._whole(temporary) as file:
            yield file
        self._take_names([(temporary, path)])

    @staticmethod
    def _temporary(path: str) -> str:
        folder, _, name = path.rpartition("/")
        # Unique per writer, so that two runs into one folder cannot write into the same temporary file.
        return f"{folder}/.{name.strip('.').partition('.')[0]}.{_unique()}.tmp"

    @contextmanager
    def _whole(self, temporary: str) -> Iterator[Any]:
        with self.writing():
            try:
                with self.filesystem.open_output_stream(temporary) as file:
                    yield file
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

    def set_aside(self, table: str, part: PartFile) -> str | None:
        """Move a damaged part out of the table, to ``damaged/``, so that what it held is measured again; its new path.

        None where another run has done that meanwhile, or has measured it again.

        Raises:
            OutputError: the folder cannot be written to.
        """
        path = f"{self.base}/{DAMAGED}/{table}-{part.slot}.{_unique()}.parquet"
        with self.writing(), self.lock("rewrite"):
            try:
                if checked_part(self.filesystem, table, part.path).damage is None:
                    return None
            except FileNotFoundError:
                return None
            self.filesystem.create_dir(f"{self.base}/{DAMAGED}", recursive=True)
            self.filesystem.move(part.path, path)
            if self.folder is not None:
                flush_folders((path.rpartition("/")[0], part.path.rpartition("/")[0]))
        return path

    def remove(self, table: str, slots: set[str]) -> None:
        """Remove what these slots hold, in single parts and in compacted ones.

        Raises:
            OutputError: the folder cannot be written to.
        """
        if not slots:
            return
        for slot in slots:
            self.delete(self.path(table, slot))
        if self.folder is not None:
            with self.writing():
                flush_folders([f"{self.base}/{table}"])  # before what tells of these rows goes as well
        if not any(part.compacted for part in self.parts(table)):
            return
        key = part_key(table)
        with self.lock("rewrite"):
            for part in filter(lambda part: part.compacted, self.parts(table)):
                if (reason := checked_part(self.filesystem, table, part.path).damage) is not None:
                    raise DataError(f"{part.path}: {reason}: run collect again, which sets it aside")
                rows = pq.read_table(part.path, filesystem=self.filesystem)
                values = rows[key].to_pylist()
                kept = [(checkpoint_slot(v) if replaces(table) else v) not in slots for v in values]
                if not any(kept):
                    self.delete(part.path)
                elif not all(kept):
                    with self.replacing(part.path) as file:
                        write_digested(file, rows.filter(pa.array(kept)), part.path)

    def remove_networks(self, networks: set[tuple[str, str]]) -> None:
        """Remove every measurement of these networks (SHA-256 of the weights, model string).

        Raises:
            OutputError: the folder cannot be written to.
        """
        if not networks:
            return
        for table, schema in TABLES.items():
            if not replaces(table) and {"sha256", "model"} <= set(schema.names):
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
            OutputError: with ``busy``, where it is held; the folder's file system has no locks.
        """
        if self.folder is None:
            yield
            return
        with ExitStack() as stack:
            with self.writing():
                file = stack.enter_context(_lock_file(self.folder / f".{name}.lock"))
                try:
                    stack.enter_context(held(file, shared=shared, wait=not busy))
                except BlockingIOError as error:
                    raise OutputError(f"{self.name}: {busy}") from error
                except OSError as error:
                    raise OutputError(
                        f"{self.name}: its file system has no locks ({error.strerror or error}), which keep runs "
                        "apart: name a folder on a local disk"
                    ) from error
            yield

    def scratch(self, what: str = "run") -> str:
        """Name of a file or folder for the time of one run, which :meth:`sweep` knows."""
        return f"{self.base}/.{what}.{_unique()}.tmp"

    def sweep(self) -> None:
        """Remove temporary files that a killed run of this machine left behind, and no others; on Windows none, where
        it cannot be asked whether the run lives."""
        if self.folder is None:
            return
        for path in [*self.folder.glob("*/.*.tmp"), *self.folder.glob(".*.tmp")]:
            if runs_here(path.name) is False:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _lock_file(path: Path) -> IO[bytes]:
    """The file of a lock, open; a pipe of its name would be waited for, for ever."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o666), "r+b", buffering=0)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OutputError(f"{path} is {unreadable(path)}: move it away")
    return file


def runs_here(name: str) -> bool | None:
    """Whether the process runs that gave a file this temporary name; None where that was none of this machine."""
    parts = name.split(".")
    if len(parts) != 6 or parts[2] != _machine() or not parts[3].isdecimal():
        return None
    return _alive(int(parts[3]))


def _unique() -> str:
    return f"{_machine()}.{os.getpid()}.{uuid.uuid4().hex}"


def _machine() -> str:
    """This machine, and on it the processes that can be seen: containers of one name have numbers of their own."""
    try:
        seen = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        seen = ""
    return hashlib.sha256(f"{platform.node()}{seen}".encode()).hexdigest()[:8]


def _alive(process: int) -> bool:
    if os.name == "nt":  # there signal 0 is Ctrl-C, sent to every process of the console
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # one that has ended may wait for whoever asks how
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True


def _to_arrow(table: str, rows: pd.DataFrame) -> pa.Table:
    schema = TABLES[table]
    missing = [name for name in schema.names if name not in rows.columns]
    extra = [name for name in rows.columns if name not in schema.names]
    if missing or extra:
        raise ValueError(f"rows for table {table}: missing columns {missing}, unknown columns {extra}")
    data = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
    return data.replace_schema_metadata(schema.metadata)
