"""Many parts to few: the same rows in one file per table, which ten thousand checkpoints need to be read fast."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from invariscope.base.errors import DataError
from invariscope.collectors.schema import TABLES
from invariscope.collectors.store.contents import row_groups
from invariscope.collectors.store.digest import digested_writer
from invariscope.collectors.store.keys import part_key
from invariscope.collectors.store.parts import Store
from invariscope.collectors.store.reader import COMPACTED, PartFile
from invariscope.collectors.store.verifying import refuse_damaged

ROW_GROUP = 1 << 16
"""Rows of a row group: so few that a filter on checkpoints passes over most of a large table."""

_THREADS = 4


@dataclass(frozen=True)
class Compacted:
    """What became of one table."""

    table: str
    before: int
    after: int
    rows: int

    def __str__(self) -> str:
        return f"{self.table}: {self.before} parts -> {self.after} ({self.rows} rows)"


def compact(root: Path | str) -> list[Compacted]:
    """Put the parts of each table together into one, checkpoint by checkpoint; ``failures`` stay as they are.

    A run goes on from compacted tables as from others. The old parts are deleted once the new one is in place: whoever
    reads in between, or after a kill in between, counts each task once (:data:`COMPACTED`). No run may write into the
    folder meanwhile; on a local disk a lock sees to that.

    Raises:
        DataError: no folder of tables, a damaged part, one of something else or of another schema version.
        OutputError: a run holds the folder, or it cannot be written to.
    """
    store = Store(root)
    if not any(store.parts(table) for table in TABLES):
        raise DataError(f"{store.name}: holds no tables: make some with `invariscope collect ZOO --out {store.name}`")
    done = []
    with store.lock("run", busy="a run is writing into this folder: compact it when that has ended"):
        store.sweep()
        refuse_damaged(store)
        for table in TABLES:
            parts = store.parts(table)
            if table != "failures" and len(parts) > 1:
                done.append(_compact_table(store, table, parts))
    return done


def _compact_table(store: Store, table: str, parts: list[PartFile]) -> Compacted:
    path = store.path(table, f"{COMPACTED}{uuid.uuid4().hex}")
    schema = TABLES[table]
    count = 0
    with store.replacing(path) as file, digested_writer(file, schema, path) as writer:
        for rows in _grouped(_distinct_rows(store, table, parts)):
            writer.write_table(rows, row_group_size=ROW_GROUP)
            count += len(rows)
    for part in parts:
        store.delete(part.path)
    return Compacted(table, len(parts), 1, count)


def _distinct_rows(store: Store, table: str, parts: list[PartFile]) -> Iterator[pa.Table]:
    """The rows of all parts, each task once: the single ones by checkpoint, then what compacted ones have besides."""
    key = part_key(table)
    singles = [part for part in parts if not part.compacted]
    order = {row["part"].path: row["checkpoint"] for row in store.distinct(singles, ("checkpoint",))}
    singles.sort(key=lambda part: (order[part.path], part.path))
    seen = {row[key] for row in store.distinct(singles, (key,))}
    with ThreadPoolExecutor(_THREADS) as pool:
        # In slices, so that what is read ahead is bounded.
        for start in range(0, len(singles), _THREADS * 16):
            yield from pool.map(lambda part: _read(store, table, part), singles[start : start + _THREADS * 16])
    for part in (part for part in parts if part.compacted):
        inside: set[str] = set()
        for rows in row_groups(store.filesystem, table, part.path):
            keys = rows[key].to_pylist()
            inside |= set(keys)
            yield rows.filter(pa.array([value not in seen for value in keys], pa.bool_()))
        seen |= inside


def _read(store: Store, table: str, part: PartFile) -> pa.Table:
    return pa.concat_tables(row_groups(store.filesystem, table, part.path))


def _grouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Small tables together, so that a row group holds many of them."""
    waiting: list[pa.Table] = []
    count = 0
    for rows in tables:
        waiting.append(rows)
        count += len(rows)
        if count >= ROW_GROUP:
            yield pa.concat_tables(waiting)
            waiting, count = [], 0
    if waiting:
        yield pa.concat_tables(waiting)
