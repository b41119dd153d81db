"""What accuracy was measured under, for the figures of robustness: attacks, the corruptions together, other data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from invariscope.analysis.designs.dose import ALIKE
from invariscope.base.errors import TableError
from invariscope.base.words import counted

_NORMS = {"linf": "L∞", "l2": "L2"}


@dataclass(frozen=True)
class ConditionRows:
    """What robustness is measured under: ``rows`` with ``accuracy`` at each ``strength``, a row per checkpoint."""

    name: str
    axis: str
    rows: pd.DataFrame

    @property
    def strengths(self) -> list[float]:
        """The strengths measured, rising; one NaN where the condition has none."""
        return sorted(self.rows["strength"].unique())

    def typical(self) -> tuple[list[str], pd.DataFrame]:
        """The rows at the middle strength, and the words that name them."""
        if len(self.strengths) == 1 and np.isnan(self.strengths[0]):
            return [self.name], self.rows
        middle = self.strengths[len(self.strengths) // 2]
        return [self.name, f"{self.axis} {middle:g}"], self.rows[self.rows["strength"] == middle]


def conditions(rows: pd.DataFrame) -> tuple[list[ConditionRows], list[str]]:
    """Attacks by name and norm, the corruptions together, each other data set; and what was left out."""
    found: list[ConditionRows] = []
    attacks = rows[rows["condition_kind"] == "adversarial"]
    norms = attacks["norm"].astype(object).where(attacks["norm"].notna(), "")
    for (name, key), part in attacks.groupby([attacks["condition"], norms], sort=True):
        norm = str(key)
        pixels = norm == "linf"
        of_attack = part.assign(strength=(part["strength"] * (255 if pixels else 1)).round(6))
        title = f"{name} {_NORMS.get(norm, norm)}".strip()
        found.append(ConditionRows(title, "ε × 255 =" if pixels else "ε =", of_attack.dropna(subset=["strength"])))
    corrupted, notes = _corruptions(rows[rows["condition_kind"] == "corruption"])
    found += [corrupted] if corrupted else []
    others = rows[rows["condition_kind"] == "data"]
    found += [ConditionRows(str(name), "", part) for name, part in others.groupby("condition", sort=True)]
    return [condition for condition in found if len(condition.rows)], notes


def _corruptions(rows: pd.DataFrame) -> tuple[ConditionRows | None, list[str]]:
    """The mean over corruptions per severity, of the checkpoints that were measured under all of them."""
    if rows.empty:
        return None, []
    kinds, keys = rows["condition"].nunique(), ["checkpoint", "model"]
    cells = rows.groupby(keys)["accuracy"].transform("count")
    whole = rows[cells == cells.max()]
    notes = []
    if len(whole) < len(rows):
        lost = rows.loc[cells < cells.max(), "checkpoint"].nunique()
        notes.append(
            f"Measured under some of the corruptions only, left out of their mean: {counted(lost, 'checkpoint')}."
        )
    kept = [name for name in ("operator", "cluster", "n_images", *ALIKE) if name in whole]
    means = whole.groupby([*keys, "strength"], as_index=False).agg({"accuracy": "mean", **dict.fromkeys(kept, "first")})
    return ConditionRows(f"mean of {kinds} corruptions", "severity", means), notes


def chosen(
    found: list[ConditionRows], figure: str, only: Sequence[str] | None, most: int
) -> tuple[list[ConditionRows], list[str]]:
    """The conditions that are drawn, and a note on the others."""
    names = [condition.name for condition in found]
    unknown = [name for name in only or [] if name not in names]
    if unknown:
        raise TableError(f"{figure}: no condition {unknown[0]!r}; the tables hold {', '.join(names)}")
    kept = [condition for condition in found if only is None or condition.name in only][:most]
    others = [name for name in names if name not in [condition.name for condition in kept]]
    return kept, [f"Not shown here: {', '.join(others)}."] if others else []
