"""One reading alone against the logit of a score: a curve through it and its square, and how much it explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.stats.importance import r_squared
from invariscope.analysis.stats.resampling import NOMINAL, Array
from invariscope.analysis.stats.robust import hc3

FEWEST = 8
"""Networks below which no curve is drawn."""


@dataclass(frozen=True)
class AloneFit:
    """``y = a + b x + c x²`` at ``x``, half the width of its pointwise 95 % interval (HC3), R² and the networks."""

    x: Array
    y: Array
    half: Array
    r_squared: float
    n: int


def alone_fit(x: pd.Series, y: pd.Series, points: int = 81) -> AloneFit | None:
    """Least squares of ``y`` on ``x`` and its square; None of fewer than :data:`FEWEST` rows, or of an ``x`` with fewer
    than four values.
    """
    across, up = x.to_numpy(dtype=float), y.to_numpy(dtype=float)
    known = np.isfinite(across) & np.isfinite(up)
    across, up = across[known], up[known]
    if len(up) < FEWEST or len(np.unique(across.round(9))) < 4:
        return None
    centre, scale = float(across.mean()), float(across.std())
    design = _columns((across - centre) / scale)
    fit = hc3(design, up)
    at = np.linspace(across.min(), across.max(), points)
    drawn = _columns((at - centre) / scale)
    error = np.sqrt(np.einsum("ij,jk,ik->i", drawn, fit.influences.T @ fit.influences, drawn).clip(min=0))
    t = float(stats.t.ppf((1 + NOMINAL) / 2, len(up) - design.shape[1]))
    return AloneFit(at, drawn @ fit.params, t * error, r_squared(design[:, 1:], up), len(up))


def _columns(x: Array) -> Array:
    return np.column_stack([np.ones(len(x)), x, x**2])
