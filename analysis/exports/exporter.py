"""What an exporter is, and what it is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from invariscope.analysis.exports.wide import Wide
    from invariscope.analysis.tables.load import Tables


@dataclass(frozen=True)
class Source:
    """What is exported: loaded tables, the folder that they lie in where there is one, and the table made of them."""

    tables: Tables
    folder: Path | str | None = None
    only: str = "*"

    @cached_property
    def wide(self) -> Wide:
        """A row per checkpoint and data set, of the checkpoints whose names fit."""
        from invariscope.analysis.exports.wide import wide_table

        return wide_table(self.tables, self.only)


@dataclass(frozen=True)
class Exporter:
    """One door: ``write(source, out, **options)`` gives the paths that it wrote.

    Attributes:
        help: what is written, in a few words.
        write: its options are keyword arguments with a default.
        suffixes: how the name of a file of this kind ends, by which :func:`export` knows it.
    """

    help: str
    write: Callable[..., list[Path]]
    suffixes: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options that ``write`` takes."""
        parameters = inspect.signature(self.write).parameters.values()
        return tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)
