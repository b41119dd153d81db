"""``prune``: remove what newer measurements replaced."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from invariscope.base.terminal import say
from invariscope.cli.common import DONE


@dataclass(frozen=True)
class Prune:
    """Remove measurements that newer ones replace, and those of networks that are not described; says which first.

    Example: invariscope prune out/tables --yes
    """

    tables: Positional[str]
    """Folder of tables."""
    yes: bool = False
    """Remove what is listed; without it nothing is removed."""

    def run(self) -> int:
        """List what is stale, and remove it where that is wanted."""
        from invariscope.collectors.store.pruning import find_stale, prune

        found = prune(self.tables) if self.yes else find_stale(self.tables)
        for item in found:
            say(f"{'removed' if self.yes else 'stale'}: {item}")
        if not found:
            say(f"tables: {self.tables} (nothing is stale)")
        elif self.yes:
            say(f"tables: {self.tables} (pruned)")
        else:
            say(f"tables: {self.tables} (nothing was removed: give --yes to remove what is listed)")
        return DONE
