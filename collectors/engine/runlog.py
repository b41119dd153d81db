"""A log file per run in the folder of the tables: what was asked, what came of it, how it ended."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pyarrow import fs

from invariscope.base.errors import InputError
from invariscope.base.terminal import plain
from invariscope.collectors.store.parts import Store

FOLDER = "logs"

KEPT = 50
"""Log files that a folder keeps; older ones are deleted."""

LINES = 20_000
"""Lines of one log; what is more is counted only."""

_PACKAGES = ("invariscope", "torch", "numpy", "pandas", "pyarrow", "joblib")


class RunLog:
    """The lines of one run, written as they come. A log without a last line ``end: ...`` is of a run that was killed,
    or is going on.
    """

    def __init__(self, file: Any, store: Store) -> None:
        self._file = file
        self._store = store
        self._lines = 0

    def line(self, text: str) -> None:
        """Write a line with the time in front."""
        self._lines += 1
        if self._lines <= LINES:
            self._write(text)

    def end(self, text: str) -> None:
        """Write how the run ended."""
        if self._lines > LINES:
            self._write(f"{self._lines - LINES} further lines left out")
        self._write(f"end: {text}")

    def _write(self, text: str) -> None:
        with self._store.writing():
            self._file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {plain(' '.join(text.split()))}\n".encode())


@contextmanager
def run_log(store: Store, command: str) -> Iterator[RunLog]:
    """The log ``logs/<start>-<process>.log`` of a run, which also tells of an error or of Ctrl-C that ends it.

    Raises:
        OutputError: the folder cannot be written to.
    """
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{os.getpid()}.log"
    with store.writing():
        store.filesystem.create_dir(f"{store.base}/{FOLDER}", recursive=True)
        file = store.filesystem.open_output_stream(f"{store.base}/{FOLDER}/{name}", buffer_size=0)
    try:
        log = RunLog(file, store)
        log.line(f"command: {command}")
        log.line(f"versions: python {platform.python_version()}, {', '.join(map(_with_version, _PACKAGES))}")
        log.line(f"machine: {os.cpu_count()} cores, {platform.machine()}")
        yield log
    except KeyboardInterrupt:
        log.end("stopped by Ctrl-C")
        raise
    except InputError as error:
        with _unless_full():
            log.end(f"given up: {error}")
        raise
    finally:
        with _unless_full():
            file.close()
    others = [path for path in logs(store) if not path.endswith(f"/{name}")]  # a clock may have been set back
    for path in others[: 1 - KEPT]:
        store.delete(path)


def logs(store: Store) -> list[str]:
    """Paths of the logs, oldest first."""
    found = store.filesystem.get_file_info(fs.FileSelector(f"{store.base}/{FOLDER}", allow_not_found=True))
    return sorted(info.path for info in found if info.path.endswith(".log") and info.type == fs.FileType.File)


@contextmanager
def _unless_full() -> Iterator[None]:
    """On a disk without room the first refusal is the one to be told."""
    with suppress(OSError, InputError):
        yield


def _with_version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} missing"
