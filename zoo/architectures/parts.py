"""What the architectures share: 3x3 convolutions with their initial weights, and the check of their sizes."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from zoo.errors import ModelError, OperatorError
from zoo.sampling import PADDING_MODES


def conv3x3(
    in_channels: int, out_channels: int, *, stride: int = 1, padding_mode: str = "zeros", bias: bool = False
) -> nn.Conv2d:
    """A 3x3 convolution, padded by 1, with the normal initial weights of He et al. 2015 and a bias, if any, of 0.

    Raises:
        OperatorError: for an unknown padding mode.
    """
    if padding_mode not in PADDING_MODES:
        raise OperatorError(f"padding_mode is {padding_mode!r}, and must be one of {', '.join(PADDING_MODES)}")
    conv = nn.Conv2d(
        in_channels, out_channels, 3, stride=stride, padding=1, bias=bias, padding_mode=cast(Any, padding_mode)
    )
    nn.init.kaiming_normal_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def check_counts(**counts: int) -> None:
    """Refuse sizes that are not integers of at least 1 (``ModelError``)."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ModelError(f"{name} is {count!r}, and must be an integer of at least 1")
