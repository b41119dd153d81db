"""The statements fixed in advance: which numbers they are, and what their intervals allow to be said."""

from __future__ import annotations

import numpy as np
import pandas as pd

from invariscope.analysis.stats.cells import CELL
from invariscope.analysis.stats.coverage import MIN_CLUSTERS
from invariscope.analysis.stats.permutation import holm
from invariscope.collectors.schema import PRIMARY_READING

PRIMARY_KINDS = ("circular", "zero")
PRIMARY_SHIFTS = 9

NO_NUMBER = "no number"
"""The verdict on what could not be computed."""

_KEPT = [
    *("estimate", "low", "high", "effect", "n", "n_clusters", "effective_clusters", "leading", "nominal", "coverage"),
    *("reason", "p"),
]


def verdict(estimate: float, low: float, high: float, n_clusters: float) -> str:
    """What an interval allows to be said of an estimate.

    ``negative`` or ``positive`` where it excludes 0, ``no difference from zero`` where it does not, ``too few
    clusters`` below :data:`~invariscope.analysis.stats.coverage.MIN_CLUSTERS`, ``no number`` where one is missing.
    """
    if not np.isfinite([estimate, low, high]).all():
        return NO_NUMBER
    if n_clusters < MIN_CLUSTERS:
        return "too few clusters"
    return "negative" if high < 0 else "positive" if low > 0 else "no difference from zero"


def primary_statements(correlations: pd.DataFrame, regressions: pd.DataFrame, score: str) -> pd.DataFrame:
    """The statements fixed in advance on MSB and ``score``, for every cell.

    ``role`` says which were fixed and which are the same on other rows; ``p`` stands from ``MIN_CLUSTERS`` clusters on,
    ``p_holm`` is over the primary ones that have it.
    """
    means = correlations.query("level == 'operator means' and method == 'spearman'")
    means = means[(means["x"] == PRIMARY_READING) & (means["y"] == score)]
    a = means.rename(columns={"r": "estimate"}).assign(
        statement="a", leading="", effect=np.nan, effective_clusters=np.nan
    )
    fits = regressions[(regressions["x"] == PRIMARY_READING) & (regressions["y"] == score)]
    fits = fits[fits["cluster"] == "operator"]
    b = fits[(fits["model"] == "fractional logit") & (fits["term"] == PRIMARY_READING)].assign(statement="b")
    c = fits[(fits["model"] == "within-between") & (fits["term"] == f"{PRIMARY_READING}_within")].assign(statement="c")
    table = pd.concat([part[[*CELL, "statement", *_KEPT]] for part in (a, b, c)], ignore_index=True)
    numbers = table[["estimate", "low", "high", "n_clusters"]].to_numpy(dtype=float)
    table["verdict"] = [verdict(*row) for row in numbers]
    fixed = (
        table["shift_kind"].isin(PRIMARY_KINDS)
        & table["fill"].isin(("", "mean"))
        & (table["plan"] == "sampled")
        & (table["n_shifts"] == PRIMARY_SHIFTS)
        & (table["snapshots"] == "final")
    )
    table["role"] = np.where(fixed, "primary", "secondary")
    # Below the least number of clusters no test is leant on, so that none counts in the family either.
    tested = fixed & table["p"].notna() & (table["n_clusters"] >= MIN_CLUSTERS)
    table["p"] = table["p"].where(table["n_clusters"] >= MIN_CLUSTERS)
    table["p_holm"] = holm(table["p"].where(tested))
    order = ["role", "shift_kind", "fill", "max_shift", "snapshots", "subset", "statement", "data"]
    return table.sort_values(order, ignore_index=True)
