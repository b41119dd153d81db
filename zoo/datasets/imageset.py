"""A labelled set of images in memory: what every loader of this package returns."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invariscope.base.errors import DataError
from invariscope.zoo.datasets.files import ImageFiles

VOID = 255
"""Mask value of pixels that belong to no class and are left out of every score."""

NO_LABEL = -1
"""Label of every image of a data set that has masks and no labels."""

WHITE = {torch.uint8: 255, torch.int32: 65535}
"""White of the types that images may have."""

BACKGROUND_IMAGES = 1000
"""First images of a split from whose borders its background is taken, whatever part of it is measured."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels, checked once, here.

    Attributes:
        name: data set and split, for example ``digits/test``.
        images: ``(N, C, H, W)`` uint8, or files that are decoded batch by batch; of 16 bits int32, from 0 to 65,535.
        labels: ``(N,)`` int64, each in ``[0, len(classes))``; ``None``, or all -1, where there are none: ``classes`` is
            then empty.
        classes: names of the labels' classes.
        masks: ``(N, H, W)`` uint8, each value in ``[0, len(mask_classes))`` or 255 (void), or ``None``.
        mask_classes: names of the masks' classes.
        background: colour of the plain ground, one value from 0 to :attr:`white` per channel; where it is not given,
            :func:`border_median` of the first ``BACKGROUND_IMAGES`` images. A part of a set
            keeps that of the whole.

    Raises:
        DataError: for no images, a wrong type or shape, or a label or mask value out of range.
    """

    name: str
    images: Tensor | ImageFiles
    labels: Tensor
    classes: tuple[str, ...] = ()
    masks: Tensor | None = None
    mask_classes: tuple[str, ...] = ()
    background: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.labels is None:
            object.__setattr__(self, "labels", torch.full((len(self.images),), NO_LABEL))
        if isinstance(self.images, Tensor) and (self.images.dtype not in WHITE or self.images.ndim != 4):
            found = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise DataError(f"{self.name}: images are {found}, and must be torch.uint8 of shape (N, C, H, W)")
        if isinstance(self.images, Tensor) and self.images.dtype == torch.int32 and self.images.numel():
            low, high = int(self.images.min()), int(self.images.max())
            if low < 0 or high > self.white:
                raise DataError(f"{self.name}: images of 16 bits go from {low} to {high}, outside 0 to {self.white}")
        if len(self.images) == 0:
            raise DataError(f"{self.name}: there are no images; give a data set with at least one")
        if self.labels.dtype != torch.int64 or self.labels.shape != (len(self.images),):
            found = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise DataError(f"{self.name}: labels are {found}, and must be torch.int64 of shape ({len(self.images)},)")
        self._check_labels()
        self._check_masks()
        if not self.background:
            first = self.images[:BACKGROUND_IMAGES]
            median = border_median(first.numpy()) if isinstance(first, Tensor) else first.border_median()
            object.__setattr__(self, "background", tuple(map(float, median)))
        elif len(self.background) != self.channels:
            raise DataError(
                f"{self.name}: the background has {len(self.background)} value(s) and images {self.channels} "
                "channel(s): give one for each"
            )
        object.__setattr__(self, "background", tuple(self.background))

    def _check_labels(self) -> None:
        low, high = (0, len(self.classes) - 1) if self.classes else (NO_LABEL, NO_LABEL)
        wrong = ((self.labels < low) | (self.labels > high)).nonzero().flatten()
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"{self.name}: image {row} has the label {int(self.labels[row])}, outside {low} to {high} "
                f"({len(self.classes)} classes); {len(wrong)} of {len(self.labels)} labels are: correct the data"
            )

    def _check_masks(self) -> None:
        if self.masks is None:
            return
        expected = (len(self.images), *self.pixels().shape[-2:])
        if self.masks.dtype != torch.uint8 or tuple(self.masks.shape) != expected:
            found = f"{self.masks.dtype} {tuple(self.masks.shape)}"
            raise DataError(f"{self.name}: masks are {found}, and must be torch.uint8 of shape {expected}")
        known = set(range(len(self.mask_classes))) | {VOID}
        strange = sorted(set(self.masks.unique().tolist()) - known)
        if strange:
            raise DataError(
                f"{self.name}: a mask has the value {strange[0]}, outside 0 to {len(self.mask_classes) - 1} and "
                f"{VOID} (void): correct the data"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return int(self.images.shape[1]) if isinstance(self.images, Tensor) else self.images.channels

    @property
    def white(self) -> int:
        """The largest value that a pixel can have: 255, of images of 16 bits 65,535."""
        return WHITE[self.images.dtype] if isinstance(self.images, Tensor) else self.images.white

    @property
    def labelled(self) -> bool:
        """Whether the images have labels."""
        return bool(self.classes)

    def pixels(self) -> Tensor:
        """The images as one tensor.

        Raises:
            DataError: they are of different sizes, or too many for the memory.
        """
        if isinstance(self.images, Tensor):
            return self.images
        raise DataError(f"{self.name} has images that are read from their files: give size= to bring them to one size")

    def head(self, limit: int) -> ImageSet:
        """The first ``limit`` images."""
        return self._rows(slice(limit))

    def tail(self, start: int) -> ImageSet:
        """The images from ``start`` on."""
        return self._rows(slice(start, None))

    def _rows(self, rows: slice) -> ImageSet:
        masks = None if self.masks is None else self.masks[rows]
        return replace(self, images=self.images[rows], labels=self.labels[rows], masks=masks)

    def to_numpy(self) -> dict[str, Any]:
        """Everything as numpy arrays and plain values, the cheap form to send to another process."""
        in_memory = isinstance(self.images, Tensor)
        arrays = {"images": self.pixels().numpy() if in_memory else None, "labels": self.labels.numpy()}
        masks = None if self.masks is None else self.masks.numpy()
        names = ("name", "classes", "mask_classes", "background", "fingerprint")
        held = self.images
        files = None if isinstance(held, Tensor) else [[*map(str, held.files)], held.channels, held.white]
        return {**arrays, "masks": masks, "files": files, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_numpy(cls, parts: Mapping[str, Any]) -> ImageSet:
        """The data set that :meth:`to_numpy` took apart; shares the arrays' memory, which may be read-only."""
        values = dict(parts)
        fingerprint = values.pop("fingerprint")
        files = values.pop("files", None)
        for name in ("images", "labels", "masks"):
            if values[name] is not None:
                values[name] = _share(values[name])
        if files is not None:
            values["images"] = ImageFiles(tuple(map(Path, files[0])), files[1], values["name"], white=files[2])
        imageset = cls(**values)
        imageset.__dict__["fingerprint"] = fingerprint
        return imageset

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape and bytes of images, labels and masks; of images in files, over the files."""
        digest = hashlib.sha256()
        if isinstance(self.images, ImageFiles):
            for piece in self.images.digest():
                digest.update(piece)
        for part in (self.images, self.labels, self.masks):
            if isinstance(part, Tensor):
                digest.update(repr(tuple(part.shape)).encode())
                digest.update(b"16" if part is self.images and self.white != WHITE[torch.uint8] else b"")
                digest.update(np.ascontiguousarray(part.numpy()).data)
        return digest.hexdigest()


def border_median(images: np.ndarray) -> np.ndarray:
    """Median of the pixels on the border of images ``(n, C, H, W)``, each counted once: ``(C,)``."""
    inside = np.zeros(images.shape[2:], dtype=bool)
    inside[1:-1, 1:-1] = True
    median: np.ndarray = np.median(images[:, :, ~inside], axis=(0, 2))
    return median


def _share(array: np.ndarray) -> Tensor:
    # A memory-mapped array is read-only, and nothing here writes to it: torch's warning about that is no news.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


LARGEST_LABEL = 1_000_000
"""No data set has as many classes; each would be a name."""


def as_labels(values: np.ndarray, name: str) -> Tensor:
    """Labels as int64; refuses what is no whole number (missing, NaN, fractions) with a :class:`DataError`."""
    if values.dtype.kind not in "iuf":
        raise DataError(f"{name}: labels are of type {values.dtype}: give whole numbers from 0")
    if values.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(values) | (values != np.round(values)))
        if len(wrong):
            raise DataError(f"{name}: image {wrong[0]} has the label {values[wrong[0]]}: give whole numbers from 0")
    beyond = np.flatnonzero(values > LARGEST_LABEL)
    if len(beyond):
        shown = f"{name}: image {beyond[0]} has the label {values[beyond[0]]:.0f}"
        raise DataError(f"{shown}, more than {LARGEST_LABEL}: number the classes from 0")
    return torch.from_numpy(values.astype(np.int64))
