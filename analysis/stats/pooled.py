"""Estimates of several cells together: inverse-variance means, their heterogeneity, and equivalence to zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from invariscope.analysis.stats.resampling import NOMINAL, Array
from invariscope.base.errors import TableError


@dataclass(frozen=True)
class Pooled:
    """A mean over cells: fixed effect, its error and interval; Cochran's Q; and the random-effects mean beside it.

    ``q`` is chi-square with ``df`` degrees of freedom when all cells have one true value; ``i2`` the share of the
    variance between cells that is more than sampling error; ``tau2`` the variance between true values
    (DerSimonian & Laird 1986).
    """

    estimate: float
    se: float
    low: float
    high: float
    q: float
    df: int
    p_heterogeneity: float
    i2: float
    tau2: float
    random: float
    random_low: float
    random_high: float


def pool(
    estimates: Sequence[float] | Array,
    errors: Sequence[float] | Array,
    *,
    covariance: Array | None = None,
    alone_df: float = np.inf,
    level: float = NOMINAL,
) -> Pooled:
    """The inverse-variance mean of estimates with these standard errors, and the random-effects mean beside it.

    Weights are ``w = 1 / se²``, whatever the covariance ``V`` of the estimates (cells that share operators are not
    independent); the error of the mean is ``sqrt(w' V w) / sum w``, and ``Q = d' (C V C')^-1 d`` with the contrasts
    ``d = C b`` of the estimates, which is Cochran's where ``V`` is diagonal.
    ``tau² = max(0, (sum w (b - mean)² - tr(A V)) / tr(A))``, ``A = diag(w) - w w' / sum w``: DerSimonian & Laird's
    where ``V`` is diagonal. statsmodels' ``combine_effects`` gives the same for independent estimates where tau² is
    above 0; it does not bound it there, and then has no error.

    Args:
        covariance: of the estimates, ``(k, k)``; without it they are independent.
        alone_df: degrees of freedom of a single estimate, whose interval is its own (t) and no pooled one.

    Raises:
        TableError: for no estimates, or a standard error that is not above 0.
    """
    values, widths = np.asarray(estimates, dtype=float), np.asarray(errors, dtype=float)
    if not len(values) or not np.isfinite(values).all() or not (widths > 0).all():
        raise TableError("nothing to pool: give estimates with standard errors above 0")
    spread = np.diag(widths**2) if covariance is None else np.asarray(covariance, dtype=float)
    quantile = float(stats.t.ppf((1 + level) / 2, alone_df if len(values) == 1 else np.inf))
    weights = widths**-2
    mean, se = _mean(values, weights, spread)
    df = len(values) - 1
    q = _heterogeneity(values, spread) if df else 0.0
    tau2 = _between(values - mean, weights, spread) if df else float("nan")
    between = np.eye(len(values)) * (tau2 if df else 0.0)
    random, random_se = _mean(values, 1 / (widths**2 + np.diag(between)), spread + between)
    return Pooled(
        estimate=mean,
        se=se,
        low=mean - quantile * se,
        high=mean + quantile * se,
        q=q,
        df=df,
        p_heterogeneity=float(stats.chi2.sf(q, df)) if df else float("nan"),
        i2=(max(0.0, (q - df) / q) if q > 0 else 0.0) if df else float("nan"),
        tau2=tau2,
        random=random,
        random_low=random - quantile * random_se,
        random_high=random + quantile * random_se,
    )


def _mean(values: Array, weights: Array, spread: Array) -> tuple[float, float]:
    shares = weights / weights.sum()
    return float(shares @ values), float(np.sqrt(shares @ spread @ shares))


def _heterogeneity(values: Array, spread: Array) -> float:
    contrasts = np.eye(len(values))[1:] - np.eye(len(values))[:1]
    found = contrasts @ values
    return float(found @ np.linalg.pinv(contrasts @ spread @ contrasts.T) @ found)


def _between(deviations: Array, weights: Array, spread: Array) -> float:
    inner = np.diag(weights) - np.outer(weights, weights) / weights.sum()
    excess = float(weights @ deviations**2) - float(np.trace(inner @ spread))
    return max(0.0, excess / float(np.trace(inner)))


def equivalence_p(estimate: float, se: float, bound: float, df: float = np.inf) -> float:
    """Two one-sided tests (Schuirmann 1987): the p-value of "the true value lies beyond ±bound", whichever side.

    The larger of the two one-sided p-values; small means that an effect of the size of ``bound`` is ruled out.
    """
    if not (np.isfinite(estimate) and se > 0 and bound > 0):
        return float("nan")
    return float(max(stats.t.sf((estimate + bound) / se, df), stats.t.cdf((estimate - bound) / se, df)))
