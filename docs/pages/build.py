"""Write every generated page, before Sphinx reads the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import brought, command_line, recipes, tables

GENERATED: dict[str, Callable[[], str]] = {
    "command-line": command_line.page,
    "recipes": recipes.page,
    "tables": tables.page,
}
"""Name of the page -> what makes its text."""


def write(docs: Path) -> list[Path]:
    """Write the pages into ``docs/generated``; those whose text is as before are left alone. Returns all of them."""
    folder = docs / "generated"
    folder.mkdir(exist_ok=True)
    texts = {name: make() for name, make in GENERATED.items()}
    texts |= {name: brought.page(docs.parent, file, folder) for name, file in brought.PAGES.items()}
    for name, text in texts.items():
        file = folder / f"{name}.md"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
    return [folder / f"{name}.md" for name in texts]
