"""Operators that weigh the values of a window by the values themselves: max, average, subsampling, lp and soft pooling.

Geometry of all of them: the window of an output is ``kernel x kernel`` (by default the stride cell; 2 x 2 at stride 1).
A kernel above the stride reaches ``(kernel - 1) // 2`` pixels up and left of its stride cell; at the right and the
bottom the map is continued as far as ``ceil(H/s)`` outputs need. Under the padding mode ``zeros`` a position outside
the map takes no part in its window, so a constant input stays constant up to the border.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from invariscope.zoo.operators.base import Downsample, output_size, windows
from invariscope.zoo.operators.smooth import Frame, lp_by_taps, soft_by_taps, suits
from invariscope.zoo.operators.taps import Windows, WindowWeights, layout_of
from invariscope.zoo.sampling import Taps, max_weights, pad, take, tap_index

LP_FLOOR = 1e-6
"""What lp pooling adds to a window, in units of the activation: its epsilon is ``LP_FLOOR ** p``."""


class PaddedMap(NamedTuple):
    """A map continued for its windows: values, sizes, and where a tap lies outside (None: nowhere)."""

    padded: Tensor
    size: tuple[int, int]
    outside: Tensor | None


def default_kernel(kernel: int | None, stride: int) -> int:
    """The kernel asked for, or the stride (2 at stride 1)."""
    return kernel if kernel is not None else max(stride, 2)


def reach(kernel: int, stride: int) -> int:
    """Pixels by which a window starts before its stride cell."""
    return (kernel - 1) // 2 if kernel > stride else 0


def continued(x: Tensor, kernel: int, stride: int, padding_mode: str, fill: float = 0.0) -> PaddedMap:
    """A map continued as far as its windows reach, by the padding mode; ``fill`` under ``zeros``."""
    height, width = x.shape[-2:]
    size = output_size((height, width), stride)
    before = reach(kernel, stride)
    after = [max(stride * (n - 1) + kernel - before - m, 0) for n, m in zip(size, (height, width), strict=True)]
    edges = (before, after[1], before, after[0])
    outside = None
    if padding_mode == "zeros" and any(edges):
        inside = pad(torch.ones(1, 1, height, width, device=x.device), *edges, "zeros")
        outside = windows(inside, kernel, stride, size) == 0
    return PaddedMap(pad(x, *edges, padding_mode, fill), size, outside)


def max_pool(x: Tensor, kernel: int = 2, stride: int = 2, padding_mode: str = "zeros") -> Tensor:
    """Maximum over ``kernel x kernel`` windows, ``(N, C, H, W) -> (N, C, ceil(H/s), ceil(W/s))``."""
    frame = continued(x, kernel, stride, padding_mode, fill=-math.inf)
    return F.max_pool2d(frame.padded, kernel, stride)


def avg_pool(x: Tensor, kernel: int = 2, stride: int = 2, padding_mode: str = "zeros") -> Tensor:
    """Mean over ``kernel x kernel`` windows, ``(N, C, H, W) -> (N, C, ceil(H/s), ceil(W/s))``."""
    frame = continued(x, kernel, stride, padding_mode)
    mean = F.avg_pool2d(frame.padded, kernel, stride)
    if frame.outside is None:
        return mean
    return mean * (kernel**2 / (~frame.outside).sum(0, dtype=x.dtype))


def subsample(x: Tensor, stride: int = 2) -> Tensor:
    """Every ``s``-th row and column, ``x[..., ::s, ::s]``: no view, so that what follows may change it in place."""
    return x[..., ::stride, ::stride].clone(memory_format=layout_of(x))


def lp_weights(values: Tensor, p: float, outside: Tensor | None, dim: int) -> Tensor:
    """``relu(x)^p`` normalised over ``dim``; even over a window without a positive value."""
    values = values.relu()
    top = values.amax(dim, keepdim=True)
    powers = (values / top.where(top > 0, 1.0)) ** p if math.isfinite(p) else (values == top).to(values.dtype)
    powers = powers.where(top > 0, 1.0)
    if outside is not None:
        powers = powers.masked_fill(outside, 0)
    return powers / powers.sum(dim, keepdim=True)


def lp_pool(x: Tensor, p: float = 2.0, kernel: int = 2, stride: int = 2, padding_mode: str = "zeros") -> Tensor:
    """``(mean relu(x)^p + eps)^(1/p)`` over ``kernel x kernel`` windows.

    ``p = 1`` is the average of ``relu(x)`` and ``p = inf`` its maximum, both with ``eps = 0``. Else ``eps`` is
    ``LP_FLOOR ** p``: an all-zero window gives ``LP_FLOOR`` at every ``p``, with gradient 0. Any large ``p`` is safe,
    powers are taken of the ratio to the window's maximum.
    """
    if p == 1:
        return avg_pool(x.relu(), kernel, stride, padding_mode)
    if p == math.inf:
        return max_pool(x.relu(), kernel, stride, padding_mode)
    frame = continued(x, kernel, stride, padding_mode)
    windows = Windows(kernel, stride, frame.size)
    plain = partial(stacked_lp, windows=windows, outside=frame.outside, p=p)
    if suits(frame.padded, kernel, stride):
        return lp_by_taps(frame.padded, Frame(windows, frame.outside), p, LP_FLOOR, plain)
    return plain(frame.padded)


def stacked_lp(padded: Tensor, windows: Windows, outside: Tensor | None, p: float) -> Tensor:
    """:func:`lp_pool` of a padded map, over a stack of its taps."""
    values = torch.stack(windows.taps(padded)).relu()
    scale = values.detach().amax(0).clamp(min=LP_FLOOR)
    powers = (values / scale) ** p
    mean = powers.mean(0) if outside is None else powers.sum(0) / (~outside).sum(0)
    return scale * (mean + (LP_FLOOR / scale) ** p) ** (1 / p)


def soft_weights(values: Tensor, beta: float, outside: Tensor | None, dim: int) -> Tensor:
    """``softmax(beta * x)`` over ``dim``; ``beta = inf`` shares the weight among the maxima, ``-inf`` the minima."""
    if beta < 0:
        return soft_weights(-values, -beta, outside, dim)
    if outside is not None:
        values = values.masked_fill(outside, -math.inf)
    if beta == math.inf:
        return max_weights(values.movedim(dim, -1)).movedim(-1, dim)
    # The difference first: beta * x can overflow where beta * (x - max) only underflows.
    logits = beta * (values - values.detach().amax(dim, keepdim=True))
    if outside is not None:
        logits = logits.masked_fill(outside, -math.inf)
    return logits.softmax(dim)


def soft_pool(x: Tensor, beta: float = 1.0, kernel: int = 2, stride: int = 2, padding_mode: str = "zeros") -> Tensor:
    """``sum softmax(beta x) x`` over ``kernel x kernel``: the average at ``beta = 0``, the maximum at ``inf``.

    ``beta < 0`` runs towards the minimum, at ``-inf``.
    """
    if beta < 0:
        return -soft_pool(-x, -beta, kernel, stride, padding_mode)
    if beta == math.inf:
        return max_pool(x, kernel, stride, padding_mode)
    by_taps = suits(x, kernel, stride)
    frame = continued(x, kernel, stride, padding_mode, fill=torch.finfo(x.dtype).min if by_taps else 0.0)
    windows = Windows(kernel, stride, frame.size)
    plain = partial(stacked_soft, windows=windows, outside=frame.outside, beta=beta)
    return soft_by_taps(frame.padded, Frame(windows, frame.outside), beta, plain) if by_taps else plain(frame.padded)


def stacked_soft(padded: Tensor, windows: Windows, outside: Tensor | None, beta: float) -> Tensor:
    """:func:`soft_pool` of a padded map, over a stack of its taps."""
    values = torch.stack(windows.taps(padded))
    values = values if outside is None else values.masked_fill(outside, 0)
    return (soft_weights(values, beta, outside, 0) * values).sum(0)


class PoolingOperator(Downsample):
    """A pooling operator with a square kernel."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros", kernel: int | None = None) -> None:
        super().__init__(channels, stride, padding_mode)
        self.kernel = default_kernel(kernel, self.stride)
        self.at_least(1, kernel=self.kernel)

    def support(self) -> tuple[int, int]:
        return self.kernel, self.kernel

    def pool(self, x: Tensor) -> Tensor:
        """The operator's function with the operator's arguments."""
        raise NotImplementedError

    def weigh(self, values: Tensor, outside: Tensor) -> Tensor:
        """Weights over the last dimension of ``(N, C, L, K)`` values."""
        raise NotImplementedError

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        self.check(x)
        return self.pool(x)

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        self.check(x)
        size = (x.shape[-2], x.shape[-1])
        before = reach(self.kernel, self.stride)
        index = tap_index(
            size,
            output_size(size, self.stride),
            (self.kernel, self.kernel),
            (self.stride, self.stride),
            (before, before),
            padding_mode=self.padding_mode,
            outputs=outputs,
        ).to(x.device)
        return Taps(index, self.weigh(take(x, index), index < 0))

    def multiply_adds(self, size: tuple[int, int], *, chosen: bool = False) -> int:
        """``k^2`` per output; nothing for a maximum."""
        return 0 if self.is_maximum else super().multiply_adds(size)

    def window_weights(self) -> WindowWeights | None:
        """The weights by rank and by place, where the operator is such a sum; None for another."""
        return None

    @property
    def is_maximum(self) -> bool:
        """Whether the values are compared only, at this strength."""
        return False


class Max(PoolingOperator):
    """Maximum over ``kernel x kernel``; tied maxima share the sampling weight. See :func:`max_pool`."""

    name = "max"
    examples = ({"kernel": 3},)

    def pool(self, x: Tensor) -> Tensor:
        return max_pool(x, self.kernel, self.stride, self.padding_mode)

    def weigh(self, values: Tensor, outside: Tensor) -> Tensor:
        return max_weights(values.masked_fill(outside, -math.inf))

    @property
    def is_maximum(self) -> bool:
        return True


class Avg(PoolingOperator):
    """Mean over ``kernel x kernel``. See :func:`avg_pool`."""

    name = "avg"
    examples = ({"kernel": 3},)

    def pool(self, x: Tensor) -> Tensor:
        return avg_pool(x, self.kernel, self.stride, self.padding_mode)

    def weigh(self, values: Tensor, outside: Tensor) -> Tensor:
        inside = (~outside).to(values.dtype)
        return (inside / inside.sum(-1, keepdim=True))[None, None]

    def window_weights(self) -> WindowWeights:
        taps = self.kernel**2
        return WindowWeights(self.kernel, places=((1.0, torch.full((taps,), 1 / taps, dtype=torch.float64)),))


class Lp(PoolingOperator):
    """Power mean of ``relu(x)`` over ``kernel x kernel``, ``p >= 1``. See :func:`lp_pool`.

    Raises:
        OperatorError: for ``p`` below 1.
    """

    name = "lp"
    strength_argument = "p"
    examples = ({"p": 3.5, "kernel": 3}, {"p": 1.0}, {"p": math.inf})
    exempt: ClassVar[Mapping[str, str]] = {"weighted sum": "a power mean: its weights are the shares of relu(x)^p"}

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        p: float = 2.0,
        kernel: int | None = None,
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.at_least(1, " (inf is the maximum)", p=p)
        self.p = float(p)

    def pool(self, x: Tensor) -> Tensor:
        return lp_pool(x, self.p, self.kernel, self.stride, self.padding_mode)

    def weigh(self, values: Tensor, outside: Tensor) -> Tensor:
        return lp_weights(values, self.p, outside, -1)

    @property
    def is_maximum(self) -> bool:
        return math.isinf(self.p)


class Soft(PoolingOperator):
    """Softmax-weighted mean over ``kernel x kernel``, from minimum to maximum: the dose operator. :func:`soft_pool`.

    Raises:
        OperatorError: for a ``beta`` that is no number.
    """

    name = "soft"
    strength_argument = "beta"
    examples = ({"beta": 8.0, "kernel": 3}, {"beta": math.inf}, {"beta": -2.0})

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        beta: float = 1.0,
        kernel: int | None = None,
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.at_least(-math.inf, " (inf is the maximum)", beta=beta)
        self.beta = float(beta)

    def pool(self, x: Tensor) -> Tensor:
        return soft_pool(x, self.beta, self.kernel, self.stride, self.padding_mode)

    def weigh(self, values: Tensor, outside: Tensor) -> Tensor:
        return soft_weights(values, self.beta, outside, -1)

    @property
    def is_maximum(self) -> bool:
        return math.isinf(self.beta)


class Subsample(Downsample):
    """Every ``s``-th row and column, what a strided convolution does after its dense one. See :func:`subsample`."""

    name = "subsample"
    keeps_max = True

    def support(self) -> tuple[int, int]:
        return 1, 1

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        self.check(x)
        return subsample(x, self.stride)

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        self.check(x)
        size = (x.shape[-2], x.shape[-1])
        stride = (self.stride, self.stride)
        index = tap_index(size, output_size(size, self.stride), (1, 1), stride, outputs=outputs).to(x.device)
        return Taps(index, x.new_ones(1, 1, 1, 1))
