"""How far a folder of tables is: what is measured, what of a zoo is still to do, what failed and why; without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invariscope.base.errors import DataError
from invariscope.collectors.engine.known import Known
from invariscope.collectors.engine.measuring import Failure
from invariscope.collectors.engine.runlog import logs
from invariscope.collectors.schema import COLLECTORS, DESCRIPTION, TABLES, UNSHIFTED
from invariscope.collectors.store.parts import Store
from invariscope.collectors.store.reader import NETWORK
from invariscope.collectors.store.verifying import Damaged, find_damaged
from invariscope.zoo.checkpoint import Checkpoint

Network = tuple[str, str]


LAST_LINE = 1 << 16
"""Bytes at the end of a log in which its last line is looked for."""


@dataclass(frozen=True)
class MeasuredCondition:
    """One thing that was measured: a table, what of it in words, the networks that have it, those of a zoo that lack
    it.
    """

    table: str
    text: str
    done: int
    missing: tuple[str, ...]

    def __str__(self) -> str:
        line = f"{self.table}: {self.text}: {self.done} done" if self.text else f"{self.table}: {self.done} done"
        return f"{line}, {len(self.missing)} to do ({_few(self.missing)})" if self.missing else line


@dataclass(frozen=True)
class TablesStatus:
    """The state of a folder of tables: what is measured, how many tasks failed in which way, the number of files, and
    how the last run ended; the tables of collectors that are not installed, with their number of files; and the parts
    that are damaged, which count as not measured.
    """

    conditions: list[MeasuredCondition]
    failures: dict[Failure, int]
    parts: int
    last_run: str
    strangers: dict[str, int]
    damaged: list[Damaged]


def status(root: Path | str, checkpoints: Sequence[Checkpoint] | None = None) -> TablesStatus:
    """What is measured, per table and condition, and which of ``checkpoints`` lack it.

    A condition that was measured for no network at all is not known here: ``collect --dry-run`` tells what a run with
    given options would do.

    Raises:
        DataError: no folder of tables, or a file that is no part.
    """
    store = Store(root)
    counts = {table: len(store.parts(table)) for table in TABLES}
    if not any(counts.values()):
        raise DataError(f"{store.name}: holds no tables: make some with `invariscope collect ZOO --out {store.name}`")
    known = Known(store)
    damaged = find_damaged(store, known.sound)
    store.overlooked = frozenset(item.part.path for item in damaged)
    wanted: dict[Network, str] | None = None
    if checkpoints is not None:
        wanted = {(known.network(checkpoint), checkpoint.model): checkpoint.name for checkpoint in checkpoints}
    described = {
        (head["sha256"], head["model"]): head["checkpoint"] for head in store.heads(DESCRIPTION, known.head).values()
    }
    conditions = [_condition(DESCRIPTION, "", set(described), wanted)]
    for table in COLLECTORS.working():
        if table != DESCRIPTION and counts[table]:
            conditions += [_condition(table, text, having, wanted) for text, having in _measured(store, table).items()]
    rows = store.rows("failures", ("checkpoint", "stage", "error", "message"))
    counted = Counter(Failure(**{key: row[key] for key in row if key != "part"}) for row in rows)
    failures = dict(sorted(counted.items(), key=lambda item: str(item[0])))
    strangers = {name: count for name in store.folders() if name not in counts and (count := len(store.parts(name)))}
    return TablesStatus(conditions, failures, sum(counts.values()), _last_run(store), strangers, damaged)


def _condition(table: str, text: str, having: set[Network], wanted: dict[Network, str] | None) -> MeasuredCondition:
    if wanted is None:
        return MeasuredCondition(table, text, len(having), ())
    missing = tuple(name for network, name in wanted.items() if network not in having)
    return MeasuredCondition(table, text, len(wanted) - len(missing), missing)


def _measured(store: Store, table: str) -> dict[str, set[Network]]:
    """The networks that have each condition of a table."""
    collector = COLLECTORS[table]
    columns = [*(["data"] if collector.of_data else []), *collector.conditions]
    rows = store.combinations(table, (*NETWORK, *columns))
    found: dict[str, set[Network]] = {}
    for row in rows:
        found.setdefault(_text(row, columns), set()).add((row["sha256"], row["model"]))
    return dict(sorted(found.items()))


def _text(row: dict[str, Any], columns: list[str]) -> str:
    kept = {name: row[name] for name in columns if row[name] is not None}
    if kept.get("shift_kind") == UNSHIFTED:
        kept = {name: kept[name] for name in ("data", "shift_kind")}
    words = [f"{name} {value}" if isinstance(value, int | float) else str(value) for name, value in kept.items()]
    return ", ".join(words)


def _last_run(store: Store) -> str:
    paths = logs(store)
    if not paths:
        return "no run has a log here"
    with store.filesystem.open_input_file(paths[-1]) as file:
        file.seek(max(file.size() - LAST_LINE, 0))
        lines = file.read().decode(errors="replace").splitlines()
    name = paths[-1].rpartition("/")[2]
    stamp, ended, end = (lines[-1] if lines else "").partition(" end: ")
    return f"{end} ({stamp}, logs/{name})" if ended else f"going on, or killed (logs/{name})"


def _few(names: Sequence[str], shown: int = 3) -> str:
    more = f", and {len(names) - shown} more" if len(names) > shown else ""
    return f"{', '.join(names[:shown])}{more}"
