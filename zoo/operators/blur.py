"""Operators that low-pass filter before they subsample: binomial blur, max then blur, and content-adaptive blur."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.zoo.operators.base import Downsample, output_size, windows
from invariscope.zoo.operators.pooling import default_kernel, max_pool, reach, subsample
from invariscope.zoo.operators.taps import Windows, layout_of
from invariscope.zoo.sampling import Taps, max_weights, pad, take, tap_index


def binomial_kernel(m: int) -> Tensor:
    """The ``(m, m)`` filter ``K = b b^T`` with ``b[n] = C(m-1, n) / 2^(m-1)``, in float64: exact."""
    b = torch.tensor([math.comb(m - 1, n) for n in range(m)], dtype=torch.float64) / 2 ** (m - 1)
    return b[:, None] * b[None, :]


def filter_adds(m: int) -> int:
    """Multiply-adds of the ``m x m`` filter per value; none where ``m`` is 1."""
    return 0 if m == 1 else m * m


def blur_pad(x: Tensor, m: int, padding_mode: str = "zeros") -> Tensor:
    """Continue a map for an ``m x m`` filter: ``(m-1) // 2`` pixels left and top, ``m // 2`` right and bottom."""
    return pad(x, (m - 1) // 2, m // 2, (m - 1) // 2, m // 2, padding_mode)


def blur(x: Tensor, m: int = 3, stride: int = 2, padding_mode: str = "zeros", filter: Tensor | None = None) -> Tensor:
    """Binomial blur, then every ``s``-th row and column: ``y[u, v] = sum K[p, q] x~[s u + p, s v + q]``.

    ``(N, C, H, W) -> (N, C, ceil(H/s), ceil(W/s))``; ``m = 1`` is plain subsampling. ``filter``: the ``(m, m)`` filter,
    when it is at hand. Filter and padding after Zhang, Making convolutional networks shift-invariant again, 2019.

    The same numbers as antialiased-cnns' ``BlurPool`` (every m, pad type and stride), kornia's ``blur_pool2d`` (zeros)
    and, for odd m at stride 2, timm's ``BlurPool2d``. With an even m timm's pads a pixel more at the left and the top:
    its windows lie one pixel further up and left, and its maps are larger by a row and a column.
    """
    if m == 1:
        return subsample(x, stride)
    filter = binomial_kernel(m) if filter is None else filter
    filters = filter.to(x.device, x.dtype).expand(x.shape[1], 1, m, m)
    return F.conv2d(blur_pad(x, m, padding_mode), filters, stride=stride, groups=x.shape[1])


def blur_taps(
    size: tuple[int, int], m: int, stride: int, padding_mode: str, like: Tensor, outputs: Tensor | None = None
) -> Taps:
    """Taps of :func:`blur` on maps of ``size``, on the device and in the dtype of ``like``."""
    edge = ((m - 1) // 2, m // 2)
    index = tap_index(
        size,
        output_size(size, stride),
        (m, m),
        (stride, stride),
        (edge[0], edge[0]),
        padding_mode=padding_mode,
        outputs=outputs,
        after=(edge[1], edge[1]),
    )
    return Taps(index.to(like.device), binomial_kernel(m).to(like.device, like.dtype).view(1, 1, 1, -1))


def max_blur(
    x: Tensor, m: int = 3, kernel: int = 2, stride: int = 2, padding_mode: str = "zeros", filter: Tensor | None = None
) -> Tensor:
    """Maximum over ``kernel x kernel`` at stride 1 (same size), then :func:`blur`. Zhang 2019.

    Under ``zeros`` a position outside the map takes no part in the maximum and counts as 0 in the blur. kornia's
    ``max_blur_pool2d`` and the layers of antialiased-cnns take the maximum without padding: their map between the two
    is smaller by ``kernel - 1``, which changes the outputs at its border alone for ``kernel = 2``; for a larger kernel
    this project's windows are centred and theirs are not.
    """
    return blur(max_pool(x, kernel, 1, padding_mode), m, stride, padding_mode, filter)


def content_adaptive_blur(x: Tensor, weights: Tensor, stride: int = 2, padding_mode: str = "zeros") -> Tensor:
    """Filter each output with its own weights: ``y[c, u, v] = sum_t weights[g(c), t, u, v] x~[c, s u + p, s v + q]``.

    ``x (N, C, H, W)``, ``weights (N, g, k*k, ceil(H/s), ceil(W/s))``; channel ``c`` uses group ``c * g // C``.
    Zou et al., Delving deeper into anti-aliasing in ConvNets, 2020.
    """
    channels, groups = x.shape[1], weights.shape[1]
    kernel = math.isqrt(weights.shape[2])
    size = (weights.shape[3], weights.shape[4])
    padded = blur_pad(x, kernel, padding_mode)
    if layout_of(x) == torch.channels_last:
        return _filtered_by_taps(Windows(kernel, stride, size).taps(padded), weights, channels)
    taps = windows(padded, kernel, stride, size)
    return (taps * _per_channel(weights, channels, groups).movedim(2, 0)).sum(0)


def _filtered_by_taps(taps: Sequence[Tensor], weights: Tensor, channels: int) -> Tensor:
    """The sum over taps of a channels-last map, one after the other: a stack of them would be of the other layout."""
    groups = weights.shape[1]
    shares = weights.permute(2, 0, 3, 4, 1)
    if channels % groups:
        shares = shares[..., torch.arange(channels, device=weights.device) * groups // channels]
        groups = channels
    total: Tensor | None = None
    for tap, share in zip(taps, shares.unsqueeze(-1), strict=True):
        values = tap.permute(0, 2, 3, 1).unflatten(3, (groups, -1))
        total = values * share if total is None else torch.addcmul(total, values, share)
    return torch.as_tensor(total).flatten(3).permute(0, 3, 1, 2)


def _per_channel(weights: Tensor, channels: int, groups: int) -> Tensor:
    return weights[:, torch.arange(channels, device=weights.device) * groups // channels]


class Blur(Downsample):
    """Binomial ``m x m`` blur, then subsampling. See :func:`blur`.

    Raises:
        OperatorError: for ``m`` below 1.
    """

    name = "blur"
    strength_argument = "m"
    examples: ClassVar[Sequence[Mapping[str, Any]]] = ({"m": 2}, {"m": 5})
    keeps_max = True
    filter: Tensor

    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros", m: int = 3) -> None:
        super().__init__(channels, stride, padding_mode)
        self.at_least(1, m=m)
        self.m = m
        self.register_buffer("filter", binomial_kernel(m).float(), persistent=False)

    def support(self) -> tuple[int, int]:
        return self.m, self.m

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        self.check(x)
        return blur(x, self.m, self.stride, self.padding_mode, self.filter)

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        self.check(x)
        return blur_taps((x.shape[-2], x.shape[-1]), self.m, self.stride, self.padding_mode, x, outputs)

    def multiply_adds(self, size: tuple[int, int], *, chosen: bool = False) -> int:
        """``m^2`` per output; a maximum before counts nothing."""
        return self.outputs(size) * filter_adds(self.m)


class MaxBlur(Blur):
    """Maximum over ``kernel x kernel`` at stride 1, then :class:`Blur`. See :func:`max_blur`.

    Raises:
        OperatorError: for ``m`` or ``kernel`` below 1.
    """

    name = "maxblur"
    examples = ({"m": 4, "kernel": 3},)
    keeps_max = False

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        m: int = 3,
        kernel: int | None = None,
    ) -> None:
        super().__init__(channels, stride, padding_mode, m)
        self.kernel = default_kernel(kernel, self.stride)
        self.at_least(1, kernel=self.kernel)

    def support(self) -> tuple[int, int]:
        return self.m + self.kernel - 1, self.m + self.kernel - 1

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        self.check(x)
        return max_blur(x, self.m, self.kernel, self.stride, self.padding_mode, self.filter)

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        self.check(x)
        size = (x.shape[-2], x.shape[-1])
        before = reach(self.kernel, 1)
        square = (self.kernel, self.kernel)
        index = tap_index(size, size, square, (1, 1), (before, before), padding_mode=self.padding_mode).to(x.device)
        maxima = Taps(index, max_weights(take(x, index, fill=-math.inf)))
        return super().sampling(x, outputs).after(maxima)


class DDAC(Downsample):
    """Content-adaptive blur: the filter of every output is predicted from the map. See :func:`content_adaptive_blur`.

    ``weights = softmax over the k*k taps, one per group, of BN(conv_{k x k}(x): C -> g k^2)``. The published softmax
    runs over all groups together, which divides the mean by ``g``; one softmax per group keeps constants. ``groups``
    is a most: fewer channels than groups get one group each. Zou et al. 2020.

    Raises:
        OperatorError: for a kernel or groups below 1.
    """

    name = "ddac"
    examples = ({"kernel": 4, "groups": 2},)
    keeps_max = True

    def __init__(
        self, channels: int, stride: int = 2, padding_mode: str = "zeros", kernel: int = 3, groups: int = 8
    ) -> None:
        super().__init__(channels, stride, padding_mode)
        self.at_least(1, kernel=kernel, groups=groups)
        self.kernel = kernel
        self.groups = min(groups, channels)
        self.conv = nn.Conv2d(channels, self.groups * kernel**2, kernel, bias=False)
        self.norm = nn.BatchNorm2d(self.groups * kernel**2)

    def support(self) -> tuple[int, int]:
        return self.kernel, self.kernel

    def weights(self, x: Tensor, training: bool) -> Tensor:
        """Filter weights ``(N, g, k*k, H', W')``.

        Training takes the batch statistics over every position, as the published layer does, and subsamples
        afterwards; evaluation computes only the positions that are kept: the same numbers.
        """
        padded = blur_pad(x, self.kernel, self.padding_mode)
        if training:
            logits = self.norm(self.conv(padded))[..., :: self.stride, :: self.stride]
        else:
            logits = F.conv2d(padded, self.conv.weight, stride=self.stride)
            norm = self.norm
            logits = F.batch_norm(logits, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        if layout_of(logits) == torch.channels_last:
            return logits.permute(0, 2, 3, 1).unflatten(3, (self.groups, -1)).softmax(4).permute(0, 3, 4, 1, 2)
        return logits.unflatten(1, (self.groups, -1)).softmax(2)

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        self.check(x)
        return content_adaptive_blur(x, self.weights(x, self.training), self.stride, self.padding_mode)

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        self.check(x)
        taps = blur_taps((x.shape[-2], x.shape[-1]), self.kernel, self.stride, self.padding_mode, x, outputs)
        weights = _per_channel(self.weights(x, training=False), self.channels, self.groups).flatten(3).transpose(2, 3)
        return Taps(taps.index, weights if outputs is None else weights[:, :, outputs.to(x.device)])

    def multiply_adds(self, size: tuple[int, int], *, chosen: bool = False) -> int:
        """Per output ``k^2`` of the filter, and per position the convolution ``C -> g k^2`` that predicts it.

        In training it is predicted at every position of the input.
        """
        taps = self.kernel**2
        return self.outputs(size) * (taps + self.groups * taps * taps)
