"""Published operators and their strengths within one cell: how MSB and its rivals go with scores there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from invariscope.analysis.designs.heldout import constructed
from invariscope.analysis.stats.correlation import correlate
from invariscope.base.errors import TableError

CELL = ("architecture", "padding_mode", "factor_augmentation")
"""What makes a cell, beside the data set, as far as the frame has it."""

FEWEST = 4
"""Specifications below which a cell has no correlation."""

OVER, WITHIN = "over specifications", "within operators"


@dataclass(frozen=True)
class PublishedCell:
    """The ``rows`` of the cell of a data set that holds most published specifications, its ``name``, and ``others``."""

    rows: pd.DataFrame
    name: str
    others: tuple[str, ...]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> PublishedCell:
        """The fullest cell, the first by name among equals.

        Args:
            rows: of published operators on one data set, as :func:`invariscope.analysis.join` gives them.

        Raises:
            TableError: no cell has four specifications.
        """
        if rows.empty:
            raise TableError("no published operators are there: train several in one architecture")
        names = [name for name in CELL if name in rows.columns]
        labels = rows[names].astype(object).where(rows[names].notna(), "none").astype(str)
        cells = labels.agg(", ".join, axis=1)
        counts = rows.groupby(cells)["operator_spec"].nunique().sort_index().sort_values(ascending=False, kind="stable")
        if counts.empty or counts.iloc[0] < FEWEST:
            raise TableError(f"no cell of {FEWEST} published specifications: train several in one architecture")
        first, *others = (str(name) for name in counts.index)
        return cls(rows[cells == first], first, tuple(others))

    def means(self, kind: str, columns: Sequence[str]) -> pd.DataFrame:
        """A row per specification under a kind of shift: the mean of its runs, and ``by_construction``."""
        rows = self.rows[self.rows["shift_kind"] == kind]
        wanted = [*columns, *(["strength"] if "strength" in rows else [])]
        made = rows.groupby(["operator", "operator_spec", "padding_mode"], as_index=False)[wanted].mean()
        told = constructed(made.assign(operator=made["operator_spec"]), kind)
        return made.assign(by_construction=told.to_numpy())

    def coefficients(self, kind: str, readings: Sequence[str], score: str) -> pd.DataFrame:
        """Pearson's r of each reading and the score: ``over`` specifications (interval: jackknife over operators) and
        ``within`` operators (deviations from the mean of an operator's strengths; jackknife over specifications).

        Operators that are consistent by construction take no part. Columns ``reading``, ``level``, ``r``, ``low``,
        ``high``, ``n``; no p: the cell was not drawn.
        """
        known = self.means(kind, [*readings, score])
        known = known[~known["by_construction"]]
        over = correlate(
            known, list(readings), [score], methods=("pearson",), clusters={"operator": "operator"}, permutations=0
        )
        within = correlate(
            known, list(readings), [score], methods=("within_pearson",), within="operator",
            clusters={"specification": None}, permutations=0,
        )  # fmt: skip
        both = pd.concat([over.assign(level=OVER), within.assign(level=WITHIN)], ignore_index=True)
        both = both[np.isfinite(both["r"].astype(float))].rename(columns={"x": "reading"})
        return both[["reading", "level", "r", "low", "high", "n"]].reset_index(drop=True)
