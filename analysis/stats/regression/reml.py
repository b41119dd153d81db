"""Restricted maximum likelihood of a linear model with random effects of one grouping: the best of several starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import optimize

from invariscope.analysis.stats.resampling import Array

MOST_ITERATIONS = 300
"""Of each search for the largest likelihood; a problem of one or three unknowns takes some dozens."""

SPREADS = (0.1, 0.5, 2.0)
"""Standard deviations of the effects, in those of the residual, from which searches start."""

MOST_GROUPS = 1_000
"""With more groups, which tell where the maximum lies, the search starts twice: from the least and the most of
:data:`SPREADS`."""

AGREED = 1e-4
"""Log-likelihoods this close to the largest are of the same maximum."""

_FAR = 1e3
"""Effects of more than so many residual standard deviations are not looked for."""
_NONE = 1e100
"""Stands for the loss where there is no likelihood."""


@dataclass(frozen=True)
class Reml:
    """The largest restricted likelihood: coefficients ``(p,)`` and their errors, the effects' covariance ``(q, q)``,
    the residual standard deviation, the log-likelihood up to a constant of the design; ``found`` of the ``starts``
    reached it.
    """

    params: Array
    errors: Array
    covariance: Array
    residual: float
    likelihood: float
    found: int
    starts: int


@dataclass(frozen=True)
class _Sums:
    """Sums of products per group: ``zz (G, q, q)``, ``zx (G, q, p + 1)`` with the outcome last; ``xx`` of all rows."""

    zz: Array
    zx: Array
    xx: Array
    n: int

    @classmethod
    def of(cls, x: Array, y: Array, z: Array, codes: np.ndarray) -> _Sums:
        both, groups = np.column_stack([x, y]), int(codes.max()) + 1
        zz, zx = np.zeros((groups, z.shape[1], z.shape[1])), np.zeros((groups, z.shape[1], both.shape[1]))
        np.add.at(zz, codes, z[:, :, None] * z[:, None, :])
        np.add.at(zx, codes, z[:, :, None] * both[:, None, :])
        return cls(zz, zx, both.T @ both, len(y))

    def at(self, root: Array) -> tuple[float, Array, Array, float]:
        """Log-likelihood, coefficients, their covariance and the residual variance where the effects have the
        covariance ``root root'`` times the residual variance.

        ``V = I + Z root root' Z'`` of a group, so that ``V^-1 = I - Z root (I + root' Z'Z root)^-1 root' Z'``.
        """
        inner = np.eye(len(root)) + root.T @ self.zz @ root
        half = np.linalg.solve(np.linalg.cholesky(inner), root.T @ self.zx)
        weighted = self.xx - np.einsum("gqi,gqj->ij", half, half)
        factor = np.linalg.cholesky(weighted[:-1, :-1])
        reduced = np.linalg.solve(factor, weighted[:-1, -1])
        df = self.n - len(factor)
        variance = float(weighted[-1, -1] - reduced @ reduced) / df
        if not variance > 0:
            raise np.linalg.LinAlgError("nothing is left of the residual")
        spread = 2 * np.log(np.diagonal(factor)).sum() + np.linalg.slogdet(inner)[1].sum()
        inverse = np.linalg.inv(factor)
        params = inverse.T @ reduced
        return -0.5 * (df * np.log(variance) + float(spread)), params, inverse.T @ inverse * variance, variance


def reml(x: Array, y: Array, z: Array, codes: np.ndarray) -> Reml | None:
    """Fit ``y (n,)`` on ``x (n, p)`` with effects of ``z (n, q)``, ``q`` 1 or 2, that differ between groups ``codes``.

    A search from every combination of :data:`SPREADS` (from two beyond :data:`MOST_GROUPS` groups), each of
    at most :data:`MOST_ITERATIONS` steps; the best counts, so that rounding in the data does not choose between maxima.
    Columns of ``x`` may have any scale. None where no
    search ends at a maximum.
    """
    scale = np.linalg.norm(x, axis=0)
    basis, triangle = np.linalg.qr(x / scale)
    sums = _Sums.of(basis, y, z, codes)
    starts = list(_starts(z.shape[1]))
    if len(sums.zz) > MOST_GROUPS:
        starts = [starts[0], starts[-1]]
    ends = [end for start in starts if (end := _climb(sums, start)) is not None]
    if not ends:
        return None
    best = max(ends, key=lambda end: end[0])
    likelihood, params, covariance, variance = sums.at(best[1])
    back = np.linalg.inv(triangle) / scale[:, None]
    errors = np.sqrt(np.diagonal(back @ covariance @ back.T))
    agreed = sum(end[0] > likelihood - AGREED for end in ends)
    effects = best[1] @ best[1].T * variance
    return Reml(back @ params, errors, effects, float(np.sqrt(variance)), likelihood, agreed, len(ends))


def _starts(effects: int) -> Iterator[Array]:
    if effects == 1:
        yield from (np.array([spread]) for spread in SPREADS)
        return
    for first, second in product(SPREADS, repeat=2):
        yield np.array([first, 0.0, second])


def _climb(sums: _Sums, start: Array) -> tuple[float, Array] | None:
    """The maximum that a search reaches, as likelihood and root of the effects' covariance."""

    def loss(values: Array) -> float:
        try:
            return -sums.at(_root(values))[0]
        except np.linalg.LinAlgError:
            return _NONE

    bounds = [(-_FAR, _FAR)] * len(start)
    options = {"maxiter": MOST_ITERATIONS, "ftol": 1e-13, "gtol": 1e-8}
    found = optimize.minimize(loss, start, method="L-BFGS-B", bounds=bounds, options=options)
    if found.fun >= _NONE or (np.abs(found.x) >= _FAR).any():
        return None
    return -float(found.fun), _root(found.x)


def _root(values: Array) -> Array:
    """The lower triangle of one or three numbers."""
    if len(values) == 1:
        return values.reshape(1, 1)
    return np.array([[values[0], 0.0], [values[1], values[2]]])
