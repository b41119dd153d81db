"""What every downsampling operator is: one signature, one output size, and the weights that it samples with."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.errors import OperatorError
from zoo.sampling import PADDING_MODES, Taps, pad


def output_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Output height and width of every operator: ``ceil(H / s), ceil(W / s)``."""
    return -(-size[0] // stride), -(-size[1] // stride)


class Downsample(nn.Module):
    """Base of the operators: ``(N, C, H, W) -> (N, C, ceil(H/s), ceil(W/s))`` for any integer stride ``s >= 1``.

    Args:
        channels: ``C`` of the input.
        stride: ``s``, the same along both axes.
        padding_mode: how the operator continues the map at its border: ``zeros``, ``reflect``, ``replicate`` or
            ``circular``. The pooling operators (max, avg, soft, lp) take ``zeros`` as "no value there".

    Raises:
        OperatorError: for a stride below 1, no channels or an unknown padding mode.
    """

    name: ClassVar[str]
    """Name in the registry and in the tables."""

    strength_argument: ClassVar[str | None] = None
    """Name of the one knob whose value is the ``strength`` column, where there is one."""

    shares_selection: ClassVar[bool] = False
    """Whether a residual block's shortcut must sample with the ``selection`` of the main branch."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros") -> None:
        super().__init__()
        if channels < 1:
            raise OperatorError(f"{type(self).__name__}: channels is {channels}, and must be at least 1")
        if stride < 1 or int(stride) != stride:
            raise OperatorError(f"{type(self).__name__}: stride is {stride}, and must be an integer of at least 1")
        if padding_mode not in PADDING_MODES:
            known = ", ".join(PADDING_MODES)
            raise OperatorError(f"{type(self).__name__}: padding_mode is {padding_mode!r}, and must be one of {known}")
        self.channels = channels
        self.stride = int(stride)
        self.padding_mode = padding_mode
        self.selection: Tensor | None = None

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        """Downsample ``x``.

        ``selection`` is what another operator of the same kind chose (its :attr:`selection` after its forward pass);
        operators whose ``shares_selection`` is false ignore it. After the call, :attr:`selection` holds the choice
        that was used: ``(N,)`` phase indices or ``(N, s*s)`` phase weights, or ``None``.
        """
        raise NotImplementedError

    def sampling(self, x: Tensor, outputs: Tensor | None = None) -> Taps:
        """The sampling weights with which ``forward(x)`` makes its outputs (in evaluation mode).

        ``outputs``: flat indices ``h' * W' + w'`` of the outputs wanted; all by default.
        """
        raise NotImplementedError

    def losses(self) -> dict[str, Tensor]:
        """The operator's own training losses for its last forward pass in training mode, by name; none by default."""
        return {}

    def set_progress(self, fraction: float) -> None:
        """Tell the operator how far training has come (0 to 1), for what it anneals; nothing by default."""

    def extra_repr(self) -> str:
        return f"{self.channels}, stride={self.stride}, padding_mode={self.padding_mode!r}"


def pad_to_multiple(x: Tensor, stride: int, mode: str) -> Tensor:
    """Pad at the right and the bottom up to the next multiple of the stride."""
    height, width = x.shape[-2:]
    return pad(x, 0, -width % stride, 0, -height % stride, mode)


def phases(x: Tensor, stride: int) -> Tensor:
    """Polyphase components: ``(N, C, s*u, s*v) -> (N, C, s*s, u, v)``; number ``i*s + j`` is ``x[..., i::s, j::s]``."""
    n, c, height, width = x.shape
    cells = x.reshape(n, c, height // stride, stride, width // stride, stride)
    return cells.permute(0, 1, 3, 5, 2, 4).reshape(n, c, stride * stride, height // stride, width // stride)


def mix_phases(components: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of ``(N, C, S, u, v)`` components with weights that broadcast to ``(N, C, S)``."""
    return torch.einsum("ncsuv,ncs->ncuv", components, weights.expand(components.shape[:3]))
