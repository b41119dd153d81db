"""How much a command tells while it runs: flags that every command has."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from invariscope.base.progress import quiet
from invariscope.base.terminal import plain, without_notes


@dataclass(frozen=True)
class TellingFlags:
    """What is told while a command runs."""

    quiet: bool = False
    """No progress bars and no notes. Results, failed checkpoints and errors are told as ever."""
    log_level: Literal["debug", "info", "warning", "error"] | None = None
    """Also write what the modules of this package log from this level on to standard error, a line each."""


GROUP = "telling"
"""The field of a command that holds them."""


class _Lines(logging.Formatter):
    """A record in one line."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(f"{record.levelname.lower()}: {record.name}: {record.getMessage()}")


@contextmanager
def told(flags: TellingFlags) -> Iterator[None]:
    """Within it no more is told than the flags say, in this process."""
    log, handler = logging.getLogger("invariscope"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    before = log.level, log.propagate
    if flags.log_level is not None:
        log.addHandler(handler)
        log.setLevel(flags.log_level.upper())
        log.propagate = False
    try:
        if flags.quiet:
            with quiet(), without_notes():
                yield
        else:
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]
