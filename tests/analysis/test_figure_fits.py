"""Curves with bands, and means with intervals: against likelihoods, sandwiches and regressions by hand."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import optimize, stats

from invariscope.analysis.figures import fits


@pytest.fixture(scope="module")
def frame(simulate: ModuleType) -> pd.DataFrame:
    return simulate.simulate_frame(simulate.Zoo(seeds=2, epochs=(24.0,), padding_modes=("zeros",)))


def test_the_logit_curve_is_the_quasi_likelihood_maximum_with_a_sandwich_band(frame: pd.DataFrame) -> None:
    rows = frame[frame["shift_kind"] == "zero"]
    x, y, groups = rows["msb_corrected"].to_numpy(), rows["consistency"].to_numpy(), rows["operator"].to_numpy()

    def loss(beta: np.ndarray) -> float:
        eta = beta[0] + beta[1] * x
        return float(np.sum(np.logaddexp(0, eta) - y * eta))

    beta = optimize.minimize(loss, np.zeros(2), tol=1e-12).x
    mu = 1 / (1 + np.exp(-(beta[0] + beta[1] * x)))
    bread, meat = np.zeros((2, 2)), np.zeros((2, 2))
    for m, value in zip(mu, x, strict=True):
        bread += m * (1 - m) * np.outer([1, value], [1, value])
    for group in np.unique(groups):
        score = np.zeros(2)
        for index in np.flatnonzero(groups == group):
            score += (y[index] - mu[index]) * np.array([1, x[index]])
        meat += np.outer(score, score)
    n, size = len(np.unique(groups)), len(x)
    covariance = np.linalg.inv(bread) @ meat @ np.linalg.inv(bread) * n / (n - 1) * (size - 1) / (size - 2)
    curve = fits.logit_curve(rows["msb_corrected"], rows["consistency"], rows["operator"])
    assert curve.slope == pytest.approx(beta[1], abs=1e-4)
    t = stats.t.ppf(0.975, n - 1)
    assert curve.slope_high - curve.slope == pytest.approx(t * np.sqrt(covariance[1, 1]), rel=1e-3)
    for index in (0, 40, 80):
        at = np.array([1, curve.x[index]])
        eta, error = at @ beta, t * np.sqrt(at @ covariance @ at)
        assert curve.low[index] == pytest.approx(1 / (1 + np.exp(-(eta - error))), abs=1e-3)
        assert curve.high[index] == pytest.approx(1 / (1 + np.exp(-(eta + error))), abs=1e-3)
    assert (curve.n, curve.n_clusters) == (size, n)


@pytest.mark.parametrize(
    ("x", "y"),
    [([1.0, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5]), ([1.0, 2, 3, 4, 5], [1.0, 1, 1, 1, 1]), ([1.0, 2], [0, 1])],
)
def test_no_curve_through_what_does_not_vary(x: list[float], y: list[float]) -> None:
    assert fits.logit_curve(pd.Series(x), pd.Series(y), pd.Series(range(len(x)))) is None


def test_two_clusters_give_a_curve_without_a_band() -> None:
    x, y = pd.Series([0.0, 0.2, 0.5, 0.9, 1.0]), pd.Series([0.9, 0.8, 0.7, 0.5, 0.6])
    curve = fits.logit_curve(x, y, pd.Series(list("aabbb")))
    assert np.isfinite(curve.y).all()
    assert np.isnan(curve.low).all()
    assert np.isnan(curve.slope_low)


def test_clustered_mean_equals_the_cluster_robust_regression_on_a_constant(frame: pd.DataFrame) -> None:
    rows = frame[frame["operator"] == "soft"].reset_index(drop=True)
    codes = pd.factorize(rows["cluster"])[0]
    fit = smf.ols("consistency ~ 1", rows).fit(cov_type="cluster", cov_kwds={"groups": codes, "use_correction": False})
    groups = codes.max() + 1
    half = stats.t.ppf(0.975, groups - 1) * fit.bse["Intercept"] * np.sqrt(groups / (groups - 1))
    mean, low, high = fits.clustered_mean(rows["consistency"], rows["cluster"])
    np.testing.assert_allclose([mean, low, high], [fit.params["Intercept"], mean - half, mean + half], atol=1e-12)
    assert np.isnan(fits.clustered_mean(rows["consistency"], pd.Series(["a"] * len(rows)))[1])


def test_clustered_mean_of_single_rows_is_the_t_interval() -> None:
    values = pd.Series([0.1, 0.4, 0.35, 0.9])
    low, high = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose(fits.clustered_mean(values, pd.Series(range(4))), [values.mean(), low, high])
