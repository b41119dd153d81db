"""Which pairs of a column and a score are computed in which cell: by default those that differ from the main one in one
thing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from invariscope.collectors.schema import MSB_READINGS, PRIMARY_READING

Block = tuple[list[str], list[str]]
"""Columns, and the scores that each of them is taken with."""


@dataclass(frozen=True)
class Asked:
    """The pairs of a cell; with ``every`` each reading and each score, in each subset and choice of snapshots.

    Without it: over all operators and last snapshots each reading with the main ``score``, and the primary reading with
    every score; in every other cell the primary reading with the main score. That is all that the summary and the
    statements speak of. Where the main score is not among ``scores``, all pairs of those that are.
    """

    score: str
    scores: tuple[str, ...]
    every: bool = False
    readings: tuple[str, ...] = MSB_READINGS

    def blocks(self, cell: Mapping[str, object]) -> list[Block]:
        """The pairs of a cell with these labels, those of several columns and scores together."""
        if self.every or self.score not in self.scores:
            return [(list(self.readings), list(self.scores))]
        if (cell["subset"], cell["snapshots"]) != ("all operators", "final"):
            return [([PRIMARY_READING], [self.score])]
        others = [name for name in self.scores if name != self.score]
        return [(list(self.readings), [self.score]), *([([PRIMARY_READING], others)] if others else [])]

    def pairs(self, cell: Mapping[str, object]) -> set[tuple[str, str]]:
        """The same one by one."""
        return {(x, y) for xs, ys in self.blocks(cell) for x in xs for y in ys}

    def kept(self, table: pd.DataFrame, further: Collection[str]) -> pd.DataFrame:
        """Of a table of every pair the rows that are asked for; columns ``further`` with the main score."""
        cells = [{"subset": subset, "snapshots": snapshots} for subset, snapshots in _labels(table)]
        wanted = [
            (x, y) in self.pairs(cell) or (x in further and y == self.score)
            for cell, x, y in zip(cells, table["x"], table["y"], strict=True)
        ]
        return table[np.array(wanted, dtype=bool)].reset_index(drop=True)


def _labels(table: pd.DataFrame) -> Iterator[tuple[str, str]]:
    return zip(table["subset"], table["snapshots"], strict=True)
