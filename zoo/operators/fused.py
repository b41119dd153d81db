"""TIPS on CPU with a hand-written gradient in channels-last layout: the same numbers in less than half the time.

In the default layout torch's kernels for this layer are slow: a depthwise convolution reorders the map and back, a
slice with a step cannot be vectorised, and the gradient of every slice is a map of zeros. With the channels innermost,
phases and regions are plain six-dimensional views, and gradients add up in place. ``benchmarks/tips.py`` measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.nn import functional as F

from invariscope.zoo.operators.taps import is_plain_autograd

LEAST_CHANNELS = 4
"""With fewer channels the innermost loops are too short for this layout to pay."""

LAST = torch.channels_last

Plain = Callable[[Tensor, Tensor | None, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""``(x, around, depthwise, pointwise) -> (y, psi, tau)`` in torch's own operations."""


class Form(NamedTuple):
    """What :func:`tips_logits` pools, and in which order; ``plain`` gives the second derivatives."""

    stride: int
    pool: str
    phase_order: str
    plain: Plain


def suits(x: Tensor, *weights: Tensor) -> bool:
    """Whether :func:`fused_tips` is the faster way, and can be used.

    It is for float32 on CPU without autocast, and for backward passes of any order. Forward-mode differentiation,
    ``torch.func``'s transforms, and what compiles or records the graph take the plain formulas.
    """
    tensors = (x, *weights)
    return (
        x.numel() > 0
        and x.shape[1] >= LEAST_CHANNELS
        and all(each.device.type == "cpu" and each.dtype == torch.float32 for each in tensors)
        and not torch.is_autocast_enabled("cpu")
        and is_plain_autograd(*tensors)
    )


def fused_tips(
    x: Tensor, around: Tensor | None, depthwise: Tensor, pointwise: Tensor, form: Form
) -> tuple[Tensor, Tensor, Tensor]:
    """``y (N, C, u, v)``, ``psi (N, C, s*u, s*v)`` and ``tau (N, C, s*s)``: see :class:`TIPS`.

    ``around`` is ``x`` with a pixel more at each side, or None for zeros there. ``y`` has the layout of ``x``.
    """
    y, psi, tau = _Tips.apply(_channels_last(x), around, depthwise, pointwise, form)
    return (y if x.is_contiguous(memory_format=LAST) else y.contiguous()), psi, tau


def _channels_last(x: Tensor) -> Tensor:
    if x.is_contiguous(memory_format=LAST):
        return x
    result: Tensor = _ChannelsLast.apply(x)
    return result


class _ChannelsLast(Function):
    """Changes the layout; the gradient goes back in the default one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=LAST)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous()


class _Tips(Function):
    """Maps of ``(N, C, H, W)`` whose memory is ``(N, H, W, C)``; inside, weights of phases are ``(N, s*s, C)``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, around: Tensor | None, depthwise: Tensor, pointwise: Tensor, form: Form
    ) -> tuple[Tensor, Tensor, Tensor]:
        source = x if around is None else around.contiguous(memory_format=LAST)
        psi = F.conv2d(source, depthwise, padding=int(around is None), groups=x.shape[1]).relu_()
        pooled = _pool(psi, form)
        tau = (pooled * pointwise.flatten()).softmax(1)
        y = _mix(x, tau, form.stride)
        ctx.form = form
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, around, depthwise, pointwise, psi, pooled, tau)
        return y, psi, tau.transpose(1, 2)

    @staticmethod
    def backward(
        ctx: Any, of_y: Tensor | None, of_psi: Tensor | None, of_tau: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, around, depthwise, pointwise, psi, pooled, tau = ctx.saved_tensors
        form, needed = ctx.form, ctx.needs_input_grad
        if torch.is_grad_enabled():
            inputs, grads = (x, around, depthwise, pointwise), (of_y, of_psi, of_tau)
            return (*_differentiable_gradients(inputs, needed, grads, form.plain), None)
        of_y = None if of_y is None else of_y.contiguous(memory_format=LAST)
        of_scores = _through_softmax(x, of_y, of_tau, tau, form.stride)
        of_pooled = None if of_scores is None else of_scores * pointwise.flatten()
        of_map = _through_pool(of_pooled, of_psi, psi, form)
        of_source, of_depthwise = _through_convolution(of_map, x, around, depthwise, needed)
        of_pointwise = None if of_scores is None else (of_scores * pooled).sum((0, 1)).view_as(pointwise)
        of_x = None if around is not None else of_source
        if of_y is not None and needed[0]:
            of_x = _spread(of_y, tau, form.stride, of_x)
        return of_x, None if around is None else of_source, of_depthwise, of_pointwise, None


def _differentiable_gradients(
    inputs: tuple[Tensor | None, ...], needed: tuple[bool, ...], grads: tuple[Tensor | None, ...], plain: Plain
) -> list[Tensor | None]:
    """The gradients of the plain formula, computed anew as part of a graph that can be differentiated."""
    # Views: `around` was made of `x`, and what flows through it is added to the gradient of `x` elsewhere.
    views = [None if each is None else each.view_as(each) for each in inputs]
    pairs = [each for each in zip(plain(*views), grads, strict=True) if each[1] is not None]  # type: ignore[arg-type]
    outputs, given = zip(*pairs, strict=True)
    wanted = [each for each, need in zip(views, needed, strict=False) if need and each is not None]
    found = iter(torch.autograd.grad(outputs, wanted, given, create_graph=True, allow_unused=True))
    return [next(found) if need else None for _, need in zip(inputs, needed, strict=False)]


def _regions(x: Tensor, stride: int) -> Tensor:
    """View ``(N, C, s*u, s*v)`` as ``(N, s, u, s, v, C)``: ``[:, i, :, j]`` is the region ``ij`` of ``s x s``."""
    return x.permute(0, 2, 3, 1).unflatten(2, (stride, -1)).unflatten(1, (stride, -1))


def _phases(x: Tensor, stride: int) -> Tensor:
    """View ``(N, C, s*u, s*v)`` as ``(N, u, s, v, s, C)``: ``[:, :, i, :, j]`` is the phase ``ij``."""
    return x.permute(0, 2, 3, 1).unflatten(2, (-1, stride)).unflatten(1, (-1, stride))


def _from_view(parts: Tensor) -> Tensor:
    """Back from either view."""
    return parts.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _area(psi: Tensor, stride: int) -> int:
    return psi.shape[2] * psi.shape[3] // stride**2


def _pool(psi: Tensor, form: Form) -> Tensor:
    """Means over regions or phases: ``(N, s*s, C)``, in the order of the phases that they weigh."""
    stride = form.stride
    # One axis after the other: a sum over both at once takes three times as long.
    sums = _phases(psi, stride).sum(3).sum(1) if form.pool == "phase" else _regions(psi, stride).sum(4).sum(2)
    if form.pool != "phase" and form.phase_order == "official":
        sums = sums.transpose(1, 2)
    return sums.flatten(1, 2) / _area(psi, stride)


def _mix(x: Tensor, tau: Tensor, stride: int) -> Tensor:
    """``sum_k tau_k P_k x``, in memory of its own: what follows may change it in place, which a view of several outputs
    forbids.
    """
    parts, weights = _phases(x, stride), tau[:, :, None, None]
    y = torch.empty((*x.shape[:2], *(size // stride for size in x.shape[2:])), dtype=x.dtype, device=x.device,
                    memory_format=LAST)  # fmt: skip
    rows = y.permute(0, 2, 3, 1)
    torch.mul(parts[:, :, 0, :, 0], weights[:, 0], out=rows)
    for k in range(1, stride**2):
        rows.addcmul_(parts[:, :, k // stride, :, k % stride], weights[:, k])
    return y


def _spread(of_y: Tensor, tau: Tensor, stride: int, onto: Tensor | None) -> Tensor:
    """Gradient of :func:`_mix` in its map: ``tau_k of_y`` at phase ``k``, added to ``onto`` in place."""
    grad = of_y.permute(0, 2, 3, 1)[:, :, None, :, None]
    weights = tau.unflatten(1, (stride, stride))[:, None, :, None]
    if onto is None:
        return _from_view(grad * weights)
    _phases(onto, stride).addcmul_(grad, weights)
    return onto


def _through_softmax(x: Tensor, of_y: Tensor | None, of_tau: Tensor | None, tau: Tensor, stride: int) -> Tensor | None:
    """Gradient in the logits, from those in ``y`` and in ``tau (N, C, s*s)``."""
    of_tau = None if of_tau is None else of_tau.transpose(1, 2)
    if of_y is not None:
        parts, grad = _phases(x, stride), of_y.permute(0, 2, 3, 1)
        sums = [(parts[:, :, k // stride, :, k % stride] * grad).sum((1, 2)) for k in range(stride**2)]
        of_tau = torch.stack(sums, 1) if of_tau is None else torch.stack(sums, 1) + of_tau
    return None if of_tau is None else tau * (of_tau - (of_tau * tau).sum(1, keepdim=True))


def _through_pool(of_pooled: Tensor | None, of_psi: Tensor | None, psi: Tensor, form: Form) -> Tensor | None:
    """Gradient in the convolution's output, from those in the means and in ``psi``."""
    stride = form.stride
    view = _phases if form.pool == "phase" else _regions
    parts = view(psi, stride)
    grad = None if of_psi is None else view(of_psi, stride)
    if of_pooled is not None:
        square = (of_pooled / _area(psi, stride)).unflatten(1, (stride, stride))
        if form.pool != "phase" and form.phase_order == "official":
            square = square.transpose(1, 2)
        means = square[:, None, :, None] if form.pool == "phase" else square[:, :, None, :, None]
        grad = means.expand_as(parts) if grad is None else grad + means
    return None if grad is None else _from_view(torch.ops.aten.threshold_backward(grad, parts, 0))


def _through_convolution(
    of_map: Tensor | None, x: Tensor, around: Tensor | None, weight: Tensor, needed: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients in the convolution's input and in its weight."""
    wanted = [needed[0] if around is None else needed[1], needed[2], False]
    if of_map is None or not any(wanted):
        return None, None
    source, edge, square = (x, [1, 1], [1, 1]) if around is None else (around, [0, 0], [1, 1])
    of_source, of_weight, _ = torch.ops.aten.convolution_backward(
        of_map, source, weight, None, square, edge, square, False, [0, 0], x.shape[1], wanted
    )
    return of_source, of_weight
