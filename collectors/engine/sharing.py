"""The folder that one run shares with its workers: the images, decoded once, and which task each worker is at."""

from __future__ import annotations

import faulthandler
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariscope.collectors.store.parts import Store

if TYPE_CHECKING:
    import numpy as np

    from invariscope.zoo.datasets import ImageSet

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
        folder = Path(store.scratch()) if store.folder else Path(tempfile.mkdtemp(prefix="invariscope-"))
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
        if (array := parts.pop(name)) is not None:  # images may stay in their files
            np.save(folder / f"{name}.npy", array)
    (folder / "images.json").write_text(json.dumps(parts))


@lru_cache(maxsize=1)
def read_images(folder: Path) -> ImageSet:
    """The data set of :func:`write_images`: its pixels stay in the file, of which all workers share one copy."""
    from invariscope.zoo.datasets import ImageSet

    parts: dict[str, Any] = json.loads((folder / "images.json").read_text())
    parts |= {name: tuple(parts[name]) for name in ("classes", "mask_classes")}
    return ImageSet.from_numpy(parts | {name: _mapped(folder / f"{name}.npy") for name in _ARRAYS})


def _mapped(file: Path) -> np.ndarray | None:
    import numpy as np

    return np.load(file, mmap_mode="r") if file.exists() else None


class Claims:
    """Which tasks are being measured: a file per task, there from its start to its end.

    When a worker dies, the claims that are left say at which tasks workers were; a claim with something in it is that
    of a task whose time was up.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "claims"
        self._folder.mkdir(exist_ok=True)

    @contextmanager
    def claim(self, key: str, time_limit: float | None) -> Iterator[None]:
        """Hold a task's claim, and end this process where it is held for longer than ``time_limit`` seconds.

        A forward pass that hangs in native code heeds no signal and lets no thread of Python run; faulthandler's
        watchdog is native too. It writes where the process was into the claim.
        """
        with open(self._folder / key, "w") as file:
            if time_limit is not None:
                faulthandler.dump_traceback_later(time_limit, exit=True, file=file)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
        (self._folder / key).unlink(missing_ok=True)

    def left(self) -> dict[str, bool]:
        """The tasks whose claim was not given back, and whether their time was up; empties the folder."""
        found = {}
        for file in self._folder.iterdir():
            with suppress(FileNotFoundError):  # given back at this moment, by a worker that lives
                found[file.name] = file.stat().st_size > 0
                file.unlink()
        return found
