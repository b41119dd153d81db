"""U-Net with any downsampling operator in its encoder, each paired with the upsampling that undoes it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from invariscope.base.errors import ModelError
from invariscope.zoo.architectures.imagenet import resnet_encoder
from invariscope.zoo.architectures.levels import Level, chosen, upsampling_for
from invariscope.zoo.architectures.parts import check_counts, conv, conv_norm_relu
from invariscope.zoo.operators import STRIDED, Operatorlike, build_operator, parse_operator
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.operators.upsampling import Upsample

PLAIN = "plain"
"""The value of ``encoder`` that stands for the contracting path as published."""


class PlainEncoder(nn.Module):
    """The contracting path of U-Net: two 3x3 convolutions per level, an operator of stride 2 between the levels.

    ``widths[i]`` is the number of channels of level ``i``, whose maps have ``ceil(H / 2^i)`` rows.
    """

    def __init__(self, in_channels: int, width: int, depth: int, operator: Operatorlike, padding_mode: str) -> None:
        super().__init__()
        if operator == STRIDED:
            raise ModelError("operator is strided, which is for ResNets: name an operator, or encoder=resnet18")
        spec = parse_operator(operator)
        self.widths = [width << level for level in range(depth + 1)]
        before = [in_channels, *self.widths]
        self.stages = nn.ModuleList(
            double_conv(before[level], self.widths[level], padding_mode) for level in range(depth + 1)
        )
        self.downs = nn.ModuleList(
            build_operator(spec, channels, stride=2, padding_mode=padding_mode) for channels in self.widths[:-1]
        )

    @property
    def decoder_widths(self) -> list[int]:
        """Channels that a decoder works with at each level."""
        return self.widths

    @property
    def operators(self) -> list[Downsample | None]:
        """What made each level but the first."""
        return [down for down in self.downs if isinstance(down, Downsample)]

    def forward(self, x: Tensor) -> list[Level]:
        first, *stages = self.stages
        levels = [Level(first(x))]
        for down, stage in zip(self.downs, stages, strict=True):
            y = down(levels[-1].features)
            levels.append(Level(stage(y), chosen(down)))
        return levels


def double_conv(in_channels: int, out_channels: int, padding_mode: str) -> nn.Sequential:
    """Twice: 3x3 convolution, batch norm, ReLU."""
    first = conv_norm_relu(in_channels, out_channels, 3, padding_mode=padding_mode)
    return nn.Sequential(*first, *conv_norm_relu(out_channels, out_channels, 3, padding_mode=padding_mode))


class UpBlock(nn.Module):
    """One step of the expanding path: 1x1 convolution, upsampling, the encoder's map beside it, two 3x3 convolutions.

    Shape: ``(N, deep, u, v)`` and ``(N, skip, H, W) -> (N, width, H, W)``.
    """

    def __init__(self, deep: int, skip: int, width: int, up: Upsample, padding_mode: str) -> None:
        super().__init__()
        self.reduce = conv(deep, width, 1, bias=True)
        self.up = up
        self.fuse = double_conv(skip + width, width, padding_mode)

    def forward(self, x: Tensor, skip: Level, selection: Tensor | None) -> Tensor:
        y = self.up(self.reduce(x), skip.size, selection)
        return self.fuse(torch.cat([skip.features, y], 1))


class UNet(nn.Module):
    """U-Net: a contracting path, and an expanding one that takes each of its maps up again. Ronneberger et al., 2015.

    As published but for batch norm, padding that keeps the size, and the up-convolution: a 1x1 convolution that halves
    the channels, then the upsampling that is paired with the operator between the two levels. With the encoder
    ``resnet18``, ``34``, ``50`` or ``101`` the contracting path is that network, with the ``stem`` of its own; a
    strided stem is undone bilinearly, and the image itself stands beside the last map.

    Shape: ``(N, in_channels, H, W) -> (N, classes, H, W)`` logits, for any size. With circular padding, sizes that the
    total stride (``2^depth``) divides, no strided stem, and the upsampling ``auto`` or ``polyphase`` with aps, lps or
    ``tips(pool=phase, hard=true)``, the logits roll along with the image exactly (in evaluation). Reflection needs maps
    of two pixels and more at the deepest level.

    Args:
        operator: downsampling between the levels; ``strided`` for a published ResNet as the encoder.
        width: channels of the first level, doubled at each further one; 64 as published.
        depth: number of times that the plain encoder halves the map; 4 as published.
        encoder: ``plain``, or the ResNet.
        stem: of the ResNet: ``strided``, ``operator`` or ``stride1``.
        upsampling: ``auto`` (polyphase where the operator shares its selection, else bilinear), ``polyphase``,
            ``bilinear`` or ``nearest``.

    Raises:
        OperatorError: for an operator specification that names none, or a padding mode that is unknown.
        ModelError: for an unknown encoder, stem or upsampling, an upsampling that the operator cannot be paired with,
            or a number below 1.
    """

    def __init__(
        self,
        operator: Operatorlike = "max",
        padding_mode: str = "zeros",
        in_channels: int = 3,
        classes: int = 10,
        width: int = 64,
        depth: int = 4,
        encoder: str = PLAIN,
        stem: str = "strided",
        upsampling: str = "auto",
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, classes=classes, width=width, depth=depth)
        self.encoder = (
            PlainEncoder(in_channels, width, depth, operator, padding_mode)
            if encoder == PLAIN
            else resnet_encoder(encoder, operator, padding_mode, in_channels, width, stem)
        )
        skips, widths = self.encoder.widths, self.encoder.decoder_widths
        deep = [*widths[1:-1], skips[-1]]
        ups = [upsampling_for(down, upsampling, padding_mode) for down in self.encoder.operators]
        steps = zip(deep, skips[:-1], widths[:-1], ups, strict=True)
        self.decoder = nn.ModuleList(UpBlock(*step, padding_mode) for step in reversed(list(steps)))
        self.head = conv(widths[0], classes, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        levels: list[Level] = self.encoder(x)
        y = levels[-1].features
        for step, below, level in zip(self.decoder, reversed(levels[1:]), reversed(levels[:-1]), strict=True):
            y = step(y, level, below.selection)
        return self.head(y)
