"""``analyze``: statistics and a summary in words from tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from invariscope.base.paths import folder_to_write
from invariscope.cli.common import DONE, load_tables, run_analysis


@dataclass(frozen=True)
class Analyze:
    """Correlations, regressions, influence and designs of the tables as CSV files, and summary.md in words.

    Example: invariscope analyze out/tables --out out/results --power
    """

    tables: Positional[str]
    """Folder of tables, or its URI."""
    out: Path
    """Folder for the results."""
    power: bool = False
    """Also say how many operators, runs and checkpoints it takes to see r = -0.3: power.csv."""
    all: bool = False
    """Every reading with every score, in every subset of operators and choice of snapshots. By default each reading
    with the main score, the main reading with each score, and those two in every other subset."""
    rivals: Literal["primary", "all", "none"] = "primary"
    """Shift plans under which what else is read of the sites (selectivity, see, ...) is a predictor too, in exploratory
    rows: the primary one with the last snapshots, all, or none."""
    keep_nondeterministic: bool = False
    """Take in networks that give other logits on a second pass or in other batches."""

    def run(self) -> int:
        """Analyse, print the headline, write the results."""
        folder_to_write(self.out)
        tables = load_tables(self.tables, keep_nondeterministic=self.keep_nondeterministic)
        run_analysis(tables, self.out, with_power=self.power, every_pair=self.all, rivals=self.rivals)
        return DONE
