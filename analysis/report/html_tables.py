"""Frames as HTML tables: plain ones, which the page's script makes sortable and filterable."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from invariscope.analysis.publication.paper import PaperTable

MAX_ROWS = 6000
"""Rows of one table in the page; more would make it slow to open. The rest is counted, and is in the CSV files."""

LONG_TEXT = 60
"""Characters from which on a cell may take several lines."""

OPEN_ROWS = 40
"""A table of more rows is folded until it is asked for."""

_NEVER_CONSTANT = ("checkpoint",)


@dataclass(frozen=True)
class HtmlTable:
    """A table of the page: ``markup`` of its head and rows, ``notes`` on what all rows share or lack."""

    markup: Markup
    rows: int
    notes: tuple[str, ...]

    @property
    def is_long(self) -> bool:
        """Whether the table is folded at first."""
        return self.rows > OPEN_ROWS


def html_table(
    frame: pd.DataFrame, *, numeric: Collection[str] | None = None, strong: pd.DataFrame | None = None
) -> HtmlTable:
    """``frame`` as a table: numbers to four significant digits, nothing where there is no number.

    ``numeric`` names the columns that are set and sorted as numbers, by default those of a number's type; entries where
    ``strong`` (a boolean column per column of ``frame``) is true stand out.

    Columns that say the same in every row, or nothing in any, are told once in ``notes`` instead; so is the number of
    rows beyond :data:`MAX_ROWS`.
    """
    shown = frame.iloc[:MAX_ROWS]
    cells = {str(name): [_text(value) for value in shown[name]] for name in shown.columns}
    same = {} if len(shown) < 2 else {name: texts[0] for name, texts in cells.items() if _is_same(name, texts)}
    kept = [name for name in cells if name not in same]
    if numeric is None:
        numeric = {name for name in kept if pd.api.types.is_numeric_dtype(frame[name]) and frame[name].dtype != bool}
    marked = {name: strong[name].tolist() for name in strong} if strong is not None else {}
    head = Markup("").join(_heading(name, name in numeric) for name in kept)
    # HTML lets the end tags of rows and cells go; in thousands of rows they would be a third of the page.
    body = Markup("\n").join(
        Markup("<tr>")
        + Markup("").join(
            _cell(cells[name][row], name in numeric, name in marked and marked[name][row]) for name in kept
        )
        for row in range(len(shown))
    )
    markup = Markup("<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>").format(head, body)
    return HtmlTable(markup, len(shown), tuple(_notes(same, len(frame) - len(shown))))


def _is_same(name: str, texts: list[str]) -> bool:
    return name not in _NEVER_CONSTANT and len(set(texts)) == 1


def _notes(same: dict[str, str], beyond: int) -> list[str]:
    told = ", ".join(f"{name} = {text}" for name, text in same.items() if text)
    empty = ", ".join(name for name, text in same.items() if not text)
    notes = [f"In every row: {told}."] if told else []
    notes += [f"Empty in every row: {empty}."] if empty else []
    notes += [f"{beyond} further rows are not shown here; `invariscope analyze` writes them all."] if beyond else []
    return notes


def _heading(name: str, numeric: bool) -> Markup:
    return Markup('<th scope="col"{}>{}').format(Markup(' class="n"') if numeric else "", name)


def paper_table(table: PaperTable) -> HtmlTable:
    """A table of the paper with its caption, the best entries of comparable ones marked."""
    headings = table.headings()
    frame, strong = table.cells().rename(columns=headings), table.bold().rename(columns=headings)
    made = html_table(frame, numeric=[*strong, "n", "runs"], strong=strong)
    return replace(made, notes=(*table.caption.splitlines(), *made.notes))


def _cell(text: str, numeric: bool, strong: bool) -> Markup:
    kind = "n" if numeric else "long" if len(text) > LONG_TEXT else ""
    opening = Markup(f"<td class={kind}>" if kind else "<td>")
    return opening + (Markup("<strong>{}</strong>").format(text) if strong else escape(text))


def _text(value: Any) -> str:
    """A value as the page shows it: four significant digits, whole numbers in full, yes/no, nothing where missing."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 1e15
        return str(int(value)) if whole else f"{value:.4g}"
    return str(value)
