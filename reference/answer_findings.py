"""The findings of the population study in five lines, for the README."""

from __future__ import annotations

import numpy as np
import pandas as pd

from invariscope.analysis.designs.published_cell import OVER
from invariscope.analysis.designs.published_cell import WITHIN as ALONG
from invariscope.analysis.designs.verdicts import TOTAL, WITHIN
from invariscope.analysis.say.assigned_words import signs_differ
from invariscope.analysis.say.numbers import ranged
from invariscope.base.words import counted
from reference.answer_leg import Leg
from reference.answer_prediction import DIFFERENCE, told_by
from reference.answer_study import Answer
from reference.answer_tables import (
    ERROR,
    KINDS,
    Statements,
    named,
    short_names,
    told,
)
from reference.words import MISSING


def findings(answer: Answer) -> str:
    """The findings in five lines, for the README."""
    found = answer.found
    lines = [
        _moved(answer),
        _correlated(found),
        _alone(found),
        _by_prediction(found),
        _along_published(answer),
    ]
    return "\n".join(["# Findings", "", *(f"* {line}" for line in lines if line)]) + "\n"


def _each_kind(found: Statements, statement: str, quantity: str, *, points: bool = False) -> list[tuple[str, str]]:
    rows = [(kind, found.row(statement, quantity, kind)) for kind in KINDS]
    return [(kind, told(row, points=points, digits=2)) for kind, row in rows if row is not None]


def _moved(answer: Answer) -> str:
    found, leg = answer.found, Leg.of(answer.folder, answer.found)
    rows = [row for kind in KINDS if (row := found.row("1", WITHIN, kind)) is not None]
    if not rows:
        return ""
    return (
        "**MSB moved alone**, the other weights of a window dealt round, changes consistency by "
        f"{', '.join(_moved_under(found, row) for row in rows)}: points from averaging to sampling the maximum, "
        f"{counted(rows[0]['n_units'], 'block')} of four networks. {leg.verdict() if leg else ''}"
    ).rstrip()


def _moved_under(found: Statements, row: pd.Series) -> str:
    """The pooled number with its verdict; each cell's where they differ in sign."""
    kind, number = str(row["shift_kind"]), told(row, points=True)
    if signs_differ(found.table, row.to_dict()):
        names = short_names(found.cells)
        number = ", ".join(
            f"{found.number('1', WITHIN, kind, cell, points=True)} on {name}" for cell, name in names.items()
        )
    return f"{number} under {kind} shifts ({found.verdict(row)})"


def _correlated(found: Statements) -> str:
    numbers = _each_kind(found, "2", TOTAL)
    row = found.row("2", TOTAL, KINDS[0])
    if not numbers or row is None:
        return ""
    words = " and ".join(f"{number} under {kind} shifts" for kind, number in numbers)
    return f"**Over {counted(row['n_units'], 'operator')} drawn at random** Spearman's correlation of MSB and consistency is {words}."  # noqa: E501


def _alone(found: Statements) -> str:
    def shares(quantity: str) -> list[float]:
        rows = [found.row("4", quantity, kind, cell) for cell in found.cells for kind in KINDS]
        return [100 * float(row["estimate"]) for row in rows if row is not None and np.isfinite(row["estimate"])]

    see, msb = shares("R² of see alone"), shares("R² of msb alone")
    if not see or not msb:
        return ""
    return (
        "**What goes with consistency is aliasing**: how far a site is from moving along with its input (`see`) alone "
        f"explains {_span(see)} of the variance over data sets and kinds of shift, MSB with its square {_span(msb)}. "
        "It was measured, not assigned."
    )


def _span(values: list[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def _by_prediction(found: Statements) -> str:
    words = []
    for kind in KINDS:
        by = [found.row("5", f"{ERROR}, by {model}", kind) for model in ("see", "MSB")]
        less = found.row("5", DIFFERENCE, kind)
        if all(row is not None for row in by) and less is not None:
            see, msb = (told(row, digits=1) for row in by)
            apart = f"difference {told(less, digits=1)}: {told_by(less)}"
            words.append(f"{see} points by it and {msb} by MSB under {kind} shifts ({apart})")
    if not words:
        return ""
    return f"**Published operators**, held out of every fit, are predicted with a mean error of {'; '.join(words)}."


def _along_published(answer: Answer) -> str:
    words = []
    for data, cell in answer.compared.items():
        table = cell.coefficients(KINDS[0], ["msb_corrected", "see"], "consistency")
        by = {(row["reading"], row["level"]): row for row in table.to_dict("records")}
        numbers = [
            ranged(by[key]["r"], by[key]["low"], by[key]["high"]) if key in by else MISSING
            for key in (("msb_corrected", OVER), ("msb_corrected", ALONG), ("see", OVER))
        ]
        name = named(data)
        words.append(
            f"{name} {numbers[0]}, along the strength of one operator {numbers[1]}, and {numbers[2]} with `see`"
        )
    return (
        f"**Among published operators in one cell** Pearson's r of MSB and circular consistency is: {'; '.join(words)}."
    )
