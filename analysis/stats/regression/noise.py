"""Simulated errors of clustered rows, as the sums over clusters that coverage is judged from; the rows themselves are
never made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse

from invariscope.analysis.stats.resampling import Array

MOST_ROWS = 2_000
"""With more rows a cluster's rows give way to the triangle of its columns: the sums have the same distribution, from
as many draws as columns."""

MOST_DRAWS = 20_000_000
"""Rows × simulations that are drawn at most (160 MB); with more rows there are fewer simulations."""


@dataclass(frozen=True)
class ClusterNoise:
    """Errors ``√ρ · cluster + √(1-ρ) · row``, standard normal, seen through the ``columns (m, q)`` of a design.

    ``codes (m,)`` are the rows' clusters, ``totals (G, q)`` the columns' sums over them; always the same draws.
    """

    columns: Array
    codes: np.ndarray
    totals: Array
    rho: float
    simulations: int

    @classmethod
    def of(cls, columns: Array, codes: np.ndarray, rho: float, simulations: int) -> ClusterNoise:
        """Of the rows as they are up to :data:`MOST_ROWS`."""
        count = int(codes.max()) + 1
        totals = _member(codes, count) @ columns
        if len(codes) > MOST_ROWS:
            columns, codes = _triangles(columns, codes)
        return cls(columns, codes, totals, rho, max(100, min(simulations, MOST_DRAWS // max(len(codes), count))))

    def sums(self, column: int) -> Array:
        """``Σ_{i in g} column_i · error_i``, ``(G, simulations)``."""
        clusters, rows = _standard_normal(len(self.totals), len(self.codes), self.simulations)
        found: Array = _member(self.codes, len(self.totals), self.columns[:, column]) @ rows
        found *= np.sqrt(1 - self.rho)
        found += np.sqrt(self.rho) * self.totals[:, [column]] * clusters
        return found

    def products(self, first: int, others: int) -> Array:
        """``Σ_{i in g} column_i · other_i`` of column ``first`` with each of the first ``others``, ``(G, others)``."""
        weighted = self.columns[:, :others] * self.columns[:, [first]]
        found: Array = _member(self.codes, len(self.totals)) @ weighted
        return found


def _triangles(columns: Array, codes: np.ndarray) -> tuple[Array, np.ndarray]:
    """The rows of clusters of more rows than columns as the R of their QR decomposition."""
    width, order = columns.shape[1], np.argsort(codes, kind="stable")
    parts = [columns[rows] for rows in np.split(order, np.cumsum(np.bincount(codes))[:-1])]
    parts = [part if len(part) <= width else np.linalg.qr(part)[1] for part in parts]
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def _member(codes: np.ndarray, count: int, weights: Array | None = None) -> sparse.csr_array:
    data = np.ones(len(codes)) if weights is None else weights
    return sparse.csr_array((data, (codes, np.arange(len(codes)))), shape=(count, len(codes)))


@lru_cache(maxsize=2)
def _standard_normal(n_clusters: int, n: int, simulations: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n_clusters, simulations)), rng.standard_normal((n, simulations))
