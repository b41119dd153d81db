"""The rivals of MSB as predictors: what else is read of the sites, correlated and regressed as MSB is, and together.

Exploratory: no statement of the plan rests on these rows, and no p-value of theirs enters its corrections
(:data:`EXPLORATORY`); they are corrected among themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.stats.cells import BY_OPERATOR, BY_RUN, OPERATOR_CELL, Cell
from invariscope.analysis.stats.correlation import correlate, indicator_columns
from invariscope.analysis.stats.importance import vif
from invariscope.analysis.stats.permutation import adjusted
from invariscope.analysis.stats.primary import is_primary
from invariscope.analysis.stats.regression.model import FractionalLogit
from invariscope.analysis.stats.regression.slopes import fit, within_between
from invariscope.base.progress import each
from invariscope.collectors.schema import OTHER_READINGS, PRIMARY_READING

PLANNED, EXPLORATORY = "planned", "exploratory"
"""Values of the column ``role`` of correlations and regressions."""

TOGETHER = "all readings together"
"""The model that holds MSB and its rivals at once."""

NO_FIT = 1e6
"""A variance inflation from which on a reading is told by the others, and left out of :data:`TOGETHER`."""

Which = str
WHICH = ("primary", "all", "none")
"""Of which cells the rivals' rows are made: of the primary plan with the last snapshots, of every one, of none."""


@dataclass(frozen=True)
class Rivals:
    """The rivals that a frame knows, the scores and what is held equal.

    ``which`` is one of :data:`WHICH`.
    """

    readings: tuple[str, ...]
    scores: tuple[str, ...]
    accuracy: str
    which: Which = "primary"

    @classmethod
    def of(cls, rows: pd.DataFrame, scores: Sequence[str], accuracy: str, which: Which) -> Rivals:
        """Those of :data:`OTHER_READINGS` that vary in ``rows``."""
        known = [name for name in OTHER_READINGS if name in rows and rows[name].nunique() > 1]
        return cls(tuple(known), tuple(scores), accuracy, which)

    def wants(self, cell: Cell) -> bool:
        """Whether rows of this cell are asked for."""
        if self.which == "none" or not self.readings or not self.scores:
            return False
        return self.which == "all" or bool(is_primary(pd.DataFrame([cell.labels])).iloc[0])

    def correlations(self, cells: Sequence[Cell], options: dict[str, Any]) -> pd.DataFrame:
        """Pearson and Spearman over checkpoints, given accuracy, over operator means, and within operators."""
        tables = [
            table
            for cell in each("rivals", cells, "cell")
            if self.wants(cell)
            for table in self._correlations(cell, options)
        ]
        return adjusted(pd.concat(tables, ignore_index=True)).assign(role=EXPLORATORY) if tables else pd.DataFrame()

    def _correlations(self, cell: Cell, options: dict[str, Any]) -> Iterator[pd.DataFrame]:
        x, y, rows = list(self.readings), list(self.scores), cell.rows
        draws: dict[str, str | None] = {BY_OPERATOR: "operator"}
        plain = {"methods": ("pearson", "spearman"), "clusters": draws, **options}
        yield cell.tag(correlate(rows, x, y, **plain), level="checkpoints")
        partial = {**plain, "methods": ("partial_pearson", "partial_spearman"), "covariates": [self.accuracy]}
        yield cell.tag(correlate(rows, x, y, **partial), level="checkpoints")
        known = rows[np.isfinite(rows[[*x, *y]].to_numpy(dtype=float)).all(axis=1)]
        means = known.groupby("operator", as_index=False)[[*x, *y]].mean()
        found = correlate(means, x, y, **plain).assign(n_missing=len(rows) - len(known))
        yield cell.tag(found, level="operator means")
        within = {**plain, "methods": ("within_pearson",), "within": OPERATOR_CELL, "clusters": {BY_RUN: "cluster"}}
        yield cell.tag(correlate(rows, x, y, **within), level="within operator")

    def regressions(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """Fractional logits of every score on each rival given accuracy, architecture and data set, of the first score
        also within and between operators; and on MSB and all rivals together, with the variance inflation ``vif`` of
        each. No coverage is simulated.
        """
        tables = [
            table for cell in each("rivals", cells, "cell") if self.wants(cell) for table in self._regressions(cell)
        ]
        return pd.concat(tables, ignore_index=True).assign(role=EXPLORATORY) if tables else pd.DataFrame()

    def _regressions(self, cell: Cell) -> Iterator[pd.DataFrame]:
        for y in self.scores:
            model = FractionalLogit("fractional logit", y, (), ("architecture", "data"))
            for x in self.readings:
                given = replace(model, numeric=(x, self.accuracy))
                yield cell.tag(fit(cell.rows, given, simulate=False).assign(x=x))
                if y == self.scores[0]:
                    split = replace(given, name="within-between")
                    yield cell.tag(within_between(cell.rows, split, simulate=False).assign(x=x))
            yield cell.tag(self._together(cell.rows, model))

    def _together(self, rows: pd.DataFrame, model: FractionalLogit) -> pd.DataFrame:
        """The fit on all readings that the others do not tell; those that they tell have a row without a number."""
        inflation = self.inflation(rows)
        kept = [name for name, value in inflation.items() if value < NO_FIT]
        together = replace(model, name=TOGETHER, numeric=(*kept, self.accuracy))
        found = fit(rows, together, simulate=False)
        found = found.assign(x=found["term"], vif=found["term"].map(inflation))
        lost = [name for name in inflation if name not in kept]
        counts = found.iloc[:1][["n", "n_missing", "n_clusters", "cluster"]].to_dict("records")[0]
        told = pd.DataFrame(
            {
                **counts, "model": TOGETHER, "y": model.y, "x": lost, "term": lost,
                "vif": [inflation[name] for name in lost],
                "reason": "the other readings tell this one: left out of the fit",
            }
        )  # fmt: skip
        return pd.concat([found, told], ignore_index=True) if lost else found

    def inflation(self, rows: pd.DataFrame) -> dict[str, float]:
        """Variance inflation of MSB and the rivals on each other, accuracy, architecture and data set:
        ``1 / (1 - R²)``; one after the other is set aside (infinite) that the ones before tell wholly.
        """
        names = [PRIMARY_READING, *self.readings]
        factors = [name for name in ("architecture", "data") if rows[name].nunique() > 1]
        columns = rows[[*names, self.accuracy]].astype(float).join(indicator_columns(rows, factors))
        complete = columns[np.isfinite(columns.to_numpy(dtype=float)).all(axis=1)]
        held = complete.drop(columns=names)
        found, kept = {}, [PRIMARY_READING]
        for name in self.readings:
            trial = complete[[*kept, name]].join(held).to_numpy(dtype=float)
            told = vif(trial)[len(kept)] if complete[name].nunique() > 1 and len(trial) > trial.shape[1] else np.inf
            if told < NO_FIT:
                kept.append(name)
            else:
                found[name] = np.inf
        values = vif(complete[kept].join(held).to_numpy(dtype=float))
        found |= {name: float(values[place]) for place, name in enumerate(kept)}
        return {name: found[name] for name in names}
