"""Circular padding of convolutions that keeps a map's layout in memory, for passes where that counts.

torch's own leaves channels-last maps as contiguous ones, so that a convolution copies them back, and its backward pass
copies the whole map once per edge.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import has_torch_function_unary

from invariscope.zoo.operators.taps import is_plain_autograd, layout_of


def wrap_in_place(model: nn.Module) -> Callable[[], None] | None:
    """Let the circular convolutions of ``model`` pad by :func:`wrap`, on CPU; the modules stay what they are.

    The same outputs and gradients but for roundings. A convolution whose class or instance computes otherwise is left
    as it is; settings of the others must not change afterwards. What is returned takes it back; None: nothing was done.
    """
    wrapped = []
    for module in nn.Module.modules(model):
        if (
            isinstance(module, nn.Conv2d)
            and module.padding_mode == "circular"
            and type(module)._conv_forward is nn.Conv2d._conv_forward
            and "_conv_forward" not in vars(module)
        ):
            module._conv_forward = partial(_convolved, module)  # type: ignore[method-assign]
            wrapped.append(module)

    def undo() -> None:
        for module in wrapped:
            vars(module).pop("_conv_forward", None)

    return undo if wrapped else None


def _convolved(module: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    left, right, top, bottom = module._reversed_padding_repeated_twice
    padded = wrap(x, left, right, top, bottom)
    return F.conv2d(padded, weight, bias, module.stride, 0, module.dilation, module.groups)


def wrap(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """``F.pad(x, (left, right, top, bottom), mode="circular")`` of ``(N, C, H, W)``, channels-last where ``x`` is.

    Where calls are watched, by a mode of torch's functions, it is that call: parts written one by one say less.
    """
    plain = is_plain_autograd(x) and not has_torch_function_unary(x) and x.device.type == "cpu" and x.ndim == 4
    if (
        plain
        and min(left, right, top, bottom) >= 0
        and max(left, right) <= x.shape[-1]
        and max(top, bottom) <= x.shape[-2]
    ):
        padded: Tensor = _Wrap.apply(x, left, right, top, bottom)
        return padded
    return F.pad(x, (left, right, top, bottom), mode="circular")


class _Wrap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
        images, channels, height, width = x.shape
        ctx.edges, ctx.layout = (left, right, top, bottom), layout_of(x)
        size = (images, channels, height + top + bottom, width + left + right)
        y = torch.empty(size, dtype=x.dtype, memory_format=ctx.layout)
        rows = y[:, :, top : top + height]
        rows[..., left : left + width] = x
        rows[..., :left] = x[..., width - left :]
        rows[..., left + width :] = x[..., :right]
        y[:, :, :top] = y[:, :, height : height + top]
        y[:, :, top + height :] = y[:, :, top : top + bottom]
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (left, right, top, bottom) = gradients, ctx.edges
        height, width = gradient.shape[-2] - top - bottom, gradient.shape[-1] - left - right

        def folded(rows: Tensor) -> Tensor:
            inner = rows[..., left : left + width].clone(memory_format=ctx.layout)
            inner[..., :right] += rows[..., left + width :]
            inner[..., width - left :] += rows[..., :left]
            return inner

        result = folded(gradient[:, :, top : top + height])
        result[:, :, :bottom] += folded(gradient[:, :, top + height :])
        result[:, :, height - top :] += folded(gradient[:, :, :top])
        return result, None, None, None, None
