"""What a reader sees first: the verdict in a sentence, the headline figure, the primary statements, what limits them.

Everything else stands in folds behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass

FIGURE_FILE = "headline.png"
"""The headline figure, in a folder of results."""

HEAD = ("statement", "shifts", "effect (95 % interval)", "p after Holm", "n", "verdict")

MISSING = "–"


@dataclass(frozen=True)
class Stated:
    """A primary statement in words, a cell of the table each: the columns :data:`HEAD`."""

    statement: str
    shifts: str
    effect: str
    p: str
    n: str
    verdict: str


@dataclass(frozen=True)
class Fold:
    """A part of the summary that is folded away: its title, and its text as Markdown."""

    title: str
    text: str


@dataclass(frozen=True)
class Opening:
    """The first page of a summary. ``verdict``: one sentence; ``rows``: the primary statements; ``caveats``: three at
    most, a short sentence first in each.
    """

    title: str
    verdict: str
    rows: tuple[Stated, ...] = ()
    caveats: tuple[str, ...] = ()

    def markdown(self, figure: str | None = None) -> str:
        """Verdict, figure (its path or address; none without it), table and caveats, without the title."""
        parts = [f"**{no_markup(self.verdict)}**"]
        if figure:
            parts.append(f"![{self.title}]({figure})")
        if self.rows:
            parts.append(_table(self.rows))
        if self.caveats:
            parts.append("\n".join(f"* {no_markup(caveat)}" for caveat in self.caveats))
        return "\n\n".join(parts)

    def lines(self) -> list[str]:
        """Verdict and primary statements as lines for a terminal."""
        told = []
        for row in self.rows:
            p = f", p {row.p} after Holm" if row.p != MISSING else ""
            n = f", {row.n}" if row.n != MISSING else ""
            told.append(f"{row.statement}, {row.shifts}: {row.effect}{p}{n}: {row.verdict}")
        return [self.verdict, *told]


def no_markup(text: str) -> str:
    """A text of Markdown in which names are no HTML and no links."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).replace("](", "]\\(")


def _table(rows: Iterable[Stated]) -> str:
    body = [HEAD, ("---",) * len(HEAD), *(astuple(row) for row in rows)]
    return "\n".join(f"| {' | '.join(no_markup(cell).replace('|', '/') for cell in line)} |" for line in body)


def summary_text(opening: Opening, folds: Iterable[Fold], figure: str | None = None) -> str:
    """The whole of ``summary.md``; ``figure``: the file of the headline figure beside it.

    Blank lines within ``<details>`` let Markdown be read as such there.
    """
    parts = [f"# {opening.title}", opening.markdown(figure)]
    for fold in folds:
        parts += [f"<details>\n<summary><b>{no_markup(fold.title)}</b></summary>", no_markup(fold.text), "</details>"]
    return "\n\n".join(parts) + "\n"
