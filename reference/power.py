"""Power of the population study as it stands, simulated: its own networks, factors and residuals, other effects.

Run `python -m reference.power TABLES OUT.csv [SIMULATIONS [WORKERS]]`. Of every drawn network the logit of consistency
is taken apart: what its block, or the least squares of its cell, say without MSB; the effect of MSB, which is taken
out; and the residual. A simulation gives the residuals new signs, one for each drawn operator in all cells and one for
each block, so that what belongs together stays together (a wild cluster bootstrap; Cameron, Gelbach and Miller 2008),
adds an effect of a size that is chosen here, and is analysed by the study's own code. `make power` does this for the
published tables.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from invariscope.analysis import Frames, load
from invariscope.analysis.designs.assigned import (
    BLOCK,
    DRAW,
    DRAWN,
    LEAST_BLOCKS,
    LEAST_DRAWS,
    LOGIT,
    MSB,
    POPULATION,
    ROTATED,
    Settings,
    admitted,
    cells_of,
)
from invariscope.analysis.designs.assigned_statements import statements
from invariscope.analysis.designs.plan_numbers import SEE
from invariscope.analysis.designs.population import MSB_TERM, SQUARE, fit_equal
from invariscope.analysis.designs.rotations import spread_of_others, whole_blocks
from invariscope.analysis.designs.verdicts import LEVEL, MSB_SLOPE, POOLED, TOTAL, WITHIN, causes
from invariscope.analysis.stats.randomisation import centred
from invariscope.analysis.stats.resampling import Array
from invariscope.base.files import write_whole
from reference.answer_study import primary_rows

SETTINGS = Settings(draws=399)
_NULL, _LEFT, _UNIT = "null", "left", "unit"
_CHUNK = 10


@dataclass(frozen=True)
class Effect:
    """What is put in, in logits per unit: of assigned MSB, or of the measured equivariance error."""

    of: str
    size: float


EFFECTS = (
    Effect(MSB, 0.0),
    Effect(MSB, -0.1),
    Effect(MSB, -0.25),
    Effect(MSB, -0.5),
    Effect(SEE, -2.0),
    Effect(SEE, -5.0),
)


def taken_apart(rows: pd.DataFrame) -> pd.DataFrame:
    """The networks of P and R that count, of cells that are pooled, with ``null``, their logit without an effect of
    MSB, ``left``, its residual, which ``null`` has no part of, and the ``unit`` whose residuals have one sign.

    ``rows`` are of the primary plans.
    """
    kept = admitted(rows, SETTINGS)[0]
    parts = []
    for _, of_kind in kept.groupby("shift_kind"):
        for _, cell in cells_of(of_kind):
            for population, apart in ((DRAWN, _drawn), (ROTATED, _rotated)):
                members = cell[cell[POPULATION] == population]
                blocks = members[BLOCK].nunique()
                pooled = blocks >= LEAST_BLOCKS if population == ROTATED else len(members) >= LEAST_DRAWS
                parts += [apart(members)] if pooled else []
    return pd.concat(parts)


def _drawn(members: pd.DataFrame) -> pd.DataFrame:
    fit = fit_equal(members).cells[0]
    if len(fit.y) != len(members):
        raise ValueError(f"{fit.name}: {len(members) - len(fit.y)} drawn networks lack a factor")
    left = fit.y - fit.design @ fit.fit.params
    msb = [fit.at(term) for term in (MSB_TERM, SQUARE) if term in fit.names]
    null = fit.design @ fit.fit.params - fit.design[:, msb] @ fit.fit.params[msb]
    return _apart(members, null, left, members[DRAW])


def _rotated(members: pd.DataFrame) -> pd.DataFrame:
    whole, codes = whole_blocks(members)
    y = whole[LOGIT].to_numpy(dtype=float)
    inside = centred(y, codes)
    design = np.column_stack(
        [centred(whole[MSB].to_numpy(dtype=float), codes), spread_of_others(whole["operator_spec"], codes)]
    )
    params = np.linalg.lstsq(design, inside, rcond=None)[0]
    null = y - inside + design[:, 1:] @ params[1:]
    return _apart(whole, null, inside - design @ params, whole["data"] + whole[BLOCK].astype(str))


def _apart(members: pd.DataFrame, null: Array, left: Array, unit: pd.Series) -> pd.DataFrame:
    columns: dict[str, Any] = {_NULL: null, _LEFT: left, _UNIT: unit}
    return members.assign(**columns)


def simulated(rows: pd.DataFrame, effect: Effect, seed: int) -> pd.DataFrame:
    """``rows`` of :func:`taken_apart` with other outcomes: residuals with new signs, the same for every effect, and
    the effect."""
    codes, units = pd.factorize(rows[_UNIT], sort=True)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], len(units))
    made = rows[_NULL].to_numpy() + signs[codes] * rows[_LEFT].to_numpy() + _added(rows, effect)
    return _with_logit(rows, made).drop(columns=[_NULL, _LEFT, _UNIT, LOGIT])


def _with_logit(rows: pd.DataFrame, logit: Array) -> pd.DataFrame:
    """The rows with the score that has this logit, ``log((n c + 1/2) / (n - n c + 1/2))``."""
    n = rows["n_images"].to_numpy(dtype=float)
    return rows.assign(**{SETTINGS.score: np.clip(((n + 1) * special.expit(logit) - 0.5) / n, 0.0, 1.0)})


def _added(rows: pd.DataFrame, effect: Effect) -> Array:
    return effect.size * rows[effect.of].to_numpy(dtype=float)


def outcomes(rows: pd.DataFrame, effect: Effect, seeds: range) -> pd.DataFrame:
    """What the statements say of simulations: a row per seed and kind, with truths as 0 and 1."""
    records = []
    for seed in seeds:
        table = statements(simulated(rows, effect, seed), SETTINGS, brief=True)
        named = causes(table).set_index("shift_kind")
        for kind, found in table[table["cell"] == POOLED].groupby("shift_kind"):
            by = {row["quantity"]: row for row in found.to_dict("records")}
            records.append(
                {
                    "shift_kind": kind,
                    "1": by[WITHIN]["p_holm"] <= LEVEL,
                    "2": by[TOTAL]["p_holm"] <= LEVEL,
                    "3": by[MSB_SLOPE]["low"] * by[MSB_SLOPE]["high"] > 0,
                    "4": bool(named["aliasing"][kind]),
                    "no effect that matters": by[WITHIN]["p_equivalent"] <= LEVEL,
                }
            )
    return pd.DataFrame(records)


def design_of(rows: pd.DataFrame) -> str:
    """How many networks of P and blocks of R each cell has, in words; of rows of :func:`taken_apart`."""
    one = rows[rows["shift_kind"] == rows["shift_kind"].iloc[0]]
    told = []
    for name, members in cells_of(one):
        blocks = members.loc[members[POPULATION] == ROTATED, BLOCK].nunique()
        told.append(f"{name} {blocks} blocks, {(members[POPULATION] == DRAWN).sum()} drawn")
    return "; ".join(told)


def power(folder: str, simulations: int, workers: int) -> pd.DataFrame:
    """A row per effect and shift kind: shares of the simulations, their number, and the design that they are of."""
    rows = taken_apart(primary_rows(Frames(load(folder))))
    chunks = [range(start, min(start + _CHUNK, simulations)) for start in range(0, simulations, _CHUNK)]
    summaries = []
    with Pool(workers) as pool:
        for effect in EFFECTS:
            found = pd.concat(pool.starmap(outcomes, [(rows, effect, chunk) for chunk in chunks]))
            shares = found.groupby("shift_kind").mean().reset_index()
            summaries.append(shares.assign(of=effect.of, effect=effect.size, simulations=simulations))
            print(summaries[-1], flush=True)
    return pd.concat(summaries, ignore_index=True).assign(design=design_of(rows))


def main(folder: str, out: Path, simulations: int = 200, workers: int = 2) -> None:
    """Simulate and write the table."""
    write_whole(out, power(folder, simulations, workers).to_csv(index=False, lineterminator="\n").encode())


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4, 5):
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), *(int(text) for text in sys.argv[3:]))
