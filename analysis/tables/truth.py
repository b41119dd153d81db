"""One truth per network: of several measurements the newest, and none of what is no function of the image."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import pandas as pd

from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.store.newest import VARIANT_COLUMNS, Variant, measured_tables, stale_by_table, variant_of
from invariscope.collectors.store.reader import RowFilter, TableReader

Frames = dict[str, pd.DataFrame]

_SHOWN = 5


def newest_only(tables: Frames, reader: TableReader) -> tuple[Frames, list[str]]:
    """The tables with the newest measurement of each network on data of one name, and what to say of the others.

    Raises:
        TableError: measurements that compete, and no timings.
    """
    variants = {name: _variants(rows) for name, rows in tables.items() if name in measured_tables()}
    tasks = {name: zip(of_rows, tables[name]["task"], strict=True) for name, of_rows in variants.items()}
    stale = stale_by_table(tasks, lambda: _started(reader))
    kept, names, counts = dict(tables), set[str](), list[str]()
    for name, of_rows in variants.items():
        old = pd.Series([variant in stale[name] for variant in of_rows], index=tables[name].index, dtype=bool)
        if old.any():
            names |= set(tables[name].loc[old, "checkpoint"])
            counts.append(f"{name} {int(old.sum())}")
            kept[name] = tables[name][~old].reset_index(drop=True)
    if not counts:
        return tables, []
    return kept, [
        f"{counted(len(names), 'checkpoint')} ({few(sorted(names))}) measured again on data of the same name, with "
        f"other images, preprocessing or code: the newest counts, older rows are left out ({', '.join(counts)}); "
        f"`invariscope prune {reader.name}` removes them"
    ]


def functions_only(tables: Frames) -> tuple[Frames, list[str]]:
    """The tables without the rows of networks that are marked as no function of the image, and their names.

    Raises:
        TableError: no other network is there.
    """
    marked: set[tuple[str, str]] = set()
    names: set[str] = set()
    for rows in tables.values():
        if "deterministic" in rows.columns:
            bad = rows[rows["deterministic"].eq(False).fillna(False)]
            marked |= set(zip(bad["sha256"], bad["model"], strict=True))
            names |= set(bad["checkpoint"])
    if not marked:
        return tables, []
    kept, left = dict(tables), 0
    for name, rows in tables.items():
        if "deterministic" in rows.columns:
            networks = zip(rows["sha256"], rows["model"], strict=True)
            good = np.array([network not in marked for network in networks], dtype=bool)
            kept[name] = rows.loc[good].reset_index(drop=True)
            left += len(kept[name])
    if not left:
        raise TableError(
            f"every network that was measured ({few(sorted(names))}) gives other logits on a second pass or in other "
            "batches: mend them (model.eval(), batch norm with running statistics), or give --keep-nondeterministic"
        )
    verb = "gives" if len(names) == 1 else "give"
    return kept, [
        f"{counted(len(names), 'checkpoint')} ({few(sorted(names))}) {verb} other logits on a second pass or in other "
        "batches, and are kept out of everything; --keep-nondeterministic takes them in"
    ]


def few(names: list[str]) -> str:
    """The first names, and how many more."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _variants(rows: pd.DataFrame) -> list[Variant]:
    """The variant of each row; made once for rows that are alike."""
    columns = [name for name in VARIANT_COLUMNS if name in rows.columns]
    texts = rows[columns].astype(object).where(rows[columns].notna(), "")
    made: dict[tuple[str, ...], Variant] = {}
    found = []
    for values in texts.itertuples(index=False, name=None):
        if values not in made:
            made[values] = variant_of(dict(zip(columns, values, strict=True)))
        found.append(made[values])
    return found


def _started(reader: TableReader) -> Mapping[str, datetime]:
    rows = reader.read("timings", RowFilter({})).select(["task", "started"])
    return dict(zip(rows["task"].to_pylist(), rows["started"].to_pylist(), strict=True))
