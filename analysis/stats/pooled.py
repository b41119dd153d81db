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


def pool(estimates: Sequence[float], errors: Sequence[float], level: float = NOMINAL) -> Pooled:
    """The inverse-variance mean of estimates with these standard errors, and the random-effects mean beside it.

    ``tau² = max(0, (Q - df) / (sum w - sum w² / sum w))`` with ``w = 1 / se²``. statsmodels' ``combine_effects`` gives
    the same where tau² is above 0; it does not bound it there, and then has no error.

    Raises:
        TableError: for no estimates, or a standard error that is not above 0.
    """
    values, widths = np.asarray(estimates, dtype=float), np.asarray(errors, dtype=float)
    if not len(values) or not np.isfinite(values).all() or not (widths > 0).all():
        raise TableError("nothing to pool: give estimates with standard errors above 0")
    quantile = float(stats.norm.ppf((1 + level) / 2))
    mean, se = _mean(values, widths**-2)
    df = len(values) - 1
    weights = widths**-2
    q = float(weights @ (values - mean) ** 2)
    spread = weights.sum() - (weights**2).sum() / weights.sum()
    tau2 = max(0.0, (q - df) / spread) if df else float("nan")
    random, random_se = _mean(values, 1 / (widths**2 + tau2)) if df else (mean, se)
    return Pooled(
        estimate=mean,
        se=se,
        low=mean - quantile * se,
        high=mean + quantile * se,
        q=q if df else 0.0,
        df=df,
        p_heterogeneity=float(stats.chi2.sf(q, df)) if df else float("nan"),
        i2=(max(0.0, (q - df) / q) if q > 0 else 0.0) if df else float("nan"),
        tau2=tau2,
        random=random,
        random_low=random - quantile * random_se,
        random_high=random + quantile * random_se,
    )


def _mean(values: Array, weights: Array) -> tuple[float, float]:
    return float(weights @ values / weights.sum()), float(weights.sum() ** -0.5)


def equivalence_p(estimate: float, se: float, bound: float, df: float = np.inf) -> float:
    """Two one-sided tests (Schuirmann 1987): the p-value of "the true value lies beyond ±bound", whichever side.

    The larger of the two one-sided p-values; small means that an effect of the size of ``bound`` is ruled out.
    """
    if not (np.isfinite(estimate) and se > 0 and bound > 0):
        return float("nan")
    return float(max(stats.t.sf((estimate + bound) / se, df), stats.t.cdf((estimate - bound) / se, df)))
