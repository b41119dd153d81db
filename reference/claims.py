"""What the paper claims, claim by claim, beside what the study's numbers say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import Results, Tables
from analysis.coverage import MIN_CLUSTERS
from reference.lookup import correlation, rows_where
from reference.pairs import differences, interval
from reference.tips import KINDS, TIPS, robust_accuracies
from reference.words import markdown

HOLDS, OPPOSITE, OPEN, MISSING = "holds", "**the opposite holds**", "cannot tell", "-"
ESTIMATE = "no verdict"
_MSB = "msb_corrected"


@dataclass(frozen=True)
class Found:
    """An estimate with its interval (NaN: none), and a word on what it rests on."""

    estimate: float
    low: float
    high: float
    rests_on: str
    few: bool = False

    def told(self, sign: int) -> str:
        """The verdict on a claim that the number is positive (``sign`` 1) or negative (-1), and the number."""
        if not np.isfinite(self.estimate):
            return MISSING
        if not np.isfinite(self.low):
            return f"{OPEN}: {self.estimate:+.2f} ({self.rests_on})"
        ends = sorted((sign * self.low, sign * self.high))
        word = ESTIMATE if self.few else HOLDS if ends[0] > 0 else OPPOSITE if ends[1] < 0 else OPEN
        return f"{word}: {self.estimate:+.2f} ({self.low:+.2f} to {self.high:+.2f}; {self.rests_on})"


NOTHING = Found(np.nan, np.nan, np.nan, "")


def claims(final: pd.DataFrame, results: Results, tables: Tables) -> list[str]:
    """The table of claims, a column per data set, and how to read it."""
    data = sorted(final["data"].unique())
    body = []
    for claim, sign, cells in _claims(final, results, tables, data):
        told = [found.told(sign) for found in cells]
        if any(cell != MISSING for cell in told):
            body.append([claim, *told])
    heads = [name.partition("/")[0] for name in data]
    return [
        markdown(["claimed", *heads], body),
        f"*{HOLDS.capitalize()}*: the 95 % interval has the claimed sign alone. *{OPEN.capitalize()}*: it holds zero. "
        f"*{ESTIMATE.capitalize()}*: an estimate over fewer than {MIN_CLUSTERS} operators, from which no significance "
        "for operators in general is claimed here, whatever the interval. TIPS is compared with max pooling in pairs "
        "of networks that are alike in all else; the intervals speak of other seeds of these networks.",
    ]


def _claims(
    final: pd.DataFrame, results: Results, tables: Tables, data: list[str]
) -> Iterator[tuple[str, int, list[Found]]]:
    for kind in KINDS:
        for subset in ("all operators", "without subsample"):
            words = f"more MSB goes with less consistency between operators ({kind} shifts, {subset})"
            yield words, -1, [_over_operators(results, name, kind, subset) for name in data]
    for kind in KINDS:
        words = f"along the strength of `soft`, which raises MSB, consistency falls ({kind} shifts)"
        yield words, -1, [_dose(results, name, kind) for name in data]
    rows = {name: final[final["data"] == name] for name in data}
    yield "TIPS has a lower MSB than max pooling", -1, [_pairs(rows[name], "circular", _MSB) for name in data]
    yield "TIPS has a higher accuracy", 1, [_pairs(rows[name], "circular", "accuracy") for name in data]
    for score in ("consistency", "fidelity"):
        for kind in KINDS:
            yield f"TIPS has a higher {score} ({kind} shifts)", 1, [_pairs(rows[name], kind, score) for name in data]
    if len(tables.robustness):
        robust = robust_accuracies(tables)
        for condition in robust.columns[list(robust.columns).index("clean") + 1 :]:
            cells = [_difference(robust[robust["data"] == name], str(condition)) for name in data]
            yield f"TIPS is more accurate under {condition}", 1, cells


def _over_operators(results: Results, data: str, kind: str, subset: str) -> Found:
    row = correlation(results.correlations, data, kind, subset)
    return (
        NOTHING
        if row is None
        else Found(row["r"], row["low"], row["high"], f"{int(row['n'])} operators", row["n"] < MIN_CLUSTERS)
    )


def _dose(results: Results, data: str, kind: str) -> Found:
    about = {"design": "dose", "data": data, "shift_kind": kind, "operator": "soft"}
    rows = rows_where(results.designs, **about, statistic="end to end", y="consistency")
    if rows.empty:
        return NOTHING
    row = rows.iloc[0]
    return Found(row["estimate"], row["low"], row["high"], f"{int(row['n_clusters'])} families")


def _pairs(rows: pd.DataFrame, kind: str, score: str) -> Found:
    return _difference(rows[rows["shift_kind"] == kind], score)


def _difference(rows: pd.DataFrame, score: str) -> Found:
    values = differences(rows, TIPS, [score])[score].dropna()
    return Found(values.mean(), *interval(values), f"{len(values)} pairs") if len(values) else NOTHING
