"""Texts for a terminal, a log or a font: names are text, and what would steer a terminal is written out."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters, marks that turn the direction of writing, line separators, and halves of no character."""


def plain(text: str) -> str:
    r"""A text in one line of characters that stand for themselves; others as ``\x1b`` or ``\u202e``."""
    return _STEERING.sub(_written_out, text)


def one_line_of(text: object) -> str:
    """A message in one line: its lines joined, everything else as :func:`plain` has it."""
    return plain(" ".join(line.strip() for line in str(text).splitlines() if line.strip()))


def say(*lines: object, file: TextIO | None = None) -> None:
    """Print lines, each as :func:`plain` has it: on standard output, or into ``file``."""
    for line in lines:
        print(plain(str(line)), file=file or sys.stdout)


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
