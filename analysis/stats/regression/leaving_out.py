"""Influence: what a slope becomes when one operator, data set or architecture is left out, and Cook's distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.stats.regression.design import Design, columns_of
from invariscope.analysis.stats.regression.estimate import Coefficients
from invariscope.analysis.stats.regression.model import Model, need
from invariscope.analysis.stats.regression.refits import Fitted, Refits
from invariscope.analysis.stats.regression.sandwich import bias_reduced, half_widths, plain
from invariscope.analysis.stats.regression.slopes import ONE_CLUSTER, mundlak

LEFT_OUT = ("operator", "data", "architecture")

MOST_REFITTED = 4_000_000
"""Rows × values that are left out of one column: of more values those of the largest first-order influence are."""
INFLUENCE_COLUMNS = [
    *("model", "y", "term", "left_out_kind", "left_out", "estimate", "low", "high", "interval", "df", "change"),
    *("cooks_distance", "n", "n_clusters", "reason"),
]


def leave_one_out(
    frame: pd.DataFrame, model: Model, columns: Sequence[str] = LEFT_OUT, *, within: str | None = None
) -> pd.DataFrame:
    """The first slope with every value of each column left out in turn; the first row leaves nothing out.

    ``within`` names the groups of a within-between model (the slope is then the one inside them, with the groups' means
    taken anew from the rows that are left). Columns: ``change`` = estimate - the estimate from all rows;
    ``cooks_distance`` = ``d' V^-1 d / k`` for the change ``d (k,)`` in the coefficients that both fits have, ``V``
    their part of ``φ (X'X)^-1``, ``X`` the (working) design of all rows and ``φ`` its residual variance (Cook 1977;
    Pregibon 1981 for the logit); every row is a refit; ``reason`` says why there is no number. Where a column has more
    values than :data:`MOST_REFITTED` allows, those with the largest first-order influence on the slope are left out,
    and a row without a value says so.

    Raises:
        TableError: the frame lacks a column, or has several of its name.
    """
    need(frame, columns)
    unsplit = model
    if within is not None:
        frame, model = mundlak(frame, unsplit, within)
    refits = Refits(columns_of(frame, model), model)
    whole = refits.whole
    records = [_record(whole, whole, model)]
    for column in columns:
        labels = frame[column].to_numpy(dtype=object)
        values = sorted({value for value in labels if not pd.isna(value)}, key=str)
        most = max(MOST_REFITTED // max(len(frame), 1), 1)
        if len(values) > most:
            told = f"of {len(values):,} the {most:,} of the largest first-order influence were left out"
            records.append({"n": 0, "n_clusters": 0, "left_out_kind": column, "reason": told})
            values = _most_influential(refits, labels, values, most)
        for value in values:
            left_out = {"left_out_kind": column, "left_out": str(value)}
            if len(values) == 1:
                reason = f"{value} is the only value of {column}: nothing is left without it"
                records.append({"n": 0, "n_clusters": 0, "reason": reason, **left_out})
                continue
            # The means of groups that stay do not change where whole groups go.
            if within in (None, column):
                found = refits.without(labels == value)
            else:
                rest = columns_of(mundlak(frame[labels != value], unsplit, within or "")[0], model)
                found = Refits(rest, model).whole
            records.append({**_record(found, whole, model), **left_out})
    shared = {"model": model.name, "y": model.y, "term": model.numeric[0], "interval": model.interval}
    blank = {**dict.fromkeys(INFLUENCE_COLUMNS, np.nan), "left_out_kind": "", "left_out": "", "reason": ""}
    return pd.DataFrame([{**blank, **shared, **record} for record in records], columns=INFLUENCE_COLUMNS)


def _most_influential(refits: Refits, labels: np.ndarray, values: list[Any], most: int) -> list[Any]:
    """The values without whose rows the first slope would move most in the first step of a fit, in their order."""
    design, found = refits.whole
    if isinstance(found, str):
        return values[:most]
    basis, triangle = np.linalg.qr(found.design)
    step = (basis @ np.linalg.inv(triangle).T)[:, list(design.terms).index(refits.model.numeric[0])] * found.residual
    of_value = pd.Series(step).groupby(labels[refits.usable]).sum().abs()
    chosen = set(of_value.nlargest(most).index)
    return [value for value in values if value in chosen]


def _record(fitted: Fitted, whole: Fitted, model: Model) -> dict[str, Any]:
    (design, found), (all_rows, reference) = fitted, whole
    counts = {"n": len(design.y), "n_clusters": len(design.clusters)}
    if isinstance(found, str):
        return {**counts, "reason": found}
    index = list(design.terms).index(model.numeric[0])
    sandwich = (bias_reduced if model.interval == "CR2" else plain)(found.design, design.codes)
    value, half = float(found.params[index]), float(half_widths(sandwich, found.residual)[index])
    record = {**counts, "estimate": value, "low": value - half, "high": value + half, "df": float(sandwich.df[index])}
    if not isinstance(reference, str):
        before = float(reference.params[list(all_rows.terms).index(model.numeric[0])])
        record |= {"change": value - before, "cooks_distance": _cook(design, found, all_rows, reference)}
    return record if np.isfinite(half) else {**record, "reason": ONE_CLUSTER}


def _cook(design: Design, found: Coefficients, all_rows: Design, reference: Coefficients) -> float:
    """Cook's distance over the coefficients that both fits have: leaving a group out can take a factor's level away."""
    n, k = reference.design.shape
    variance = float(reference.residual @ reference.residual) / (n - k)
    mine, theirs = list(design.terms), list(all_rows.terms)
    common = [name for name in theirs if name in mine]
    moved = np.array([found.params[mine.index(c)] - reference.params[theirs.index(c)] for c in common])
    places = [theirs.index(name) for name in common]
    scale = np.linalg.norm(reference.design, axis=0)
    inverse = np.linalg.inv(np.linalg.qr(reference.design / scale, mode="r"))
    covariance = (inverse @ inverse.T)[np.ix_(places, places)] * variance
    moved = moved * scale[places]
    return float(moved @ np.linalg.solve(covariance, moved)) / len(common)
