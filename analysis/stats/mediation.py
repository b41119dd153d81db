"""An indirect effect, by way of a measured mediator: statistical, not causal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from invariscope.analysis.stats.resampling import Array


@dataclass(frozen=True)
class Indirect:
    """``estimate = a · b`` and its value in every resample, ``(resamples,)``."""

    estimate: float
    resampled: Array


def indirect_effect(x: Array, mediator: Array, y: Array, covariates: Array, counts: Array) -> Indirect:
    """The product of the coefficient ``a`` of ``x`` in the least squares of the mediator on ``x`` and covariates, and
    ``b`` of the mediator in those of ``y`` on mediator, ``x`` and covariates (Baron & Kenny 1986; Preacher & Hayes 2008
    with a bootstrap).

    Args:
        x, mediator, y: ``(n,)``.
        covariates: ``(n, q)``, with the constant.
        counts: ``(resamples, n)``: how often each row is drawn.
    """
    first = np.column_stack([x, covariates])
    second = np.column_stack([mediator, first])
    ones = np.ones((1, len(x)))
    estimate = _coefficient(first, mediator, ones) * _coefficient(second, y, ones)
    resampled = _coefficient(first, mediator, counts) * _coefficient(second, y, counts)
    return Indirect(float(estimate[0]), resampled)


def _coefficient(design: Array, y: Array, counts: Array) -> Array:
    """``(resamples,)``: the first column's coefficient under every set of row weights; NaN where it has none."""
    k = design.shape[1]
    scaled = design / np.linalg.norm(design, axis=0)
    products = (scaled[:, :, None] * scaled[:, None, :]).reshape(len(y), k * k)
    moments = (counts @ products).reshape(len(counts), k, k)
    sums = counts @ (scaled * y[:, None])
    sound = np.linalg.cond(moments) < 1e12
    found = np.full(len(counts), np.nan)
    found[sound] = np.linalg.solve(moments[sound], sums[sound][:, :, None])[:, 0, 0]
    scale: Array = found / np.linalg.norm(design[:, 0])
    return scale
