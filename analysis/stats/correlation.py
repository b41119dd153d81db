"""Correlations of many column pairs in one call, each with an interval and a p-value that respect clusters, and what
that interval is worth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from invariscope.analysis.stats.blocks import Draws, Pair, PairBlock, constant
from invariscope.analysis.stats.permutation import adjusted
from invariscope.analysis.stats.resampling import DEFAULT_INTERVAL, INTERVALS, NOMINAL, cluster_codes
from invariscope.base.errors import TableError

__all__ = ["METHODS", "NOMINAL", "constant", "correlate", "indicator_columns"]

METHODS = (
    "pearson",
    "spearman",
    "kendall",
    "partial_pearson",
    "partial_spearman",
    "within_pearson",
    "within_partial_pearson",
)


def correlate(
    frame: pd.DataFrame,
    x: Sequence[str],
    y: Sequence[str],
    *,
    methods: Sequence[str] = ("pearson", "spearman", "kendall"),
    covariates: Sequence[str] = (),
    within: str | None = None,
    clusters: Mapping[str, str | None],
    interval: str = DEFAULT_INTERVAL,
    resamples: int = 2000,
    permutations: int = 1999,
    seed: int = 0,
) -> pd.DataFrame:
    """Every pair of an ``x`` and a ``y`` column, by every method, under every cluster design.

    ``pearson``, ``spearman`` (Pearson of mid-ranks), ``kendall`` (tau-b); ``partial_*`` given ``covariates`` (numbers,
    or categories as indicator columns; ``partial_spearman`` ranks all columns first); ``within_*`` of deviations from
    the means of the groups in column ``within`` (the repeated-measures correlation): a row that is alone in its group
    says nothing there and is not used, and neither is a cluster of such rows. ``clusters`` maps the name of a
    design to the column whose values are the sampling units, or to None for single rows.

    ``interval``, nominal 95 %: ``jackknife`` (``tanh(atanh r ± t · se / (1 - r²))``, t with clusters - 1 degrees of
    freedom, se the jackknife's over clusters), or the ``percentile`` or ``bca`` interval of ``resamples`` cluster
    bootstrap resamples. ``p`` is two-sided, from ``permutations`` (0 = none) of the cluster means of x, the deviations
    within clusters kept; ``spearman`` and ``kendall`` permute those of the mid-ranks, ``partial_*`` those of the
    residuals given the covariates (Freedman & Lane 1983), ``within_*`` within the groups
    (module ``permutation``); ``kendall`` has fewer permutations from 500 rows on and none beyond 2,000. Its
    hypothesis is that the clusters' means of x have nothing to do with y; an interval speaks of the coefficient
    instead, so the two may disagree. ``p_holm`` and ``p_bh`` are adjusted over all
    rows of the call that have a p and the same cluster design, whatever their pair and method.

    Returns one row per pair × method × design: ``x, y, method, given, within, r, low, high, interval`` (the design's
    name), ``interval_type, p, n_permutations, p_holm, p_bh, n`` (rows used), ``n_missing`` (rows without a finite value
    in each column), ``n_clusters`` (of the rows used), ``nominal, coverage`` (simulated for so many clusters, see
    module ``coverage``; that of units which lie in larger ones of another cluster column, as runs in operators, is the
    coverage for such larger ones of equal units that are taken for independent; they have no p either), ``reason`` (why
    there is no coefficient or interval), ``p_reason`` (why there is no p).

    Raises:
        TableError: an unknown method, interval or column; a covariate, group or cluster column whose name several
            columns bear.
    """
    others = [*covariates, *([within] if within else []), *(name for name in clusters.values() if name)]
    _check(frame, [*x, *y], others, methods, interval)
    draws = Draws(interval, resamples, permutations, seed)
    numbers, unusable = _numbers(frame, [*dict.fromkeys([*x, *y])])
    extra = indicator_columns(frame, covariates).to_numpy(dtype=float)
    labels = frame[list(dict.fromkeys(name for name in clusters.values() if name))]
    records: list[dict[str, object]] = []
    for method in methods:
        partial, grouped = "partial" in method, method.startswith("within") and bool(within)
        usable = np.isfinite(extra).all(axis=1) if partial else np.ones(len(frame), dtype=bool)
        if grouped:
            usable &= frame[within].notna().to_numpy()
        shared = {
            "method": method,
            "given": " + ".join(covariates) if partial else "",
            "within": within if grouped else "",
        }
        for rows, pairs in _by_missing(numbers, [(a, b) for a in x for b in y], usable):
            n_missing = int((~rows).sum())
            if grouped:
                rows = rows & ~_alone(frame[within], rows)
            names = list(dict.fromkeys(name for pair in pairs for name in pair))
            held = extra[rows, : None if partial else 0]
            block = PairBlock(
                method=method,
                values=np.hstack([numbers[names].to_numpy()[rows], held]),
                names=names,
                groups=cluster_codes(frame[within][rows])[0] if grouped and rows.any() else None,
                pairs=pairs,
                unusable=unusable,
            )
            found = block.rows(labels[rows], clusters, draws)
            records += [{**shared, **record, "n_missing": n_missing} for record in found]
    return adjusted(pd.DataFrame.from_records(records, columns=_MADE))[_COLUMNS]


_COLUMNS = [
    *("x", "y", "method", "given", "within", "r", "low", "high", "interval", "interval_type"),
    *("p", "n_permutations", "p_holm", "p_bh"),
    *("n", "n_missing", "n_clusters", "nominal", "coverage", "reason", "p_reason"),
]
_MADE = [name for name in _COLUMNS if name not in ("p_holm", "p_bh")]


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


def _check(frame: pd.DataFrame, pair: list[str], others: list[str], methods: Sequence[str], interval: str) -> None:
    """Refuse names that are not there, and clusters, groups and covariates that could be any of several columns."""
    for what, wanted, known in (
        ("columns", [*pair, *others], list(map(str, frame.columns))),
        ("methods", methods, METHODS),
        ("intervals", [interval], INTERVALS),
    ):
        missing = [name for name in wanted if name not in known]
        if missing:
            raise TableError(f"correlate: no such {what} {', '.join(missing)}; there are {', '.join(known)}")
    repeated = _repeated(frame)
    for name in others:
        if name in repeated:
            raise TableError(f"correlate: several columns are called {name}; rename all but one")


def _repeated(frame: pd.DataFrame) -> set[str]:
    """The names that several columns bear."""
    return set() if frame.columns.is_unique else set(frame.columns[frame.columns.duplicated()])


def _numbers(frame: pd.DataFrame, names: list[str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The columns as floats, and why some of them are none (they are NaN throughout)."""
    columns: dict[str, pd.Series] = {}
    unusable: dict[str, str] = {}
    repeated = _repeated(frame)
    for name in names:
        if name in repeated:
            unusable[name] = f"several columns are called {name}"
            columns[name] = pd.Series(np.nan, index=frame.index)
            continue
        columns[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
        if frame[name].notna().any() and columns[name].isna().all():
            unusable[name] = f"{name} holds no numbers"
    return pd.DataFrame(columns, index=frame.index), unusable


def _alone(groups: pd.Series, rows: np.ndarray) -> np.ndarray:
    """Which of the ``rows`` have none beside them in their group."""
    return rows & ~groups.where(rows).duplicated(keep=False).to_numpy()


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
