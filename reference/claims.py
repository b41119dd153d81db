"""What the paper claims, claim by claim, beside what the study's numbers say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from invariscope.analysis import Frames, Results
from invariscope.analysis.stats.coverage import MIN_CLUSTERS, MIN_PERMUTED
from invariscope.analysis.stats.primary import SIZE
from invariscope.analysis.tables.robust import robust_accuracies
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING
from reference.lookup import correlation, rows_where
from reference.pairs import differences, mean_difference
from reference.tips import KINDS, ROBUST_ABOUT, TIPS
from reference.words import BAR, BAR_SAID, MISSING, is_bar, markdown

HOLDS, OPPOSITE, OPEN = "holds", "**the opposite holds**", "cannot tell"
FEW = "estimate alone"
"""Of a number that rests on too little for a verdict, or has no interval."""


@dataclass(frozen=True)
class Found:
    """An estimate with its interval (NaN: none), what it rests on, whether that is too little for a verdict, the p of a
    test that decides instead of the interval, and whether it is of what is no shift (:data:`reference.words.BAR`).
    """

    estimate: float
    low: float
    high: float
    rests_on: str
    few: bool = False
    p: float = np.nan
    bar: bool = False

    def told(self, sign: int) -> str:
        """The verdict on a claim that the number is positive (``sign`` 1) or negative (-1), and the number."""
        if not np.isfinite(self.estimate):
            return MISSING
        test = f", p = {self.p:.2g}" if np.isfinite(self.p) else ""
        ends = f"{self.low:+.3f} to {self.high:+.3f}; " if np.isfinite(self.low) else ""
        return f"{self._word(sign)}: {self.estimate:+.3f} ({ends}{self.rests_on}{test})"

    def _word(self, sign: int) -> str:
        if self.bar:
            return BAR
        if self.few or not np.isfinite(self.low):
            return FEW
        if np.isfinite(self.p):
            return OPEN if self.p >= SIZE else HOLDS if sign * self.estimate > 0 else OPPOSITE
        ends = sorted((sign * self.low, sign * self.high))
        return HOLDS if ends[0] > 0 else OPPOSITE if ends[1] < 0 else OPEN


NOTHING = Found(np.nan, np.nan, np.nan, "")


def claims(final: pd.DataFrame, results: Results, frames: Frames) -> list[str]:
    """The table of claims, a column per data set, and how to read it."""
    data = sorted(final["data"].unique())
    body = []
    for claim, sign, cells in _claims(final, results, frames, data):
        told = [found.told(sign) for found in cells]
        if any(cell != MISSING for cell in told):
            body.append([claim, *told])
    intervals = sum(" to " in cell for _, *told in body for cell in told)
    return [
        markdown(["claimed", *(name.partition("/")[0] for name in data)], body),
        f"*{HOLDS.capitalize()}*: the 95 % interval has the claimed sign alone, between operators p < {SIZE} by "
        f"permutation; *{OPEN}*: neither the claim nor its opposite is supported. *{FEW.capitalize()}*: no interval, "
        f"or fewer than {MIN_CLUSTERS} families, from which nothing is concluded, whatever the interval. The "
        "statements between operators were fixed in advance, but for those on `msb`, the literal reading (no formula "
        f"of the paper could be read); all others are exploratory, and of {intervals} intervals, none widened for "
        "their number, some miss by chance. Statements on TIPS speak of other seeds of the cells (architecture, "
        "padding) trained here, those on doses of other families like these. That the MSB of TIPS is below max "
        "pooling's needs no test: max pooling's is 1 by definition.",
        BAR_SAID,
    ]


def _claims(
    final: pd.DataFrame, results: Results, frames: Frames, data: list[str]
) -> Iterator[tuple[str, int, list[Found]]]:
    for kind in KINDS:
        for subset in ("all operators", "without subsample"):
            words = f"more MSB goes with less consistency between operators ({kind} shifts, {subset})"
            yield words, -1, [_over_operators(results, name, kind, subset) for name in data]
    for kind in KINDS:
        words = f"the same with `msb`, the literal reading ({kind} shifts, all operators)"
        yield words, -1, [_over_operators(results, name, kind, "all operators", "msb") for name in data]
    yield (
        "along the strength of `soft` MSB rises",
        1,
        [_dose(results, name, "circular", "msb_corrected") for name in data],
    )
    for kind in KINDS:
        words = f"along the strength of `soft` consistency falls ({kind} shifts)"
        yield words, -1, [_dose(results, name, kind, "consistency") for name in data]
    rows = {name: final[final["data"] == name] for name in data}
    for base, word in (("max", "max pooling"), ("blur(m=3)", "blurred subsampling")):
        for score, kinds in (("accuracy", KINDS[:1]), ("consistency", KINDS), ("fidelity", KINDS)):
            for kind in kinds:
                words = f"TIPS has a higher {score} than {word}" + (f" ({kind} shifts)" if score != "accuracy" else "")
                cells = [
                    replace(
                        _difference(rows[name][rows[name]["shift_kind"] == kind], score, base),
                        bar=score != "accuracy" and is_bar(name, kind),
                    )
                    for name in data
                ]
                yield words, 1, cells
    if len(frames.tables.robustness):
        robust, conditions = robust_accuracies(frames["robustness"], ROBUST_ABOUT)
        for condition in conditions:
            if condition != "clean":
                cells = [_difference(robust[robust["data"] == name], condition) for name in data]
                yield f"TIPS is more accurate under {condition} than max pooling", 1, cells


def _over_operators(results: Results, data: str, kind: str, subset: str, reading: str = PRIMARY_READING) -> Found:
    row = correlation(results.correlations, data, kind, subset, x=reading)
    if row is None:
        return NOTHING
    few = row["n"] < MIN_PERMUTED or not np.isfinite(row["p"])
    rests_on = counted(row["n"], "operator")
    return Found(row["r"], row["low"], row["high"], rests_on, few, row["p"], is_bar(data, kind))


def _dose(results: Results, data: str, kind: str, y: str) -> Found:
    about = {"design": "dose", "data": data, "shift_kind": kind, "operator": "soft"}
    rows = rows_where(results.designs, **about, statistic="end to end", y=y)
    if rows.empty:
        return NOTHING
    row = rows.iloc[0]
    families = row["n_clusters"]
    few, bar = families < MIN_CLUSTERS, is_bar(data, kind) and y != PRIMARY_READING
    return Found(row["estimate"], row["low"], row["high"], counted(families, "family"), few, bar=bar)


def _difference(rows: pd.DataFrame, score: str, base: str = "max") -> Found:
    mean = mean_difference(differences(rows, TIPS, [score], base)[score])
    return Found(mean.estimate, mean.low, mean.high, mean.rests_on)
