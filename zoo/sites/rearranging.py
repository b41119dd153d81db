"""Space-to-depth by hand: a map that is reshaped, permuted and reshaped again, followed from view to view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invariscope.zoo.sites.uses import Size


@dataclass(frozen=True)
class Axis:
    """A factor of a dimension of the original map: ``size`` steps, of ``span`` positions of that dimension each."""

    dimension: int
    span: int
    size: int


@dataclass(frozen=True, eq=False)
class Rearranged:
    """A view ``y`` of the map ``x``: each of its dimensions is a product of factors of the map's dimensions."""

    x: Tensor
    y: Tensor
    dimensions: tuple[tuple[Axis, ...], ...]


def follow(func: Any, args: Sequence[Any], result: Any, before: Rearranged | None) -> Rearranged | None:
    """What is known of the result of a call on a map or on a view of one; None when it is no view that matters.

    A chain begins where a map's dimensions are split: ``(N, C, H, W) -> (N, C, H/s, s, W/s, s)``, for example.
    """
    if not isinstance(result, Tensor) or not args or not isinstance(args[0], Tensor):
        return None
    known = before is not None and before.y is args[0]
    if known and before is not None:
        x, dimensions = before.x, before.dimensions
    elif args[0].dim() == 4 and result.dim() > 4:
        x = args[0]
        dimensions = tuple((Axis(number, 1, int(size)),) for number, size in enumerate(x.shape))
    else:
        return None
    if func in _REGROUPING:
        groups = _regroup(dimensions, result.shape)
        return None if groups is None else Rearranged(x, result, groups)
    if func in _COPYING:
        return Rearranged(x, result, dimensions)
    order = _order(func, args, result.dim())
    return None if order is None else Rearranged(x, result, tuple(dimensions[place] for place in order))


def space_to_depth(view: Rearranged) -> tuple[Size, bool] | None:
    """The stride of a view that has moved ``s x s`` pixels into the channels, and whether channels came last in ``x``.

    The batch stays alone, and the rest of height and width are no part of the channels; else (as when windows are cut
    for attention) nothing got smaller.
    """
    if not 3 <= view.y.dim() <= 4:
        return None
    pieces: dict[int, list[Axis]] = {}
    place: dict[Axis, int] = {}
    for number, factors in enumerate(view.dimensions):
        for axis in factors:
            pieces.setdefault(axis.dimension, []).append(axis)
            place[axis] = number
    split = sorted(dimension for dimension, factors in pieces.items() if len(factors) == 2)
    if split not in ([1, 2], [2, 3]) or any(len(factors) > 2 for factors in pieces.values()):
        return None
    inner = [min(pieces[dimension], key=lambda axis: axis.span) for dimension in split]
    outer = [max(pieces[dimension], key=lambda axis: axis.span) for dimension in split]
    channels = pieces.get(3 if split == [1, 2] else 1, [])
    into = {place[axis] for axis in (*inner, *channels)}
    alone = {place[axis] for axis in (*outer, *pieces.get(0, []))}
    batch = {place[axis] for axis in pieces.get(0, [])} & {place[axis] for axis in outer}
    if len(into) != 1 or into & alone or batch:
        return None
    return (inner[0].size, inner[1].size), split == [1, 2]


def _regroup(dimensions: Sequence[Sequence[Axis]], shape: Sequence[int]) -> tuple[tuple[Axis, ...], ...] | None:
    """The factors of every dimension of a row-major reshape; None where a dimension cuts a factor unevenly."""
    rest = [axis for factors in dimensions for axis in factors if axis.size > 1][::-1]
    groups = []
    for size in shape:
        group: list[Axis] = []
        left = int(size)
        while left > 1 and rest:
            axis = rest.pop()
            if left % axis.size == 0:
                group.append(axis)
                left //= axis.size
            elif axis.size % left == 0:
                span = axis.size // left
                group.append(Axis(axis.dimension, axis.span * span, left))
                rest.append(Axis(axis.dimension, axis.span, span))
                left = 1
            else:
                return None
        if left > 1:
            return None
        groups.append(tuple(group))
    return _merged(groups)


def _merged(groups: Sequence[Sequence[Axis]]) -> tuple[tuple[Axis, ...], ...]:
    """Factors of one dimension that stand side by side again are one factor."""
    merged = []
    for group in groups:
        kept: list[Axis] = []
        for axis in group:
            last = kept[-1] if kept else None
            if last and last.dimension == axis.dimension and last.span == axis.span * axis.size:
                kept[-1] = Axis(axis.dimension, axis.span, last.size * axis.size)
            else:
                kept.append(axis)
        merged.append(tuple(kept))
    return tuple(merged)


def _order(func: Any, args: Sequence[Any], dims: int) -> list[int] | None:
    """Which dimension of the argument each dimension of the result was."""
    if func in (Tensor.permute, torch.permute):
        order = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list, torch.Size)) else args[1:]
        return [int(place) % dims for place in order] if len(order) == dims else None
    if func in (Tensor.transpose, torch.transpose) and len(args) == 3:
        order = list(range(dims))
        first, second = (int(place) % dims for place in args[1:])
        order[first], order[second] = order[second], order[first]
        return order
    return None


_REGROUPING = {
    Tensor.reshape, torch.reshape, Tensor.view, Tensor.flatten, torch.flatten, Tensor.unflatten, torch.unflatten,
    Tensor.squeeze, Tensor.unsqueeze,
}  # fmt: skip
_COPYING = {Tensor.contiguous, Tensor.clone, torch.clone}

VIEWS = _REGROUPING | _COPYING | {Tensor.permute, torch.permute, Tensor.transpose, torch.transpose}
"""The functions that :func:`follow` understands."""
