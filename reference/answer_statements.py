"""What RESULTS.md says beside the table of statements: its letters, and what qualifies its numbers."""

from __future__ import annotations

from collections.abc import Iterator

from invariscope.analysis.designs.assigned import MSB, POPULATION
from invariscope.analysis.designs.rotations import BOUND
from invariscope.analysis.designs.verdicts import LEVEL, MSB_SLOPE, OPEN, TOTAL, WITHIN
from invariscope.analysis.say.numbers import ranged
from reference.answer_study import Answer
from reference.answer_tables import KINDS, NOT_CLEAR, NOT_CLEAR_SAID, WIDE, Statements


def key() -> str:
    """What the letters and words of the statements are."""
    return (
        "R: blocks of four networks whose operators have the same weights dealt round to the ranks of a window's "
        "pixels, so that MSB alone is moved; P: operators drawn at random; H: published operators, held out of every "
        "fit; T: pairs. A cell is a data set with an architecture. Logit: of consistency. An effect matters from "
        f"{BOUND:g} logits per unit of MSB on: from a consistency of 0.80 to 0.71 or 0.87."
    )


def qualified(answer: Answer, table: str) -> Iterator[str]:
    """What the statement table needs said of it: cells that are open, cells that differ, windows of 3x3."""
    found = answer.found
    if NOT_CLEAR in table:
        yield NOT_CLEAR_SAID
    row = found.row("2", TOTAL, KINDS[0])
    if row is not None and "without" in str(row["note"]):
        yield f"(2) is {str(row['note']).partition('; ')[2]} (data set, architecture, padding and augmentation)."
    for statement, quantity, words in (("1", WITHIN, "(1)"), ("3", MSB_SLOPE, "(3)")):
        rows = [found.row(statement, quantity, kind) for kind in KINDS]
        differing = [row for row in rows if row is not None and row["p_cells"] < LEVEL]
        if differing:
            each = " and ".join(
                f"{ranged(row['random'], row['random_low'], row['random_high'])} under {row['shift_kind']} shifts "
                f"(Q: p = {row['p_cells']:.1g})"
                for row in differing
            )
            yield (
                f"The slopes of {words} differ between cells, so that their precise pooled mean is that of these cells "
                f"alone. As a mean of a sample of such cells (random effects) the slope, in logits, is {each}."
            )
    wide = answer.rows[answer.rows[POPULATION] == WIDE]
    if len(wide):
        msb = wide[MSB].astype(float)
        yield (
            f"In windows of 3×3 the assigned MSB spans {msb.min():.2f} to {msb.max():.2f} alone: a unit of it is an "
            f"extrapolation there. In logits: {_in_logits(found)}; the bound of what matters was fixed for the pooled "
            "slope of 2×2 windows."
        )


def _in_logits(found: Statements) -> str:
    numbers = {kind: found.number(f"1 ({WIDE})", WITHIN, kind) for kind in KINDS}
    return " and ".join(f"{number} under {kind} shifts" for kind, number in numbers.items())


def two_tests(found: Statements) -> str:
    """Why a slope whose interval excludes zero may be open."""
    rows = [found.row("1", WITHIN, kind) for kind in KINDS]
    split = [row for row in rows if row is not None and row["low"] * row["high"] > 0 and row["verdict"] == OPEN]
    if not split:
        return ""
    kinds = " and ".join(f"{row['shift_kind']} shifts (p = {row['p']:.2g} before Holm's correction)" for row in split)
    return (
        f"Under {kinds} the interval of (1) excludes zero and its test does not: the interval asks how far the slope "
        "would be another with other blocks, the randomisation whether the same outcomes, dealt to the ranks of a "
        "block in any other order, give a slope as large. The plan asks for both, so that the statement is open."
    )
