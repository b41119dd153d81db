"""What figures draw beside their points: curves with bands, means with intervals, and correlations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM
from statsmodels.regression.linear_model import OLS

from invariscope.analysis.say.numbers import bracketed
from invariscope.analysis.stats.correlation import constant, correlate, indicator_columns
from invariscope.analysis.stats.resampling import DEFAULT_INTERVAL, INTERVALS
from invariscope.collectors.schema import PIXEL_SCORES, SCORES

Array = NDArray[np.float64]

INTERVAL_OF_R = INTERVALS[DEFAULT_INTERVAL]
"""What the brackets after a correlation are, in words."""

SHARES = (*(name for name in (*SCORES, *PIXEL_SCORES) if name not in ("kappa", "probability_drift")), "agreement")
"""Columns whose values are shares, so that no interval of a mean leaves 0 to 1."""

FEWEST_CLUSTERS = 3
"""With fewer clusters a cluster-robust error says nothing, and no band or interval is drawn."""


@dataclass(frozen=True)
class Curve:
    """A fitted curve at ``x`` with its pointwise 95 % band; the band is NaN where it cannot be given."""

    x: Array
    y: Array
    low: Array
    high: Array
    slope: float
    slope_low: float
    slope_high: float
    n: int
    n_clusters: int


def logit_curve(x: pd.Series, y: pd.Series, clusters: pd.Series, points: int = 81) -> Curve | None:
    """Fractional logit ``E y = expit(a + b x)`` (Papke & Wooldridge 1996) over the range of ``x``.

    The band is ``expit(η ± t · se(η))`` with cluster-robust errors and ``G - 1`` degrees of freedom; the slope is
    ``b``. None where ``x`` or ``y`` is constant, or with fewer than 4 rows.
    """
    if len(x) < 4 or constant(x.to_numpy(float)) or constant(y.to_numpy(float)):
        return None
    design = _design(x)
    model = GLM(y.to_numpy(float), design, family=Binomial())
    at = np.linspace(x.min(), x.max(), points)
    return _curve(model, _design(at), at, clusters, special.expit)


def logit_line(x: pd.Series, y: pd.Series, clusters: pd.Series, points: int = 81) -> Curve | None:
    """Least-squares line ``logit y = a + b logit x`` through accuracies in (0, 1), over the range of ``x``.

    The curve is given in accuracies. The band is ``expit(η ± t · se(η))`` with cluster-robust errors and ``G - 1``
    degrees of freedom; the slope is ``b``. None where ``x`` or ``y`` is constant, or with fewer than 4 rows.
    """
    if len(x) < 4 or constant(x.to_numpy(float)) or constant(y.to_numpy(float)):
        return None
    model = OLS(special.logit(y.to_numpy(float)), _design(special.logit(x.to_numpy(float))))
    low, high = special.logit([x.min(), x.max()])
    at = np.linspace(low, high, points)
    return _curve(model, _design(at), special.expit(at), clusters, special.expit)


def partial_residuals(
    frame: pd.DataFrame, x: str, y: str, covariates: list[str], clusters: str, points: int = 81
) -> tuple[Array, Curve] | None:
    """Component-plus-residual values of ``x`` in the OLS ``y ~ x + covariates``, and their line with its 95 % band.

    The values are ``residual + b (x - mean x) + mean y``: what ``y`` would be at the covariates' means. Errors are
    cluster-robust with ``G - 1`` degrees of freedom. None where ``x`` varies no more than the covariates say.
    """
    extra = indicator_columns(frame, covariates).to_numpy(float)
    values = frame[x].to_numpy(float)
    design = np.column_stack([_design(values), extra])
    if len(frame) < design.shape[1] + 2 or _rank(design) < design.shape[1]:
        return None
    outcome = frame[y].to_numpy(float)
    model = OLS(outcome, design)
    at = np.linspace(values.min(), values.max(), points)
    means = np.broadcast_to(extra.mean(axis=0), (points, extra.shape[1]))
    curve = _curve(model, np.column_stack([_design(at), means]), at, frame[clusters], _identity)
    residual = outcome - design @ model.fit().params
    return residual + curve.slope * (values - values.mean()) + outcome.mean(), curve


def clustered_mean(values: pd.Series, clusters: pd.Series) -> tuple[float, float, float]:
    """Mean and its 95 % t interval, clusters as the sampling unit; NaN ends with fewer than two clusters.

    ``se² = G/(G - 1) · Σ_g (Σ_{i in g} (v_i - mean))² / n²``, ``G - 1`` degrees of freedom.
    """
    mean = float(values.mean())
    codes = pd.factorize(clusters)[0]
    apart = np.nan_to_num(values.to_numpy(dtype=float) - mean)
    sums = np.bincount(codes[codes >= 0], apart[codes >= 0])
    groups = len(sums)
    if groups < 2:
        return mean, np.nan, np.nan
    half = stats.t.ppf(0.975, groups - 1) * np.sqrt(groups / (groups - 1) * (sums**2).sum()) / len(values)
    return mean, mean - half, mean + half


def mean_interval(values: pd.Series, clusters: pd.Series, column: str = "") -> tuple[float, float, float]:
    """:func:`clustered_mean`; of shares (``column`` names one, values in 0 to 1) with ends inside 0 and 1.

    There the interval is ``expit(logit m ± t · se / (m (1 - m)))``, the same error on the logit scale; no ends where
    the mean is 0 or 1.
    """
    mean, low, high = clustered_mean(values, clusters)
    found = values.to_numpy(dtype=float)
    if column not in SHARES or not np.isfinite(low) or found.min() < 0 or found.max() > 1:
        return mean, low, high
    if not 0 < mean < 1:
        return mean, np.nan, np.nan
    half = (high - mean) / (mean * (1 - mean))
    ends = special.expit(special.logit(mean) + np.array([-half, half]))
    return mean, float(ends[0]), float(ends[1])


def correlation_row(
    frame: pd.DataFrame,
    x: str,
    y: str,
    method: str = "pearson",
    clusters: str | None = "operator",
    covariates: tuple[str, ...] = (),
) -> pd.Series:
    """One coefficient with its interval, a row of :func:`correlate`; ``clusters`` None takes single rows.

    Where the frame says which operators the clusters are of, the coverage is that of clusters which depend on each
    other within operators.
    """
    designs = {clusters or "rows": clusters} | ({"operator": "operator"} if "operator" in frame else {})
    options: dict[str, Any] = {"clusters": designs, "permutations": 0}
    return correlate(frame, [x], [y], methods=(method,), covariates=covariates, **options).iloc[0]


def operator_means(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The mean of each column per operator, one row each."""
    return frame.groupby("operator", as_index=False)[columns].mean()


def slope_in_words(curve: Curve, symbol: str) -> str:
    """``slope −0.27 [−0.49, −0.06]``."""
    joint = " = " if len(symbol) == 1 else " "
    return f"{symbol}{joint}{bracketed(curve.slope, curve.slope_low, curve.slope_high)}"


def _identity(values: Array) -> Array:
    return values


def _rank(design: Array) -> int:
    """Of columns in whatever units."""
    scale = np.linalg.norm(design, axis=0)
    return int(np.linalg.matrix_rank(design / np.where(scale > 0, scale, 1.0)))


def _design(values: pd.Series | Array) -> Array:
    return np.column_stack([np.ones(len(values)), np.asarray(values, dtype=float)])


def _curve(model: Any, at: Array, x: Array, clusters: pd.Series, link: Callable[[Array], Array]) -> Curve:
    codes = pd.factorize(clusters)[0]
    groups = int(codes.max()) + 1
    if groups < FEWEST_CLUSTERS:
        fit, half, t = model.fit(), np.full(len(x), np.nan), np.nan
    else:
        fit = model.fit(cov_type="cluster", cov_kwds={"groups": codes})
        t = stats.t.ppf(0.975, groups - 1)
        half = t * np.sqrt(np.einsum("ij,jk,ik->i", at, fit.cov_params(), at).clip(min=0))
    center, error = at @ fit.params, t * fit.bse[1]
    b = float(fit.params[1])
    ends = (link(center), link(center - half), link(center + half))
    return Curve(x, *ends, slope=b, slope_low=b - error, slope_high=b + error, n=int(model.nobs), n_clusters=groups)
