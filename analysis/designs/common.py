"""What both designs share: the columns of their table, and least squares with errors that know of the clusters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.linear_model import OLS

from invariscope.analysis.tables.plans import DATA_AND_PLAN, filled
from invariscope.base.words import are, counted

COLUMNS = [
    *("design", *DATA_AND_PLAN),
    *("operator", "sites", "replacement", "strength", "x", "y", "given", "statistic"),
    *("estimate", "low", "high", "p", "n", "n_missing", "n_clusters", "clusters", "nominal", "coverage", "reason"),
]
"""The columns of every table of designs. ``operator``: the operator whose strength was varied; ``sites`` and
``replacement``: which swaps; ``clusters``: what is counted in ``n_clusters`` and drawn or summed as a whole."""

EQUAL = "no interval: all clusters are equal"
_ROUNDING = 1e-9
"""Numbers that differ by a smaller part of the largest of them are equal."""
_RULE_OF_THREE = 3.0
"""Where all of ``n`` clusters agree, fewer than ``3 / n`` of all differ, with 95 % confidence (Hanley 1983)."""

_EMPTY: dict[str, object] = {
    **dict.fromkeys(("operator", "sites", "replacement", "x", "y", "given", "reason"), ""),
    **dict.fromkeys(("strength", "estimate", "low", "high", "p", "coverage"), np.nan),
    **{"nominal": 0.95, "n_missing": 0},
}


def design_table(records: Iterable[dict[str, Any]] = ()) -> pd.DataFrame:
    """Records as a table with :data:`COLUMNS`; what a record does not give is empty."""
    return pd.DataFrame.from_records([{**_EMPTY, **record} for record in records], columns=COLUMNS)


def cells(frame: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows of each data set and shift plan, with its labels; a missing fill is an empty one."""
    for labels, of_cell in filled(frame).groupby(DATA_AND_PLAN, sort=True):
        yield dict(zip(DATA_AND_PLAN, labels, strict=True)), of_cell


def clustered_fit(
    y: np.ndarray, columns: Sequence[np.ndarray], clusters: np.ndarray, *, intercept: bool = True
) -> dict[str, Any]:
    """The first coefficient of the least squares of ``y`` on ``columns``; without columns the mean of ``y``.

    The 95 % interval has the cluster-robust error (CR1) and ``t`` with ``G - 1`` degrees of freedom; a mean of clusters
    that are all equal has none. The columns of the result: ``estimate, low, high, n, n_clusters, reason``; rows must be
    finite.
    """
    n, groups = len(y), len(set(clusters))
    design = np.column_stack([*columns, *([np.ones(n)] if intercept else [])])
    found: dict[str, Any] = {"estimate": np.nan, "low": np.nan, "high": np.nan, "n": n, "n_clusters": groups}
    if n < design.shape[1]:
        return {**found, "reason": f"{counted(n, 'row')} {are(n)} too few"}
    if np.linalg.matrix_rank(design / np.maximum(np.abs(design).max(axis=0), 1e-300)) < design.shape[1]:
        return {**found, "reason": "no variation of its own"}
    fit = OLS(y, design).fit()
    found["estimate"] = float(fit.params[0])
    if groups <= design.shape[1]:
        return {**found, "reason": f"no interval: {counted(groups, 'cluster')} {are(groups)} too few"}
    codes = pd.factorize(clusters)[0]
    if not columns and all_equal(np.bincount(codes, y) / np.bincount(codes)):
        return {**found, "reason": EQUAL}
    robust = fit.get_robustcov_results("cluster", groups=codes)
    half = float(stats.t.ppf(0.975, groups - 1) * robust.bse[0])
    return {**found, "low": found["estimate"] - half, "high": found["estimate"] + half, "reason": ""}


def clustered_share(hits: np.ndarray, clusters: np.ndarray) -> dict[str, Any]:
    """The share of ``hits`` (0 or 1), as :func:`clustered_fit` gives it, with its interval inside 0 to 1.

    Where all rows agree, the interval is the rule of three over clusters: up to ``3 / G`` away from the share.
    """
    found = clustered_fit(hits, [], clusters)
    groups = found["n_clusters"]
    if groups > 1 and np.ptp(hits) == 0:
        share = found["estimate"] = float(hits[0])
        bound = _RULE_OF_THREE / groups
        found |= {"low": share - bound, "high": share + bound, "reason": ""}
    return {**found, **{name: float(np.clip(found[name], 0.0, 1.0)) for name in ("low", "high")}}


def all_equal(values: np.ndarray) -> bool:
    """Whether numbers are the same up to rounding."""
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())
