"""A population of operators drawn at random: the total association, the effect at equal everything else, and whether
the equivariance error carries it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from invariscope.analysis.designs.assigned import (
    ASYMMETRY,
    AUGMENTATION,
    CELL,
    DRAW,
    LEAST_DRAWS,
    LOGIT,
    LOW_PASS,
    MSB,
    SELECTIVITY,
    Settings,
    cells_of,
    mean_score,
    require_one_plan,
)
from invariscope.analysis.stats.importance import lmg_shares
from invariscope.analysis.stats.mediation import indirect_effect
from invariscope.analysis.stats.pooled import Pooled, pool
from invariscope.analysis.stats.ranks import (
    LEAST_UNITS,
    StratifiedCorrelation,
    Stratum,
    key_blocks,
    orders,
    stratified_correlation,
)
from invariscope.analysis.stats.resampling import NOMINAL, Array, bootstrap_counts
from invariscope.analysis.stats.robust import Robust, fractional, hc3, residuals
from invariscope.base.errors import TableError
from invariscope.collectors.schema import PRIMARY_SCORE

MSB_TERM, SQUARE = "msb", "msb_squared"
PLAYERS = {
    "MSB": (MSB_TERM, SQUARE),
    "low pass": ("lambda",),
    "position": ("asymmetry",),
    "selectivity": ("sqrt_selectivity",),
    "padding": ("padding",),
    "augmentation": ("augmentation",),
}
"""Who shares the variance explained: MSB and its square are one."""


def total_association(
    rows: pd.DataFrame, reading: str, settings: Settings, *, score: str | None = None, ranked: bool = True
) -> StratifiedCorrelation:
    """Statement 2: correlation of a measured reading with the score over drawn operators of one shift plan.

    Ranks are taken within data set, architecture, padding and augmentation: what an assigned condition does to the
    score is no part of the association. A stratum in which one of the two does not vary has no correlation, and takes
    no part.

    Raises:
        TableError: for rows of several plans, no stratum of eight operators, or none in which both vary.
    """
    require_one_plan(rows)
    known = rows[np.isfinite(rows[reading].astype(float))]
    by = [*CELL, "padding_mode", *([AUGMENTATION] if AUGMENTATION in known.columns else [])]
    codes = pd.factorize(known[DRAW])[0]
    strata, constant = [], False
    for _, members in known.assign(unit=codes).groupby(by, dropna=False):
        if len(members) >= LEAST_UNITS:
            x, y = (members[name].to_numpy(dtype=float) for name in (reading, score or settings.score))
            varied = np.ptp(x.round(9)) > 0 and np.ptp(y) > 0
            constant |= not varied
            strata += [Stratum(x.round(9), y, members["unit"].to_numpy())] if varied else []
    if not strata and constant:
        raise TableError(f"{reading} or the score is the same for all drawn operators of one condition")
    if not strata:
        raise TableError(f"no {LEAST_UNITS} drawn operators that have {reading} under one condition")
    return stratified_correlation(strata, ranked=ranked, draws=settings.draws, seed=settings.seed + 2)


@dataclass(frozen=True)
class CellFit:
    """The least squares of a cell: ``names`` of its columns, first the constant, whose rows they are, and the ``mean``
    of the score over them.
    """

    name: str
    names: tuple[str, ...]
    design: Array
    y: Array
    units: np.ndarray
    fit: Robust
    mean: float

    def at(self, term: str) -> int:
        """The column of a term."""
        return self.names.index(term)

    @property
    def df(self) -> int:
        """Observations less coefficients."""
        return len(self.y) - len(self.names)


@dataclass(frozen=True)
class EqualFit:
    """Fits of all cells on the same terms; the units of different cells are the same drawn operators.

    ``left_out``: cells of too few draws, or whose outcomes are all equal. ``centre``: the mean assigned MSB, which the
    term of MSB is less by.
    """

    cells: tuple[CellFit, ...]
    n_units: int
    left_out: tuple[str, ...] = ()
    centre: float = 0.0

    def terms(self) -> list[str]:
        """The terms that every cell has."""
        common = [name for name in self.cells[0].names if all(name in cell.names for cell in self.cells)]
        return common[1:]

    def having(self, term: str) -> list[CellFit]:
        """The cells whose fit has the term."""
        return [cell for cell in self.cells if term in cell.names]

    def pooled(self, term: str) -> Pooled:
        """The inverse-variance mean of a slope; its error knows that the cells share operators."""
        cells = self.having(term)
        influences = np.zeros((self.n_units, len(cells)))
        for column, cell in enumerate(cells):
            influences[cell.units, column] = cell.fit.influences[:, cell.at(term)]
        estimates = [float(cell.fit.params[cell.at(term)]) for cell in cells]
        errors = [float(cell.fit.errors[cell.at(term)]) for cell in cells]
        return pool(estimates, errors, covariance=influences.T @ influences, alone_df=cells[0].df)


def fit_equal(
    rows: pd.DataFrame, readings: Sequence[str] = (), *, outcome: str = LOGIT, score: str = PRIMARY_SCORE
) -> EqualFit:
    """Statements 3 and 4: the outcome on assigned MSB (less its mean over all rows) and its square, the low pass, the
    asymmetry and the root of selectivity, on padding and augmentation where they vary, and on measured ``readings``.

    A cell in which a column says nothing of its own (padding of one mode) does without it. Rows that lack a number are
    left out. Cells of fewer than 40 draws take no part, unless all are smaller. Another ``outcome`` than the logit is a
    score in 0 … 1, whose fractional logit is fitted; ``score``: the column that ``mean`` is of.

    Raises:
        TableError: for rows of several plans, a missing column, or too few rows.
    """
    require_one_plan(rows)
    wanted = [MSB, SELECTIVITY, LOW_PASS, ASYMMETRY, DRAW, outcome, *readings]
    missing = [name for name in wanted if name not in rows.columns]
    if missing:
        raise TableError(f"drawn operators need the columns {', '.join(missing)}: give the frame of analysis.join")
    numbers = rows[[name for name in wanted if name != DRAW]].astype(float)
    known = rows[np.isfinite(numbers).all(axis=1)]
    known = known.assign(unit=pd.factorize(known[DRAW])[0])
    centre = float(known[MSB].astype(float).mean())
    parts = list(cells_of(known))
    large = [part for part in parts if len(part[1]) >= LEAST_DRAWS] or parts
    cells = [_fit(name, members, centre, readings, outcome, score) for name, members in large]
    made = tuple(cell for cell in cells if cell is not None)
    left_out = tuple(name for name, _ in parts if all(cell.name != name for cell in made))
    if not made:
        raise TableError("too few drawn operators for a regression on what was assigned")
    return EqualFit(made, int(known["unit"].max()) + 1, left_out, centre)


def _fit(
    name: str, members: pd.DataFrame, centre: float, readings: Sequence[str], outcome: str, score: str
) -> CellFit | None:
    columns = _columns(members, centre)
    columns |= {reading: members[reading].to_numpy(dtype=float) for reading in readings}
    y = members[outcome].to_numpy(dtype=float)
    names, design = ["constant"], np.ones((len(y), 1))
    for term, column in columns.items():
        rest = residuals(column, design)
        if np.linalg.norm(rest) > 1e-8 * max(float(np.linalg.norm(column)), 1e-300):
            names.append(term)
            design = np.column_stack([design, column])
    if len(y) <= len(names) + 1 or np.ptp(y) == 0:
        return None
    fit = hc3(design, y) if outcome == LOGIT else fractional(design, y)
    if isinstance(fit, str):
        return None
    units = members["unit"].to_numpy()
    return CellFit(name, tuple(names), design, y, units, fit, mean_score(members, score))


def _columns(members: pd.DataFrame, centre: float) -> dict[str, Array]:
    msb = members[MSB].to_numpy(dtype=float) - centre
    found = {
        "lambda": members[LOW_PASS].to_numpy(dtype=float),
        "asymmetry": members[ASYMMETRY].to_numpy(dtype=float),
        "sqrt_selectivity": np.sqrt(np.maximum(members[SELECTIVITY].to_numpy(dtype=float), 0)),
        "padding": (members["padding_mode"] != "circular").to_numpy(dtype=float),
    }
    if AUGMENTATION in members.columns:
        levels = sorted(members[AUGMENTATION].astype(str).unique())
        found["augmentation"] = members[AUGMENTATION].astype(str).map(levels.index).to_numpy(dtype=float)
    return {MSB_TERM: msb, SQUARE: msb**2, **found}


def freedman_lane_p(equal: EqualFit, term: str, settings: Settings) -> float:
    """Permutation p of a pooled slope (Freedman & Lane 1983), approximate: residuals of the fits without the term
    change places, by one order of the operators for all cells.

    With the other columns taken out of ``x``, the slope of the permuted outcome is ``x' P e / x' x``.
    """
    found, permuted, total = 0.0, np.zeros(settings.draws), 0.0
    parts = []
    for cell in equal.cells:
        if term not in cell.names:
            continue
        index = cell.at(term)
        others = np.delete(cell.design, index, axis=1)
        x, rest = (residuals(column, others) for column in (cell.design[:, index], cell.y))
        weight = float(cell.fit.errors[index]) ** -2
        found += weight * float(x @ rest) / float(x @ x)
        total += weight
        parts.append((cell.units, x, rest, weight))
    for some, keys in key_blocks(equal.n_units, settings.draws, settings.seed + 3):
        for units, x, rest, weight in parts:
            permuted[some] += weight * (rest[orders(keys, units)] @ x) / float(x @ x)
    reached = np.abs(permuted) >= abs(found) - 1e-12 * total
    return float((1 + reached.sum()) / (1 + settings.draws))


def alone(cell: CellFit, terms: Sequence[str]) -> tuple[Array, float]:
    """Least squares of a cell's outcome on some of its terms: the coefficients, first the constant, and R²."""
    columns = cell.design[:, [0, *(cell.at(term) for term in terms if term in cell.names)]]
    params: Array = np.linalg.lstsq(columns, cell.y, rcond=None)[0].astype(np.float64)
    left = float(((cell.y - columns @ params) ** 2).sum())
    return params, 1 - left / float(((cell.y - cell.y.mean()) ** 2).sum())


def shares(equal: EqualFit, readings: Sequence[str] = ()) -> pd.DataFrame:
    """LMG shares of the outcome's variance in each cell: a row per cell and player, with the cell's ``r_squared``."""
    records = []
    for cell in equal.cells:
        frame = pd.DataFrame(cell.design, columns=list(cell.names)).assign(outcome=cell.y)
        players = {name: [term for term in terms if term in cell.names] for name, terms in PLAYERS.items()}
        players |= {reading: [reading] for reading in readings if reading in cell.names}
        found = lmg_shares(frame, "outcome", {name: terms for name, terms in players.items() if terms})
        whole = float(found.sum())
        records += [{"cell": cell.name, "player": name, "share": share, "r_squared": whole}
                    for name, share in found.items()]  # fmt: skip
    return pd.DataFrame(records)


@dataclass(frozen=True)
class Mediated:
    """An indirect effect of assigned MSB, per unit, pooled by inverse variance; percentile interval and two-sided p of
    a bootstrap that draws operators, the same in all cells.
    """

    estimate: float
    se: float
    low: float
    high: float
    p: float
    cells: pd.DataFrame


def mediated(equal: EqualFit, mediator: str, settings: Settings) -> Mediated:
    """Statement 4: the part of MSB's slope that goes by way of a measured mediator, in fits that have it as a term."""
    counts = bootstrap_counts(equal.n_units, settings.resamples, settings.seed)
    records, drawn = [], []
    for cell in equal.cells:
        if mediator not in cell.names or MSB_TERM not in cell.names:
            continue
        places = [cell.at(MSB_TERM), cell.at(mediator)]
        covariates = np.delete(cell.design, places, axis=1)
        x, between = cell.design[:, places[0]], cell.design[:, places[1]]
        found = indirect_effect(x, between, cell.y, covariates, counts[:, cell.units])
        drawn.append(found.resampled)
        low, high = _percentiles(found.resampled)
        se = float(np.nanstd(found.resampled, ddof=1))
        records.append({"cell": cell.name, "estimate": found.estimate, "se": se, "low": low, "high": high})
    if not records:
        raise TableError(f"no cell has the term {mediator}")
    cells = pd.DataFrame(records)
    weights = cells["se"].to_numpy() ** -2
    weights = weights / weights.sum()
    together = np.column_stack(drawn) @ weights
    estimate = float(weights @ cells["estimate"].to_numpy())
    low, high = _percentiles(together)
    usable = together[np.isfinite(together)]
    p = min(1.0, 2 * (1 + min((usable <= 0).sum(), (usable >= 0).sum())) / (1 + len(usable)))
    return Mediated(estimate, float(usable.std(ddof=1)), low, high, float(p), cells)


def _percentiles(values: Array) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [100 * (1 - NOMINAL) / 2, 100 * (1 + NOMINAL) / 2])
    return float(low), float(high)
