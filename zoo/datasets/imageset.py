"""A labelled set of images in memory: what every loader of this package returns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError

VOID = 255
"""Mask value of pixels that belong to no class and are left out of every score."""

NO_LABEL = -1
"""Label of every image of a data set that has masks and no labels."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels, checked once, here.

    Attributes:
        name: data set and split, for example ``digits/test``.
        images: ``(N, C, H, W)`` uint8.
        labels: ``(N,)`` int64, each in ``[0, len(classes))``; all -1 where ``classes`` is empty (masks only).
        classes: names of the labels' classes.
        masks: ``(N, H, W)`` uint8, each value in ``[0, len(mask_classes))`` or 255 (void), or ``None``.
        mask_classes: names of the masks' classes.

    Raises:
        DataError: for no images, a wrong type or shape, or a label or mask value out of range.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    masks: Tensor | None = None
    mask_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            found = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise DataError(f"{self.name}: images are {found}, and must be torch.uint8 of shape (N, C, H, W)")
        if len(self.images) == 0:
            raise DataError(f"{self.name}: there are no images; give a data set with at least one")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            found = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise DataError(f"{self.name}: labels are {found}, and must be torch.int64 of shape ({len(self.images)},)")
        self._check_labels()
        self._check_masks()

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
        expected = (len(self.images), *self.images.shape[-2:])
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

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape and bytes of images, labels and masks."""
        digest = hashlib.sha256()
        for part in (self.images, self.labels, self.masks):
            if part is not None:
                digest.update(repr(tuple(part.shape)).encode())
                digest.update(np.ascontiguousarray(part.numpy()).data)
        return digest.hexdigest()


def as_labels(values: np.ndarray, name: str) -> Tensor:
    """Labels as int64; refuses what is no whole number (missing, NaN, fractions) with a :class:`DataError`."""
    if values.dtype.kind not in "iuf":
        raise DataError(f"{name}: labels are of type {values.dtype}: give whole numbers from 0")
    if values.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(values) | (values != np.round(values)))
        if len(wrong):
            raise DataError(f"{name}: image {wrong[0]} has the label {values[wrong[0]]}: give whole numbers from 0")
    return torch.from_numpy(values.astype(np.int64))
