"""How far two trainings of one drawn operator agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.designs.assigned import CELL, DRAW, POPULATION, REPEAT
from invariscope.analysis.stats.resampling import NOMINAL, Array


@dataclass(frozen=True)
class Agreement:
    """One-way intraclass correlation of two trainings, with its F interval (Shrout & Fleiss 1979, case 1)."""

    estimate: float
    low: float
    high: float
    n: int


def agreement(rows: pd.DataFrame, column: str) -> dict[str, Agreement]:
    """For each cell the agreement of operators that were trained twice, of last snapshots of one shift plan.

    Cells with fewer than three such operators are left out.
    """
    if REPEAT not in rows.columns:
        return {}
    again = pd.to_numeric(rows[REPEAT], errors="coerce").fillna(0) > 0
    keys = [*CELL, POPULATION, DRAW]
    first, second = (rows.loc[mask, [*keys, column]] for mask in (~again, again))
    pairs = first.merge(second, on=keys, suffixes=("", "_again")).dropna()
    found = {}
    for labels, members in pairs.groupby(CELL, sort=True):
        if len(members) > 2:
            values = members[[column, f"{column}_again"]].to_numpy(dtype=float)
            found["/".join(map(str, labels))] = intraclass(values)
    return found


def intraclass(values: Array, level: float = NOMINAL) -> Agreement:
    """``ICC(1) = (B - W) / (B + (k - 1) W)`` of ``values (n, k)``; ``B``, ``W``: mean squares between, within rows."""
    n, k = values.shape
    means = values.mean(axis=1)
    between = k * float(((means - means.mean()) ** 2).sum()) / (n - 1)
    within = float(((values - means[:, None]) ** 2).sum()) / (n * (k - 1))
    if within <= 0:
        return Agreement(1.0 if between > 0 else np.nan, np.nan, np.nan, n)
    ratio, tail = between / within, (1 + level) / 2
    low = ratio / stats.f.ppf(tail, n - 1, n * (k - 1))
    high = ratio * stats.f.ppf(tail, n * (k - 1), n - 1)
    estimate, bottom, top = (float((f - 1) / (f + k - 1)) for f in (ratio, low, high))
    return Agreement(estimate, bottom, top, n)
