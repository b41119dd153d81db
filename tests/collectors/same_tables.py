"""What two folders of tables hold, to be compared."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pandas as pd

from invariscope.analysis import Tables, load


def same(one: dict[str, pd.DataFrame], two: dict[str, pd.DataFrame]) -> None:
    """Both have the same tables with the same rows."""
    assert one.keys() == two.keys()
    for name, rows in one.items():
        pd.testing.assert_frame_equal(rows, two[name])


def loaded(out: Path) -> dict[str, pd.DataFrame]:
    """What our reader makes of a folder, its rows in a fixed order."""
    tables = load(out)
    frames = {}
    for field in fields(Tables):
        rows = getattr(tables, field.name)
        frames[field.name] = rows.sort_values([c for c in ("checkpoint", "task", "depth", "score") if c in rows])
    return {name: rows.reset_index(drop=True) for name, rows in frames.items() if len(rows)}
