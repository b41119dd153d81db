"""Correlations in strata that are pooled on Fisher's z, with a jackknife and permutations over units that the strata
share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from invariscope.analysis.stats.resampling import NOMINAL, Array

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
    for part, z, weight in zip(strata, found, weights, strict=True):
        x, y = (_without_each(values, ranked) for values in (part.x, part.y))
        rows = np.searchsorted(units, part.units)
        sums[rows] += (weight - 1) * _fisher((x * y).sum(axis=1)) - weight * z
        totals[rows] -= 1
    return sums / totals


def _without_each(values: Array, ranked: bool) -> Array:
    """``(n, n)``: row ``i`` has the scores of all but ``i``, and 0 at ``i``."""
    n = len(values)
    if ranked:
        above = (values[None, :] > values[:, None]) + 0.5 * (values[None, :] == values[:, None])
        found = stats.rankdata(values)[None, :] - above
    else:
        found = np.tile(np.asarray(values, dtype=float), (n, 1))
    kept = 1 - np.eye(n)
    found = (found - (found * kept).sum(axis=1, keepdims=True) / (n - 1)) * kept
    length = np.linalg.norm(found, axis=1, keepdims=True)
    scores: Array = found / np.where(length > 0, length, 1.0)
    return scores


def _permuted(
    strata: Sequence[Stratum],
    scores: Sequence[tuple[Array, Array]],
    weights: Array,
    units: np.ndarray,
    draws: int,
    seed: int,
) -> Array:
    keys = unit_keys(len(units), draws, seed)
    total = np.zeros(draws)
    for part, (x, y), weight in zip(strata, scores, weights, strict=True):
        total += weight * _fisher(x[orders(keys, np.searchsorted(units, part.units))] @ y)
    found: Array = total / weights.sum()
    return found


def unit_keys(n_units: int, draws: int, seed: int) -> Array:
    """``(draws, units)`` uniform keys: whoever sorts by them sorts units alike wherever they are."""
    found: Array = np.random.default_rng(seed).random((draws, n_units))
    return found


def orders(keys: Array, units: np.ndarray) -> np.ndarray:
    """``(draws, n)``: in each row an order of the ``n`` units that :func:`unit_keys` gives them."""
    return np.argsort(keys[:, units], axis=1)
