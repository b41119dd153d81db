"""U-Net with any downsampling operator in its encoder, each paired with the upsampling that undoes it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.architectures.encoders import AUTO, Level, PlainEncoder, double_conv, upsampling_for
from zoo.architectures.parts import check_counts, conv
from zoo.operators.base import Downsample
from zoo.operators.upsampling import Upsample


class UpBlock(nn.Module):
    """One step of the expanding path: 1x1 convolution, upsampling, the encoder's map beside it, two 3x3 convolutions.

    Shape: ``(N, deep, u, v)`` and ``(N, skip, H, W) -> (N, skip, H, W)``.
    """

    def __init__(self, deep: int, skip: int, up: Upsample, padding_mode: str) -> None:
        super().__init__()
        self.reduce = conv(deep, skip, 1, bias=True)
        self.up = up
        self.fuse = double_conv(2 * skip, skip, padding_mode)

    def forward(self, x: Tensor, skip: Tensor, selection: Tensor | None) -> Tensor:
        y = self.up(self.reduce(x), (skip.shape[2], skip.shape[3]), selection)
        return self.fuse(torch.cat([skip, y], 1))


class UNet(nn.Module):
    """U-Net: a contracting path, and an expanding one that takes each of its maps up again. Ronneberger et al., 2015.

    As published but for batch norm, padding that keeps the size, and the up-convolution: a 1x1 convolution that halves
    the channels, then the upsampling that is paired with the operator between the two levels.

    Shape: ``(N, in_channels, H, W) -> (N, classes, H, W)`` logits, for any size. With circular padding, sizes that
    ``2^depth`` divides and polyphase upsampling of aps, lps or ``tips(pool=phase, hard=true)``, the logits roll along
    with the image exactly (in evaluation). Reflection needs two pixels and more at the deepest level.

    Args:
        operator: downsampling between the levels.
        width: channels of the first level, doubled at each further one; 64 as published.
        depth: number of times that the map is halved; 4 as published.
        upsampling: ``auto`` (polyphase where the operator shares its selection, else bilinear), ``polyphase``,
            ``bilinear`` or ``nearest``.

    Raises:
        OperatorError: for an operator specification that names none, or a padding mode that is unknown.
        ModelError: for an unknown upsampling or one that the operator cannot be paired with, or a number below 1.
    """

    def __init__(
        self,
        operator: str = "max",
        padding_mode: str = "zeros",
        in_channels: int = 3,
        classes: int = 10,
        width: int = 64,
        depth: int = 4,
        upsampling: str = AUTO,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, classes=classes, width=width, depth=depth)
        self.encoder = PlainEncoder(in_channels, width, depth, operator, padding_mode)
        self.decoder = nn.ModuleList(
            self._step(level, self.encoder.operators[level], upsampling, padding_mode)
            for level in reversed(range(depth))
        )
        self.head = conv(self.encoder.widths[0], classes, 1, bias=True)

    def _step(self, level: int, operator: Downsample | None, upsampling: str, padding_mode: str) -> UpBlock:
        up = upsampling_for(operator, upsampling, padding_mode)
        return UpBlock(self.encoder.widths[level + 1], self.encoder.widths[level], up, padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        levels: list[Level] = self.encoder(x)
        y = levels[-1].features
        for step, below, level in zip(self.decoder, reversed(levels[1:]), reversed(levels[:-1]), strict=True):
            y = step(y, level.features, below.selection)
        return self.head(y)
