"""Metrics of the manifest beside what was measured here: their correlations, and MSB's with a score given one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from invariscope.analysis.stats.cells import BY_CHECKPOINT, BY_OPERATOR, BY_RUN, Cell
from invariscope.analysis.stats.correlation import correlate
from invariscope.collectors.schema import MSB_READINGS

_CLUSTERS = {BY_CHECKPOINT: None, BY_RUN: "cluster", BY_OPERATOR: "operator"}


def metric_correlations(
    cell: Cell, metrics: Sequence[str], scores: Sequence[str], accuracy: str, options: dict[str, Any]
) -> pd.DataFrame:
    """The rows of :func:`correlate` for a cell: every reading, accuracy and score with every metric (``y``), and every
    reading with every score given accuracy and a metric.

    They are a table of their own: the adjusted p-values of what was fixed in advance do not change with the metrics.
    """
    readings = list(MSB_READINGS)
    tables = [correlate(cell.rows, [*readings, accuracy, *scores], metrics, clusters=_CLUSTERS, **options)]
    for metric in metrics:
        held: dict[str, Any] = {"methods": ["partial_pearson", "partial_spearman"], "covariates": [accuracy, metric]}
        tables.append(correlate(cell.rows, readings, scores, clusters=_CLUSTERS, **held, **options))
    return cell.tag(pd.concat(tables, ignore_index=True))
