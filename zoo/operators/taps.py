"""Weighted sums over the taps of every window, by rank and by place, with a gradient of their own: fast on CPU.

A general sort of every window takes ten times as long as max pooling; a sorting network over whole maps, a tap at a
time, takes one to three times as long (measured in ``benchmarks``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from invariscope.zoo.operators import tiled

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
        return [self.tap(x, place) for place in range(self.kernel**2)]

    def tap(self, x: Tensor, place: int) -> Tensor:
        """One of them."""
        height, width = (self.stride * (length - 1) + 1 for length in self.size)
        row, column = divmod(place, self.kernel)
        return x[..., row : row + height : self.stride, column : column + width : self.stride]

    def scattered(self, parts: Iterable[Tensor], shape: torch.Size, layout: torch.memory_format) -> Tensor:
        """The padded map of ``shape`` to whose pixels the parts, one tap of every window after the other, are added."""
        parts = iter(parts)
        first = next(parts)
        result = torch.empty(shape, dtype=first.dtype, device=first.device, memory_format=layout)
        tiled = self.tile(shape)
        if not tiled:
            result.zero_()
        for place, part in enumerate(chain((first,), parts)):
            # Not all views at once: autograd takes none that is older than a change of what it is a view of.
            tap = self.tap(result, place)
            tap.copy_(part) if tiled else tap.add_(part)
        return result

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
    if not is_plain_autograd(x):
        return plainly_weighed(x, windows, by_rank, by_place)
    function: Any = _WeighTiles if _sorts_tiles(x, windows, by_rank, by_place) else _WeighTaps
    result: Tensor = function.apply(x, windows, by_rank, by_place)
    return result


def plainly_weighed(x: Tensor, windows: Windows, by_rank: Weights | None, by_place: Weights | None) -> Tensor:
    """:func:`weigh_taps` by a general sort: for transforms of functions, compilers and recorders."""
    taps = torch.stack(windows.taps(x))
    ranked = taps.sort(0, descending=True).values
    terms = [weight * value for weight, value in zip(() if by_rank is None else by_rank, ranked, strict=False)]
    terms += [weight * value for weight, value in zip(() if by_place is None else by_place, taps, strict=False)]
    return torch.stack(terms).sum(0)


def needed_comparators(count: int, weights: Weights) -> tuple[tuple[int, int], ...]:
    """The comparators of :func:`sorting_network` without those at its end that order values of one weight."""
    network = sorting_network(count)
    if isinstance(weights, Tensor):
        return network
    kept: list[tuple[int, int]] = []
    later: set[int] = set()
    for pair in reversed(network):
        if later.isdisjoint(pair) and weights[pair[0]] == weights[pair[1]]:
            continue
        later.update(pair)
        kept.append(pair)
    return tuple(reversed(kept))


class _WeighTaps(torch.autograd.Function):
    """A comparator's gradient goes back by the way its values came: backward undoes the network in reverse.

    Comparisons are kept as floats, whose ``lerp`` takes a twentieth of the time of ``where`` with a mask.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: Windows, by_rank: Weights | None, by_place: Weights | None) -> Tensor:
        layout = layout_of(x)
        taps = windows.taps(x)
        total: Any = None if by_place is None else _weighted(taps, by_place)
        masks: list[Tensor] = []
        network: tuple[tuple[int, int], ...] = ()
        if by_rank is not None:
            network = needed_comparators(len(taps), by_rank)
            if layout == torch.contiguous_format:
                # Slices with a step cannot be vectorised there: each is read once.
                taps = [tap.clone(memory_format=layout) for tap in taps]
            masks = _sort(taps, network, ctx.needs_input_grad[0], layout == torch.channels_last)
            total = _weighted(taps, by_rank, total)
        ctx.save_for_backward(*masks)
        ctx.given = windows, by_rank, by_place, network, x.shape, layout
        return torch.as_tensor(total)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        windows, by_rank, by_place, network, shape, layout = ctx.given
        gradient = gradients[0].contiguous(memory_format=layout)
        parts: list[Tensor] = []
        if by_rank is not None:
            parts = [gradient * weight for weight in by_rank]
            parts = _unsorted(parts, network, ctx.saved_tensors)
        if by_place is not None:
            placed = [gradient * weight for weight in by_place]
            parts = [a + b for a, b in zip(parts, placed, strict=True)] if parts else placed
        return windows.scattered(parts, shape, layout), None, None, None


def _sorts_tiles(x: Tensor, windows: Windows, by_rank: Weights | None, by_place: Weights | None) -> bool:
    """Whether :class:`_WeighTiles` is the faster way, and can be used: for numbers that need every comparator."""
    if by_rank is None or isinstance(by_rank, Tensor) or isinstance(by_place, Tensor):
        return False
    whole = windows.kernel == 2 and needed_comparators(4, by_rank) == sorting_network(4)
    wide = by_place is not None or x.shape[1] >= tiled.FEW_CHANNELS
    return whole and wide and windows.tile(x.shape) and tiled.suits(x, windows.kernel, windows.stride)


class _WeighTiles(torch.autograd.Function):
    """:class:`_WeighTaps` of four taps by :mod:`invariscope.zoo.operators.tiled`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, windows: Windows, by_rank: Sequence[float], by_place: Sequence[float] | None
    ) -> Tensor:
        y, masks = tiled.rank_forward(x, by_rank, by_place, ctx.needs_input_grad[0])
        ctx.save_for_backward(x, *(masks or ()))
        ctx.given = windows, by_rank, by_place
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        windows, by_rank, by_place = ctx.given
        x, *masks = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return tiled.rank_backward(x, masks, by_rank, by_place, gradients[0]), None, None, None
        with torch.enable_grad():
            source = x.view_as(x)
            y = plainly_weighed(source, windows, by_rank, by_place)
            (found,) = torch.autograd.grad(y, source, gradients[0], create_graph=True)
        return found, None, None, None


def is_plain_autograd(*tensors: Tensor) -> bool:
    """Whether gradients are taken by backward passes alone: no transform of functions, compiler or recorder is at work.

    A hand-written gradient is for this.
    """
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or any(forward_ad.unpack_dual(each).tangent is not None for each in tensors)
    )


def layout_of(x: Tensor) -> torch.memory_format:
    """The layout of a map: channels-last, or the default one."""
    is_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if is_last else torch.contiguous_format


def _sort(values: list[Tensor], network: Sequence[tuple[int, int]], keep: bool, are_views: bool) -> list[Tensor]:
    """Sort the maps place by place, descending, in the list; where asked, what each comparator found, as 0 and 1.

    ``are_views``: the maps are a part of another, and stay as they are; the others are written on.
    """
    masks = []
    views = set(range(len(values))) if are_views else set()
    spare = None
    for first, second in network:
        p, q = values[first], values[second]
        if keep:
            masks.append(torch.ge(p, q, out=torch.empty_like(p)))
        if views >= {first, second}:
            values[first], values[second] = torch.maximum(p, q), torch.minimum(p, q)
        else:
            spare = torch.maximum(p, q, out=spare)
            values[second] = torch.minimum(p, q, out=None if second in views else q)
            values[first], spare = spare, None if first in views else p
        views -= {first, second}
    return masks


def _unsorted(values: list[Tensor], network: Sequence[tuple[int, int]], masks: Sequence[Tensor]) -> list[Tensor]:
    """What belongs to ranks, brought back to places; in place, unless the gradient is itself to be differentiated."""
    again = torch.is_grad_enabled()
    spare = None
    for (first, second), mask in zip(reversed(network), reversed(masks), strict=True):
        p, q = values[first], values[second]
        if again:
            values[first], values[second] = torch.lerp(q, p, mask), torch.lerp(p, q, mask)
        else:
            spare = torch.lerp(q, p, mask, out=spare)
            values[second] = torch.lerp(p, q, mask, out=q)
            values[first], spare = spare, p
    return values


def _weighted(values: Sequence[Tensor], weights: Weights, total: Tensor | None = None) -> Tensor:
    first = 0 if total is not None else 1
    total = values[0] * weights[0] if total is None else total
    for value, weight in zip(values[first:], weights[first:], strict=True):
        if isinstance(weight, Tensor):
            total.addcmul_(value, weight)
        elif weight:
            total.add_(value, alpha=weight)
    return total
