"""Operators that keep one polyphase component of the map, chosen so that it moves along with the map: APS and LPS."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import OperatorError
from invariscope.base.names import unknown
from invariscope.zoo.operators.base import Downsample, mix_phases, output_size, pad_to_multiple, phases, select_phase
from invariscope.zoo.operators.blur import binomial_kernel, blur, blur_taps, filter_adds
from invariscope.zoo.sampling import Taps, pad, tap_index

CHOICES = ("filtered", "input")
"""On which map APS compares the phases, where it filters."""


def phase_norms(x: Tensor, stride: int, p: float = 2.0) -> Tensor:
    """``||P_k x||_p`` over channels and space jointly: ``(N, C, s*u, s*v) -> (N, s*s)``, in float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vector_norm(phases(x, stride).to(wide), p, dim=(1, 3, 4))


def aps(x: Tensor, stride: int = 2, p: float = 2.0, rank: int = 1) -> tuple[Tensor, Tensor]:
    """The polyphase component of greatest ``l_p`` norm, per image, or of the ``rank``-th; the first of tied ones.

    ``(N, C, s*u, s*v) -> (N, C, u, v)`` and the index ``(N,)`` of the component, row-major. Chaman and Dokmanic, Truly
    shift-invariant convolutional neural networks, 2021.
    """
    index = ranked_phase(phase_norms(x, stride, p), rank)
    return select_phase(x, index, stride), index


def ranked_phase(norms: Tensor, rank: int) -> Tensor:
    """Index ``(N,)`` of the ``rank``-th largest of ``norms (N, s*s)``; of tied ones the first comes first."""
    if rank == 1:
        return norms.argmax(1)
    return torch.sort(norms, dim=1, descending=True, stable=True).indices[:, rank - 1]


def lps_scores(x: Tensor, stride: int, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    """``z_k = mean conv2(relu(conv1(P_k x)))`` over channels and space, circular padding: ``(N, s*s)``.

    Rojas-Gomez et al., Learnable polyphase sampling for shift invariant and equivariant networks, 2022.
    """
    maps = phases(x, stride).transpose(1, 2)
    hidden = maps.flatten(0, 1)
    hidden = F.conv2d(pad(hidden, 1, 1, 1, 1, "circular"), first.weight, first.bias).relu()
    hidden = F.conv2d(pad(hidden, 1, 1, 1, 1, "circular"), second.weight, second.bias)
    return hidden.mean((1, 2, 3)).unflatten(0, maps.shape[:2])


def pick(x: Tensor, selection: Tensor, stride: int) -> Tensor:
    """The component of an index ``(N,)`` per image, or the mixture of weights ``(N, s*s)``."""
    if selection.ndim == 1:
        return select_phase(x, selection, stride)
    return mix_phases(x, selection.to(x.dtype)[:, None], stride)


def phase_taps(
    size: tuple[int, int],
    stride: int,
    padding_mode: str,
    weights: Tensor,
    outputs: Tensor | None = None,
    before: tuple[int, int] = (0, 0),
) -> Taps:
    """Taps over the stride cells of a map of ``size`` with phase weights that broadcast to ``(N, C, s*s)``.

    ``before``: the part of the padding to a multiple of the stride that lies at the top and the left.
    """
    square = (stride, stride)
    index = tap_index(
        size, output_size(size, stride), square, square, before, padding_mode=padding_mode, outputs=outputs
    )
    return Taps(index.to(weights.device), weights[:, :, None, :])


class _Polyphase(Downsample):
    """A choice among the components of ``x~``: the map or its stride-1 blur, padded to a multiple of ``s``."""

    shares_selection = True
    binomial: Tensor

    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros", filter: int = 1) -> None:
        super().__init__(channels, stride, padding_mode)
        self.at_least(1, " (1 is no filter)", filter=filter)
        self.filter = filter
        self.register_buffer("binomial", binomial_kernel(filter).float(), persistent=False)

    def support(self) -> tuple[int, int]:
        return self.stride + self.filter - 1, self.stride + self.filter - 1

    def prepare(self, x: Tensor) -> Tensor:
        """``x~``: filtered, then padded at the right and the bottom."""
        self.check(x)
        smooth = blur(x, self.filter, 1, self.padding_mode, self.binomial)
        return pad_to_multiple(smooth, self.stride, self.padding_mode)

    def judged(self, x: Tensor, prepared: Tensor) -> Tensor:
        """The map whose phases are compared: ``x~`` (``prepared``)."""
        return prepared

    def select(self, x: Tensor, training: bool) -> Tensor:
        """Phase indices ``(N,)`` or phase weights ``(N, s*s)`` for a map whose phases are compared."""
        raise NotImplementedError

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        prepared = self.prepare(x)
        self.selection = self.select(self.judged(x, prepared), self.training) if selection is None else selection
        return pick(prepared, self.selection, self.stride)

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        self.check(x)
        size = (x.shape[-2], x.shape[-1])
        if selection is None:
            selection = self.select(self.judged(x, self.prepare(x)), training=False)
        if selection.ndim == 1:
            selection = F.one_hot(selection, self.stride**2)
        weights = selection.to(x.dtype)[:, None]
        taps = phase_taps(size, self.stride, self.padding_mode, weights, outputs)
        return taps if self.filter == 1 else taps.after(blur_taps(size, self.filter, 1, self.padding_mode, x))

    def multiply_adds(self, size: tuple[int, int], *, chosen: bool = False) -> int:
        """``m^2`` of the filter per pixel, and those of the choice."""
        choice = 0 if chosen else self.choice_adds(size)
        return self.channels * size[0] * size[1] * filter_adds(self.filter) + choice

    def choice_adds(self, size: tuple[int, int]) -> int:
        """Multiply-adds of the choice in evaluation mode."""
        raise NotImplementedError


class APS(_Polyphase):
    """Adaptive polyphase sampling: keeps the phase of greatest ``l_p`` norm, or of the ``rank``-th. See :func:`aps`.

    Under circular shifts the output rolls with the input, exactly where the sizes are divisible by the stride and no
    two norms are equal; elsewhere the padded row or column breaks it.

    Args:
        p: order of the norm, at least 1; ``inf`` is the largest absolute value.
        filter: ``m`` of a binomial blur at stride 1 before the choice; 1 for none.
        rank: which of the norms, from 1 (the largest) to ``s * s``; MSB falls with it. At stride 1, where there is one
            phase alone, any.
        choose: ``filtered``, to compare the phases of the filtered map, as the layer released with the paper for
            ImageNet does; ``input``, those of the map before the filter, as the one for CIFAR-10.

    Raises:
        OperatorError: for ``p``, ``filter`` or ``rank`` below 1, a ``rank`` above the number of phases, or another
            ``choose``.
    """

    name = "aps"
    examples = ({"p": 1.0, "filter": 3}, {"p": math.inf}, {"rank": 2}, {"filter": 3, "choose": "input"})

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        p: float = 2.0,
        filter: int = 1,
        rank: int = 1,
        choose: Literal["filtered", "input"] = "filtered",
    ) -> None:
        super().__init__(channels, stride, padding_mode, filter)
        self.at_least(1, " (inf is the largest absolute value)", p=p)
        self.at_least(1, " (1 is the largest norm)", rank=rank)
        if self.stride > 1 and rank > self.stride**2:
            raise OperatorError(
                f"APS: rank is {rank}, and stride {stride} has {self.stride**2} phases: take one of them"
            )
        if choose not in CHOICES:
            raise OperatorError(f"APS: {unknown('choose', str(choose), CHOICES)}")
        self.p, self.rank, self.choose = float(p), rank, choose

    def judged(self, x: Tensor, prepared: Tensor) -> Tensor:
        return prepared if self.choose == "filtered" else pad_to_multiple(x, self.stride, self.padding_mode)

    def select(self, x: Tensor, training: bool) -> Tensor:
        return ranked_phase(phase_norms(x, self.stride, self.p), min(self.rank, self.stride**2))

    def choice_adds(self, size: tuple[int, int]) -> int:
        """1 of the norm per pixel; none of a maximum."""
        return 0 if math.isinf(self.p) else self.padded(size)


class LPS(_Polyphase):
    """Learned polyphase sampling: two 3x3 convolutions score each phase. See :func:`lps_scores`.

    Training mixes the phases with ``pi = softmax((z + Gumbel) / tau)``, ``tau`` falling linearly from 1 to 0.01 with
    :meth:`set_progress`; evaluation keeps the phase of greatest score, exactly equivariant as :class:`APS` is. The
    scoring convolutions pad circularly whatever the ``padding_mode``.

    Args:
        hidden: channels between the two convolutions; by default those of the input.
        filter: ``m`` of a binomial blur at stride 1 before the choice; 1 for none.

    Raises:
        OperatorError: for ``hidden`` or ``filter`` below 1.
    """

    name = "lps"
    examples = ({"filter": 2}, {"hidden": 3})

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        hidden: int | None = None,
        filter: int = 1,
    ) -> None:
        super().__init__(channels, stride, padding_mode, filter)
        self.hidden = channels if hidden is None else hidden
        self.at_least(1, hidden=self.hidden)
        self.conv1 = nn.Conv2d(channels, self.hidden, 3)
        self.conv2 = nn.Conv2d(self.hidden, self.hidden, 3)
        self.tau = 1.0

    def set_progress(self, fraction: float) -> None:
        self.tau = 1.0 - 0.99 * min(max(fraction, 0.0), 1.0)

    def select(self, x: Tensor, training: bool) -> Tensor:
        scores = lps_scores(x, self.stride, self.conv1, self.conv2)
        if not training:
            return scores.argmax(1)
        gumbel = -torch.empty_like(scores).exponential_().log()
        return ((scores + gumbel) / self.tau).softmax(1)

    def choice_adds(self, size: tuple[int, int]) -> int:
        """The two convolutions ``C -> h -> h`` at every pixel of every phase, and the mean of the scores."""
        pixels, hidden = self.padded(size) // self.channels, self.hidden
        return pixels * (9 * self.channels * hidden + 9 * hidden * hidden + hidden)
