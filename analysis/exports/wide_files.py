"""The wide table as a file: CSV with a second one that describes its columns, or parquet that holds both."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from invariscope.analysis.exports.exporter import Exporter, Source
from invariscope.analysis.exports.wide import Wide
from invariscope.analysis.tables.factors import factor_text
from invariscope.base.errors import TableError
from invariscope.base.files import write_whole
from invariscope.base.paths import unreadable
from invariscope.base.spreadsheet import csv_text


def write_csv(source: Source, out: Path) -> list[Path]:
    """``out``, and beside it ``<stem>.columns.csv``: name, role, unit and meaning of its columns.

    Raises:
        TableError: a file of that name is there that is none of ours.
    """
    about = out.with_name(f"{out.stem}.columns.csv")
    described = csv_text(source.wide.described).encode()
    if not _is_ours(about, described.partition(b"\n")[0]):
        raise TableError(f"{about} is there and describes no columns: name another --out than {out}, or move it away")
    return [write_whole(out, csv_text(source.wide.rows).encode()), write_whole(about, described)]


def _is_ours(about: Path, header: bytes) -> bool:
    """Whether nothing lies there, or what was written there before."""
    if not os.path.lexists(about):
        return True
    if unreadable(about):
        return False
    with open(about, "rb") as file:
        return file.readline(len(header) + 2).rstrip(b"\r\n") == header


def write_parquet(source: Source, out: Path) -> list[Path]:
    """``out``; role, unit and meaning stand in the metadata of its columns."""
    buffer = io.BytesIO()
    pq.write_table(arrow_table(source.wide), buffer)
    return [write_whole(out, buffer.getvalue())]


def arrow_table(wide: Wide) -> pa.Table:
    """The table, with role, unit and meaning of each column in its metadata; factors of several types are texts."""
    columns, fields = [], []
    for one in wide.fields:
        values = wide.rows[one.name]
        if values.dtype == object and values.dropna().map(type).nunique() > 1:
            values = factor_text(values).where(values.notna(), None)
        columns.append(pa.array(values, from_pandas=True))
        notes = {"role": one.role, "unit": one.unit, "meaning": one.meaning}
        fields.append(pa.field(one.name, columns[-1].type, metadata=notes))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


CSV = Exporter("the wide table as CSV, its columns described in a second one", write_csv, (".csv",))
PARQUET = Exporter("the wide table as parquet, its columns described inside", write_parquet, (".parquet",))
