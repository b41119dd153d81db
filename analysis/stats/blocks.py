"""Pairs of columns over the same rows, by one method: their coefficients, the interval and the p-value of every cluster
design.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.stats.coefficients import Codes, correlation, covariance, given, kendall_sums, rank_covariance
from invariscope.analysis.stats.coverage import SMALLEST, simulated_coverage
from invariscope.analysis.stats.permutation import (
    MIN_ARRANGEMENTS,
    arrangements,
    p_values,
    permutations_of,
    permuted_correlations,
    permuted_taus,
)
from invariscope.analysis.stats.resampling import (
    EXACT,
    NOMINAL,
    Array,
    bca_interval,
    bootstrap_counts,
    cluster_codes,
    jackknife_interval,
    percentile_interval,
)
from invariscope.analysis.stats.without_each import (
    covariance_without_each,
    kendall_sums_without_each,
    rank_covariance_without_each,
)
from invariscope.base.words import are, counted

Pair = tuple[str, str]

_EXACT = "the correlation is exactly ±1"

MOST_TAU_ROWS = 20_000
"""Kendall's permutation test is left out beyond so many rows: 199 permutations of one pair take 0.7 s at 10,000."""
_TAU_PAIRS = 250_000_000
"""Pairs of rows × permutations that set how many permutations Kendall's test has: fewer with many rows, but not fewer
than :data:`_FEWEST`.
"""
_FEWEST = 199


@dataclass(frozen=True)
class Draws:
    """How intervals and p-values are made: the kind of interval, bootstrap resamples, permutations (0 = no p), seed."""

    interval: str
    resamples: int
    permutations: int
    seed: int


@dataclass(frozen=True)
class PairBlock:
    """Pairs of columns over the same rows, by one method.

    ``values`` ``(n, k)`` finite: the columns ``names``, then the covariates. ``groups`` ``(n,)`` for the methods within
    groups. ``unusable``: columns that are no columns of numbers, and why.
    """

    method: str
    values: Array
    names: list[str]
    groups: Codes | None
    pairs: list[Pair]
    unusable: Mapping[str, str]

    def rows(self, frame: pd.DataFrame, clusters: Mapping[str, str | None], draws: Draws) -> list[dict[str, object]]:
        """One record per pair and cluster design; ``frame`` holds the cluster columns of the same rows."""
        n = len(self.values)
        estimate, reasons = self._estimate()
        partitions = {column: cluster_codes(frame[column])[0] for column in clusters.values() if column}
        records: list[dict[str, object]] = []
        # Where every cluster is one row, drawing clusters is drawing rows, and is not done twice.
        done: dict[bytes, _Inference] = {}
        for name, column in clusters.items():
            labels = frame[column] if column else pd.Series(np.arange(n))
            codes, n_clusters = cluster_codes(labels)
            unlabelled = int(labels.isna().sum())
            coarser = self._coarser(codes, partitions)
            if unlabelled:
                found = self._none(
                    f"{counted(unlabelled, 'row')} {'has' if unlabelled == 1 else 'have'} no value in {column}"
                )
            else:
                key = codes.tobytes()
                done[key] = found = done.get(key) or self._inference(estimate, codes, n_clusters, draws, not coarser)
            design = "rows" if coarser else "single" if n_clusters == n else "clusters"
            coverage = simulated_coverage(self.method, coarser or n_clusters, design, draws.interval)
            for index, (a, b) in enumerate(self.pairs):
                shared = {"x": a, "y": b, "r": estimate[index], "interval": name, "n": n, "n_clusters": n_clusters}
                shared |= {"interval_type": draws.interval, "nominal": NOMINAL, "coverage": coverage}
                records.append({**shared, **found.record(index, reasons[index])})
        return records

    def _coarser(self, codes: Codes, partitions: Mapping[str, Codes]) -> int:
        """How many clusters the coarsest partition has in whose clusters these lie, several in one; 0 for none.

        Then these depend on each other. What all rows of a group share is no such dependence for the methods within
        groups, which take it out.
        """
        found = 0
        for partition in partitions.values() if len(codes) else ():
            shared = self.groups is not None and _nested(self.groups, partition)
            if not shared and _nested(codes, partition) and partition.max() < codes.max():
                count = int(partition.max()) + 1
                found = min(found or count, count)
        return found

    def _estimate(self) -> tuple[Array, list[str]]:
        """The coefficient of each pair, NaN where there is none, and why."""
        n = len(self.values)
        reasons = [self._obstacle(pair) for pair in self.pairs]
        if all(reasons):
            return np.full(len(self.pairs), np.nan), reasons
        found = self._coefficients(np.zeros(n, dtype=np.intp), np.ones((1, 1)))[0]
        undefined = "no variation left " + ("within groups" if self.groups is not None else "given the covariates")
        reasons = [reason or ("" if np.isfinite(r) else undefined) for reason, r in zip(reasons, found, strict=True)]
        return np.where([bool(reason) for reason in reasons], np.nan, found), reasons

    def _obstacle(self, pair: Pair) -> str:
        n, held = len(self.values), self.values.shape[1] - len(self.names)
        for name in pair:
            if name in self.unusable:
                return self.unusable[name]
        if n < 3:
            shared = " that share a group" if self.method.startswith("within") else ""
            return f"{counted(n, 'row')} with a value in both columns{shared} {are(n)} fewer than 3"
        for name in pair:
            column = self.values[:, self.names.index(name)]
            if constant(column):
                return f"{name} is constant ({column[0]:.6g})"
        if held and n < held + 3:
            return f"{counted(n, 'row')} {are(n)} too few to hold {counted(held, 'covariate column')} fixed"
        return ""

    def _coefficients(self, codes: Codes, counts: Array) -> Array:
        """``(B, pairs)``."""
        positions = self._positions()
        if self.method == "kendall":
            sums = kendall_sums(self.values, codes, counts, positions)
        elif self.method.endswith("spearman"):
            sums = rank_covariance(self.values, codes, counts)
        else:
            sums = covariance(self.values, codes, counts, self.groups)
        return self._of_sums(sums, counts.sum(axis=1), positions)

    def _without_each(self, codes: Codes) -> Array:
        """``(G, pairs)``: without each cluster."""
        positions = self._positions()
        if self.method == "kendall":
            sums = kendall_sums_without_each(self.values, codes, positions)
        elif self.method.endswith("spearman"):
            sums = rank_covariance_without_each(self.values, codes)
        else:
            sums = covariance_without_each(self.values, codes, self.groups)
        return self._of_sums(sums, np.full(len(sums), len(sums) - 1.0), positions)

    def _positions(self) -> list[tuple[int, int]]:
        return [(self.names.index(a), self.names.index(b)) for a, b in self.pairs]

    def _of_sums(self, sums: Array, size: Array, positions: list[tuple[int, int]]) -> Array:
        if "partial" in self.method:
            k = len(self.names)
            sums = given(sums, list(range(k)), list(range(k, self.values.shape[1])))
        matrices = correlation(sums, size)
        first, second = (list(side) for side in zip(*positions, strict=True))
        return matrices[:, first, second]

    def _none(self, why: str) -> _Inference:
        """Neither interval nor p, for every pair."""
        nothing = np.full(len(self.pairs), np.nan)
        return _Inference(nothing, nothing, [why] * len(self.pairs), nothing, 0, why)

    def _inference(self, estimate: Array, codes: Codes, n_clusters: int, draws: Draws, independent: bool) -> _Inference:
        if not np.isfinite(estimate).any():
            return self._none("")
        if n_clusters < SMALLEST:
            return self._none(f"{counted(n_clusters, 'cluster')} {are(n_clusters)} fewer than {SMALLEST}")
        low, high, why = self._interval(estimate, codes, n_clusters, draws)
        p, permutations, why_no_p = np.full(len(self.pairs), np.nan), 0, "no permutations were asked for"
        if not independent:
            why_no_p = "these clusters depend on each other within larger ones: see the p of those"
        elif draws.permutations:
            p, permutations, why_no_p = self._p(estimate, codes, draws)
        return _Inference(low, high, why, p, permutations, why_no_p)

    def _interval(self, estimate: Array, codes: Codes, n_clusters: int, draws: Draws) -> tuple[Array, Array, list[str]]:
        left_out = self._without_each(codes) if draws.interval != "percentile" else None
        if draws.interval == "jackknife" and left_out is not None:
            low, high = jackknife_interval(estimate, left_out, NOMINAL)
            exact = 1 - np.abs(estimate) <= EXACT
            return low, high, [_EXACT if one else "undefined without one of the clusters" for one in exact]
        drawn = self._coefficients(codes, bootstrap_counts(n_clusters, draws.resamples, draws.seed))
        if left_out is None:
            low, high = percentile_interval(drawn, NOMINAL)
        else:
            low, high = bca_interval(estimate, drawn, left_out, NOMINAL)
        return low, high, ["undefined in too many resamples"] * len(self.pairs)

    def _p(self, estimate: Array, codes: Codes, draws: Draws) -> tuple[Array, int, str]:
        """The p of each pair, the number of permutations, why there is none."""
        strata = self._strata(codes)
        obstacle = self._unmovable(strata)
        if strata is None or obstacle:
            return np.full(len(self.pairs), np.nan), 0, obstacle
        permutations, n = draws.permutations, len(self.values)
        if self.method == "kendall":
            permutations = min(permutations, max(_FEWEST, 2 * _TAU_PAIRS // n**2))
        order = permutations_of(strata, permutations, draws.seed)
        values = stats.rankdata(self.values, axis=0) if self.method.endswith("spearman") else self.values
        sides = [list(dict.fromkeys(pair[side] for pair in self.pairs)) for side in (0, 1)]
        x, y = (values[:, [self.names.index(name) for name in side]] for side in sides)
        if self.method == "kendall":
            permuted = permuted_taus(x, y, codes, order)
        else:
            permuted = permuted_correlations(x, y, self._nuisance(values), codes, order, self.groups)
        first, second = ([side.index(pair[i]) for pair in self.pairs] for i, side in enumerate(sides))
        p = p_values(estimate, permuted[:, first, second])
        return np.where(np.isfinite(estimate), p, np.nan), permutations, ""

    def _unmovable(self, strata: Codes | None) -> str:
        """Why the clusters cannot change places in a test."""
        n = len(self.values)
        if strata is None:
            return "clusters lie in several groups and cannot change places within one"
        ways = arrangements(strata)
        if ways < MIN_ARRANGEMENTS:
            return f"{counted(ways, 'arrangement')} of the clusters {are(ways)} fewer than {MIN_ARRANGEMENTS}"
        if self.method == "kendall" and n > MOST_TAU_ROWS:
            return f"{n} rows are more than the {MOST_TAU_ROWS} that Kendall's permutation test is made for"
        return ""

    def _strata(self, codes: Codes) -> Codes | None:
        """The group of each cluster; None where a cluster lies in several."""
        if self.groups is None:
            return np.zeros(int(codes.max()) + 1, dtype=np.intp)
        pairs = np.unique(np.stack([codes, self.groups]), axis=1)
        return pairs[1] if len(pairs[0]) == int(codes.max()) + 1 else None

    def _nuisance(self, values: Array) -> Array:
        """The covariates, and a constant where there are no groups."""
        constant = np.ones((len(values), 1 if self.groups is None else 0))
        return np.hstack([constant, values[:, len(self.names) :]])


@dataclass(frozen=True)
class _Inference:
    """Interval and p of every pair under one cluster design, and why there is none."""

    low: Array
    high: Array
    why_no_interval: list[str]
    p: Array
    permutations: int
    why_no_p: str

    def record(self, index: int, reason: str) -> dict[str, object]:
        low, high, p = (float(values[index]) for values in (self.low, self.high, self.p))
        defined = not reason and np.isfinite([low, high]).all()
        tested = not reason and np.isfinite(p)
        return {
            **{"low": low if defined else np.nan, "high": high if defined else np.nan},
            **{"p": p if tested else np.nan, "n_permutations": self.permutations if tested else 0},
            "reason": reason or ("" if defined else f"no interval: {self.why_no_interval[index]}"),
            "p_reason": reason or ("" if tested else self.why_no_p),
        }


def _nested(codes: Codes, partition: Codes) -> bool:
    """Whether each cluster lies in one cluster of the partition."""
    return len(np.unique(np.stack([codes, partition]), axis=1)[0]) == int(codes.max()) + 1


def constant(values: Array) -> bool:
    """Whether a column is constant up to rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
