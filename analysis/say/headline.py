"""The main correlations of every plan, as lines for a terminal."""

from __future__ import annotations

import pandas as pd

from invariscope.analysis.say.numbers import in_line
from invariscope.analysis.say.plan_words import plan_words
from invariscope.analysis.say.vocabulary import IMAGES, Vocabulary
from invariscope.analysis.stats.cells import BY_OPERATOR, BY_RUN
from invariscope.analysis.stats.primary import NO_NUMBER, TOO_FEW
from invariscope.analysis.tables.plans import DATA_AND_PLAN
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING


def headline(correlations: pd.DataFrame, primary: pd.DataFrame, vocabulary: Vocabulary = IMAGES) -> list[str]:
    """The main correlations of every plan with intervals, as lines for a terminal."""
    lines: list[str] = []
    rows = correlations[
        (correlations["x"] == PRIMARY_READING)
        & (correlations["y"] == vocabulary.score)
        & (correlations["snapshots"] == "final")
        & (correlations["subset"] == "all operators")
    ]
    for plan, found in rows.groupby(DATA_AND_PLAN, sort=True):
        labels = dict(zip(DATA_AND_PLAN, plan, strict=True))
        against = vocabulary.against(labels["shift_kind"])
        lines.append(f"{labels['data']}, {plan_words(labels)}: {PRIMARY_READING} against {against}")
        wanted = (
            ("Spearman over operator means", "spearman", "operator means", None, "operators"),
            ("Pearson over checkpoints", "pearson", "checkpoints", BY_OPERATOR, "operators"),
            ("Spearman over checkpoints", "spearman", "checkpoints", BY_OPERATOR, "operators"),
            ("Kendall over checkpoints", "kendall", "checkpoints", BY_OPERATOR, "operators"),
            (f"Spearman given {vocabulary.accuracy_word}", "partial_spearman", "checkpoints", BY_OPERATOR, "operators"),
            ("Pearson within operators", "within_pearson", "within operator", BY_RUN, "operator x run clusters"),
        )
        for name, method, level, interval, unit in wanted:
            row = found[
                (found["method"] == method) & (found["level"] == level) & found["given"].isin(("", vocabulary.accuracy))
            ]
            row = row if interval is None else row[row["interval"] == interval]
            if len(row):
                lines.append(f"  {name:<29} {in_line(row.iloc[0], unit)}")
    fixed = primary[(primary["role"] == "primary") & (primary["verdict"] != NO_NUMBER)]
    too_few = fixed["verdict"] == TOO_FEW
    if too_few.any():
        lines.append(
            f"  {too_few.sum()} of {counted(len(fixed), 'primary statement')} cannot be tested: too few operators or "
            "degrees of freedom."
        )
    return lines
