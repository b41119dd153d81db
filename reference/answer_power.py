"""What RESULTS.md says of the study's power: as simulated (reference/power.py), and of pairs, which can be counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from invariscope.analysis.designs.assigned import MSB
from invariscope.analysis.designs.plan_numbers import SEE
from invariscope.analysis.designs.verdicts import LEVEL, POOLED
from invariscope.base.words import counted
from reference.answer_tables import KINDS, Statements
from reference.words import markdown

FILE = "power.csv"
"""Beside the folder of the study's tables."""

_HARDLY_EVER = 0.09
"""Share of false findings of 200 simulations that a level of 0.05 has hardly ever (2.6 standard errors above it)."""

_EFFECTS = {MSB: "MSB", SEE: "the equivariance error"}
_ASKED = {
    "1": "(1) by Holm",
    "2": "(2) by Holm",
    "3": "(3), interval",
    "4": "aliasing named",
    "no effect that matters": "(1) inside ±0.5",
}


def simulated_power(folder: str | Path) -> Iterator[str]:
    """The table of the simulations, and what they are of; nothing where there are none."""
    path = Path(folder).parent / FILE
    if not path.exists():
        return
    table = pd.read_csv(path)
    body = []
    for row in table.sort_values(["of", "effect", "shift_kind"], ascending=[True, False, True]).to_dict("records"):
        if row["shift_kind"] in KINDS:
            put_in = "nothing" if not row["effect"] else f"{row['effect']:g} logits per unit of {_EFFECTS[row['of']]}"
            body.append([put_in, row["shift_kind"], *(f"{row[name]:.2f}" for name in _ASKED)])
    n = int(table["simulations"].iloc[0])
    yield (
        f"Simulated (`make power`, n = {n} each, standard error at most {0.5 / n**0.5:.2f}): the study's own networks, "
        "its effects of MSB taken out, the residuals of each drawn operator and each block with a new sign, an effect "
        "put in, and analysed by the same code. Shares of the simulations in which each was found:"
    )
    yield markdown(["effect put in", "shifts", *_ASKED.values()], body)
    nothing = table.loc[table["effect"] == 0, "3"]
    if len(nothing) and nothing.max() > _HARDLY_EVER:
        yield (
            f"With nothing put in, the interval of (3) excludes zero in {100 * nothing.min():.0f} to "
            f"{100 * nothing.max():.0f} % of the simulations and not in 5: it is too narrow here, and what it finds is "
            "to be taken with that in mind. Its p is that of a permutation."
        )
    yield (
        f"Of {table['design'].iloc[0]}. (1) is found by a randomisation, which counts what the other ranks do as "
        'chance and so asks for more than the interval does. "Nothing" in (2) is no effect of MSB, and no absence of a '
        "correlation: drawn MSB goes with selectivity. The equivariance error varies within blocks and with MSB too, "
        "so that an effect of it moves (1) to (3)."
    )


def pairs_needed(found: Statements) -> str:
    """How small the p of the paired tests can be, and how many pairs it takes; nothing where there are no pairs."""
    rows = found.primary[(found.primary["statement"] == "6") & (found.primary["cell"] == POOLED)]
    if rows.empty:
        return ""
    pairs = int(rows["n"].max())
    tests = int((rows["note"].astype(str) == "").sum())
    needed = math.ceil(1 + math.log2(tests / LEVEL))
    if pairs >= needed:
        return ""
    return (
        f"(6) has too few pairs for a test that decides: with {counted(pairs, 'pair')} no p of sign flips is below "
        f"{2.0 ** (1 - pairs):.3g}, and Holm's correction over {tests} tests asks {LEVEL / tests:.2g} of the least. It "
        f"takes {needed} pairs, cells times training seeds. (5) is a prediction and has no test."
    )
