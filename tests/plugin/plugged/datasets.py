"""A data set: stripes, horizontal or vertical."""

from __future__ import annotations

import torch

from invariscope.base.errors import DataError
from invariscope.zoo.datasets import ImageSet


def load_stripes(path: str | None, *, split: str, limit: int | None, size: int | None) -> ImageSet:
    """Twenty images ``(3, size, size)`` of stripes one to ten pixels wide; the label says which way they run."""
    if path is not None or split != "test":
        raise DataError("stripes are computed, and have the split test alone: write just stripes")
    side = size or 32
    period = torch.arange(1, 11)[:, None, None, None]
    vertical = (torch.arange(side) // period % 2 * 255).expand(10, 3, side, side)
    images = torch.stack([vertical, vertical.transpose(2, 3)], 1).flatten(0, 1).to(torch.uint8)
    labels = torch.arange(2).repeat(10)
    count = len(images) if limit is None else limit
    return ImageSet("stripes/test", images[:count], labels[:count], ("vertical", "horizontal"))
