"""The second leg of the study: statement 1 on another architecture, and whether its slope is another one.

Its tables stand in a folder of their own beside the study's: its population, E, takes part in no statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis import Frames, TableError, load
from invariscope.analysis.designs.assigned import POPULATION, ROTATED
from invariscope.analysis.designs.assigned_statements import statements
from invariscope.analysis.designs.verdicts import LEVEL, WITHIN
from invariscope.base.words import counted
from invariscope.zoo.recipe import read_recipe
from reference.answer_study import RECIPES, primary_rows
from reference.answer_tables import KINDS, Statements, told
from reference.words import markdown

FOLDER = "second_leg"
"""Beside the folder of the study's tables."""

LEG = "E"
"""The population of its networks."""


def wald(a: float, se_a: float, b: float, se_b: float) -> tuple[float, float]:
    """``z = (a - b) / sqrt(se_a² + se_b²)`` of two independent estimates, and its two-sided p (normal)."""
    z = (a - b) / float(np.hypot(se_a, se_b))
    return z, 2 * float(stats.norm.sf(abs(z)))


def leg_progress(folder: str | Path) -> tuple[int, int]:
    """Networks of the leg that are measured, and those planned; ``folder``: the study's tables."""
    path = Path(folder).parent / FOLDER
    there = load(str(path)).checkpoints["checkpoint"].nunique() if path.exists() else 0
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


def second_leg(folder: str | Path, found: Statements) -> Iterator[str]:
    """The section of RESULTS.md; nothing where the leg is not measured.

    Args:
        folder: the study's tables.
        found: what was found in them.
    """
    path = Path(folder).parent / FOLDER
    if not path.exists():
        return
    other = leg_statements(primary_rows(Frames(load(str(path)))))
    (there,) = other.cells
    data, _, architecture = there.rpartition("/")
    (here,) = [cell for cell in found.cells if cell.rpartition("/")[0] == data]
    body, tests = [], []
    for kind in KINDS:
        rows = {cell: of.row("1", WITHIN, kind, cell) for cell, of in ((here, found), (there, other))}
        for cell, row in rows.items():
            if row is not None:
                size = f"{counted(row['n'], 'network')}, {counted(row['n_units'], 'block')}"
                body.append([cell.rpartition("/")[2], kind, told(row, points=True), told(row), f"{row['p']:.2g}", size])
        mine, its = rows.values()
        if mine is not None and its is not None:
            z, p = wald(its["estimate"], its["se"], mine["estimate"], mine["se"])
            verdict = "the slopes differ" if p <= LEVEL else "no difference is found"
            tests.append(f"under {kind} shifts {verdict} (z = {z:.2f}, p = {p:.2g})")
    yield "## On another architecture"
    yield (
        f"Statement 1 again on {data.partition('/')[0]}, with other blocks drawn and a {architecture} in place of the "
        "network above; in no pooled number. Slopes in logits per unit of MSB; p of randomisations within blocks, "
        "secondary."
    )
    yield markdown(["architecture", "shifts", "points of consistency", "logits", "p", "n"], body)
    yield f"Wald's test of the two slopes: {'; '.join(tests)}."
