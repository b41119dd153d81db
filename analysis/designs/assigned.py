"""The frame of a study with assigned MSB: its columns, which networks count, its cells and plans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from invariscope.analysis.stats.randomisation import DRAWS
from invariscope.analysis.stats.regression.estimate import logits
from invariscope.analysis.tables.checkpoints import no_functions
from invariscope.analysis.tables.plans import PLAN, filled, shifted
from invariscope.base.errors import TableError

POPULATION, DRAW, BLOCK, FAMILY = "factor_population", "factor_draw", "factor_block", "factor_family"
MSB, SELECTIVITY = "factor_assigned_msb", "factor_assigned_selectivity"
ASYMMETRY, LOW_PASS = "factor_assigned_asymmetry", "factor_assigned_lambda"
AUGMENTATION, REPEAT = "factor_augmentation", "factor_repeat"

DRAWN, ROTATED, HELD_OUT, PAIRED = "P", "R", "H", "T"
"""Values of the factor ``population``; other rotations than those of 2x2 windows have other names."""

CELL = ["data", "architecture"]
"""What makes up a cell: estimates are taken within one, and pooled over them."""

LEAST_ACCURACY = 0.5
"""A network below it has not learnt its ten classes: a failed run."""

LEAST_DRAWS, LEAST_BLOCKS = 40, 10
"""A cell with fewer whole draws, or blocks, is listed and takes no part in what is pooled."""

LOGIT = "logit"


@dataclass(frozen=True)
class Settings:
    """Of the tests: ``draws`` of randomisations and permutations, ``resamples`` of bootstraps, their ``seed``, and the
    column of the ``score``.
    """

    draws: int = DRAWS
    resamples: int = 1_999
    seed: int = 0
    score: str = "consistency"


def has_population(frame: pd.DataFrame) -> bool:
    """Whether the frame holds operators that were drawn: networks of population P, or of blocks of rotations."""
    return POPULATION in frame.columns and not _kinds(frame).isin([HELD_OUT, PAIRED, ""]).all()


def published(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of published operators: held out of every fit, or of a zoo without populations."""
    return frame[_kinds(frame).isin([HELD_OUT, ""])] if POPULATION in frame.columns else frame


def _kinds(frame: pd.DataFrame) -> pd.Series:
    kinds = frame[POPULATION].astype(object)
    return kinds.where(kinds.notna(), "")


def admitted(frame: pd.DataFrame, settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that count, with the column :data:`LOGIT` of the score, and the networks left out with their reason.

    Left out, in this order: snapshots that are not the last of their run; second trainings; networks that are no
    function of the image; networks whose accuracy is below :data:`LEAST_ACCURACY`; rows without a score.

    Raises:
        TableError: the frame lacks a column.
    """
    needed = [*CELL, *PLAN, "checkpoint", "final", "accuracy", "n_images", "padding_mode", POPULATION, settings.score]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise TableError(f"assigned operators need the columns {', '.join(missing)}: give the frame of analysis.join")
    rows = filled(shifted(frame))
    score = rows[settings.score].astype(float)
    faults: dict[str, pd.Series] = {
        "not the last snapshot": ~rows["final"].astype(bool),
        "trained a second time": _is_repeat(rows),
        "no function of the image": no_functions(rows),
        f"accuracy below {LEAST_ACCURACY}": rows["accuracy"].astype(float) < LEAST_ACCURACY,
        f"no {settings.score}": pd.Series(~np.isfinite(score), index=rows.index),
    }
    reason = pd.Series("", index=rows.index, dtype=object)
    for words, mask in reversed(faults.items()):
        reason = reason.mask(mask, words)
    out = rows.assign(reason=reason)[reason != ""][["checkpoint", *CELL, POPULATION, "reason"]].drop_duplicates()
    kept = rows[reason == ""]
    measured = logits(*(np.asarray(kept[name], dtype=float) for name in (settings.score, "n_images")))
    return kept.assign(**{LOGIT: measured}), out.reset_index(drop=True)


def _is_repeat(rows: pd.DataFrame) -> pd.Series:
    if REPEAT not in rows.columns:
        return pd.Series(False, index=rows.index)
    return pd.to_numeric(rows[REPEAT], errors="coerce").fillna(0) > 0


def cells_of(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each cell, with its name."""
    for labels, members in rows.groupby(CELL, sort=True, dropna=False):
        yield "/".join(map(str, labels)), members


def require_one_plan(rows: pd.DataFrame) -> None:
    """Refuse rows of several shift plans; data sets of different image sizes have a largest shift each."""
    several = len(rows.drop_duplicates(["shift_kind", "n_shifts"])) > 1
    if several or rows.groupby("data")["max_shift"].nunique().max() > 1:
        raise TableError("several shift plans together: choose one kind and one largest shift")


def mean_score(members: pd.DataFrame, score: str) -> float:
    """The mean of a score over networks; NaN where the rows do not have it, as those made by hand."""
    return float(members[score].astype(float).mean()) if score in members.columns else float("nan")


def size_ranks(rows: pd.DataFrame) -> pd.Series:
    """1 for the smallest of the largest shifts that a data set was measured under by this kind of plan, 2 for the next,
    and so on: what is pooled over data sets is of one rank, since each is shifted by its own eighth.
    """
    keys = ["data", *(name for name in PLAN if name != "max_shift")]
    return rows.groupby(keys)["max_shift"].rank(method="dense").astype(int)
