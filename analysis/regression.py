"""Fractional logit with cluster-robust errors: one slope, within-between slopes, and the slope inside each group."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.correlation import NOMINAL, constant, indicator_columns
from analysis.coverage import MIN_CLUSTERS
from analysis.errors import TableError
from analysis.resampling import Array, cluster_codes

MIN_SPREAD = 1e-3
"""A group whose MSB has a smaller standard deviation has no slope: it would be one of measurement error."""

_SIMULATIONS = 1000
_MIN_FIT_CLUSTERS = 3


@dataclass(frozen=True)
class FractionalLogit:
    """``E[y] = 1 / (1 + exp(-(intercept + Σ slope·numeric + factors)))`` for ``y`` in [0, 1] (Papke & Wooldridge 1996).

    Quasi-likelihood estimate (binomial family, logit link); standard errors robust to clusters (``G/(G-1)·(n-1)/(n-k)``
    correction), intervals and p-values from t with ``G - 1`` degrees of freedom. ``numeric[0]`` is the slope that the
    model is about. Factors enter as indicator columns; those of one level, and columns that the others determine, are
    left out.
    """

    name: str
    y: str
    numeric: tuple[str, ...]
    factors: tuple[str, ...] = ()
    cluster: str = "operator"


_COLUMNS = [
    *("model", "y", "term", "group", "estimate", "se", "low", "high", "df", "p", "effect", "n", "n_missing", "cluster"),
    *("n_clusters", "effective_clusters", "leading", "nominal", "coverage", "reason"),
]

_BLANK = {name: "" if name in ("group", "leading", "reason") else np.nan for name in _COLUMNS}


def fit(frame: pd.DataFrame, model: FractionalLogit) -> pd.DataFrame:
    """Fit the model; one row per term.

    Columns: ``estimate, se, low, high`` (nominal 95 %) in logits per unit of the term, ``df``, ``p`` (only from
    :data:`~analysis.coverage.MIN_CLUSTERS` clusters on), ``effect`` = average change of ``y`` per unit (``slope · mean
    μ(1-μ)``), ``n``, ``n_missing``, ``n_clusters``, ``effective_clusters`` = 1/Σ share² of the clusters' shares in the
    information on the slope, ``leading`` = the clusters with the largest shares, ``coverage`` = share of simulated data
    sets of this very design (same columns, fitted means and intra-cluster correlation, Gaussian errors) whose interval
    holds the truth, ``reason``.
    """
    return _frame(model, _fit(_columns(frame, model), model))


def _columns(frame: pd.DataFrame, model: FractionalLogit) -> dict[str, Any]:
    """The model's columns as arrays: numbers as floats, factors and clusters as objects."""
    _need(frame, [model.y, *model.numeric, *model.factors, model.cluster])
    numbers = {name: pd.to_numeric(frame[name], errors="coerce") for name in (model.y, *model.numeric)}
    columns: dict[str, Any] = {name: column.to_numpy(dtype=float) for name, column in numbers.items()}
    return columns | {name: frame[name].to_numpy(dtype=object) for name in (*model.factors, model.cluster)}


def _fit(columns: dict[str, Any], model: FractionalLogit) -> list[dict[str, Any]]:
    usable = np.logical_and.reduce([np.isfinite(columns[name]) for name in (model.y, *model.numeric)])
    for name in (*model.factors, model.cluster):
        usable &= ~pd.isna(columns[name])
    rows = {name: column[usable] for name, column in columns.items()}
    y, (codes, n_clusters) = rows[model.y], cluster_codes(rows[model.cluster])
    shared = {"n": len(y), "n_missing": int((~usable).sum()), "n_clusters": n_clusters}
    terms, left_out = _design(rows, model)
    reason = _obstacle(model, y, terms, left_out, n_clusters)
    if reason:
        return [{**shared, "term": name, "reason": reason} for name in model.numeric]
    design = np.column_stack(list(terms.values()))
    result = _estimate(y, design, codes)
    if isinstance(result, str):
        return [{**shared, "term": name, "reason": result} for name in model.numeric]
    mean = result.mu
    weight = mean * (1 - mean)
    names = pd.unique(rows[model.cluster])
    coverage = _coverage(design, mean, y, codes, n_clusters)
    width = stats.t.ppf((1 + NOMINAL) / 2, n_clusters - 1)
    records = []
    for index, name in enumerate(terms):
        estimate, se = float(result.params[index]), float(result.bse[index])
        p = float(2 * stats.t.sf(abs(estimate / se), n_clusters - 1)) if n_clusters >= MIN_CLUSTERS else np.nan
        record = {**shared, "term": name, "estimate": estimate, "se": se, "df": n_clusters - 1, "p": p}
        record |= {"low": estimate - width * se, "high": estimate + width * se, "coverage": coverage[index]}
        if name in model.numeric:
            record["effect"] = estimate * weight.mean()
            record |= _information(design, weight, index, codes, names)
        records.append(record)
    return records + [{**shared, "term": name, "reason": text} for name, text in left_out.items()]


def split(frame: pd.DataFrame, columns: Sequence[str], group: str) -> pd.DataFrame:
    """Add ``<column>_between`` (the group's mean) and ``<column>_within`` (the deviation from it) for each column."""
    means = {name: frame.groupby(group)[name].transform("mean") for name in columns}
    made = {f"{name}_between": mean for name, mean in means.items()}
    made |= {f"{name}_within": frame[name] - mean for name, mean in means.items()}
    return frame.assign(**made)


def within_between(frame: pd.DataFrame, model: FractionalLogit, group: str = "operator") -> pd.DataFrame:
    """The model with every numeric column split into its group mean and the deviation from it (Mundlak 1978).

    Terms ``<column>_within``, the slope inside the groups that no difference between groups can feign, and
    ``<column>_between``. Rows with a missing value are left out before the means are taken.
    """
    _need(frame, [model.y, *model.numeric, *model.factors, model.cluster, group])
    values = frame[[model.y, *model.numeric]].to_numpy(dtype=float)
    finite = np.isfinite(values).all(axis=1) & frame[group].notna().to_numpy()
    kept = split(frame[finite], model.numeric, group)
    first, *others = model.numeric
    terms = (f"{first}_within", f"{first}_between", *(f"{c}_{part}" for c in others for part in ("within", "between")))
    table = fit(kept, replace(model, numeric=terms))
    return table.assign(n_missing=table["n_missing"] + int((~finite).sum()))


def group_slopes(frame: pd.DataFrame, model: FractionalLogit, group: str) -> pd.DataFrame:
    """The model's first slope inside each value of ``group``, fitted on that group's rows alone; one row per value.

    A group where the column's standard deviation is below :data:`MIN_SPREAD` gets no slope but the reason.
    """
    _need(frame, [group])
    columns, focal = _columns(frame, model), model.numeric[0]
    codes, values = pd.factorize(frame[group].astype(object), sort=True)
    records = []
    for code, value in enumerate(values):
        rows = {name: column[codes == code] for name, column in columns.items()}
        spread = np.nanstd(rows[focal]) if np.isfinite(rows[focal]).any() else np.nan
        if spread < MIN_SPREAD:
            reason = f"{focal} hardly varies here (standard deviation {spread:.1g})"
            found: dict[str, Any] = {"term": focal, "n": len(rows[focal]), "reason": reason}
        else:
            found = next(record for record in _fit(rows, model) if record["term"] == focal)
        records.append({**found, "group": f"{group}={value}"})
    return _frame(model, records)


def _need(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise TableError(
            f"regression: no such columns {', '.join(missing)}; join the tables with `analysis.join` first"
        )


def _frame(model: FractionalLogit, records: list[dict[str, Any]]) -> pd.DataFrame:
    shared = {"model": model.name, "y": model.y, "cluster": model.cluster, "nominal": NOMINAL}
    return pd.DataFrame([{**_BLANK, **shared, **record} for record in records], columns=_COLUMNS)


def _design(rows: dict[str, Any], model: FractionalLogit) -> tuple[dict[str, Array], dict[str, str]]:
    """Independent columns by name, intercept first, and why the others are left out; ``numeric[0]`` yields to all."""
    n = len(rows[model.y])
    factors = pd.DataFrame({name: rows[name] for name in model.factors if len(pd.unique(rows[name])) > 1})
    candidates = {"intercept": np.ones(n)}
    candidates |= {
        str(name): column.to_numpy() for name, column in indicator_columns(factors, factors.columns.tolist()).items()
    }
    candidates |= {name: rows[name] for name in reversed(model.numeric)}
    columns: dict[str, Array] = {}
    left_out: dict[str, str] = {}
    basis = np.empty((n, 0))
    for name, column in candidates.items():
        if n and name != "intercept" and constant(column):
            left_out[name] = f"{name} is constant ({column[0]:.6g})"
            continue
        rest = column - basis @ (basis.T @ column)
        rest = rest - basis @ (basis.T @ rest)
        if np.linalg.norm(rest) <= 1e-8 * np.linalg.norm(column):
            left_out[name] = f"{name} is determined by the other columns"
            continue
        basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
        columns[name] = column
    order = ["intercept", *model.numeric, *columns]
    return {name: columns[name] for name in dict.fromkeys(order) if name in columns}, left_out


def _obstacle(
    model: FractionalLogit, y: Array, columns: dict[str, Array], left_out: dict[str, str], n_clusters: int
) -> str:
    focal = model.numeric[0]
    if not len(y):
        return "no row has a value in every column of the model"
    if len(y) <= len(columns):
        return f"{len(y)} complete rows are too few for {len(columns)} coefficients"
    if y.min() < 0 or y.max() > 1:
        return f"{model.y} leaves [0, 1], where the fractional logit lives"
    if constant(y):
        return f"{model.y} is constant ({y[0]:.6g})"
    if focal in left_out:
        return left_out[focal]
    if n_clusters < _MIN_FIT_CLUSTERS:
        return f"{n_clusters} clusters ({model.cluster}) are fewer than {_MIN_FIT_CLUSTERS}: no standard error"
    return ""


def _estimate(y: Array, design: Array, codes: np.ndarray) -> Any:
    """The fitted statsmodels result, or in words why there is none."""
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import ModelWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelWarning)
        warnings.simplefilter("error", RuntimeWarning)
        try:
            result = sm.GLM(y, design, family=sm.families.Binomial()).fit(
                cov_type="cluster", cov_kwds={"groups": codes, "use_correction": True}, use_t=True, tol=1e-12
            )
        except (ModelWarning, RuntimeWarning, np.linalg.LinAlgError) as problem:
            return f"the fit failed: {str(problem).splitlines()[0]}"
    if not result.converged or not np.isfinite(result.bse).all() or not (result.bse > 0).all():
        return "no finite slope or standard error: the columns separate the scores, or the clusters are too few"
    return result


def _information(design: Array, weight: Array, index: int, codes: np.ndarray, names: Array) -> dict[str, Any]:
    """Each cluster's share in the information on one slope: weighted squares of its column given the others."""
    root = np.sqrt(weight)[:, None]
    others = np.delete(design, index, axis=1) * root
    column = design[:, index] * root[:, 0]
    rest = column - others @ np.linalg.lstsq(others, column, rcond=None)[0]
    shares = np.bincount(codes, rest**2) / (rest**2).sum()
    first = [cluster for cluster in np.argsort(-shares, kind="stable")[:3] if shares[cluster] >= 0.1]
    leading = ", ".join(f"{names[cluster]} {100 * shares[cluster]:.0f} %" for cluster in first)
    return {"effective_clusters": float(1 / (shares**2).sum()), "leading": leading}


def _coverage(design: Array, mean: Array, y: Array, codes: np.ndarray, n_clusters: int) -> Array:
    """Simulated coverage of each coefficient's t interval, from the first-order expansion of the estimator.

    Errors ``sqrt(μ(1-μ)) · (√ρ · cluster + √(1-ρ) · row)``, standard normal, ρ the intra-cluster correlation of the
    Pearson residuals (analysis of variance estimate); the size of the errors cancels.
    """
    n, k = design.shape
    spread = np.sqrt(mean * (1 - mean))
    rho = _intracluster((y - mean) / spread, codes, n_clusters)
    rng = np.random.default_rng(0)
    noise = np.sqrt(rho) * rng.standard_normal((n_clusters, _SIMULATIONS))[codes]
    noise += np.sqrt(1 - rho) * rng.standard_normal((n, _SIMULATIONS))
    noise *= spread[:, None]
    bread = np.linalg.pinv(design.T @ (design * (spread**2)[:, None])) @ design.T
    error = bread @ noise
    residual = noise - (design * (spread**2)[:, None]) @ error
    member = np.zeros((n_clusters, n))
    member[codes, np.arange(n)] = 1.0
    scale = n_clusters / (n_clusters - 1) * (n - 1) / (n - k)
    width = stats.t.ppf((1 + NOMINAL) / 2, n_clusters - 1)
    covered = np.empty(k)
    for index in range(k):
        scores = (member * bread[index]) @ residual
        covered[index] = np.mean(error[index] ** 2 <= width**2 * scale * (scores**2).sum(axis=0))
    return covered


def _intracluster(residual: Array, codes: np.ndarray, n_clusters: int) -> float:
    sizes = np.bincount(codes)
    n = len(residual)
    if n <= n_clusters or n_clusters < 2:
        return 0.0
    means = np.bincount(codes, residual) / sizes
    between = (sizes * (means - residual.mean()) ** 2).sum() / (n_clusters - 1)
    within = ((residual - means[codes]) ** 2).sum() / (n - n_clusters)
    typical = (n - (sizes**2).sum() / n) / (n_clusters - 1)
    total = between + (typical - 1) * within
    return float(np.clip((between - within) / total, 0, 1)) if total > 0 else 0.0
