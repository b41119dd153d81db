"""Which regressions the analysis makes of one cell's rows: the statements fixed in advance, and what checks them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from invariscope.analysis.stats.cells import OPERATOR_CELL
from invariscope.analysis.stats.regression.comparison import compare
from invariscope.analysis.stats.regression.leaving_out import leave_one_out
from invariscope.analysis.stats.regression.mixed import MixedEffects, fit_mixed
from invariscope.analysis.stats.regression.model import FractionalLogit, LogitOLS
from invariscope.analysis.stats.regression.sites import SITE_COLUMNS, site_slopes
from invariscope.analysis.stats.regression.slopes import fit, group_slopes, within_between
from invariscope.collectors.schema import MSB_READINGS, PRIMARY_READING

SITE = re.compile(r"site_(\d+)")
"""The columns of :func:`invariscope.analysis.tables.joined.with_sites`."""

PLAIN = ", plain t"
LEAST_SQUARES = "OLS on logits"
_X, _FACTORS = PRIMARY_READING, ("architecture", "data")


@dataclass(frozen=True)
class Suite:
    """The regressions of one score: its column, that of accuracy, and the scores whose slopes are also split into
    between and within operators.
    """

    score: str
    accuracy: str
    split: tuple[str, ...]

    def _logit(self, name: str, **other: Any) -> FractionalLogit:
        """The fractional logit of the score on the primary reading, given accuracy, architecture and data set."""
        return replace(FractionalLogit(name, self.score, (_X, self.accuracy), _FACTORS), **other)

    def _least_squares(self, name: str, **other: Any) -> LogitOLS:
        """The same by least squares on logits."""
        return replace(LogitOLS(name, self.score, (_X, self.accuracy), _FACTORS), **other)

    def main(
        self, rows: pd.DataFrame, scores: list[str], pairs: Collection[tuple[str, str]] | None = None
    ) -> pd.DataFrame:
        """Slopes of every reading and score, or of those ``pairs`` alone; of the primary ones by other clusters,
        curved, and inside each group with its cells (column ``operator_cell``) as a factor.
        """
        return pd.concat(list(self._main(rows, scores, pairs)), ignore_index=True)

    def _main(
        self, rows: pd.DataFrame, scores: list[str], pairs: Collection[tuple[str, str]] | None
    ) -> Iterator[pd.DataFrame]:
        for x in MSB_READINGS:
            numeric, mine = (x, self.accuracy), [y for y in scores if pairs is None or (x, y) in pairs]
            for y in mine:
                yield _named(x, fit(rows, self._logit("fractional logit", y=y, numeric=numeric)))
            for y in (name for name in mine if name in self.split):
                yield _named(x, within_between(rows, self._logit("within-between", y=y, numeric=numeric)))
        if self.score not in scores:
            return
        for cluster in ("operator_spec", "cluster"):
            yield _named(_X, fit(rows, self._logit("fractional logit", cluster=cluster)))
            yield _named(_X, within_between(rows, self._logit("within-between", cluster=cluster)))
        if rows["padding_mode"].nunique() > 1:
            model = self._logit("fractional logit with padding", factors=(*_FACTORS, "padding_mode"))
            yield _named(_X, fit(rows, model))
        square = f"{_X}_squared"
        curved = rows.assign(**{square: (rows[_X] - rows[_X].mean()) ** 2})
        bent = self._logit("curved fractional logit", numeric=(square, _X, self.accuracy))
        yield _named(_X, fit(curved, bent))
        same = dict(zip(rows["operator"], rows["operator_spec"], strict=True))
        both = len(rows[["operator", "operator_spec"]].drop_duplicates())
        one_each = 0 < len(same) == rows["operator_spec"].nunique() == both
        found = pd.DataFrame()
        for group in ("operator", "operator_spec"):
            name = f"slope within each {group}"
            model = self._logit(name, numeric=(_X,), factors=(OPERATOR_CELL,), cluster="cluster")
            if group == "operator" or not one_each:
                found = _named(_X, group_slopes(rows, model, group))
            else:  # the same groups by another name
                of_spec = [f"{group}={same[text.removeprefix('operator=')]}" for text in found["group"]]
                found = found.assign(model=name, group=of_spec).sort_values("group", ignore_index=True)
            yield found

    def checks(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The primary slopes by the plain t, by least squares on logits with three intervals, with mixed effects."""
        tables = [
            fit(rows, self._logit(f"fractional logit{PLAIN}", interval="t")),
            within_between(rows, self._logit(f"within-between{PLAIN}", interval="t")),
        ]
        for interval in ("CR2", "t", "wild bootstrap-t"):
            tables.append(fit(rows, self._least_squares(LEAST_SQUARES, interval=interval)))
            model = self._least_squares(f"within-between {LEAST_SQUARES}", interval=interval)
            tables.append(within_between(rows, model))
        for group in ("operator", *_FACTORS):
            mixed = MixedEffects(f"mixed effects per {group}", self.score, (_X, self.accuracy), _FACTORS, group)
            tables.append(fit_mixed(rows, mixed))
        return _named(_X, pd.concat(tables, ignore_index=True))

    def influence(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The primary slopes, over all rows and inside operators, with one operator, data set or architecture out."""
        tables = [
            leave_one_out(rows, self._logit("fractional logit")),
            leave_one_out(rows, self._logit("within-between"), within="operator"),
        ]
        return _named(_X, pd.concat(tables, ignore_index=True))

    def comparisons(self, rows: pd.DataFrame) -> pd.DataFrame:
        """What MSB adds to accuracy, architecture and data set, by the fractional logit and by least squares."""
        tables = [
            compare(rows, self._logit("fractional logit")),
            compare(rows, self._least_squares(LEAST_SQUARES), hold_out=()),
        ]
        return _named(_X, pd.concat(tables, ignore_index=True))

    def sites(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The slopes of early and late sites, per architecture; no rows where the frame has no sites."""
        found = {int(match[1]): name for name in map(str, rows.columns) if (match := SITE.fullmatch(name))}
        if not found:
            return _named(_X, pd.DataFrame(columns=SITE_COLUMNS))
        model = self._logit("fractional logit per architecture", numeric=(self.accuracy,), factors=("data",))
        return _named(_X, site_slopes(rows, model, [found[depth] for depth in sorted(found)]))


def _named(x: str, table: pd.DataFrame) -> pd.DataFrame:
    table.insert(0, "x", x)
    return table
