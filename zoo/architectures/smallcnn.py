"""A small convolutional network of three stages, each of which ends in a downsampling operator."""

from __future__ import annotations

from torch import Tensor, nn

from invariscope.zoo.architectures.parts import check_counts, conv3x3
from invariscope.zoo.operators import Operatorlike, OperatorSpec, build_operator, parse_operator


class SmallCNN(nn.Module):
    """Three times convolution 3x3, batch norm, ReLU, operator of stride 2; then global average and a linear layer.

    Shape: ``(N, in_channels, H, W) -> (N, classes)`` logits, for any size; widths are ``width``, ``2 width`` and
    ``4 width``. No convolution is strided, so that the operator is the only thing that subsamples.

    Raises:
        OperatorError: for an operator specification that names none, or a padding mode that is unknown.
        ModelError: for a width, channel or class number below 1.
    """

    def __init__(
        self,
        operator: Operatorlike = "max",
        padding_mode: str = "zeros",
        in_channels: int = 3,
        classes: int = 10,
        width: int = 8,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, classes=classes, width=width)
        spec = parse_operator(operator)
        self.stage1 = _stage(in_channels, width, spec, padding_mode)
        self.stage2 = _stage(width, 2 * width, spec, padding_mode)
        self.stage3 = _stage(2 * width, 4 * width, spec, padding_mode)
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.linear(x.mean((2, 3)))


def _stage(in_channels: int, out_channels: int, operator: OperatorSpec, padding_mode: str) -> nn.Sequential:
    stage = nn.Sequential()
    stage.add_module("conv", conv3x3(in_channels, out_channels, padding_mode=padding_mode))
    stage.add_module("bn", nn.BatchNorm2d(out_channels))
    stage.add_module("relu", nn.ReLU())
    stage.add_module("down", build_operator(operator, out_channels, stride=2, padding_mode=padding_mode))
    return stage
