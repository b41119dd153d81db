"""Mixed effects: a slope that may differ between architectures, data sets or operators, and how much it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.stats.correlation import NOMINAL
from invariscope.analysis.stats.coverage import MIN_CLUSTERS
from invariscope.analysis.stats.regression.design import Design, assemble, columns_of
from invariscope.analysis.stats.regression.estimate import logits
from invariscope.analysis.stats.regression.model import LogitOLS, table
from invariscope.analysis.stats.regression.reml import MOST_GROUPS, reml
from invariscope.analysis.stats.resampling import Array
from invariscope.base.words import are, counted

MIN_GROUPS = 5
"""Fewer groups tell nothing of the variance between them."""

BOUNDARY = 1e-2
"""A standard deviation below this share of the residual one, or a correlation so near to 1, is at its boundary."""

_AT_BOUNDARY = "its variance is at the boundary of what it can be, 0 or a correlation of 1"
_NO_GAIN = 1e-3


@dataclass(frozen=True)
class MixedEffects:
    """``logit y = intercept + Σ slope·numeric + factors + a_g + b_g·numeric[0] + error``, ``(a_g, b_g)`` normal.

    The logit is that of ``LogitOLS``; ``g`` is the row's value of ``group``, which is
    taken out of ``factors``. ``numeric[0]`` enters as its deviation from the mean, so that ``a_g`` is the group's level
    there. Restricted maximum likelihood (Laird & Ware 1982), the best of several starts (module ``reml``).
    """

    name: str
    y: str
    numeric: tuple[str, ...]
    factors: tuple[str, ...] = ()
    group: str = "operator"
    slopes: bool = True
    trials: str = "n_images"


def fit_mixed(frame: pd.DataFrame, model: MixedEffects) -> pd.DataFrame:
    """Fit the model; rows as ``slopes.fit`` gives them, the groups as clusters.

    Fixed terms have Wald intervals with t of (groups - 1) degrees of freedom, for what is said of other groups. The
    terms ``sd(intercept | group)``, ``sd(x | group)``, ``correlation(intercept, x | group)`` and ``sd(residual)`` are
    estimates alone, in logits. Where the variance of the slopes is at its boundary, or the fit with them does not
    converge, the model is fitted without, and the row ``sd(x | group)`` says so in ``reason``. Below
    :data:`MIN_GROUPS` groups of several rows, or where even random intercepts cannot be fitted, all rows do.

    Raises:
        TableError: the frame lacks a column.
    """
    factors = tuple(name for name in model.factors if name != model.group)
    fixed = LogitOLS(model.name, model.y, model.numeric, factors, model.group, "t", model.trials)
    design = assemble(columns_of(frame, fixed), fixed)
    return table(fixed, _rows(design, model))


def _rows(design: Design, model: MixedEffects) -> list[dict[str, Any]]:
    groups, focal = len(design.clusters), model.numeric[0]
    reason = design.reason
    several = int((np.bincount(design.codes) > 1).sum()) if groups else 0
    if 0 < groups < MIN_GROUPS:
        few = f"{counted(groups, 'group')} ({model.group}) {are(groups)} fewer than {MIN_GROUPS}"
        reason = f"{few}: they tell nothing of their variance"
    elif groups and several < MIN_GROUPS:
        few = f"{counted(several, 'group')} ({model.group}) of several rows {are(several)} fewer than {MIN_GROUPS}"
        reason = f"{few}: what lies between groups cannot be told from the residual"
    found = reason or _reml(design, focal, ["intercept"])
    if isinstance(found, str):
        found = reason or f"no random intercept: {found}; read the least-squares slope instead"
        return [{**design.counts, "term": name, "reason": found} for name in model.numeric]
    dropped: dict[str, str] = {}
    if model.slopes:
        with_slopes = _reml(design, focal, ["intercept", focal])
        if isinstance(with_slopes, str):
            dropped[focal] = with_slopes
        elif with_slopes.likelihood < found.likelihood + _NO_GAIN:
            dropped[focal] = _AT_BOUNDARY
        else:
            found = with_slopes
    lost = [
        {**design.counts, "term": f"sd({name} | {model.group})", "reason": f"left out: {text}"}
        for name, text in dropped.items()
    ]
    return [*_fixed(design, model, found), *_components(design, model, found), *lost]


@dataclass(frozen=True)
class _Found:
    """Coefficients and errors of the fixed columns, the random effects' standard deviations and correlation, REML."""

    params: Array
    errors: Array
    spread: dict[str, float]
    correlation: float
    residual: float
    likelihood: float


def _reml(design: Design, focal: str, effects: list[str]) -> _Found | str:
    """The fit with random ``effects``, or in words why it cannot be used."""
    y, column = logits(design.y, design.trials), design.terms[focal]
    unit = float(column.std())
    x = (column - column.mean()) / unit
    matrix = np.column_stack([x if name == focal else values for name, values in design.terms.items()])
    random = np.column_stack([np.ones(len(y)), x])[:, : len(effects)]
    fitted = reml(matrix, y, random, design.codes)
    if fitted is None:
        return "the fit does not converge"
    if fitted.found < min(2, fitted.starts):
        return "searches from several starts do not agree on a maximum"
    spread = np.sqrt(np.diag(fitted.covariance))
    correlation = float(fitted.covariance[0, -1] / spread.prod()) if len(effects) > 1 and spread.all() else np.nan
    if (spread < BOUNDARY * fitted.residual).any() or abs(correlation) > 1 - BOUNDARY:
        return _AT_BOUNDARY
    units = np.array([unit if name == focal else 1.0 for name in design.terms])
    scaled = dict(zip(effects, spread / np.array([1.0, unit])[: len(effects)], strict=True))
    params, errors = fitted.params / units, fitted.errors / units
    return _Found(params, errors, scaled, correlation, fitted.residual, fitted.likelihood)


def _fixed(design: Design, model: MixedEffects, found: _Found) -> list[dict[str, Any]]:
    groups = len(design.clusters)
    width = stats.t.ppf((1 + NOMINAL) / 2, groups - 1)
    slope = float((design.y * (1 - design.y)).mean())
    records = []
    for name, value, se in zip(design.terms, found.params, found.errors, strict=True):
        record = {**design.counts, "term": name, "estimate": value, "se": se, "df": groups - 1}
        record |= {"low": value - width * se, "high": value + width * se}
        record |= {"effect": value * slope} if name in model.numeric else {}
        record |= {"p": 2 * stats.t.sf(abs(value / se), groups - 1)} if groups >= MIN_CLUSTERS else {}
        records.append(record)
    return records + [{**design.counts, "term": name, "reason": text} for name, text in design.left_out.items()]


def _components(design: Design, model: MixedEffects, found: _Found) -> list[dict[str, Any]]:
    values = {f"sd({name} | {model.group})": value for name, value in found.spread.items()}
    if len(found.spread) > 1:
        values[f"correlation({', '.join(found.spread)} | {model.group})"] = found.correlation
    values["sd(residual)"] = found.residual
    groups = len(design.clusters)
    bounded = f"{groups:,} groups ({model.group}): searched from two starts" if groups > MOST_GROUPS else ""
    return [{**design.counts, "term": name, "estimate": value, "reason": bounded} for name, value in values.items()]
