"""Tests by randomisation of a treatment within blocks: exact under the sharp null that the assignment does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from invariscope.analysis.stats.resampling import NOMINAL, Array, cluster_codes
from invariscope.base.errors import TableError

DRAWS = 9_999
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
    """The slope within blocks, its interval, and the randomisation test of no effect at all.

    Under the sharp null every unit has the outcome that it has, whatever it was assigned; outcomes then change places
    within their block, all orders alike. ``p = (1 + #{|slope*| >= |slope|}) / (1 + draws)``.

    Raises:
        TableError: for fewer than two blocks in which the treatment varies.
    """
    codes, count = cluster_codes(np.asarray(blocks, dtype=object))
    treatment = _centred(np.asarray(x, dtype=float), codes, count)
    outcome = _centred(np.asarray(y, dtype=float), codes, count)
    spread = np.bincount(codes, treatment**2, count)
    if (spread > 0).sum() < 2:
        raise TableError("a slope within blocks needs two blocks at least in which the treatment varies")
    total = float(spread.sum())
    slope = float(treatment @ outcome) / total
    se, df = _clustered(treatment, outcome - slope * treatment, codes, count)
    half = stats.t.ppf((1 + level) / 2, df) * se
    permuted = np.abs(permuted_slopes(treatment, outcome, codes, draws, seed))
    p = float((1 + (permuted >= abs(slope) - _ROUNDING).sum()) / (1 + draws))
    return WithinBlocks(slope, se, slope - half, slope + half, df, p, count, len(codes))


def permuted_slopes(treatment: Array, outcome: Array, codes: np.ndarray, draws: int, seed: int = 0) -> Array:
    """``(draws,)`` slopes of outcomes that have changed places within their block; both centred within blocks."""
    rng = np.random.default_rng(seed)
    total = float(treatment @ treatment)
    sums = np.zeros(draws)
    for block in np.unique(codes):
        rows = np.flatnonzero(codes == block)
        order = rng.permuted(np.tile(rows, (draws, 1)), axis=1)
        sums += outcome[order] @ treatment[rows]
    return sums / total


def _centred(values: Array, codes: np.ndarray, count: int) -> Array:
    means = np.bincount(codes, values, count) / np.bincount(codes, minlength=count)
    centred: Array = values - means[codes]
    return centred


def _clustered(x: Array, residual: Array, codes: np.ndarray, count: int) -> tuple[float, float]:
    """CR2 error of a slope on a column that is centred within the clusters, and its degrees of freedom.

    With block means taken out, the hat matrix of block ``b`` is ``x_b x_b' / sum x²`` on top of the block's mean, and
    ``(I - H_bb)^(-1/2) x_b = x_b / sqrt(1 - h_b)`` with ``h_b = sum_b x² / sum x²``.
    """
    share = np.bincount(codes, x**2, count) / float(x @ x)
    scores = np.bincount(codes, x * residual, count) / np.sqrt(1 - share)
    se = float(np.sqrt((scores**2).sum())) / float(x @ x)
    # B = P'P of Satterthwaite's formula, in units in which the columns x_b / sqrt(1 - h_b) have length sqrt(share).
    lengths = share / (1 - share)
    trace = float((lengths * (1 - share)).sum())
    root = np.sqrt(lengths)
    inner = np.diag(lengths) - np.outer(root * np.sqrt(share), root * np.sqrt(share))
    return se, trace**2 / float((inner**2).sum())
