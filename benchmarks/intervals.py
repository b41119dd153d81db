"""Coverage of nominal 95 % intervals of a correlation in clustered data: the candidates from which the default was
chosen.

    python -m benchmarks.intervals

Simulated data sets as in :func:`simulate_coverage`: clusters of five rows, half of the variances
between clusters, correlation -0.5.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import stats

from benchmarks.results import machine, table, write_section
from invariscope.analysis.stats.coverage import GROUPS, coefficient, draw, truth
from invariscope.analysis.stats.resampling import (
    Array,
    bca_interval,
    bootstrap_counts,
    cluster_codes,
    jackknife_counts,
    jackknife_error,
    jackknife_interval,
    percentile_interval,
)

METHODS = ("pearson", "spearman", "kendall", "partial_pearson", "within_pearson")
CLUSTERS = (10, 40, 100)
SIMULATIONS, RESAMPLES, SIZE = 1000, 399, 5
WORDS = {
    "percentile": "percentile",
    "expanded": "expanded percentile",
    "bca": "BCa",
    "expanded BCa": "expanded BCa",
    "bootstrap z": "Fisher z ± t x bootstrap error",
    "jackknife r": "r ± t x jackknife error",
    "jackknife": "**Fisher z ± t x jackknife error** (the default)",
}


def candidates(method: str, values: Array, codes: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, Array]:
    """The ends of every candidate's interval, ``(2,)`` each."""
    n_clusters = int(codes.max()) + 1
    t = stats.t.ppf(0.975, n_clusters - 1)
    # Hesterberg (2015): the percentiles that give a mean's interval the length of the t interval.
    level = 1 - 2 * stats.norm.cdf(-np.sqrt(n_clusters / (n_clusters - 1)) * t)
    data = {"values": values, "codes": codes, "groups": groups}
    estimate = coefficient(method, counts=np.ones((1, n_clusters)), **data)
    left_out = coefficient(method, counts=jackknife_counts(n_clusters), **data)[:, None]
    resampled = coefficient(method, counts=bootstrap_counts(n_clusters, RESAMPLES, seed), **data)[:, None]
    z, error = np.arctanh(estimate), np.nanstd(np.arctanh(np.clip(resampled, -0.999999, 0.999999)), axis=0, ddof=1)
    error = error * np.sqrt(n_clusters / (n_clusters - 1))
    plain = t * jackknife_error(left_out)
    found = {
        "percentile": percentile_interval(resampled),
        "expanded": percentile_interval(resampled, level),
        "bca": bca_interval(estimate, resampled, left_out),
        "expanded BCa": bca_interval(estimate, resampled, left_out, level),
        "bootstrap z": (np.tanh(z - t * error), np.tanh(z + t * error)),
        "jackknife r": (estimate - plain, estimate + plain),
        "jackknife": jackknife_interval(estimate, left_out),
    }
    return {name: np.ravel(ends) for name, ends in found.items()}


def coverage(method: str, n_clusters: int, seed: int = 1) -> dict[str, tuple[float, float]]:
    """Share of intervals that hold the truth and their median length, by candidate."""
    rng = np.random.default_rng([seed, n_clusters])
    clusters = np.repeat(np.arange(n_clusters), SIZE)
    codes, _ = cluster_codes(clusters)
    found: dict[str, list[Array]] = {}
    for _ in range(SIMULATIONS):
        values = draw(method, clusters, 0.5, rng)
        for name, ends in candidates(method, values, codes, clusters % GROUPS, int(rng.integers(2**32))).items():
            if np.isfinite(ends).all():
                found.setdefault(name, []).append(ends)
    target = truth(method)
    ends = {name: np.array(pairs) for name, pairs in found.items()}
    return {
        name: (float(np.mean((e[:, 0] <= target) & (target <= e[:, 1]))), float(np.median(e[:, 1] - e[:, 0])))
        for name, e in ends.items()
    }


def main() -> None:
    """Measure and write the section."""
    rows: dict[str, dict[str, object]] = {name: {"interval": words} for name, words in WORDS.items()}
    for n_clusters in CLUSTERS:
        for method in METHODS:
            for name, (share, length) in coverage(method, n_clusters).items():
                rows[name][f"{method.replace('_', ' ')}, {n_clusters}"] = f"{share:.3f} ({length:.2f})"
    body = (
        f"`python -m benchmarks.intervals`: share of {SIMULATIONS} nominal 95 % intervals that held the truth "
        f"(standard error 0.007), median length in brackets, by coefficient and number of clusters; clusters of {SIZE} "
        f"rows, correlation -0.5, {RESAMPLES} resamples. {machine('numpy', 'scipy')}\n\n{table(list(rows.values()))}"
    )
    write_section("Intervals of correlations", body)


if __name__ == "__main__":
    main()
