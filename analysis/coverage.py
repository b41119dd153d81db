"""How often an interval really holds the truth: a table for the number of clusters, and the simulation that
made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from analysis.coefficients import correlation, covariance, given, kendall_sums, rank_covariance
from analysis.resampling import (
    DEFAULT_INTERVAL,
    Array,
    bca_interval,
    bootstrap_counts,
    cluster_codes,
    jackknife_counts,
    jackknife_interval,
    percentile_interval,
)

MIN_CLUSTERS = 15
"""Below this many clusters an interval is too short to say that something differs from zero, and no sentence does."""

SMALLEST = 5
"""The fewest clusters that an interval is made from."""

SIZES = (5, 8, 10, 12, 15, 20, 40, 100)
COVERAGE: Mapping[tuple[str, str, str], tuple[float, ...]] = MappingProxyType({})

_RHO = -0.5
_GROUPS = 4


def simulated_coverage(method: str, n_clusters: int, design: str, interval: str = DEFAULT_INTERVAL) -> float:
    """The simulated coverage at ``n_clusters``, between the table's sizes linearly, beyond the largest its value; NaN
    below the smallest.
    """
    key = (interval, method.replace("within_partial", "within"), design)
    if n_clusters < SMALLEST or key not in COVERAGE:
        return np.nan
    return float(np.interp(n_clusters, SIZES, COVERAGE[key]))


def simulate_coverage(
    method: str,
    n_clusters: int,
    *,
    cluster_size: int = 5,
    icc: float = 0.5,
    by_rows: bool = False,
    simulations: int = 1000,
    resamples: int = 999,
    seed: int = 0,
) -> dict[str, float]:
    """Share of nominal 95 % intervals that hold the true coefficient, by kind of interval (the bootstrap's only where
    ``resamples`` is not 0).

    Simulations that give no interval are left out. Bivariate normal data with correlation -0.5 in ``n_clusters``
    clusters of ``cluster_size`` rows; the share ``icc`` of both variables' variance, and of their covariance, lies
    between clusters. ``method``: ``pearson``, ``spearman``, ``kendall``; ``partial_pearson``, ``partial_spearman``
    given a third variable that explains a fifth of each; ``within_pearson`` with the clusters in four groups of
    different means. ``by_rows`` takes the rows for independent.
    """
    rng = np.random.default_rng([seed, n_clusters, cluster_size])
    truth = _truth(method)
    clusters = np.repeat(np.arange(n_clusters), cluster_size)
    codes, drawn = cluster_codes(np.arange(len(clusters)) if by_rows else clusters)
    held: dict[str, list[bool]] = {}
    for _ in range(simulations):
        values = _draw(method, clusters, icc, rng)
        options = {"values": values, "codes": codes, "groups": clusters % _GROUPS}
        found = _intervals(method, drawn, resamples, int(rng.integers(2**32)), **options)
        for interval, (low, high) in found.items():
            if np.isfinite([low[0], high[0]]).all():
                held.setdefault(interval, []).append(bool(low[0] <= truth <= high[0]))
    return {interval: float(np.mean(hits)) for interval, hits in held.items()}


def _intervals(
    method: str, n_clusters: int, resamples: int, seed: int, **data: np.ndarray
) -> dict[str, tuple[Array, Array]]:
    estimate = _coefficient(method, counts=np.ones((1, n_clusters)), **data)
    left_out = _coefficient(method, counts=jackknife_counts(n_clusters), **data)[:, None]
    found = {"jackknife": jackknife_interval(estimate, left_out)}
    if resamples:
        resampled = _coefficient(method, counts=bootstrap_counts(n_clusters, resamples, seed), **data)[:, None]
        found["percentile"] = percentile_interval(resampled)
        found["bca"] = bca_interval(estimate, resampled, left_out)
    return found


def _draw(method: str, clusters: np.ndarray, icc: float, rng: np.random.Generator) -> Array:
    n, n_clusters = len(clusters), clusters[-1] + 1
    root = np.linalg.cholesky([[1, _RHO], [_RHO, 1]])
    between = (rng.normal(size=(n_clusters, 2)) @ root.T)[clusters]
    values = np.sqrt(icc) * between + np.sqrt(1 - icc) * rng.normal(size=(n, 2)) @ root.T
    if method.startswith("partial"):
        third = np.sqrt(icc) * rng.normal(size=n_clusters)[clusters] + np.sqrt(1 - icc) * rng.normal(size=n)
        return np.column_stack([values + 0.5 * third[:, None], third])
    if method == "within_pearson":
        return values + 2.0 * rng.normal(size=(_GROUPS, 2))[clusters % _GROUPS]
    return values


def _truth(method: str) -> float:
    if method == "spearman":
        return 6 / np.pi * np.arcsin(_RHO / 2)
    if method == "kendall":
        return 2 / np.pi * np.arcsin(_RHO)
    if method == "partial_spearman":
        # Residuals have variance 1, the third variable adds 1/4 to both variances and to their covariance.
        xy, xz = (6 / np.pi * np.arcsin(r / 2) for r in ((_RHO + 0.25) / 1.25, 0.5 / np.sqrt(1.25)))
        return (xy - xz**2) / (1 - xz**2)
    return _RHO


def _coefficient(method: str, values: Array, codes: np.ndarray, counts: Array, groups: np.ndarray) -> Array:
    size = counts.sum(axis=1)
    if method == "kendall":
        sums = kendall_sums(values, codes, counts, [(0, 1)])
    elif method in ("spearman", "partial_spearman"):
        sums = rank_covariance(values, codes, counts)
    else:
        sums = covariance(values, codes, counts, groups if method == "within_pearson" else None)
    if method.startswith("partial"):
        sums = given(sums, [0, 1], [2])
    return correlation(sums, size)[:, 0, 1]
