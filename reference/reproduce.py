"""Train three runs of a published study again, drawn by chance, and compare them with its tables.

Run `python -m reference.reproduce TABLES OUT [SEED]` from the repository's root, where `out/reference/data` holds the
data (`reference.prepare`). OUT takes the weights and the tables. On the machine that made the tables every number is
the same; elsewhere a run is one more draw from the spread over seeds. Each number's difference is divided by the
standard deviation of the difference of two seeds and has Student's p; the runs are reproduced where no p is below 0.05
divided by how many numbers are compared. Exit code 0: reproduced; 3: not; 2: bad input.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from invariscope import cli
from invariscope.analysis import TableError, join, load
from invariscope.analysis.tables.checkpoints import own
from invariscope.analysis.tables.plans import filled
from invariscope.base.errors import InputError
from invariscope.zoo.recipe import read_recipe
from invariscope.zoo.run import Run
from invariscope.zoo.training import train_recipe
from reference.pairs import SCORES

DATA = Path(__file__).resolve().parents[1] / "data"
RECIPES = (*sorted((DATA / "reference").glob("*.yaml")), *sorted((DATA / "recipes").glob("population_[!b]*[!n].yaml")))
"""Of the first study and of the population study."""

RUNS = 3
LEVEL = 0.05
"""Chance that a faithful rerun elsewhere is called not reproduced, at most (Bonferroni)."""

WHERE = ["data", "shift_kind"]
CELL = [*WHERE, "architecture", "padding_mode", "operator_spec"]


@cache
def known_runs() -> dict[str, Run]:
    """Every run of the recipes, by its id."""
    return {run.id: run for recipe in RECIPES for run in read_recipe(recipe)}


def chosen(rows: pd.DataFrame, seed: int, count: int = RUNS) -> list[Run]:
    """``count`` runs of the recipes that ``rows`` hold, drawn without replacement.

    Raises:
        TableError: for fewer runs than that.
    """
    known = known_runs()
    names = sorted(set(rows["run"].dropna()) & known.keys())
    if len(names) < count:
        raise TableError(
            f"the tables hold {len(names)} runs of the recipes, fewer than {count}: name the study's tables"
        )
    return [known[name] for name in np.random.default_rng(seed).permutation(names)[:count]]


def spread(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per data set, shift kind and score: the standard deviation over seeds, pooled over cells, and its degrees
    of freedom.
    """
    cells = rows.groupby(CELL)[list(SCORES)]
    freedom = cells.count() - 1
    both = {"squares": cells.var() * freedom, "freedom": freedom}
    told = {
        name: table.reset_index().groupby(WHERE)[list(SCORES)].sum().reset_index().melt(WHERE, None, "score", name)
        for name, table in both.items()
    }
    pooled = told["squares"].merge(told["freedom"], on=[*WHERE, "score"])
    return pooled.assign(spread=(pooled["squares"] / pooled["freedom"].where(pooled["freedom"] > 0)) ** 0.5)


def compare(published: pd.DataFrame, again: pd.DataFrame) -> pd.DataFrame:
    """A row per run, shift kind and score: both values, the spread over seeds, and p of their difference.

    Raises:
        TableError: a data set has no cell with two seeds, so that nothing says how much seeds differ.
    """
    key = ["run", *WHERE]
    first, second = (
        rows.set_index(key)[list(SCORES)].stack().rename_axis([*key, "score"]) for rows in (published, again)
    )
    both = pd.DataFrame({"published": first, "again": second}).dropna().reset_index()
    both = both.merge(spread(published), on=[*WHERE, "score"], how="left")
    if both["spread"].isna().any():
        raise TableError(
            f"no cell of {both.loc[both['spread'].isna(), 'data'].iloc[0]} has runs of two seeds, so that nothing says "
            "how much seeds differ: name tables with several seeds"
        )
    distance = (both["again"] - both["published"]).abs()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(distance == 0, 0.0, distance / (both["spread"] * np.sqrt(2)))
    return both.assign(p=2 * stats.t.sf(ratios, both["freedom"])).drop(columns=["squares", "freedom"])


def main(tables: str, out: Path, seed: int) -> int:
    """Train, measure, compare and print."""
    loaded = own(join(load(tables)))
    loaded = filled(loaded)
    smallest = loaded.groupby(WHERE)["max_shift"].transform("min")
    published = loaded[loaded["final"] & (loaded["max_shift"] == smallest)]
    runs = chosen(published, seed)
    print(f"training again: {', '.join(run.id for run in runs)}")
    for data in sorted({run.data for run in runs}):
        zoo = out / Path(data).name
        train_recipe([run for run in runs if run.data == data], zoo)
        limit = int(published.loc[published["data"] == f"{Path(data).name}/test", "n_images"].max())
        command = ["collect", str(zoo), "--data", data, "--out", str(out / "tables"), "--limit", str(limit)]
        if code := cli.main(command):
            return code
    again = join(load(str(out / "tables")))
    again = filled(again[again["final"]])
    again = again[again["run"].isin([run.id for run in runs])]
    table = compare(published, again)
    print(table.round(4).to_string(index=False))
    least = table.sort_values("p").iloc[0]
    reproduced = bool(least["p"] * len(table) >= LEVEL)
    same = int((table["published"] == table["again"]).sum())
    print(
        f"{'reproduced' if reproduced else 'NOT reproduced'}: {same} of {len(table)} numbers are the same; the "
        f"smallest p is {least['p']:.2g} ({least['run']}, {least['shift_kind']}, {least['score']}), times {len(table)} "
        f"numbers {min(1.0, least['p'] * len(table)):.2g}"
    )
    return cli.DONE if reproduced else cli.WITH_FAILURES


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        sys.exit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 0))
    except (InputError, TableError) as problem:
        print(f"reproduce: {problem}", file=sys.stderr)
        sys.exit(cli.BAD_INPUT)
