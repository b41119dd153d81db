"""What a network sees of images under the shifts of a plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invariscope.base.errors import ShiftError
from invariscope.collectors.measure.passes import Images, batches
from invariscope.collectors.measure.shifts import ShiftPlan, apply_shift
from invariscope.collectors.measure.slices import can_slice, slice_views
from invariscope.collectors.shift_kinds import SHIFT_KINDS
from invariscope.zoo.datasets.imageset import BACKGROUND_IMAGES, border_median
from invariscope.zoo.datasets.inputs import PreparedImages

BORDERS = 256
"""First images whose borders are looked at before a crop, whatever the batch size."""


@dataclass(frozen=True, eq=False)
class ShiftView:
    """What is seen of images under a shift of a plan's kind."""

    kind: str
    fill: float | Tensor
    size: int | tuple[int, int] | None

    def unshifted(self, images: Tensor) -> Tensor:
        """The images, or, of a kind that does not keep the size, their windows at the centre."""
        still = np.zeros((len(images), 2), dtype=np.int64)
        keeps_size = SHIFT_KINDS[self.kind].keeps_size
        seen = images if keeps_size else apply_shift(images, still, self.kind, size=self.size)
        return seen.clone(memory_format=torch.channels_last)

    def shifted(self, images: Tensor, offsets: np.ndarray) -> Tensor:
        """Each image under each of its ``offsets (n, k, 2)``, image by image: ``(n k, C, H, W)``."""
        if can_slice(images, self.kind):
            return slice_views(images, offsets, self.kind, self.fill, self.size)
        copies = images.repeat_interleave(offsets.shape[1], 0) if offsets.shape[1] > 1 else images
        flat = offsets.reshape(-1, 2).astype(np.int64)
        seen = apply_shift(copies, flat, self.kind, self.fill, self.size)
        return seen.clone(memory_format=torch.channels_last)


def image_size(images: Images) -> tuple[int, int]:
    """Height and width of the images."""
    return images.shape[2], images.shape[3]


def fill_value(images: Images, plan: ShiftPlan, fill: float | Tensor | None) -> float | Tensor:
    """The value of the strip that a zero shift uncovers: the given one, else what the plan's fill is in these images.

    The background of a bare tensor is the median of the pixels on the borders of its first images, per channel.

    Raises:
        ShiftError: black of a bare tensor, which does not say what that is.
    """
    if fill is not None:
        return fill
    if plan.fill not in ("background", "black"):
        return 0.0
    if isinstance(images, PreparedImages):
        return images.background if plan.fill == "background" else images.black
    if plan.fill == "background":
        return torch.from_numpy(border_median(images[:BACKGROUND_IMAGES].detach().cpu().float().numpy()))
    raise ShiftError(
        "the plan fills with black and the images are a bare tensor: give fill= the value of a black pixel"
    )


def refuse_padded(images: Images, batch_size: int) -> None:
    """Refuse images whose border is one constant colour: a crop of them is a zero shift under another name."""
    colour: Tensor | None = None
    for batch in batches(images, batch_size, BORDERS):
        sides = (batch[..., 0, :], batch[..., -1, :], batch[..., :, 0], batch[..., :, -1])
        border = torch.cat(sides, dim=2)
        colour = border[:1, :, :1] if colour is None else colour
        if not bool((border == colour).all()):
            return
    looked_at = min(BORDERS, len(images))
    raise ShiftError(
        f"crop: the border of all of the first {looked_at} images is one constant colour, so that a moving window "
        "is a zero shift under another name: use kind zero, or larger images without a margin"
    )
