"""Fits as tidy rows: one model, slopes within and between groups, and the slope inside each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.stats.cells import operator_cells
from invariscope.analysis.stats.coverage import MIN_CLUSTERS, MIN_DF
from invariscope.analysis.stats.regression.design import Design, assemble, columns_of, complete
from invariscope.analysis.stats.regression.estimate import Coefficients, estimate
from invariscope.analysis.stats.regression.model import LogitOLS, Model, need, table
from invariscope.analysis.stats.regression.sandwich import (
    bias_reduced,
    half_widths,
    information,
    interval_coverage,
    plain,
)
from invariscope.analysis.stats.regression.wild import wild_bootstrap_t
from invariscope.analysis.stats.resampling import Array
from invariscope.base.errors import TableError

MIN_SPREAD = 1e-3
"""A group whose MSB has a smaller standard deviation has no slope: it would be one of measurement error."""

_ROUNDING = 1e-12
"""Deviations below this share of the column's largest value are rounding of a mean, and 0."""

_NO_INFORMATION = 1e-12
"""A cluster with no larger share in the information on a slope has none but rounding."""

ONE_CLUSTER = "no interval: the coefficient rests on a single cluster"


def fit(frame: pd.DataFrame, model: Model, *, simulate: bool = True) -> pd.DataFrame:
    """Fit the model; one row per term (``wild bootstrap-t``: one row, that of the first slope).

    Columns: ``estimate, se, low, high`` (nominal 95 %) in logits per unit of the term, ``interval`` and ``df`` as
    ``Model`` says, ``p`` (CR2: from ``coverage.MIN_DF`` degrees of freedom on; the others: from
    ``coverage.MIN_CLUSTERS`` clusters on), ``effect`` = average change of ``y`` per unit (``slope · mean μ(1-μ)``),
    ``n``, ``n_missing``, ``n_clusters`` (of a number those that say anything of its slope: a run that is alone in its
    cell says nothing of one inside cells that are factors), ``effective_clusters`` = 1/Σ share² of the clusters' shares
    in the information on the slope, ``leading`` = the clusters with the largest shares, ``coverage`` = share of
    simulated data sets of this very design (same columns, fitted means and intra-cluster correlation, Gaussian errors)
    whose interval holds the truth (unless ``simulate`` is off), ``reason``.

    Raises:
        TableError: the frame lacks a column, or a wild bootstrap is asked of another model than least squares.
    """
    if model.interval == "wild bootstrap-t" and not isinstance(model, LogitOLS):
        raise TableError(f"{model.name}: the wild bootstrap-t is for LogitOLS only; choose the interval CR2 or t")
    return table(model, fit_rows(columns_of(frame, model), model, simulate))


PARTS = ("within", "between", "between_cells")
"""What :func:`split` makes of a column, as its names end."""


def split(frame: pd.DataFrame, columns: Sequence[str], group: str) -> pd.DataFrame:
    """Each column in three parts that add up to it: ``<column>_within``, the deviation from the mean of the row's cell
    (:func:`invariscope.analysis.stats.cells.operator_cells`); ``<column>_between``, the group's mean;
    ``<column>_between_cells``, the mean of the cell less that of its group.
    """
    names = list(dict.fromkeys(columns))
    values = frame[names].to_numpy(dtype=float)
    of_group, of_cell = (_means(values, labels) for labels in (frame[group], operator_cells(frame, group)))
    rounding = _ROUNDING * np.fmax.reduce(np.abs(values), axis=0, initial=0.0)
    parts = (values - of_cell, of_group, of_cell - of_group)
    kept = [np.where(np.abs(part) > rounding, part, 0.0) for part in parts]
    made = {f"{name}_{part}": kept[j][:, i] for i, name in enumerate(names) for j, part in enumerate(PARTS)}
    return frame.assign(**made)


def _means(values: Array, labels: pd.Series) -> Array:
    """Each row's mean of ``values (n, k)`` over the rows of its label; NaN without one."""
    codes, known = pd.factorize(labels.to_numpy(dtype=object))
    sums = np.column_stack([np.bincount(codes + 1, column, minlength=len(known) + 1) for column in values.T])
    means = sums / np.maximum(np.bincount(codes + 1, minlength=len(known) + 1), 1)[:, None]
    means[0] = np.nan
    return means[codes + 1]


def mundlak(frame: pd.DataFrame, model: Model, group: str = "operator") -> tuple[pd.DataFrame, Model]:
    """Frame and model of :func:`within_between`: the complete rows with the split columns, and the terms in order.

    Where every group is one cell there is no part between cells, and no term for it.
    """
    need(frame, [group])
    columns = columns_of(frame, model)
    usable = complete(columns, model) & frame[group].notna().to_numpy()
    numbers = {name: columns[name][usable] for name in model.numeric}
    kept = split(frame[usable].assign(**numbers), model.numeric, group)
    several = operator_cells(kept, group).nunique() > kept[group].nunique()
    terms = (f"{name}_{part}" for name in model.numeric for part in (PARTS if several else PARTS[:2]))
    return kept, replace(model, numeric=tuple(terms))


def within_between(
    frame: pd.DataFrame, model: Model, group: str = "operator", *, simulate: bool = True
) -> pd.DataFrame:
    """The model with every numeric column split into group mean, cell mean and the deviation from it (Mundlak 1978).

    Terms ``<column>_within``, the slope inside the cells (:func:`split`) that no difference between groups,
    architectures or paddings can feign; ``<column>_between`` of the groups' means; ``<column>_between_cells`` of the
    cells' means about those of their groups. Rows with a missing value in any column of the model or in
    ``group`` are left out before the means are taken.
    """
    kept, parts = mundlak(frame, model, group)
    found = fit(kept, parts, simulate=simulate)
    return found.assign(n_missing=found["n_missing"] + len(frame) - len(kept))


def group_slopes(frame: pd.DataFrame, model: Model, group: str) -> pd.DataFrame:
    """The model's first slope inside each value of ``group``, fitted on that group's rows alone; one row per value.

    A group where the column's standard deviation inside the levels of the factors is below :data:`MIN_SPREAD` gets no
    slope but the reason; where no row has a value of ``group``, one row says so.
    """
    need(frame, [group])
    columns, focal = columns_of(frame, model), model.numeric[0]
    codes, values = pd.factorize(frame[group].astype(object), sort=True)
    records = []
    for code, value in enumerate(values):
        rows = {name: column[codes == code] for name, column in columns.items()}
        spread = _spread(rows, focal, model.factors)
        if spread < MIN_SPREAD:
            reason = f"{focal} hardly varies here (standard deviation {spread:.1g})"
            found: dict[str, Any] = {"term": focal, "n": len(rows[focal]), "reason": reason}
        else:
            found = next(record for record in fit_rows(rows, model) if record["term"] == focal)
        records.append({**found, "group": f"{group}={value}"})
    if not records:
        reason = f"no row has a value of {group}: there is no group to fit"
        records.append({"term": focal, "n": 0, "n_missing": len(frame), "n_clusters": 0, "reason": reason})
    return table(model, records)


def _spread(rows: dict[str, Array], focal: str, factors: Sequence[str]) -> float:
    """Standard deviation of a column inside the levels of the factors; NaN where it has no number."""
    column = pd.Series(rows[focal])
    if factors:
        column = column - column.groupby([rows[name] for name in factors], dropna=False).transform("mean")
    finite = column[np.isfinite(column)]
    return float(finite.std(ddof=0)) if len(finite) else np.nan


def fit_rows(columns: dict[str, Array], model: Model, simulate: bool = True) -> list[dict[str, Any]]:
    """The rows of :func:`fit` as records."""
    design = assemble(columns, model)
    found = design.reason or estimate(design, model)
    if isinstance(found, str):
        return [{**design.counts, "term": name, "reason": found} for name in model.numeric]
    if model.interval == "wild bootstrap-t":
        return [_wild_row(design, found, model, simulate)]
    make = bias_reduced if model.interval == "CR2" else plain
    sandwich = make(found.design, design.codes)
    errors, halves = sandwich.errors(found.residual), half_widths(sandwich, found.residual)
    coverage = np.full(len(errors), np.nan)
    if simulate:
        coverage = interval_coverage(found.design, found.residual, sandwich, design.codes)
    records = []
    for index, name in enumerate(design.terms):
        value, se, df = float(found.params[index]), float(errors[index]), float(sandwich.df[index])
        record = {**design.counts, "term": name, "estimate": value, "se": se, "df": df, "coverage": coverage[index]}
        record |= {"low": value - halves[index], "high": value + halves[index]}
        if df >= MIN_DF if model.interval == "CR2" else len(design.clusters) >= MIN_CLUSTERS:
            record["p"] = float(2 * stats.t.sf(abs(value / se), df))
        if name in model.numeric:
            record |= _of_interest(design, found, index)
        records.append(record if np.isfinite(se) else {**record, "reason": ONE_CLUSTER})
    return records + [{**design.counts, "term": name, "reason": text} for name, text in design.left_out.items()]


def _of_interest(design: Design, found: Coefficients, index: int) -> dict[str, Any]:
    """The effect of a number's slope, and which clusters it rests on."""
    shares = information(found.design, index, design.codes)
    first = [cluster for cluster in np.argsort(-shares, kind="stable")[:3] if shares[cluster] >= 0.1]
    leading = ", ".join(f"{design.clusters[cluster]} {100 * shares[cluster]:.0f} %" for cluster in first)
    effect = float(found.params[index]) * found.slope_to_score
    counts = {"n_clusters": int((shares > _NO_INFORMATION).sum()), "effective_clusters": float(1 / (shares**2).sum())}
    return {"effect": effect, **counts, "leading": leading}


def _wild_row(design: Design, found: Coefficients, model: Model, simulate: bool) -> dict[str, Any]:
    index = list(design.terms).index(model.numeric[0])
    outcome = found.design @ found.params + found.residual
    result = wild_bootstrap_t(found.design, outcome, design.codes, index, simulate=simulate)
    record = {**design.counts, "term": model.numeric[0], "estimate": float(found.params[index]), "se": result.se}
    record |= {"low": result.low, "high": result.high, "coverage": result.coverage, "reason": result.reason}
    if len(design.clusters) >= MIN_CLUSTERS:
        record["p"] = result.p
    return {**record, **_of_interest(design, found, index)}
