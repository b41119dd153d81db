"""``pack`` and ``unpack``: many small checkpoints to few files, and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from invariscope.base.paths import folder_to_write
from invariscope.base.terminal import say
from invariscope.base.words import counted
from invariscope.cli.common import DONE
from invariscope.cli.flags import CodeFlag


@dataclass(frozen=True)
class Pack(CodeFlag):
    """Put a zoo's weights into packs, to be kept and passed on; only what no pack in the folder holds yet is added.

    Example: invariscope pack my_zoo --out packs --half digits
    """

    zoo: Positional[Path]
    """Folder with zoo.yaml, or a manifest file."""
    out: Path
    """Folder of packs; those that are there stay as they are."""
    half: str | None = None
    """Data set, as of collect: weights are held in half precision where that moves none of its predictions."""
    limit: int | None = None
    """Only the first images of it."""

    def run(self) -> int:
        """Write the packs, and print what each holds."""
        from invariscope.zoo.datasets.source import DataSource
        from invariscope.zoo.packs import pack, predicted

        folder_to_write(self.out)
        predict = (
            None
            if self.half is None
            else predicted(DataSource(self.half, limit=self.limit, allow_code=self.allow_code).images)
        )
        for path, held in pack(self.zoo, self.out, predict=predict, allow_code=self.allow_code):
            halves = sum(found.half for found in held)
            say(f"{path}: {counted(len(held), 'file')}, {halves} in half precision")
        say(f"packs: {self.out}")
        return DONE


@dataclass(frozen=True)
class Unpack:
    """Write the checkpoints of packs to a folder, with their zoo.yaml.

    Example: invariscope unpack data/reference/population/digits --out my_zoo
    """

    packs: Positional[Path]
    """A pack, or a folder of packs."""
    out: Path
    """Folder for the weights and zoo.yaml."""

    def run(self) -> int:
        """Unpack."""
        from invariscope.zoo.packs import unpack

        folder_to_write(self.out)
        say(f"zoo: {self.out} ({counted(len(unpack(self.packs, self.out)), 'checkpoint')})")
        return DONE
