"""What an exporter is, and what it is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from invariscope.base.errors import OutputError
from invariscope.base.paths import checked_path, file_to_write
from invariscope.collectors.schema import TABLES

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

    def place(self, out: Path | str, folder: Path | str | None = None) -> Path:
        """``out`` as a path that can be written to.

        Args:
            folder: of the tables, where they are read from one.

        Raises:
            InputError: no path, a folder where a file is written, or a place within one of the tables, all of whose
                files are read as its parts.
        """
        path = checked_path(out)
        if self.suffixes:
            if path.name in ("", ".."):
                raise OutputError(f"--out {path} is a folder and no file: name a file")
            file_to_write(path)
        inside = _inside(path, folder)
        if inside and inside[0] in TABLES:
            raise OutputError(
                f"--out {path} lies in table {inside[0]} of {folder}, whose files are its rows: write beside the tables"
            )
        return path


def _inside(path: Path, folder: Path | str | None) -> tuple[str, ...]:
    """The names that lead from a folder of this machine to a path in it; none where it lies elsewhere."""
    if str(folder).startswith("file://"):
        folder = url2pathname(urlsplit(str(folder)).path)
    if folder is None or "://" in str(folder):
        return ()
    path, root = path.resolve(), checked_path(str(folder)).resolve()
    return path.relative_to(root).parts if path.is_relative_to(root) else ()
