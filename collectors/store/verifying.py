"""Which parts of a folder of tables are as they were written; what is not is measured again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from invariscope.base.errors import DataError
from invariscope.base.words import counted
from invariscope.collectors.schema import TABLES
from invariscope.collectors.store.contents import checked_part
from invariscope.collectors.store.digest import Checked
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
            line += f", {self.unsigned} without a digest (of an older version: their rows were read)"
        return f"{line}, {len(self.damaged)} damaged" if self.damaged else line


def verify(root: Path | str) -> list[TableCheck]:
    """Read every byte of every part, and compare each with its digest and its name. Nothing is written.

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
    """The damaged parts of a folder: every byte of all is read.

    Args:
        known_sound: whether a part was found to be sound, and has its size and date still. Those of object stores,
            which have checks of their own, are not read again, and of parts without a digest not the rows.
    """
    found = []
    for table in TABLES:
        for part in store.parts(table):
            known = known_sound(table, part)
            if known and store.folder is None:
                continue
            if (reason := _check(store, table, part, known).damage) is not None:
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
    checks = [(part, _check(store, table, part)) for part in store.parts(table)]
    damaged = tuple(Damaged(table, part, check.damage) for part, check in checks if check.damage is not None)
    unsigned = sum(not check.signed and check.damage is None for _, check in checks)
    return TableCheck(table, len(checks) - unsigned - len(damaged), unsigned, damaged)


def _check(store: Store, table: str, part: PartFile, known: bool = False) -> Checked:
    try:
        return checked_part(store.filesystem, table, part.path, known=known)
    except FileNotFoundError:  # another run replaced it meanwhile
        return Checked(False)
