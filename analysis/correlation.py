"""Correlations of many column pairs in one call, each with an interval from a (cluster) bootstrap and what that
interval is worth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.coefficients import Codes, correlation, covariance, given, kendall_sums, rank_covariance
from analysis.coverage import SMALLEST, simulated_coverage
from analysis.errors import TableError
from analysis.resampling import (
    Array,
    bca_interval,
    bootstrap_counts,
    cluster_codes,
    jackknife_counts,
    percentile_interval,
)

METHODS = (
    "pearson",
    "spearman",
    "kendall",
    "partial_pearson",
    "partial_spearman",
    "within_pearson",
    "within_partial_pearson",
)
NOMINAL = 0.95
Pair = tuple[str, str]


def correlate(
    frame: pd.DataFrame,
    x: Sequence[str],
    y: Sequence[str],
    *,
    methods: Sequence[str] = ("pearson", "spearman", "kendall"),
    covariates: Sequence[str] = (),
    within: str | None = None,
    clusters: Mapping[str, str | None],
    interval: Literal["percentile", "bca"] = "percentile",
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Every pair of an ``x`` and a ``y`` column, by every method, with every bootstrap.

    ``pearson``, ``spearman`` (Pearson of mid-ranks), ``kendall`` (tau-b); ``partial_*`` given ``covariates`` (numbers,
    or categories as indicator columns; ``partial_spearman`` ranks all columns first); ``within_*`` of deviations from
    the means of the groups in column ``within`` (the repeated-measures correlation). ``clusters`` maps the name of a
    bootstrap to the column whose values are drawn as wholes, or to None for drawing rows. Intervals are nominal 95 %.

    Returns one row per pair × method × bootstrap: ``x, y, method, given, within, r, low, high, interval, n`` (rows
    used), ``n_missing`` (rows without a finite value in each column), ``n_clusters, nominal, coverage`` (simulated for
    so many clusters, see :mod:`analysis.coverage`; that of drawing rows supposes that the rows depend on each other
    within the first cluster column), ``reason`` (why there is no number).

    Raises:
        TableError: an unknown method or column.
    """
    columns = [*x, *y, *covariates, *([within] if within else []), *(name for name in clusters.values() if name)]
    missing = [name for name in columns if name not in frame.columns]
    unknown = [name for name in methods if name not in METHODS]
    if missing or unknown:
        what = f"columns {', '.join(missing)}" if missing else f"methods {', '.join(unknown)}"
        known = ", ".join(METHODS if unknown else map(str, frame.columns))
        raise TableError(f"correlate: no such {what}; there are {known}")
    numbers = frame[[*dict.fromkeys([*x, *y])]].apply(pd.to_numeric, errors="coerce").astype(float)
    extra = indicator_columns(frame, covariates)
    records: list[dict[str, object]] = []
    for method in methods:
        partial = "partial" in method
        usable = np.isfinite(extra.to_numpy()).all(axis=1) if partial else np.ones(len(frame), dtype=bool)
        shared = {
            "method": method,
            "given": " + ".join(covariates) if partial else "",
            "within": within if method.startswith("within") and within else "",
        }
        for rows, pairs in _by_missing(numbers, [(a, b) for a in x for b in y], usable):
            names = list(dict.fromkeys(name for pair in pairs for name in pair))
            block = _Block(
                method=method,
                values=np.hstack(
                    [numbers.loc[rows, names].to_numpy(), extra.loc[rows].to_numpy()[:, : None if partial else 0]]
                ),
                names=names,
                groups=cluster_codes(frame.loc[rows, within])[0] if shared["within"] and rows.any() else None,
                pairs=pairs,
            )
            found = block.rows(frame.loc[rows], clusters, interval, resamples, seed)
            records += [{**shared, **record, "n_missing": int((~rows).sum())} for record in found]
    return pd.DataFrame.from_records(records, columns=_COLUMNS)


_COLUMNS = [
    *("x", "y", "method", "given", "within", "r", "low", "high", "interval", "n", "n_missing", "n_clusters"),
    *("nominal", "coverage", "reason"),
]


def indicator_columns(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Numbers as they are; categories as one 0/1 column per level but the first, missing where the category is."""
    made: dict[str, pd.Series] = {}
    for name in columns:
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            made[name] = column.astype(float)
            continue
        codes, levels = pd.factorize(column.astype(object), sort=True)
        for code, value in enumerate(levels[1:], start=1):
            made[f"{name}[{value}]"] = pd.Series(np.where(codes < 0, np.nan, codes == code), index=frame.index)
    return pd.DataFrame(made, index=frame.index)


def constant(values: Array) -> bool:
    """Whether a column is constant up to rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _by_missing(
    numbers: pd.DataFrame, pairs: list[Pair], usable: np.ndarray
) -> Iterator[tuple[np.ndarray, list[Pair]]]:
    """Pairs that have the same rows together, so that each resample is computed once for all of them."""
    finite = {name: np.isfinite(numbers[name].to_numpy()) for name in numbers}
    together: dict[bytes, tuple[np.ndarray, list[Pair]]] = {}
    for a, b in pairs:
        rows = finite[a] & finite[b] & usable
        together.setdefault(rows.tobytes(), (rows, []))[1].append((a, b))
    yield from together.values()


@dataclass(frozen=True)
class _Block:
    """Pairs of columns over the same rows, by one method; the columns of ``values`` beyond ``names`` are covariates."""

    method: str
    values: Array
    names: list[str]
    groups: Codes | None
    pairs: list[Pair]

    def rows(
        self, frame: pd.DataFrame, clusters: Mapping[str, str | None], interval: str, resamples: int, seed: int
    ) -> list[dict[str, object]]:
        n = len(self.values)
        reasons = [self._obstacle(pair) for pair in self.pairs]
        dependence = next((frame[column].nunique() for column in clusters.values() if column), n)
        estimate = np.full(len(self.pairs), np.nan)
        if n >= 3:
            estimate = self._coefficients(np.zeros(n, dtype=np.intp), np.ones((1, 1)))[0]
            undefined = [not reason and not np.isfinite(r) for reason, r in zip(reasons, estimate, strict=True)]
            reasons = [self._undefined() if u else reason for u, reason in zip(undefined, reasons, strict=True)]
        estimate = np.where([bool(reason) for reason in reasons], np.nan, estimate)
        records: list[dict[str, object]] = []
        # Where every cluster is one row, the cluster bootstrap is the bootstrap over rows, and is not made twice.
        made: dict[bytes, tuple[Array, Array]] = {}
        for name, column in clusters.items():
            codes, n_clusters = cluster_codes(frame[column] if column else np.arange(n))
            low = high = np.full(len(self.pairs), np.nan)
            if n_clusters >= SMALLEST and np.isfinite(estimate).any():
                key = codes.tobytes()
                if key not in made:
                    made[key] = self._interval(estimate, codes, n_clusters, interval, resamples, seed)
                low, high = made[key]
            real = n_clusters if column else dependence
            design = "single" if real == n else "clusters" if column else "rows"
            for index, (a, b) in enumerate(self.pairs):
                reason = reasons[index]
                if not reason and not np.isfinite(low[index]):
                    few = f"{n_clusters} clusters are fewer than {SMALLEST}"
                    reason = f"no interval: {few if n_clusters < SMALLEST else 'undefined in too many resamples'}"
                records.append(
                    {
                        **{"x": a, "y": b, "r": estimate[index], "interval": name, "n": n, "n_clusters": n_clusters},
                        **{"low": low[index] if np.isfinite(estimate[index]) else np.nan},
                        **{"high": high[index] if np.isfinite(estimate[index]) else np.nan},
                        **{
                            "nominal": NOMINAL,
                            "coverage": simulated_coverage(self.method, real, design),
                            "reason": reason,
                        },
                    }
                )
        return records

    def _obstacle(self, pair: Pair) -> str:
        if len(self.values) < 3:
            return f"{len(self.values)} rows with a value in both columns are fewer than 3"
        for name in pair:
            column = self.values[:, self.names.index(name)]
            if constant(column):
                return f"{name} is constant ({column[0]:.6g})"
        return ""

    def _undefined(self) -> str:
        return "no variation left " + ("within groups" if self.groups is not None else "given the covariates")

    def _coefficients(self, codes: Codes, counts: Array) -> Array:
        """``(B, pairs)``."""
        positions = [(self.names.index(a), self.names.index(b)) for a, b in self.pairs]
        if self.method == "kendall":
            sums = kendall_sums(self.values, codes, counts, positions)
        elif self.method.endswith("spearman"):
            sums = rank_covariance(self.values, codes, counts)
        else:
            sums = covariance(self.values, codes, counts, self.groups)
        if "partial" in self.method:
            k = len(self.names)
            sums = given(sums, list(range(k)), list(range(k, self.values.shape[1])))
        matrices = correlation(sums, counts.sum(axis=1))
        first, second = (list(side) for side in zip(*positions, strict=True))
        return matrices[:, first, second]

    def _interval(
        self, estimate: Array, codes: Codes, n_clusters: int, interval: str, resamples: int, seed: int
    ) -> tuple[Array, Array]:
        drawn = self._coefficients(codes, bootstrap_counts(n_clusters, resamples, seed))
        if interval == "percentile":
            return percentile_interval(drawn, NOMINAL)
        left_out = self._coefficients(codes, jackknife_counts(n_clusters))
        return bca_interval(estimate, drawn, left_out, NOMINAL)
