"""Pages that live outside of ``docs``, with links that hold inside of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

PAGES = {
    "results": "RESULTS.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "benchmarks": "benchmarks/RESULTS.md",
    "data": "data/README.md",
    "security": "SECURITY.md",
    "conduct": "CODE_OF_CONDUCT.md",
}
"""Name of the page on the site -> its file in the repository."""


ASIDE = ("pages", "site", "population", "demo", "published", "ablation", "reference/results", "reference/cifar10")
ASIDE += ("reference/mnist",)
"""Folders of ``docs`` that are no pages of the site: what commands wrote, for pictures and tests."""

_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def page(repository: Path, file: str, folder: Path) -> str:
    """The text of a file of the repository, its relative links turned to what they mean seen from ``folder``."""
    source = repository / file
    return turned(source.read_text(encoding="utf-8"), source, repository, folder)


def turned(text: str, source: Path, repository: Path, folder: Path) -> str:
    """The text of ``source`` with links that hold on the site, seen from ``folder``.

    A link to what is no page of the site and no picture becomes its text: the site does not hold the repository.
    """
    root, docs = repository.resolve(), (repository / "docs").resolve()
    brought = {(repository / path).resolve(): name for name, path in PAGES.items()}

    def is_page(aim: Path) -> bool:
        inside = aim.suffix == ".md" and aim.is_relative_to(docs)
        return inside and not any(aim.is_relative_to(docs / aside) for aside in ASIDE)

    def turn(match: re.Match[str]) -> str:
        picture, said, target = match["picture"], match["text"], match["target"]
        path, _, anchor = target.partition("#")
        if "://" in target or not path:
            return match[0]
        aim = (source.parent / path).resolve()
        if aim in brought:
            aim = docs / "generated" / f"{brought[aim]}.md"
        elif not picture and not is_page(aim):
            return said if "`" in said else f"{said} (`{aim.relative_to(root).as_posix()}`)"
        seen = os.path.relpath(aim, folder.resolve()).replace(os.sep, "/")
        return f"{picture}[{said}]({seen}{'#' + anchor if anchor else ''})"

    return _LINK.sub(turn, text)
