"""Doses: runs that differ in the strength of their operator alone, and what rises or falls with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.designs.common import EQUAL, all_equal, cells, clustered_fit, design_table
from invariscope.analysis.tables.plans import shifted
from invariscope.base.errors import TableError
from invariscope.collectors.schema import PRIMARY_READING

ALIKE = ("architecture", "padding_mode", "training_data", "seed")
"""What the runs of one family have in common, beside :func:`families`' further factors."""

LEAST_STRENGTHS = 3
"""Strengths that a family must have."""

_ARGUMENT = re.compile(r"(\w+)=([^,()]+)")
_FAMILIES = "families of runs"


def dose_trends(
    frame: pd.DataFrame,
    *,
    scores: Sequence[str] = ("consistency", "fidelity"),
    reading: str = PRIMARY_READING,
    accuracy: str = "accuracy",
) -> pd.DataFrame:
    """How MSB, accuracy and scores follow the strength of an operator, and scores MSB, family by family.

    ``frame`` is :func:`join`'s, or :func:`join_pixels`'s with its scores and ``accuracy="miou"``; the last snapshots
    are used. A *family* are the runs of one architecture, padding, training data, seed and further factors
    (:func:`families`) with at least three strengths of an operator; only families that have all of its strengths enter
    (``n_missing`` counts the others). Several runs of one strength enter as their mean. Families are the clusters; a
    mean has no interval where all of them are equal. Per data set, shift plan and operator:

    * ``trend``: Spearman's correlation of strength (``x``) and ``y`` inside each family, its mean over families with a
      t interval, and ``p`` of Page's test for ordered alternatives (two-sided: twice the smaller), of which that mean
      is the statistic;
    * ``end to end``: ``y`` at the highest less at the lowest strength, mean over families with a t interval;
    * ``share reached``: the mean change up to each strength as a share of the mean change from end to end, with a
      jackknife over families; only where the change from end to end is clear of zero;
    * ``rank correlation``: as ``trend`` (without Page's test) with MSB in the place of the strength;
    * ``slope``: of a score on MSB with an intercept per family, alone and given accuracy, errors clustered by family.

    Returns:
        One row per number, with the columns :data:`invariscope.analysis.designs.COLUMNS`; none without such families.

    Raises:
        TableError: the frame lacks a column.
    """
    scores = [name for name in scores if name in frame.columns]
    needed = ["operator", "strength", "final", "data", accuracy, reading, *ALIKE]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise TableError(f"doses need the columns {', '.join(missing)}: give the frame of invariscope.analysis.join")
    rows = shifted(frame[frame["final"] & frame["strength"].notna()])
    if rows.empty:
        return design_table()
    rows = rows.assign(family=families(rows))
    records = []
    for labels, of_cell in cells(rows):
        for operator, of_operator in of_cell.groupby("operator", sort=True):
            levels = of_operator.groupby("family")["strength"].transform("nunique")
            design = of_operator[levels >= LEAST_STRENGTHS]
            if len(design):
                about = {"design": "dose", **labels, "operator": operator, "clusters": _FAMILIES}
                records += [{**about, **row} for row in _Doses(design, reading, tuple(scores), accuracy).rows()]
    return design_table(records)


def families(rows: pd.DataFrame) -> pd.Series:
    """A label per row, the same for the runs of an operator that differ in strength alone.

    They have :data:`ALIKE`, the other arguments of ``operator_spec`` and the columns ``factor_*`` in common, except
    those factors that the operator's strength and its other arguments determine. Values are compared by their ``repr``.
    """
    if rows.empty:
        return pd.Series("", rows.index, dtype=object)
    index, rows = rows.index, rows.reset_index(drop=True)
    keys = rows[list(ALIKE)].astype(object).where(rows[list(ALIKE)].notna(), "").astype(str)
    labels = keys.agg("|".join, axis=1)
    factors = [name for name in rows.columns if str(name).startswith("factor_")]
    for _, of_operator in rows.groupby("operator", sort=False):
        rest = _without_strength(of_operator)
        design = [of_operator["strength"], rest]
        parts = [labels[of_operator.index], rest]
        for name in factors:
            values = of_operator[name].map(repr)
            if (values.groupby(design, dropna=False).nunique() > 1).any():
                parts.append(name + "=" + values)
        labels[of_operator.index] = pd.concat(parts, axis=1).agg("|".join, axis=1)
    return labels.set_axis(index)


def _without_strength(rows: pd.DataFrame) -> pd.Series:
    """``operator_spec`` without the argument that is the strength: the one whose value it is in most rows."""
    if "operator_spec" not in rows.columns:
        return pd.Series("", rows.index)
    specs = rows["operator_spec"].map(str)
    hits: dict[str, int] = {}
    for spec, strength in zip(specs, rows["strength"], strict=True):
        for argument, value in _ARGUMENT.findall(spec):
            hits[argument] = hits.get(argument, 0) + (_as_number(value) == strength)
    knob = max(hits, key=lambda argument: hits[argument], default="")
    if not hits.get(knob):
        return pd.Series("", rows.index)
    return specs.str.replace(rf"\b{knob}=[^,()]+", "", n=1, regex=True)


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


@dataclass(frozen=True)
class _Doses:
    """The runs of one operator, data set and shift plan that make up families."""

    runs: pd.DataFrame
    reading: str
    scores: tuple[str, ...]
    accuracy: str

    def rows(self) -> Iterator[dict[str, Any]]:
        for y in (self.reading, self.accuracy, *self.scores):
            yield from self._along_strength(y)
        for y in self.scores:
            yield self._rank_correlation(y)
            yield from (self._slope(y, given) for given in ("", self.accuracy))

    @cached_property
    def _cells(self) -> tuple[np.ndarray, tuple[int, int], np.ndarray]:
        """The cell of every run, row-major, in a table of families × strengths; its shape; the strengths in order."""
        family, families = pd.factorize(self.runs["family"], sort=True)
        strength, strengths = pd.factorize(self.runs["strength"].to_numpy(float), sort=True)
        return family * len(strengths) + strength, (len(families), len(strengths)), strengths

    def _wide(self, *columns: str) -> tuple[list[np.ndarray], int]:
        """Families × strengths of each column, of the families that have every strength, and how many have not.

        Runs of which all the columns are finite count; several in one cell enter as their mean.
        """
        cell, shape, _ = self._cells
        values = self.runs[list(columns)].to_numpy(float)
        finite = np.isfinite(values).all(axis=1)
        counts = np.bincount(cell[finite], minlength=shape[0] * shape[1]).reshape(shape)
        whole = (counts > 0).all(axis=1)
        sums = [np.bincount(cell[finite], column[finite], counts.size).reshape(shape) for column in values.T]
        return [total[whole] / counts[whole] for total in sums], int((~whole).sum())

    def _along_strength(self, y: str) -> Iterator[dict[str, Any]]:
        (values,), lost = self._wide(y)
        shared = {"x": "strength", "y": y, "n": values.size, "n_missing": lost, "n_clusters": len(values)}
        if not values.size:
            reason = f"no family has a finite {y} at all {values.shape[1]} strengths"
            yield from ({**shared, "statistic": name, "reason": reason} for name in ("trend", "end to end"))
            return
        ranks = np.broadcast_to(np.arange(values.shape[1], dtype=float), values.shape)
        yield {**shared, "statistic": "trend", **_mean_spearman(ranks, values, y), "p": page_p(values)}
        ends = clustered_fit(values[:, -1] - values[:, 0], [], np.arange(len(values)))
        yield {**shared, "statistic": "end to end", **ends, "n": values.size}
        for strength, column in zip(self._cells[2][1:-1], values.T[1:-1], strict=True):
            share = _share(column - values[:, 0], values[:, -1] - values[:, 0], ends)
            yield {**shared, "statistic": "share reached", "strength": float(strength), **share}

    def _rank_correlation(self, y: str) -> dict[str, Any]:
        (x, values), lost = self._wide(self.reading, y)
        shared = {"x": self.reading, "y": y, "n": values.size, "n_missing": lost, "statistic": "rank correlation"}
        if not values.size:
            return {
                **shared,
                "n_clusters": 0,
                "reason": f"no family has finite {self.reading} and {y} at all strengths",
            }
        return {**shared, "n_clusters": len(values), **_mean_spearman(x, values, y)}

    def _slope(self, y: str, given: str) -> dict[str, Any]:
        names = [self.reading, y, *([given] if given else [])]
        wide, lost = self._wide(*names)
        families = np.repeat(np.arange(len(wide[0])), wide[0].shape[1])
        centred = [(table - table.mean(axis=1, keepdims=True)).ravel() for table in wide]
        fit = clustered_fit(centred[1], [centred[0], *centred[2:]], families, intercept=False)
        return {"x": self.reading, "y": y, "given": given, "statistic": "slope", "n_missing": lost, **fit}


def page_p(values: np.ndarray) -> float:
    """Page's test that the columns of ``(families, strengths)`` rise, or fall, in order: two-sided p.

    Twice the smaller of the two one-sided p-values (Page 1963), at most 1; NaN where every family is constant.
    """
    if values.shape[1] < LEAST_STRENGTHS or len(values) < 2 or (np.ptp(values, axis=1) == 0).all():
        return np.nan
    sides = [stats.page_trend_test(side).pvalue for side in (values, values[:, ::-1])]
    return float(min(1.0, 2 * min(sides)))


def _mean_spearman(x: np.ndarray, y: np.ndarray, name: str) -> dict[str, Any]:
    """Spearman's correlation inside each family (row), averaged over families."""
    ranked = [stats.rankdata(values, axis=1) for values in (x, y)]
    a, b = (values - values.mean(axis=1, keepdims=True) for values in ranked)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    known = scale > 0
    if not known.any():
        return {"reason": f"{name} or what it is ranked by is constant in every family"}
    found = clustered_fit((a * b).sum(axis=1)[known] / scale[known], [], np.arange(known.sum()))
    ends = {name: float(np.clip(found[name], -1.0, 1.0)) for name in ("low", "high")}
    return {**found, **ends, "n": y.size}


def _share(part: np.ndarray, whole: np.ndarray, ends: dict[str, Any]) -> dict[str, Any]:
    """``sum(part) / sum(whole)`` with a jackknife over families."""
    if not np.isfinite(ends["low"]):
        return {"reason": f"the change from end to end has {ends['reason']}"}
    if not ends["low"] * ends["high"] > 0:
        return {"reason": "the change from end to end is not clear of zero"}
    groups = len(part)
    estimate = float(part.sum() / whole.sum())
    without = (part.sum() - part) / (whole.sum() - whole)
    if all_equal(without):
        return {"estimate": estimate, "reason": EQUAL}
    se = float(np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum()))
    half = float(stats.t.ppf(0.975, groups - 1)) * se
    return {"estimate": estimate, "low": estimate - half, "high": estimate + half}
