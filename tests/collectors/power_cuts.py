"""What a disk would hold after a power cut: a layer under the program that knows only what was flushed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest


class Disk:
    """A folder as a disk holds it: the bytes that files had, and the names that folders had, when they were flushed.

    Of what was not flushed a file system may have any part. :meth:`images` makes three: the names of the last flush
    alone; these without those that were deleted since; and all names that are there now, of which files that were never
    flushed are empty.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bytes: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}
        self._open: list[BinaryIO] = []
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
            self.flushed(folder.stat().st_ino, folder)
            for file in folder.iterdir():
                if file.is_file():
                    self.flushed(file.stat().st_ino, file)

    def flushed(self, number: int, path: Path) -> None:
        if path.is_dir():
            self.names[number] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
        else:
            self.bytes[number] = path.read_bytes()
            self._open.append(path.open("rb"))  # else the number of a deleted file is given to another

    def close(self) -> None:
        for file in self._open:
            file.close()

    def images(self, onto: Path) -> Iterator[Path]:
        for name, present in (
            ("least", self._flushed_names),
            ("deleted", self._left_names),
            ("most", _present_names),
        ):
            image = onto / name
            shutil.rmtree(image, ignore_errors=True)
            self._written(self.root, image, present)
            yield image

    def _flushed_names(self, folder: Path) -> dict[str, int]:
        return self.names.get(folder.stat().st_ino, {}) if folder.is_dir() else {}

    def _written(self, folder: Path, onto: Path, names: Callable[[Path], dict[str, int]]) -> None:
        onto.mkdir(parents=True)
        here = {entry.stat().st_ino: entry for entry in folder.iterdir() if entry.is_dir()}
        for name, number in names(folder).items():
            if number in here:
                self._written(here[number], onto / name, names)
            elif number in self.names:
                (onto / name).mkdir()
            else:
                (onto / name).write_bytes(self.bytes.get(number, b""))

    def _left_names(self, folder: Path) -> dict[str, int]:
        present = _present_names(folder)
        return {name: number for name, number in self._flushed_names(folder).items() if name in present}


def _present_names(folder: Path) -> dict[str, int]:
    return {entry.name: entry.stat().st_ino for entry in folder.iterdir()}


@contextmanager
def power_cuts(root: Path, monkeypatch: pytest.MonkeyPatch, at: Callable[[Disk], None]) -> Iterator[Disk]:
    """Call ``at`` before every flush below ``root``, and once more after the block."""
    disk, real = Disk(root), os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if root in (path, *path.parents):
            at(disk)
            disk.flushed(os.fstat(descriptor).st_ino, path)
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr("invariscope.base.flushing.F_FULLFSYNC", None)
        patched.setattr("invariscope.base.flushing._THREADS", 1)
        patched.setattr("invariscope.base.flushing._pool", lambda process: _OneByOne())
        patched.setattr(os, "fsync", fsync)
        yield disk
    at(disk)
    disk.close()


class _OneByOne:
    """In the place of a pool of threads: a cut falls between two flushes."""

    map = staticmethod(map)
