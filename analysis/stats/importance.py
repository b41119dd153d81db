"""How the variance that a regression explains is shared out among its predictors: LMG, the Shapley value of R²."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd

from invariscope.analysis.stats.resampling import Array
from invariscope.base.errors import TableError

MOST_PLAYERS = 12
"""With more players than this, 2^p regressions take too long."""


def r_squared(design: Array, y: Array, given: Array | None = None) -> float:
    """Share of the variance of ``y (n,)`` that the columns of ``design (n, k)`` explain beside a constant.

    With ``given (n, q)`` the share of what these columns and the constant leave unexplained.
    """
    rest = y - y.mean()
    columns = design - design.mean(axis=0)
    if given is not None and given.shape[1]:
        base = given - given.mean(axis=0)
        rest, columns = (part - base @ np.linalg.lstsq(base, part, rcond=None)[0] for part in (rest, columns))
    total = float(rest @ rest)
    if total <= 0:
        return float("nan")
    if not columns.shape[1]:
        return 0.0
    fitted = columns @ np.linalg.lstsq(columns, rest, rcond=None)[0]
    return float(fitted @ fitted) / total


def vif(x: Array) -> Array:
    """Variance inflation of every column of ``x (n, k)``: ``1 / (1 - R²)`` on the others; infinite where they
    tell all."""
    found = np.ones(x.shape[1])
    for place in range(x.shape[1]):
        explained = r_squared(np.delete(x, place, axis=1), x[:, place])
        found[place] = 1 / (1 - explained) if explained < 1 - 1e-12 else np.inf
    return found


def lmg_shares(
    frame: pd.DataFrame, y: str, players: Mapping[str, Sequence[str]], given: Sequence[str] = ()
) -> pd.Series:
    """Shares of R² by player (Lindeman, Merenda & Gold 1980; the Shapley value of ``R²``).

    ``share(j) = sum over S without j of |S|! (p - |S| - 1)! / p! (R²(S + j) - R²(S))``: the mean gain in R² over all
    orders in which the players enter. The shares are not negative and sum to the R² of all players.

    Args:
        frame: one row per unit, without missing values in these columns.
        players: name -> columns that enter together (a predictor and its square are one player).
        given: columns that are taken out first; the shares are then of the variance that these leave.

    Raises:
        TableError: for more than 12 players, a missing column, or a column without variance in ``y``.
    """
    if not 1 <= len(players) <= MOST_PLAYERS:
        raise TableError(f"LMG shares of {len(players)} players: take 1 to {MOST_PLAYERS}")
    wanted = [y, *given, *(column for columns in players.values() for column in columns)]
    missing = [column for column in wanted if column not in frame]
    if missing:
        raise TableError(f"LMG shares: no such column {missing[0]!r}: join the tables first")
    outcome = frame[y].to_numpy(dtype=float)
    base = frame[list(given)].to_numpy(dtype=float)
    blocks = {name: frame[list(columns)].to_numpy(dtype=float) for name, columns in players.items()}
    names = list(blocks)
    explained: dict[frozenset[str], float] = {}
    for size in range(len(names) + 1):
        for subset in combinations(names, size):
            columns = np.hstack([blocks[name] for name in subset]) if subset else np.empty((len(frame), 0))
            explained[frozenset(subset)] = r_squared(columns, outcome, base)
    if np.isnan(explained[frozenset(names)]):
        raise TableError(f"LMG shares: {y} has no variance beyond the columns given")
    return pd.Series({name: _shapley(name, names, explained) for name in names}, name="share")


def _shapley(player: str, names: Sequence[str], value: Mapping[frozenset[str], float]) -> float:
    others = [name for name in names if name != player]
    count = len(names)
    total = 0.0
    for size in range(count):
        weight = factorial(size) * factorial(count - size - 1) / factorial(count)
        for subset in combinations(others, size):
            before = frozenset(subset)
            total += weight * (value[before | {player}] - value[before])
    return total
