"""Shifted views of large images: each image once with what lies around it, and its views cut out of that.

The values of :func:`invariscope.collectors.measure.shifts.apply_shift`, in the layout in which networks are run. Of
small images a view costs less than the call that cuts it; these are gathered pixel by pixel.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from invariscope.collectors.measure.shifts import fill_of, view_size
from invariscope.collectors.shift_kinds import SHIFT_KINDS

LEAST_PIXELS = 64 * 64
"""Pixels of an image from which on cutting is faster, on a processor."""


STRETCHES = 8
"""Stretches of places from which on a map is gathered place by place."""


def can_slice(images: Tensor, kind: str) -> bool:
    """Whether views are cut: of large images in a processor's memory, under shifts of whole pixels."""
    large = images.shape[-2] * images.shape[-1] >= LEAST_PIXELS
    return large and images.device.type == "cpu" and SHIFT_KINDS[kind].steps == 1


def slice_views(
    images: Tensor,
    offsets: np.ndarray,
    kind: str,
    fill: float | Tensor = 0.0,
    size: int | tuple[int, int] | None = None,
) -> Tensor:
    """Each image ``(n, C, H, W)`` under each of its ``offsets (n, k, 2)``, image by image: ``(n k, C, h, w)``, stored
    channels-last.

    Raises:
        ShiftError: as :func:`invariscope.collectors.measure.shifts.apply_shift`.
    """
    rule = SHIFT_KINDS[kind]
    flat = offsets.reshape(-1, 2).astype(np.int64)
    sides = (images.shape[2], images.shape[3])
    window = view_size(sides, torch.from_numpy(flat), kind, size)
    up, down = flat.max(0, initial=0), -flat.min(0, initial=0)
    around, value = images.permute(0, 2, 3, 1), fill_of(images, fill)
    for axis in (0, 1):
        start = (sides[axis] - window[axis]) // 2
        position = torch.arange(start - int(up[axis]), start + window[axis] + int(down[axis]))
        if rule.takes_fill:
            around = _filled(around, axis + 1, position, value)
        else:
            around = _along(around, axis + 1, rule.source(position, sides[axis]))
    views = images.new_empty((len(flat), *window, images.shape[1]))
    tops, lefts = (up - flat).T.tolist()
    rows = np.arange(len(images)).repeat(offsets.shape[1]).tolist()
    for view, (row, top, left) in enumerate(zip(rows, tops, lefts, strict=True)):
        views[view] = around[row, top : top + window[0], left : left + window[1]]
    return views.permute(0, 3, 1, 2)


def _filled(around: Tensor, dim: int, position: Tensor, value: Tensor) -> Tensor:
    """The map at positions one after the other along an axis, with the value where they lie outside of it."""
    before, after = int((position < 0).sum()), int((position >= around.shape[dim]).sum())
    parts = [around.narrow(dim, max(int(position[0]), 0), len(position) - before - after)]
    for place, width in ((0, before), (1, after)):
        if width:
            shape = [*around.shape[:dim], width, *around.shape[dim + 1 :]]
            parts.insert(place and len(parts), value.expand(shape))
    return torch.cat(parts, dim) if len(parts) > 1 else parts[0]


def _along(around: Tensor, dim: int, index: Tensor) -> Tensor:
    """``index_select``, of which a few stretches of places one after the other are copied as such: twenty times as fast
    along the width.
    """
    cuts = (index.diff() != 1).nonzero().flatten() + 1
    if len(cuts) >= STRETCHES:  # reflected
        return around.index_select(dim, index)
    stretches = [around.narrow(dim, int(part[0]), len(part)) for part in torch.tensor_split(index, cuts) if len(part)]
    return torch.cat(stretches, dim)
