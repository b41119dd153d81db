"""Paths as users give them: what no file system takes, and what is no file to be read, refused in one line."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from invariscope.base.errors import InputError, OutputError

LONGEST_NAME = 255
"""Bytes of a file's name: what the file systems in use take."""

LONGEST_PATH = 4096

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def checked_path(text: str | Path, error: type[InputError] = InputError) -> Path:
    """A path that a file system can take: not empty, without NUL, of names that are no longer than it has them, and no
    link that leads to itself. Whether anything lies there is not asked.

    Raises:
        error: in one line.
    """
    text = str(text)
    if not text.strip():
        raise error("the path is empty: name a file or a folder")
    if "\0" in text:
        raise error(f"{text!r} holds a NUL character, which no path does: correct it")
    named = os.fsencode(text)
    if len(named) > LONGEST_PATH or max(map(len, named.split(os.fsencode(os.sep)))) > LONGEST_NAME:
        raise error(f"{text[:60]}...: a name in it is longer than {LONGEST_NAME} bytes: shorten it")
    try:
        os.stat(text)
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            raise error(f"{text}: a link that leads to itself: correct the path") from None
    return Path(text)


def folder_to_write(path: Path, option: str = "--out") -> Path:
    """A folder for results, which need not be there; refused where something else is, before anything is computed.

    Raises:
        OutputError: in one line.
    """
    _check_folder(path, f"{option} {path}")
    return path


def _check_folder(folder: Path, named: str) -> None:
    missing: Path | None = None
    for place in (folder, *folder.parents):
        if os.path.lexists(place):
            if not place.is_dir():
                raise OutputError(f"{named}: {place} is {unreadable(place) or 'a file'}: name a folder")
            if not os.access(place, os.W_OK | os.X_OK) or not _can_be_made(missing):
                raise OutputError(f"{named}: {place} cannot be written to: name another folder")
            break
        missing = place


def _can_be_made(folder: Path | None) -> bool:
    """Whether a folder that is not there can be made: an administrator has leave everywhere, and /proc holds none."""
    if folder is not None:
        tried = folder.with_name(f".invariscope-{os.getpid()}")  # another process may make the folder at this moment
        try:
            tried.mkdir(exist_ok=True)
            tried.rmdir()
        except OSError:
            return False
    return True


def file_to_write(path: Path, option: str = "--out") -> Path:
    """A file for results, which need not be there; refused where a device, a pipe or a folder has its name.

    Raises:
        OutputError: in one line.
    """
    if kind := unreadable(path):
        raise OutputError(f"{option} {path} is {kind}: name a file")
    _check_folder(path.resolve().parent, f"{option} {path}")
    return path


def unreadable(path: str | Path, largest: int | None = None) -> str:
    """Why what lies at a path cannot be read as a file: a folder, a pipe, a device, or more than ``largest`` bytes;
    empty for a file, and where nothing lies there."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    if not stat.S_ISREG(found.st_mode):
        return f"{_KINDS.get(stat.S_IFMT(found.st_mode), 'something else')} and no file"
    if largest is not None and found.st_size > largest:
        return f"{found.st_size:,} bytes, more than the {largest:,} that are read"
    return ""
