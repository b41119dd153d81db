"""Translation invariant polyphase sampling (TIPS) and its two regularisers."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import OperatorError
from invariscope.base.names import unknown
from invariscope.zoo.operators.base import Downsample, cells, mix_phases, pad_to_multiple, select_phase
from invariscope.zoo.operators.fused import Form, fused_tips, suits
from invariscope.zoo.operators.polyphase import phase_taps
from invariscope.zoo.sampling import Taps, pad

POOLS = ("quadrant", "phase")
"""What ``psi`` is averaged over: regions of the image (as published), or polyphase components."""

PHASE_ORDERS = ("row", "official")
"""Which phase the k-th logit of the quadrant form weighs: row-major, or column-major as the released code."""

FAILURE_FORMS = ("published", "both")
"""Forms of the failure-mode loss."""

UNDO_FORMS = ("zeros", "circular")
"""Shifts of the undo loss."""


def tips_psi(x: Tensor, weight: Tensor, padding_mode: str = "zeros") -> Tensor:
    """``psi = relu(depthwise conv(x))`` of the same size; ``weight (C, 1, 3, 3)``."""
    return _psi(x, _around(x, padding_mode), weight)


def _around(x: Tensor, padding_mode: str) -> Tensor | None:
    """The map with a pixel more at each side; None for zeros there, which a convolution adds itself."""
    return None if padding_mode == "zeros" else pad(x, 1, 1, 1, 1, padding_mode)


def _psi(x: Tensor, around: Tensor | None, weight: Tensor) -> Tensor:
    if around is None:
        return F.conv2d(x, weight, padding=1, groups=x.shape[1]).relu()
    return F.conv2d(around, weight, groups=x.shape[1]).relu()


def tips_logits(psi: Tensor, weight: Tensor, stride: int, pool: str = "quadrant", phase_order: str = "row") -> Tensor:
    """``w_c * pool(psi_c)``, one logit for each phase in row-major order: ``(N, C, s*u, s*v) -> (N, C, s*s)``.

    ``weight (C, 1, 1, 1)``. ``pool="quadrant"`` averages ``psi`` over ``s x s`` regions of the image: region ``k`` (row
    by row) is the logit of phase ``k`` in row-major order, or in column-major order with ``phase_order="official"``.
    ``pool="phase"`` averages each phase of ``psi``, where the order of the list changes nothing.
    """
    if pool == "phase":
        pooled = cells(psi, stride).mean((2, 4))
    else:
        pooled = F.adaptive_avg_pool2d(psi, stride)
        if phase_order == "official":
            pooled = pooled.transpose(2, 3)
    return (pooled * weight[:, :, 0]).flatten(2)


def tips(x: Tensor, tau: Tensor, stride: int = 2) -> Tensor:
    """``y_c = sum_k tau_{c, k} P_k x_c``: ``(N, C, s*u, s*v)`` and ``(N, C, s*s)`` to ``(N, C, u, v)``."""
    return mix_phases(x, tau, stride)


def soft_tips(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    stride: int = 2,
    padding_mode: str = "zeros",
    pool: str = "quadrant",
    phase_order: str = "row",
) -> tuple[Tensor, Tensor, Tensor]:
    """The layer's output ``y``, with ``psi`` and ``tau``: :func:`tips_psi`, :func:`tips_logits`, :func:`tips`.

    On CPU in float32 they are computed together, to the same numbers (:mod:`invariscope.zoo.operators.fused`).
    """
    plain = partial(_plain, stride=stride, pool=pool, phase_order=phase_order)
    around = _around(x, padding_mode)
    if suits(x, depthwise, pointwise):
        return fused_tips(x, around, depthwise, pointwise, Form(stride, pool, phase_order, plain))
    return plain(x, around, depthwise, pointwise)


def _plain(
    x: Tensor, around: Tensor | None, depthwise: Tensor, pointwise: Tensor, stride: int, pool: str, phase_order: str
) -> tuple[Tensor, Tensor, Tensor]:
    psi = _psi(x, around, depthwise)
    tau = tips_logits(psi, pointwise, stride, pool, phase_order).softmax(2)
    return tips(x, tau, stride), psi, tau


def failure_loss(tau: Tensor, form: str = "published") -> Tensor:
    """``L_FM`` of the phase weights ``tau (..., S)``: the mean over all but the last dimension.

    ``published``: ``1 - ||tau||_2``, which is least (0) for a one-hot ``tau`` and so discourages only the uniform one.
    ``both``: ``1 - 4 (1 - ||tau||)(||tau|| - 1/s) / (1 - 1/s)^2`` with ``s = sqrt(S)``: 1 for one-hot and for uniform,
    0 half-way between. A single phase has no choice to regularise: 0.
    """
    norm = torch.linalg.vector_norm(tau, dim=-1)
    if form == "published" or tau.shape[-1] == 1:
        return (1 - norm).mean()
    least = tau.shape[-1] ** -0.5
    return (1 - 4 * (1 - norm) * (norm - least) / (1 - least) ** 2).mean()


def undo_loss(psi: Tensor, x: Tensor, shift: tuple[int, int], form: str = "zeros") -> Tensor:
    """``MSE(psi, shift(x))`` for one shift ``(dy, dx)``, positive = down / right; ``x`` is a constant.

    ``form``: ``zeros`` fills what the shift uncovers with 0, ``circular`` rolls the map.

    Raises:
        OperatorError: for a shift with zeros that leaves nothing of the map.
    """
    dy, dx = shift
    if form == "circular":
        return F.mse_loss(psi, x.detach().roll(shift, (-2, -1)))
    if abs(dy) >= x.shape[-2] or abs(dx) >= x.shape[-1]:
        raise OperatorError(f"undo loss: shift {shift} leaves the map of {tuple(x.shape[-2:])}, take a smaller one")
    # Negative padding crops: one call shifts and fills.
    return F.mse_loss(psi, F.pad(x.detach(), (dx, -dx, dy, -dy)))


class TIPS(Downsample):
    """Translation invariant polyphase sampling: a soft mixture of the phases, per image and channel.

    ``psi = relu(depthwise conv 3x3(x))``, ``tau_c = softmax(w_c * pool(psi_c))``, ``y_c = sum_k tau_{c,k} P_k x_c``;
    10 C parameters. Soft in training and in evaluation. Sizes that the stride does not divide are padded at the right
    and the bottom before everything else. Returns the tensor alone; :meth:`losses` reads what the last training
    forward kept. Saha and Gokhale, Improving shift invariance in convolutional neural networks with translation
    invariant polyphase sampling, 2024.

    Args:
        pool: ``quadrant``, as published (``tau`` does not permute with the phases when the map rolls), or ``phase``.
        hard: in evaluation keep one phase for all channels, the greatest channel mean of the logits; with
            ``pool="phase"`` and circular padding that is exactly equivariant, and a shortcut takes this phase too.
        phase_order: ``row``, or ``official`` for the released layer: column-major phases (quadrant form), and odd
            sizes reflected at the left and the top, whatever the padding mode.
        failure: form of the failure-mode loss, see :func:`failure_loss`.
        undo_shift: largest shift of the undo loss, as a fraction of height and width, below 1.
        undo: ``zeros``, as the released network: zero-filled shifts, a fraction of the layer's map; ``circular``, as
            the released driver: rolls by up to that fraction of the *network's* input, at every layer, of which
            :meth:`set_input_size` tells.

    Raises:
        OperatorError: for a value of these arguments that is not listed.
    """

    name = "tips"
    examples = ({"pool": "phase"}, {"hard": True}, {"pool": "phase", "hard": True}, {"phase_order": "official"})
    _kept = ("selection", "psi", "tau", "source")

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        pool: str = "quadrant",
        hard: bool = False,
        phase_order: str = "row",
        failure: str = "published",
        undo_shift: float = 0.25,
        undo: str = "zeros",
    ) -> None:
        super().__init__(channels, stride, padding_mode)
        for kind, value, known in (
            ("pool", pool, POOLS),
            ("phase_order", phase_order, PHASE_ORDERS),
            ("failure", failure, FAILURE_FORMS),
            ("undo", undo, UNDO_FORMS),
        ):
            if value not in known:
                raise OperatorError(f"TIPS: {unknown(kind, str(value), known)}")
        if not 0 <= undo_shift < 1:
            raise OperatorError(f"TIPS: undo_shift is {undo_shift}, and must be at least 0 and below 1")
        self.pool, self.hard, self.phase_order = pool, hard, phase_order
        self.failure, self.undo_shift, self.undo = failure, undo_shift, undo
        self.input_size: tuple[int, int] | None = None
        # A soft layer on the shortcut has weights of its own; a hard one takes the main branch's phase.
        self.shares_selection = hard
        self.depthwise = nn.Conv2d(channels, channels, 3, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
        self.psi: Tensor | None = None
        self.tau: Tensor | None = None
        self.source: Tensor | None = None

    def support(self) -> tuple[int, int]:
        return self.stride, self.stride

    def set_input_size(self, size: tuple[int, int]) -> None:
        self.input_size = size

    def padded_map(self, x: Tensor) -> Tensor:
        """The map, padded to a multiple of the stride."""
        if self.phase_order == "official":
            return pad(x, -x.shape[-1] % self.stride, 0, -x.shape[-2] % self.stride, 0, "reflect")
        return pad_to_multiple(x, self.stride, self.padding_mode)

    def logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``psi (N, C, H, W)`` and the logits ``(N, C, s*s)`` of a map whose size the stride divides."""
        psi = tips_psi(x, self.depthwise.weight, self.padding_mode)
        return psi, tips_logits(psi, self.pointwise.weight, self.stride, self.pool, self.phase_order)

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        self.check(x)
        x = self.padded_map(x)
        self.selection = self.psi = self.tau = self.source = None
        if self.hard and not self.training:
            self.selection = self.logits(x)[1].mean(1).argmax(1) if selection is None else selection
            return select_phase(x, self.selection, self.stride)
        if self.hard:
            psi, logits = self.logits(x)
            tau = logits.softmax(2)
            # What a paired upsampling puts the values back with: the one choice for all channels, still soft.
            self.selection = logits.mean(1).softmax(1)
            y = tips(x, tau, self.stride)
        else:
            weights = self.depthwise.weight, self.pointwise.weight
            y, psi, tau = soft_tips(x, *weights, self.stride, self.padding_mode, self.pool, self.phase_order)
        if self.training:
            self.psi, self.tau, self.source = psi, tau, x.detach()
        return y

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        self.check(x)
        padded = self.padded_map(x)
        if self.hard:
            index = self.logits(padded)[1].mean(1).argmax(1) if selection is None else selection
            weights = F.one_hot(index, self.stride**2).to(x.dtype)[:, None]
        else:
            weights = self.logits(padded)[1].softmax(2)
        size = (x.shape[-2], x.shape[-1])
        if self.phase_order == "official":
            before = (-size[0] % self.stride, -size[1] % self.stride)
            return phase_taps(size, self.stride, "reflect", weights, outputs, before)
        return phase_taps(size, self.stride, self.padding_mode, weights, outputs)

    def multiply_adds(self, size: tuple[int, int], *, chosen: bool = False) -> int:
        """``9`` of the convolution, 1 of the means and 1 of the mixture (none where hard) per pixel; ``s^2`` logits."""
        if self.hard and chosen:
            return 0
        return self.padded(size) * (10 if self.hard else 11) + self.channels * self.stride**2

    def losses(self) -> dict[str, Tensor]:
        """``undo`` (a new random shift at every call) and ``failure_modes``; none without a training forward."""
        if self.psi is None or self.tau is None or self.source is None:
            return {}
        within = self.source.shape[-2:] if self.undo == "zeros" else self.input_size
        if within is None:
            raise OperatorError(
                "TIPS: undo=circular shifts by a fraction of the network's input, whose size is not known: "
                "call set_input_size"
            )
        height, width = (int(self.undo_shift * length) for length in within)
        dy = int(torch.randint(-height, height + 1, ()))
        dx = int(torch.randint(-width, width + 1, ()))
        return {
            "undo": undo_loss(self.psi, self.source, (dy, dx), self.undo),
            "failure_modes": failure_loss(self.tau, self.failure),
        }
