"""Operators that are made of others: a weighted sum of two, and a low pass in front of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from invariscope.base.errors import OperatorError
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.operators.blur import binomial_kernel
from invariscope.zoo.operators.pooling import PoolingOperator
from invariscope.zoo.operators.specification import Operatorlike, OperatorSpec, build_operator, parse_operator
from invariscope.zoo.operators.taps import WindowWeights, is_plain_autograd
from invariscope.zoo.operators.tiled import image_blocks
from invariscope.zoo.operators.windowed import window_pool
from invariscope.zoo.sampling import Taps, pad, tap_index

LOW_PASS_REACH = 1
"""Pixels of the low pass of ``prefilter`` on each side of its middle."""


class Mix(Downsample):
    """``a first(x) + (1 - a) second(x)``: one site, whose sampling weights are the sum of theirs.

    Two sums by rank and by place over the same windows are computed as one.

    Args:
        a: share of the first, from 0 to 1.
        first: an operator.
        second: the other.

    Raises:
        OperatorError: for an ``a`` outside of these, two operators that both choose a phase, or one that filters its
            map before its window.
    """

    name = "mix"
    strength_argument = "a"
    examples = (
        {"a": 0.3, "first": "kernel((0.1, 0.2, 0.3, 0.4), kernel=2)", "second": "rank((0.7, 0, 0.1, 0.2), kernel=2)"},
        {"a": 0.25, "first": "aps", "second": "blur(3)"},
        {"a": 0.6, "first": "lp(3, kernel=3)", "second": "mix(0.5, max, subsample)"},
    )
    first_part: Downsample
    second_part: Downsample

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        a: float = 0.5,
        first: Operatorlike = "max",
        second: Operatorlike = "avg",
    ) -> None:
        super().__init__(channels, stride, padding_mode)
        self.a = _share("mix", "a", a)
        self.first, self.second = parse_operator(first), parse_operator(second)
        self.first_part = _inner("mix", self.first, self)
        self.second_part = _inner("mix", self.second, self)
        if self.first_part.shares_selection and self.second_part.shares_selection:
            raise OperatorError(
                f"mix: {self.first} and {self.second} choose a phase each, of which a shortcut can share but one: "
                "mix one of them with another operator"
            )
        self.shares_selection = self.first_part.shares_selection or self.second_part.shares_selection

    @property
    def exemptions(self) -> Mapping[str, str]:
        return {**self.first_part.exemptions, **self.second_part.exemptions}

    def window_weights(self) -> WindowWeights | None:
        """The weights by rank and by place, where both operators are such sums over the same windows."""
        one, other = _window_weights(self.first_part), _window_weights(self.second_part)
        if one is None or other is None or one.kernel != other.kernel:
            return None
        return one.mixed(self.a, other)

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        self.check(x)
        weights = self.window_weights()
        if weights is not None:
            return window_pool(x, weights, self.stride, self.padding_mode)
        one, other = self.first_part(x, selection=selection), self.second_part(x, selection=selection)
        if self.shares_selection:
            chooser = self.first_part if self.first_part.shares_selection else self.second_part
            self.selection = chooser.selection
        return torch.add(other * (1 - self.a), one, alpha=self.a)

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        self.check(x)
        one = self.first_part.sampling(x, outputs, selection=selection)
        return one.mixed(self.a, self.second_part.sampling(x, outputs, selection=selection))

    def multiply_adds(self, size: tuple[int, int], *, chosen: bool = False) -> int:
        """Those of both, and two per output for their sum."""
        parts = (self.first_part, self.second_part)
        return sum(part.multiply_adds(size, chosen=chosen) for part in parts) + 2 * self.outputs(size)


class Prefilter(Downsample):
    """A low pass of the map at stride 1, ``(1 - l) x + l B x``, and then an operator: anti-aliasing by one knob.

    ``B`` is the binomial 3 x 3 filter. The low pass is no part of the site: its input is the filtered map, so that the
    MSB is that of the operator after it (:attr:`site`), whatever ``l`` is. :meth:`sampling` holds both, as everywhere.

    Args:
        low_pass: ``l``, from 0 (none) to 1.
        then: the operator.

    Raises:
        OperatorError: for a ``low_pass`` outside of these.
    """

    name = "prefilter"
    strength_argument = "low_pass"
    examples = (
        {"low_pass": 0.971, "then": "mix(0.114, kernel((0.1, 0.2, 0.3, 0.4), 2), rank((0.7, 0.1, 0.1, 0.1), 2))"},
        {"low_pass": 1.0, "then": "aps"},
        {"low_pass": 0.0, "then": "tips"},
        {"low_pass": 0.3, "then": "prefilter(0.4, lp(3))"},
    )
    inner: Downsample

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        low_pass: float = 0.5,
        then: Operatorlike = "avg",
    ) -> None:
        super().__init__(channels, stride, padding_mode)
        self.low_pass = _share("prefilter", "low_pass", low_pass)
        self.then = parse_operator(then)
        self.inner = build_operator(self.then, channels, stride, padding_mode)
        self.shares_selection = self.inner.shares_selection

    @property
    def exemptions(self) -> Mapping[str, str]:
        return self.inner.exemptions

    @property
    def site(self) -> Downsample:
        return self.inner.site

    def site_input(self, x: Tensor) -> Tensor:
        return self.inner.site_input(low_pass(x, self.low_pass, self.padding_mode))

    def support(self) -> tuple[int, int]:
        height, width = self.inner.support()
        more = 2 * LOW_PASS_REACH if self.low_pass else 0
        return height + more, width + more

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        self.check(x)
        y: Tensor = self.inner(low_pass(x, self.low_pass, self.padding_mode), selection=selection)
        self.selection = self.inner.selection
        return y

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        self.check(x)
        taps = self.inner.sampling(low_pass(x, self.low_pass, self.padding_mode), outputs, selection=selection)
        return taps.after(_low_pass_taps(x, self.low_pass, self.padding_mode)) if self.low_pass else taps

    def multiply_adds(self, size: tuple[int, int], *, chosen: bool = False) -> int:
        """9 of the low pass per pixel, where there is one, and those of the operator."""
        filtering = self.channels * size[0] * size[1] * _low_pass_kernel(1.0).numel() if self.low_pass else 0
        return filtering + self.inner.multiply_adds(size, chosen=chosen)


def low_pass(x: Tensor, weight: float, padding_mode: str = "zeros") -> Tensor:
    """``(1 - l) x + l B x`` with the binomial 3 x 3 filter ``B`` at stride 1: ``(N, C, H, W)`` of the same size."""
    if weight == 0:
        return x
    if is_plain_autograd(x):
        result: Tensor = _LowPass.apply(x, weight, padding_mode, False)
        return result
    r = LOW_PASS_REACH
    filters = _low_pass_kernel(weight).to(x).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(pad(x, r, r, r, r, padding_mode), filters, groups=x.shape[1])


class _LowPass(torch.autograd.Function):
    """One axis after the other, by slices, a few images at a time: a depthwise convolution takes much longer.

    It is linear: its gradient is its adjoint, which is itself except for reflection.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float, padding_mode: str, adjoint: bool) -> Tensor:
        ctx.given = weight, padding_mode, not adjoint
        y = torch.empty_like(x)
        for block in image_blocks(x, maps=2):
            smooth = _smoothed(_smoothed(x[block], 2, padding_mode, adjoint), 3, padding_mode, adjoint)
            torch.lerp(x[block], smooth, weight, out=y[block])
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _LowPass.apply(gradients[0], *ctx.given), None, None, None


def _smoothed(x: Tensor, axis: int, padding_mode: str, adjoint: bool) -> Tensor:
    """``(1, 2, 1) / 4`` along an axis."""
    size = x.shape[axis]
    y = x * 0.5
    for to, source in ((1, 0), (0, 1)):
        y.narrow(axis, to, size - 1).add_(x.narrow(axis, source, size - 1), alpha=0.25)
    if padding_mode == "zeros":
        return y
    last = size - 1
    if padding_mode == "circular":
        edges = ((0, last), (last, 0))
    elif padding_mode == "reflect" and size > LOW_PASS_REACH:
        edges = ((0, 1), (last, last - 1))
    else:
        edges = ((0, 0), (last, last))
    for to, source in edges:
        to, source = (source, to) if adjoint else (to, source)
        y.narrow(axis, to, 1).add_(x.narrow(axis, source, 1), alpha=0.25)
    return y


def _low_pass_kernel(weight: float) -> Tensor:
    kernel = weight * binomial_kernel(2 * LOW_PASS_REACH + 1)
    kernel[LOW_PASS_REACH, LOW_PASS_REACH] += 1 - weight
    return kernel


def _low_pass_taps(x: Tensor, weight: float, padding_mode: str) -> Taps:
    size, r = (x.shape[-2], x.shape[-1]), LOW_PASS_REACH
    kernel = _low_pass_kernel(weight)
    square = (kernel.shape[0], kernel.shape[1])
    index = tap_index(size, size, square, (1, 1), (r, r), padding_mode=padding_mode, after=(r, r))
    return Taps(index.to(x.device), kernel.to(x).view(1, 1, 1, -1))


def _inner(name: str, spec: OperatorSpec, whole: Downsample) -> Downsample:
    """An operator over the same windows as the whole; refuses one whose window is not its site's."""
    part = build_operator(spec, whole.channels, whole.stride, whole.padding_mode)
    if part.site is not part:
        raise OperatorError(f"{name}: {spec} filters its map before its window: write prefilter(..., {name}(...))")
    return part


def _window_weights(part: Downsample) -> WindowWeights | None:
    return part.window_weights() if isinstance(part, PoolingOperator | Mix) else None


def _share(name: str, what: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise OperatorError(f"{name}: {what} is {value}, and must be from 0 to 1")
    return float(value)
