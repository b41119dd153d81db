"""``status``: how far a folder of tables is."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from invariscope.base.terminal import say
from invariscope.base.words import counted
from invariscope.cli.common import DONE
from invariscope.cli.flags import ZooFlags


@dataclass(frozen=True)
class Status(ZooFlags):
    """How far a folder of tables is: what is done, what of a zoo is to do, what failed and why.

    Example: invariscope status out/tables data/zoo
    """

    tables: Positional[str]
    """Folder of tables."""
    zoo: Positional[str | None] = None
    """Zoo whose checkpoints are looked for in the tables: as for collect."""

    def run(self) -> int:
        """Print the state."""
        from invariscope.collectors.engine.status import status

        found = status(self.tables, self.read(self.zoo, listed=True) if self.zoo else None)
        say(f"tables: {self.tables} ({found.parts} parts)")
        for condition in found.conditions:
            say(condition)
        for name, count in found.strangers.items():
            say(f"{name}: {counted(count, 'part')} of a collector that is not installed: install its package")
        for item in found.damaged:
            say(f"damaged: {item}: the next collect sets it aside and measures it again")
        for failure, count in found.failures.items():
            say(f"failed: {failure} ({count} task{'s' * (count > 1)})")
        say(f"last run: {found.last_run}")
        return DONE
