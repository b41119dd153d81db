"""Operators compared in pairs of networks that are alike in all but the operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.say.numbers import ranged
from invariscope.base.words import counted
from reference.words import MISSING

CELL = ["data", "architecture", "padding_mode"]
ALIKE = [*CELL, "seed"]
"""What the networks of a pair share."""

BASE = "max"
SCORES = ("msb_corrected", "consistency", "fidelity", "accuracy")
_ROUNDING = 1e-12


@dataclass(frozen=True)
class MeanDifference:
    """A mean difference with its 95 % interval (NaN: none), the cells it is the mean of, and the pairs in them."""

    estimate: float
    low: float
    high: float
    cells: int
    pairs: int

    @property
    def told(self) -> str:
        """``+0.012 (-0.003 to +0.027)``; the mean alone without an interval, a dash without a mean."""
        return ranged(self.estimate, self.low, self.high, 3, sign="+") if np.isfinite(self.estimate) else MISSING

    @property
    def rests_on(self) -> str:
        """``12 pairs in 4 cells``."""
        return f"{counted(self.pairs, 'pair')} in {counted(self.cells, 'cell')}"


def differences(rows: pd.DataFrame, operator: str, scores: Sequence[str], base: str = BASE) -> pd.DataFrame:
    """Every score of ``operator`` minus that of ``base``, a row per pair alike in all but the operator."""
    first, second = (rows[rows["operator_spec"] == name].set_index(ALIKE)[list(scores)] for name in (operator, base))
    return (first - second).dropna(how="all")


def mean_difference(values: pd.Series) -> MeanDifference:
    """The mean over cells (data set, architecture, padding) of the mean over seeds, and what other seeds would give.

    ``values`` are indexed by :data:`ALIKE`. With ``d_c`` the mean of the ``n_c`` pairs of one of ``C`` cells and ``s²``
    their variance pooled within cells, the standard error is ``s sqrt(Σ 1 / n_c) / C``, with Student's t of
    ``Σ (n_c - 1)`` degrees of freedom: the cells are these, the seeds are a sample. No interval with fewer than two
    degrees of freedom, or where all pairs of each cell are equal.
    """
    values = values.dropna()
    if values.empty:
        return MeanDifference(np.nan, np.nan, np.nan, 0, 0)
    cells = values.groupby(level=CELL)
    means, sizes = cells.mean(), cells.count()
    freedom = int((sizes - 1).sum())
    squares = float(((values - cells.transform("mean")) ** 2).sum())
    estimate, half = float(means.mean()), np.nan
    if freedom >= 2 and squares > _ROUNDING:
        error = np.sqrt(squares / freedom * (1 / sizes).sum()) / len(sizes)
        half = float(stats.t.ppf(0.975, freedom) * error)
    return MeanDifference(estimate, estimate - half, estimate + half, len(sizes), len(values))
