"""What a part holds, read whole: its rows as the schema has them, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from invariscope.base.errors import DataError
from invariscope.base.terminal import one_line_of
from invariscope.collectors.schema import SCHEMA_VERSION
from invariscope.collectors.store.checked import checked_rows, part_errors, problem_of
from invariscope.collectors.store.digest import Checked, Unpacked, check
from invariscope.collectors.store.reader import completed


class OtherVersionError(DataError):
    """A part of another schema version: no damage, and for another version of this package to read."""


def row_groups(filesystem: fs.FileSystem, table: str, path: str) -> Iterator[pa.Table]:
    """The rows of a part, checked, one row group at a time.

    Raises:
        DataError: it is no part of the table.
        OtherVersionError: it is one of another schema version.
    """
    with part_errors(path, DataError):
        for rows in _read(filesystem, table, path):
            yield checked_rows(rows, table, path)


def checked_part(filesystem: fs.FileSystem, table: str, path: str, *, known: bool = False) -> Checked:
    """What a look at every byte of a part says; where it has no digest, at its rows.

    Args:
        known: a part without a digest was read before, and has not changed since.

    Raises:
        FileNotFoundError: there is no such file.
        OtherVersionError: a part of another schema version.
    """
    found = check(filesystem, path)
    if found.signed or found.damage is not None or known:
        return found
    return replace(found, damage=_wrong(filesystem, table, path))


def _wrong(filesystem: fs.FileSystem, table: str, path: str) -> str | None:
    """What is wrong with the rows of a part, in words."""
    count = 0
    try:
        for rows in _read(filesystem, table, path):
            if (problem := problem_of(rows, table)) is not None:
                return problem
            count += len(rows)
    except (OtherVersionError, FileNotFoundError):
        raise
    except DataError as error:
        return str(error)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        return f"is no part of table {table} ({one_line_of(error)[:100]})"
    return None if count else "holds no rows"


def _read(filesystem: fs.FileSystem, table: str, path: str) -> Iterator[pa.Table]:
    with filesystem.open_input_file(path) as file, pq.ParquetFile(file) as parquet:
        if (problem := Unpacked().refusal(parquet.metadata.num_rows, file.size())) is not None:
            raise DataError(problem)
        found = parquet.schema_arrow.metadata or {}
        version = found.get(b"schema_version", str(SCHEMA_VERSION).encode()).decode(errors="replace")
        if version != str(SCHEMA_VERSION):
            raise OtherVersionError(
                f"{path}: is no part of table {table} in schema version {SCHEMA_VERSION} but in {version}: use a new "
                "folder"
            )
        for number in range(parquet.num_row_groups):
            yield completed(parquet.read_row_group(number), table)
