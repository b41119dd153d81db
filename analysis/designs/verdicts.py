"""What the numbers of a study with assigned MSB allow to be said: roles, Holm's p, verdicts, the cause named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.designs.rotations import BOUND
from invariscope.analysis.stats.permutation import holm
from invariscope.analysis.stats.pooled import equivalence_p

POOLED = "pooled"
LEVEL = 0.05
CAUSE_LEVEL = 0.01
"""Of the rivals of MSB, after Holm's correction over selectivity and equivariance error under all primary plans."""

PRIMARY_KINDS = ("circular", "zero")
PRIMARY_FILLS = ("", "background")

WITHIN, TOTAL, MSB_SLOPE = "slope within blocks", "Spearman of msb_corrected", "slope of msb"
SEE_SLOPE, MSB_GIVEN = "slope of see, with see", "slope of msb, with see"
SELECTIVITY_SLOPE, SELECTIVITY_GIVEN = "slope of sqrt_selectivity", "slope of sqrt_selectivity, with see"

BELOW, ABOVE, NOTHING, OPEN, NO_NUMBER = (
    "below zero",
    "above zero",
    "no effect of a size that matters",
    "open",
    "no number",
)
SMALL = ", smaller than matters"
"""Ends the verdict on an effect that is clear of zero and inside of the bound."""


_JUDGED = ("1", "2", "3", "4", "6")


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """The table with ``role``, ``p_holm``, ``p_equivalent`` and ``verdict``.

    ``role`` is ``primary`` for the pooled rows of statements 1 and 2 under the primary plans; ``p_holm`` is Holm's over
    them and, apart, over the pairs of statement 6 under the primary plans. ``p_equivalent``: of two one-sided tests at
    ±0.5 for slopes of MSB that are pooled over two cells at least.
    """
    pooled = table["cell"] == POOLED
    slopes = pooled & table["quantity"].isin([WITHIN, MSB_SLOPE]) & (table["n_cells"].astype(float) > 1)
    equivalent = [
        equivalence_p(estimate, se, BOUND) if taken else np.nan
        for estimate, se, taken in zip(table["estimate"].astype(float), table["se"].astype(float), slopes, strict=True)
    ]
    plan = is_primary_plan(table)
    primary = plan & pooled
    primary &= (table["statement"] == "1") & (table["quantity"] == WITHIN) | (table["quantity"] == TOTAL)
    p = table["p"].astype(float)
    corrected = holm(p.where(primary)).fillna(holm(p.where(plan & (table["statement"] == "6"))))
    table = table.assign(p_equivalent=equivalent, role=np.where(primary, "primary", "secondary"), p_holm=corrected)
    return table.assign(verdict=[_verdict(row) for row in table.to_dict("records")])


def is_primary_plan(table: pd.DataFrame) -> pd.Series:
    """Whether a row is of circular shifts, or of zero shifts with the data set's background, 9 of them sampled per
    image, and the smallest of the largest shifts of its data set (of its ``cell``, in a table of statements).
    """
    found = table["shift_kind"].isin(PRIMARY_KINDS) & table["fill"].isin(PRIMARY_FILLS)
    found &= (table["plan"] == "sampled") & (table["n_shifts"] == 9)
    of_data = [table[name] for name in ("data", "cell") if name in table.columns]
    smallest = table["max_shift"].where(found).groupby([table["shift_kind"], *of_data]).transform("min")
    return found & (table["max_shift"] == smallest)


def _verdict(row: Mapping[Any, Any]) -> str:
    """``below zero`` and ``above zero`` by the interval, and by p (Holm's where there is one) where it is known."""
    estimate, low, high = (float(row[name]) for name in ("estimate", "low", "high"))
    if row["statement"][:1] not in _JUDGED:
        return ""
    if not np.isfinite(estimate):
        return NO_NUMBER
    if not np.isfinite([low, high]).all() or (row["statement"][:1] == "6" and not np.isfinite(float(row["p"]))):
        return ""  # of pairs too few for a p there are estimates alone
    clear = low * high > 0 and not row["p_holm"] > LEVEL and not row["p"] > LEVEL
    small = row["p_equivalent"] <= LEVEL
    if clear:
        return (BELOW if estimate < 0 else ABOVE) + (SMALL if small else "")
    return NOTHING if small else OPEN


def causes(table: pd.DataFrame) -> pd.DataFrame:
    """What the statements name as cause, for each primary plan: a row per shift kind, ``msb``, ``selectivity`` and
    ``aliasing`` true or false, ``mediated`` where MSB acts by way of the equivariance error, and ``named`` in words.

    * MSB: statement 1 has p ≤ 0.05 after Holm's correction over the primary rows, and an interval without zero;
    * aliasing: the pooled slope of ``see`` in statement 4 has p ≤ 0.01 after Holm's correction over the two rivals
      under all primary plans; without ``see`` it cannot be named;
    * selectivity: likewise its slope, in statement 4 where the p of ``see`` is below 0.01 by the number of these tests,
      else in statement 3;
    * mediated: MSB and aliasing are named, and MSB's slope with ``see`` in the model has an interval that holds zero.
    """
    primary = table[is_primary_plan(table) & (table["cell"] == POOLED)]
    kinds = sorted(primary["shift_kind"].unique())
    see, given, alone = (_p_of(primary, name, kinds) for name in (SEE_SLOPE, SELECTIVITY_GIVEN, SELECTIVITY_SLOPE))
    selectivity = given.where(see <= CAUSE_LEVEL / max(2 * len(kinds), 1), alone)
    clear = holm(pd.concat([see, selectivity], keys=["aliasing", "selectivity"])) <= CAUSE_LEVEL
    records = []
    for kind in kinds:
        members = primary[primary["shift_kind"] == kind]
        one = members[(members["quantity"] == WITHIN) & (members["role"] == "primary")]
        found = {
            "msb": bool(one["verdict"].str.startswith((BELOW, ABOVE)).any()),
            "selectivity": bool(clear["selectivity", kind]),
            "aliasing": bool(clear["aliasing", kind]),
        }
        slope = members[members["quantity"] == MSB_GIVEN]
        holds_zero = bool(((slope["low"] < 0) & (slope["high"] > 0)).any())
        named = " and ".join(name for name, yes in found.items() if yes) or "nothing"
        mediated_by = found["msb"] and found["aliasing"] and holds_zero
        records.append({"shift_kind": kind, **found, "mediated": mediated_by, "named": named})
    return pd.DataFrame(records, columns=["shift_kind", "msb", "selectivity", "aliasing", "mediated", "named"])


def _p_of(primary: pd.DataFrame, quantity: str, kinds: list[str]) -> pd.Series:
    mine = primary[primary["quantity"] == quantity].drop_duplicates("shift_kind").set_index("shift_kind")
    return mine["p"].astype(float).reindex(kinds)
