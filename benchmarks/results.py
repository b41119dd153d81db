"""Sections of RESULTS.md, each written by the benchmark that measured it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
_TITLE = "# Results of the benchmarks\n\nEach section is written by the benchmark that it names; all by `make bench`.\n"


def machine(*packages: str) -> str:
    """The machine and the versions of ``packages``, in a sentence."""
    named = ", ".join(f"{name} {version(name)}" for name in packages)
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"{system}, Python {platform.python_version()}, {named}."


def load_now() -> float:
    """How many processes want to run, over the last minute; NaN where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def table(rows: list[dict[str, object]]) -> str:
    """Rows as a Markdown table; the keys of the first are the columns."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write_section(heading: str, body: str) -> None:
    """Put the section in the place of the one with the same heading, or at the end."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else _TITLE
    title, *sections = text.split("\n## ")
    kept = {section.partition("\n")[0]: section.rstrip("\n") for section in sections}
    kept[heading] = f"{heading}\n\n{body}"
    RESULTS.write_text("\n\n## ".join([title.rstrip("\n"), *kept.values()]) + "\n", encoding="utf-8")
    print(f"## {heading}\n\n{body}\n")
