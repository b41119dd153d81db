"""Upsampling that undoes a polyphase choice: the values go back to the phase that the paired downsampling took."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import OperatorError
from invariscope.base.names import unknown
from invariscope.zoo.operators.base import cells
from invariscope.zoo.operators.blur import binomial_kernel, blur
from invariscope.zoo.sampling import PADDING_MODES

UPSAMPLINGS = ("auto", "polyphase", "bilinear", "nearest")
"""How a decoder can enlarge a map; see :class:`Upsample`."""


def place(x: Tensor, selection: Tensor, stride: int) -> Tensor:
    """Put a map on one polyphase component of a zero map, or on all by their weights: ``sum_k selection_k U_k x``.

    ``(N, C, u, v) -> (N, C, s*u, s*v)``. ``selection``: the phase index ``(N,)`` per image, row-major, or phase weights
    ``(N, s*s)``, as :attr:`Downsample.selection` holds them. For an index it is a right inverse of the choice:
    ``select_phase(place(x, k), k) = x``; every other component is 0. U of Chaman and Dokmanic, Truly shift-equivariant
    convolutional neural networks with adaptive polyphase upsampling, 2021 (APS-U), and of Rojas-Gomez et al., Learnable
    polyphase sampling for shift invariant and equivariant networks, 2022 (LPS-U).

    Raises:
        OperatorError: for a selection of another shape.
    """
    count, channels, height, width = x.shape
    if selection.shape == (count,) and not selection.is_floating_point():
        out = x.new_zeros(count, channels, stride * height, stride * width)
        image = torch.arange(count, device=x.device)
        cells(out, stride)[image, :, :, selection // stride, :, selection % stride] = x
        return out
    if selection.shape != (count, stride * stride):
        raise OperatorError(
            f"upsampling: selection is {tuple(selection.shape)}, and must be ({count},) indices or "
            f"({count}, {stride * stride}) weights: give what the paired downsampling chose for these images"
        )
    weights = selection.to(x.dtype).view(count, 1, 1, stride, 1, stride)
    return (x[:, :, :, None, :, None] * weights).flatten(4, 5).flatten(2, 3)


def polyphase_upsample(
    x: Tensor,
    selection: Tensor,
    stride: int = 2,
    m: int = 3,
    padding_mode: str = "zeros",
    filter: Tensor | None = None,
) -> Tensor:
    """Adaptive polyphase upsampling: ``s^2`` times the map on its phase (:func:`place`), then a binomial blur.

    ``(N, C, u, v) -> (N, C, s*u, s*v)``. The factor keeps the mean over the map; with ``s = 2`` and ``m >= 2`` a
    constant stays constant, circularly padded, and ``m = 3`` interpolates linearly: the chosen phase keeps its values.
    ``m = 1`` leaves the blur out. ``filter``: the ``(m, m)`` filter, when it is at hand.
    """
    return blur(stride * stride * place(x, selection, stride), m, 1, padding_mode, filter)


def interpolate(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """``(N, C, u, v) -> (N, C, H, W)``: the nearest pixel, or for all else bilinearly, corners not aligned."""
    if mode == "nearest":
        return F.interpolate(x, size, mode="nearest")
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


class Upsample(nn.Module):
    """Enlarge a map by ``s``, as the counterpart of one downsampling: ``(N, C, u, v) -> (N, C, H, W)``.

    ``polyphase`` takes the ``selection`` of the paired downsampling, see :func:`polyphase_upsample`: with circular
    padding it rolls along with the map, where ``H = s u`` and ``W = s v``. Of an odd size, which the downsampling
    padded at the right and the bottom, what goes past ``(H, W)`` is cut there, and exactness ends. ``bilinear``
    (corners not aligned) and ``nearest`` interpolate to ``(H, W)`` and take no notice of a selection. ``auto`` is
    ``polyphase`` where there is a selection, and ``bilinear`` where there is none.

    Args:
        stride: ``s``.
        mode: one of ``UPSAMPLINGS``.
        padding_mode: how the blur continues the map; ``bilinear`` and ``nearest`` repeat the border whatever it is.
        m: size of the binomial blur of ``polyphase``; 1 for none.

    Raises:
        OperatorError: for a stride or ``m`` below 1, or an unknown mode or padding mode.
    """

    filter: Tensor

    def __init__(self, stride: int = 2, mode: str = "auto", padding_mode: str = "zeros", m: int = 3) -> None:
        super().__init__()
        if mode not in UPSAMPLINGS:
            raise OperatorError(unknown("upsampling", str(mode), UPSAMPLINGS))
        if padding_mode not in PADDING_MODES:
            raise OperatorError(unknown("padding mode", str(padding_mode), PADDING_MODES))
        for name, value in (("stride", stride), ("m", m)):
            if value < 1:
                raise OperatorError(f"upsampling: {name} is {value}, and must be at least 1")
        self.stride, self.mode, self.padding_mode, self.m = stride, mode, padding_mode, m
        self.register_buffer("filter", binomial_kernel(m).float(), persistent=False)

    def forward(self, x: Tensor, size: tuple[int, int], selection: Tensor | None = None) -> Tensor:
        if self.interpolates(selection):
            return interpolate(x, size, self.mode)
        if selection is None:
            raise OperatorError(
                "polyphase upsampling has no selection: pair it with an operator that shares one (aps, lps, "
                "tips(pool=phase, hard=true)), or take auto, bilinear or nearest"
            )
        y = polyphase_upsample(x, selection, self.stride, self.m, self.padding_mode, self.filter)
        return y[..., : size[0], : size[1]]

    def interpolates(self, selection: Tensor | None) -> bool:
        """Whether it takes no notice of the selection that is given, or has none to take notice of."""
        return self.mode in ("bilinear", "nearest") or (self.mode == "auto" and selection is None)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, mode={self.mode!r}, padding_mode={self.padding_mode!r}, m={self.m}"
