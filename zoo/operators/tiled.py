"""Pooling over windows that tile a channels-last map: whole rows at a time, and none copied.

One tap of such windows is a slice of short runs, slow to go through; in the map as cells ``(N, H', s, W', s, C)`` a row
of all windows is one long run. Values of the windows are spread over their columns for the same reason. A few images
are taken through all of the steps before the next, in the same memory (measured in ``benchmarks/taps.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Numbers = Sequence[float]

BLOCK_BYTES = 1 << 21
"""Of the images that are taken together."""

FEW_CHANNELS = 32
"""Below these the columns of four taps are so short that sorting them takes longer than by taps."""


def suits(x: Tensor, kernel: int, stride: int) -> bool:
    """Whether the functions here take such a padded map and such windows."""
    whole = kernel == stride > 1 and not (x.shape[-2] % stride or x.shape[-1] % stride)
    is_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return whole and is_last and x.device.type == "cpu" and x.numel() > 0


def image_blocks(x: Tensor, maps: int = 1) -> Iterator[slice]:
    """Images of a map, and of as many ``maps`` of its size, that are taken together: on CPU few, else all."""
    size = x.numel() * x.element_size() * maps
    images = max(BLOCK_BYTES * len(x) // max(size, 1), 1) if x.device.type == "cpu" else max(len(x), 1)
    return (slice(first, first + images) for first in range(0, len(x), images))


def _outputs(x: Tensor, stride: int, count: int) -> tuple[Tensor, ...]:
    """Empty outputs of the windows of a map."""
    shape = (x.shape[0], x.shape[1], x.shape[2] // stride, x.shape[3] // stride)
    return tuple(torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last) for _ in range(count))


def _cells(x: Tensor, stride: int) -> Tensor:
    """View ``(N, C, H, W)`` as ``(N, H', s, W', s, C)``."""
    return x.permute(0, 2, 3, 1).unflatten(2, (-1, stride)).unflatten(1, (-1, stride))


class _Room:
    """Memory for the rows and the cells of a block of images, used again by the next."""

    def __init__(self, x: Tensor, stride: int) -> None:
        self._of_cells = torch.empty_like(_cells(x[next(image_blocks(x))], stride))
        self._of_rows = torch.empty_like(self._of_cells[:, :, 0])

    def cells(self, like: Tensor) -> Tensor:
        return self._of_cells[: len(like)]

    def spread(self, y: Tensor) -> Tensor:
        """Values of windows ``(N, C, H', W')``, to broadcast to the cells."""
        return self._of_rows[: len(y)].copy_(y.permute(0, 2, 3, 1)[:, :, :, None])[:, :, None]

    def joined(self, values: Tensor, join: Callable[..., Tensor], onto: Tensor) -> Tensor:
        """The values of every window joined, to ``(N, C, H', W')``."""
        rows = self._of_rows[: len(onto)]
        join(values[:, :, 0], values[:, :, 1], out=rows)
        for row in range(2, values.shape[2]):
            join(rows, values[:, :, row], out=rows)
        return _columns(rows, join, onto)

    def summed(self, values: Tensor, weights: Tensor, onto: Tensor) -> Tensor:
        """The sum over every window of the values, each times its weight."""
        rows = torch.mul(values[:, :, 0], weights[:, :, 0], out=self._of_rows[: len(onto)])
        for row in range(1, values.shape[2]):
            rows.addcmul_(values[:, :, row], weights[:, :, row])
        return _columns(rows, torch.add, onto)


def _columns(rows: Tensor, join: Callable[..., Tensor], onto: Tensor) -> Tensor:
    result = onto.permute(0, 2, 3, 1)
    join(rows[..., 0, :], rows[..., 1, :], out=result)
    for column in range(2, rows.shape[3]):
        join(result, rows[..., column, :], out=result)
    return onto


def soft_forward(x: Tensor, stride: int, beta: float) -> tuple[Tensor, ...]:
    """Soft pooling: outputs, sums of exponentials, and these."""
    (y, total), shares, room = _outputs(x, stride, 2), torch.empty_like(x), _Room(x, stride)
    for block in image_blocks(x):
        values, share = _cells(x[block], stride), _cells(shares[block], stride)
        _exponentials(values, room, beta, share, y[block], total[block])
        room.summed(share, values, y[block]).div_(total[block])
    return y, total, shares


def soft_backward(
    x: Tensor, y: Tensor, total: Tensor, shares: Tensor, beta: float, gradient: Tensor, stride: int
) -> Tensor:
    """Its gradient."""
    result, one, other = torch.empty_like(x), _Room(x, stride), _Room(x, stride)
    for block in image_blocks(x):
        onto = _cells(result[block], stride)
        scaled = gradient[block] / total[block]
        level = one.spread(torch.addcmul(scaled, scaled, y[block], value=-beta))
        slope = other.spread(scaled.mul_(beta))
        torch.addcmul(level, slope, _cells(x[block], stride), out=onto).mul_(_cells(shares[block], stride))
    return result


def lme_forward(x: Tensor, stride: int, beta: float) -> tuple[Tensor, ...]:
    """Log-mean-exp pooling: outputs, sums of exponentials, and these."""
    (y, total), shares, room = _outputs(x, stride, 2), torch.empty_like(x), _Room(x, stride)
    for block in image_blocks(x):
        top = y[block]
        _exponentials(_cells(x[block], stride), room, beta, _cells(shares[block], stride), top, total[block])
        top += torch.div(total[block], stride**2).log_().div_(beta)
    return y, total, shares


def lp_forward(x: Tensor, stride: int, p: float, floor: float) -> tuple[Tensor, ...]:
    """Lp pooling: outputs, and two maps whose product is the gradient."""
    (y, slope), powers, room = _outputs(x, stride, 2), torch.empty_like(x), _Room(x, stride)
    for block in image_blocks(x):
        values, power, top = _cells(x[block], stride), _cells(powers[block], stride), y[block]
        largest = room.spread(room.joined(values, torch.maximum, top).clamp_(min=floor))
        ratios = torch.clamp(values, min=0, out=room.cells(values)).div_(largest)
        torch.pow(ratios, p - 1, out=power)
        mean = room.summed(power, ratios, slope[block]).div_(stride**2).add_(torch.div(floor, top).pow_(p))
        root = mean.sqrt() if p == 2 else torch.log2(mean).div_(p).exp2_()  # in half the time of a power
        top *= root
        torch.div(root, mean, out=mean).div_(stride**2)
    return y, powers, slope


def times_windows(x: Tensor, scale: Tensor, stride: int) -> Tensor:
    """A map, the cells of each window times its value of ``scale``."""
    result, room = torch.empty_like(x), _Room(x, stride)
    for block in image_blocks(x):
        torch.mul(_cells(x[block], stride), room.spread(scale[block]), out=_cells(result[block], stride))
    return result


Masks = tuple[Tensor, Tensor, Tensor]
"""What the comparators of four taps found, as 0 and 1: between rows, between columns, and of the two in the middle."""


class _RankRoom:
    """Memory to order the four taps of a block of images."""

    def __init__(self, x: Tensor) -> None:
        rows = _cells(x[next(image_blocks(x))], 2)[:, :, 0]
        self.found = torch.empty_like(rows), rows.new_empty((2, *rows[..., 0, :].shape))
        self.pairs = rows.new_empty((2, *rows.shape))
        self.ordered = rows.new_empty((2, *self.found[1].shape))

    def views(self, count: int) -> tuple[Tensor, ...]:
        """Comparisons of rows and of columns, pairs of rows, the larger and the smaller of the pairs."""
        rows, columns = self.found
        larger, smaller = self.ordered[:, :, :count]
        return rows[:count], columns[:, :count], self.pairs[:, :count], larger, smaller


def rank_forward(x: Tensor, weights: Numbers, places: Numbers | None, keep: bool) -> tuple[Tensor, Masks | None]:
    """Sum over windows of 2 x 2 by four weights by rank, and by place: outputs, and what backward needs."""
    (y,), room = _outputs(x, 2, 1), _RankRoom(x)
    masks = _masks(y) if keep else None
    for block in image_blocks(x):
        values, out = _cells(x[block], 2), y[block].permute(0, 2, 3, 1)
        by_row, by_column, pairs, larger, smaller = room.views(len(out))
        above, below = values[:, :, 0], values[:, :, 1]
        torch.maximum(above, below, out=pairs[0])
        torch.minimum(above, below, out=pairs[1])
        left, right = pairs[..., 0, :], pairs[..., 1, :]
        torch.maximum(left, right, out=larger)
        torch.minimum(left, right, out=smaller)
        second, third = smaller[0], larger[1]
        if masks is not None:
            masks[0][block].copy_(torch.ge(above, below, out=by_row))
            masks[1][:, block].copy_(torch.ge(left, right, out=by_column))
            masks[2][block].copy_(torch.ge(second, third, out=by_column[0]))
        torch.mul(larger[0], weights[0], out=out)
        out.add_(torch.maximum(second, third, out=by_column[0]), alpha=weights[1])
        out.add_(torch.minimum(second, third, out=by_column[0]), alpha=weights[2])
        out.add_(smaller[1], alpha=weights[3])
        for place, weight in enumerate(places or ()):
            out.add_(values[:, :, place // 2, :, place % 2], alpha=weight)
    return y, masks


def rank_backward(x: Tensor, masks: Masks, weights: Numbers, places: Numbers | None, gradient: Tensor) -> Tensor:
    """Its gradient: what belongs to ranks goes back by the way the values came."""
    result, room = torch.empty_like(x), _RankRoom(x)
    for block in image_blocks(x):
        onto, given = _cells(result[block], 2), gradient[block].permute(0, 2, 3, 1)
        by_row, by_column, pairs, larger, smaller = room.views(len(given))
        found = by_column[0].copy_(masks[2][block])
        one = torch.mul(given, weights[1], out=by_column[1])
        other = torch.mul(given, weights[2], out=smaller[1])
        torch.mul(given, weights[0], out=larger[0])
        torch.lerp(other, one, found, out=smaller[0])
        torch.lerp(one, other, found, out=larger[1])
        torch.mul(given, weights[3], out=smaller[1])
        found = by_column.copy_(masks[1][:, block])
        torch.lerp(smaller, larger, found, out=pairs[..., 0, :])
        torch.lerp(larger, smaller, found, out=pairs[..., 1, :])
        found = by_row.copy_(masks[0][block])
        torch.lerp(pairs[1], pairs[0], found, out=onto[:, :, 0])
        torch.lerp(pairs[0], pairs[1], found, out=onto[:, :, 1])
        for place, weight in enumerate(places or ()):
            onto[:, :, place // 2, :, place % 2].add_(given, alpha=weight)
    return result


def _masks(y: Tensor) -> Masks:
    images, channels, height, width = y.shape
    shape = (images, height, width, channels)
    rows = torch.empty((images, height, width, 2, channels), dtype=torch.int8)
    return rows, torch.empty((2, *shape), dtype=torch.int8), torch.empty(shape, dtype=torch.int8)


def _exponentials(values: Tensor, room: _Room, beta: float, onto: Tensor, top: Tensor, total: Tensor) -> None:
    """``exp(beta (x - max))`` of the cells, the maximum, and the sums; of base 2, in a third of the time."""
    largest = room.spread(room.joined(values, torch.maximum, top))
    torch.sub(values, largest, out=onto).mul_(beta / math.log(2)).exp2_()
    room.joined(onto, torch.add, total)
