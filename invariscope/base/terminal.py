"""Texts for a terminal, a log or a font: names are text, and what would steer a terminal is written out."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TextIO

from invariscope.base.errors import OutputError

_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters, marks that turn the direction of writing, line separators, and halves of no character."""


def plain(text: str) -> str:
    r"""A text in one line of characters that stand for themselves; others as ``\x1b`` or ``\u202e``."""
    return _STEERING.sub(_written_out, text)


def one_line_of(text: object) -> str:
    """A message in one line: its lines joined, everything else as :func:`plain` has it."""
    return plain(" ".join(line.strip() for line in str(text).splitlines() if line.strip()))


def say(*lines: object, file: TextIO | None = None) -> None:
    """Print lines, each as :func:`plain` has it: on standard output, or into ``file``.

    Where the reader of the stream has gone, as ``| head`` has, they go nowhere.

    Raises:
        OutputError: the stream cannot be written to, as on a full disk.
    """
    stream = file or sys.stdout
    with letting_go(stream):
        for line in lines:
            print(plain(str(line)), file=stream)


@contextmanager
def letting_go(stream: TextIO) -> Iterator[None]:
    """What is written within goes nowhere once the stream's reader has gone.

    Raises:
        OutputError: the stream cannot be written to for another reason.
    """
    try:
        yield
    except OSError as error:
        _close_off(stream)
        gone = isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL)
        if not gone:
            name = getattr(stream, "name", "standard output")
            raise OutputError(f"{name}: cannot be written to ({error.strerror or error}): name another") from error


def _close_off(stream: TextIO) -> None:
    """Let what is left in a stream, and all that comes, go nowhere."""
    with suppress(OSError, AttributeError):  # none of the system's, as in a notebook
        number, nowhere = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


def with_streams() -> None:
    """Give this process the standard streams that it lacks: files that it opens would take their place."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives


def warn(*lines: object) -> None:
    """:func:`say` on standard error."""
    say(*lines, file=sys.stderr)


_noted: ContextVar[bool] = ContextVar("noted", default=True)
"""Whether notes are told."""


def note(*lines: object) -> None:
    """:func:`warn` of what is good to know and changes nothing; not within :func:`without_notes`."""
    if _noted.get():
        warn(*lines)


@contextmanager
def without_notes() -> Iterator[None]:
    """No notes inside."""
    token = _noted.set(False)
    try:
        yield
    finally:
        _noted.reset(token)


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
