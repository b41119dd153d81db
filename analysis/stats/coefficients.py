"""Correlation matrices of every resample at once: Pearson, Spearman, Kendall, partial and within groups.

All functions take ``values`` ``(n, k)`` without missing entries, ``codes`` ``(n,)`` = the cluster of each row, and
``counts`` ``(B, G)`` = how often each resample draws each cluster, and return ``(B, k, k)``. A row of ones in
``counts`` gives the plain statistic of the data. Undefined entries (a column constant in the resample) are NaN.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from invariscope.analysis.stats.concordance import concordance, dense_codes
from invariscope.analysis.stats.resampling import Array

Codes = NDArray[np.intp]

_NEGLIGIBLE = 1e-12
"""Variance below this share of the column's own is taken as none: what rounding leaves of a constant."""
_CELLS = 4_000_000
"""Largest block of floats (32 MB) that a step holds at a time."""


def covariance(values: Array, codes: Codes, counts: Array, groups: Codes | None = None) -> Array:
    """Weighted sums of squares and products about the mean, or about the means of ``groups`` ``(n,)``; of standardised
    columns.

    With ``groups`` every resample is centred at its own group means, which makes the correlation the repeated-measures
    one (Bakdash & Marusich 2017). Cost O(B·G·k²), whatever the number of rows.
    """
    cells, sums = cell_sums(values, codes, groups)
    k = values.shape[1]
    total = np.zeros((len(counts), k, k))
    for group in np.unique(cells[0]):
        mine = cells[0] == group
        drawn = counts[:, cells[1, mine]] @ sums[mine]
        weight, first, second = drawn[:, 0], drawn[:, 1 : 1 + k], drawn[:, 1 + k :].reshape(-1, k, k)
        mean = np.divide(first, weight[:, None], out=np.zeros_like(first), where=weight[:, None] > 0)
        total += second - first[:, :, None] * mean[:, None, :]
    return total


def cell_sums(values: Array, codes: Codes, groups: Codes | None) -> tuple[Codes, Array]:
    """Of standardised columns in every group × cluster ``(2, C)``: the number of rows, sums, sums of products."""
    scaled = _standardise(values)
    n, k = scaled.shape
    groups = np.zeros(n, dtype=np.intp) if groups is None else groups
    cells, cell_of = np.unique(np.stack([groups, codes]), axis=1, return_inverse=True)
    products = (scaled[:, :, None] * scaled[:, None, :]).reshape(n, k * k)
    parts = np.hstack([np.ones((n, 1)), scaled, products])
    return cells, cluster_sums(parts, cell_of.reshape(-1), cells.shape[1])


def cluster_sums(values: Array, codes: Codes, count: int) -> Array:
    """``(count, c)`` sums of the rows of ``values`` ``(n, c)`` with each code."""
    n = len(codes)
    member = sparse.csr_array((np.ones(n), (codes, np.arange(n))), shape=(count, n))
    found: Array = member @ values
    return found


def rank_covariance(values: Array, codes: Codes, counts: Array) -> Array:
    """Sums of squares and products of the mid-ranks that each resample gives its rows.

    The centred mid-rank of row ``a`` is ``½ Σ_b w_b sign(x_a - x_b)``: linear in the counts, so that no resample is
    sorted.
    """
    n, k = values.shape
    half_signs = np.concatenate([0.5 * _sign_sums(values[:, j], codes, counts.shape[1]).T for j in range(k)], axis=1)
    result = np.empty((len(counts), k, k))
    for rows in blocks(len(counts), n * k):
        ranks = (counts[rows] @ half_signs).reshape(-1, k, n)
        weighted = ranks * counts[rows][:, codes][:, None, :]
        result[rows] = weighted @ ranks.transpose(0, 2, 1)
    return result


def kendall_sums(values: Array, codes: Codes, counts: Array, pairs: list[tuple[int, int]]) -> Array:
    """``(B, k, k)`` sums ``Σ_ab w_a w_b sign(x_a - x_b) sign(y_a - y_b)`` for ``pairs`` and the diagonal, 0 elsewhere.

    A quadratic form in the counts, whose matrix is made once per pair. The diagonal counts the pairs that are not tied,
    so that dividing by its roots gives Kendall's tau-b.
    """
    k = values.shape[1]
    if counts.shape[1] == 1:
        return _whole_kendall_sums(values, counts, pairs)
    order = np.argsort(codes, kind="stable")
    sorted_values, starts = values[order], np.searchsorted(codes[order], np.arange(counts.shape[1]))
    result = np.zeros((len(counts), k, k))
    for i, j in {*((min(pair), max(pair)) for pair in pairs), *((j, j) for j in range(k))}:
        form = _concordance(sorted_values[:, i], sorted_values[:, j], starts)
        result[:, i, j] = result[:, j, i] = ((counts @ form) * counts).sum(axis=1)
    return result


def _whole_kendall_sums(values: Array, counts: Array, pairs: list[tuple[int, int]]) -> Array:
    """The same where all rows are one cluster: O(n log n)."""
    k = values.shape[1]
    result = np.zeros((len(counts), k, k))
    for i, j in {*((min(pair), max(pair)) for pair in pairs), *((j, j) for j in range(k))}:
        total = 2 * concordance(values[:, i], values[:, j])
        result[:, i, j] = result[:, j, i] = counts[:, 0] ** 2 * total
    return result


def correlation(sums: Array, size: Array, floor: float = _NEGLIGIBLE) -> Array:
    """Correlations from sums of squares and products; NaN where a column's sum is below ``floor · size`` (``(B,)`` or a
    number).
    """
    squares = np.diagonal(sums, axis1=1, axis2=2)
    spread = np.where(squares > floor * np.reshape(size, (-1, 1)), squares, np.nan)
    return np.clip(sums / np.sqrt(spread[:, :, None] * spread[:, None, :]), -1, 1)


def given(sums: Array, kept: list[int], covariates: list[int]) -> Array:
    """Sums of squares and products of the ``kept`` columns' residuals on the ``covariates``: ``S_ab - S_az S_zz⁺
    S_zb``.

    Entries whose residual variance is rounding (a column that the covariates determine) are NaN.
    """
    own = sums[:, kept][:, :, kept]
    cross = sums[:, kept][:, :, covariates]
    inverse = np.linalg.pinv(sums[:, covariates][:, :, covariates], rcond=1e-10, hermitian=True)
    residual = own - cross @ inverse @ cross.transpose(0, 2, 1)
    before, after = (np.diagonal(part, axis1=1, axis2=2) for part in (own, residual))
    gone = after <= 1e-10 * np.maximum(before, 0)
    residual[gone[:, :, None] | gone[:, None, :]] = np.nan
    return residual


def _standardise(values: Array) -> Array:
    centred = values - values.mean(axis=0)
    scale = centred.std(axis=0)
    return centred / np.where(scale > 0, scale, 1.0)


def _sign_sums(column: Array, codes: Codes, n_clusters: int) -> Array:
    """``(n, G)``: for each row, Σ over the rows of each cluster of the sign of the difference."""
    table = dense_codes(column)[0][None]
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes, minlength=n_clusters))[:-1])
    return np.stack([2 * cluster_ranks(table, rows)[:, 0] for rows in members], axis=1)


def cluster_ranks(table: Codes, rows: Codes) -> Array:
    """``(n, k)``: ``½ Σ_b sign(x_a - x_b)`` over the rows ``b`` of one cluster, of columns as :func:`dense_codes`
    ``(k, n)``.
    """
    k, width = len(table), int(table.max()) + 1
    found = np.bincount((table[:, rows] + width * np.arange(k)[:, None]).ravel(), minlength=k * width)
    upto = np.cumsum(found.reshape(k, width), axis=1)
    centred = upto - 0.5 * (found.reshape(k, width) + len(rows))
    ranks: Array = np.take_along_axis(centred, table, axis=1).T
    return ranks


def _concordance(x: Array, y: Array, starts: Codes) -> Array:
    """``(G, G)`` sums of sign products between clusters; rows sorted by cluster, ``starts`` = where each begins."""
    within_rows = np.empty((len(x), len(starts)))
    for rows in blocks(len(x), len(x)):
        within_rows[rows] = np.add.reduceat(_signs(x[rows], x) * _signs(y[rows], y), starts, axis=1)
    return np.add.reduceat(within_rows, starts, axis=0)


def _signs(some: Array, column: Array) -> Array:
    return np.sign(some[:, None] - column[None, :])


def blocks(length: int, width: int) -> Iterator[slice]:
    """Slices of ``length`` of so many rows of ``width`` that a step holds :data:`_CELLS` floats at most."""
    step = max(1, _CELLS // max(width, 1))
    for start in range(0, length, step):
        yield slice(start, start + step)
