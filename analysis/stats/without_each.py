"""Correlation matrices with each cluster left out in turn, which the jackknife takes; no array of clusters × rows.

As in module ``coefficients``, ``values`` ``(n, k)`` has no missing entry and ``codes`` ``(n,)`` is the cluster of each
row; all functions return sums of squares and products ``(G, k, k)``. Those of ranks and signs are whole numbers or
quarters of them, and exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from invariscope.analysis.stats.coefficients import Codes, cell_sums, cluster_ranks, cluster_sums
from invariscope.analysis.stats.concordance import Quadrants, concordance, dense_codes
from invariscope.analysis.stats.resampling import Array

_LARGE = 1 / 500
"""Clusters of more squared rows than this share of all rows are ranked against all rows; of smaller ones each pair of
rows is looked up, which is as fast at that size (measured at 10,000 rows)."""
_COMPARED = 64
"""Rows of a cluster up to which each is compared with each."""
_CELLS = 1 << 20


def covariance_without_each(values: Array, codes: Codes, groups: Codes | None = None) -> Array:
    """:func:`invariscope.analysis.stats.coefficients.covariance` without each cluster: O(n·k² + G·k²)."""
    (group, cluster), sums = cell_sums(values, codes, groups)
    k = values.shape[1]
    whole = cluster_sums(sums, group, int(group.max()) + 1)
    of_groups = _about_mean(whole, k)
    change = _about_mean(whole[group] - sums, k) - of_groups[group]
    changes = cluster_sums(change.reshape(len(change), k * k), cluster, int(codes.max()) + 1)
    found: Array = of_groups.sum(axis=0) + changes.reshape(-1, k, k)
    return found


def _about_mean(sums: Array, k: int) -> Array:
    """``(…, k, k)`` sums of products about the mean from counts, sums and sums of products; 0 of no rows."""
    weight, first, second = sums[:, 0], sums[:, 1 : 1 + k], sums[:, 1 + k :].reshape(-1, k, k)
    some = weight > 0.5
    mean = np.divide(first, weight[:, None], out=np.zeros_like(first), where=some[:, None])
    found: Array = np.where(some[:, None, None], second - first[:, :, None] * mean[:, None, :], 0.0)
    return found


def rank_covariance_without_each(values: Array, codes: Codes) -> Array:
    """:func:`invariscope.analysis.stats.coefficients.rank_covariance` without each cluster.

    Without cluster g row ``a`` has the centred mid-rank ``R_a - h_a``, ``h_a = ½ Σ_{b in g} sign(x_a - x_b)``. Of large
    clusters ``h`` is made for all rows; of small ones the products of ``R`` and ``h``, and of two ``h``, are sums over
    the cluster's rows of what a sort tells of each. O(n^1.5) at most, O(n log n) of single rows.
    """
    n, k = values.shape
    sizes = np.bincount(codes)
    coded = [dense_codes(column) for column in values.T]
    ranks = np.stack([_centred_ranks(*each) for each in coded], axis=1)
    result = np.empty((len(sizes), k, k))
    is_large = sizes.astype(float) ** 2 > _LARGE * n
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(sizes)[:-1])
    table = np.stack([each[0] for each in coded])
    for cluster in np.flatnonzero(is_large):
        left = ranks - cluster_ranks(table, members[cluster])
        left[members[cluster]] = 0.0
        result[cluster] = left.T @ left
    small = np.flatnonzero(~is_large)
    if len(small):
        result[small] = _small(values, ranks, coded, [members[cluster] for cluster in small])
    return result


def _centred_ranks(codes: np.ndarray, counts: np.ndarray) -> Array:
    """``½ Σ_b sign(x_a - x_b)`` of each row."""
    upto = np.cumsum(counts)
    ranks: Array = 0.5 * (2.0 * upto - counts - len(codes))[codes]
    return ranks


def _small(values: Array, ranks: Array, coded: list[tuple[np.ndarray, np.ndarray]], members: list[np.ndarray]) -> Array:
    k = values.shape[1]
    moments = np.stack([_moments(ranks, *each) for each in coded], axis=2)  # (n, k of R, k of the sign)
    quadrants = {(i, j): Quadrants.of(values[:, i], values[:, j]) for i, j in combinations(range(k), 2)}
    whole = ranks.T @ ranks
    result = np.empty((len(members), k, k))
    for places, rows in _by_size(members, k * k):
        size = rows.shape[1]
        inside = 0.5 * np.sign(values[rows][:, :, None] - values[rows][:, None, :]).sum(axis=2)
        own = ranks[rows]
        crossed = moments[rows].sum(axis=1) - own.transpose(0, 2, 1) @ inside
        first, second = (np.repeat(rows, size, axis=1), np.tile(rows, size))
        both = np.empty((len(rows), k, k))
        for i in range(k):
            both[:, i, i] = _alike(*coded[i], first, second).sum(axis=1)
        for (i, j), found in quadrants.items():
            signs = found.signs(first.ravel(), second.ravel()).reshape(first.shape).sum(axis=1)
            both[:, i, j] = both[:, j, i] = signs
        within = inside.transpose(0, 2, 1) @ inside
        left = whole - own.transpose(0, 2, 1) @ own - crossed - crossed.transpose(0, 2, 1) + 0.25 * both - within
        result[places] = left
    return result


def _moments(ranks: Array, codes: np.ndarray, counts: np.ndarray) -> Array:
    """``½ Σ_a R_a sign(y_a - y_b)`` of each row ``b``, for every column of ``ranks``."""
    order = np.argsort(codes, kind="stable")
    sums = np.concatenate([np.zeros((1, ranks.shape[1])), np.cumsum(ranks[order], axis=0)])
    upto = np.cumsum(counts)
    found: Array = 0.5 * (sums[-1] - sums[upto] - sums[upto - counts])[codes]
    return found


def _alike(codes: np.ndarray, counts: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``Σ_a sign(x_a - x_b) sign(x_a - x_c)`` for rows ``b`` of ``first`` and ``c`` of ``second``."""
    upto = np.cumsum(counts)
    low, high = np.minimum(codes[first], codes[second]), np.maximum(codes[first], codes[second])
    between = np.maximum((upto - counts)[high] - upto[low], 0)
    found: np.ndarray = (upto - counts)[low] + len(codes) - upto[high] - between
    return found


def kendall_sums_without_each(values: Array, codes: Codes, pairs: list[tuple[int, int]]) -> Array:
    """:func:`invariscope.analysis.stats.coefficients.kendall_sums` without each cluster: all pairs of rows, less those
    with a row of the cluster. O(n log n) and, of large clusters, of their own rows alone.
    """
    k, sizes = values.shape[1], np.bincount(codes)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(sizes)[:-1])
    result = np.zeros((len(sizes), k, k))
    for i, j in {*((min(pair), max(pair)) for pair in pairs), *((j, j) for j in range(k))}:
        x, y = values[:, i], values[:, j]
        of_rows = _untied(x) if i == j else Quadrants.of(x, y).of_rows()
        own = np.empty(len(sizes))
        for places, rows in _by_size([part for part in members if len(part) <= _COMPARED], 2):
            signs = np.sign(x[rows][:, :, None] - x[rows][:, None, :]) * np.sign(y[rows][:, :, None] - y[rows][:, None])
            own[np.flatnonzero(sizes <= _COMPARED)[places]] = signs.sum(axis=(1, 2))
        for cluster in np.flatnonzero(sizes > _COMPARED):
            mine = members[cluster]
            own[cluster] = 2 * concordance(x[mine], y[mine])
        left = of_rows.sum() - 2 * np.bincount(codes, of_rows) + own
        result[:, i, j] = result[:, j, i] = left
    return result


def _untied(column: Array) -> np.ndarray:
    """Rows whose value differs from that of each row."""
    codes, counts = dense_codes(column)
    found: np.ndarray = len(column) - counts[codes]
    return found


def _by_size(members: list[np.ndarray], width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Clusters of equal numbers of rows together: their places in the list, and their rows ``(m, size)``."""
    sizes = np.array([len(rows) for rows in members], dtype=np.intp)
    for size in np.unique(sizes):
        places = np.flatnonzero(sizes == size)
        step = max(1, _CELLS // max(1, int(size) ** 2 * width))
        for first in range(0, len(places), step):
            some = places[first : first + step]
            yield some, np.stack([members[place] for place in some])
