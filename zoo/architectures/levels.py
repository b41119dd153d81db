"""What a segmentation network's encoder gives its decoder: a map per resolution, and how each came from the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from invariscope.base.errors import ModelError
from invariscope.base.names import unknown
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.operators.upsampling import UPSAMPLINGS, Upsample, interpolate


@dataclass(frozen=True)
class Level:
    """A map of the encoder, with the ``selection`` by which the map before it was downsampled to its size."""

    features: Tensor
    selection: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the map."""
        return self.features.shape[2], self.features.shape[3]


def chosen(operator: nn.Module | None) -> Tensor | None:
    """The selection of an operator's last forward pass, where it is one to share."""
    return operator.selection if isinstance(operator, Downsample) and operator.shares_selection else None


def upsampling_for(operator: Downsample | None, upsampling: str, padding_mode: str) -> Upsample:
    """The counterpart of one downsampling of stride 2: of an operator, or of something strided (None).

    What is strided selects nothing: it is undone bilinearly where the operators are by ``polyphase``.

    Raises:
        ModelError: for an unknown upsampling, or ``polyphase`` with an operator that shares no selection.
    """
    if upsampling not in UPSAMPLINGS:
        raise ModelError(unknown("upsampling", str(upsampling), UPSAMPLINGS))
    if upsampling == "polyphase" and operator is None:
        upsampling = "auto"
    if upsampling == "polyphase" and operator is not None and not operator.shares_selection:
        raise ModelError(
            f"upsampling is polyphase, and {operator.name} has no choice of phase to share: take aps, lps or "
            "tips(pool=phase, hard=true), or upsampling=auto"
        )
    return Upsample(2, upsampling, padding_mode)


class UpChain(nn.Module):
    """Undo several downsamplings in turn, the last one first: a map of the last level to the size of the first.

    Where none of them has a selection to put values back with, one interpolation goes all the way.
    """

    def __init__(self, operators: Sequence[Downsample | None], upsampling: str, padding_mode: str) -> None:
        super().__init__()
        self.ups = nn.ModuleList(upsampling_for(operator, upsampling, padding_mode) for operator in operators)

    def forward(self, x: Tensor, levels: Sequence[Level]) -> Tensor:
        ups = [up for up in self.ups if isinstance(up, Upsample)]
        if not ups:
            return x
        if all(up.interpolates(level.selection) for up, level in zip(ups, levels[1:], strict=True)):
            return interpolate(x, levels[0].size, ups[0].mode)
        for up, below, above in zip(reversed(ups), reversed(levels[1:]), reversed(levels[:-1]), strict=True):
            x = up(x, above.size, below.selection)
        return x
