"""Permutation tests for clustered rows: whole clusters change places, what happens inside a cluster is kept; and the
correction for many tests.

The first column of a pair is split into its cluster means and the deviations from them, ``x_i = m_g(i) + d_i``. A
permutation ``π`` of the clusters gives ``x*_i = m_π(g(i)) + d_i``, and ``p = (1 + #{|r*| >= |r|}) / (1 + P)`` (Phipson
& Smyth 2010). The hypothesis is that the cluster means of x are exchangeable whatever y is, which independent clusters
are when they have equal sizes. Means of clusters of unequal sizes have unequal variances: then the test is approximate
(and was conservative where that was simulated). An association inside clusters is part of every ``r*`` and is not what
is tested.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.stats.coefficients import Codes, blocks, cluster_sums
from invariscope.analysis.stats.concordance import concordances, dense_codes, untied_pairs
from invariscope.analysis.stats.resampling import Array

MIN_ARRANGEMENTS = 100
"""With fewer arrangements of the clusters no test at the 1 % level can be made, and no p is given."""

_ROUNDING = 1e-10
"""Coefficients this close count as equal: rounding must not decide whether ``|r*| >= |r|``."""
_RANK_STEPS = 100_000
"""Steps per rank to which permuted mid-ranks are rounded before signs are taken: a rounding error is no difference."""


def arrangements(strata: Codes) -> int:
    """In how many ways clusters can change places within ``strata`` ``(G,)``: the product of the factorials of their
    numbers.
    """
    return math.prod(math.factorial(int(number)) for number in np.bincount(strata))


def permutations_of(strata: Codes, permutations: int, seed: int = 0) -> Codes:
    """``(P, G)``: in each row, whose mean each cluster gets; only clusters of the same stratum change places."""
    rng = np.random.default_rng(seed)
    order = np.tile(np.arange(len(strata)), (permutations, 1))
    for stratum in np.unique(strata):
        mine = np.flatnonzero(strata == stratum)
        order[:, mine] = rng.permuted(order[:, mine], axis=1)
    return order


def permuted_correlations(
    x: Array, y: Array, nuisance: Array, codes: Codes, order: Codes, groups: Codes | None = None
) -> Array:
    """Under every permutation the correlations ``(P, kx, ky)`` of ``x`` ``(n, kx)`` with ``y`` ``(n, ky)`` given
    ``nuisance`` ``(n, q)``, and the means of ``groups`` ``(n,)`` where there are any: then no cluster lies in several.

    The scheme of Freedman & Lane (1983): the residuals of x on the nuisance columns (a constant, covariates) and the
    groups have their cluster means permuted, the fitted part stays, and the partial correlation is taken anew.
    Linear in the means, so that a permutation costs O(G·(kx·ky + q·kx)), whatever the number of rows. With the
    identity in ``order`` it is the partial correlation itself.
    """
    if groups is not None:
        x, y, nuisance = (_within(part, groups) for part in (x, y, nuisance))
    basis = _basis(nuisance)
    x, y = (part - basis @ (basis.T @ part) for part in (x, y))
    sizes, count = np.bincount(codes), int(codes.max()) + 1
    means = cluster_sums(x, codes, count) / sizes[:, None]
    deviations = x - means[codes]
    base, of_y, of_basis = deviations.T @ y, cluster_sums(y, codes, count), cluster_sums(basis, codes, count)
    own, fixed = (deviations**2).sum(axis=0), basis.T @ deviations
    result = np.empty((len(order), x.shape[1], y.shape[1]))
    for some in blocks(len(order), count * x.shape[1]):
        moved = means[order[some]]
        fitted = fixed + np.einsum("gq,pgi->pqi", of_basis, moved, optimize=True)
        squares = own + np.einsum("g,pgi->pi", sizes, moved**2) - (fitted**2).sum(axis=1)
        if groups is not None:
            squares -= _of_group_means(moved, sizes, codes, groups)
        with np.errstate(divide="ignore", invalid="ignore"):
            products = base + np.einsum("pgi,gj->pij", moved, of_y, optimize=True)
            result[some] = products / np.sqrt(np.maximum(squares, 0)[:, :, None] * (y**2).sum(axis=0))
    return result


def _within(values: Array, groups: Codes) -> Array:
    """Deviations from the groups' means; 0 throughout where they are rounding."""
    means = cluster_sums(values, groups, int(groups.max()) + 1) / np.bincount(groups)[:, None]
    rest = values - means[groups]
    found: Array = np.where(np.linalg.norm(rest, axis=0) > 1e-10 * np.linalg.norm(values, axis=0), rest, 0.0)
    return found


def _of_group_means(moved: Array, sizes: Codes, codes: Codes, groups: Codes) -> Array:
    """``(P, kx)``: what of the squares lies between groups, ``Σ_groups (Σ_g size_g moved_g)² / rows``."""
    group = np.empty(len(sizes), dtype=np.intp)
    group[codes] = groups
    ordered = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[ordered], prepend=-1))
    sums = np.add.reduceat((moved * sizes[:, None])[:, ordered], starts, axis=1)
    found: Array = (sums**2 / np.bincount(groups)[group[ordered][starts]][:, None]).sum(axis=1)
    return found


def permuted_taus(x: Array, y: Array, codes: Codes, order: Codes) -> Array:
    """``(P, kx, ky)`` Kendall's tau-b of ``x`` ``(n, kx)`` with ``y`` ``(n, ky)`` under every permutation.

    The cluster means of x's mid-ranks are permuted; tau is that of the ranks so made. O(n log n) per permutation.
    """
    result = np.empty((len(order), x.shape[1], y.shape[1]))
    coded = [dense_codes(column) for column in y.T]
    for index, column in enumerate(x.T):
        ranks = stats.rankdata(column)
        means = np.bincount(codes, ranks) / np.bincount(codes)
        rest = ranks - means[codes]
        for some in blocks(len(order), len(x)):
            moved = np.rint((means[order[some]][:, codes] + rest) * _RANK_STEPS).astype(np.int64)
            for place, (levels, counts) in enumerate(coded):
                found, untied = concordances(moved, levels, counts)
                with np.errstate(divide="ignore", invalid="ignore"):
                    result[some, index, place] = found / np.sqrt(untied * float(untied_pairs(counts)))
    return result


def p_values(estimate: Array, permuted: Array) -> Array:
    """``(1 + #{|r*| >= |r|}) / (1 + P)`` along axis 0; a permutation without a coefficient counts as one that reaches
    it.
    """
    missed = np.abs(permuted) < np.abs(estimate) - _ROUNDING
    return (1 + (~missed).sum(axis=0)) / (1 + len(permuted))


def adjusted(table: pd.DataFrame, family: str = "interval") -> pd.DataFrame:
    """Set ``p_holm`` (Holm 1979) and ``p_bh`` (Benjamini & Hochberg 1995) from ``p``.

    A family of tests is all rows of the table that have a p and the same value in column ``family``: the same cluster
    design. Rows without a p have no adjusted one either, and do not count.
    """
    if table["p"].isna().all():
        return table.assign(p_holm=np.nan, p_bh=np.nan)
    together = table.groupby(family)["p"]
    return table.assign(p_holm=together.transform(holm), p_bh=together.transform(benjamini_hochberg))


def holm(p: pd.Series) -> pd.Series:
    """p-values adjusted by Holm (1979), which keeps the chance of any false one: the running maximum of
    ``(m - i) p_(i)``, ``i = 0, 1, …``, at most 1. Missing values do not count.
    """
    # Not statsmodels' multipletests: it runs the garbage collector on every call, 20 ms each.
    ordered = p.dropna().sort_values()
    steps = np.arange(len(ordered), 0, -1) * ordered.to_numpy(dtype=float)
    return pd.Series(np.minimum(np.maximum.accumulate(steps), 1), index=ordered.index).reindex(p.index)


def benjamini_hochberg(p: pd.Series) -> pd.Series:
    """p-values adjusted by Benjamini & Hochberg (1995), which keeps the expected share of false ones; missing values do
    not count.
    """
    known = p.dropna()
    values = stats.false_discovery_control(known.to_numpy(dtype=float)) if len(known) else np.empty(0)
    return pd.Series(values, index=known.index, dtype=float).reindex(p.index)


def _basis(columns: Array) -> Array:
    """An orthonormal basis of the span of the columns."""
    scale = np.linalg.norm(columns, axis=0)
    left, singular, _ = np.linalg.svd(columns / np.where(scale > 0, scale, 1.0), full_matrices=False)
    return left[:, singular > 1e-10 * singular.max(initial=0.0)]
