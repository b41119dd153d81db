"""``report``: one page of everything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from invariscope.base.errors import InputError
from invariscope.base.paths import file_to_write
from invariscope.cli.common import DONE, load_tables, names, write_page
from invariscope.cli.flags import CodeFlag

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Report(CodeFlag):
    """One self-contained HTML page: the verdict, an explorer of all networks, single images, figures, tables.

    Example: invariscope report out/tables --out report.html
    """

    tables: Positional[str]
    """Folder of tables, or its URI."""
    out: Path
    """The page to write."""
    networks: str | None = None
    """Checkpoints whose images are shown where `predictions` were collected, with commas between; by default one per
    operator."""
    thumbnails: str | None = None
    """Data set (as for collect) whose images become part of the page, small, where they are shown."""
    split: str = "test"
    """Split of the data set for thumbnails."""
    keep_nondeterministic: bool = False
    """Take in networks that give other logits on a second pass or in other batches."""

    def run(self) -> int:
        """Analyse, draw, write the page."""
        file_to_write(self.out)
        write_page(
            load_tables(self.tables, keep_nondeterministic=self.keep_nondeterministic),
            self.out,
            predictions=self.tables,
            networks=names(self.networks) if self.networks else None,
            thumbnails=pictures(self.thumbnails, self.split, self.allow_code) if self.thumbnails else None,
        )
        return DONE


def pictures(spec: str, split: str, allow_code: bool = False) -> dict[str, np.ndarray]:
    """The images of a data set under the name that tables give it."""
    import torch

    from invariscope.zoo.datasets.source import DataSource

    found = DataSource(spec, split=split, allow_code=allow_code).images
    if not isinstance(found.images, torch.Tensor):
        raise InputError(f"--thumbnails {spec}: its images are of several sizes: leave the flag out")
    return {found.name: found.images.numpy()}
