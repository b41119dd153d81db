"""``report``: one page of everything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from invariscope.cli.common import DONE, write_page


@dataclass(frozen=True)
class Report:
    """One self-contained HTML page: findings in words, an interactive scatter, figures, sortable tables.

    Example: invariscope report out/tables --out report.html
    """

    tables: Positional[str]
    """Folder of tables, or its URI."""
    out: Path
    """The page to write."""

    def run(self) -> int:
        """Analyse, draw, write the page."""
        from invariscope.analysis import load

        write_page(load(self.tables), self.out)
        return DONE
