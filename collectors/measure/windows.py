"""The windows that a site's outputs are sampled from: stride cell and support together, each pixel once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invariscope.zoo.sampling import pick


@dataclass(frozen=True)
class Windows:
    """The distinct pixels of every window: stride cell and support together.

    ``pixels (L, M)``, -1 where a window has fewer; ``size (L,)`` their number. ``slot (L, K)`` says which of the
    window's pixels each tap is (``M``: none, it lies in zero padding), or is None where tap ``k`` is pixel ``k``.
    """

    pixels: Tensor
    size: Tensor
    slot: Tensor | None


def windows(cells: Tensor, index: Tensor) -> Windows:
    """The windows of outputs whose stride cells are ``cells (L, Q)`` and whose taps are at ``index (L, K)``."""
    listed, order = torch.cat([index, cells.to(index.device)], 1).sort(stable=True)
    first = torch.ones_like(listed, dtype=torch.bool)
    first[:, 1:] = listed[:, 1:] != listed[:, :-1]
    first &= listed >= 0
    size = first.sum(1)
    # A tap is listed before the cell's pixels: where all firsts are taps, each once, the taps are the window.
    if bool((size == (index >= 0).sum(1)).all()) and bool((order[first] < index.shape[1]).all()):
        return Windows(index, size, None)
    widest = max(int(size.max()), 1)
    rank = torch.where(listed >= 0, first.cumsum(1) - 1, widest)
    pixels = torch.full((len(listed), widest + 1), -1, device=listed.device).scatter_(1, rank, listed)[:, :widest]
    return Windows(pixels, size, torch.empty_like(rank).scatter_(1, order, rank)[:, : index.shape[1]])


def gather(pixels: Tensor, index: Tensor) -> Tensor:
    """``pixels (n, C, P)`` at ``index (L, M)``: ``(n, C, M, L)``, minus infinity where the index is -1."""
    index = index.T
    values = pick(pixels, index.clamp(min=0))
    outside = index < 0
    return values.masked_fill_(outside, float("-inf")) if bool(outside.any()) else values


def on_window(weights: Tensor, places: Windows) -> Tensor:
    """Weights per pixel of the window, ``(., ., M, L)``, from weights per tap: those of one pixel's copies add up."""
    length, widest = places.pixels.shape
    if places.slot is None:
        outside = places.pixels < 0
        weights = weights.masked_fill(outside, 0) if bool(outside.any()) else weights
        return weights.expand(*weights.shape[:2], length, widest).mT
    weights = weights.expand(*weights.shape[:2], length, places.slot.shape[1])
    merged = weights.new_zeros(*weights.shape[:2], length, widest + 1)
    return merged.scatter_add_(3, places.slot.expand_as(weights), weights)[..., :widest].mT
