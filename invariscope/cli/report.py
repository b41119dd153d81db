"""``report``: one page of everything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from invariscope.base.paths import file_to_write
from invariscope.cli.common import DONE, load_tables, write_page


@dataclass(frozen=True)
class Report:
    """One self-contained HTML page: findings in words, an interactive scatter, figures, sortable tables.

    Example: invariscope report out/tables --out report.html
    """

    tables: Positional[str]
    """Folder of tables, or its URI."""
    out: Path
    """The page to write."""
    keep_nondeterministic: bool = False
    """Take in networks that give other logits on a second pass or in other batches."""

    def run(self) -> int:
        """Analyse, draw, write the page."""
        file_to_write(self.out)
        write_page(load_tables(self.tables, keep_nondeterministic=self.keep_nondeterministic), self.out)
        return DONE
