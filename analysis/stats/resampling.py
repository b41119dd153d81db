"""Bootstrap and jackknife over clusters, as matrices of how often each cluster is drawn, and the intervals made from
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]

NOMINAL = 0.95
"""The level of every interval."""

INTERVALS: Mapping[str, str] = MappingProxyType(
    {
        "jackknife": "t interval on Fisher's z scale from a jackknife over clusters",
        "percentile": "percentile interval of a cluster bootstrap",
        "bca": "bias-corrected and accelerated interval of a cluster bootstrap",
    }
)
"""The kinds of interval, and what they are in words."""

DEFAULT_INTERVAL = "jackknife"
"""The kind that the analysis and the figures use: of those compared in ``benchmarks/intervals.py`` the one whose
coverage stays nearest to 95 % for every coefficient, with 10 as with 100 clusters.
"""

EXACT = 1e-12
"""A coefficient this close to ±1 is ±1 up to rounding, and has no interval on Fisher's scale."""

MIN_DEFINED = 0.95
"""Share of resamples that must give a number before an interval is made of them."""


def cluster_codes(clusters: ArrayLike) -> tuple[NDArray[np.intp], int]:
    """Codes 0, 1, … of the clusters in order of appearance, and how many there are."""
    values = np.asarray(clusters, dtype=object)
    if pd.api.types.infer_dtype(values, skipna=False) == "string":
        found, names = pd.factorize(values)
        return found.astype(np.intp), len(names)
    number: dict[str, int] = {}
    codes = [number.setdefault(str(cluster), len(number)) for cluster in values]
    return np.array(codes, dtype=np.intp), len(number)


@lru_cache(maxsize=16)
def bootstrap_counts(n_clusters: int, resamples: int, seed: int = 0) -> Array:
    """How often each cluster is drawn in each resample: ``(resamples, n_clusters)``, each row a sum of ``n_clusters``.

    Drawing whole clusters with replacement (the pairs cluster bootstrap). A statistic of a resample is the statistic
    with row weights ``counts[:, codes]``, so no row is ever copied. Read-only: the same draws serve many statistics.
    """
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=resamples).astype(float)
    counts.flags.writeable = False
    return counts


def jackknife_counts(n_clusters: int) -> Array:
    """The counts that leave one cluster out at a time: ``(n_clusters, n_clusters)``, ones with a zero diagonal."""
    return 1.0 - np.eye(n_clusters)


def jackknife_error(leave_one_out: Array) -> Array:
    """Standard error from leave-one-out values along axis 0: ``sqrt((G - 1)/G · Σ (θ_g - mean θ)²)``; NaN where one is
    undefined.
    """
    groups = len(leave_one_out)
    deviation = leave_one_out - leave_one_out.mean(axis=0)
    return np.sqrt((groups - 1) / groups * (deviation**2).sum(axis=0))


def jackknife_interval(estimate: Array, leave_one_out: Array, level: float = NOMINAL) -> tuple[Array, Array]:
    """``tanh(atanh r ± t_{G-1} · se / (1 - r²))`` along axis 0, ``se`` the jackknife error of r over G clusters.

    Fisher's z with the error that the clusters show instead of ``1/sqrt(n - 3)``, brought to that scale by the delta
    method (so that a leave-one-out value of ±1 does no harm). NaN where r is ±1 or a leave-one-out value is undefined.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        half = stats.t.ppf((1 + level) / 2, len(leave_one_out) - 1) * jackknife_error(leave_one_out) / (1 - estimate**2)
        centre = np.where(1 - np.abs(estimate) > EXACT, np.arctanh(estimate), np.nan)
        return np.tanh(centre - half), np.tanh(centre + half)


def percentile_interval(resampled: Array, level: float = NOMINAL) -> tuple[Array, Array]:
    """Lower and upper percentile along axis 0, over the resamples that give a number; NaN where too few do
    (:data:`MIN_DEFINED`).
    """
    tail = (1 - level) / 2
    return _quantiles(resampled, np.full(resampled.shape[1:], tail), np.full(resampled.shape[1:], 1 - tail))


def bca_interval(
    estimate: Array, resampled: Array, leave_one_out: Array, level: float = NOMINAL
) -> tuple[Array, Array]:
    """Bias-corrected and accelerated interval (Efron 1987) along axis 0.

    ``z0`` from the share of resamples below the estimate (ties count half), the acceleration from the jackknife over
    the same clusters: ``a = Σ d³ / (6 (Σ d²)^{3/2})``, ``d = mean θ - θ_g``. NaN where ``a`` or ``z0`` has no value.
    """
    defined = np.isfinite(resampled)
    below = ((resampled < estimate) + 0.5 * (resampled == estimate)).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)
    deviation = leave_one_out.mean(axis=0) - leave_one_out
    with np.errstate(invalid="ignore", divide="ignore"):
        acceleration = (deviation**3).sum(axis=0) / (6 * (deviation**2).sum(axis=0) ** 1.5)
        bias = stats.norm.ppf(below)
        ends = []
        for tail in ((1 - level) / 2, (1 + level) / 2):
            z = bias + stats.norm.ppf(tail)
            ends.append(stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return _quantiles(resampled, ends[0], ends[1])


def _quantiles(resampled: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Linear-interpolation quantiles of each column at its own two probabilities, ignoring NaN."""
    ordered = np.sort(resampled, axis=0)
    defined = np.isfinite(ordered).sum(axis=0)
    enough = (defined >= MIN_DEFINED * len(resampled)) & np.isfinite(low) & np.isfinite(high) & (defined > 1)
    ends = []
    for probability in (low, high):
        position = np.where(enough, probability, 0.0) * np.maximum(defined - 1, 0)
        lower = np.floor(position).astype(np.intp)
        upper = np.minimum(lower + 1, np.maximum(defined - 1, 0))
        start = np.take_along_axis(ordered, lower[None], axis=0)[0]
        stop = np.take_along_axis(ordered, upper[None], axis=0)[0]
        ends.append(np.where(enough, start + (position - lower) * (stop - start), np.nan))
    return ends[0], ends[1]
