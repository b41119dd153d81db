"""The findings as HTML: Markdown that may hold names which others chose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup

from invariscope.analysis.say.opening import Fold


@dataclass(frozen=True)
class Heading:
    """An entry of the table of contents."""

    level: int
    anchor: str
    text: str


@dataclass(frozen=True)
class PageFold:
    """A part of the findings that is folded away."""

    anchor: str
    title: str
    html: Markup


def folds_html(folds: Iterable[Fold]) -> tuple[list[PageFold], list[Heading]]:
    """The folds of a summary as HTML, and their headings: those of a fold's text are one level below its title.

    The text may hold names that others chose: HTML in it is shown as text, and links and images are not made.
    """
    reader = _reader()
    made: list[PageFold] = []
    headings: list[Heading] = []
    for fold in folds:
        anchor = f"fold-{len(made) + 1}"
        headings.append(Heading(3, anchor, fold.title))
        tokens = reader.parse(fold.text)
        for token, words in zip(tokens, [*tokens[1:], *tokens[-1:]], strict=True):
            if token.type not in ("heading_open", "heading_close"):
                continue
            level = int(token.tag[1:]) + 2
            token.tag = f"h{level}"
            if token.type == "heading_open":
                heading = Heading(level, f"finding-{len(headings) + 1}", _words(words))
                token.attrSet("id", heading.anchor)
                headings.append(heading)
        made.append(PageFold(anchor, fold.title, Markup(reader.renderer.render(tokens, reader.options, {}))))
    return made, [heading for heading in headings if heading.level < 5]


def inline(text: str) -> Markup:
    """A line of Markdown without links and images."""
    return Markup(_reader().renderInline(text))


def _reader() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).disable(["link", "image", "autolink", "reference"])


def _words(token: Any) -> str:
    return "".join(child.content for child in token.children or [])
