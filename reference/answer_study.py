"""The population study as RESULTS.md needs it: its frames, what the analysis found, how much of the plan is there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from invariscope.analysis import Frames, Results, TableError, analyze_tables, load
from invariscope.analysis.designs.assigned import has_population, published
from invariscope.analysis.designs.published_cell import PublishedCell
from invariscope.analysis.designs.verdicts import is_primary_plan
from invariscope.analysis.tables.checkpoints import own
from invariscope.analysis.tables.plans import filled, shifted
from invariscope.zoo.recipe import read_recipe
from reference.answer_tables import (
    Statements,
)

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "data" / "recipes"
CELLS = ("digits", "mnist", "cifar10")
"""Data sets of the study, in the order of the plan; a recipe each."""

HEADLINE = "population"
FIGURES = (HEADLINE, "rotations", "mechanism", "importance", "heldout", "drawn")
PUBLISHED = "published_operators"
TIPS, PHASE_TIPS = "tips", "tips(pool=phase)"
RIVALS = {"aliasing": "the equivariance error of the sites", "selectivity": "selectivity"}
READINGS = {"msb_corrected": "corrected MSB", "see": "equivariance error", "selectivity": "selectivity"}


@dataclass(frozen=True)
class Answer:
    """The study's frames and their folder, what the analysis found, and the first study's rows where they are given."""

    frames: Frames
    results: Results
    found: Statements
    first: pd.DataFrame
    folder: str = ""

    @classmethod
    def of(cls, folder: str | Path, first: str | Path | None = None) -> Answer:
        """Load and analyse.

        Raises:
            TableError: the tables hold no drawn operators.
        """
        frames = Frames(load(str(folder)))
        if not has_population(frames["joined"]):
            raise TableError(f"{folder}: no drawn operators: name the tables of the population study")
        results = analyze_tables(frames, every_pair=True)
        rows = own(Frames(load(str(first)))["joined"]) if first else pd.DataFrame()
        return cls(frames, results, Statements(results.statements), rows, str(folder))

    @property
    def rows(self) -> pd.DataFrame:
        """Last snapshots under the primary plans."""
        return primary_rows(self.frames)

    @property
    def data(self) -> list[str]:
        """Data sets that are there, in the plan's order."""
        there = set(self.rows["data"])
        return [f"{name}/test" for name in CELLS if f"{name}/test" in there]

    @property
    def compared(self) -> dict[str, PublishedCell]:
        """The fullest cell of published operators of each data set that has one: they are trained after the blocks."""
        cells = {}
        for name in self.data:
            with suppress(TableError):
                cells[name] = PublishedCell.of(published(self.rows[self.rows["data"] == name]))
        return cells


def primary_rows(frames: Frames) -> pd.DataFrame:
    """Last snapshots of own networks under the primary plans."""
    rows = filled(shifted(own(frames["joined"])))
    return rows[rows["final"].astype(bool) & is_primary_plan(rows)]


def planned() -> dict[str, int]:
    """Runs of the recipes by data set."""
    return {name: len(read_recipe(RECIPES / f"population_{name}.yaml")) for name in CELLS}
