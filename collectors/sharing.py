"""The folder that one run shares with its workers: the images, decoded once, and which task each worker is at."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collectors.store import Store

if TYPE_CHECKING:
    import numpy as np

    from zoo.datasets import ImageSet

_ARRAYS = ("images", "labels", "masks")


@contextmanager
def scratch_folder(store: Store) -> Iterator[Path]:
    """A folder for one run, removed at its end; what a killed run left goes with the next run's sweep.

    It lies beside the tables, where workers on other machines see it too, or in the system's temporary folder where the
    tables are on no local disk.

    Raises:
        OutputError: it cannot be made.
    """
    with store.writing():
        folder = Path(store.scratch()) if store.folder else Path(tempfile.mkdtemp(prefix="shiftscope-"))
        folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_images(images: ImageSet, folder: Path) -> None:
    """Write a data set such that :func:`read_images` maps it into memory."""
    import numpy as np

    parts = images.to_numpy()
    for name in _ARRAYS:
        if (array := parts.pop(name)) is not None:
            np.save(folder / f"{name}.npy", array)
    (folder / "images.json").write_text(json.dumps(parts))


@lru_cache(maxsize=1)
def read_images(folder: Path) -> ImageSet:
    """The data set of :func:`write_images`: its pixels stay in the file, of which all workers share one copy."""
    from zoo.datasets import ImageSet

    parts: dict[str, Any] = json.loads((folder / "images.json").read_text())
    parts |= {name: tuple(parts[name]) for name in ("classes", "mask_classes")}
    return ImageSet.from_numpy(parts | {name: _mapped(folder / f"{name}.npy") for name in _ARRAYS})


def _mapped(file: Path) -> np.ndarray | None:
    import numpy as np

    return np.load(file, mmap_mode="r") if file.exists() else None


class Claims:
    """Which tasks are being measured: a file per task, there from its start to its end.

    When a worker dies, the claims that are left say at which task it may have been; a claim that is older than the time
    limit says whose time was up.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "claims"
        self._folder.mkdir(exist_ok=True)

    @contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Hold a task's claim."""
        file = self._folder / key
        file.touch()
        try:
            yield
        finally:
            file.unlink(missing_ok=True)

    def left(self) -> dict[str, float]:
        """Seconds since each task was claimed whose claim was not given back; empties the folder."""
        found = {}
        for file in self._folder.iterdir():
            with suppress(FileNotFoundError):  # given back at this moment, by a worker that lives
                found[file.name] = time.time() - os.stat(file).st_mtime
                file.unlink()
        return found
