"""Two networks on the same images: the paired difference of their scores, and McNemar's test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.tables.load import load_table
from invariscope.analysis.tables.plans import PLAN, filled
from invariscope.base.errors import TableError
from invariscope.base.names import unknown

CONSISTENCY, FIDELITY, ACCURACY, STABLE = "consistency", "fidelity", "accuracy", "stable"
"""The scores that are compared; ``stable``: no shift changes the class."""

COLUMNS = [
    *("data", *PLAN, "score", "a", "b", "value_a", "value_b", "difference", "se", "low", "high", "p"),
    *("only_a", "only_b", "n_images", "reason"),
]
_IMAGE = ["data", "data_fingerprint", *PLAN, "plan_hash", "image"]


def compare(tables: Any, a: str, b: str, *, level: float = 0.95) -> pd.DataFrame:
    """Two networks side by side on the same images and shifts, from table ``predictions``.

    ``difference = value_b - value_a`` of means over images; its standard error is that of the images' own differences,
    ``s_d / sqrt(N)``, its interval Student's t with N - 1 degrees of freedom; where all images differ alike, the rule
    of three bounds it. For scores that are yes or no of every image, ``accuracy`` and ``stable`` (no shift changes the
    class), ``only_a`` and ``only_b`` count the images of which one network alone has it, and ``p`` is McNemar's exact
    test: binomial of ``only_a`` in ``only_a + only_b`` with one half. The others have Wilcoxon's signed-rank p.

    Args:
        tables: the folder of tables, or table ``predictions`` as a frame.
        a, b: names of two checkpoints.

    Returns:
        A row per data set, shift plan and score.

    Raises:
        TableError: no predictions, an unknown name, or no images in common under one plan.
    """
    rows = tables if isinstance(tables, pd.DataFrame) else load_table(tables, "predictions")
    if not len(rows):
        raise TableError("table predictions is empty: collect `predictions` first")
    if a == b:
        raise TableError(f"{a} is compared with itself: name two checkpoints")
    for name in (a, b):
        if name not in set(rows["checkpoint"]):
            raise TableError(unknown("checkpoint of table predictions", name, sorted(set(rows["checkpoint"]))))
    first, second = (filled(rows[rows["checkpoint"] == name]) for name in (a, b))
    for name, part in ((a, first), (b, second)):
        if part.duplicated(_IMAGE).any():
            raise TableError(f"table predictions holds {name} twice: collect each setting into a folder of its own")
    both = first.merge(second, on=_IMAGE, suffixes=("_a", "_b"))
    if both.empty:
        raise TableError(f"{a} and {b} have no images under the same shifts in common: collect both on the same data")
    records = []
    for keys, part in both.groupby(["data", *PLAN], dropna=False, sort=False):
        about = {**dict(zip(["data", *PLAN], keys, strict=True)), "a": a, "b": b, "n_images": len(part)}
        values = [_scores(part, end) for end in ("_a", "_b")]
        for score in (CONSISTENCY, FIDELITY, STABLE, ACCURACY):
            records.append({**about, "score": score, **_paired(values[0][score], values[1][score], level)})
    return pd.DataFrame(records, columns=COLUMNS)


def _scores(rows: pd.DataFrame, end: str) -> dict[str, np.ndarray]:
    """Every score of each image, ``(N,)``; yes or no as booleans."""
    prediction = np.stack(rows[f"prediction{end}"].to_list())
    label = rows[f"label{end}"].to_numpy()
    clean = rows[f"clean_prediction{end}"].to_numpy()
    right = prediction == label[:, None]
    hits, k = right.sum(1), prediction.shape[1]
    nan = np.full(len(rows), np.nan)
    return {
        CONSISTENCY: agreement(prediction) if k > 1 else nan,
        FIDELITY: hits * (hits - 1) / (k * (k - 1)) if k > 1 else nan,
        STABLE: (prediction == clean[:, None]).all(1),
        ACCURACY: clean == label,
    }


def agreement(prediction: np.ndarray) -> np.ndarray:
    """Share of the pairs of shifts that agree, of each row of ``(N, K)`` classes, K > 1: with ``c`` shifts of a class,
    ``sum_c c (c - 1) / (K (K - 1))``.
    """
    k = prediction.shape[1]
    ordered = np.sort(prediction, axis=1)
    found = np.zeros(len(prediction))
    for distance in range(1, k):
        found += (ordered[:, distance:] == ordered[:, :-distance]).sum(1)
    shares: np.ndarray = 2 * found / (k * (k - 1))
    return shares


def _paired(a: np.ndarray, b: np.ndarray, level: float) -> dict[str, Any]:
    difference = b.astype(float) - a.astype(float)
    n = len(difference)
    found: dict[str, Any] = {"value_a": float(a.mean()), "value_b": float(b.mean()), "difference": difference.mean()}
    if np.isnan(difference).any():
        return {**found, "reason": "one shift per image has no pairs"}
    if n < 2:
        return {**found, "reason": "one image has no interval"}
    se = float(difference.std(ddof=1) / np.sqrt(n))
    if np.ptp(difference) == 0:
        share = min(1.0, 3.0 / n)
        at = float(difference[0])
        ends = at - share * (1 + at), at + share * (1 - at)
    else:
        half = float(stats.t.ppf((1 + level) / 2, n - 1)) * se
        ends = max(found["difference"] - half, -1.0), min(found["difference"] + half, 1.0)
    found |= {"se": se, "low": ends[0], "high": ends[1], "reason": ""}
    if a.dtype == bool:
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        both = only_a + only_b
        p = float(stats.binomtest(only_a, both, 0.5).pvalue) if both else 1.0
        return {**found, "only_a": only_a, "only_b": only_b, "p": p}
    p = 1.0 if not difference.any() else float(stats.wilcoxon(difference).pvalue)
    return {**found, "p": p}
