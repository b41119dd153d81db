"""The statements fixed in advance: which numbers they are, and what their intervals allow to be said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.stats.cells import CELL
from invariscope.analysis.stats.coverage import MIN_CLUSTERS, MIN_DF, MIN_PERMUTED
from invariscope.analysis.stats.permutation import holm
from invariscope.collectors.schema import PRIMARY_READING

PRIMARY_KINDS = ("circular", "zero")
PRIMARY_FILL = "background"
PRIMARY_SHIFTS = 9

NO_NUMBER = "no number"
"""The verdict on what could not be computed."""

_KEPT = [
    *("estimate", "low", "high", "effect", "n", "n_clusters", "effective_clusters", "leading", "nominal", "coverage"),
    *("df", "reason", "p"),
]


TOO_FEW = "too few clusters"
"""The verdict on what rests on too little to be tested."""

SIZE = 0.05
"""Size of the tests, one at a time."""


def verdict(estimate: float, low: float, high: float, n_clusters: float, df: float = np.nan, p: float = np.nan) -> str:
    """What an interval, or the p of a permutation test, allows to be said of an estimate.

    ``negative`` or ``positive`` where the interval excludes 0 (where ``p < 0.05``, if ``p`` is given), ``no difference
    from zero`` where it does not, ``no number`` where one is missing. ``too few clusters``: a permutation test of fewer
    than ``MIN_PERMUTED``; an interval whose error has the degrees of freedom ``df`` of Satterthwaite, of fewer than
    ``MIN_DF``; any other of fewer than ``MIN_CLUSTERS`` clusters (module ``coverage``).
    """
    if not np.isfinite([estimate, low, high]).all():
        return NO_NUMBER
    if np.isfinite(p):
        enough, told = n_clusters >= MIN_PERMUTED, p < SIZE
    else:
        enough = df >= MIN_DF if np.isfinite(df) else n_clusters >= MIN_CLUSTERS
        told = low > 0 or high < 0
    if not enough:
        return TOO_FEW
    return "no difference from zero" if not told else "negative" if estimate < 0 else "positive"


def satterthwaite(row: Any) -> float:
    """The degrees of freedom of a row of slopes whose interval has Satterthwaite's; NaN of every other row."""
    return float(row["df"]) if row.get("interval") == "CR2" and "df" in row else np.nan


def is_primary(cells: pd.DataFrame) -> pd.Series:
    """Whether each row, with the labels of a cell, is of the plan that the primary statements are fixed to."""
    return (
        cells["shift_kind"].isin(PRIMARY_KINDS)
        & cells["fill"].isin(("", PRIMARY_FILL))
        & (cells["plan"] == "sampled")
        & (cells["n_shifts"] == PRIMARY_SHIFTS)
        & (cells["snapshots"] == "final")
    )


def primary_statements(correlations: pd.DataFrame, regressions: pd.DataFrame, score: str) -> pd.DataFrame:
    """The statements fixed in advance on MSB and ``score``, for every cell.

    ``role`` says which were fixed and which are the same on other rows; ``p`` stands where a test can be made
    (:func:`verdict`): of (a) that of the permutation test, which its verdict rests on where there is one; ``p_holm`` is
    over the primary ones that have it.
    """
    means = correlations.query("level == 'operator means' and method == 'spearman'")
    means = means[(means["x"] == PRIMARY_READING) & (means["y"] == score)]
    a = means.rename(columns={"r": "estimate"}).assign(
        statement="a", leading="", effect=np.nan, effective_clusters=np.nan, df=np.nan
    )
    fits = regressions[(regressions["x"] == PRIMARY_READING) & (regressions["y"] == score)]
    fits = fits[fits["cluster"] == "operator"]
    b = fits[(fits["model"] == "fractional logit") & (fits["term"] == PRIMARY_READING)].assign(statement="b")
    c = fits[(fits["model"] == "within-between") & (fits["term"] == f"{PRIMARY_READING}_within")].assign(statement="c")
    table = pd.concat([part[[*CELL, "statement", *_KEPT]] for part in (a, b, c)], ignore_index=True)
    permuted = table["p"].where(table["statement"] == "a")
    numbers = table[["estimate", "low", "high", "n_clusters", "df"]].assign(p=permuted).to_numpy(dtype=float)
    table["verdict"] = [verdict(*row) for row in numbers]
    fixed = is_primary(table)
    table["role"] = np.where(fixed, "primary", "secondary")
    # What rests on too little is no test, so that it does not count in the family either.
    table["p"] = table["p"].where(~table["verdict"].isin((TOO_FEW, NO_NUMBER)))
    table["p_holm"] = holm(table["p"].where(fixed))
    order = ["role", "shift_kind", "fill", "max_shift", "snapshots", "subset", "statement", "data"]
    return table.sort_values(order, ignore_index=True)
