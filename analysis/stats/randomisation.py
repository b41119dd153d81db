"""Tests by randomisation of a treatment within blocks: exact under the sharp null that the assignment does nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy import stats

from invariscope.analysis.stats.resampling import NOMINAL, Array, cluster_codes
from invariscope.base.errors import TableError

DRAWS = 9_999
MOST_EXACT = 50_000
"""Up to so many assignments all of them are taken, and none is drawn."""

_TABLED = 5
"""Blocks of up to so many units have all of their orders tabled (120); of larger ones orders are drawn."""
_ROUNDING = 1e-12


@dataclass(frozen=True)
class WithinBlocks:
    """The slope of an outcome on a treatment within blocks.

    ``slope = sum (x - mean_b x)(y - mean_b y) / sum (x - mean_b x)²``; ``se`` clusters by block (CR2, bias-reduced:
    Bell & McCaffrey 2002) with Satterthwaite's ``df``; ``p`` is that of the randomisation.
    """

    slope: float
    se: float
    low: float
    high: float
    df: float
    p: float
    n_blocks: int
    n_units: int


def within_blocks(
    x: Sequence[float] | Array,
    y: Sequence[float] | Array,
    blocks: Sequence[object],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = NOMINAL,
) -> WithinBlocks:
    """The slope within blocks, its interval, and the randomisation test of no effect at all (:func:`randomised_p`).

    Raises:
        TableError: for fewer than two blocks in which the treatment varies.
    """
    codes, count = cluster_codes(np.asarray(blocks, dtype=object))
    treatment, outcome = centred(x, codes), centred(y, codes)
    spread = np.bincount(codes, treatment**2, count)
    if (spread > 0).sum() < 2:
        raise TableError("a slope within blocks needs two blocks at least in which the treatment varies")
    total = float(spread.sum())
    slope = float(treatment @ outcome) / total
    se, df = clustered(treatment, outcome - slope * treatment, codes)
    half = stats.t.ppf((1 + level) / 2, df) * se
    p = randomised_p(treatment / total, outcome, codes, draws=draws, seed=seed)
    return WithinBlocks(slope, se, slope - half, slope + half, df, p, count, len(codes))


def randomised_p(weights: Array, outcome: Array, codes: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> float:
    """The two-sided p-value of ``sum weights · outcome`` when outcomes change places within their block.

    Under the sharp null every unit has the outcome that it has, whatever it was assigned, and all orders within a
    block are alike. ``weights`` and ``outcome`` are centred within blocks; ``codes (n,)`` are the blocks. Up to
    :data:`MOST_EXACT` assignments ``p`` is the share of all of them that reach the sum found; else
    ``(1 + #{|sum*| >= |sum|}) / (1 + draws)`` (Phipson & Smyth 2010).
    """
    found = abs(float(weights @ outcome))
    reached = found - _ROUNDING * max(found, 1.0)
    members = [np.flatnonzero(codes == block) for block in np.unique(codes)]
    members = [rows for rows in members if len(rows) > 1 and np.abs(weights[rows]).max() > 0]
    arrangements = math.prod(math.factorial(len(rows)) for rows in members)
    if arrangements <= MOST_EXACT:
        sums = np.zeros(1)
        for rows in members:
            sums = (sums[:, None] + _all_orders(weights[rows], outcome[rows])).ravel()
        return float((np.abs(sums) >= reached).mean())
    rng = np.random.default_rng(seed)
    sums = np.zeros(draws)
    for rows in members:
        if len(rows) <= _TABLED:
            table = _all_orders(weights[rows], outcome[rows])
            sums += table[rng.integers(len(table), size=draws)]
        else:
            sums += outcome[rng.permuted(np.tile(rows, (draws, 1)), axis=1)] @ weights[rows]
    return float((1 + (np.abs(sums) >= reached).sum()) / (1 + draws))


def centred(values: Sequence[float] | Array, codes: np.ndarray) -> Array:
    """Values less the mean of their block."""
    numbers = np.asarray(values, dtype=float)
    found: Array = numbers - (np.bincount(codes, numbers) / np.bincount(codes))[codes]
    return found


def _all_orders(weights: Array, outcome: Array) -> Array:
    orders = np.array(list(permutations(range(len(outcome)))))
    sums: Array = outcome[orders] @ weights
    return sums


def clustered(x: Array, residual: Array, codes: np.ndarray) -> tuple[float, float]:
    """CR2 error of a slope on a column that is centred within the clusters, and its degrees of freedom.

    With block means taken out, the hat matrix of block ``b`` is ``x_b x_b' / sum x²`` on top of the block's mean, and
    ``(I - H_bb)^(-1/2) x_b = x_b / sqrt(1 - h_b)`` with ``h_b = sum_b x² / sum x²``.
    """
    share = np.bincount(codes, x**2) / float(x @ x)
    scores = np.bincount(codes, x * residual) / np.sqrt(1 - share)
    se = float(np.sqrt((scores**2).sum())) / float(x @ x)
    # B = P'P of Satterthwaite's formula, in units in which the columns x_b / sqrt(1 - h_b) have length sqrt(share).
    lengths = share / (1 - share)
    trace = float((lengths * (1 - share)).sum())
    root = np.sqrt(lengths)
    inner = np.diag(lengths) - np.outer(root * np.sqrt(share), root * np.sqrt(share))
    return se, trace**2 / float((inner**2).sum())
