"""The second leg of the study: statement 1 on another architecture, and whether its slope is another one.

Its tables stand in a folder of their own beside the study's: its population, E, takes part in no statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis import Frames, TableError, load
from invariscope.analysis.designs.assigned import LEAST_BLOCKS, POPULATION, ROTATED, cells_of
from invariscope.analysis.designs.assigned_statements import statements
from invariscope.analysis.designs.verdicts import LEVEL, WITHIN
from invariscope.zoo.recipe import read_recipe
from reference.answer_study import RECIPES, primary_rows
from reference.answer_tables import KINDS, Statements, left_out, named, size_told, told
from reference.words import MISSING, markdown

FOLDER = "second_leg"
"""Beside the folder of the study's tables."""

LEG = "E"
"""The population of its networks."""


def wald(a: float, se_a: float, b: float, se_b: float) -> tuple[float, float]:
    """``z = (a - b) / sqrt(se_a² + se_b²)`` of two independent estimates, and its two-sided p (normal)."""
    z = (a - b) / float(np.hypot(se_a, se_b))
    return z, 2 * float(stats.norm.sf(abs(z)))


def leg_folder(folder: str | Path) -> Path | None:
    """The leg's tables beside ``folder``, those of the study; None where there are none."""
    path = Path(folder).parent / FOLDER
    return path if any(path.glob("*/*.parquet")) else None


def leg_progress(folder: str | Path) -> tuple[int, int]:
    """Networks of the leg that are measured, and those planned; ``folder``: the study's tables."""
    path = leg_folder(folder)
    there = load(str(path)).checkpoints["checkpoint"].nunique() if path else 0
    return there, len(read_recipe(RECIPES / "population_resnet.yaml"))


def leg_statements(rows: pd.DataFrame) -> Statements:
    """Statement 1 of the leg's networks, by the code that makes it of R.

    Raises:
        TableError: networks of another population among them.
    """
    others = sorted({str(name) for name in rows[POPULATION]} - {LEG})
    if others:
        raise TableError(f"the second leg holds networks of the population {', '.join(others)}: give {LEG} alone")
    return Statements(statements(rows.assign(**{POPULATION: ROTATED})))


@dataclass(frozen=True, eq=False)
class Leg:
    """The leg's rows and statements beside those of the study's cell of the same data."""

    rows: pd.DataFrame
    other: Statements
    found: Statements
    here: str
    there: str

    @classmethod
    def of(cls, folder: str | Path, found: Statements) -> Leg | None:
        """None where the leg is not measured.

        Args:
            folder: the study's tables.
            found: what was found in them.
        """
        path = leg_folder(folder)
        if path is None:
            return None
        rows = primary_rows(Frames(load(str(path))))
        ((there, _),) = cells_of(rows)
        here = next((cell for cell in found.cells if named(cell) == named(there)), "")
        return cls(rows, leg_statements(rows), found, here, there)

    @property
    def architectures(self) -> tuple[str, str]:
        """Of the study's cell, and of the leg."""
        return self.here.rpartition("/")[2] or "the network of the study", self.there.rpartition("/")[2]

    def slope(self, kind: str, *, mine: bool) -> pd.Series | None:
        """Statement 1 of the leg (``mine``), or of the study's cell."""
        statements, cell = (self.other, self.there) if mine else (self.found, self.here)
        row = statements.row("1", WITHIN, kind, cell)
        return None if row is None or not np.isfinite(row["estimate"]) else row

    def contrast(self, kind: str) -> Contrast | None:
        """The two slopes compared; None with too few whole blocks on one side."""
        cell, leg = self.slope(kind, mine=False), self.slope(kind, mine=True)
        if cell is None or leg is None or not min(cell["n_units"], leg["n_units"]) >= LEAST_BLOCKS:
            return None
        return Contrast(cell, leg, *wald(leg["estimate"], leg["se"], cell["estimate"], cell["se"]))

    def verdict(self) -> str:
        """What the leg says of statement 1, in one sentence; nothing where no slope is tested."""
        compared = {kind: contrast for kind in KINDS if (contrast := self.contrast(kind)) is not None}
        if not compared:
            return ""
        here, there = self.architectures
        words = "; ".join(contrast.words(kind, here) for kind, contrast in compared.items())
        return f"In a {there} on {named(self.there)} (1) is {words}."


@dataclass(frozen=True, eq=False)
class Contrast:
    """Statement 1 of a cell and of the leg, and Wald's test of the difference."""

    cell: pd.Series
    leg: pd.Series
    z: float
    p: float

    def words(self, kind: str, cell_name: str) -> str:
        """Sign and size of the leg's slope against the cell's, with both numbers."""
        own, other = float(self.leg["estimate"]), float(self.cell["estimate"])
        sure = self.leg["low"] * self.leg["high"] > 0
        sign = "of no sure sign" if not sure else "of the same sign" if own * other > 0 else "of the other sign"
        size = "not found to differ in size" if self.p > LEVEL else "larger" if abs(own) > abs(other) else "smaller"
        numbers = f"{told(self.leg, points=True)} points where {cell_name} has {told(self.cell, points=True)}"
        return f"{sign} and {size} under {kind} shifts, {numbers} (Wald's p = {self.p:.2g})"


def second_leg(folder: str | Path, found: Statements) -> Iterator[str]:
    """The section of RESULTS.md; nothing where the leg is not measured."""
    leg = Leg.of(folder, found)
    if leg is None:
        return
    yield "## On another architecture"
    if verdict := leg.verdict():
        yield f"**{verdict}**"
    yield (
        f"Statement 1 again on {named(leg.there)}, with other blocks drawn (population E) and a {leg.architectures[1]} "
        f"instead of {leg.architectures[0]}; in no pooled number. Slopes in logits per unit of MSB; p of "
        f"randomisations within blocks, secondary. {_measured(leg, *leg_progress(folder))}"
    )
    yield from _compared(leg)


def _measured(leg: Leg, there: int, planned: int) -> str:
    accuracy = leg.rows.drop_duplicates("checkpoint")["accuracy"].astype(float)
    out = "; ".join(left_out(leg.other.table)) or "none"
    spread = f"{accuracy.median():.3f} ({accuracy.min():.3f} to {accuracy.max():.3f})"
    return f"{there} of {planned} networks, accuracy {spread} (median, range); left out: {out}."


def _compared(leg: Leg) -> Iterator[str]:
    body, tests = [], []
    for kind in KINDS:
        for mine, architecture in enumerate(leg.architectures):
            if (row := leg.slope(kind, mine=bool(mine))) is not None:
                asked = f"{row['p']:.2g}" if np.isfinite(row["p"]) else MISSING
                body.append([architecture, kind, told(row, points=True), told(row), asked, size_told(row)])
        found = leg.contrast(kind)
        if found is None:
            tests.append(f"under {kind} shifts none, with fewer than {LEAST_BLOCKS} whole blocks on one side")
        else:
            verdict = "the slopes differ" if found.p <= LEVEL else "no difference is found"
            tests.append(f"under {kind} shifts {verdict} (z = {found.z:.2f}, p = {found.p:.2g})")
    if body:
        yield markdown(["architecture", "shifts", "points of consistency", "logits", "p", "n"], body)
    yield f"Wald's test of the two slopes: {'; '.join(tests)}."
