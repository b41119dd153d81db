"""The table of what was drawn at random: how many operators of each design and family, and their assigned factors."""

from __future__ import annotations

import pandas as pd

from invariscope.analysis.figures.drawn import FACTORS, drawn_operators
from invariscope.analysis.figures.selection import Snapshots
from invariscope.analysis.publication.paper import MISSING, Column, PaperTable

KEYS = ("factor_population", "factor_family")
"""What tells rows apart: the design and the family of operators."""


def table_drawn(frame: pd.DataFrame, *, snapshots: Snapshots = "final") -> PaperTable:
    """Operators, blocks and the assigned factors per design and family: median, smallest and largest.

    An operator counts once, whatever it was trained on and how often; ``n`` and ``runs`` count what was trained.
    ``frame`` is :func:`invariscope.analysis.tables.joined.join`'s.

    Raises:
        TableError: no checkpoint has the assigned factors.
    """
    selection, operators = drawn_operators(frame, "table_drawn", snapshots)
    trained, operators = _with_keys(selection.rows), _with_keys(operators)
    counts = trained.groupby(list(KEYS))[["checkpoint", "cluster"]].nunique().to_dict("index")
    records = []
    for group, part in operators.groupby(list(KEYS), sort=False):
        record: dict[str, object] = dict(zip(KEYS, group, strict=True))
        blocks = part["factor_block"].nunique() if "factor_block" in part else 0
        record |= _with_ends("operators", len(part)) | _with_ends("blocks", blocks)
        for name in FACTORS:
            record |= _with_ends(name, part[name].median(), part[name].min(), part[name].max())
        records.append({**record, "n": counts[group]["checkpoint"], "runs": counts[group]["cluster"]})
    columns = (
        Column("operators", "operators", digits=0),
        Column("blocks", "blocks", digits=0),
        *(Column(name, header, "assigned", digits=2, spread="[]") for name, header in FACTORS.items()),
    )
    caption = "\n".join(
        [
            "Operators drawn at random, each once: medians over operators, brackets: the smallest and the largest (no "
            "confidence interval). n checkpoints of them, from so many training runs.",
            *selection.notes,
        ]
    )
    return PaperTable("table_drawn", pd.DataFrame(records), KEYS, columns, caption)


def _with_keys(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with :data:`KEYS` as text."""
    absent = pd.Series(MISSING, index=rows.index)
    return rows.assign(**{name: rows.get(name, absent).fillna(MISSING).astype(str) for name in KEYS})


def _with_ends(name: str, value: float, low: float | None = None, high: float | None = None) -> dict[str, object]:
    ends = {f"{name}_low": low, f"{name}_high": high}
    return {name: float(value), **{end: float("nan") if number is None else number for end, number in ends.items()}}
