"""Train three runs of the reference study again, drawn by chance, and compare them with the published tables.

Run `python -m reference.reproduce TABLES OUT [SEED]` from the repository's root, where `out/reference/data` holds the
data (`reference.prepare`). OUT takes the weights and the tables. On the machine that made the tables every number is
the same; elsewhere a run is one more draw from the spread over seeds, and counts as reproduced where each of its
numbers is within three standard deviations of the published one. Exit code 0: all three are; 3: one is not; 2: bad
input.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import shiftscope
from analysis import TableError, join, load
from analysis.tables import own
from reference.pairs import SCORES
from zoo.errors import InputError
from zoo.recipe import Run, read_recipe
from zoo.training import train_recipe

RECIPES = Path(__file__).resolve().parents[1] / "data" / "reference"
RUNS = 3
MOST = 3.0
"""Standard deviations over seeds that a number may lie away: 2.1 of those of the difference of two seeds."""

CELL = ["data", "shift_kind", "architecture", "padding_mode", "operator_spec"]


def chosen(rows: pd.DataFrame, seed: int, count: int = RUNS) -> list[Run]:
    """``count`` runs of the recipes that ``rows`` hold, drawn without replacement.

    Raises:
        TableError: for fewer runs than that.
    """
    known = {run.id: run for recipe in sorted(RECIPES.glob("*.yaml")) for run in read_recipe(recipe)}
    names = sorted(set(rows["run"].dropna()) & known.keys())
    if len(names) < count:
        raise TableError(
            f"the tables hold {len(names)} runs of the recipes, fewer than {count}: name the study's tables"
        )
    return [known[name] for name in np.random.default_rng(seed).permutation(names)[:count]]


def spread(rows: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation over seeds of every score, pooled over the cells of a data set and shift kind."""
    cells = rows.groupby(CELL)[list(SCORES)]
    squares = (cells.var() * (cells.count() - 1)).groupby(["data", "shift_kind"]).sum()
    freedom = (cells.count() - 1).groupby(["data", "shift_kind"]).sum()
    return (squares / freedom.where(freedom > 0)) ** 0.5


def compare(published: pd.DataFrame, again: pd.DataFrame) -> pd.DataFrame:
    """A row per run, shift kind and score: both values, the spread over seeds, and how many of it they differ by."""
    key = ["run", "data", "shift_kind"]
    first, second = (
        rows.set_index(key)[list(SCORES)].stack().rename_axis([*key, "score"]) for rows in (published, again)
    )
    both = pd.DataFrame({"published": first, "again": second}).dropna().reset_index()
    cell = ["data", "shift_kind"]
    sizes = spread(published).reset_index().melt(id_vars=cell, var_name="score", value_name="spread")
    both = both.merge(sizes, on=[*cell, "score"], how="left")
    distance = (both["again"] - both["published"]).abs()
    return both.assign(deviations=np.where(distance == 0, 0.0, distance / both["spread"]))


def main(tables: str, out: Path, seed: int) -> int:
    """Train, measure, compare and print."""
    loaded = own(join(load(tables)))
    published = loaded[loaded["final"]]
    runs = chosen(published, seed)
    print(f"training again: {', '.join(run.id for run in runs)}")
    for data in sorted({run.data for run in runs}):
        zoo = out / Path(data).name
        train_recipe([run for run in runs if run.data == data], zoo)
        limit = int(published.loc[published["data"] == f"{Path(data).name}/test", "n_images"].max())
        command = ["collect", str(zoo), "--data", data, "--out", str(out / "tables"), "--limit", str(limit)]
        if code := shiftscope.main(command):
            return code
    again = join(load(str(out / "tables")))
    table = compare(published, again[again["final"]])
    print(table.round(4).to_string(index=False))
    worst = table.sort_values("deviations").iloc[-1]
    verdict = "reproduced" if worst["deviations"] <= MOST else "NOT reproduced"
    largest = f"{worst['deviations']:.2f} standard deviations over seeds ({worst['run']}, {worst['score']})"
    print(f"{verdict}: the largest difference is {largest}")
    return shiftscope.DONE if worst["deviations"] <= MOST else shiftscope.WITH_FAILURES


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        sys.exit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 0))
    except (InputError, TableError) as problem:
        print(f"reproduce: {problem}", file=sys.stderr)
        sys.exit(shiftscope.BAD_INPUT)
