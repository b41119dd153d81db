"""``verify``: whether a folder of tables is as it was written."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from invariscope.base.terminal import say
from invariscope.cli.common import DONE, WITH_FAILURES


@dataclass(frozen=True)
class Verify:
    """Compare every part of a folder of tables with its digest; exit code 3 where one is damaged.

    Example: invariscope verify out/tables
    """

    tables: Positional[str]
    """Folder of tables."""

    def run(self) -> int:
        """Check every part."""
        from invariscope.collectors.store.verifying import verify

        found = verify(self.tables)
        damaged = [item for table in found for item in table.damaged]
        for table in found:
            say(table)
        for item in damaged:
            say(f"damaged: {item}: run collect again, which sets it aside and measures it anew")
        if damaged:
            return WITH_FAILURES
        say(f"tables: {self.tables} (every part that has a digest is as it was written)")
        return DONE
