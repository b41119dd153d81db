"""Where the windows of a pooling layer lie: its output size, and the same pooling at stride 1 on the same grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.zoo.sampling import pad

Size = tuple[int, int]


def pair(value: Any) -> Size:
    """``(height, width)`` of an argument that may be one number or two."""
    return (int(value[0]), int(value[-1])) if isinstance(value, (tuple, list)) else (int(value), int(value))


def same_before(length: int, stride: int, reach: int) -> int:
    """What TensorFlow's ``same`` padding puts before an axis, for windows of ``reach + 1`` pixels.

    All of it is ``max((ceil(L/s) - 1) s + reach + 1 - L, 0)``, and half of that, rounded down, stands before.
    """
    return max((math.ceil(length / stride) - 1) * stride + reach + 1 - length, 0) // 2


@dataclass(frozen=True)
class Geometry:
    """Windows of ``kernel`` pixels with ``dilation`` at a stride, on a map padded by ``padding`` on either side.

    ``same``: padding as TensorFlow's, which follows the size of the map (``padding`` is then not used).
    ``slack``: what to add to a map for the windows of a layer whose padding is not even: ``2 padding - reach``.
    """

    stride: int
    kernel: Size = (1, 1)
    padding: Size = (0, 0)
    dilation: Size = (1, 1)
    ceil_mode: bool = False
    same: bool = False
    slack: int | None = None

    def reach(self, axis: int) -> int:
        """Pixels from the first to the last of a window."""
        return self.dilation[axis] * (self.kernel[axis] - 1)

    def before(self, length: int, axis: int) -> int:
        """Pixels by which the first window starts before the map."""
        return same_before(length, self.stride, self.reach(axis)) if self.same else self.padding[axis]

    def output(self, size: Size) -> Size:
        """Output height and width, as torch's pooling counts them."""
        return self._output(size[0], 0), self._output(size[1], 1)

    def _output(self, length: int, axis: int) -> int:
        if self.same:
            return math.ceil(length / self.stride)
        slack = 2 * self.padding[axis] - self.reach(axis) if self.slack is None else self.slack
        if not self.ceil_mode:
            return (length + slack - 1) // self.stride + 1
        count = math.ceil((length + slack - 1) / self.stride) + 1
        # The last window must start inside the map, or in the padding before it.
        return count - 1 if (count - 1) * self.stride >= length + self.padding[axis] else count

    @property
    def is_operators(self) -> bool:
        """Whether the output size is an operator's, ``ceil(H / s)``, for every size of map."""
        least = max(self.stride * 4, 2 * max(self.kernel) * max(self.dilation))
        sizes = range(least, least + self.stride)
        return all(self.output((n, n)) == (math.ceil(n / self.stride),) * 2 for n in sizes)


class DenseMax(nn.Module):
    """A max pooling at stride 1 whose ``s``-th rows and columns are the strided one's, of the size of its input.

    ``(N, C, H, W) -> (N, C, H, W)``; larger where the strided layer has windows past the end of the map. Positions
    outside the map take no part (``padding_mode="zeros"``), or continue it.
    """

    def __init__(self, geometry: Geometry, padding_mode: str = "zeros") -> None:
        super().__init__()
        self.geometry = geometry
        self.padding_mode = padding_mode

    def forward(self, x: Tensor) -> Tensor:
        windows = self.geometry
        size = (x.shape[-2], x.shape[-1])
        edges = []
        for axis, count in enumerate(windows.output(size)):
            before = windows.before(size[axis], axis)
            wanted = max(size[axis], windows.stride * (count - 1) + 1)
            edges.append((before, max(wanted + windows.reach(axis) - size[axis] - before, 0)))
        padded = pad(x, *edges[1], *edges[0], self.padding_mode, -math.inf)
        return F.max_pool2d(padded, windows.kernel, 1, 0, windows.dilation)

    def extra_repr(self) -> str:
        return f"kernel={self.geometry.kernel}, padding_mode={self.padding_mode!r}"


class Pooled(nn.Module):
    """An operator in place of a pooling layer, with that layer's output size at every size of map.

    ``operator(dense(x))``, cropped at the right and the bottom; a map that is too small for the layer's windows is
    continued there by its last row and column.
    """

    def __init__(self, operator: nn.Module, geometry: Geometry, dense: nn.Module | None = None) -> None:
        super().__init__()
        self.dense = dense
        self.operator = operator
        self.geometry = geometry

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.geometry.output((x.shape[-2], x.shape[-1]))
        if self.dense is not None:
            x = self.dense(x)
        below = max(self.geometry.stride * (height - 1) + 1 - x.shape[-2], 0)
        right = max(self.geometry.stride * (width - 1) + 1 - x.shape[-1], 0)
        y: Tensor = self.operator(pad(x, 0, right, 0, below, "replicate"))
        return y[..., :height, :width]


def fitted(pool: nn.Module, like: Tensor, stride: int, kernel: Size | None, is_max: bool) -> Geometry | None:
    """The geometry of any pooling module, found by running it on maps of several sizes; None when none fits.

    ``like (N, C, H, W)``: a map that it was used on. For a maximum (``is_max``) the place of its windows is checked
    too, by values; for others the output size alone.
    """
    start = max(min(like.shape[-2:]), stride)
    tries = [_noise(like, size) for size in range(start, start + 2 * stride)]
    with torch.no_grad():
        made = [pool(x) for x in tries]
    lengths = [(x.shape[-1], y.shape[-1]) for x, y in zip(tries, made, strict=True)]
    candidates = [Geometry(stride, slack=slack) for slack in range(-start, start)]
    if is_max and kernel is not None:
        even = [Geometry(stride, kernel, (n, n), ceil_mode=c) for n in range(max(kernel)) for c in (False, True)]
        candidates = [*even, Geometry(stride, kernel, same=True)]
    for geometry in candidates:
        if any(geometry.output((length, length))[0] != out for length, out in lengths):
            continue
        if not is_max or all(_agrees(geometry, x, y) for x, y in zip(tries, made, strict=True)):
            return geometry
    return None


def _agrees(geometry: Geometry, x: Tensor, y: Tensor) -> bool:
    dense = DenseMax(geometry)(x)[..., :: geometry.stride, :: geometry.stride]
    return torch.equal(dense[..., : y.shape[-2], : y.shape[-1]], y)


def _noise(like: Tensor, size: int) -> Tensor:
    noise = torch.randn(1, like.shape[1], size, size, generator=torch.Generator().manual_seed(0))
    return noise.to(like.device, like.dtype)
