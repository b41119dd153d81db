"""Swaps: whether scores change with MSB when an operator of a trained network is replaced and its weights stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.designs.common import cells, clustered_fit, clustered_share, design_table
from invariscope.analysis.stats.correlation import correlate
from invariscope.analysis.tables.checkpoints import is_elsewhere
from invariscope.analysis.tables.swapped import EVERY
from invariscope.collectors.schema import PRIMARY_READING

SINGLE = "single sites"
POOLING = "single sites, pooling for pooling"

PLAIN = ("conv", "subsample", "blur(m=1)")
"""Sites and replacements that subsample and pool nothing."""

_NETWORKS = "networks (operator x run)"


def swap_changes(
    frame: pd.DataFrame,
    *,
    scores: Sequence[str] = ("consistency", "fidelity", "kappa"),
    reading: str = PRIMARY_READING,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Do scores change with MSB when an operator is swapped? Of the last snapshots, networks as clusters.

    ``frame`` is :func:`invariscope.analysis.tables.swapped.swap_frame`'s. Per data set and shift plan, for single sites
    together, for those of them that exchange one pooling for another (neither from nor to plain subsampling), for the
    first, middle and last ones, for each kind of site, and for every site at once, with ``x`` the change of MSB (of the
    changed site; over the network where every site is changed) and ``y`` that of a score:

    * ``pearson``, ``spearman``, and ``partial_*`` given the change of accuracy, with the interval of
      :func:`invariscope.analysis.stats.correlation.correlate`;
    * ``slope``: least squares with an intercept, alone and given the change of accuracy, errors clustered by network;
    * ``opposite signs``: share of the swaps, among those in which both change, in which one rises and the other falls,
      with a clustered t interval inside 0 to 1 (all or none: the rule of three over networks); ½ where they have
      nothing to do with each other;
    * ``mean change``: of MSB, accuracy and every score, per replacement, with a clustered t interval; none where all
      networks are equal.

    Returns:
        One row per number, with the columns :data:`COLUMNS`; ``n_missing`` counts swaps without one.
    """
    frame = frame[~is_elsewhere(frame)]
    if frame.empty:
        return design_table()
    scores = [name for name in scores if name in frame.columns]
    records: list[dict[str, Any]] = []
    for labels, of_cell in cells(frame[frame["final"]]):
        about = {"design": "swap", **labels, "clusters": _NETWORKS}
        for sites, rows in _selections(of_cell):
            x = reading if sites == EVERY else f"{reading}_site"
            if x in rows and "accuracy" in rows:
                swaps = _Swaps(rows, x, tuple(scores), resamples, seed)
                records += [{**about, "sites": sites, **row} for row in swaps.records()]
    return design_table(records)


def _selections(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Which swaps are looked at together."""
    single = rows[rows["depth"].notna()]
    yield SINGLE, single
    plain = single["site_kind"].isin(PLAIN) | single["replacement"].isin(PLAIN)
    if 0 < plain.sum() < len(single):
        yield POOLING, single[~plain]
    for sites, chosen in single.groupby("sites", sort=True):
        yield str(sites), chosen
    for kind, chosen in single.groupby("site_kind", sort=True):
        yield f"{kind} sites", chosen
    every = rows[rows["depth"].isna()]
    if len(every):
        yield EVERY, every


@dataclass(frozen=True)
class _Swaps:
    """The swaps of some sites on one data set under one shift plan."""

    rows: pd.DataFrame
    x: str
    scores: tuple[str, ...]
    resamples: int
    seed: int

    def records(self) -> Iterator[dict[str, Any]]:
        yield from self._correlations()
        for y in self.scores:
            yield from (self._slope(y, given) for given in ("", "accuracy"))
            yield self._opposite(y)
        for replacement, chosen in [("", self.rows), *self.rows.groupby("replacement", sort=True)]:
            for y in (self.x, "accuracy", *self.scores):
                yield {"replacement": str(replacement), **self._mean(chosen, y)}

    def _correlations(self) -> Iterator[dict[str, Any]]:
        options: dict[str, Any] = {"clusters": {_NETWORKS: "cluster"}, "permutations": 0}
        options |= {"resamples": self.resamples, "seed": self.seed}
        plain = correlate(self.rows, [self.x], self.scores, methods=("pearson", "spearman"), **options)
        partial = ("partial_pearson", "partial_spearman")
        given = correlate(self.rows, [self.x], self.scores, methods=partial, covariates=["accuracy"], **options)
        kept = ["x", "y", "given", "statistic", "estimate", "low", "high", "n", "n_missing", "n_clusters"]
        for table in (plain, given):
            named = table.rename(columns={"method": "statistic", "r": "estimate"})
            yield from named[[*kept, "nominal", "coverage", "reason"]].to_dict("records")  # type: ignore[misc]

    def _finite(self, *columns: str) -> tuple[pd.DataFrame, int]:
        finite = np.isfinite(self.rows[list(columns)].to_numpy(float)).all(axis=1)
        return self.rows[finite], int((~finite).sum())

    def _slope(self, y: str, given: str) -> dict[str, Any]:
        names = [self.x, *([given] if given else [])]
        rows, lost = self._finite(y, *names)
        fit = clustered_fit(rows[y].to_numpy(), [rows[name].to_numpy() for name in names], rows["cluster"].to_numpy())
        return {"x": self.x, "y": y, "given": given, "statistic": "slope", "n_missing": lost, **fit}

    def _opposite(self, y: str) -> dict[str, Any]:
        rows, lost = self._finite(self.x, y)
        product = (rows[self.x] * rows[y]).to_numpy()
        moved = product != 0
        opposite, clusters = (product[moved] < 0).astype(float), rows["cluster"].to_numpy()[moved]
        fit = clustered_share(opposite, clusters)
        lost += int((~moved).sum())
        return {"x": self.x, "y": y, "statistic": "opposite signs", "n_missing": lost, **fit}

    @staticmethod
    def _mean(rows: pd.DataFrame, y: str) -> dict[str, Any]:
        values = rows[y].to_numpy(float)
        finite = np.isfinite(values)
        fit = clustered_fit(values[finite], [], rows["cluster"].to_numpy()[finite])
        return {"y": y, "statistic": "mean change", "n_missing": int((~finite).sum()), **fit}
