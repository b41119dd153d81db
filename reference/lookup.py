"""Single rows of what the analysis found, by what they are about."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from invariscope.analysis import Results
from invariscope.analysis.say.findings import BY_OPERATOR
from invariscope.analysis.stats.asked import Asked
from invariscope.collectors.schema import PRIMARY_SCORE, SCORES


def as_written(results: Results, columns: Collection[str]) -> Results:
    """Results of every pair with the rows that `analyze` writes by default, adjusted over all that were computed."""
    asked = Asked(PRIMARY_SCORE, tuple(name for name in SCORES if name in columns))
    correlations, regressions = (asked.kept(one, ["accuracy"]) for one in (results.correlations, results.regressions))
    return replace(results, correlations=correlations, regressions=regressions)


def rows_where(table: pd.DataFrame, **where: str) -> pd.DataFrame:
    """The rows with these values."""
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def correlation(
    table: pd.DataFrame,
    data: str,
    kind: str,
    subset: str,
    *,
    method: str = "spearman",
    level: str = "operator means",
    interval: str = BY_OPERATOR,
    given: str = "",
    snapshots: str = "final",
    x: str = "msb_corrected",
) -> pd.Series | None:
    """A reading of MSB (``x``, or accuracy) against consistency; ``given``: the covariates, ``several`` for accuracy
    with whatever else varies.
    """
    rows = rows_where(
        table,
        **{"x": x, "y": "consistency", "snapshots": snapshots, "data": data, "shift_kind": kind},
        **{"subset": subset, "method": method, "level": level, "interval": interval},
    )
    covariates = rows["given"].fillna("")
    rows = rows[covariates.str.contains(r"\+")] if given == "several" else rows[covariates == given]
    return rows.iloc[0] if len(rows) else None
