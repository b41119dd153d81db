"""DeepLabV3+ with any downsampling operator in its ResNet encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from invariscope.zoo.architectures.imagenet import resnet_encoder
from invariscope.zoo.architectures.levels import Level, UpChain
from invariscope.zoo.architectures.parts import check_counts, conv, conv_norm_relu
from invariscope.zoo.operators import Operatorlike

OUTPUT_STRIDE = 16
"""As published, and the output stride to which ``rate`` refers."""


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1 and three dilated 3x3 convolutions and the map's mean, projected by a 1x1.

    Shape: ``(N, in, H, W) -> (N, width, H, W)``. Training needs two images or more in a batch, for the batch norm over
    the means. Chen et al., Rethinking atrous convolution for semantic image segmentation, 2017.
    """

    def __init__(self, in_channels: int, width: int, rate: int, padding_mode: str) -> None:
        super().__init__()
        dilated = [
            conv_norm_relu(in_channels, width, 3, dilation=rate * times, padding_mode=padding_mode)
            for times in (1, 2, 3)
        ]
        self.branches = nn.ModuleList([conv_norm_relu(in_channels, width, 1), *dilated])
        self.pooled = conv_norm_relu(in_channels, width, 1)
        self.project = conv_norm_relu(5 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.pooled(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return self.project(torch.cat([*(branch(x) for branch in self.branches), mean], 1))


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+: a dilated ResNet, :class:`ASPP`, and a decoder that takes up the first stage's map. Chen et al.,
    Encoder-decoder with atrous separable convolution for semantic image segmentation, 2018.

    With a ResNet encoder and plain convolutions. The operator stands in the encoder, see
    :class:`Trunk`. Its downsamplings are undone twice: from the deepest map to the first
    stage's, and from there to the image's size; in turn, each with the phase that it took, where the operator shares
    one, and at once, bilinearly as published, where none does.

    Shape: ``(N, in_channels, H, W) -> (N, classes, H, W)`` logits, for any size. With circular padding, sizes that the
    total stride divides, a stem that is not strided, and the upsampling ``auto`` or ``polyphase`` with aps, lps or
    ``tips(pool=phase, hard=true)``, the logits roll along with the image exactly (in evaluation).

    Args:
        operator: downsampling in the encoder; ``strided`` for the published ResNet.
        width: channels of the encoder's stem. The decoder has 4 times as many (256 as published), and takes 3/4 as many
            (48) of the first stage's map.
        encoder: ``resnet18``, ``resnet34``, ``resnet50`` or ``resnet101``.
        stem: ``strided``, ``operator`` or ``stride1``.
        output_stride: 16, 8 or 32.
        rate: dilation of the pyramid's first 3x3 convolution, the others have 2 and 3 times as much; by default 6 at an
            output stride of 16, 12 at 8 and 3 at 32.
        upsampling: ``auto``, ``polyphase``, ``bilinear`` or ``nearest``.

    Raises:
        OperatorError: for an operator specification that names none, or a padding mode that is unknown.
        ModelError: for an unknown encoder, stem, output stride or upsampling, an upsampling that the operator cannot be
            paired with, or a number below 1.
    """

    def __init__(
        self,
        operator: Operatorlike = "max",
        padding_mode: str = "zeros",
        in_channels: int = 3,
        classes: int = 10,
        width: int = 64,
        encoder: str = "resnet50",
        stem: str = "strided",
        output_stride: int = OUTPUT_STRIDE,
        rate: int | None = None,
        upsampling: str = "auto",
    ) -> None:
        super().__init__()
        self.encoder = resnet_encoder(encoder, operator, padding_mode, in_channels, width, stem, output_stride)
        rate = 6 * OUTPUT_STRIDE // output_stride if rate is None else rate
        check_counts(classes=classes, rate=rate)
        first, inner, low = self.encoder.first_stage, 4 * width, max(3 * width // 4, 1)
        self.aspp = ASPP(self.encoder.widths[-1], inner, rate, padding_mode)
        self.low = conv_norm_relu(self.encoder.widths[first], low, 1)
        self.fuse = nn.Sequential(
            *conv_norm_relu(inner + low, inner, 3, padding_mode=padding_mode),
            *conv_norm_relu(inner, inner, 3, padding_mode=padding_mode),
        )
        self.head = conv(inner, classes, 1, bias=True)
        self.up_to_low = UpChain(self.encoder.operators[first:], upsampling, padding_mode)
        self.up_to_image = UpChain(self.encoder.operators[:first], upsampling, padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        levels: list[Level] = self.encoder(x)
        low = self.encoder.first_stage
        y = self.up_to_low(self.aspp(levels[-1].features), levels[low:])
        y = self.head(self.fuse(torch.cat([self.low(levels[low].features), y], 1)))
        return self.up_to_image(y, levels[: low + 1])
