"""Rotations: networks that differ in the rank alone to which their operator's weights are given; MSB is assigned.

Within a block selectivity, low pass, seed and training are the same, so that the slope of logit consistency on the
assigned MSB is the effect of moving weight to the maximum. From which other rank it comes depends on the vectors: where
they are sorted before they are rotated, the rank opposite gives half of it and each neighbour a quarter. How the weight
of the other ranks is spread is therefore part of the model, and the slope is that from the average other rank.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.designs.assigned import (
    BLOCK,
    LEAST_BLOCKS,
    LOGIT,
    MSB,
    Settings,
    cells_of,
    mean_score,
    require_one_plan,
)
from invariscope.analysis.stats.pooled import Pooled, equivalence_p, pool
from invariscope.analysis.stats.randomisation import centred, clustered, randomised_p
from invariscope.analysis.stats.regression.sandwich import bias_reduced
from invariscope.analysis.stats.resampling import NOMINAL, Array, cluster_codes
from invariscope.analysis.stats.robust import residuals
from invariscope.base.errors import TableError

BOUND = 0.5
"""Logits per unit of MSB: a pooled slope inside of ±0.5 counts as no effect of a size that matters."""

_WEIGHTS = re.compile(r"\brank\((?:\w+=)?\(([^()]*)\)")


@dataclass(frozen=True)
class RotationEffect:
    """The slope within blocks, cell by cell and pooled, for one kind of shift.

    ``cells``: a row per cell with ``slope, se, low, high, df, p, n_blocks, n, n_incomplete, mean, in_pool`` (``mean``:
    of the score over the networks of whole blocks). ``p`` is that of a randomisation within blocks, stratified over the
    cells: the same statistic, the inverse-variance mean of the cells' slopes. ``p_equivalent``: of two one-sided tests
    at ±:data:`BOUND`. ``left_out``: cells without two whole blocks in which MSB varies, or whose outcomes are all equal
    within blocks.
    """

    cells: pd.DataFrame
    pooled: Pooled
    p: float
    p_equivalent: float
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Cell:
    name: str
    treatment: Array
    outcome: Array
    codes: np.ndarray
    slope: float
    se: float
    df: float
    n_incomplete: int
    mean: float

    @property
    def scaled(self) -> Array:
        """Weights of which the sum with the outcomes is the slope."""
        found: Array = self.treatment / float(self.treatment @ self.treatment)
        return found

    def row(self, settings: Settings, tested: bool) -> dict[str, object]:
        half = float(stats.t.ppf((1 + NOMINAL) / 2, self.df)) * self.se
        blocks = int(self.codes.max()) + 1
        options = {"draws": settings.draws, "seed": settings.seed}
        return {
            "cell": self.name,
            "slope": self.slope,
            "se": self.se,
            "low": self.slope - half,
            "high": self.slope + half,
            "df": self.df,
            "p": randomised_p(self.scaled, self.outcome, self.codes, **options) if tested else float("nan"),
            "n_blocks": blocks,
            "n": len(self.codes),
            "n_incomplete": self.n_incomplete,
            "mean": self.mean,
            "in_pool": blocks >= LEAST_BLOCKS,
        }


def rotation_effect(
    rows: pd.DataFrame, settings: Settings | None = None, *, spread: bool = True, each: bool = True
) -> RotationEffect:
    """The effect of assigned MSB on logit consistency within blocks.

    Blocks that lack a network are left out whole. Blocks of a cell may not be those of another: they are drawn afresh,
    so that the cells are independent.

    Args:
        rows: of one kind of shift, as :func:`invariscope.analysis.designs.assigned.admitted` gives them.
        spread: with ``w_r - (1 - w_1) / (n - 1)`` of the ranks 2 … n-1 as covariates, read off the specifications: how
            the weight of the other ranks is spread. Without it the slope is the plain one on MSB.
        each: a p for each cell too.

    Raises:
        TableError: for rows of several shift plans, without blocks, or with a block that stands twice in a cell.
    """
    settings = settings or Settings()
    if BLOCK not in rows.columns or rows[BLOCK].isna().all():
        raise TableError("no rotations: no checkpoint has the factor `block`")
    require_one_plan(rows)
    parts = list(cells_of(rows[rows[BLOCK].notna()]))
    found = [_cell(name, members, spread, settings.score) for name, members in parts]
    cells = [cell for cell in found if cell is not None]
    if not cells:
        raise TableError("no rotations: no cell has two whole blocks in which MSB varies")
    table = pd.DataFrame([cell.row(settings, each) for cell in cells])
    if not table["in_pool"].any():
        table["in_pool"] = True
    together = [cell for cell, taken in zip(cells, table["in_pool"], strict=True) if taken]
    pooled = pool([cell.slope for cell in together], [cell.se for cell in together], alone_df=together[0].df)
    p = _stratified_p(together, settings)
    left_out = tuple(name for (name, _), cell in zip(parts, found, strict=True) if cell is None)
    return RotationEffect(table, pooled, p, equivalence_p(pooled.estimate, pooled.se, BOUND), left_out)


def _cell(name: str, members: pd.DataFrame, spread: bool, score: str) -> _Cell | None:
    if members.duplicated([BLOCK, MSB, "checkpoint"]).any():
        raise TableError(f"cell {name}: a network of a block stands there twice")
    whole, codes = whole_blocks(members)
    incomplete = members[BLOCK].nunique() - whole[BLOCK].nunique()
    treatment = centred(whole[MSB].to_numpy(dtype=float), codes)
    outcome = centred(whole[LOGIT].to_numpy(dtype=float), codes)
    varied = np.bincount(codes, treatment**2) > 0
    if varied.sum() < 2 or np.abs(outcome).max() < 1e-12:
        return None
    if spread:
        others = spread_of_others(whole["operator_spec"], codes)
        design = np.column_stack([treatment, others])
        sandwich = bias_reduced(design, codes)
        se, df = float(sandwich.errors(residuals(outcome, design))[0]), float(sandwich.df[0])
        treatment = residuals(treatment, others)
        slope = float(treatment @ outcome) / float(treatment @ treatment)
    else:
        slope = float(treatment @ outcome) / float(treatment @ treatment)
        se, df = clustered(treatment, outcome - slope * treatment, codes)
    return _Cell(name, treatment, outcome, codes, slope, se, df, incomplete, mean_score(whole, score))


def whole_blocks(members: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """The networks of a cell's blocks that lack none, and the number of each one's block, ``(n,)``."""
    sizes = members.groupby(BLOCK)[MSB].transform("size")
    whole = members[sizes == sizes.max()]
    return whole, cluster_codes(whole[BLOCK].to_numpy(dtype=object))[0]


def spread_of_others(specifications: pd.Series, codes: np.ndarray) -> Array:
    """``(n, pixels - 2)``: how the weight that is not the maximum's is spread over the other ranks, less the block's
    mean (``codes (n,)``).

    Raises:
        TableError: a specification without the weights of ranks.
    """
    found = [_WEIGHTS.search(str(text)) for text in specifications]
    if any(match is None for match in found):
        raise TableError("rotations: a specification has no rank((...)) in it to read weights from")
    weights = np.array([[float(part) for part in match[1].split(",")] for match in found if match])
    spread = weights[:, 1:-1] - (1 - weights[:, :1]) / (weights.shape[1] - 1)
    return np.column_stack([centred(column, codes) for column in spread.T])


def _stratified_p(cells: list[_Cell], settings: Settings) -> float:
    shares = np.array([cell.se**-2 for cell in cells])
    shares /= shares.sum()
    starts = np.cumsum([0, *(int(cell.codes.max()) + 1 for cell in cells)])
    return randomised_p(
        np.concatenate([share * cell.scaled for share, cell in zip(shares, cells, strict=True)]),
        np.concatenate([cell.outcome for cell in cells]),
        np.concatenate([start + cell.codes for start, cell in zip(starts[:-1], cells, strict=True)]),
        draws=settings.draws,
        seed=settings.seed + 1,
    )
