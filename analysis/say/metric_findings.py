"""What the metrics of the manifest have to do with MSB and the score, in words."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from invariscope.analysis.say.numbers import r_in_words
from invariscope.analysis.say.opening import Fold
from invariscope.analysis.say.plan_words import plan_short
from invariscope.analysis.say.statements import bullets
from invariscope.analysis.say.vocabulary import Vocabulary
from invariscope.analysis.stats.cells import BY_OPERATOR
from invariscope.analysis.tables.checkpoints import METRIC
from invariscope.analysis.tables.plans import PLAN
from invariscope.collectors.schema import PRIMARY_READING


def metric_fold(table: pd.DataFrame, metrics: Sequence[str], vocabulary: Vocabulary) -> Fold:
    """One sentence per metric, data set and shift plan, of the last snapshots of all operators."""
    rows = table[(table["snapshots"] == "final") & (table["subset"] == "all operators")]
    rows = rows[rows["interval"] == BY_OPERATOR]
    lines = []
    for _, cell in rows.groupby(["data", *PLAN], sort=False, dropna=False):
        for metric in metrics:
            plain = cell[(cell["y"] == metric) & (cell["method"] == "pearson")].set_index("x")
            given = cell[
                (cell["method"] == "partial_pearson")
                & (cell["given"] == f"{vocabulary.accuracy} + {metric}")
                & (cell["x"] == PRIMARY_READING)
                & (cell["y"] == vocabulary.score)
            ]
            said = [f"with MSB {r_in_words(plain.loc[PRIMARY_READING])}"]
            said.append(f"with {vocabulary.score_word} {r_in_words(plain.loc[vocabulary.score])}")
            said.append(
                f"MSB with {vocabulary.score_word} given {vocabulary.accuracy_word} and it "
                f"{r_in_words(given.iloc[0], 'partial r')}"
            )
            name, count = metric.removeprefix(METRIC), int(plain["n"][PRIMARY_READING])
            where = plan_short(cell.iloc[0], several=True)
            lines.append(f"{name}, {cell['data'].iloc[0]}, {where} ({count} checkpoints): {'; '.join(said)}.")
    read = "Metrics are numbers that the manifest gives. Pearson's r over checkpoints, intervals over operators."
    return Fold("Metrics of the manifest", f"{read}\n\n{bullets(lines)}")
