"""The statements of a study with assigned MSB, one row per number, with what each allows to be said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from invariscope.analysis.designs.assigned import (
    CELL,
    DRAWN,
    POPULATION,
    REPEAT,
    ROTATED,
    Settings,
    admitted,
    cells_of,
    size_ranks,
)
from invariscope.analysis.designs.plan_numbers import PlanNumbers
from invariscope.analysis.designs.reliability import agreement
from invariscope.analysis.designs.verdicts import POOLED, judged
from invariscope.analysis.tables.plans import DATA_AND_PLAN, PLAN, filled, shifted

CEILING, MOST_AT_CEILING = 0.995, 0.25
"""Where more than this share of a cell's drawn networks reach that score, the cell is at the ceiling."""

COLUMNS = [
    *("statement", "quantity", *PLAN, "most_shift", "cell", "estimate", "se", "low", "high"),
    *("points", "points_low", "points_high", "p", "p_holm", "p_equivalent"),
    *("n", "n_units", "n_cells", "p_cells", "random", "random_low", "random_high", "role", "verdict", "note"),
]

_JUDGED = ("p_holm", "p_equivalent", "role", "verdict")
_WITHOUT = ", without cells at the ceiling"


def statements(frame: pd.DataFrame, settings: Settings | None = None, *, brief: bool = False) -> pd.DataFrame:
    """Every number of statements 1 to 6, with the columns :data:`COLUMNS`; docs/analysis-plan.md says what each is.

    A row per statement, quantity, shift plan and cell, ``pooled`` for all cells together: each data set's smallest of
    the largest shifts with the others' smallest, and so on; ``max_shift`` and ``most_shift`` are the least and the most
    of what is pooled. ``points``, ``points_low``, ``points_high``: a slope of MSB in percentage points of the score per
    unit of MSB (:func:`~invariscope.analysis.designs.plan_numbers.points_per_logit`). ``p_cells``: of Cochran's Q, that
    the cells of what is pooled have one true value; ``random``, ``random_low``, ``random_high``: the mean with its
    interval where they are a sample of cells that differ (random effects). After the statements ``ceiling`` (the share
    of a cell's drawn networks at or above 0.995), ``reliability`` (two trainings of one operator) and ``left out``
    (networks by reason). ``role``, ``p_holm``, ``p_equivalent`` and ``verdict`` are those of
    :func:`invariscope.analysis.designs.verdicts.judged`. ``brief``: the pooled numbers alone that verdict and cause
    rest on.

    Args:
        frame: as ``analysis.join`` gives it, with the factors of drawn operators.

    Raises:
        TableError: the frame lacks a column.
    """
    settings = settings or Settings()
    rows, left_out = admitted(frame, settings)
    records: list[dict[str, Any]] = []
    rows = rows.assign(size=size_ranks(rows))
    for _, members in rows.groupby([name if name != "max_shift" else "size" for name in PLAN], sort=True):
        found = list(PlanNumbers(members, settings, brief).records())
        if not brief:
            found += _ceilings(members, settings)
            found += _reliability(frame, members, settings)
        plans = _plans_of(members)
        records += [{**plans.get(record["cell"], plans[POOLED]), **record} for record in found]
    if not brief:
        counts = left_out.groupby(["reason", *CELL], sort=True).size().reset_index(name="n")
        records += [
            {
                "statement": "left out",
                "quantity": row["reason"],
                "cell": "/".join(str(row[name]) for name in CELL),
                "n": row["n"],
            }
            for row in counts.to_dict("records")
        ]
    table = pd.DataFrame.from_records(records, columns=[name for name in COLUMNS if name not in _JUDGED])
    return judged(table.assign(note=table["note"].fillna("")))[COLUMNS]


def _plans_of(members: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The shift plan of the numbers of each cell: its largest shift, or the least and the most of all cells pooled."""
    first = members.iloc[0]
    plan = {name: first[name] for name in PLAN}
    return {
        name: {**plan, "max_shift": int(rows["max_shift"].min()), "most_shift": int(rows["max_shift"].max())}
        for name, rows in [*cells_of(members), (POOLED, members)]
    }


def _ceilings(members: pd.DataFrame, settings: Settings) -> Iterator[dict[str, Any]]:
    """How many drawn networks are at the ceiling in each cell, and statements 1 to 3 without cells where many are."""
    drawn = members[members[POPULATION].isin([DRAWN, ROTATED])]
    full = []
    for cell, rows in cells_of(drawn):
        share = float((rows[settings.score] >= CEILING).mean())
        note = "at the ceiling" if share > MOST_AT_CEILING else ""
        yield {"statement": "ceiling", "quantity": f"share at or above {CEILING}", "cell": cell, "estimate": share,
               "n": len(rows), "note": note}  # fmt: skip
        full += [cell] if note else []
    kept = [rows for cell, rows in cells_of(drawn) if cell not in full]
    if full and kept:
        for record in PlanNumbers(pd.concat(kept), settings, brief=True).records():
            yield {**record, "quantity": record["quantity"] + _WITHOUT}


def _reliability(frame: pd.DataFrame, members: pd.DataFrame, settings: Settings) -> Iterator[dict[str, Any]]:
    if REPEAT not in frame.columns:
        return
    rows = filled(shifted(frame))
    plans = pd.MultiIndex.from_frame(members[DATA_AND_PLAN].drop_duplicates())
    rows = rows[rows["final"].astype(bool) & pd.MultiIndex.from_frame(rows[DATA_AND_PLAN]).isin(plans)]
    for column in ("msb_corrected", settings.score):
        for cell, found in agreement(rows, column).items():
            yield {
                "statement": "reliability",
                "quantity": f"intraclass correlation of {column}",
                "cell": cell,
                "estimate": found.estimate,
                "low": found.low,
                "high": found.high,
                "n": found.n,
            }
