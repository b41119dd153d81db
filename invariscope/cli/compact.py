"""``compact``: many parts of a folder of tables to few."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from invariscope.base.terminal import say
from invariscope.cli.common import DONE


@dataclass(frozen=True)
class Compact:
    """Put the many parts of a folder of tables together into few, which are read faster; collect goes on from them.

    Example: invariscope compact out/tables
    """

    tables: Positional[str]
    """Folder of tables."""

    def run(self) -> int:
        """Compact every table."""
        from invariscope.collectors.store.compaction import compact

        for table in compact(self.tables):
            say(table)
        say(f"tables: {self.tables} (compact)")
        return DONE
