"""Rotations: networks that differ in the rank alone to which their operator's weights are given; MSB is assigned.

Within a block selectivity, low pass, seed and training are the same, so that the slope of logit consistency on the
assigned MSB is the effect of moving weight to the maximum from the average other rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from invariscope.analysis.stats.pooled import Pooled, equivalence_p, pool
from invariscope.analysis.stats.randomisation import DRAWS, WithinBlocks, permuted_slopes, within_blocks
from invariscope.analysis.stats.regression.estimate import logits
from invariscope.analysis.stats.resampling import Array, cluster_codes
from invariscope.base.errors import TableError

BOUND = 0.5
"""Logits per unit of MSB: a pooled slope inside of ±0.5 counts as no effect of a size that matters."""

CELL = ("data", "architecture", "padding_mode")
"""What makes up a cell: slopes are taken within one, and pooled over them."""

ASSIGNED = "factor_assigned_msb"
BLOCK = "factor_block"


@dataclass(frozen=True)
class RotationEffect:
    """The slope within blocks, cell by cell and pooled, for one kind of shift.

    ``p`` is that of a randomisation within blocks, stratified over the cells: the same statistic, the inverse-variance
    mean of the cells' slopes. ``p_equivalent``: of two one-sided tests at ±:data:`BOUND`.
    """

    cells: pd.DataFrame
    pooled: Pooled
    p: float
    p_equivalent: float


def rotation_effect(
    frame: pd.DataFrame, score: str = "consistency", *, treatment: str = ASSIGNED, draws: int = DRAWS, seed: int = 0
) -> RotationEffect:
    """The effect of assigned MSB on a score's logits within blocks.

    Args:
        frame: rows of one kind of shift, as ``join`` gives them, with the factors ``block`` and ``assigned_msb``.
        treatment: the column of what was assigned.

    Raises:
        TableError: for rows of several shift plans, without blocks, or with a block that stands twice in a cell.
    """
    rows = frame[frame.get(BLOCK, pd.Series(index=frame.index, dtype=object)).notna()]
    if rows.empty:
        raise TableError("no rotations: no checkpoint has the factor `block`")
    if len(rows.drop_duplicates(["shift_kind", "max_shift", "n_shifts"])) > 1:
        raise TableError("rotations of several shift plans together: choose one kind and one largest shift")
    records, parts = [], []
    for cell, members in rows.groupby(list(CELL), dropna=False, sort=True):
        if members.duplicated([BLOCK, treatment, "seed"]).any():
            raise TableError(f"cell {'/'.join(map(str, cell))}: a network of a block stands there twice")
        y = logits(members[score].to_numpy(dtype=float), members["n_images"].to_numpy(dtype=float))
        x = members[treatment].to_numpy(dtype=float)
        found = within_blocks(x, y, members[BLOCK].tolist(), draws=draws, seed=seed)
        records.append({**dict(zip(CELL, cell, strict=True)), **_row(found)})
        parts.append((x, y, members[BLOCK].tolist(), found))
    pooled = pool([part[3].slope for part in parts], [part[3].se for part in parts])
    p = _stratified_p(parts, pooled.estimate, draws, seed)
    return RotationEffect(pd.DataFrame(records), pooled, p, equivalence_p(pooled.estimate, pooled.se, BOUND))


def _row(found: WithinBlocks) -> dict[str, float]:
    return {
        "slope": found.slope,
        "se": found.se,
        "low": found.low,
        "high": found.high,
        "df": found.df,
        "p": found.p,
        "n_blocks": found.n_blocks,
        "n": found.n_units,
    }


def _stratified_p(
    parts: list[tuple[Array, Array, list[object], WithinBlocks]], estimate: float, draws: int, seed: int
) -> float:
    weights = np.array([1 / part[3].se ** 2 for part in parts])
    permuted = np.zeros(draws)
    for number, (x, y, blocks, _) in enumerate(parts):
        codes, count = cluster_codes(np.asarray(blocks, dtype=object))
        sizes = np.bincount(codes, minlength=count)
        centred = [values - (np.bincount(codes, values, count) / sizes)[codes] for values in (x, y)]
        permuted += weights[number] * permuted_slopes(centred[0], centred[1], codes, draws, seed + 1 + number)
    return float((1 + (np.abs(permuted / weights.sum()) >= abs(estimate) - 1e-12).sum()) / (1 + draws))
