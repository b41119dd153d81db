"""scikit-learn's handwritten digits, enlarged to fill the input: the embedded default for classification."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits as sklearn_digits
from torch.nn import functional as F

from invariscope.base.errors import DataError
from invariscope.zoo.datasets.imageset import ImageSet

SIZE = 32


def load_digits(path: str | None, *, split: str, limit: int | None, size: int | None) -> ImageSet:
    """The 1,797 digits of 8x8 pixels, bilinearly enlarged to ``size`` (32) pixels: ``(N, 1, size, size)``.

    The digits fill the image: with an empty margin, circular and zero shifts would be the same thing. Within each
    class every third image is for testing: 1,195 train, 602 test, in their original, mixed order.

    Raises:
        DataError: for a path (the images come with scikit-learn) or an unknown split.
    """
    if path is not None:
        raise DataError(f"digits takes no path and was given {path!r}: write just 'digits'")
    if split not in ("train", "test"):
        raise DataError(f"digits has the splits train and test, not {split!r}: use one of them")
    raw, labels = sklearn_digits(return_X_y=True)
    rank_in_class = np.zeros(len(labels), dtype=np.int64)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        rank_in_class[members] = np.arange(len(members))
    is_test = rank_in_class % 3 == 0
    rows = np.flatnonzero(is_test if split == "test" else ~is_test)[:limit]
    pixels = torch.from_numpy(raw[rows].reshape(-1, 1, 8, 8) * (255 / 16))
    side = SIZE if size is None else size
    enlarged = F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False)
    return ImageSet(
        name=f"digits/{split}",
        images=enlarged.round().clamp(0, 255).to(torch.uint8),
        labels=torch.from_numpy(labels[rows].astype(np.int64)),
        classes=tuple(str(digit) for digit in range(10)),
    )
