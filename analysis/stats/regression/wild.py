"""The wild cluster bootstrap-t of one least-squares slope (Cameron, Gelbach & Miller 2008), all draws at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import sparse

from invariscope.analysis.stats.correlation import NOMINAL
from invariscope.analysis.stats.regression.noise import ClusterNoise
from invariscope.analysis.stats.regression.sandwich import intracluster, membership
from invariscope.analysis.stats.resampling import Array

DRAWS = 1999
WEBB_BELOW = 10
"""Fewer clusters than this get Webb's six-point weights, which give enough different draws; others Rademacher's."""

_ENUMERATED = 4096
_RADEMACHER = (-1.0, 1.0)
_WEBB = tuple(sign * root for root in np.sqrt([0.5, 1.0, 1.5]) for sign in _RADEMACHER)
_STEPS_OUT, _HALVINGS = 20, 60
"""Steps, each half as long again as the last, in which a rejected slope is looked for, and halvings that find its edge:
1.5 ** 20 standard errors fall below 1e-9 of one in 42.
"""
_SIMULATIONS, _SIMULATED_DRAWS = 1000, 399


@dataclass(frozen=True)
class WildT:
    """Standard error (CR1), interval by inverting the test, p-value of a zero slope, simulated coverage, reason."""

    se: float
    low: float
    high: float
    p: float
    coverage: float
    reason: str = ""


def cluster_weights(n_clusters: int, draws: int = DRAWS, seed: int = 0) -> Array:
    """``(B, G)`` weights of mean 0 and variance 1; the first row is 1 throughout: the data themselves.

    Webb's ``±√½, ±1, ±√1.5`` below :data:`WEBB_BELOW` clusters, else Rademacher's ``±1``; all combinations once where
    they are no more than 4,096, else ``draws`` of them.
    """
    points = _WEBB if n_clusters < WEBB_BELOW else _RADEMACHER
    # The power itself would overflow, to 0, where the number of clusters is numpy's.
    if n_clusters <= np.log(_ENUMERATED + 1) / np.log(len(points)):
        drawn = np.array(list(product(points, repeat=n_clusters)))
        return np.vstack([np.ones(n_clusters), drawn[(drawn != 1).any(axis=1)]])
    drawn = np.random.default_rng(seed).choice(points, size=(draws, n_clusters))
    return np.vstack([np.ones(n_clusters), drawn])


def wild_bootstrap_t(
    design: Array,
    y: Array,
    codes: np.ndarray,
    index: int,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = NOMINAL,
    simulate: bool = True,
) -> WildT:
    """Test and interval of the slope of column ``index`` of ``design (n, k)``.

    Under a hypothesis β₀ the restricted residuals ``u`` (of ``y - β₀ x`` on the other columns) are multiplied by one
    weight per cluster, and ``t* = (β* - β₀) / se*`` with CR1 errors recomputed in every draw. ``p(β₀)`` is the share
    of draws, the data among them, with ``|t*| ≥ |t|``; the interval holds the β₀ around the estimate with
    ``p > 1 - level``. Where no β₀ is rejected the ends are NaN, and ``reason`` says so.
    """
    problem = _Problem.make(design, y, codes, index)
    weights = cluster_weights(problem.member.shape[0], draws, seed)
    test = problem.test(weights)
    ends = [test.end(side, 1 - level) for side in (-1, 1)]
    coverage = _coverage(problem, weights, intracluster(problem.residual, codes), level) if simulate else np.nan
    if not np.isfinite(ends).all():
        return WildT(problem.se, np.nan, np.nan, test.p(0.0), coverage, "no interval: no slope is rejected")
    return WildT(problem.se, float(ends[0]), float(ends[1]), test.p(0.0), coverage)


@dataclass(frozen=True)
class _Problem:
    """One slope with the other columns projected out: ``β = gain · y``; ``leverage (G, k - 1)`` and ``shares (G,)``
    say how the fit takes residuals of one cluster into the scores of another.
    """

    basis: Array
    gain: Array
    x: Array
    y: Array
    codes: np.ndarray
    member: sparse.csr_array
    leverage: Array
    shares: Array
    scale: float

    @classmethod
    def make(cls, design: Array, y: Array, codes: np.ndarray, index: int) -> _Problem:
        n, k = design.shape
        member = membership(codes)
        groups = member.shape[0]
        basis = np.linalg.qr(np.delete(design, index, axis=1))[0]
        x, rest = (column - basis @ (basis.T @ column) for column in (design[:, index], y))
        gain = x / (x @ x)
        scale = groups / (groups - 1) * (n - 1) / (n - k)
        return cls(basis, gain, x, rest, codes, member, member @ (basis * gain[:, None]), member @ (gain * x), scale)

    @property
    def slope(self) -> float:
        return float(self.gain @ self.y)

    @property
    def residual(self) -> Array:
        return self.y - self.slope * self.x

    @property
    def se(self) -> float:
        sums = self.member @ (self.gain * self.residual)
        return float(np.sqrt(self.scale * (sums**2).sum()))

    def redrawn(self, weights: Array, u: Array) -> tuple[Array, Array]:
        """``β* - β₀ (B,)`` and the cluster sums of its score ``(B, G)`` for residuals ``u`` under every draw."""
        own = self.member @ (self.gain * u)
        moved = weights @ own
        fitted = (weights @ (self.member @ (self.basis * u[:, None]))) @ self.leverage.T
        return moved, weights * own - fitted - moved[:, None] * self.shares

    def test(self, weights: Array) -> _Test:
        (top, sums), (top_x, sums_x) = (self.redrawn(weights, u) for u in (self.y, self.x))
        squares = [(a * b).sum(axis=1) * self.scale for a, b in ((sums, sums), (sums, sums_x), (sums_x, sums_x))]
        return _Test(self.slope, self.se, top, top_x, *squares)


@dataclass(frozen=True)
class _Test:
    """The bootstrap test as a function of the hypothesis: every draw's numerator is linear in it, its variance
    quadratic.
    """

    slope: float
    se: float
    top: Array
    top_x: Array
    square: Array
    cross: Array
    square_x: Array

    def p(self, hypothesis: float) -> float:
        """Share of draws at least as far from the hypothesis as the data, in standard errors."""
        moved = self.top - hypothesis * self.top_x
        variance = self.square - 2 * hypothesis * self.cross + hypothesis**2 * self.square_x
        distance = (self.slope - hypothesis) ** 2
        # The first draw is the data; rounding must not set it apart.
        return float(np.mean(moved**2 * self.se**2 >= distance * variance * (1 - 1e-9)))

    def end(self, side: int, alpha: float) -> float:
        """The nearest rejected hypothesis on one side of the estimate; NaN where none is.

        To 1e-9 standard errors, or to the last bit where that is coarser.
        """
        step, inside, outside = self.se, self.slope, np.nan
        for _ in range(_STEPS_OUT):
            if self.p(self.slope + side * step) <= alpha:
                outside = self.slope + side * step
                break
            inside, step = self.slope + side * step, 1.5 * step
        for _ in range(_HALVINGS if np.isfinite(outside) else 0):
            middle = (inside + outside) / 2
            if abs(outside - inside) <= 1e-9 * self.se or middle in (inside, outside):
                break
            inside, outside = (inside, middle) if self.p(middle) <= alpha else (middle, outside)
        return outside


def _coverage(problem: _Problem, weights: Array, rho: float, level: float) -> float:
    """Share of simulated data sets of this design in which the truth is not rejected, with 399 of the draws."""
    rng = np.random.default_rng(0)
    chosen = np.concatenate([[0], 1 + rng.permutation(len(weights) - 1)[:_SIMULATED_DRAWS]])
    drawn, others = weights[chosen], problem.basis.shape[1]
    noise = ClusterNoise.of(np.column_stack([problem.basis, problem.gain]), problem.codes, rho, _SIMULATIONS)
    sums = [noise.sums(column) for column in range(others + 1)]
    projected = np.stack([sums[column].sum(axis=0) for column in range(others)])
    # Cluster sums (G, S) of the errors, less their fit on the other columns, times each column and times the gain.
    *inside, own = (part - noise.products(column, others) @ projected for column, part in enumerate(sums))
    # As in `redrawn`: the cluster sums of the score are w·own - leverage·(w·inside) - shares·(w·own), of which the
    # squares are wanted alone: no array of draws × clusters × data sets.
    effects = np.column_stack([problem.leverage, problem.shares])
    moved = [drawn @ part for part in (*inside, own)]
    variance = drawn**2 @ own**2
    for index, part in enumerate(moved):
        variance -= 2 * part * (drawn @ (own * effects[:, [index]]))
        for second, other in enumerate(moved):
            variance += float(effects[:, index] @ effects[:, second]) * part * other
    # Row 0 of the draws is the data set itself: its own slope and error.
    reached = moved[-1] ** 2 * variance[0] >= moved[-1][0] ** 2 * variance * (1 - 1e-9)
    return float((reached.mean(axis=0) > 1 - level).mean())
