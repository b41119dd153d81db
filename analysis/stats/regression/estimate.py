"""A model's coefficients, by statsmodels, with what the errors of them are made from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import special

from invariscope.analysis.stats.regression.design import Design
from invariscope.analysis.stats.regression.model import LogitOLS, Model
from invariscope.analysis.stats.resampling import Array


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


def estimate(design: Design, model: Model) -> Coefficients | str:
    """The fitted coefficients, or in words why there are none."""
    if isinstance(model, LogitOLS):
        return least_squares(design.matrix, logits(design.y, design.trials))
    return fractional_logit(design.matrix, design.y)


def least_squares(matrix: Array, y: Array) -> Coefficients | str:
    """``y`` in logits on the columns of ``matrix``; in words where they fit it without error."""
    import statsmodels.api as sm

    basis, back = _orthogonal(matrix)
    result = sm.OLS(y, basis).fit()
    if result.ssr <= 1e-20 * max(float(y @ y), 1e-300):
        return "the columns fit the scores without error: no standard error"
    mean = special.expit(result.fittedvalues)
    return Coefficients(back @ result.params, mean, np.ones(len(y)), matrix, result.resid)


def fractional_logit(matrix: Array, y: Array) -> Coefficients | str:
    """The quasi-likelihood estimate; in words where it does not exist or is not found."""
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import ModelWarning

    basis, back = _orthogonal(matrix)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelWarning)
        warnings.simplefilter("error", RuntimeWarning)
        try:
            result = sm.GLM(y, basis, family=sm.families.Binomial()).fit(tol=1e-12)
        except (ModelWarning, RuntimeWarning, np.linalg.LinAlgError) as problem:
            return f"the fit failed: {str(problem).splitlines()[0]}"
    mean = result.mu
    weight = mean * (1 - mean)
    if not result.converged or not np.isfinite(result.params).all() or not weight.min() > 0:
        return "no finite slope: the columns separate the scores"
    root = np.sqrt(weight)
    return Coefficients(back @ result.params, mean, weight, matrix * root[:, None], (y - mean) / root)


def _orthogonal(matrix: Array) -> tuple[Array, Array]:
    """Orthogonal columns of mean square 1 that span those of ``matrix``, and what takes their coefficients back: what a
    fit finds, and whether it finds anything, does not depend on the units of a column.
    """
    scale = np.linalg.norm(matrix, axis=0)
    basis, triangle = np.linalg.qr(matrix / scale)
    root = np.sqrt(len(matrix))
    return basis * root, np.linalg.inv(triangle) * root / scale[:, None]
