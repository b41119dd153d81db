"""Cluster-robust errors of a (working) least-squares regression, their degrees of freedom and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats

from invariscope.analysis.stats.correlation import NOMINAL
from invariscope.analysis.stats.regression.noise import ClusterNoise
from invariscope.analysis.stats.resampling import Array

SIMULATIONS = 1000
_SINGULAR, _NEGLIGIBLE = 1e-10, 1e-8


@dataclass(frozen=True)
class Sandwich:
    """How residuals become standard errors: ``se_j² = Σ_g (Σ_{i in g} scores_ij · residual_i)²``, t with ``df_j``.

    ``scores (n, k)`` depend on the design and clusters alone; ``member (G, n)`` sums rows by cluster.
    """

    scores: Array
    df: Array
    member: sparse.csr_array

    def errors(self, residual: Array) -> Array:
        """Standard errors ``(k,)``; NaN where a single cluster determines the coefficient."""
        squares = np.asarray(self.member @ (self.scores * residual[:, None])) ** 2
        return np.where(np.isfinite(self.df), np.sqrt(squares.sum(axis=0)), np.nan)


def plain(design: Array, codes: np.ndarray) -> Sandwich:
    """CR1: scores ``sqrt(G/(G-1) · (n-1)/(n-k)) · X (X'X)^-1``, ``G - 1`` degrees of freedom (Liang & Zeger 1986)."""
    n, k = design.shape
    member = membership(codes)
    groups = member.shape[0]
    basis, triangle = np.linalg.qr(design)
    scale = groups / (groups - 1) * (n - 1) / (n - k)
    scores = np.sqrt(scale) * basis @ np.linalg.inv(triangle).T
    return Sandwich(scores, np.full(k, groups - 1.0), member)


def bias_reduced(design: Array, codes: np.ndarray) -> Sandwich:
    """CR2: scores ``(I - H_gg)^{-1/2} X_g (X'X)^-1``, unbiased for independent equal errors (Bell & McCaffrey 2002).

    ``H`` is the hat matrix and the root symmetric, a pseudo-inverse where a cluster determines some coefficient alone
    (Pustejovsky & Tipton 2018). Degrees of freedom by Satterthwaite: ``tr(B)² / tr(B²)``, ``B = P'P`` with columns
    ``(I - H)_{.g} scores_g``; NaN for the coefficients that a cluster so determines: its residuals are 0 where they
    would tell of the error.
    """
    basis, triangle = np.linalg.qr(design)
    influence = basis @ np.linalg.inv(triangle).T
    member = membership(codes)
    scores, lost = influence.copy(), np.zeros(design.shape[1])
    sizes = np.bincount(codes)
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    for size in np.unique(sizes):
        rows = order[starts[sizes == size][:, None] + np.arange(size)]
        left, singular, _ = np.linalg.svd(basis[rows], full_matrices=False)
        gap = 1 - singular**2
        factor = np.where(gap > _SINGULAR, 1 / np.sqrt(np.maximum(gap, _SINGULAR)), 0.0) - 1
        inner = np.swapaxes(left, 1, 2) @ influence[rows]
        scores[rows] += left @ (factor[..., None] * inner)
        lost += ((gap <= _SINGULAR)[..., None] * inner**2).sum(axis=(0, 1))
    df = _satterthwaite(basis, scores, member)
    return Sandwich(scores, np.where(lost > _NEGLIGIBLE * (influence**2).sum(axis=0), np.nan, df), member)


def _satterthwaite(basis: Array, scores: Array, member: sparse.csr_array) -> Array:
    own = np.asarray(member @ scores**2)
    df = np.empty(scores.shape[1])
    for index in range(len(df)):
        shared = np.asarray(member @ (basis * scores[:, [index]]))
        squares, overlap = own[:, index], (shared**2).sum(axis=1)
        trace = (squares - overlap).sum()
        square = (squares**2 - 2 * squares * overlap).sum() + ((shared.T @ shared) ** 2).sum()
        df[index] = trace**2 / square if trace > 0 and square > 0 else np.nan
    return df


def half_widths(sandwich: Sandwich, residual: Array, level: float = NOMINAL) -> Array:
    """Half the interval of each coefficient: the t quantile times the standard error."""
    width: Array = stats.t.ppf((1 + level) / 2, sandwich.df) * sandwich.errors(residual)
    return width


def information(design: Array, index: int, codes: np.ndarray) -> Array:
    """Each cluster's share ``(G,)`` in the information on one slope: squares of its column given the others; NaN where
    the others determine that column."""
    others = np.linalg.qr(np.delete(design, index, axis=1))[0]
    rest = design[:, index] - others @ (others.T @ design[:, index])
    total = (rest**2).sum()
    sums: Array = np.bincount(codes, rest**2).astype(float)
    return sums / total if total > 0 else np.full(len(sums), np.nan)


def interval_coverage(design: Array, residual: Array, sandwich: Sandwich, codes: np.ndarray) -> Array:
    """Simulated coverage ``(k,)`` of each coefficient's nominal 95 % interval on this very design.

    Errors as in module ``noise``, with the residuals' intra-cluster correlation; the estimator to first order.
    """
    basis, triangle = np.linalg.qr(design)
    k = design.shape[1]
    noise = ClusterNoise.of(np.hstack([basis, sandwich.scores]), codes, intracluster(residual, codes), SIMULATIONS)
    projected = np.stack([noise.sums(column).sum(axis=0) for column in range(k)])
    error = np.linalg.solve(triangle, projected)
    width = stats.t.ppf((1 + NOMINAL) / 2, sandwich.df)
    covered = np.full(len(width), np.nan)
    for index in np.flatnonzero(np.isfinite(width)):
        sums = noise.sums(k + index) - noise.products(k + index, k) @ projected
        covered[index] = np.mean(error[index] ** 2 <= width[index] ** 2 * (sums**2).sum(axis=0))
    return covered


def intracluster(residual: Array, codes: np.ndarray) -> float:
    """The intra-cluster correlation of residuals: the analysis of variance estimate, clipped to [0, 1]."""
    sizes = np.bincount(codes)
    n, groups = len(residual), len(sizes)
    if n <= groups or groups < 2:
        return 0.0
    means = np.bincount(codes, residual) / sizes
    between = (sizes * (means - residual.mean()) ** 2).sum() / (groups - 1)
    within = ((residual - means[codes]) ** 2).sum() / (n - groups)
    typical = (n - (sizes**2).sum() / n) / (groups - 1)
    total = between + (typical - 1) * within
    return float(np.clip((between - within) / total, 0, 1)) if total > 0 else 0.0


def membership(codes: np.ndarray) -> sparse.csr_array:
    """``(G, n)`` matrix that sums rows by cluster."""
    n = len(codes)
    return sparse.csr_array((np.ones(n), (codes, np.arange(n))), shape=(int(codes.max()) + 1, n))
