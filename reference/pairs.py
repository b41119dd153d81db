"""Operators compared in pairs of networks that are alike in all but the operator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

SCORES = ("msb_corrected", "consistency", "fidelity", "accuracy")
ALIKE = ["data", "architecture", "padding_mode", "seed"]
"""What the networks of a pair share."""

BASE = "max"


def differences(rows: pd.DataFrame, operator: str, scores: Sequence[str] = SCORES) -> pd.DataFrame:
    """Every score of ``operator`` minus that of max pooling, a row per pair alike in all but the operator."""
    first, second = (rows[rows["operator_spec"] == name].set_index(ALIKE)[list(scores)] for name in (operator, BASE))
    return (first - second).dropna(how="all")


def interval(values: pd.Series) -> tuple[float, float]:
    """The 95 % t interval of a mean; NaN for fewer than three values."""
    if len(values) < 3:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def mean_told(values: pd.Series) -> str:
    """``+0.012 (-0.003 to +0.027)``, the mean with its interval; the mean alone where there are too few values."""
    values = values.dropna()
    if values.empty:
        return "-"
    low, high = interval(values)
    return f"{values.mean():+.3f}" + (f" ({low:+.3f} to {high:+.3f})" if np.isfinite(low) else "")
