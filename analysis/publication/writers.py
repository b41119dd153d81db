"""A table as CSV (every number, to be read by programs), as Markdown and as LaTeX (booktabs)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import groupby

from invariscope.analysis.publication.paper import PaperTable
from invariscope.base.spreadsheet import csv_text

_LATEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"±": r"$\pm$", "−": "$-$", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "∞": r"$\infty$", "–": "--"},
    **{"α": r"$\alpha$", "β": r"$\beta$", "ε": r"$\varepsilon$", "λ": r"$\lambda$", "½": r"$\frac{1}{2}$"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
}


def to_csv(table: PaperTable) -> str:
    """The numbers at full precision: the keys, each quantity with ``_low`` and ``_high``, ``n`` and ``runs``."""
    ends = [f"{column.key}{end}" for column in table.columns for end in ("", "_low", "_high")]
    return csv_text(table.rows[[*table.keys, *ends, "n", "runs"]])


def to_markdown(table: PaperTable) -> str:
    """A pipe table, the best entries bold, the caption below."""
    cells, bold, headings = table.cells(), table.bold(), table.headings()
    lines = [_pipes(headings.values()), _pipes("---" if name in table.keys else "---:" for name in cells)]
    for place, row in enumerate(cells.to_dict("records")):
        entries = [(_escape_pipes(row[name]), name in bold and bool(bold[name].iloc[place])) for name in cells]
        lines.append("| " + " | ".join(f"**{text}**" if best else text for text, best in entries) + " |")
    return "\n".join([*lines, "", *table.caption.splitlines(), ""])


def to_latex(table: PaperTable) -> str:
    """A ``table`` environment for the package booktabs, label ``tab:NAME``; needs nothing beyond it.

    Grouped columns stand under one heading with a rule; keys repeat only where they change.
    """
    cells, bold = table.cells(), table.bold()
    quantities = [column.key for column in table.columns]
    body = []
    previous: tuple[str, ...] = ()
    for place, row in enumerate(cells.to_dict("records")):
        outer = tuple(str(row[key]) for key in table.keys[:-1])
        if previous and outer != previous:
            body.append(r"\addlinespace")
        shown = [_escape(row[key]) if outer != previous else "" for key in table.keys[:-1]]
        shown.append(_escape(row[table.keys[-1]]))
        for name in quantities:
            text = _escape(row[name])
            shown.append(rf"\textbf{{{text}}}" if bold[name].iloc[place] else text)
        body.append(" & ".join([*shown, str(row["n"]), str(row["runs"])]) + r" \\")
        previous = outer
    layout = "l" * len(table.keys) + "r" * (len(quantities) + 2)
    caption = _escape(" ".join(table.caption.splitlines()))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{table.name.removeprefix('table_')}}}",
            rf"\begin{{tabular}}{{{layout}}}",
            r"\toprule",
            *_latex_headings(table),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


TABLE_FORMATS: dict[str, Callable[[PaperTable], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
"""Every format that a table is written in, by the file's ending."""


def files(table: PaperTable) -> dict[str, bytes]:
    """The content of each of the table's files by ending, the caption as ``txt`` among them."""
    texts = {ending: write(table) for ending, write in TABLE_FORMATS.items()}
    return {ending: text.encode() for ending, text in {**texts, "txt": f"{table.caption}\n"}.items()}


def _latex_headings(table: PaperTable) -> list[str]:
    headings = table.headings()
    bottom = [_escape(headings[key]) for key in table.keys]
    bottom += [_escape(column.header) for column in table.columns] + ["$n$", "runs"]
    if not any(column.group for column in table.columns):
        return [" & ".join(bottom) + r" \\"]
    top, rules, start = [""] * len(table.keys), [], len(table.keys) + 1
    for group, members in groupby(table.columns, key=lambda column: column.group):
        width = len(list(members))
        top.append(rf"\multicolumn{{{width}}}{{c}}{{{_escape(group)}}}" if group else " & ".join([""] * width))
        if group:
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    return [" & ".join([*top, "", ""]) + r" \\", "".join(rules), " & ".join(bottom) + r" \\"]


def _pipes(texts: Iterable[str]) -> str:
    return "| " + " | ".join(_escape_pipes(text) for text in texts) + " |"


def _escape_pipes(text: object) -> str:
    return re.sub(r"([\\|*`])", r"\\\1", str(text)).replace("<", "&lt;").replace("](", r"]\(")


def _escape(text: object) -> str:
    return "".join(_LATEX.get(character, character) for character in str(text))
