"""Whether drawn operators of lower MSB, or of another rival of it, are more robust: an exploratory question of P."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.designs.assigned import DRAWN, POPULATION, Settings, admitted, cells_of
from invariscope.analysis.designs.population import total_association
from invariscope.analysis.designs.verdicts import POOLED, is_primary_plan
from invariscope.analysis.tables.frames import Frames
from invariscope.analysis.tables.robust import CLEAN, robust_accuracies
from invariscope.base.errors import TableError

READINGS = ("msb_corrected", "msb", "selectivity", "see")
COLUMNS = ("condition", "outcome", "reading", "cell", "r", "low", "high", "p", "n", "n_units", "note")
ACCURACY, KEPT = "accuracy", "accuracy less clean"
"""What is correlated: the accuracy under a condition, and the same less the network's own on the clean images."""


def robustness_association(
    frames: Frames, settings: Settings | None = None, readings: Sequence[str] = READINGS
) -> pd.DataFrame:
    """Spearman's correlation of measured readings with accuracy under attacks and corruptions over drawn operators.

    As statement 2 has it (:func:`invariscope.analysis.designs.population.total_association`): ranks within data set,
    architecture, padding and augmentation, jackknife over operators, permutation p. Columns :data:`COLUMNS`; ``cell``
    is ``pooled`` for all cells. ``accuracy less clean`` takes each network's own clean accuracy on the same images
    away: a network that is more accurate without an attack starts ahead. Networks that the plan does not admit
    (accuracy below 0.5, second trainings) take no part. Exploratory: no p is corrected.

    Raises:
        TableError: no drawn operator was measured under an attack or a corruption.
    """
    settings = settings or Settings()
    joined = frames["joined"]
    plan = is_primary_plan(joined) & (joined["shift_kind"] == "circular")
    rows, _ = admitted(joined[plan], settings)
    if POPULATION not in rows.columns or not (rows[POPULATION] == DRAWN).any():
        raise TableError("no operator was drawn at random: no checkpoint has the factor `population` P")
    accuracies, names = robust_accuracies(frames["robustness"], ["checkpoint", "model", "data"])
    rows = rows[rows[POPULATION] == DRAWN].merge(accuracies, on=["checkpoint", "model", "data"], how="inner")
    if rows.empty:
        raise TableError("no drawn operator was measured under attacks or corruptions: collect `robustness` of some")
    records = [
        record
        for name in names
        for outcome in ((ACCURACY,) if name == CLEAN else (ACCURACY, KEPT))
        for record in _associations(rows, name, outcome, readings, settings)
    ]
    return pd.DataFrame.from_records(records, columns=list(COLUMNS))


def _associations(
    rows: pd.DataFrame, name: str, outcome: str, readings: Sequence[str], settings: Settings
) -> Iterator[dict[str, Any]]:
    score = rows[name].astype(float) - (rows[CLEAN].astype(float) if outcome == KEPT else 0.0)
    known = rows.assign(outcome=score.round(12))[np.isfinite(score)]
    for reading in readings:
        about = {"condition": name, "outcome": outcome, "reading": reading}
        if reading not in known.columns:
            yield {**about, "cell": POOLED, "note": f"{reading} was not measured"}
            continue
        for cell, members in [(POOLED, known), *cells_of(known)]:
            try:
                found = total_association(members, reading, settings, score="outcome")
            except TableError as problem:
                yield {**about, "cell": cell, "note": str(problem)}
                continue
            yield {
                **about,
                "cell": cell,
                **{key: getattr(found, key) for key in ("r", "low", "high", "p", "n", "n_units")},
            }
