"""How often an interval really holds the truth: a table for the number of clusters, and the simulation that
made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from invariscope.analysis.stats.coefficients import correlation, covariance, given, kendall_sums, rank_covariance
from invariscope.analysis.stats.resampling import (
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
"""Below this many clusters an interval that is made from them is too short to say that something differs from zero, and
no sentence does.
"""

MIN_PERMUTED = 7
"""From this many clusters on a permutation test is taken for one. Size at 5 %: 0.042 at 7, 0.048 at 11 (4,000
simulations of independent normal means, Spearman, 999 permutations), 0.038 and 0.047 where half of the means of one are
tied; power at a correlation of -0.8 and 11 clusters 0.79.
"""

MIN_DF = 4.0
"""A slope is tested from this many degrees of freedom of its bias-reduced error (CR2, Satterthwaite) on, however many
clusters there are: they say how many clusters it rests on.
"""

SMALLEST = 5
"""The fewest clusters that an interval is made from."""

SIZES = (5, 8, 10, 12, 15, 20, 40, 100)
COVERAGE: Mapping[tuple[str, str, str], tuple[float, ...]] = MappingProxyType(
    {
        ("jackknife", "pearson", "single"): (0.949, 0.951, 0.940, 0.947, 0.948, 0.949, 0.945, 0.959),
        ("jackknife", "spearman", "single"): (0.995, 0.971, 0.968, 0.967, 0.964, 0.954, 0.951, 0.949),
        ("jackknife", "kendall", "single"): (1.000, 0.986, 0.978, 0.982, 0.971, 0.962, 0.953, 0.945),
        ("jackknife", "partial_pearson", "single"): (0.960, 0.962, 0.959, 0.953, 0.953, 0.951, 0.943, 0.950),
        ("jackknife", "partial_spearman", "single"): (0.984, 0.983, 0.981, 0.976, 0.978, 0.970, 0.961, 0.955),
        ("jackknife", "within_pearson", "single"): (np.nan, 0.964, 0.971, 0.970, 0.972, 0.967, 0.954, 0.943),
        ("jackknife", "pearson", "clusters"): (0.962, 0.949, 0.953, 0.948, 0.957, 0.941, 0.951, 0.954),
        ("jackknife", "spearman", "clusters"): (0.968, 0.964, 0.962, 0.970, 0.958, 0.944, 0.946, 0.958),
        ("jackknife", "kendall", "clusters"): (0.972, 0.955, 0.960, 0.971, 0.957, 0.945, 0.950, 0.958),
        ("jackknife", "partial_pearson", "clusters"): (0.968, 0.954, 0.944, 0.959, 0.947, 0.949, 0.954, 0.948),
        ("jackknife", "partial_spearman", "clusters"): (0.974, 0.961, 0.955, 0.965, 0.961, 0.960, 0.948, 0.952),
        ("jackknife", "within_pearson", "clusters"): (0.972, 0.963, 0.974, 0.974, 0.959, 0.972, 0.959, 0.960),
        ("jackknife", "pearson", "rows"): (0.850, 0.852, 0.842, 0.838, 0.842, 0.830, 0.832, 0.835),
        ("jackknife", "spearman", "rows"): (0.885, 0.882, 0.876, 0.878, 0.872, 0.853, 0.863, 0.873),
        ("jackknife", "kendall", "rows"): (0.888, 0.884, 0.875, 0.876, 0.874, 0.844, 0.865, 0.875),
        ("jackknife", "partial_pearson", "rows"): (0.876, 0.837, 0.842, 0.845, 0.845, 0.846, 0.815, 0.843),
        ("jackknife", "partial_spearman", "rows"): (0.923, 0.872, 0.861, 0.885, 0.869, 0.854, 0.833, 0.848),
        ("jackknife", "within_pearson", "rows"): (0.920, 0.867, 0.856, 0.858, 0.832, 0.856, 0.882, 0.835),
        ("percentile", "pearson", "single"): (0.894, 0.898, 0.893, 0.900, 0.909, 0.917, 0.927, 0.946),
        ("percentile", "spearman", "single"): (0.950, 0.956, 0.961, 0.955, 0.956, 0.949, 0.944, 0.942),
        ("percentile", "kendall", "single"): (0.950, 0.955, 0.951, 0.959, 0.949, 0.949, 0.940, 0.941),
        ("percentile", "partial_pearson", "single"): (np.nan, 0.922, 0.925, 0.921, 0.914, 0.920, 0.922, 0.939),
        ("percentile", "partial_spearman", "single"): (np.nan, 0.953, 0.967, 0.960, 0.974, 0.960, 0.950, 0.949),
        ("percentile", "within_pearson", "single"): (np.nan, 0.883, 0.939, 0.954, 0.948, 0.945, 0.937, 0.932),
        ("percentile", "pearson", "clusters"): (0.892, 0.909, 0.906, 0.903, 0.923, 0.909, 0.928, 0.944),
        ("percentile", "spearman", "clusters"): (0.929, 0.941, 0.937, 0.942, 0.941, 0.916, 0.937, 0.952),
        ("percentile", "kendall", "clusters"): (0.922, 0.935, 0.933, 0.943, 0.941, 0.922, 0.941, 0.955),
        ("percentile", "partial_pearson", "clusters"): (0.899, 0.900, 0.899, 0.917, 0.906, 0.919, 0.933, 0.935),
        ("percentile", "partial_spearman", "clusters"): (0.946, 0.924, 0.929, 0.931, 0.937, 0.943, 0.938, 0.943),
        ("percentile", "within_pearson", "clusters"): (0.883, 0.930, 0.940, 0.950, 0.938, 0.946, 0.945, 0.950),
        ("percentile", "pearson", "rows"): (0.798, 0.819, 0.809, 0.810, 0.818, 0.815, 0.816, 0.826),
        ("percentile", "spearman", "rows"): (0.867, 0.868, 0.863, 0.870, 0.860, 0.841, 0.843, 0.860),
        ("percentile", "kendall", "rows"): (0.871, 0.869, 0.859, 0.866, 0.863, 0.838, 0.855, 0.853),
        ("percentile", "partial_pearson", "rows"): (0.828, 0.795, 0.814, 0.803, 0.816, 0.827, 0.805, 0.833),
        ("percentile", "partial_spearman", "rows"): (0.905, 0.862, 0.851, 0.864, 0.853, 0.851, 0.825, 0.835),
        ("percentile", "within_pearson", "rows"): (0.889, 0.835, 0.817, 0.822, 0.806, 0.831, 0.865, 0.818),
        ("bca", "pearson", "single"): (0.943, 0.944, 0.923, 0.921, 0.928, 0.929, 0.926, 0.945),
        ("bca", "spearman", "single"): (0.994, 0.940, 0.946, 0.946, 0.952, 0.947, 0.944, 0.946),
        ("bca", "kendall", "single"): (0.994, 0.970, 0.967, 0.971, 0.967, 0.958, 0.951, 0.947),
        ("bca", "partial_pearson", "single"): (np.nan, 0.977, 0.957, 0.948, 0.937, 0.931, 0.928, 0.937),
        ("bca", "partial_spearman", "single"): (np.nan, 0.953, 0.945, 0.937, 0.955, 0.949, 0.934, 0.941),
        ("bca", "within_pearson", "single"): (np.nan, 0.891, 0.971, 0.980, 0.969, 0.947, 0.938, 0.927),
        ("bca", "pearson", "clusters"): (0.835, 0.880, 0.880, 0.883, 0.905, 0.897, 0.922, 0.936),
        ("bca", "spearman", "clusters"): (0.838, 0.894, 0.903, 0.908, 0.911, 0.899, 0.930, 0.946),
        ("bca", "kendall", "clusters"): (0.863, 0.906, 0.908, 0.923, 0.916, 0.907, 0.938, 0.950),
        ("bca", "partial_pearson", "clusters"): (0.846, 0.850, 0.862, 0.885, 0.883, 0.896, 0.922, 0.929),
        ("bca", "partial_spearman", "clusters"): (0.852, 0.854, 0.872, 0.883, 0.905, 0.913, 0.928, 0.931),
        ("bca", "within_pearson", "clusters"): (0.832, 0.814, 0.848, 0.868, 0.867, 0.899, 0.925, 0.941),
        ("bca", "pearson", "rows"): (0.810, 0.825, 0.811, 0.815, 0.827, 0.816, 0.822, 0.828),
        ("bca", "spearman", "rows"): (0.866, 0.858, 0.860, 0.864, 0.864, 0.845, 0.848, 0.858),
        ("bca", "kendall", "rows"): (0.889, 0.877, 0.871, 0.876, 0.873, 0.846, 0.855, 0.860),
        ("bca", "partial_pearson", "rows"): (0.849, 0.807, 0.816, 0.814, 0.820, 0.835, 0.823, 0.820),
        ("bca", "partial_spearman", "rows"): (0.894, 0.839, 0.851, 0.855, 0.850, 0.843, 0.825, 0.840),
        ("bca", "within_pearson", "rows"): (0.911, 0.846, 0.830, 0.835, 0.810, 0.830, 0.860, 0.820),
    }
)
"""Coverage of the nominal 95 % interval at each of :data:`SIZES` clusters, by kind of interval, method and design.

Made by :func:`simulate_coverage` with 1,000 or 2,000 simulations of 399 resamples (standard error 0.007 or less; 400
simulations of 299 resamples, 0.02, for ranks of more than 200 single rows). Designs: ``single`` one row per cluster,
``clusters`` five rows per cluster, whole clusters drawn or left out, ``rows`` the same data with rows taken for
independent.
"""

GROUPS = 4
"""Groups of the simulated data for the methods within groups."""

_RHO = -0.5


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
    target = truth(method)
    clusters = np.repeat(np.arange(n_clusters), cluster_size)
    codes, drawn = cluster_codes(np.arange(len(clusters)) if by_rows else clusters)
    held: dict[str, list[bool]] = {}
    for _ in range(simulations):
        values = draw(method, clusters, icc, rng)
        options = {"values": values, "codes": codes, "groups": clusters % GROUPS}
        found = _intervals(method, drawn, resamples, int(rng.integers(2**32)), **options)
        for interval, (low, high) in found.items():
            if np.isfinite([low[0], high[0]]).all():
                held.setdefault(interval, []).append(bool(low[0] <= target <= high[0]))
    return {interval: float(np.mean(hits)) for interval, hits in held.items()}


def _intervals(
    method: str, n_clusters: int, resamples: int, seed: int, **data: np.ndarray
) -> dict[str, tuple[Array, Array]]:
    estimate = coefficient(method, counts=np.ones((1, n_clusters)), **data)
    left_out = coefficient(method, counts=jackknife_counts(n_clusters), **data)[:, None]
    found = {"jackknife": jackknife_interval(estimate, left_out)}
    if resamples:
        resampled = coefficient(method, counts=bootstrap_counts(n_clusters, resamples, seed), **data)[:, None]
        found["percentile"] = percentile_interval(resampled)
        found["bca"] = bca_interval(estimate, resampled, left_out)
    return found


def draw(method: str, clusters: np.ndarray, icc: float, rng: np.random.Generator) -> Array:
    """One simulated data set ``(n, 2)`` (``(n, 3)`` for partial methods); see :func:`simulate_coverage`."""
    n, n_clusters = len(clusters), clusters[-1] + 1
    root = np.linalg.cholesky([[1, _RHO], [_RHO, 1]])
    between = (rng.normal(size=(n_clusters, 2)) @ root.T)[clusters]
    values = np.sqrt(icc) * between + np.sqrt(1 - icc) * rng.normal(size=(n, 2)) @ root.T
    if method.startswith("partial"):
        third = np.sqrt(icc) * rng.normal(size=n_clusters)[clusters] + np.sqrt(1 - icc) * rng.normal(size=n)
        return np.column_stack([values + 0.5 * third[:, None], third])
    if method == "within_pearson":
        return values + 2.0 * rng.normal(size=(GROUPS, 2))[clusters % GROUPS]
    return values


def truth(method: str) -> float:
    """The coefficient of the distribution that :func:`draw` draws from."""
    if method == "spearman":
        return 6 / np.pi * np.arcsin(_RHO / 2)
    if method == "kendall":
        return 2 / np.pi * np.arcsin(_RHO)
    if method == "partial_spearman":
        # Residuals have variance 1, the third variable adds 1/4 to both variances and to their covariance.
        xy, xz = (6 / np.pi * np.arcsin(r / 2) for r in ((_RHO + 0.25) / 1.25, 0.5 / np.sqrt(1.25)))
        return (xy - xz**2) / (1 - xz**2)
    return _RHO


def coefficient(method: str, values: Array, codes: np.ndarray, counts: Array, groups: np.ndarray) -> Array:
    """``(B,)`` coefficients of the first two columns of ``values`` under ``counts`` ``(B, G)``."""
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
