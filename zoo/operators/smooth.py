"""Soft, log-mean-exp and lp pooling tap by tap, with gradients of their own: the same numbers, in much less time.

A stack of the taps is a map of its own, and the gradient of every slice a map of zeros; here the maximum comes from
torch's pooling, and the sums and gradients are added up in place (measured in ``benchmarks/taps.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from invariscope.zoo.operators import tiled
from invariscope.zoo.operators.taps import Windows, is_plain_autograd, layout_of

Plain = Callable[[Tensor], Tensor]
"""A padded map to its output, in torch's own operations: gives the second derivatives."""


class Frame(NamedTuple):
    """The windows of a padded map, and which of its taps lie outside: ``(K, 1, 1, H', W')``, or None for nowhere."""

    windows: Windows
    outside: Tensor | None

    def maximum(self, x: Tensor) -> Tensor:
        """The largest value of every window."""
        return F.max_pool2d(x, self.windows.kernel, self.windows.stride)

    def pixels(self, x: Tensor) -> Tensor | float:
        """How many pixels a window has, in the type of ``x``."""
        return float(self.windows.kernel**2) if self.outside is None else (~self.outside).sum(0).to(x.dtype)

    def is_tiled(self, x: Tensor) -> bool:
        """Whether :mod:`invariscope.zoo.operators.tiled` can take it."""
        return self.outside is None and tiled.suits(x, self.windows.kernel, self.windows.stride)

    def cleared(self, values: Tensor, tap: int) -> Tensor:
        """Values of one tap, in place: 0 where it lies outside."""
        return values if self.outside is None else values.masked_fill_(self.outside[tap], 0)


def suits(x: Tensor, kernel: int, stride: int) -> bool:
    """Whether the functions here are the faster way, and can be used.

    In the default layout a stack of four taps that do not overlap is as fast: slices with a step cannot be vectorised.
    """
    exact = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.numel() > 0
    return exact and is_plain_autograd(x) and (kernel > stride or layout_of(x) == torch.channels_last)


def soft_by_taps(x: Tensor, frame: Frame, beta: float, plain: Plain) -> Tensor:
    """``sum softmax(beta x) x`` over the windows of a padded map, for a finite ``beta >= 0``."""
    result: Tensor = _Soft.apply(x, frame, beta, plain)
    return result


def lme_by_taps(x: Tensor, frame: Frame, beta: float, plain: Plain) -> Tensor:
    """``(1/beta) log mean exp(beta x)`` over the windows of a padded map, for a finite ``beta > 0``."""
    result: Tensor = _LogMeanExp.apply(x, frame, beta, plain)
    return result


def lp_by_taps(x: Tensor, frame: Frame, p: float, floor: float, plain: Plain) -> Tensor:
    """``(mean relu(x)^p + floor^p)^(1/p)`` over the windows of a padded map, for a finite ``p > 1``."""
    result: Tensor = _Lp.apply(x, frame, p, floor, plain)
    return result


class _ByTaps(torch.autograd.Function):
    """What they have in common: a backward pass that is itself differentiated takes the plain formula."""

    @classmethod
    def differentiable(cls, ctx: Any, gradient: Tensor) -> Tensor:
        (x, *_) = ctx.saved_tensors
        # A view: what flows through the argument itself is added to its gradient elsewhere.
        with torch.enable_grad():
            source = x.view_as(x)
            (found,) = torch.autograd.grad(ctx.plain(source), source, gradient, create_graph=True)
        return found


class _Soft(_ByTaps):
    """``dy/dx_p = s_p (1 + beta (x_p - y))`` with ``s = softmax(beta x)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frame: Frame, beta: float, plain: Plain) -> Tensor:
        ctx.frame, ctx.beta, ctx.plain = frame, beta, plain
        if frame.is_tiled(x):
            y, *kept = tiled.soft_forward(x, frame.windows.stride, beta)
            ctx.save_for_backward(x, y.clone(), *kept)  # a copy: what follows may change y in place
            return y
        top = frame.maximum(x)
        total, y = torch.zeros_like(top), torch.zeros_like(top)
        shares = []
        for tap, value in enumerate(frame.windows.taps(x)):
            share = frame.cleared(torch.sub(value, top).mul_(beta).exp_(), tap)
            total += share
            y.addcmul_(share, value)
            shares.append(share)
        y /= total
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(x, y.clone(), total, *shares)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return _Soft.differentiable(ctx, gradients[0]), None, None, None
        x, y, total, *shares = ctx.saved_tensors
        if ctx.frame.is_tiled(x):
            given = x, y, total, shares[0], ctx.beta, gradients[0], ctx.frame.windows.stride
            return tiled.soft_backward(*given), None, None, None
        scaled = gradients[0] / total
        base = torch.mul(scaled, y).mul_(-ctx.beta).add_(scaled)  # g (1 - beta y) / total
        scaled *= ctx.beta
        taps = zip(ctx.frame.windows.taps(x), shares, strict=True)
        parts = (
            ctx.frame.cleared(torch.addcmul(base, scaled, value).mul_(share), tap)
            for tap, (value, share) in enumerate(taps)
        )
        return ctx.frame.windows.scattered(parts, x.shape, layout_of(x)), None, None, None


class _LogMeanExp(_ByTaps):
    """``dy/dx_p = s_p`` with ``s = softmax(beta x)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frame: Frame, beta: float, plain: Plain) -> Tensor:
        ctx.frame, ctx.plain = frame, plain
        if frame.is_tiled(x):
            y, *kept = tiled.lme_forward(x, frame.windows.stride, beta)
            ctx.save_for_backward(x, *kept)
            return y
        top = frame.maximum(x)
        total = torch.zeros_like(top)
        shares = []
        for tap, value in enumerate(frame.windows.taps(x)):
            shares.append(frame.cleared(torch.sub(value, top).mul_(beta).exp_(), tap))
            total += shares[-1]
        ctx.save_for_backward(x, total, *(shares if ctx.needs_input_grad[0] else ()))
        return torch.div(total, frame.pixels(x)).log_().div_(beta).add_(top)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return _LogMeanExp.differentiable(ctx, gradients[0]), None, None, None
        x, total, *shares = ctx.saved_tensors
        scaled = gradients[0] / total
        if ctx.frame.is_tiled(x):
            return tiled.times_windows(shares[0], scaled, ctx.frame.windows.stride), None, None, None
        parts = (torch.mul(scaled, share) for share in shares)
        return ctx.frame.windows.scattered(parts, x.shape, layout_of(x)), None, None, None


class _Lp(_ByTaps):
    """``dy/dx_p = (x_p / c)^(p-1) S^(1/p-1) / m`` with ``c`` the maximum, ``m`` pixels, ``S`` the mean of ratios."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frame: Frame, p: float, floor: float, plain: Plain) -> Tensor:
        ctx.frame, ctx.p, ctx.plain = frame, p, plain
        if frame.is_tiled(x):
            y, *kept = tiled.lp_forward(x, frame.windows.stride, p, floor)
            ctx.save_for_backward(x, *kept)
            return y
        top = frame.maximum(x).clamp_(min=floor)
        ctx.count = frame.pixels(x)
        mean = torch.zeros_like(top)
        for value in frame.windows.taps(x):
            mean += torch.clamp(value, min=0).div_(top).pow_(p)
        mean /= ctx.count
        mean += (floor / top).pow_(p)
        ctx.save_for_backward(x, top, mean)
        return (mean ** (1 / p)).mul_(top)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return _Lp.differentiable(ctx, gradients[0]), None, None, None, None
        x, top, mean = ctx.saved_tensors
        if ctx.frame.is_tiled(x):
            powers, slope = top, mean
            return tiled.times_windows(powers, gradients[0] * slope, ctx.frame.windows.stride), None, None, None, None
        scaled = (mean ** (1 / ctx.p - 1)).mul_(gradients[0]).div_(ctx.count)
        taps = ctx.frame.windows.taps(x)
        parts = (torch.clamp(value, min=0).div_(top).pow_(ctx.p - 1).mul_(scaled) for value in taps)
        return ctx.frame.windows.scattered(parts, x.shape, layout_of(x)), None, None, None, None
