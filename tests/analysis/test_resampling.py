"""The matrix bootstrap and jackknife against loops that really repeat rows and call scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from invariscope.analysis.stats.coefficients import correlation, covariance, given, kendall_sums, rank_covariance
from invariscope.analysis.stats.coverage import COVERAGE, SIZES, simulate_coverage, simulated_coverage
from invariscope.analysis.stats.resampling import (
    DEFAULT_INTERVAL,
    INTERVALS,
    bca_interval,
    bootstrap_counts,
    cluster_codes,
    jackknife_counts,
    jackknife_error,
    percentile_interval,
)

RESAMPLES = 60


@pytest.fixture(scope="module")
def data():
    """Three columns with ties, 60 rows in 12 clusters of unequal size, in 3 groups."""
    rng = np.random.default_rng(5)
    clusters = rng.integers(0, 12, 60)
    clusters[:12] = np.arange(12)
    values = rng.normal(size=(60, 3)) + rng.normal(size=(12, 3))[clusters]
    values[:, 1] += 0.7 * values[:, 0]
    return np.round(values, 1), clusters, clusters % 3


def _repeat(codes, counts):
    """Row numbers of a resample, each as often as its cluster was drawn."""
    return np.array([row for row, code in enumerate(codes) for _ in range(int(counts[code]))])


def _slow(method, x, y, z, groups):
    frame = pd.DataFrame({"x": x, "y": y, "z": z, "g": groups})
    if method == "kendall":
        return stats.kendalltau(x, y).statistic
    if method == "within_pearson":
        frame = frame - frame.groupby("g").transform("mean").assign(g=0)
        return stats.pearsonr(frame["x"], frame["y"]).statistic
    if method.endswith("spearman"):
        frame = frame.rank()
    if method.startswith("partial"):
        residual = {c: frame[c] - np.polyval(np.polyfit(frame["z"], frame[c], 1), frame["z"]) for c in "xy"}
        return stats.pearsonr(residual["x"], residual["y"]).statistic
    return stats.pearsonr(frame["x"], frame["y"]).statistic


def _fast(method, values, codes, counts, groups):
    size = counts.sum(axis=1)
    if method == "kendall":
        return correlation(kendall_sums(values, codes, counts, [(0, 1)]), size)[:, 0, 1]
    if method.endswith("spearman"):
        sums = rank_covariance(values, codes, counts)
    else:
        sums = covariance(values, codes, counts, groups if method.startswith("within") else None)
    sums = given(sums, [0, 1], [2]) if method.startswith("partial") else sums
    return correlation(sums, size)[:, 0, 1]


METHODS = ["pearson", "spearman", "kendall", "partial_pearson", "partial_spearman", "within_pearson"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["bootstrap", "jackknife"])
def test_every_resample_equals_the_statistic_of_the_repeated_rows(data, method, kind):
    values, clusters, groups = data
    codes, n_clusters = cluster_codes(clusters)
    counts = bootstrap_counts(n_clusters, RESAMPLES, seed=1) if kind == "bootstrap" else jackknife_counts(n_clusters)
    fast = _fast(method, values, codes, counts, groups)
    for resample, count in enumerate(counts):
        rows = _repeat(codes, count)
        expected = _slow(method, *values[rows].T, groups[rows])
        assert fast[resample] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_blocks_do_not_change_the_numbers(data, method, monkeypatch):
    values, clusters, groups = data
    codes, n_clusters = cluster_codes(clusters)
    counts = bootstrap_counts(n_clusters, RESAMPLES, seed=2)
    whole = _fast(method, values, codes, counts, groups)
    monkeypatch.setattr("invariscope.analysis.stats.coefficients._CELLS", 500)
    np.testing.assert_allclose(_fast(method, values, codes, counts, groups), whole, atol=1e-12)


def test_a_resample_in_which_a_column_is_constant_has_no_correlation():
    values = np.array([[1.0, 2.0], [1.0, 3.0], [4.0, 1.0]])
    counts = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    codes = np.arange(3)
    for sums in (
        covariance(values, codes, counts),
        rank_covariance(values, codes, counts),
        kendall_sums(values, codes, counts, [(0, 1)]),
    ):
        assert np.isnan(correlation(sums, counts.sum(axis=1))[:, 0, 1]).tolist() == [True, False]


def test_a_column_that_the_covariate_determines_has_no_partial_correlation(data):
    values = data[0].copy()
    values[:, 2] = 3 * values[:, 0] - 1
    sums = given(covariance(values, np.arange(60), np.ones((1, 60))), [0, 1], [2])
    assert np.isnan(correlation(sums, np.array([60.0]))[0, 0, 1])


def test_cluster_codes_number_clusters_as_they_appear():
    codes, number = cluster_codes(["b", "a", "b", "c", "a"])
    assert codes.tolist() == [0, 1, 0, 2, 1]
    assert number == 3


def test_bootstrap_counts_draw_as_many_clusters_as_there_are():
    counts = bootstrap_counts(7, 4000, seed=3)
    assert (counts.sum(axis=1) == 7).all()
    # Binomial(7, 1/7): mean 1, variance 6/7; four standard errors over 4,000 resamples.
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=4 * np.sqrt(6 / 7 / 4000))
    assert counts.var(axis=0) == pytest.approx(np.full(7, 6 / 7), abs=0.1)
    assert (counts == bootstrap_counts(7, 4000, seed=3)).all()
    assert (counts != bootstrap_counts(7, 4000, seed=4)).any()


def test_jackknife_error_of_a_mean_is_its_standard_error():
    sample = np.random.default_rng(0).normal(size=25)
    left_out = np.array([[np.delete(sample, i).mean()] for i in range(25)])
    assert jackknife_error(left_out)[0] == pytest.approx(stats.sem(sample), rel=1e-12)


def test_percentile_interval_is_the_quantile_of_the_defined_resamples():
    rng = np.random.default_rng(1)
    resampled = rng.normal(size=(200, 3))
    resampled[:8, 1] = np.nan
    resampled[:20, 2] = np.nan
    low, high = percentile_interval(resampled)
    for column in (0, 1):
        expected = np.nanquantile(resampled[:, column], [0.025, 0.975])
        assert (low[column], high[column]) == pytest.approx(tuple(expected), abs=1e-12)
    assert np.isnan([low[2], high[2]]).all()


def test_bca_interval_against_scipy():
    sample = np.random.default_rng(2).exponential(size=30)
    result = stats.bootstrap((sample,), np.mean, n_resamples=3000, method="BCa", random_state=3)
    left_out = (sample.sum() - sample) / 29
    low, high = bca_interval(np.array([sample.mean()]), result.bootstrap_distribution[:, None], left_out[:, None])
    assert (low[0], high[0]) == pytest.approx(tuple(result.confidence_interval), abs=1e-8)


@pytest.mark.parametrize(
    ("method", "design", "size"),
    [
        ("pearson", "single", 10),
        ("pearson", "clusters", 20),
        ("spearman", "single", 10),
        ("kendall", "clusters", 8),
        ("partial_spearman", "clusters", 12),
        ("within_pearson", "clusters", 10),
        ("pearson", "rows", 15),
        ("partial_pearson", "rows", 8),
    ],
)
def test_the_coverage_table_is_what_the_simulation_gives(method, design, size):
    options = {"single": {"cluster_size": 1}, "clusters": {}, "rows": {"by_rows": True}}[design]
    found = simulate_coverage(method, size, simulations=300, resamples=199, seed=11, **options)
    assert set(found) == set(INTERVALS)
    for interval, coverage in found.items():
        stored = COVERAGE[interval, method, design][SIZES.index(size)]
        # Four standard errors of 300 simulations, and 0.01 for the coarser bootstrap.
        assert coverage == pytest.approx(stored, abs=4 * np.sqrt(stored * (1 - stored) / 300) + 0.01)


@pytest.mark.parametrize("n_clusters", [40, pytest.param(100, marks=pytest.mark.full)])
@pytest.mark.parametrize("method", ["pearson", "spearman", "partial_pearson"])
def test_the_default_interval_covers_in_93_to_97_percent(method, n_clusters):
    """1,000 data sets of two dependent rows per cluster, whose true coefficient is known."""
    coverage = simulate_coverage(method, n_clusters, cluster_size=2, simulations=1000, resamples=0, seed=5)
    assert 0.93 <= coverage[DEFAULT_INTERVAL] <= 0.97


def test_every_interval_method_and_design_has_its_coverage():
    assert {key[0] for key in COVERAGE} == set(INTERVALS)
    assert len(COVERAGE) == 3 * 6 * 3
    for key, values in COVERAGE.items():
        assert len(values) == len(SIZES)
        assert np.isfinite(values[1:]).all(), key
    # With as many clusters as the smallest primary statement may have, the default holds what it says.
    for (interval, _, design), values in COVERAGE.items():
        if interval == DEFAULT_INTERVAL and design != "rows":
            assert min(values[SIZES.index(15) :]) >= 0.93


def test_simulated_coverage_lies_between_the_sizes_of_the_table():
    table = COVERAGE["percentile", "pearson", "clusters"]
    assert simulated_coverage("pearson", SIZES[1], "clusters", "percentile") == table[1]
    assert simulated_coverage("pearson", 9, "clusters", "percentile") == pytest.approx((table[1] + table[2]) / 2)
    assert simulated_coverage("pearson", 5000, "clusters", "percentile") == table[-1]
    assert np.isnan(simulated_coverage("pearson", 4, "clusters"))
    within = COVERAGE[DEFAULT_INTERVAL, "within_pearson", "clusters"]
    assert simulated_coverage("within_partial_pearson", 20, "clusters") == within[SIZES.index(20)]


def test_the_analysis_plan_quotes_the_coverage_table():
    text = (Path(__file__).resolve().parents[2] / "docs" / "analysis-plan.md").read_text(encoding="utf-8")
    for interval, name in (("percentile", "percentile"), ("bca", "BCa"), ("jackknife", "jackknife, the default")):
        table = COVERAGE[interval, "pearson", "clusters"]
        numbers = " | ".join(f"{table[SIZES.index(size)]:.3f}" for size in (10, 15, 40, 100))
        assert f"| {name} | {numbers} |" in text
