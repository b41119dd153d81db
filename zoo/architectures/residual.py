"""The residual blocks of He et al. 2016, with a downsampling operator in them whose phase both branches share."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.zoo.architectures.parts import conv
from invariscope.zoo.operators import STRIDED, OperatorSpec, build_operator
from invariscope.zoo.operators.base import Downsample


class Residual(nn.Module):
    """``relu(after(down(before(x))) + bypass(shortcut_down(x)))``: what every residual block here does.

    The shortcut has an instance of the operator of its own, which takes the phase that the main branch chose where the
    operator shares its selection: only so does the block stay equivariant.
    """

    down: Downsample | None
    shortcut_down: Downsample | None

    def before(self, x: Tensor) -> Tensor:
        """The main branch up to the operator."""
        raise NotImplementedError

    def after(self, y: Tensor) -> Tensor:
        """The main branch after the operator, without its last activation."""
        raise NotImplementedError

    def bypass(self, x: Tensor) -> Tensor:
        """The shortcut after its operator."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        selection = None
        if self.down is not None:
            y = self.down(y)
            selection = self.down.selection if self.down.shares_selection else None
        y = self.after(y)
        if self.shortcut_down is not None:
            x = self.shortcut_down(x, selection=selection)
        return F.relu(y + self.bypass(x))


class _Published(Residual):
    """A block with the parameter names of torchvision's and timm's ResNets, and a 1x1 convolution as its shortcut.

    The shortcut is there where the map or its channels change: operator, 1x1 convolution, batch norm.
    """

    expansion: ClassVar[int]
    """Channels of the output per channel of the 3x3 convolutions."""

    def _add_shortcut(
        self, in_channels: int, width: int, stride: int, operator: OperatorSpec | str, padding_mode: str
    ) -> None:
        """The operators, where a stride is left to them, and the shortcut."""
        out_channels = width * self.expansion
        self.down = self.shortcut_down = None
        if stride > 1 and operator != STRIDED:
            self.down = build_operator(operator, width, stride, padding_mode)
            self.shortcut_down = build_operator(operator, in_channels, stride, padding_mode)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or in_channels != out_channels:
            pointwise = conv(in_channels, out_channels, 1, stride=stride if operator == STRIDED else 1)
            self.downsample = nn.Sequential(pointwise, nn.BatchNorm2d(out_channels))

    def bypass(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(x)


class BasicBlock(_Published):
    """Two 3x3 convolutions, the operator before the second: ``relu(bn2(conv2(down(relu(bn1(conv1(x)))))) + shortcut)``.

    Shape: ``(N, in, H, W) -> (N, width, ceil(H/s), ceil(W/s))``. With ``operator="strided"`` the first convolution has
    the stride. ``dilations`` are those of the two convolutions.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        operator: OperatorSpec | str = STRIDED,
        padding_mode: str = "zeros",
        dilations: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        own = stride if operator == STRIDED else 1
        first, second = dilations
        self.conv1 = conv(in_channels, width, 3, stride=own, dilation=first, padding_mode=padding_mode)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, dilation=second, padding_mode=padding_mode)
        self.bn2 = nn.BatchNorm2d(width)
        self._add_shortcut(in_channels, width, stride, operator, padding_mode)

    def before(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)))

    def after(self, y: Tensor) -> Tensor:
        return self.bn2(self.conv2(y))


class Bottleneck(_Published):
    """1x1, 3x3 and 1x1 convolution to ``4 width`` channels, the operator before the last one.

    Shape: ``(N, in, H, W) -> (N, 4 width, ceil(H/s), ceil(W/s))``. With ``operator="strided"`` the 3x3 convolution has
    the stride, as in torchvision. The first of ``dilations`` is that of the 3x3 convolution.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        operator: OperatorSpec | str = STRIDED,
        padding_mode: str = "zeros",
        dilations: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        own = stride if operator == STRIDED else 1
        self.conv1 = conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride=own, dilation=dilations[0], padding_mode=padding_mode)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self._add_shortcut(in_channels, width, stride, operator, padding_mode)

    def before(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))

    def after(self, y: Tensor) -> Tensor:
        return self.bn3(self.conv3(y))
