"""What a segmentation network's encoder gives its decoder: a map per resolution, and how each came from the last."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from zoo.architectures.parts import conv_norm_relu
from zoo.errors import ModelError, unknown
from zoo.operators import build_operator
from zoo.operators.base import Downsample
from zoo.operators.upsampling import UPSAMPLINGS, Upsample

AUTO = "auto"
"""The value of ``upsampling`` that leaves the choice to the operator."""


@dataclass(frozen=True)
class Level:
    """A map of the encoder, with the ``selection`` by which the map before it was downsampled to its size."""

    features: Tensor
    selection: Tensor | None = None


def chosen(operator: nn.Module | None) -> Tensor | None:
    """The selection of an operator's last forward pass, where it is one to share."""
    return operator.selection if isinstance(operator, Downsample) and operator.shares_selection else None


def upsampling_for(operator: Downsample | None, upsampling: str, padding_mode: str) -> Upsample:
    """The counterpart of one downsampling: of an operator, or of something strided (None), which selects nothing.

    ``auto`` is ``polyphase`` where the operator shares its selection, and ``bilinear`` elsewhere; what is strided is
    undone bilinearly where the rest is ``polyphase``.

    Raises:
        ModelError: for an unknown upsampling, or ``polyphase`` with an operator that shares no selection.
    """
    if upsampling not in (AUTO, *UPSAMPLINGS):
        raise ModelError(unknown("upsampling", str(upsampling), (AUTO, *UPSAMPLINGS)))
    shares = operator is not None and operator.shares_selection
    if upsampling == "polyphase" and operator is not None and not shares:
        raise ModelError(
            f"upsampling is polyphase, and {operator.name} makes no choice of phase to share: take aps, lps or "
            "tips(pool=phase, hard=true), or upsampling=bilinear"
        )
    if upsampling == AUTO or operator is None:
        upsampling = "polyphase" if shares else "nearest" if upsampling == "nearest" else "bilinear"
    return Upsample(2 if operator is None else operator.stride, upsampling, padding_mode)


class PlainEncoder(nn.Module):
    """The contracting path of U-Net: two 3x3 convolutions per level, an operator of stride 2 between the levels.

    ``widths[i]`` is the number of channels of level ``i``, whose maps have ``ceil(H / 2^i)`` rows.
    """

    def __init__(self, in_channels: int, width: int, depth: int, operator: str, padding_mode: str) -> None:
        super().__init__()
        self.widths = [width << level for level in range(depth + 1)]
        before = [in_channels, *self.widths]
        self.stages = nn.ModuleList(
            double_conv(before[level], self.widths[level], padding_mode) for level in range(depth + 1)
        )
        self.downs = nn.ModuleList(
            build_operator(operator, channels, stride=2, padding_mode=padding_mode) for channels in self.widths[:-1]
        )

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
