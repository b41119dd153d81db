"""The power of a table's design in words: every sentence is made from the numbers of :func:`power`."""

from __future__ import annotations

import pandas as pd

from invariscope.analysis.stats.coverage import MIN_CLUSTERS, MIN_PERMUTED
from invariscope.analysis.stats.power import BETWEEN, ENOUGH
from invariscope.analysis.tables.plans import DATA_AND_PLAN
from invariscope.base.words import are, counted

_SECONDARY = (
    "secondary test with runs as clusters, not statement (c), which takes operators as clusters and supposes slopes "
    "that vary between them"
)


def power_in_words(table: pd.DataFrame) -> list[str]:
    """One line per plan and level: the power of the design at hand, and the smallest design that has enough."""
    lines = []
    several = table["data"].nunique() > 1
    for (data, kind, _, shift, _, _, level), rows in table.groupby([*DATA_AND_PLAN, "level"], sort=False):
        name = f"{kind} shifts up to {shift} px{f' on {data}' if several else ''}, {level}"
        first = rows.iloc[0]
        if first["reason"]:
            lines.append(f"{name}: no power ({first['reason']})")
            continue
        own = rows[rows["found"]].iloc[0]
        if level == "within operators":
            name += f" ({_SECONDARY})"
        text = f"{name}: power {own['power']:.2f} to see r = {own['r']:g} with {_design(own)}"
        same = rows[rows["n_operators"] == own["n_operators"]]
        reach = same[same["leant_on"] & (same["power"] >= ENOUGH)]
        smallest = rows[rows["smallest"]]
        if reach.empty:
            text += f"; {_too_few(same)}"
        if smallest.empty:
            lines.append(f"{text}; no simulated design has {ENOUGH:g}")
        else:
            lines.append(f"{text}; {_design(smallest.iloc[0])} have {smallest.iloc[0]['power']:.2f}")
    return lines


def _too_few(same: pd.DataFrame) -> str:
    """That the operators are too few, from the designs with as many as the table has."""
    best = same.sort_values("power").iloc[-1]
    most = f"{best['power']:.2f} at most, with up to {counted(same['runs_per_operator'].max(), 'run')} each"
    operators = counted(best["n_operators"], "operator")
    if best["leant_on"]:
        return f"no simulated number of checkpoints suffices with {operators} ({most})"
    fewest = MIN_PERMUTED if best["level"] == BETWEEN else MIN_CLUSTERS
    few = f"{operators} {are(best['n_operators'])} fewer than {fewest}"
    return f"no number of checkpoints suffices, since {few} ({most})"


def _design(row: pd.Series) -> str:
    snapshots = f" x {counted(row['snapshots_per_run'], 'snapshot')}" if row["snapshots_per_run"] > 1 else ""
    operators, runs = counted(row["n_operators"], "operator"), counted(row["runs_per_operator"], "run")
    return f"{operators} x {runs}{snapshots} = {counted(row['n_checkpoints'], 'checkpoint')}"
