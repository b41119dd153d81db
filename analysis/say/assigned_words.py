"""What a study with assigned MSB found, in lines and in a table."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.designs.verdicts import POOLED, causes, is_primary_plan
from invariscope.analysis.say.numbers import ranged
from invariscope.analysis.say.plan_words import plan_words

_NAMED = {
    "msb": "MSB itself",
    "selectivity": "selectivity, how far single pixels are picked at all",
    "aliasing": "aliasing, the equivariance error of the sites",
}
_HEAD = "| statement | shifts | estimate (95 % interval) | p after Holm | n | verdict |\n|---|---|---|---|---|---|"


def assigned_lines(table: pd.DataFrame) -> list[str]:
    """The primary statements and the causes named, as lines for a terminal; none without statements."""
    lines = []
    for row in _primary(table):
        p = f", p {row['p_holm']:.3g} after Holm" if np.isfinite(row["p_holm"]) else ""
        lines.append(f"({row['statement']}) {row['quantity']}, {plan_words(row)}: {_number(row)}{p}: {row['verdict']}")
    return [*lines, *cause_lines(table)]


def cause_lines(table: pd.DataFrame) -> list[str]:
    """``circular shifts: what lowers or raises consistency is …``, a line per kind."""
    lines = []
    for row in causes(table).to_dict("records") if len(table) else []:
        named = [words for name, words in _NAMED.items() if row[name]]
        told = " and ".join(named) if named else "nothing, at the levels fixed in advance"
        way = "; MSB acts by way of it" if row["mediated"] else ""
        lines.append(f"{row['shift_kind']} shifts: named as cause: {told}{way}")
    return lines


def assigned_section(table: pd.DataFrame) -> str:
    """The section of the summary: a table of the primary statements, the causes, and where the others stand."""
    rows = [
        f"| ({row['statement']}) {row['quantity']} | {plan_words(row)} | {_number(row)} "
        f"| {_p(row['p_holm'])} | {_count(row)} | {row['verdict']} |"
        for row in _primary(table)
    ]
    listed = "\n".join(f"* {line}" for line in cause_lines(table))
    return "\n\n".join(
        [
            "## Operators drawn at random, MSB assigned",
            "The statements fixed in advance (docs/analysis-plan.md, version 2); slopes in logits of consistency per "
            "unit of MSB, from the average to the maximum. All others are in `statements.csv`.",
            "\n".join([_HEAD, *rows]),
            listed,
        ]
    )


def _primary(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    if table.empty:
        return []
    mine = (table["role"] == "primary") & is_primary_plan(table) & (table["cell"] == POOLED)
    return table[mine].to_dict("records")


def _number(row: dict[Hashable, Any]) -> str:
    if not np.isfinite(row["estimate"]):
        return f"no number ({row['note']})"
    return ranged(row["estimate"], row["low"], row["high"])


def _p(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else ""


def _count(row: dict[Hashable, Any]) -> str:
    if not np.isfinite(row["n_units"]):
        return ""
    return f"{int(row['n'])} networks, {int(row['n_units'])} {'blocks' if row['statement'] == '1' else 'operators'}"
