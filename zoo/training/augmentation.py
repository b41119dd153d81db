"""Augmentation: random shifts and flips, drawn per image; masks move with their images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from invariscope.zoo.datasets.imageset import VOID
from invariscope.zoo.run import Run


def augment(x: Tensor, targets: Tensor, run: Run, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch ``(N, C, H, W)`` and its labels ``(N,)`` or masks ``(N, H, W)``, augmented as the run asks."""
    masks = targets if targets.ndim == 3 else None
    if run.augment_shift:
        start = torch.randint(0, 2 * run.augment_shift + 1, (len(x), 2), generator=generator)
        x = _window(x, start, run.augment_shift, 0)
        if masks is not None:
            masks = _window(masks[:, None], start, run.augment_shift, VOID)[:, 0]
    if run.augment_flip:
        flipped = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(flipped[:, None, None, None], x.flip(3), x)
        if masks is not None:
            masks = torch.where(flipped[:, None, None], masks.flip(2), masks)
    return x, targets if masks is None else masks


def random_shift(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Shift each image of ``(N, C, H, W)`` by its own ``(dy, dx)`` in ``[-most, most]²``; uncovered pixels are 0."""
    return _window(x, torch.randint(0, 2 * most + 1, (len(x), 2), generator=generator), most, 0)


def _window(x: Tensor, start: Tensor, most: int, fill: float) -> Tensor:
    """From each image, padded by ``most``, the window of its own size at its ``start (N, 2)``."""
    count, channels, height, width = x.shape
    rows = (start[:, :1] + torch.arange(height))[:, None, :, None]
    columns = (start[:, 1:] + torch.arange(width))[:, None, None, :]
    image = torch.arange(count)[:, None, None, None]
    channel = torch.arange(channels)[None, :, None, None]
    return F.pad(x, (most, most, most, most), value=fill)[image, channel, rows, columns]
