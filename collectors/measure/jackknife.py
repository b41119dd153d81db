"""The jackknife over images, of pooled ratios and of whatever has a value without each image in turn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def jackknife_error(left_out: Array) -> float:
    """``se^2 = (n-1)/n sum_i (R_i - mean R)^2``, ``R_i`` the value without image ``i``; NaN where one is undefined."""
    n = len(left_out)
    if n < 2 or np.isnan(left_out).any():
        return float("nan")
    return float(np.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum()))


def ratio_jackknife(numerator: Array, denominator: Array) -> tuple[float, float]:
    """The pooled ratio ``sum(a) / sum(b)`` over images and its standard error, the jackknife over images.

    Both are NaN where the ratio is undefined; the error is also where it is undefined without one of the images.
    """
    value, left_out = ratio_without(numerator, denominator)
    return value, jackknife_error(left_out)


def ratio_without(numerator: Array, denominator: Array) -> tuple[float, Array]:
    """The pooled ratio and its values without each image in turn, NaN where one is undefined."""
    total, whole = float(numerator.sum()), float(denominator.sum())
    if whole == 0:
        return float("nan"), np.full(len(numerator), np.nan)
    rest = whole - denominator
    return total / whole, np.divide(total - numerator, rest, out=np.full(len(rest), np.nan), where=rest != 0)
