"""The residual networks for 32x32 images of He et al. 2016 (section 4.2), with any downsampling operator."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import ModelError
from invariscope.zoo.architectures.parts import check_counts, conv3x3
from invariscope.zoo.architectures.residual import Residual
from invariscope.zoo.operators import STRIDED, Operatorlike, OperatorSpec, build_operator, read_downsampling


class Block(Residual):
    """Basic residual block: ``relu(bn2(conv2(down(relu(bn1(conv1(x)))))) + shortcut(x))``.

    Shape: ``(N, in, H, W) -> (N, out, ceil(H/s), ceil(W/s))``. Where it downsamples with an operator, the main
    branch does so between its two convolutions, and the shortcut with the same phase (:class:`Residual`).
    The shortcut then changes its channels by zero channels, half of them on either side (option A), or by a 1x1
    convolution and batch norm (option B).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        operator: OperatorSpec | str,
        padding_mode: str,
        shortcut: str,
    ) -> None:
        super().__init__()
        strided = operator == STRIDED and stride > 1
        self.conv1 = conv3x3(in_channels, out_channels, stride=stride if strided else 1, padding_mode=padding_mode)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels, padding_mode=padding_mode)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.down = self.shortcut_down = None
        if stride > 1 and not strided:
            self.down = build_operator(operator, out_channels, stride=stride, padding_mode=padding_mode)
        if stride > 1 and not (strided and shortcut == "B"):
            shortcut_operator = "subsample" if strided else operator
            self.shortcut_down = build_operator(
                shortcut_operator, in_channels, stride=stride, padding_mode=padding_mode
            )
        self.shortcut = nn.Sequential()
        self.new_channels = 0
        if in_channels == out_channels:
            return
        if shortcut == "A":
            self.new_channels = out_channels - in_channels
        else:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride if strided else 1, bias=False)
            nn.init.kaiming_normal_(conv.weight)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(out_channels))

    def before(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)))

    def after(self, y: Tensor) -> Tensor:
        return self.bn2(self.conv2(y))

    def bypass(self, x: Tensor) -> Tensor:
        if self.new_channels:
            before = self.new_channels // 2
            x = F.pad(x, (0, 0, 0, 0, before, self.new_channels - before))
        return self.shortcut(x)


class SmallResNet(nn.Module):
    """ResNet-``depth`` for small images, ``depth = 6 n + 2``: 3x3 stem, three stages of ``n`` blocks, widths w, 2w, 4w.

    The second and the third stage halve the map in their first block. ``operator="strided"`` is the published
    network, with strided convolutions; its parameters carry the names of the public PyTorch checkpoints
    (akamaster/pytorch_resnet_cifar10), which load into it.

    Shape: ``(N, in_channels, H, W) -> (N, classes)`` logits, for any size.

    Args:
        shortcut: ``A``, zero channels without parameters (the published networks), or ``B``, 1x1 convolutions.
        width: channels of the first stage; 16 as published.

    Raises:
        OperatorError: for an operator specification that names none, or a padding mode that is unknown.
        ModelError: for another depth or shortcut, or a width, channel or class number below 1.
    """

    def __init__(
        self,
        depth: int,
        operator: Operatorlike = "max",
        padding_mode: str = "zeros",
        in_channels: int = 3,
        classes: int = 10,
        width: int = 16,
        shortcut: str = "A",
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, classes=classes, width=width)
        if depth < 8 or depth % 6 != 2:
            raise ModelError(f"depth is {depth}, and must be 8, 14, 20 or another 6 n + 2")
        if shortcut not in ("A", "B"):
            raise ModelError(f"shortcut is {shortcut!r}, and must be A or B")
        self.conv1 = conv3x3(in_channels, width, padding_mode=padding_mode)
        self.bn1 = nn.BatchNorm2d(width)
        settings = (depth // 6, read_downsampling(operator), padding_mode, shortcut)
        self.layer1 = _stage(width, width, 1, *settings)
        self.layer2 = _stage(width, 2 * width, 2, *settings)
        self.layer3 = _stage(2 * width, 4 * width, 2, *settings)
        self.linear = nn.Linear(4 * width, classes)
        nn.init.kaiming_normal_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _stage(
    in_channels: int,
    out_channels: int,
    stride: int,
    blocks: int,
    operator: OperatorSpec | str,
    padding_mode: str,
    shortcut: str,
) -> nn.Sequential:
    first = Block(in_channels, out_channels, stride, operator, padding_mode, shortcut)
    rest = [Block(out_channels, out_channels, 1, operator, padding_mode, shortcut) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


resnet8 = partial(SmallResNet, 8)
resnet14 = partial(SmallResNet, 14)
resnet20 = partial(SmallResNet, 20)
resnet32 = partial(SmallResNet, 32)
resnet44 = partial(SmallResNet, 44)
resnet56 = partial(SmallResNet, 56)
resnet110 = partial(SmallResNet, 110)
