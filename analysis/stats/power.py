"""How many operators, runs and snapshots it takes to see a correlation, at the clustering that a table shows.

A checkpoint's MSB and score are each an operator's part + a run's part + a snapshot's part. The three variances of both
are estimated from the table; data of any design are then simulated from them with a known correlation, normal and with
the same variances for every operator, and tested as the analysis tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.stats.cells import operator_cells
from invariscope.analysis.stats.coverage import MIN_CLUSTERS, MIN_PERMUTED
from invariscope.analysis.stats.primary import SIZE
from invariscope.analysis.stats.resampling import Array, cluster_codes, jackknife_interval
from invariscope.analysis.tables.checkpoints import own
from invariscope.analysis.tables.plans import DATA_AND_PLAN, filled, shifted
from invariscope.base.errors import TableError
from invariscope.base.words import are, counted
from invariscope.collectors.schema import PRIMARY_READING, PRIMARY_SCORE

BETWEEN, WITHIN, OVER = LEVELS = ("between operators", "within operators", "over checkpoints")
_FEWEST = {BETWEEN: MIN_PERMUTED, WITHIN: MIN_CLUSTERS, OVER: MIN_CLUSTERS}
"""The fewest operators with which a test counts."""
ENOUGH = 0.8
"""The power that a design is to have."""

NEEDED_SPREAD = float(stats.norm.ppf(1 - SIZE / 2) + stats.norm.ppf(ENOUGH))
"""How many standard errors away from zero a true value lies that is told from it with a power of :data:`ENOUGH`."""

_PARTS = {BETWEEN: slice(0, 1), WITHIN: slice(1, 3), OVER: slice(0, 3)}
"""The variance components that a level is made of."""
_PERMUTATIONS = 20_000

_NUMBERS = ["level", "r", "n_operators", "runs_per_operator", "snapshots_per_run", "n_checkpoints", "n_clusters"]
_COLUMNS = [*DATA_AND_PLAN, *_NUMBERS, "power", "se", "leant_on", "smallest", "found", "reason"]


@dataclass(frozen=True)
class Components:
    """Variances of one column: between operators, between the runs of an operator, between the snapshots of a run."""

    operator: float
    run: float
    snapshot: float

    @property
    def parts(self) -> Array:
        """The three of them, ``(3,)``."""
        return np.array([self.operator, self.run, self.snapshot])


@dataclass(frozen=True)
class Power:
    """What is simulated: the true correlation ``r``, the designs, the number of ``simulations`` of each, the seed.

    Every combination of ``operators``, ``runs`` (per operator) and ``snapshots`` (per run) is one design, up to
    ``most_checkpoints``; those found in the table are added.
    """

    r: float = -0.3
    operators: tuple[int, ...] = (15, 20, 30, 50, 70, 90, 110, 130)
    runs: tuple[int, ...] = (2, 5, 10, 20, 50)
    snapshots: tuple[int, ...] = (1, 2)
    most_checkpoints: int = 1000
    simulations: int = 400
    seed: int = 0


def operators_needed(r: float = Power.r) -> int:
    """Operators with which a Spearman correlation of ``r`` over their means is told from zero with a power of
    :data:`ENOUGH`, two-sided at 5 %, by a formula and not by simulation.

    ``n = (z_0.975 + z_0.8)² (1 + r²/2) / atanh(r)² + 3``: Fisher's z, with the variance ``(1 + r²/2) / (n - 3)`` that
    Bonett & Wright (2000) give it for Spearman's correlation.
    """
    return int(np.ceil(NEEDED_SPREAD**2 * (1 + r * r / 2) / np.arctanh(r) ** 2 + 3))


def variance_components(values: Array, operators: Array, runs: Array) -> Components:
    """Nested analysis of variance, unbalanced (Searle, Casella & McCulloch 1992, ch. 5): mean squares set equal to
    their expectations, negative estimates to 0.

    ``values`` ``(n,)``; ``runs`` names the run within or across operators. Without a run of several snapshots their
    part cannot be told from the run's and is 0; likewise the run's, without an operator of several runs.
    """
    codes, n_operators = cluster_codes(operators)
    run_codes, n_runs = cluster_codes([f"{code}|{run}" for code, run in zip(codes, runs, strict=True)])
    n, per_run, per_operator = len(values), np.bincount(run_codes), np.bincount(codes)
    home = np.zeros(n_runs, dtype=np.intp)
    home[run_codes] = codes
    run_mean, operator_mean = (np.bincount(c, values) / np.bincount(c) for c in (run_codes, codes))
    squares = [
        (per_operator * (operator_mean - values.mean()) ** 2).sum(),
        (per_run * (run_mean - operator_mean[home]) ** 2).sum(),
        ((values - run_mean[run_codes]) ** 2).sum(),
    ]
    freedom = [n_operators - 1, n_runs - n_operators, n - n_runs]
    mean = [square / df if df else 0.0 for square, df in zip(squares, freedom, strict=True)]
    doubled = (per_run**2 / per_operator[home]).sum()
    run = max(0.0, (mean[1] - mean[2]) * freedom[1] / (n - doubled)) if freedom[1] else 0.0
    spread = (doubled - (per_run**2).sum() / n) / max(freedom[0], 1)
    typical = (n - (per_operator**2).sum() / n) / max(freedom[0], 1)
    operator = max(0.0, (mean[0] - mean[2] - spread * run) / typical) if freedom[0] else 0.0
    return Components(float(operator), float(run), float(mean[2]))


def power(frame: pd.DataFrame, settings: Power | None = None, *, score: str = PRIMARY_SCORE) -> pd.DataFrame:
    """The power of every design at every level, for every data set and shift plan of a frame from
    :func:`invariscope.analysis.tables.joined.join` (``score``: the column of the primary score, of another frame).

    The true correlation is ``r`` at the level: alike in its parts (the operators'; the runs' and the snapshots'; all
    three), and scaled so that it is ``r`` in their sum; the parts inside cells are those of the last snapshots where
    the frame says which they are; where the parts' sizes do not allow that, one row with the reason stands for the
    level. Tests, as the analysis makes them: ``between operators`` Spearman over operator means, by permutation at 5 %;
    ``within operators`` Pearson of deviations from the means of the operators' cells
    (:func:`invariscope.analysis.stats.cells.operator_cells`; as many per operator as in the table, of two runs at
    least) with runs as clusters, ``over checkpoints`` Pearson with operators as clusters; these find something where
    their nominal 95 % jackknife interval lies below zero (above, for a positive ``r``), and the first where its
    coefficient does, too. The level ``within operators`` is the secondary test: not that of statement (c), which takes
    operators as clusters, and supposes slopes that vary between operators.

    Columns: the plan, ``level, r, n_operators, runs_per_operator, snapshots_per_run, n_checkpoints, n_clusters``,
    ``power`` = share of simulations that find it, ``se`` of that share, ``leant_on`` (whether a test with so many
    operators counts: at least ``coverage.MIN_PERMUTED`` between operators, ``coverage.MIN_CLUSTERS`` at the other
    levels), ``smallest`` (fewest checkpoints of all designs that reach :data:`ENOUGH` and are leant on), ``found``
    (the table's own operators and runs), ``reason`` (why there is no power).

    Raises:
        TableError: the frame holds no shifts, or lacks a column.
    """
    settings = settings or Power()
    needed = [*DATA_AND_PLAN, "operator", "cluster", PRIMARY_READING, score]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise TableError(f"power: the frame lacks the columns {', '.join(missing)}; make it with `analysis.join`")
    rows = own(shifted(frame))
    if rows.empty:
        raise TableError("power: the frame holds no shifts; collect `invariance` with at least one shift kind first")
    records = []
    for plan, cell in filled(rows).groupby(DATA_AND_PLAN, sort=True):
        labels = dict(zip(DATA_AND_PLAN, plan, strict=True))
        records += [{**labels, **record} for record in _of_cell(cell, settings, score)]
    return pd.DataFrame(records, columns=_COLUMNS)


def _of_cell(cell: pd.DataFrame, settings: Power, score: str) -> list[dict[str, Any]]:
    numbers = cell[[PRIMARY_READING, score]].astype(float)
    usable = np.isfinite(numbers.to_numpy()).all(axis=1) & cell["operator"].notna().to_numpy()
    cell, numbers = cell[usable], numbers[usable]
    blank = {"r": settings.r, "power": np.nan, "se": np.nan, "leant_on": False, "smallest": False, "found": False}
    if cell["operator"].nunique() < 2:
        n = cell["operator"].nunique()
        reason = f"{counted(n, 'operator')} with MSB and consistency {are(n)} fewer than 2"
        return [{**blank, "level": level, "reason": reason} for level in LEVELS]
    operators, runs = cell["operator"].to_numpy(), cell["cluster"].to_numpy()
    x, y = (variance_components(numbers[name].to_numpy(), operators, runs).parts for name in numbers)
    cells = operator_cells(cell).to_numpy()
    # Early snapshots are less consistent whatever the run: beside them nothing would be left of the runs' part.
    last = cell["final"].to_numpy(dtype=bool) if "final" in cell else np.ones(len(cell), dtype=bool)
    inside = [variance_components(numbers[name].to_numpy()[last], cells[last], runs[last]).parts for name in numbers]
    per_operator = max(1, round(len(np.unique(cells)) / len(np.unique(operators))))
    own = (len(np.unique(operators)), max(2, round(cell["cluster"].nunique() / len(np.unique(operators)))))
    records: list[dict[str, Any]] = []
    for level in LEVELS:
        first, second = inside if level == WITHIN else (x, y)
        reason = _obstacle(level, first, second, settings.r)
        if reason:
            records.append({**blank, "level": level, "reason": reason})
            continue
        made = [
            {**blank, "level": level, **_one(level, first, second, design, settings, per_operator)}
            for design in _designs(own, settings)
        ]
        enough = [row for row in made if row["leant_on"] and row["power"] >= ENOUGH]
        for row in made:
            row["found"] = (row["n_operators"], row["runs_per_operator"]) == own
        if enough:
            min(enough, key=lambda row: (row["n_checkpoints"], row["n_operators"]))["smallest"] = True
        records += made
    return records


def _obstacle(level: str, x: Array, y: Array, r: float) -> str:
    """Why a level has no correlation ``r`` to be seen."""
    parts = _PARTS[level]
    for name, variances in (("MSB", x), ("consistency", y)):
        if not variances[parts].sum() > 0:
            where = level if level == BETWEEN else "inside operators"
            return f"{name} does not vary {where}"
    if not (np.sqrt(x * y)[parts] > 0).any():
        return "MSB and consistency vary at different levels"
    most = _largest(x[parts], y[parts])
    if abs(r) > most:
        return f"r = {r:g} cannot arise from these parts: at most |r| = {most:.3g}"
    return ""


def _largest(x: Array, y: Array) -> float:
    """The correlation of the sums of these parts where that in each part is 1."""
    return float(np.sqrt(x * y).sum() / np.sqrt(x.sum() * y.sum()))


def _designs(own: tuple[int, int], settings: Power) -> Iterator[tuple[int, int, int]]:
    """Operators, runs per operator, snapshots per run."""
    operators = sorted({*settings.operators, own[0]})
    runs = sorted({*settings.runs, own[1]})
    for design in product(operators, runs, settings.snapshots):
        if np.prod(design) <= settings.most_checkpoints or design[:2] == own:
            yield design


def _one(level: str, x: Array, y: Array, design: tuple[int, int, int], settings: Power, cells: int) -> dict[str, Any]:
    """The simulated power of one design at one level, with so many cells of an operator."""
    n_operators, n_runs, n_snapshots = design
    r = settings.r
    if level != BETWEEN:
        r /= _largest(x[_PARTS[level]], y[_PARTS[level]])
    rng = np.random.default_rng([settings.seed, LEVELS.index(level), *design])
    found: np.ndarray
    if level == BETWEEN:
        # An operator's runs and snapshots enter through its mean alone, which is drawn at once.
        shrink = np.array([1, n_runs, n_runs * n_snapshots])
        data = _simulate(x / shrink, y / shrink, r, (n_operators, 1, 1), settings.simulations, rng)
        found = _permuted(data[:, :, 0, 0], np.sign(settings.r))
    else:
        data = _simulate(x, y, r, design, settings.simulations, rng)
        low, high = _interval(level, data, max(1, min(cells, n_runs // 2)))
        found = high < 0 if settings.r < 0 else low > 0
    share = float(np.mean(found))
    n_clusters = n_operators * (n_runs if level == WITHIN else 1)
    return {
        **{"n_operators": n_operators, "runs_per_operator": n_runs, "snapshots_per_run": n_snapshots},
        **{"n_checkpoints": n_operators * n_runs * n_snapshots, "n_clusters": n_clusters, "power": share},
        **{"se": float(np.sqrt(share * (1 - share) / settings.simulations)), "leant_on": n_operators >= _FEWEST[level]},
        "reason": "",
    }


def _simulate(
    x: Array, y: Array, r: float, design: tuple[int, int, int], simulations: int, rng: np.random.Generator
) -> Array:
    """``(simulations, operators, runs, snapshots, 2)``, the two columns correlated ``r`` in each of their parts."""
    root = np.array([[1.0, r], [0.0, np.sqrt(1 - r * r)]])
    total = np.zeros((simulations, *design, 2))
    for part, shape in enumerate(((*design[:1], 1, 1), (*design[:2], 1), design)):
        scale = np.sqrt([x[part], y[part]])
        total += (rng.standard_normal((simulations, *shape, 2)) @ root) * scale
    return total


def _permuted(means: Array, side: float) -> np.ndarray:
    """Whether Spearman's correlation of ``means`` ``(simulations, n, 2)`` is found on this side of zero, at 5 %."""
    ranks = stats.rankdata(means, axis=1) - (means.shape[1] + 1) / 2
    rho: Array = side * (ranks[..., 0] * ranks[..., 1]).sum(axis=1) / (ranks[..., 0] ** 2).sum(axis=1)
    return np.asarray(rho >= _critical(means.shape[1]) - 1e-9)


@lru_cache(maxsize=64)
def _critical(n: int) -> float:
    """The smallest ``|rho|`` of ``n`` values without ties whose p by permutation is below 5 %, of 20,000 of them; 2
    where there is none.
    """
    ranks = np.arange(n) - (n - 1) / 2
    drawn = np.random.default_rng(0).permuted(np.tile(ranks, (_PERMUTATIONS, 1)), axis=1)
    sizes = np.sort(np.abs(drawn @ ranks) / (ranks @ ranks)).round(9)
    values = np.unique(sizes)
    p = 1 - np.searchsorted(sizes, values) / _PERMUTATIONS
    return float(values[p < SIZE].min(initial=2.0))


def _interval(level: str, data: Array, cells: int) -> tuple[Array, Array]:
    """The analysis's interval of every simulation, ``(simulations,)`` each; ``cells`` of each operator."""
    simulations, operators, runs, snapshots, _ = data.shape
    if level == WITHIN:
        size = runs // cells  # the runs that do not fill a cell are left out
        return _jackknife(data[:, :, : cells * size].reshape(simulations, operators * cells, size, snapshots, 2))
    return _jackknife(data.reshape(simulations, 1, operators, runs * snapshots, 2))


def _jackknife(data: Array) -> tuple[Array, Array]:
    """Interval of Pearson's r about group means from leaving out clusters; ``data`` ``(simulations, groups, clusters of
    a group, rows of a cluster, 2)``.
    """
    rows, clusters = data.shape[3], data.shape[2]
    first, second = data[..., 0], data[..., 1]
    products = np.stack([(a * b).sum(axis=3) for a, b in ((first, first), (first, second), (second, second))])
    sums = data.sum(axis=3)
    whole, left = sums.sum(axis=2), sums.sum(axis=2, keepdims=True) - sums
    about = [products[k].sum(axis=2) - whole[..., i] * whole[..., j] / (rows * clusters) for k, i, j in _MOMENTS]
    total = [part.sum(axis=1) for part in about]
    without = [
        products[k].sum(axis=2, keepdims=True) - products[k] - left[..., i] * left[..., j] / (rows * (clusters - 1))
        for k, i, j in _MOMENTS
    ]
    without = [
        (t[:, None, None] - a[..., None] + w).reshape(len(data), -1).T
        for t, a, w in zip(total, about, without, strict=True)
    ]
    return jackknife_interval(_r(total), _r(without))


_MOMENTS = ((0, 0, 0), (1, 0, 1), (2, 1, 1))


def _r(moments: Sequence[Array]) -> Array:
    return moments[1] / np.sqrt(moments[0] * moments[2])
