"""A data set that is decoded when it is needed; importing this module does not import torch."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from invariscope.base.files import signature
from invariscope.zoo.datasets import is_own, load_dataset

if TYPE_CHECKING:
    from invariscope.zoo.datasets.imageset import ImageSet

_DECODERS = ("invariscope", "torch", "numpy", "scikit-learn", "pillow", "pyarrow")
"""Packages whose versions may change a decoded pixel."""


@dataclass(frozen=True)
class DataSource:
    """A data set by its specification, as :func:`invariscope.zoo.datasets.load_dataset` takes it.

    The file of a ``python:`` data set runs with ``allow_code=True`` alone.
    """

    spec: str
    split: str = "test"
    limit: int | None = None
    allow_code: bool = False

    @cached_property
    def images(self) -> ImageSet:
        """The decoded data set; its background is that of the whole split's first images, whatever the limit.

        Raises:
            DataError: as :func:`invariscope.zoo.datasets.load_dataset`.
        """
        from invariscope.zoo.datasets.imageset import BACKGROUND_IMAGES

        limit = self.limit
        if limit is None or not 0 < limit < BACKGROUND_IMAGES:
            return load_dataset(self.spec, split=self.split, limit=limit, allow_code=self.allow_code)
        return load_dataset(self.spec, split=self.split, limit=BACKGROUND_IMAGES, allow_code=self.allow_code).head(
            limit
        )

    @property
    def key(self) -> str:
        """What the decoded pixels depend on, the files apart: specification, split, limit and decoders' versions."""
        versions = {name: _version(name) for name in _DECODERS}
        return json.dumps([self.spec, self.split, self.limit, versions], sort_keys=True)

    def signatures(self) -> list[list[int]]:
        """Signatures of the files below the specification's path (:func:`signature`), in a fixed order.

        What the loader of somebody else reads is not known: as if it had been changed just now, so that the images are
        loaded every time and no fingerprint is an old one.
        """
        if not is_own(self.spec):
            return [[time.time_ns()]]
        _, _, text = self.spec.partition(":")
        place = Path(text).expanduser()
        if not os.path.exists(place):  # options behind the path
            place = Path(text.partition("?")[0]).expanduser()
        if not text or not os.path.exists(place):
            return []
        if os.path.isfile(place):
            if "-of-" not in place.name:
                return [signature(place)]
            return [signature(file) for file in sorted(place.parent.glob(f"*{place.suffix}"))]  # its other shards
        found: list[list[int]] = []
        seen: set[str] = set()
        for folder, folders, names in os.walk(place, followlinks=True):
            folders.sort()
            if (real := os.path.realpath(folder)) in seen:  # a link back up
                folders.clear()
                continue
            seen.add(real)
            paths = [os.path.join(folder, name) for name in [*sorted(names), *folders]]
            found += [signature(path) for path in paths if os.path.exists(path)]
        return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
