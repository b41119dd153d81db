"""Least squares with errors that hold under unequal variances (HC3), and what each row contributes to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from invariscope.analysis.stats.regression.estimate import fractional_logit
from invariscope.analysis.stats.resampling import Array


@dataclass(frozen=True)
class Robust:
    """Coefficients ``(k,)``, HC3 errors ``(k,)``, and influences ``(n, k)`` with ``errors² = sum influences²``."""

    params: Array
    errors: Array
    influences: Array


def hc3(design: Array, y: Array) -> Robust:
    """Least squares of ``y (n,)`` on ``design (n, k)`` of full rank; MacKinnon & White's (1985) HC3.

    ``influence_i = (X'X)^-1 x_i e_i / (1 - h_i)``. The sum over rows of products of the influences in two regressions
    is the covariance of their coefficients where they share units. Rows of leverage 1 say nothing of the error, and
    have no influence.
    """
    basis, triangle = np.linalg.qr(design)
    leverage = (basis**2).sum(axis=1)
    residual = y - basis @ (basis.T @ y)
    free = leverage < 1 - 1e-9
    scaled = np.where(free, residual / np.where(free, 1 - leverage, 1.0), 0.0)
    influences = (basis * scaled[:, None]) @ np.linalg.inv(triangle).T
    params = np.linalg.solve(triangle, basis.T @ y)
    return Robust(params, np.sqrt((influences**2).sum(axis=0)), influences)


def fractional(design: Array, y: Array) -> Robust | str:
    """The fractional logit of ``y`` in 0 … 1 (Papke & Wooldridge 1996), with HC3 of its working regression; in words
    where it has no estimate.
    """
    found = fractional_logit(design, y)
    if isinstance(found, str):
        return found
    working = hc3(found.design, found.residual)
    return Robust(found.params, working.errors, working.influences)


def residuals(columns: Array, given: Array) -> Array:
    """``columns (n, ...)`` less their least-squares fit on ``given (n, q)``."""
    basis = np.linalg.qr(given)[0]
    rest: Array = columns - basis @ (basis.T @ columns)
    return rest
