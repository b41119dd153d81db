"""Weighted sums over the taps of every window, by rank and by place, with a gradient of their own: fast on CPU.

A general sort of every window takes ten times as long as max pooling; a sorting network over whole maps, a tap at a
time, takes one to three times as long (measured in ``benchmarks``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

Weights = Sequence[float] | Tensor
"""One weight per rank or place; numbers, or a tensor whose first dimension it is and that broadcasts to the output."""


@cache
def sorting_network(count: int) -> tuple[tuple[int, int], ...]:
    """Pairs of places that sort ``count`` values in descending order when each, in turn, puts its larger value first.

    Batcher's odd-even merge sort for the next power of two (Knuth, The Art of Computer Programming 3, 5.3.4), less the
    comparators that touch places beyond ``count``: 5 for four values, 28 for nine.
    """
    size = 1 << max(count - 1, 0).bit_length()
    return tuple(pair for pair in _sorted(0, size) if pair[1] < count)


def _sorted(start: int, size: int) -> list[tuple[int, int]]:
    if size <= 1:
        return []
    half = size // 2
    return [*_sorted(start, half), *_sorted(start + half, half), *_merged(start, size, 1)]


def _merged(start: int, size: int, step: int) -> list[tuple[int, int]]:
    double = 2 * step
    if double >= size:
        return [(start, start + step)]
    between = [(place, place + step) for place in range(start + step, start + size - step, double)]
    return [*_merged(start, size, double), *_merged(start + step, size, double), *between]


class Windows(NamedTuple):
    """Where the windows of a padded map lie: kernel, stride, and height and width of the output."""

    kernel: int
    stride: int
    size: tuple[int, int]

    def taps(self, x: Tensor) -> list[Tensor]:
        """The views of a padded map ``(N, C, H, W)`` that hold one tap of every window, row-major over the taps."""
        height, width = (self.stride * (length - 1) + 1 for length in self.size)
        places = [(row, column) for row in range(self.kernel) for column in range(self.kernel)]
        return [x[..., r : r + height : self.stride, c : c + width : self.stride] for r, c in places]

    def tile(self, shape: torch.Size) -> bool:
        """Whether every pixel of a map lies in exactly one window."""
        sides = zip(self.size, shape[-2:], strict=True)
        return self.kernel == self.stride and all(self.stride * length == side for length, side in sides)


class WindowWeights(NamedTuple):
    """A weighted sum over square windows by fixed weights: those by rank and those by place, each times its share.

    Weights are in float64 with a sum of 1 over the pixels of a whole window: ``(n,)``, by rank also ``(n, C)``.
    """

    kernel: int
    ranks: tuple[tuple[float, Tensor], ...] = ()
    places: tuple[tuple[float, Tensor], ...] = ()

    def mixed(self, share: float, other: WindowWeights) -> WindowWeights:
        """``share`` times this sum plus the rest times another over the same windows."""
        parts = (self, share), (other, 1 - share)
        ranks = tuple((factor * part, weights) for each, factor in parts for part, weights in each.ranks)
        places = tuple((factor * part, weights) for each, factor in parts for part, weights in each.places)
        return WindowWeights(self.kernel, ranks, places)


def weigh_taps(x: Tensor, windows: Windows, by_rank: Weights | None, by_place: Weights | None = None) -> Tensor:
    """``y = sum_r w_r x_(r) + sum_p k_p x_p`` over the taps ``x_p`` of every window, ``x_(1) >= x_(2) >= ...``.

    The gradient is that of the sorted order; tied values may change places in it.

    Args:
        x: a padded map ``(N, C, H, W)``.
        by_rank: ``w``; no ranks by default.
        by_place: ``k``, row-major; no places by default.
    """
    result: Tensor = _WeighTaps.apply(x, windows, by_rank, by_place)
    return result


class _WeighTaps(torch.autograd.Function):
    """A comparator's gradient goes back by the way its values came: backward undoes the network in reverse.

    Comparisons are kept as floats, whose ``lerp`` takes a twentieth of the time of ``where`` with a mask.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: Windows, by_rank: Weights | None, by_place: Weights | None) -> Tensor:
        taps = [tap.clone(memory_format=_layout(x)) for tap in windows.taps(x)]
        total: Any = None if by_place is None else _weighted(taps, by_place)
        masks = []
        if by_rank is not None:
            masks = _sort(taps, ctx.needs_input_grad[0])
            total = _weighted(taps, by_rank, total)
        ctx.save_for_backward(*masks)
        ctx.given = windows, by_rank, by_place, x.shape, _layout(x)
        return torch.as_tensor(total)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        windows, by_rank, by_place, shape, layout = ctx.given
        gradient = gradients[0].contiguous(memory_format=layout)
        result = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=layout)
        parts: list[Tensor] = []
        if by_rank is not None:
            parts = [gradient * weight for weight in by_rank]
            _unsort(parts, ctx.saved_tensors)
        if by_place is not None:
            placed = [gradient * weight for weight in by_place]
            parts = [a + b for a, b in zip(parts, placed, strict=True)] if parts else placed
        tiled = windows.tile(shape)
        if not tiled:
            result.zero_()
        for place, part in zip(windows.taps(result), parts, strict=True):
            place.copy_(part) if tiled else place.add_(part)
        return result, None, None, None


def _layout(x: Tensor) -> torch.memory_format:
    is_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if is_last else torch.contiguous_format


def _sort(values: list[Tensor], keep: bool) -> list[Tensor]:
    """Sort the maps place by place, descending, in place; where asked, what each comparator found, as 0 and 1."""
    masks = []
    spare = torch.empty_like(values[0])
    for first, second in sorting_network(len(values)):
        p, q = values[first], values[second]
        if keep:
            masks.append(torch.ge(p, q, out=torch.empty_like(p)))
        torch.maximum(p, q, out=spare)
        torch.minimum(p, q, out=q)
        values[first], spare = spare, p
    return masks


def _unsort(values: list[Tensor], masks: Sequence[Tensor]) -> None:
    """Bring what belongs to ranks back to places, in place."""
    spare = torch.empty_like(values[0])
    for (first, second), mask in zip(reversed(sorting_network(len(values))), reversed(masks), strict=True):
        p, q = values[first], values[second]
        torch.lerp(q, p, mask, out=spare)
        torch.lerp(p, q, mask, out=q)
        values[first], spare = spare, p


def _weighted(values: Sequence[Tensor], weights: Weights, total: Tensor | None = None) -> Tensor:
    first = 0 if total is not None else 1
    total = values[0] * weights[0] if total is None else total
    for value, weight in zip(values[first:], weights[first:], strict=True):
        if isinstance(weight, Tensor):
            total.addcmul_(value, weight)
        elif weight:
            total.add_(value, alpha=weight)
    return total
