"""Files: their hashes, and writing them whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from invariscope.base.errors import OutputError, TableError
from invariscope.base.flushing import flush, flush_folders, make_folder
from invariscope.base.paths import unreadable


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def signature(path: str | Path) -> list[int]:
    """Size, inode, and times of modification and of status change (ns) of a file: what betrays that it was replaced."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all: under a temporary name in its folder, flushed to the disk, then renamed."""
    write_together({Path(path): content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together: all are on the disk under temporary names before the first takes its own.

    A link is followed, so that the file that it leads to is replaced and not the link.

    Raises:
        OSError: also where a name is that of a device, a pipe or a folder, which is left alone.
    """
    temporary: dict[Path, str] = {}
    contents = {path.resolve() if path.is_symlink() else path: content for path, content in contents.items()}
    for path in contents:
        if kind := unreadable(path):
            raise OSError(errno.EEXIST, f"it is {kind}")
    try:
        for path, content in contents.items():
            handle, temporary[path] = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                flush(file.fileno())
            os.chmod(temporary[path], 0o644)  # mkstemp's 0600 would hide a published zoo from its other readers
        for path in contents:
            os.replace(temporary[path], path)
            del temporary[path]
        flush_folders(path.parent for path in contents)
    finally:
        for name in temporary.values():
            os.unlink(name)


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Make one line of what keeps the files of a folder from being written, by a command that goes on where it stopped.

    Raises:
        OutputError: for any ``OSError`` inside.
    """
    try:
        yield
    except OSError as problem:
        raise OutputError(
            f"{out}: cannot be written to ({problem.strerror or problem}): make room or name another --out, and give "
            "the same command, which goes on from there"
        ) from problem


def write_whole(path: Path, content: bytes) -> Path:
    """:func:`write_atomic` for results: the folder is made where it is missing.

    Raises:
        TableError: the path is a folder, or cannot be written to.
    """
    try:
        make_folder(path.parent)
        write_atomic(path, content)
    except OSError as error:
        raise TableError(f"{path}: cannot be written ({error.strerror or error}); name another file") from error
    return path
