"""Which parts of a folder of tables are as they were written; what is not is measured again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from invariscope.base.errors import DataError
from invariscope.base.words import counted
from invariscope.collectors.schema import TABLES
from invariscope.collectors.store.digest import Checked, check
from invariscope.collectors.store.parts import Store
from invariscope.collectors.store.reader import PartFile


@dataclass(frozen=True)
class Damaged:
    """A part that is not as it was written, and how that was seen."""

    table: str
    part: PartFile
    reason: str

    def __str__(self) -> str:
        return f"{self.table}/{self.part.slot}.parquet {self.reason}"


@dataclass(frozen=True)
class TableCheck:
    """The parts of one table: as they were written, without a digest (of an older version), and damaged."""

    table: str
    sound: int
    unsigned: int
    damaged: tuple[Damaged, ...]

    def __str__(self) -> str:
        line = f"{self.table}: {counted(self.sound, 'part')} as written"
        if self.unsigned:
            line += f", {self.unsigned} without a digest (of an older version: not checked)"
        return f"{line}, {len(self.damaged)} damaged" if self.damaged else line


def verify(root: Path | str) -> list[TableCheck]:
    """Read every byte of every part, and compare each with its digest. Nothing is written.

    Raises:
        DataError: no folder of tables.
    """
    store = Store(root)
    found = [_checked_table(store, table) for table in TABLES if store.parts(table)]
    if not found:
        raise DataError(f"{store.name}: holds no tables: make some with `invariscope collect ZOO --out {store.name}`")
    return found


def find_damaged(
    store: Store, known_sound: Callable[[str, PartFile], bool] = lambda table, part: False
) -> list[Damaged]:
    """The damaged parts of a folder, but for those that are known to be sound."""
    found = []
    for table in TABLES:
        for part in store.parts(table):
            if not known_sound(table, part) and (reason := _check(store, part).damage) is not None:
                found.append(Damaged(table, part, reason))
    return found


def refuse_damaged(store: Store) -> None:
    """Refuse to rewrite tables of which a part is damaged: its digest would be lost with it.

    Raises:
        DataError: a part is damaged.
    """
    if damaged := find_damaged(store):
        raise DataError(
            f"{store.name}: {counted(len(damaged), 'part')} damaged ({damaged[0]}): run collect again, which sets "
            "that aside and measures it anew"
        )


def _checked_table(store: Store, table: str) -> TableCheck:
    checks = [(part, _check(store, part)) for part in store.parts(table)]
    damaged = tuple(Damaged(table, part, check.damage) for part, check in checks if check.damage is not None)
    unsigned = sum(not check.signed and check.damage is None for _, check in checks)
    return TableCheck(table, len(checks) - unsigned - len(damaged), unsigned, damaged)


def _check(store: Store, part: PartFile) -> Checked:
    try:
        return check(store.filesystem, part.path)
    except FileNotFoundError:  # another run replaced it meanwhile
        return Checked(False)
