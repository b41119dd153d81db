"""The plain networks of Simonyan and Zisserman 2015 (arXiv 1409.1556), with any downsampling operator."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import ModelError
from invariscope.zoo.architectures.parts import check_counts, conv3x3
from invariscope.zoo.operators import Operatorlike, build_operator, parse_operator

STAGES = {
    7: (1, 1, 1, 1),
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Depth -> convolutions per stage. 11 to 19 are the columns A, B, D, E of table 1; 7 and 8 are small ones for 32x32."""

WIDTHS = (1, 2, 4, 8, 8)
"""Channels of each stage, in widths: 64, 128, 256, 512 and 512 as published."""

HEADS = ("average", "published")


class VGG(nn.Module):
    """Stages of 3x3 convolutions, batch norm and ReLU, each ending in an operator of stride 2: five, VGG-7 four.

    As published where ``operator="max"``; the only subsampling is the operators'. Layers carry the names of the
    public PyTorch networks (torchvision's ``vgg11_bn`` and ``vgg11``), whose checkpoints load where the head is the
    published one. Sizes that are no multiples of 32 (VGG-7: 16) are rounded up on the way, where those networks
    round down.

    Shape: ``(N, in_channels, H, W) -> (N, classes)`` logits, for any size.

    Args:
        depth: 7, 8, 11, 13, 16 or 19 layers with weights, where the three of the published head are counted.
        width: channels of the first stage; 64 as published.
        batch_norm: a batch norm after every convolution, which the networks of 2015 did not have.
        head: ``average``, a global average and one linear layer; or ``published``, a 7x7 average and three linear
            layers of ``64 width`` hidden units (4096) with dropout.

    Raises:
        OperatorError: for an operator specification that names none, or a padding mode that is unknown.
        ModelError: for another depth or head, or a width, channel or class number below 1.
    """

    def __init__(
        self,
        depth: int,
        operator: Operatorlike = "max",
        padding_mode: str = "zeros",
        in_channels: int = 3,
        classes: int = 10,
        width: int = 64,
        batch_norm: bool = True,
        head: str = "average",
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, classes=classes, width=width)
        if depth not in STAGES:
            raise ModelError(f"depth is {depth}, and must be one of {', '.join(map(str, STAGES))}")
        if head not in HEADS:
            raise ModelError(f"head is {head!r}, and must be one of {', '.join(HEADS)}")
        spec = parse_operator(operator)
        layers: list[nn.Module] = []
        for times, share in zip(STAGES[depth], WIDTHS[: len(STAGES[depth])], strict=True):
            for _ in range(times):
                layers += _convolution(in_channels, share * width, padding_mode, batch_norm)
                in_channels = share * width
            layers.append(build_operator(spec, in_channels, stride=2, padding_mode=padding_mode))
        self.features = nn.Sequential(*layers)
        self.side = 1 if head == "average" else 7
        self.classifier = _average_head(in_channels, classes) if head == "average" else _head(in_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), self.side).flatten(1))


def _convolution(in_channels: int, out_channels: int, padding_mode: str, batch_norm: bool) -> list[nn.Module]:
    conv = conv3x3(in_channels, out_channels, padding_mode=padding_mode, bias=True)
    return [conv, *([nn.BatchNorm2d(out_channels)] if batch_norm else []), nn.ReLU()]


def _average_head(channels: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, classes))


def _head(channels: int, classes: int) -> nn.Sequential:
    hidden = 8 * channels
    return nn.Sequential(
        nn.Linear(49 * channels, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, classes),
    )


vgg7 = partial(VGG, 7)
vgg8 = partial(VGG, 8)
vgg11 = partial(VGG, 11)
vgg13 = partial(VGG, 13)
vgg16 = partial(VGG, 16)
vgg19 = partial(VGG, 19)
