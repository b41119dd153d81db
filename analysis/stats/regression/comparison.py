"""What a slope adds to a model without it: in sample, by tests, and for groups that took no part in the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from invariscope.analysis.stats.coverage import MIN_CLUSTERS, MIN_DF
from invariscope.analysis.stats.regression.design import Design, assemble, candidates, columns_of, complete
from invariscope.analysis.stats.regression.estimate import Coefficients, binomial_deviance, estimate, logits
from invariscope.analysis.stats.regression.model import LogitOLS, Model, need
from invariscope.analysis.stats.regression.refits import Refits
from invariscope.analysis.stats.regression.sandwich import bias_reduced
from invariscope.analysis.stats.resampling import Array

HOLD_OUT = ("architecture", "operator")

MOST_FITTED = 4_000_000
"""Rows × fits of one column's held-out values: more values are held out several at a time."""
COMPARISON_COLUMNS = [
    *("model", "y", "given", "measure", "held_out_kind", "held_out", "baseline", "with_x", "difference"),
    *("statistic", "df", "p", "n", "n_clusters", "note", "reason"),
]
_INDEPENDENT = "supposes independent rows, which clustered checkpoints are not: read the Wald test"
_WITHOUT_FACTOR = "both models without {} as a factor, whose value is new"


def compare(frame: pd.DataFrame, model: Model, hold_out: Sequence[str] = HOLD_OUT) -> pd.DataFrame:
    """The model against the same without ``numeric[0]``, on the same rows.

    ``measure``, with its value for the model without (``baseline``) and with it (``with_x``) and their ``difference``:

    * ``R2`` of ``LogitOLS`` (on the logit scale), ``deviance R2`` = ``1 - D/D₀`` of
      the fractional logit (Cameron & Windmeijer 1996);
    * ``likelihood ratio``: ``n log(RSS₀/RSS₁)`` of the least squares, chi-squared with 1 degree of freedom, which
      supposes independent rows; ``Wald``: the squared t of CR2 with Satterthwaite's ``df``;
    * ``RMSE`` and ``MAE`` of the predicted score for each value of each column of ``hold_out``, fitted on the others,
      and over all of them (``held_out`` = ``all``). That column is then no factor of either model. A value whose rows
      have a level of another factor that no other row has gets the reason, and is not in ``all``.
      More values than :data:`MOST_FITTED` allows are held out several at a time, which ``note`` says.

    ``p`` is given only from ``coverage.MIN_CLUSTERS`` clusters on, of ``Wald`` from ``coverage.MIN_DF`` degrees of
    freedom. ``note`` and ``reason``: what to bear
    in mind, and why there is no number.

    Raises:
        TableError: the frame lacks a column.
    """
    columns = columns_of(frame, model)
    need(frame, hold_out)
    records = _in_sample(columns, model)
    for kind in hold_out:
        records += _out_of_sample(columns, frame[kind].to_numpy(dtype=object), _without_factor(model, kind), kind)
    given = " + ".join([*model.numeric[1:], *model.factors])
    blank: dict[str, Any] = dict.fromkeys(COMPARISON_COLUMNS, np.nan)
    blank |= dict.fromkeys(("held_out_kind", "held_out", "note", "reason"), "")
    shared = {"model": model.name, "y": model.y, "given": given}
    return pd.DataFrame([{**blank, **shared, **record} for record in records], columns=COMPARISON_COLUMNS)


def _without_factor(model: Model, kind: str) -> Model:
    """The model without the factor ``kind``."""
    return replace(model, factors=tuple(name for name in model.factors if name != kind))


def _in_sample(columns: dict[str, Array], model: Model) -> list[dict[str, Any]]:
    least_squares = isinstance(model, LogitOLS)
    measure = "R2" if least_squares else "deviance R2"
    design = assemble(columns, model)
    counts = {"n": len(design.y), "n_clusters": len(design.clusters)}
    found = design.reason or estimate(design, model)
    without = replace(design, terms={k: v for k, v in design.terms.items() if k != model.numeric[0]})
    base = found if isinstance(found, str) else estimate(without, model)
    if isinstance(found, str) or isinstance(base, str):
        reason = found if isinstance(found, str) else base
        return [{**counts, "measure": name, "reason": reason} for name in (measure, "Wald")]
    explained = [_explained(design, one, least_squares) for one in (base, found)]
    record = {"measure": measure, "baseline": explained[0], "with_x": explained[1]}
    records = [{**counts, **record, "difference": explained[1] - explained[0]}]
    enough = len(design.clusters) >= MIN_CLUSTERS
    if least_squares:
        ratio = len(design.y) * float(np.log((base.residual @ base.residual) / (found.residual @ found.residual)))
        p = {"p": float(stats.chi2.sf(ratio, 1))} if enough else {}
        records.append(
            {**counts, "measure": "likelihood ratio", "statistic": ratio, "df": 1, **p, "note": _INDEPENDENT}
        )
    return [*records, {**counts, "measure": "Wald", **_wald(design, found, model)}]


def _wald(design: Design, found: Coefficients, model: Model) -> dict[str, Any]:
    index = list(design.terms).index(model.numeric[0])
    sandwich = bias_reduced(found.design, design.codes)
    t, df = found.params[index] / sandwich.errors(found.residual)[index], float(sandwich.df[index])
    if not np.isfinite(t):
        return {"reason": "no test: the slope rests on a single cluster"}
    p = {"p": float(2 * stats.t.sf(abs(t), df))} if df >= MIN_DF else {}
    return {"statistic": float(t**2), "df": df, **p}


def _explained(design: Design, found: Coefficients, least_squares: bool) -> float:
    if least_squares:
        y = logits(design.y, design.trials)
        return 1 - float(found.residual @ found.residual) / float(((y - y.mean()) ** 2).sum())
    return 1 - binomial_deviance(design.y, found.mean) / binomial_deviance(
        design.y, np.full(len(design.y), design.y.mean())
    )


def _out_of_sample(columns: dict[str, Array], labels: Array, model: Model, kind: str) -> list[dict[str, Any]]:
    usable = complete(columns, model) & ~pd.isna(labels)
    rows, labels = {name: column[usable] for name, column in columns.items()}, labels[usable]
    values = sorted(set(labels), key=str)
    shared = {"held_out_kind": kind, "note": _WITHOUT_FACTOR.format(kind)}
    if len(values) < 2:
        reason = f"no two values of {kind}: nothing can be held out"
        return [{**shared, "held_out": "all", "measure": name, "n": len(labels), "reason": reason} for name in _LOSSES]
    errors = np.full((2, len(labels)), np.nan)
    reasons: dict[str, str] = {}
    fits = [Refits(rows, one) for one in (replace(model, numeric=model.numeric[1:]), model)]
    folds = max(MOST_FITTED // max(len(labels), 1), 2)
    if len(values) > folds:
        shared["note"] += f"; held out in {folds:,} folds of several {kind}s each"
    for together in [values[fold::folds] for fold in range(min(folds, len(values)))]:
        test = pd.Series(labels).isin(together).to_numpy()
        for place, refits in enumerate(fits):
            predicted = _predict(refits, test)
            if isinstance(predicted, str):
                reasons |= dict.fromkeys(together, predicted)
            else:
                errors[place, test] = rows[model.y][test] - predicted
    records = [
        {**shared, "held_out": str(value), **loss}
        for value in values
        for loss in _losses(errors[:, labels == value], reasons.get(value, ""))
    ]
    told = np.isfinite(errors).all(axis=0)
    note = f"without {', '.join(map(str, reasons))}, which have no number" if reasons else ""
    return records + [
        {**shared, "held_out": "all", **loss} | ({"note": f"{shared['note']}; {note}"} if note else {})
        for loss in _losses(errors[:, told], "" if told.any() else next(iter(reasons.values()), ""))
    ]


_LOSSES = {
    "RMSE": lambda errors: np.sqrt((errors**2).mean(axis=1)),
    "MAE": lambda errors: np.abs(errors).mean(axis=1),
}


def _losses(errors: Array, reason: str) -> list[dict[str, Any]]:
    if reason:
        return [{"measure": name, "n": errors.shape[1], "reason": reason} for name in _LOSSES]
    found = {name: loss(errors) for name, loss in _LOSSES.items()}
    return [
        {"measure": name, "baseline": a, "with_x": b, "difference": b - a, "n": errors.shape[1]}
        for name, (a, b) in found.items()
    ]


def _predict(refits: Refits, test: np.ndarray) -> Array | str:
    """Predicted scores of the test rows from a fit on the others; in words where that cannot be fitted."""
    rows, model = refits.columns, refits.model
    determined = refits.determined(test)
    for name in model.factors if not determined else ():
        unseen = sorted(set(rows[name][test]) - set(rows[name][~test]), key=str)
        if unseen:
            return f"without it: no row has the {name} {', '.join(map(str, unseen))}"
    design, found = refits.without(test)
    if isinstance(found, str):
        return f"without it: {found}"
    every = refits.whole[0].terms if determined else candidates(rows, model)
    matrix = np.column_stack([every[name][test] for name in design.terms])
    predicted: Array = special.expit(matrix @ found.params)
    return predicted
