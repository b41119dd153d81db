"""Locks of a file between processes, shared and exclusive: of the system's own kind, freed when the process ends."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:
    msvcrt = None  # type: ignore[assignment]

SLOTS = 64
"""Bytes of a file that stand for its lock on Windows: one that shares it holds one of them, who has it alone all."""

_HELD = (errno.EACCES, errno.EDEADLK)
"""What Windows says of bytes that another process has locked."""

_EVERY = 0.1
"""Seconds between two tries, where the system does not wait itself."""


@contextmanager
def held(file: IO[Any], *, shared: bool, wait: bool) -> Iterator[None]:
    """Hold the lock of an open file.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is false.
        OSError: the file system has no locks.
    """
    if fcntl is not None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield
        return
    if msvcrt is None:
        raise OSError("this system has no locks")
    while (place := _taken(file, shared)) is None:
        if not wait:
            raise BlockingIOError("another process holds it")
        time.sleep(_EVERY)
    start, count = place
    try:
        yield
    finally:
        file.seek(start)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, count)  # type: ignore[attr-defined, unused-ignore]


def _taken(file: IO[Any], shared: bool) -> tuple[int, int] | None:
    """The bytes of the file that are locked now: where from and how many; None where others hold them."""
    for start, count in [(slot, 1) for slot in range(SLOTS)] if shared else [(0, SLOTS)]:
        file.seek(start)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, count)  # type: ignore[attr-defined, unused-ignore]
        except OSError as error:
            if error.errno not in _HELD:
                raise  # no lock at all: to try again would be for ever
            continue
        return start, count
    return None
