"""What the architectures share: convolutions with their initial weights, and the check of their sizes."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import ModelError, OperatorError
from invariscope.zoo.sampling import PADDING_MODES, pad


class WideConv2d(nn.Conv2d):
    """``nn.Conv2d`` that takes maps smaller than its padding too, as dilated kernels on small images meet them.

    There circular padding wraps round more than once, and reflection falls back to replication.
    """

    def forward(self, input: Tensor) -> Tensor:
        left, right, top, bottom = self._reversed_padding_repeated_twice
        fits = max(top, bottom) < input.shape[-2] and max(left, right) < input.shape[-1]
        if self.padding_mode == "zeros" or fits:
            return super().forward(input)
        padded = pad(input, left, right, top, bottom, self.padding_mode)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding_mode: str = "zeros",
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution of odd kernel, padded to keep the size at stride 1, with the normal initial weights of He et al.
    2015.

    Raises:
        OperatorError: for an unknown padding mode.
    """
    if padding_mode not in PADDING_MODES:
        raise OperatorError(f"padding_mode is {padding_mode!r}, and must be one of {', '.join(PADDING_MODES)}")
    # Only where it is needed: tracers see through nn.Conv2d.
    kind = WideConv2d if dilation > 1 and padding_mode != "zeros" else nn.Conv2d
    made = kind(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        bias=bias,
        padding_mode=cast(Any, padding_mode),
    )
    nn.init.kaiming_normal_(made.weight)
    return made


def conv3x3(
    in_channels: int, out_channels: int, *, stride: int = 1, padding_mode: str = "zeros", bias: bool = False
) -> nn.Conv2d:
    """A 3x3 convolution, padded by 1, with the normal initial weights of He et al. 2015 and a bias, if any, of 0.

    Raises:
        OperatorError: for an unknown padding mode.
    """
    made = conv(in_channels, out_channels, 3, stride=stride, padding_mode=padding_mode, bias=bias)
    if made.bias is not None:
        nn.init.zeros_(made.bias)
    return made


def check_counts(**counts: int) -> None:
    """Refuse sizes that are not integers of at least 1 (``ModelError``)."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ModelError(f"{name} is {count!r}, and must be an integer of at least 1")


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int, *, dilation: int = 1, padding_mode: str = "zeros"
) -> nn.Sequential:
    """Convolution, batch norm, ReLU; the size stays."""
    return nn.Sequential(
        conv(in_channels, out_channels, kernel, dilation=dilation, padding_mode=padding_mode),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
