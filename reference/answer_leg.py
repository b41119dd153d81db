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


def second_leg(folder: str | Path, found: Statements) -> Iterator[str]:
    """The section of RESULTS.md; nothing where the leg is not measured.

    Args:
        folder: the study's tables.
        found: what was found in them.
    """
    path = leg_folder(folder)
    if path is None:
        return
    rows = primary_rows(Frames(load(str(path))))
    other = leg_statements(rows)
    yield "## On another architecture"
    ((there, _),) = cells_of(rows)
    here = next((cell for cell in found.cells if named(cell) == named(there)), "")
    data, architecture = named(there), there.rpartition("/")[2]
    yield (
        f"Statement 1 again on {data}, with other blocks drawn (population E) and a {architecture} instead of "
        f"{here.rpartition('/')[2] or 'the network of the study'}; in no pooled number. Slopes in logits per unit of "
        f"MSB; p of randomisations within blocks, secondary. {_measured(rows, other, *leg_progress(folder))}"
    )
    yield from _compared(found, other, here, there)


def _measured(rows: pd.DataFrame, other: Statements, there: int, planned: int) -> str:
    accuracy = rows.drop_duplicates("checkpoint")["accuracy"].astype(float)
    out = "; ".join(left_out(other.table)) or "none"
    spread = f"{accuracy.median():.3f} ({accuracy.min():.3f} to {accuracy.max():.3f})"
    return f"{there} of {planned} networks, accuracy {spread} (median, range); left out: {out}."


def _compared(found: Statements, other: Statements, here: str, there: str) -> Iterator[str]:
    body, tests = [], []
    for kind in KINDS:
        mine, its = found.row("1", WITHIN, kind, here), other.row("1", WITHIN, kind, there)
        for cell, row in ((here, mine), (there, its)):
            if row is not None and np.isfinite(row["estimate"]):
                asked = f"{row['p']:.2g}" if np.isfinite(row["p"]) else MISSING
                body.append([cell.rpartition("/")[2], kind, told(row, points=True), told(row), asked, size_told(row)])
        if mine is None or its is None or not its["n_units"] >= LEAST_BLOCKS or not mine["n_units"] >= LEAST_BLOCKS:
            tests.append(f"under {kind} shifts none, with fewer than {LEAST_BLOCKS} whole blocks on one side")
        else:
            z, p = wald(its["estimate"], its["se"], mine["estimate"], mine["se"])
            verdict = "the slopes differ" if p <= LEVEL else "no difference is found"
            tests.append(f"under {kind} shifts {verdict} (z = {z:.2f}, p = {p:.2g})")
    if body:
        yield markdown(["architecture", "shifts", "points of consistency", "logits", "p", "n"], body)
    yield f"Wald's test of the two slopes: {'; '.join(tests)}."
