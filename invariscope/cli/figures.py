"""``figures``: the figures, and the tables of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from invariscope.cli.common import DONE, draw_all, names


@dataclass(frozen=True)
class Figures:
    """Draw the figures, and write the tables of the paper (CSV, Markdown and LaTeX), from the tables.

    Example: invariscope figures out/tables --out out/figures --only msb_invariance --format png,pdf
    """

    tables: Positional[str]
    """Folder of tables, or its URI."""
    out: Path
    """Folder for the figures."""
    only: str | None = None
    """Names of figures and of tables of the paper; all by default."""
    format: str = "png"
    """File formats of figures: png, pdf, svg."""

    def run(self) -> int:
        """Draw and print the paths."""
        from invariscope.analysis import load

        draw_all(load(self.tables), self.out, only=names(self.only) if self.only else None, formats=names(self.format))
        return DONE
