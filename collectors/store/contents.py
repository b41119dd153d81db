"""What a part holds, read whole: its rows as the schema has them, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from invariscope.base.errors import DataError, TableError
from invariscope.collectors.schema import SCHEMA_VERSION
from invariscope.collectors.store.checked import checked_rows, part_errors
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
    refusal = f"{path}: is no part of table {table}"
    with (
        part_errors(path, DataError),
        filesystem.open_input_file(path) as file,
        pq.ParquetFile(file) as parquet,
    ):
        if (problem := Unpacked().refusal(parquet.metadata.num_rows, file.size())) is not None:
            raise DataError(f"{path}: {problem}: delete it and collect again")
        found = parquet.schema_arrow.metadata or {}
        version = found.get(b"schema_version", str(SCHEMA_VERSION).encode()).decode(errors="replace")
        if version != str(SCHEMA_VERSION):
            raise OtherVersionError(f"{refusal} in schema version {SCHEMA_VERSION} but in {version}: use a new folder")
        for number in range(parquet.num_row_groups):
            yield checked_rows(completed(parquet.read_row_group(number), table), table, path)


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
    try:
        count = sum(map(len, row_groups(filesystem, table, path)))
    except OtherVersionError:
        raise
    except (DataError, TableError) as error:
        return replace(found, damage=str(error).removeprefix(f"{path}: ").partition(":")[0])
    return found if count else replace(found, damage="holds no rows")
