"""The rivals of MSB in words: how far each goes with the score over operators, and how far the others tell it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from invariscope.analysis.say.numbers import with_interval
from invariscope.analysis.say.opening import Fold
from invariscope.analysis.say.plan_words import plan_on_data
from invariscope.analysis.say.statements import bullets
from invariscope.analysis.say.vocabulary import Vocabulary
from invariscope.analysis.stats.rivals import EXPLORATORY, TOGETHER

MUCH = 10.0
"""A variance inflation from which on slopes that are given each other say little."""


def rival_folds(correlations: pd.DataFrame, regressions: pd.DataFrame, vocabulary: Vocabulary) -> list[Fold]:
    """One fold on the exploratory rows of all operators; none where there are no such rows."""
    lines = [*_over_operators(correlations, vocabulary), *_inflation(regressions, vocabulary)]
    if not lines:
        return []
    lines.append("Associations, chosen after the plan: no statement and no correction of another number sees them.")
    return [Fold("Rivals of MSB (exploratory)", bullets(lines))]


def _over_operators(correlations: pd.DataFrame, vocabulary: Vocabulary) -> list[str]:
    if correlations.empty:
        return []
    rows = correlations[
        (correlations["role"] == EXPLORATORY)
        & (correlations["level"] == "operator means")
        & (correlations["method"] == "spearman")
        & (correlations["subset"] == "all operators")
        & (correlations["y"] == vocabulary.score)
    ]
    lines = []
    for _, cell in rows.groupby(["data", "shift_kind", "fill", "max_shift"], sort=False, dropna=False):
        first = cell.iloc[0]
        told = "; ".join(f"`{row['x']}` {with_interval(row)}" for _, row in cell.iterrows())
        lines.append(
            f"Associations over operators. Spearman with {vocabulary.score_word} over {first['n_clusters']:.0f} "
            f"operators, {plan_on_data(first)}: {told}."
        )
    return lines


def _inflation(regressions: pd.DataFrame, vocabulary: Vocabulary) -> list[str]:
    if regressions.empty:
        return []
    rows = regressions[
        (regressions["role"] == EXPLORATORY)
        & (regressions["model"] == TOGETHER)
        & (regressions["y"] == vocabulary.score)
    ]
    rows = rows[(rows["subset"] == "all operators") & rows["vif"].notna()] if len(rows) else rows
    rows = rows.drop_duplicates("term") if len(rows) else rows
    if rows.empty:
        return []
    told = ", ".join(f"`{row['term']}` {_factor(row['vif'])}" for _, row in rows.iterrows())
    many = [f"`{row['term']}`" for _, row in rows.iterrows() if row["vif"] >= MUCH]
    said = f" From {MUCH:g} on a slope at equal others says little: {', '.join(many)}." if many else ""
    given = f"each other, {vocabulary.accuracy_word}, architecture and data set"
    return [f"Each reading tells a part of the others. Variance inflation on {given}: {told}.{said}"]


def _factor(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "told wholly by the others"
