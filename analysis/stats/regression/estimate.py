"""A model's coefficients, with what the errors of them are made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from invariscope.analysis.stats.regression.design import Design
from invariscope.analysis.stats.regression.model import LogitOLS, Model
from invariscope.analysis.stats.resampling import Array

_MOST_STEPS = 100
_SAME_DEVIANCE = 1e-12
"""A fit has converged where its deviance moves by no more, absolute or as a share."""
_PREDICTED = 1e-8
"""Fitted scores that are all this close to the scores predict them perfectly."""


@dataclass(frozen=True)
class Coefficients:
    """Coefficients ``params (k,)``, fitted scores ``mean (n,)``, and the working regression at the estimate.

    ``weight (n,)``: ``μ(1-μ)`` of the fractional logit, 1 of least squares; ``design (n, k)`` and ``residual (n,)``
    are multiplied by its root (for the fractional logit: Pearson residuals).
    """

    params: Array
    mean: Array
    weight: Array
    design: Array
    residual: Array

    @property
    def slope_to_score(self) -> float:
        """Average change of the score per logit: the mean of ``μ(1-μ)``."""
        return float((self.mean * (1 - self.mean)).mean())


def logits(y: Array, trials: Array) -> Array:
    """``log((n y + 1/2) / (n - n y + 1/2))`` of scores ``y`` out of ``trials`` images."""
    result: Array = np.log((trials * y + 0.5) / (trials * (1 - y) + 0.5))
    return result


def estimate(design: Design, model: Model, *, start: Array | None = None) -> Coefficients | str:
    """The fitted coefficients, or in words why there are none; ``start``: coefficients that they are near."""
    if isinstance(model, LogitOLS):
        return least_squares(design.matrix, logits(design.y, design.trials))
    return fractional_logit(design.matrix, design.y, start=start)


def least_squares(matrix: Array, y: Array) -> Coefficients | str:
    """``y`` in logits on the columns of ``matrix``; in words where they fit it without error."""
    basis, back = _orthogonal(matrix)
    params = basis.T @ y / len(y)
    fitted = basis @ params
    residual = y - fitted
    if residual @ residual <= 1e-20 * max(float(y @ y), 1e-300):
        return "the columns fit the scores without error: no standard error"
    return Coefficients(back @ params, special.expit(fitted), np.ones(len(y)), matrix, residual)


def fractional_logit(matrix: Array, y: Array, *, start: Array | None = None) -> Coefficients | str:
    """The quasi-likelihood estimate; in words where it does not exist or is not found.

    Iteratively reweighted least squares (Fisher scoring) until the deviance stays the same: what ``GLM`` of statsmodels
    finds, in a tenth of its time.
    """
    basis, back = _orthogonal(matrix)
    mean = (y + 0.5) / 2 if start is None else special.expit(matrix @ start)
    linear, deviance = special.logit(mean), binomial_deviance(y, mean)
    params, converged = np.zeros(basis.shape[1]), False
    for _ in range(_MOST_STEPS):
        weight = np.maximum(mean * (1 - mean), np.finfo(float).eps)
        root = np.sqrt(weight)
        try:
            params = np.linalg.lstsq(basis * root[:, None], root * (linear + (y - mean) / weight), rcond=-1)[0]
        except np.linalg.LinAlgError as problem:
            return f"the fit failed: {problem}"
        linear = basis @ params
        mean = special.expit(linear)
        if np.abs(mean - y).max() <= _PREDICTED:
            return "the fit failed: Perfect separation or prediction detected, parameter may not be identified"
        before, deviance = deviance, binomial_deviance(y, mean)
        converged = abs(deviance - before) <= _SAME_DEVIANCE * max(1.0, deviance)
        if converged:
            break
    weight = mean * (1 - mean)
    if not converged or not np.isfinite(params).all() or not weight.min() > 0:
        return "no finite slope: the columns separate the scores"
    root = np.sqrt(weight)
    return Coefficients(back @ params, mean, weight, matrix * root[:, None], (y - mean) / root)


def binomial_deviance(y: Array, mean: Array) -> float:
    """``2 Σ (y log(y/μ) + (1-y) log((1-y)/(1-μ)))``."""
    return 2 * float((special.rel_entr(y, mean) + special.rel_entr(1 - y, 1 - mean)).sum())


def _orthogonal(matrix: Array) -> tuple[Array, Array]:
    """Orthogonal columns of mean square 1 that span those of ``matrix``, and what takes their coefficients back: what a
    fit finds, and whether it finds anything, does not depend on the units of a column.
    """
    scale = np.linalg.norm(matrix, axis=0)
    basis, triangle = np.linalg.qr(matrix / scale)
    root = np.sqrt(len(matrix))
    return basis * root, np.linalg.inv(triangle) * root / scale[:, None]
