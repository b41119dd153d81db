"""Correlations in strata that are pooled on Fisher's z, with a jackknife and permutations over units that the strata
share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from invariscope.analysis.stats.coefficients import blocks
from invariscope.analysis.stats.resampling import NOMINAL, Array
from invariscope.analysis.stats.without_each import covariance_without_each, rank_covariance_without_each

LEAST_UNITS = 8
"""A stratum with fewer units takes no part."""

_ROUNDING = 1e-10


@dataclass(frozen=True)
class Stratum:
    """Two columns of the units ``units (n,)``, numbers that the strata share."""

    x: Array
    y: Array
    units: np.ndarray


@dataclass(frozen=True)
class StratifiedCorrelation:
    """``r = tanh(sum (n_s - 3) atanh(r_s) / sum (n_s - 3))``; ``se`` is of Fisher's z."""

    r: float
    z: float
    se: float
    low: float
    high: float
    p: float
    n: int
    n_units: int


def stratified_correlation(
    strata: Sequence[Stratum], *, ranked: bool = True, draws: int = 9_999, seed: int = 0
) -> StratifiedCorrelation:
    """Spearman's correlation (Pearson's without ``ranked``) within strata, pooled on Fisher's z.

    The error of z is the jackknife's over units, each left out of all strata at once; the interval is t with units - 1
    degrees of freedom. ``p``: whole units change places within their strata, in all strata by one order, so that what
    an operator does alike in several cells is kept together; ``(1 + #{|z*| >= |z|}) / (1 + draws)``.
    """
    weights = np.array([len(part.units) - 3.0 for part in strata])
    scores = [(_scores(part.x, ranked), _scores(part.y, ranked)) for part in strata]
    found = np.array([_fisher(float(x @ y)) for x, y in scores])
    z = float(weights @ found / weights.sum())
    units = np.unique(np.concatenate([part.units for part in strata]))
    without = _jackknife(strata, found, weights, units, ranked)
    se = float(np.sqrt((len(units) - 1) / len(units) * ((without - without.mean()) ** 2).sum()))
    half = float(stats.t.ppf((1 + NOMINAL) / 2, len(units) - 1)) * se
    permuted = _permuted(strata, scores, weights, units, draws, seed)
    p = float((1 + (np.abs(permuted) >= abs(z) - _ROUNDING).sum()) / (1 + draws))
    low, high = np.tanh(z - half), np.tanh(z + half)
    n = sum(len(part.units) for part in strata)
    return StratifiedCorrelation(float(np.tanh(z)), z, se, float(low), float(high), p, n, len(units))


def _scores(values: Array, ranked: bool) -> Array:
    """Ranks, or values, centred and of length 1."""
    found = stats.rankdata(values) if ranked else np.asarray(values, dtype=float)
    found = found - found.mean()
    length = np.linalg.norm(found)
    unit: Array = found / length if length > 0 else found
    return unit


def _fisher(r: Array | float) -> Array:
    found: Array = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    return found


def _jackknife(strata: Sequence[Stratum], found: Array, weights: Array, units: np.ndarray, ranked: bool) -> Array:
    """Pooled z without each of the units."""
    sums = np.full(len(units), float(weights @ found))
    totals = np.full(len(units), float(weights.sum()))
    without = rank_covariance_without_each if ranked else covariance_without_each
    for part, z, weight in zip(strata, found, weights, strict=True):
        left = without(np.column_stack([part.x, part.y]).astype(float), np.arange(len(part.units)))
        lengths = np.sqrt(left[:, 0, 0] * left[:, 1, 1])
        r = np.divide(left[:, 0, 1], lengths, out=np.zeros(len(left)), where=lengths > 0)
        rows = np.searchsorted(units, part.units)
        sums[rows] += (weight - 1) * _fisher(r) - weight * z
        totals[rows] -= 1
    return sums / totals


def _permuted(
    strata: Sequence[Stratum],
    scores: Sequence[tuple[Array, Array]],
    weights: Array,
    units: np.ndarray,
    draws: int,
    seed: int,
) -> Array:
    total = np.zeros(draws)
    for some, keys in key_blocks(len(units), draws, seed):
        for part, (x, y), weight in zip(strata, scores, weights, strict=True):
            total[some] += weight * _fisher(x[orders(keys, np.searchsorted(units, part.units))] @ y)
    found: Array = total / weights.sum()
    return found


def key_blocks(n_units: int, draws: int, seed: int) -> Iterator[tuple[slice, Array]]:
    """``(some draws, units)`` uniform keys at a time: whoever sorts by them sorts units alike wherever they are."""
    rng = np.random.default_rng(seed)
    for some in blocks(draws, n_units):
        yield some, rng.random((min(some.stop, draws) - some.start, n_units))


def orders(keys: Array, units: np.ndarray) -> np.ndarray:
    """``(draws, n)``: in each row an order of the ``n`` units that :func:`key_blocks` gives them."""
    return np.argsort(keys[:, units], axis=1)
