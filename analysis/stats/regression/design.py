"""From a frame to a model's design: complete rows, independent columns, and in words what stands in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.stats.correlation import constant, indicator_columns
from invariscope.analysis.stats.regression.model import LogitOLS, Model, need
from invariscope.analysis.stats.resampling import Array, cluster_codes
from invariscope.base.words import are, counted

MIN_FIT_CLUSTERS = 3
"""With fewer clusters there is no cluster-robust error."""


@dataclass(frozen=True)
class Design:
    """The complete rows of a model.

    ``y``: the score ``(n,)``, ``trials``: images behind each (ones where the model does not ask), ``terms``: the
    columns of the design by name, intercept first, the model's numbers next; ``left_out``: columns that are not in it
    and why; ``codes``: each row's cluster as 0 … G-1, ``clusters``: their names; ``reason``: why the model cannot be
    fitted, or empty.
    """

    y: Array
    trials: Array
    terms: dict[str, Array]
    left_out: dict[str, str]
    codes: np.ndarray
    clusters: Array
    n_missing: int
    reason: str

    @property
    def matrix(self) -> Array:
        """``(n, k)``."""
        return np.column_stack(list(self.terms.values()))

    @property
    def counts(self) -> dict[str, Any]:
        """``n``, ``n_missing`` and ``n_clusters``, for every row of a result."""
        return {"n": len(self.y), "n_missing": self.n_missing, "n_clusters": len(self.clusters)}


def columns_of(frame: pd.DataFrame, model: Model) -> dict[str, Array]:
    """The model's columns as arrays: numbers as floats, factors and clusters as objects."""
    numbers = _numbers(model)
    need(frame, [*numbers, *model.factors, model.cluster])
    found = {name: pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float) for name in numbers}
    return found | {name: frame[name].to_numpy(dtype=object) for name in (*model.factors, model.cluster)}


def complete(columns: dict[str, Array], model: Model) -> np.ndarray:
    """Which rows have a finite number in every number's column and a value in every other."""
    usable: np.ndarray = np.logical_and.reduce([np.isfinite(columns[name]) for name in _numbers(model)])
    for name in (*model.factors, model.cluster):
        usable = usable & ~pd.isna(columns[name])
    return usable


def assemble(columns: dict[str, Array], model: Model) -> Design:
    """The design of the complete rows."""
    usable = complete(columns, model)
    rows = {name: column[usable] for name, column in columns.items()}
    y, codes = rows[model.y], cluster_codes(rows[model.cluster])[0]
    trials = rows[model.trials] if isinstance(model, LogitOLS) else np.ones(len(y))
    terms, left_out = _independent(rows, model)
    clusters = pd.unique(rows[model.cluster])
    found = Design(y, trials, terms, left_out, codes, clusters, int((~usable).sum()), reason="")
    return Design(**{**found.__dict__, "reason": obstacle(found, model)})


def candidates(rows: dict[str, Array], model: Model) -> dict[str, Array]:
    """Every column that the model asks for, by name: the intercept, factors as indicators, numbers last to first."""
    factors = pd.DataFrame({name: rows[name] for name in model.factors if len(pd.unique(rows[name])) > 1})
    indicators = indicator_columns(factors, factors.columns.tolist())
    return {
        "intercept": np.ones(len(rows[model.y])),
        **{str(name): column.to_numpy() for name, column in indicators.items()},
        **{name: rows[name] for name in reversed(model.numeric)},
    }


def _numbers(model: Model) -> list[str]:
    trials = [model.trials] if isinstance(model, LogitOLS) else []
    return list(dict.fromkeys([model.y, *model.numeric, *trials]))


def _independent(rows: dict[str, Any], model: Model) -> tuple[dict[str, Array], dict[str, str]]:
    """Independent columns by name, intercept first, and why the others are left out; ``numeric[0]`` yields to all."""
    n = len(rows[model.y])
    columns: dict[str, Array] = {}
    left_out: dict[str, str] = {}
    basis = np.empty((n, 0))
    for name, column in candidates(rows, model).items():
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


def obstacle(design: Design, model: Model) -> str:
    """In words why a model cannot be fitted to a design, or nothing."""
    y, focal = design.y, model.numeric[0]
    if not len(y):
        return "no row has a value in every column of the model"
    if len(y) <= len(design.terms):
        return (
            f"{counted(len(y), 'complete row')} {are(len(y))} too few for {counted(len(design.terms), 'coefficient')}"
        )
    if y.min() < 0 or y.max() > 1:
        return (
            f"{model.y} leaves [0, 1], where the {'logit' if isinstance(model, LogitOLS) else 'fractional logit'} lives"
        )
    if design.trials.min() <= 0:
        return "a row has no images behind its score"
    if constant(y):
        return f"{model.y} is constant ({y[0]:.6g})"
    if focal in design.left_out:
        return design.left_out[focal]
    n = len(design.clusters)
    if n < MIN_FIT_CLUSTERS:
        return f"{counted(n, 'cluster')} ({model.cluster}) {are(n)} fewer than {MIN_FIT_CLUSTERS}: no standard error"
    return ""
