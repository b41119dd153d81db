"""Frames as tables of the page: short ones as HTML, long ones as packed columns whose rows are made when opened."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from invariscope.analysis.publication.paper import PaperTable
from invariscope.analysis.report.packed import column, is_numeric, packed, text

MAX_ROWS = 20000
"""Rows of one table in the page; more would make it slow to open. The rest is counted, and is in the CSV files."""

LONG_TEXT = 60
"""Characters from which on a cell may take several lines."""

OPEN_ROWS = 40
"""A table of more rows is folded and packed."""

_NEVER_CONSTANT = ("checkpoint",)


@dataclass(frozen=True)
class HtmlTable:
    """A table of the page: ``markup`` of its head and of its rows, where these are not in ``columns``, packed, or
    those ``of_explorer``; ``notes`` on what all rows share or lack.
    """

    markup: Markup
    rows: int
    notes: tuple[str, ...]
    columns: Markup | None = None
    of_explorer: bool = False

    @property
    def is_long(self) -> bool:
        """Whether the table is folded at first, its rows made when it is opened."""
        return self.columns is not None or self.of_explorer


def html_table(
    frame: pd.DataFrame, *, numeric: Collection[str] | None = None, strong: pd.DataFrame | None = None
) -> HtmlTable:
    """``frame`` as a table: numbers to four significant digits, nothing where there is no number.

    ``numeric`` names the columns that are set and sorted as numbers, by default those of a number's type; entries where
    ``strong`` (a boolean column per column of ``frame``) is true stand out, and such a table is never packed.

    Columns that say the same in every row, or nothing in any, are told once in ``notes`` instead; so is the number of
    rows beyond :data:`MAX_ROWS`.
    """
    shown = frame.iloc[:MAX_ROWS]
    names = [str(name) for name in shown.columns]
    shown = shown.set_axis(names, axis=1)
    same = {} if len(shown) < 2 else {name: found for name in names if (found := _same(name, shown[name])) is not None}
    kept = [name for name in names if name not in same]
    if numeric is None:
        numeric = {name for name in kept if is_numeric(shown[name])}
    notes = tuple(_notes(same, len(frame) - len(shown)))
    head = Markup("").join(_heading(name, name in numeric) for name in kept)
    if len(shown) > OPEN_ROWS and strong is None:
        columns = packed([column(shown[name]) for name in kept])
        return HtmlTable(Markup("<thead><tr>{}</tr></thead>\n<tbody></tbody>").format(head), len(shown), notes, columns)
    marked = {name: strong[name].tolist() for name in strong} if strong is not None else {}
    cells = {name: [text(value) for value in shown[name]] for name in kept}
    # HTML lets the end tags of rows and cells go.
    body = Markup("\n").join(
        Markup("<tr>")
        + Markup("").join(
            _cell(cells[name][row], name in numeric, name in marked and marked[name][row]) for name in kept
        )
        for row in range(len(shown))
    )
    markup = Markup("<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>").format(head, body)
    return HtmlTable(markup, len(shown), notes)


def _same(name: str, values: pd.Series) -> str | None:
    """What all rows of a column say, as text; None where they differ."""
    if name in _NEVER_CONSTANT:
        return None
    first = text(values.iloc[0])
    return first if all(text(value) == first for value in values) else None


def _notes(same: dict[str, str], beyond: int) -> list[str]:
    told = ", ".join(f"{name} = {said}" for name, said in same.items() if said)
    empty = ", ".join(name for name, said in same.items() if not said)
    notes = [f"In every row: {told}."] if told else []
    notes += [f"Empty in every row: {empty}."] if empty else []
    notes += [f"{beyond} further rows are not shown here; `invariscope analyze` writes them all."] if beyond else []
    return notes


def _heading(name: str, numeric: bool) -> Markup:
    return Markup('<th scope="col"{}>{}').format(Markup(' class="n"') if numeric else "", name)


def explorer_table(payload: dict[str, Any]) -> HtmlTable:
    """A row for each of the explorer's rows: checkpoint, shifts, factors and measures, none of it stored twice."""
    numeric = {column["title"] for column in payload["columns"] if column["role"] == "measure"}
    titles = ["checkpoint", "shifts", *(column["title"] for column in payload["columns"])]
    head = Markup("").join(_heading(title, title in numeric) for title in titles)
    kept, total = payload["sampled"]
    notes = (
        (f"A random sample of {kept} of {total} networks; `invariscope analyze` reads all.",) if kept < total else ()
    )
    markup = Markup("<thead><tr>{}</tr></thead>\n<tbody></tbody>").format(head)
    return HtmlTable(markup, len(payload["unit"]), notes, of_explorer=True)


def paper_table(table: PaperTable) -> HtmlTable:
    """A table of the paper with its caption, the best entries of comparable ones marked."""
    headings = table.headings()
    frame, strong = table.cells().rename(columns=headings), table.bold().rename(columns=headings)
    made = html_table(frame, numeric=[*strong, "n", "runs"], strong=strong)
    return replace(made, notes=(*table.caption.splitlines(), *made.notes))


def _cell(said: str, numeric: bool, strong: bool) -> Markup:
    kind = "n" if numeric else "long" if len(said) > LONG_TEXT else ""
    opening = Markup(f"<td class={kind}>" if kind else "<td>")
    return opening + (Markup("<strong>{}</strong>").format(said) if strong else escape(said))
