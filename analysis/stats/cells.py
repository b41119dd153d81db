"""What is analysed together: one data set and shift plan, a subset of operators, a choice of snapshots; and within what
networks of one operator are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from invariscope.analysis.tables.checkpoints import NOT_GIVEN
from invariscope.analysis.tables.plans import DATA_AND_PLAN, PLAN

BY_CHECKPOINT = "over checkpoints"
BY_RUN = "over operator x run"
BY_OPERATOR = "over operators"
"""Sampling units of an interval, as column ``interval`` of the correlations names them."""

CELL = [*DATA_AND_PLAN, "subset", "snapshots"]
"""The columns that label a cell."""

PLAIN_SUBSAMPLING = ("subsample", "strided")
"""Operators that pool nothing; the subset ``without subsample`` is the rest."""

OPERATOR_CELL = "operator_cell"
"""The column of :func:`operator_cells`."""

ALIKE_IN_CELL = ("operator", "architecture", "padding_mode", "data")
"""What the networks of an operator's cell have in common."""

_PLAN = [name for name in PLAN if name != "max_shift"]


def operator_cells(rows: pd.DataFrame, group: str = ALIKE_IN_CELL[0]) -> pd.Series:
    """The cell of each row, as text: operator × architecture × padding × data set.

    "Within operators" is within these: padding and architecture move MSB and consistency of an operator's networks
    together, and say nothing of more or less MSB in one of them. Columns that the rows do not have are left out;
    ``group`` is the column in the place of the operator.
    """
    names = [group, *(name for name in ALIKE_IN_CELL[1:] if name in rows.columns and name != group)]
    # Text is made once for each cell, not for each row: this is called often.
    labels: list[tuple[str, ...]] = [()]
    codes = np.zeros(len(rows), dtype=np.intp)
    for name in names:
        code, values = pd.factorize(rows[name].to_numpy(dtype=object))
        texts = [NOT_GIVEN, *(str(value) for value in values)]
        codes, pairs = pd.factorize(codes * len(texts) + code + 1)
        labels = [(*labels[pair // len(texts)], texts[pair % len(texts)]) for pair in pairs]
    return pd.Series(np.array(["|".join(cell) for cell in labels], dtype=object)[codes], rows.index, str, OPERATOR_CELL)


@dataclass(frozen=True)
class Cell:
    """Rows that are analysed together, and what they are."""

    labels: Mapping[str, object]
    rows: pd.DataFrame

    def tag(self, table: pd.DataFrame, **further: object) -> pd.DataFrame:
        """The table with the cell's labels in front of every row."""
        return pd.concat([pd.DataFrame({**self.labels, **further}, index=table.index), table], axis=1)


def cells_of(rows: pd.DataFrame, apart: list[str]) -> Iterator[Cell]:
    """One cell per (data set and) shift plan × subset of operators × choice of snapshots; subsets that change nothing
    left out.
    """
    # Data sets of different image sizes are each shifted by their own eighth: only several on the same data differ.
    several = rows.groupby(["data", *_PLAN])["max_shift"].nunique().max() > 1
    keys = [*apart, *_PLAN, *(["max_shift"] if several else [])]
    for _, plan in rows.groupby(keys, sort=True):
        first = plan.iloc[0]
        labels = {
            "data": first["data"] if plan["data"].nunique() == 1 else "all data sets",
            **{name: first[name] for name in ("shift_kind", "fill")},
            "max_shift": "/".join(map(str, sorted(plan["max_shift"].unique()))),
            **{name: first[name] for name in ("n_shifts", "plan")},
        }
        subsets = {"all operators": plan}
        pooling = plan[~plan["operator"].isin(PLAIN_SUBSAMPLING)]
        if 0 < len(pooling) < len(plan):
            subsets["without subsample"] = pooling
        for subset, of_subset in subsets.items():
            final = of_subset[of_subset["final"]]
            yield Cell({**labels, "subset": subset, "snapshots": "final"}, final)
            if len(final) < len(of_subset):
                yield Cell({**labels, "subset": subset, "snapshots": "all"}, of_subset)
