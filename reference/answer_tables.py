"""The tables of RESULTS.md: what the statements of the population study say, cell by cell, and what explains them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.designs.assigned import (
    DRAWN,
    POPULATION,
    ROTATED,
    cells_of,
)
from invariscope.analysis.designs.chain import LAST, LOGITS, OPERATOR_LINK, SCORE, chain
from invariscope.analysis.designs.published_cell import OVER, PublishedCell
from invariscope.analysis.designs.published_cell import WITHIN as WITHIN_OPERATORS
from invariscope.analysis.designs.verdicts import (
    MSB_GIVEN,
    MSB_SLOPE,
    OPEN,
    POOLED,
    SEE_SLOPE,
    TOTAL,
    WITHIN,
    is_primary_plan,
)
from invariscope.analysis.say.assigned_words import verdict_told
from invariscope.analysis.say.numbers import ranged
from invariscope.base.words import counted
from reference.words import MISSING, markdown

KINDS = ("circular", "zero")
ERROR, EXPLAINED = "mean absolute error in points", "R² on logits"

WIDE = "R3x3"
"""The population of rotations in windows of 3x3."""

STATED = (
    ("1", WITHIN, "(1) MSB moved within blocks: points of consistency", True),
    ("1", f"{WITHIN}, plain", "(1) the same, whatever ranks the weight comes from: points", True),
    (f"1 ({WIDE})", WITHIN, "(1) in windows of 3×3, assigned at random to their nine ranks: points", True),
    ("2", TOTAL, "(2) Spearman of corrected MSB and consistency, drawn operators", False),
    ("2", "Spearman of msb", "(2) Spearman of literal MSB, where channels take ranks", False),
    ("2", "Spearman of selectivity", "(2) Spearman of selectivity", False),
    ("2", "Spearman of see", "(2) Spearman of the equivariance error of the sites", False),
    ("3", MSB_SLOPE, "(3) MSB at equal everything assigned: points", True),
    ("4", MSB_GIVEN, "(4) the same given the equivariance error: points", True),
    ("4", SEE_SLOPE, "(4) equivariance error: logits per unit", False),
    ("5", f"{ERROR}, by MSB", "(5) published operators predicted by MSB: error in points", False),
    ("5", f"{ERROR}, by see", "(5) predicted by the equivariance error: error in points", False),
)
"""Statement, quantity, its words, and whether it is told in points of consistency."""

NOT_CLEAR = "‡"
NOT_CLEAR_SAID = (
    f"{NOT_CLEAR} The interval excludes zero, and the test (by randomisation or permutation) does not reject: open, "
    "by the plan's rule."
)

PLAYERS = ("MSB", "low pass", "position", "selectivity", "padding", "augmentation")


class Statements:
    """The table of statements, looked up by what a number is of."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table
        self.primary = table[is_primary_plan(table)]

    @property
    def cells(self) -> list[str]:
        """The cells by name."""
        names = self.primary["cell"].dropna().unique()
        return sorted(str(name) for name in names if name != POOLED)

    def row(self, statement: str, quantity: str, kind: str, cell: str = POOLED) -> pd.Series | None:
        """The row of the primary plan; None where there is none."""
        table = self.primary
        mine = (table["statement"] == statement) & (table["quantity"] == quantity) & (table["shift_kind"] == kind)
        found = table[mine & (table["cell"] == cell)]
        return None if found.empty else found.iloc[0]

    def verdict(self, row: pd.Series | None) -> str:
        """The verdict on a row, and whether the cells of a pooled slope differ in sign; a dash where there is none."""
        known = row is not None and isinstance(row["verdict"], str) and bool(row["verdict"])
        return verdict_told(self.table, row.to_dict()) if row is not None and known else MISSING

    def number(self, statement: str, quantity: str, kind: str, cell: str = POOLED, *, points: bool = False) -> str:
        """``-0.29 (-0.41 to -0.17)``, or a dash."""
        return told(self.row(statement, quantity, kind, cell), points=points)


def told(row: pd.Series | None, *, points: bool = False, digits: int = 2) -> str:
    """A number with its interval; in points where asked; a dash where there is none."""
    if row is None:
        return MISSING
    names = ("points", "points_low", "points_high") if points else ("estimate", "low", "high")
    value, low, high = (float(row[name]) for name in names)
    return ranged(value, low, high, 1 if points else digits) if np.isfinite(value) else MISSING


def named(cell: str) -> str:
    """``digits``, of ``digits/test/smallcnn``."""
    return cell.partition("/")[0]


def short_names(cells: Sequence[str]) -> dict[str, str]:
    """Cells by the name of their data set, with the architecture where a data set has several."""
    many = {cell: sum(named(other) == named(cell) for other in cells) > 1 for cell in cells}
    return {cell: f"{named(cell)}, {cell.rpartition('/')[2]}" if many[cell] else named(cell) for cell in cells}


def statement_table(found: Statements) -> str:
    """Every statement pooled and in each cell, under both kinds of shift."""
    cells = short_names(found.cells)
    head = ["statement", "shifts", "pooled", *cells.values(), "n", "p", "verdict"]
    body = []
    for statement, quantity, words, points in STATED:
        for kind in KINDS:
            row = found.row(statement, quantity, kind)
            each = [_of_cell(found, statement, quantity, kind, cell, points) for cell in cells]
            if row is None and set(each) <= {MISSING}:
                continue
            body.append([words, kind, told(row, points=points), *each, size_told(row), _p(row), found.verdict(row)])
    return markdown(head, body)


def _of_cell(found: Statements, statement: str, quantity: str, kind: str, cell: str, points: bool) -> str:
    """A cell's number, marked where its interval excludes zero and its verdict is open all the same."""
    row = found.row(statement, quantity, kind, cell)
    clear = row is not None and row["verdict"] == OPEN and row["low"] * row["high"] > 0
    return told(row, points=points) + (f" {NOT_CLEAR}" if clear else "")


def size_told(row: pd.Series | None) -> str:
    """``640 networks, 160 blocks``; a dash where there is no number."""
    if row is None or not np.isfinite(row["n_units"]):
        return MISSING
    units = counted(row["n_units"], "block" if str(row["statement"]).startswith("1") else "operator")
    return f"{counted(row['n'], 'network')}, {units}" if np.isfinite(row["n"]) else units


def _p(row: pd.Series | None) -> str:
    if row is None:
        return MISSING
    if np.isfinite(row["p_holm"]):
        return f"{row['p_holm']:.2g} (Holm)"
    return f"{row['p']:.2g}" if np.isfinite(row["p"]) else MISSING


def pair_table(found: Statements) -> str:
    """Statement 6, a row per comparison and shift kind."""
    rows = found.primary[(found.primary["statement"] == "6") & (found.primary["cell"] == POOLED)]
    body = [
        [
            row["quantity"], row["shift_kind"], ranged(row["estimate"], row["low"], row["high"]),
            counted(row["n"], "pair"), _p(row), row["verdict"] or MISSING,
        ]
        for _, row in rows.fillna({"verdict": ""}).sort_values(["quantity", "shift_kind"]).iterrows()
    ]  # fmt: skip
    return markdown(["pair", "shifts", "difference in logits", "n", "p after Holm", "verdict"], body) if body else ""


def share_table(found: Statements) -> str:
    """Shares (LMG) of the variance of logit consistency over drawn operators, and R² of single rivals alone."""
    columns = [(cell, kind) for cell in found.cells for kind in KINDS]
    cells = short_names(found.cells)

    def line(words: str, statement: str, quantity: str) -> list[str]:
        rows = [found.row(statement, quantity, kind, cell) for cell, kind in columns]
        return [words, *(MISSING if row is None else f"{100 * float(row['estimate']):.0f} %" for row in rows)]

    body = [line(f"share of {name}", "3", f"share of {name}") for name in PLAYERS]
    body.append(line("all that was assigned", "3", "R² of all"))
    body.append(line("share of the equivariance error, beside them", "4", "share of see, with see"))
    body.append(line("all, with the equivariance error", "4", "R² of all, with see"))
    body.append(line("MSB and its square alone", "4", "R² of msb alone"))
    body.append(line("equivariance error alone", "4", "R² of see alone"))
    error = "operator_equivariance_error"
    body.append(line("the operator's error on noise alone, before any training", "4", f"R² of {error} alone"))
    kept = [row for row in body if set(row[1:]) != {MISSING}]
    return markdown(["part of the variance", *(f"{cells[cell]}, {kind}" for cell, kind in columns)], kept)


def published_table(cells: Mapping[str, PublishedCell]) -> str:
    """Coefficients within the fullest cell of published operators of each data set."""
    readings = {"msb": "literal MSB", "msb_corrected": "corrected MSB", "see": "equivariance error"}
    body = []
    for name, cell in cells.items():
        for kind in KINDS:
            for score in ("consistency", "fidelity"):
                table = cell.coefficients(kind, list(readings), score)
                for level in (OVER, WITHIN_OPERATORS):
                    part = table[table["level"] == level].set_index("reading")
                    numbers = [
                        ranged(*part.loc[reading, ["r", "low", "high"]].astype(float))
                        if reading in part.index
                        else MISSING
                        for reading in readings
                    ]
                    n = int(part["n"].max()) if len(part) else 0
                    body.append([named(name), kind, score, level.partition(" ")[0], *numbers, n])
    return markdown(["data", "shifts", "score", "level", *readings.values(), "n"], body)


LINKS = {
    LAST: "drift at the last map",
    LOGITS: "drift of the logits",
    SCORE: "consistency (logit)",
    "msb_corrected": "corrected MSB",
    "selectivity": "selectivity",
    "see": "equivariance error",
}


def chain_table(rows: pd.DataFrame, drift: pd.DataFrame, data: Sequence[str]) -> str:
    """Standardised paths of the links behind the readings, a column per data set and kind; networks of P and R."""
    drawn = rows[rows[POPULATION].isin([DRAWN, ROTATED])]
    table = chain(drawn, drift)
    columns = [(name, kind) for name in data for kind in KINDS]
    body = []
    for outcome in (LAST, LOGITS, SCORE):
        mine = table[(table["outcome"] == outcome) & (table["link"] != OPERATOR_LINK)]
        for predictor in dict.fromkeys(mine["predictor"]):
            numbers = [_path(mine, predictor, name, kind) for name, kind in columns]
            body.append([f"{LINKS[str(predictor)]} → {LINKS[outcome]}", *numbers])
        shares = [_r_squared(mine, name, kind) for name, kind in columns]
        body.append([f"R² of {LINKS[outcome]}", *shares])
    return markdown(["link", *(f"{named(name)}, {kind}" for name, kind in columns)], body)


def _path(table: pd.DataFrame, predictor: str, data: str, kind: str) -> str:
    rows = table[(table["predictor"] == predictor) & (table["data"] == data) & (table["shift_kind"] == kind)]
    found = [
        ranged(row["path"], row["low"], row["high"]) for row in rows.to_dict("records") if np.isfinite(row["path"])
    ]
    return found[0] if found else MISSING


def _r_squared(table: pd.DataFrame, data: str, kind: str) -> str:
    rows = table[(table["data"] == data) & (table["shift_kind"] == kind)]
    known = rows["r_squared"].dropna()
    return f"{known.iloc[0]:.2f}" if len(known) else MISSING


def power_table(found: Statements) -> str:
    """What each primary statement would have seen four times in five, by its own error."""
    spread = float(stats.norm.ppf(0.975) + stats.norm.ppf(0.8))
    body = []
    for statement, quantity, words in (
        ("1", WITHIN, "(1) slope within blocks, logits per unit of MSB"),
        ("2", TOTAL, "(2) Spearman's correlation"),
        ("3", MSB_SLOPE, "(3) slope at equal everything, logits per unit"),
        ("4", SEE_SLOPE, "(4) slope of the equivariance error, logits per unit"),
    ):
        for kind in KINDS:
            row = found.row(statement, quantity, kind)
            if row is None or not np.isfinite(row["se"]):
                continue
            seen = spread * float(row["se"])
            seen = float(np.tanh(seen)) if statement == "2" else seen
            told_points = MISSING
            if statement in "13" and np.isfinite(row["points"]) and row["estimate"]:
                told_points = f"{abs(seen * row['points'] / row['estimate']):.1f}"
            body.append([words, kind, f"{row['se']:.2f}", f"±{seen:.2f}", told_points])
    return markdown(
        ["statement", "shifts", "standard error", "seen four times in five, by its interval", "in points"], body
    )


def robustness_table(table: pd.DataFrame, outcome: str, readings: Mapping[str, str]) -> str:
    """Spearman of readings with accuracy under each condition, pooled over cells."""
    rows = table[(table["cell"] == POOLED) & (table["outcome"] == outcome)]
    body = []
    for condition, part in rows.groupby("condition", sort=False):
        by = {str(row["reading"]): row for row in part.to_dict("records") if np.isfinite(row["r"])}
        numbers = [
            ranged(by[name]["r"], by[name]["low"], by[name]["high"]) if name in by else MISSING for name in readings
        ]
        sizes = part["n_units"].dropna()
        body.append([condition, *numbers, counted(sizes.max(), "operator") if len(sizes) else MISSING])
    return markdown(["condition", *readings.values(), "n"], body)


def left_out(table: pd.DataFrame) -> Iterator[str]:
    """Networks that the plan leaves out, by cell and reason."""
    rows = table[table["statement"] == "left out"]
    for row in rows.sort_values(["cell", "quantity"]).to_dict("records"):
        yield f"{named(str(row['cell']))}: {row['quantity']}, {counted(row['n'], 'network')}"


def material(frame: pd.DataFrame, planned: Mapping[str, int]) -> str:
    """What was trained and measured, a row per cell."""
    rows = frame[frame["final"].astype(bool)].drop_duplicates(["checkpoint", "data"])
    body = []
    for cell, members in cells_of(rows):
        kinds = members[POPULATION].astype(str)
        counts = [str(int((kinds == name).sum())) for name in ("R", WIDE, "P", "H", "T")]
        accuracy = members["accuracy"].astype(float)
        spread = f"{accuracy.median():.3f} ({accuracy.min():.3f} to {accuracy.max():.3f})"
        of = planned.get(named(cell), 0)
        total = f"{len(members)} of {of}" if of else str(len(members))
        images = sorted({int(number) for number in members["n_images"]})
        body.append([named(cell), members["architecture"].iloc[0], total, *counts, spread, _either(images)])
    head = ["data", "architecture", "networks", "R", "R of 3×3", "P", "H", "T", "accuracy: median (range)", "images"]
    return markdown(head, body)


def _either(numbers: Iterable[int]) -> str:
    return " or ".join(f"{number:,}" for number in numbers)
