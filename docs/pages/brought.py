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
}
"""Name of the page on the site -> its file in the repository."""


def page(repository: Path, file: str, folder: Path) -> str:
    """The text of a file, its relative links turned to what they mean seen from ``folder``.

    A link to what is no page of the site and no picture is a name in code: the site does not hold the repository.
    """
    source = repository / file
    brought = {(repository / path).resolve(): name for name, path in PAGES.items()}

    def turned(match: re.Match[str]) -> str:
        picture, text, target = match["picture"], match["text"], match["target"]
        path, _, anchor = target.partition("#")
        if "://" in target or not path:
            return match[0]
        aim = (source.parent / path).resolve()
        if aim in brought:
            return f"{picture}[{text}]({brought[aim]}.md)"
        if not picture and not (aim.suffix == ".md" and aim.is_relative_to((repository / "docs").resolve())):
            return text if "`" in text else f"{text} (`{aim.relative_to(repository.resolve())}`)"
        seen = os.path.relpath(aim, folder.resolve()).replace(os.sep, "/")
        return f"{picture}[{text}]({seen}{'#' + anchor if anchor else ''})"

    pattern = r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)"
    return re.sub(pattern, turned, source.read_text(encoding="utf-8"))
