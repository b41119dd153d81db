"""What the numbers say about each other: whether a result survives another reading, score, subset, covariate or
cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.say.numbers import estimate_of, with_interval
from invariscope.analysis.say.vocabulary import IMAGES, Vocabulary
from invariscope.analysis.stats.cells import BY_OPERATOR, BY_RUN, CELL
from invariscope.analysis.stats.coverage import MIN_CLUSTERS, MIN_DF
from invariscope.analysis.stats.primary import NO_NUMBER, TOO_FEW, satterthwaite, verdict
from invariscope.base.words import counted
from invariscope.collectors.schema import MSB_READINGS, PRIMARY_READING, PRIMARY_SCORE


@dataclass(frozen=True)
class Finding:
    """One sentence; ``holds``: the result stays (True), changes or fails (False), or cannot be compared (None)."""

    holds: bool | None
    text: str


def verdict_of(row: Any) -> str:
    """The verdict on the interval of a row of correlations (``r``) or regressions (``estimate``)."""
    return verdict(estimate_of(row), row["low"], row["high"], row["n_clusters"], satterthwaite(row))


def paradoxes(correlations: pd.DataFrame, score: str = PRIMARY_SCORE) -> pd.DataFrame:
    """Pooled and within-operator Pearson correlation of every cell; ``paradox`` where Simpson's paradox is found.

    That is: the signs are opposite, and both 95 % intervals exclude 0: the pooled one over operators, the one inside
    operators over runs, each with at least :data:`~invariscope.analysis.stats.coverage.MIN_CLUSTERS` of them.
    """
    rows = correlations[(correlations["x"] == PRIMARY_READING) & (correlations["y"] == score)]
    numbers = ["r", "low", "high", "n_clusters"]
    kept = {
        "pooled": ("pearson", "checkpoints", BY_OPERATOR),
        "within": ("within_pearson", "within operator", BY_RUN),
    }
    pooled, within = (
        _matching(rows, {"method": method, "level": level, "interval": units})
        .set_index(CELL)[numbers]
        .add_suffix(f"_{name}")
        for name, (method, level, units) in kept.items()
    )
    table = pooled.join(within)
    verdicts = [
        [verdict(*values) for values in table[[f"{name}_{level}" for name in numbers]].to_numpy(dtype=float)]
        for level in ("pooled", "within")
    ]
    table["paradox"] = [set(pair) == {"negative", "positive"} for pair in zip(*verdicts, strict=True)]
    return table.reset_index()


def of_cell(table: pd.DataFrame, cell: dict[str, Any], score: str, **where: Any) -> pd.DataFrame:
    """Rows of a table of slopes of ``score`` for one data set and shift plan; by default those on the primary reading,
    all operators, last snapshots. Their data label may be that of all data sets together.
    """
    wanted = {"x": PRIMARY_READING, "y": score, "subset": "all operators", "snapshots": "final"}
    labels = {name: value for name, value in cell.items() if name != "data"}
    # Several data sets, each shifted by its own eighth, have one regression together.
    if cell["max_shift"] not in set(table["max_shift"]):
        del labels["max_shift"]
    return _matching(table, {**wanted, **labels, **where})


@dataclass(frozen=True)
class Comparison:
    """All that was computed for one data set and shift plan; ``cell`` holds their labels."""

    cell: dict[str, Any]
    correlations: pd.DataFrame
    regressions: pd.DataFrame
    vocabulary: Vocabulary = IMAGES
    _known: dict[tuple[str, ...], dict[tuple[Any, ...], int]] = field(default_factory=dict, repr=False, compare=False)

    def correlation(self, **where: Any) -> pd.Series | None:
        """The one row of correlations with these labels; by default the pooled Spearman correlation of the primary
        columns, with operators as sampling units: networks of one operator are alike.
        """
        wanted = {"x": PRIMARY_READING, "y": self.vocabulary.score, "method": "spearman", "level": "checkpoints"}
        wanted |= {"given": "", "interval": BY_OPERATOR, "subset": "all operators", "snapshots": "final"}
        labels = {**wanted, **self.cell, **where}
        row = self._rows(tuple(labels)).get(tuple(labels.values()))
        return None if row is None else self.correlations.iloc[row]

    def _rows(self, labels: tuple[str, ...]) -> dict[tuple[Any, ...], int]:
        """The first row of correlations with each combination of these labels: looked up dozens of times."""
        if labels not in self._known:
            columns = [self.correlations[name].tolist() for name in labels]
            known = self._known.setdefault(labels, {})
            for row, values in enumerate(zip(*columns, strict=True)):
                known.setdefault(values, row)
        return self._known[labels]

    def regression(self, **where: Any) -> pd.DataFrame:
        """Rows of regressions with these labels (its data label may be that of all data sets together)."""
        return of_cell(self.regressions, self.cell, self.vocabulary.score, **where)

    def findings(self) -> list[Finding]:
        """Every comparison that the tables allow."""
        made = [
            *self._given_accuracy(),
            self._many("reading of MSB", "x", MSB_READINGS),
            self._many("score", "y", list(self.correlations["y"].unique())),
            self._subset(),
            self._snapshots(),
            self._resampling_operators(),
            self._within(),
            self._groups("operator"),
            self._groups("operator_spec"),
            self._shape(),
        ]
        return [finding for finding in made if finding is not None]

    def _given_accuracy(self) -> list[Finding]:
        base = self.correlation()
        found = []
        for given in sorted(name for name in self.correlations["given"].unique() if name):
            other = self.correlation(method="partial_spearman", given=given)
            if base is not None and other is not None:
                text = f"Given {self.vocabulary.given(given)}, Spearman's correlation"
                found.append(_compare(base, other, text))
        accuracy = self.correlation(x=self.vocabulary.accuracy)
        if accuracy is not None and np.isfinite(accuracy["r"]):
            clear = verdict_of(accuracy) in ("negative", "positive")
            subject = f"{self.vocabulary.accuracy_first} alone has a Spearman correlation"
            text = f"{subject} of {with_interval(accuracy)} with consistency"
            end = ", so a raw correlation of MSB may borrow from it." if clear else "."
            found.append(Finding(False if clear else None, text + end))
        return found

    def _many(self, what: str, axis: str, names: Sequence[str]) -> Finding | None:
        base = self.correlation()
        if base is None:
            return None
        rows = {name: self.correlation(**{axis: name}) for name in names}
        told = {name: row for name, row in rows.items() if row is not None}
        others = {name: row for name, row in told.items() if name != base[axis]}
        if not others:
            return None
        listed = ", ".join(f"`{name}` {with_interval(row)}" for name, row in told.items())
        agreed = {name: _agree(base, row) for name, row in others.items()}
        changed = [f"`{name}`" for name, same in agreed.items() if same is False]
        if changed:
            return Finding(
                False, f"The choice of {what} matters: the conclusion is another for {', '.join(changed)}. {listed}."
            )
        if None in agreed.values():
            return Finding(None, f"Whether the {what} matters cannot be told from so few. {listed}.")
        return Finding(True, f"Every {what} leads to the same conclusion. {listed}.")

    def _subset(self) -> Finding | None:
        base, other = self.correlation(), self.correlation(subset="without subsample")
        if base is None or other is None:
            return None
        return _compare(base, other, "Without plain subsampling, Spearman's correlation over the checkpoints")

    def _snapshots(self) -> Finding | None:
        base, other = self.correlation(), self.correlation(snapshots="all")
        if base is None or other is None:
            return None
        return _compare(base, other, "With all snapshots along training, Spearman's correlation")

    def _resampling_operators(self) -> Finding | None:
        runs, operators = self.correlation(interval=BY_RUN), self.correlation()
        if runs is None or operators is None or not np.isfinite([runs["low"], operators["low"]]).all():
            return None
        text = (
            f"With operators instead of runs as sampling units, the interval of the pooled Spearman correlation "
            f"is {operators['low']:.2f} to {operators['high']:.2f} "
            f"instead of {runs['low']:.2f} to {runs['high']:.2f}. "
            f"The correlation is {runs['r']:.2f}, over {counted(operators['n_clusters'], 'operator')} and "
            f"{counted(runs['n_clusters'], 'run')}"
        )
        holds_zero = operators["low"] <= 0 <= operators["high"]
        if holds_zero and verdict_of(runs) in ("negative", "positive"):
            return Finding(False, f"{text}: what holds for these operators need not hold for others.")
        same = _agree(runs, operators)
        return Finding(
            same, text + (f"; {MIN_CLUSTERS} operators would be needed to lean on it." if same is None else ".")
        )

    def _within(self) -> Finding | None:
        pooled, within = (
            self.correlation(method=method, level=level, interval=units)
            for method, level, units in (
                ("pearson", "checkpoints", BY_OPERATOR),
                ("within_pearson", "within operator", BY_RUN),
            )
        )
        if pooled is None or within is None:
            return None
        if {verdict_of(pooled), verdict_of(within)} == {"negative", "positive"}:
            return Finding(
                False,
                f"This is **Simpson's paradox**: pooled over operators, Pearson's r is {with_interval(pooled)}, but "
                f"inside the operators it is {with_interval(within)}, the opposite sign, and both intervals exclude "
                "zero. The pooled correlation describes differences between operators and says "
                "nothing of more or less MSB inside one.",
            )
        return _compare(
            pooled, within, "Inside operators (centred in each operator x architecture x padding), Pearson's r"
        )

    def _groups(self, group: str) -> Finding | None:
        rows = self.regression(model=f"slope within each {group}")
        if rows.empty:
            return None
        defined = rows[np.isfinite(rows["estimate"])]
        what = "operators" if group == "operator" else "operator settings"
        if defined.empty:
            return Finding(
                None, f"None of the {len(rows)} {what} has a slope of its own: MSB hardly varies inside them."
            )
        clear = defined[[verdict_of(row) in ("negative", "positive") for _, row in defined.iterrows()]]
        negative = int((defined["estimate"] < 0).sum())
        text = f"Inside single {what}, {negative} of {len(defined)} slopes are negative"
        listed = ", ".join(f"{row['group'].partition('=')[2]} {with_interval(row)}" for _, row in clear.iterrows())
        if listed:
            text += f". Clear of zero, in logits per unit of MSB: {listed}."
        elif all(verdict_of(row) in (TOO_FEW, NO_NUMBER) for _, row in defined.iterrows()):
            text += f". Each rests on fewer than {MIN_DF:g} degrees of freedom, so none is a statement of significance."
        else:
            text += "; none is clear of zero."
        if len(rows) > len(defined):
            text += f" {len(rows) - len(defined)} more {what} have none: {_first_reason(rows)}."
        mixed = len(set(np.sign(clear["estimate"]))) > 1
        return Finding(False if mixed else None if clear.empty else True, text)

    def _shape(self) -> Finding | None:
        rows = self.regression(model="curved fractional logit")
        square, slope = (rows[rows["term"] == name] for name in (f"{PRIMARY_READING}_squared", PRIMARY_READING))
        if square.empty or slope.empty or not np.isfinite(square.iloc[0]["low"]):
            return None
        bend, line = square.iloc[0], slope.iloc[0]
        told = (
            f"curvature {with_interval(bend)} logits per squared unit of MSB, {counted(bend['n_clusters'], 'operator')}"
        )
        if verdict_of(bend) not in ("negative", "positive"):
            return Finding(None, f"No curvature is established on the logit scale ({told}).")
        if verdict_of(line) not in ("negative", "positive"):
            return Finding(False, f"A straight line is the wrong shape even on the logit scale ({told}).")
        way = "levels off" if bend["estimate"] * line["estimate"] < 0 else "steepens"
        trend = "fall" if line["estimate"] < 0 else "rise"
        return Finding(
            False, f"A straight line is the wrong shape even on the logit scale: the {trend} {way} ({told})."
        )


def _matching(table: pd.DataFrame, wanted: dict[str, Any]) -> pd.DataFrame:
    left = np.arange(len(table))
    for name, value in wanted.items():
        left = left[np.asarray(table[name].array[left] == value, dtype=bool)]
    return table.iloc[left]


def _first_reason(rows: pd.DataFrame) -> str:
    """The commonest reason for having no slope, without its numbers."""
    reasons = rows.loc[~np.isfinite(rows["estimate"]), "reason"].str.partition(" (")[0]
    return str(reasons.value_counts().index[0])


def _agree(base: pd.Series, other: pd.Series) -> bool | None:
    """Whether two rows lead to the same conclusion; None where one of them leads to none."""
    verdicts = verdict_of(base), verdict_of(other)
    if {NO_NUMBER, TOO_FEW} & set(verdicts):
        return None
    return verdicts[0] == verdicts[1]


def _compare(base: pd.Series, other: pd.Series, subject: str) -> Finding:
    if not np.isfinite(estimate_of(other)):
        return Finding(None, f"{subject} is {with_interval(other)}.")
    same = _agree(base, other)
    text = f"{subject} is {with_interval(other)} instead of {with_interval(base)}"
    estimates = np.array([estimate_of(base), estimate_of(other)])
    other_sign = ", the other sign" if estimates.prod() < 0 else ""
    ends = {True: ": the same conclusion.", False: ": **another conclusion**.", None: f"{other_sign}."}
    return Finding(same, text + ends[same])
