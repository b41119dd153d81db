"""What the checks of the slopes say, in words: their intervals, influence, what MSB adds, sites, mixed effects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.say.findings import Finding, of_cell, verdict_of
from invariscope.analysis.say.numbers import with_interval
from invariscope.analysis.say.vocabulary import IMAGES, Vocabulary
from invariscope.analysis.stats.coverage import MIN_DF
from invariscope.analysis.stats.primary import NO_NUMBER, TOO_FEW
from invariscope.analysis.stats.regression.sites import COLLINEAR, CONTRAST, MEAN
from invariscope.analysis.stats.regression.suite import LEAST_SQUARES, PLAIN
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING

STATEMENTS = {"b": ("fractional logit", PRIMARY_READING), "c": ("within-between", f"{PRIMARY_READING}_within")}
"""Model and term of each primary statement that is a slope."""

_KINDS = {"operator": "operator", "data": "data set", "architecture": "architecture"}
_MEANINGFUL = 0.01
"""A smaller relative change of a prediction's error is none."""


@dataclass(frozen=True)
class SlopeFindings:
    """The tables of slopes of one analysis, and the labels of the cell that is told of."""

    cell: dict[str, Any]
    regressions: pd.DataFrame
    influence: pd.DataFrame
    comparisons: pd.DataFrame
    sites: pd.DataFrame
    vocabulary: Vocabulary = IMAGES

    def findings(self) -> Iterator[Finding]:
        """Every finding that the tables allow."""
        for statement in STATEMENTS:
            yield from self._intervals(statement)
            yield from self._influence(statement)
        yield from self._mixed()
        yield from self._added()
        yield from self._sites()

    def _of_cell(self, table: pd.DataFrame, **where: Any) -> pd.DataFrame:
        return of_cell(table, self.cell, self.vocabulary.score, **where)

    def _row(self, **where: Any) -> pd.Series | None:
        rows = self._of_cell(self.regressions, **where)
        return None if rows.empty or not np.isfinite(rows.iloc[0]["low"]) else rows.iloc[0]

    def _intervals(self, statement: str) -> Iterator[Finding]:
        model, term = STATEMENTS[statement]
        squares = LEAST_SQUARES if statement == "b" else f"within-between {LEAST_SQUARES}"
        where = {"term": term, "cluster": "operator"}
        reported, plain = (self._row(model=name, **where) for name in (model, f"{model}{PLAIN}"))
        if reported is None or plain is None:
            return
        text = (
            f"The interval of statement ({statement}), {_range(reported)}, holds the truth in "
            f"{100 * reported['coverage']:.0f} % of simulations of this design. The plain t interval, {_range(plain)}, "
            f"does in {100 * plain['coverage']:.0f} %"
        )
        others = {name: self._row(model=squares, interval=name, **where) for name in ("CR2", "wild bootstrap-t")}
        told = {name: row for name, row in others.items() if row is not None}
        if told:
            text += ". By least squares on logits the slope is " + " or ".join(
                f"{with_interval(row)} ({name}, {100 * row['coverage']:.0f} %)" for name, row in told.items()
            )
        verdicts = {verdict_of(row) for row in (reported, *told.values())}
        few = TOO_FEW in verdicts
        yield Finding(None if few else len(verdicts) == 1, f"{text}.")

    def _influence(self, statement: str) -> Iterator[Finding]:
        model = STATEMENTS[statement][0]
        rows = self._of_cell(self.influence, model=model)
        bounded = rows[(rows["left_out_kind"] != "") & (rows["left_out"] == "")].set_index("left_out_kind")["reason"]
        rows = rows[np.isfinite(rows["estimate"])]
        whole = rows[rows["left_out_kind"] == ""]
        if whole.empty:
            return
        base = whole.iloc[0]
        for kind, noun in _KINDS.items():
            left = rows[rows["left_out_kind"] == kind]
            if len(left) > 1:
                yield _influence_of(statement, noun, base, left, bounded.get(kind, ""))

    def _mixed(self) -> Iterator[Finding]:
        for group, noun in _KINDS.items():
            rows = self._of_cell(self.regressions, model=f"mixed effects per {group}")
            slope, spread = (_term(rows, name) for name in (PRIMARY_READING, f"sd({PRIMARY_READING} | {group})"))
            if slope is None or not np.isfinite(slope["low"]):
                continue
            text = (
                f"With random effects per {noun} (mixed model on logits), the mean slope is {with_interval(slope)} "
                f"({counted(slope['n_clusters'], noun)})"
            )
            if spread is not None and np.isfinite(spread["estimate"]):
                text += f". The slopes differ with a standard deviation of {spread['estimate']:.2f}."
            else:
                text += ". A variance of the slopes cannot be told from 0."
            base = self._row(model=LEAST_SQUARES, term=PRIMARY_READING, interval="CR2")
            yield Finding(_same(base, slope), text)

    def _added(self) -> Iterator[Finding]:
        rows = self._of_cell(self.comparisons)
        inside = {name: rows[rows["measure"] == name] for name in ("R2", "deviance R2")}
        if any(part.empty or not np.isfinite(part.iloc[0]["difference"]) for part in inside.values()):
            return
        squares, deviance = inside["R2"].iloc[0], inside["deviance R2"].iloc[0]
        text = (
            f"To {self._listed(deviance['given'])} MSB adds {deviance['difference']:.3f} to a deviance R² of "
            f"{deviance['baseline']:.3f}. By least squares on logits it adds {squares['difference']:.3f} to "
            f"{squares['baseline']:.3f}"
        )
        held = rows[(rows["measure"] == "RMSE") & (rows["held_out"] == "all") & np.isfinite(rows["difference"])]
        told = [
            f"for {_article(_KINDS[row['held_out_kind']])} left out of the fit, consistency is predicted with an error "
            f"(RMSE) of {row['with_x']:.3f} with MSB and {row['baseline']:.3f} without"
            for row in held.to_dict("records")
        ]
        if held.empty:
            yield Finding(None, f"{text}.")
            return
        helps = held["difference"] < -_MEANINGFUL * held["baseline"]
        holds = True if helps.all() else None if helps.any() else False
        ends = {True: "it helps to predict", None: "it helps for some only", False: "it does not help to predict"}
        whole = "; ".join(told)
        yield Finding(holds, f"{text}. {whole[0].upper()}{whole[1:]}: {ends[holds]}.")

    def _listed(self, given: str) -> str:
        """``accuracy + architecture + data`` -> ``accuracy, architecture and data set``."""
        *most, last = [_KINDS.get(name) or self.vocabulary.word(name) for name in given.split(" + ")]
        return f"{', '.join(most)} and {last}" if most else last

    def _sites(self) -> Iterator[Finding]:
        for architecture, rows in self._of_cell(self.sites).groupby("architecture", sort=True):
            parts = rows[rows["parametrisation"] == "mean and contrast"]
            mean, contrast = _term(parts, MEAN), _term(parts, CONTRAST)
            untold = next((row for row in (contrast, mean) if row is not None and not np.isfinite(row["low"])), None)
            if mean is None or contrast is None or untold is not None:
                reason = rows.iloc[0]["reason"] if untold is None else untold["reason"]
                yield Finding(None, f"In `{architecture}` early and late sites cannot be compared ({reason}).")
                continue
            told = verdict_of(contrast)
            starts = {
                "negative": "at equal mean, late MSB goes with less consistency than early",
                "positive": "at equal mean, early MSB goes with less consistency than late",
                "no difference from zero": "early and late sites are not told apart",
                TOO_FEW: f"there are {counted(contrast['n_clusters'], 'operator')}, for an estimate alone",
            }
            text = (
                f"In `{architecture}` {starts[told]}. Over its {counted(contrast['n_sites'], 'site')} the slope of the "
                f"mean MSB is {with_interval(mean)}, that of late minus early MSB {with_interval(contrast)}"
            )
            largest = rows["vif"].max()
            if largest > COLLINEAR:
                text += f"; single sites cannot be told apart (variance inflation up to {largest:.0f})"
            yield Finding(False if told in ("negative", "positive") else None, f"{text}.")


def _term(rows: pd.DataFrame, name: str) -> pd.Series | None:
    found = rows[rows["term"] == name]
    return None if found.empty else found.iloc[0]


def _influence_of(statement: str, noun: str, base: pd.Series, left: pd.DataFrame, bounded: str) -> Finding:
    ordered = left.sort_values("estimate")
    low, high = ordered.iloc[0], ordered.iloc[-1]
    evidence = (
        f"It is {low['estimate']:.2f} (without `{low['left_out']}`) to {high['estimate']:.2f} (without "
        f"`{high['left_out']}`) instead of {base['estimate']:.2f}"
    )
    distances = left.dropna(subset=["cooks_distance"]).sort_values("cooks_distance")
    if len(distances):
        first = distances.iloc[-1]
        evidence += f"; Cook's distance is largest for `{first['left_out']}` ({first['cooks_distance']:.1f})"
    holds, told = _when_left_out(base, left)
    one = f"one {noun} at a time{f' ({bounded})' if bounded else ''}"
    return Finding(holds, f"Leaving out {one}, the slope of statement ({statement}) {told}. {evidence}.")


def _when_left_out(base: pd.Series, left: pd.DataFrame) -> tuple[bool | None, str]:
    turned = left[np.sign(left["estimate"]) != np.sign(base["estimate"])]
    if len(turned):
        return False, f"has **a sign that hangs on** {', '.join(f'`{name}`' for name in turned['left_out'])}"
    verdicts = {verdict_of(base), *(verdict_of(row) for _, row in left.iterrows())} - {NO_NUMBER}
    if TOO_FEW in verdicts:
        few = f"some rest on fewer than {MIN_DF:g} degrees of freedom and are estimates alone"
        return None, f"keeps its sign ({few})"
    if len(verdicts) > 1:
        return False, "leads to **another conclusion** for some"
    return True, "leads to the same conclusion each time"


def _same(base: pd.Series | None, other: pd.Series) -> bool | None:
    if base is None or TOO_FEW in (verdict_of(base), verdict_of(other)):
        return None
    return verdict_of(base) == verdict_of(other)


def _range(row: pd.Series) -> str:
    return f"{row['low']:.2f} to {row['high']:.2f}"


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
