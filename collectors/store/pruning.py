"""Removes what newer measurements replaced, and what belongs to no checkpoint that is described any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from invariscope.base.errors import DataError
from invariscope.base.words import counted
from invariscope.collectors.schema import DESCRIPTION, TABLES
from invariscope.collectors.store.newest import VARIANT_COLUMNS, measured_tables, stale_by_table, variant_of
from invariscope.collectors.store.parts import Store
from invariscope.collectors.store.verifying import refuse_damaged

REPLACED = "measured again since, with other images, preprocessing or code"
UNDESCRIBED = "of networks that table checkpoints does not describe"


@dataclass(frozen=True)
class Pruned:
    """The tasks of one table that are stale for one reason, of which checkpoints, on which data."""

    table: str
    reason: str
    tasks: frozenset[str]
    checkpoints: tuple[str, ...]
    data: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.checkpoints[:3]) + (", ..." if len(self.checkpoints) > 3 else "")
        on = f" on {', '.join(self.data)}" if self.data else ""
        return f"{self.table}: {counted(len(self.tasks), 'task')}{on} ({shown}): {self.reason}"


def find_stale(root: Path | str) -> list[Pruned]:
    """What :func:`prune` would remove. Nothing is written.

    Raises:
        DataError: no folder of tables, a file that is no part, or a damaged one.
        TableError: measurements that compete, and no timings.
    """
    store = Store(root)
    if not any(store.parts(table) for table in TABLES):
        raise DataError(f"{store.name}: holds no tables: make some with `invariscope collect ZOO --out {store.name}`")
    refuse_damaged(store)
    described = {(head["sha256"], head["model"]) for head in store.heads(DESCRIPTION).values()}
    rows = {name: _rows(store, name) for name in measured_tables() if store.parts(name)}
    variants = {name: [(variant_of(row), row["task"]) for row in of_table] for name, of_table in rows.items()}
    stale = stale_by_table(variants, lambda: _started(store))
    found = []
    for table, of_table in rows.items():
        lost = [row for row in of_table if described and (row["sha256"], row["model"]) not in described]
        old = [row for row in of_table if variant_of(row) in stale[table] and row not in lost]
        found += [_pruned(table, reason, some) for reason, some in ((REPLACED, old), (UNDESCRIBED, lost)) if some]
    return found


def prune(root: Path | str) -> list[Pruned]:
    """Remove stale measurements, and say which; parts vanish whole, so that a kill in between leaves the rest to do.

    Raises:
        DataError, TableError: as :func:`find_stale`.
        OutputError: a run holds the folder, or it cannot be written to.
    """
    store = Store(root)
    found = find_stale(root)
    if not found:
        return found
    with store.lock("run", busy="a run is writing into this folder: prune it when that has ended"):
        found = find_stale(root)
        for item in found:
            store.remove(item.table, set(item.tasks))
        store.remove("timings", {task for item in found for task in item.tasks})
    return found


def _rows(store: Store, table: str) -> list[dict[str, Any]]:
    """The different rows of the columns that tell a task, its checkpoint and its variant."""
    columns = [name for name in VARIANT_COLUMNS if name in TABLES[table].names]
    return store.combinations(table, ("checkpoint", "task", *columns))


def _pruned(table: str, reason: str, rows: Iterable[dict[str, Any]]) -> Pruned:
    rows = list(rows)
    data = tuple(sorted({row["data"] for row in rows if row.get("data")}))
    names = tuple(sorted({row["checkpoint"] for row in rows}))
    return Pruned(table, reason, frozenset(row["task"] for row in rows), names, data)


def _started(store: Store) -> dict[str, datetime]:
    if not store.parts("timings"):
        return {}
    return {row["task"]: row["started"] for row in store.combinations("timings", ("task", "started"))}
