"""Sampling weights: which input pixels each output of a downsampling operator takes, and how much of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
"""Names of the padding modes, as ``torch.nn.Conv2d`` has them."""


def source_index(size: int, before: int, after: int, mode: str) -> Tensor:
    """Source pixel of every position of a padded axis: ``(before + size + after,)`` integers, -1 = zero padding.

    Reflection that reaches past the other end of the axis falls back to replication, as in :func:`pad`.
    """
    position = torch.arange(-before, size + after)
    if mode == "zeros":
        return torch.where((position >= 0) & (position < size), position, -1)
    if mode == "circular":
        return position % size
    if mode == "reflect" and max(before, after) < size:
        folded = position.abs()
        return torch.where(folded < size, folded, 2 * (size - 1) - folded)
    if mode in ("replicate", "reflect"):
        return position.clamp(0, size - 1)
    raise ValueError(f"padding mode {mode!r}: use one of {', '.join(PADDING_MODES)}")


def pad(x: Tensor, left: int, right: int, top: int, bottom: int, mode: str, value: float = 0.0) -> Tensor:
    """Pad ``(N, C, H, W)`` by ``mode``; any width, also past the size of the map. ``value`` fills under ``zeros``."""
    if not (left or right or top or bottom):
        return x
    height, width = x.shape[-2:]
    if mode == "zeros":
        return F.pad(x, (left, right, top, bottom), value=value)
    if mode == "circular" and max(left, right) <= width and max(top, bottom) <= height:
        return F.pad(x, (left, right, top, bottom), mode="circular")
    rows = source_index(height, top, bottom, mode).to(x.device)
    columns = source_index(width, left, right, mode).to(x.device)
    return x.index_select(-2, rows).index_select(-1, columns)


def tap_index(
    size: tuple[int, int],
    output_size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    before: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    padding_mode: str = "zeros",
    outputs: Tensor | None = None,
    after: tuple[int, int] = (0, 0),
) -> Tensor:
    """Flat source pixel ``h * W + w`` of every tap of every output: ``(L, kh * kw)``, -1 in zero padding.

    ``before`` is the padding at the top and the left; what is needed at the bottom and the right follows from
    ``output_size``, and is at least ``after`` (a wider padding than needed can turn reflection into replication).
    ``outputs`` (flat indices ``h' * W' + w'``, in any order) restricts the rows.
    """
    axes = []
    for axis in (0, 1):
        last = stride[axis] * (output_size[axis] - 1) + dilation[axis] * (kernel[axis] - 1)
        needed = last - before[axis] - size[axis] + 1
        source = source_index(size[axis], before[axis], max(needed, after[axis]), padding_mode)
        starts = stride[axis] * torch.arange(output_size[axis])
        axes.append(source[starts[:, None] + dilation[axis] * torch.arange(kernel[axis])[None, :]])
    rows, columns = axes
    if outputs is None:
        outputs = torch.arange(output_size[0] * output_size[1])
    outputs = outputs.cpu()
    rows = rows[outputs // output_size[1]][:, :, None]
    columns = columns[outputs % output_size[1]][:, None, :]
    flat = torch.where((rows < 0) | (columns < 0), -1, rows * size[1] + columns)
    return flat.flatten(1)


def pick(pixels: Tensor, index: Tensor) -> Tensor:
    """``pixels (n, C, P)`` at ``index`` of any shape: ``(n, C, *index.shape)``.

    By ``gather``: ``index_select`` along the last dimension takes four to seventeen times as long on a CPU.
    """
    n, channels = pixels.shape[:2]
    return pixels.gather(2, index.long().flatten().expand(n, channels, -1)).unflatten(2, index.shape)


def take(x: Tensor, index: Tensor, fill: float = 0.0) -> Tensor:
    """Values of ``x (N, C, H, W)`` at flat pixels ``index (L, K)``: ``(N, C, L, K)``, ``fill`` at an index of -1."""
    index = index.to(x.device)
    values = pick(x.flatten(2), index.clamp(min=0))
    outside = index < 0
    return values.masked_fill(outside, fill) if bool(outside.any()) else values


@dataclass(frozen=True)
class Taps:
    """The sampling weights of ``L`` outputs over ``K`` taps each.

    ``index (L, K)`` holds flat source pixels of the operator's input, -1 for a tap in zero padding; a pixel may
    stand more than once (circular, reflected, replicated copies), its weights then add up. ``weights`` broadcasts to
    ``(N, C, L, K)`` and is not negative; it sums to 1 over the taps where none of them lies in zero padding.
    """

    index: Tensor
    weights: Tensor

    def after(self, first: Taps) -> Taps:
        """The taps of this operator applied to the output of another: chain rule, over the first operator's input.

        ``first`` holds every pixel of the map between the two, in row-major order.
        """
        between = self.index.clamp(min=0)
        index = first.index[between].masked_fill((self.index < 0)[..., None], -1).flatten(1)
        if first.weights.shape[2] == 1:
            inner = first.weights[:, :, :, None, :]
        else:
            inner = first.weights[:, :, between.to(first.weights.device)]
        weights = self.weights[..., None] * inner
        return Taps(index, weights.flatten(3))

    def mixed(self, share: float, other: Taps) -> Taps:
        """The taps of ``share`` times this operator plus the rest times another, of the same map: their weights add."""
        if torch.equal(self.index, other.index):
            return Taps(self.index, share * self.weights + (1 - share) * other.weights)
        sides = torch.broadcast_shapes(self.weights.shape[:3], other.weights.shape[:3])
        parts = [share * self.weights.expand(*sides, -1), (1 - share) * other.weights.expand(*sides, -1)]
        return Taps(torch.cat([self.index, other.index], 1), torch.cat(parts, 3))


def max_weights(values: Tensor) -> Tensor:
    """Weights of a maximum over the last dimension: shared evenly by tied maxima; 0 where all is ``-inf``."""
    hit = (values == values.amax(-1, keepdim=True)) & (values > float("-inf"))
    hit = hit.to(values.dtype)
    return hit / hit.sum(-1, keepdim=True).clamp(min=1)
