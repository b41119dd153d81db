"""Operators whose weights are fixed by place: any non-negative kernel, a Gaussian low pass, one phase of the grid.

They do not look at the values: their chance-corrected MSB is 0, whatever they alias and wherever they sample.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from invariscope.base.errors import OperatorError
from invariscope.zoo.operators.base import Downsample, output_size, pad_to_multiple
from invariscope.zoo.operators.pooling import PoolingOperator, continued
from invariscope.zoo.operators.ranked import checked_weights
from invariscope.zoo.operators.taps import Windows, weigh_taps
from invariscope.zoo.sampling import Taps, pad, tap_index

GAUSS_REACH = 3.0
"""Standard deviations at which a sampled Gaussian is cut off."""


def place_pool(x: Tensor, weights: Tensor, kernel: int = 2, stride: int = 2, padding_mode: str = "zeros") -> Tensor:
    """``sum_p k_p x_p`` over ``kernel x kernel`` windows, weights ``(n,)`` row-major over the window.

    Under ``zeros`` the weights of the pixels that are there are renormalised; even where these are all 0.
    """
    frame = continued(x, kernel, stride, padding_mode)
    windows = Windows(kernel, stride, frame.size)
    if frame.outside is None:
        return weigh_taps(frame.padded, windows, None, weights.tolist())
    places = place_weights(weights, frame.outside.flatten(1).T).T.unflatten(1, frame.size)
    return weigh_taps(frame.padded, windows, None, places[:, None, None].to(x))


def place_weights(weights: Tensor, outside: Tensor) -> Tensor:
    """Weights ``(n,)`` over the pixels of each window that are there: ``(L, n)`` from ``outside (L, n)``."""
    inside = (~outside).to(weights)
    kept = inside * weights
    total = kept.sum(-1, keepdim=True)
    return torch.where(total > 0, kept, inside) / torch.where(total > 0, total, inside.sum(-1, keepdim=True))


class Kernel(PoolingOperator):
    """``sum_p k_p x_p``: one fixed weight per place of the window, row-major. See :func:`place_pool`.

    Raises:
        OperatorError: for weights that are not one per pixel of the window, are negative, or do not sum to 1.
    """

    name = "kernel"

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        k: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25),
        kernel: int | None = None,
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.k = tuple(k)
        self.place_weights()

    def place_weights(self) -> Tensor:
        """``k`` in float64, with a sum of 1."""
        return checked_weights("kernel", "k", self.k, self.kernel**2)

    def pool(self, x: Tensor) -> Tensor:
        return place_pool(x, self.place_weights(), self.kernel, self.stride, self.padding_mode)

    def weigh(self, values: Tensor, outside: Tensor) -> Tensor:
        return place_weights(self.place_weights().to(values), outside)[None, None]


def gaussian_kernel(sigma: float) -> Tensor:
    """The sampled Gaussian ``exp(-(i^2 + j^2) / (2 sigma^2))`` cut off at 3 sigma, with a sum of 1, in float64."""
    reach = math.ceil(GAUSS_REACH * sigma)
    line = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
    square = line[:, None] * line[None, :]
    return square / square.sum()


class Gauss(Downsample):
    """Gaussian low pass, then every ``s``-th row and column: aliasing alone, by one knob.

    ``y[u, v] = sum K[p, q] x~[s u + p, s v + q]`` with :func:`gaussian_kernel`, continued at the border by the padding
    mode (``zeros`` are values there, as for ``blur``).

    Raises:
        OperatorError: for a ``sigma`` that is not above 0.
    """

    name = "gauss"
    strength_argument = "sigma"
    filter: Tensor

    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros", sigma: float = 1.0) -> None:
        super().__init__(channels, stride, padding_mode)
        if not 0 < sigma < math.inf:
            raise OperatorError(f"gauss: sigma is {sigma}, and must be above 0")
        self.sigma = float(sigma)
        self.register_buffer("filter", gaussian_kernel(self.sigma).float(), persistent=False)

    @property
    def reach(self) -> int:
        """Pixels of the filter on each side of its middle."""
        return self.filter.shape[0] // 2

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        self.check(x)
        r = self.reach
        filters = gaussian_kernel(self.sigma).to(x).expand(x.shape[1], 1, -1, -1)
        return F.conv2d(pad(x, r, r, r, r, self.padding_mode), filters, stride=self.stride, groups=x.shape[1])

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        self.check(x)
        size, r = (x.shape[-2], x.shape[-1]), self.reach
        index = tap_index(
            size,
            output_size(size, self.stride),
            (2 * r + 1, 2 * r + 1),
            (self.stride, self.stride),
            (r, r),
            padding_mode=self.padding_mode,
            outputs=outputs,
            after=(r, r),
        )
        return Taps(index.to(x.device), gaussian_kernel(self.sigma).to(x).view(1, 1, 1, -1))

    def multiply_adds(self, size: tuple[int, int], *, chosen: bool = False) -> int:
        """Those of the filter, per output."""
        return self.outputs(size) * (2 * self.reach + 1) ** 2


class Phase(Downsample):
    """One fixed phase, ``P_ij x``: every ``s``-th row from ``i`` and column from ``j`` on; ``subsample`` is (0, 0).

    Raises:
        OperatorError: for an ``i`` or ``j`` outside of the stride cell.
    """

    name = "phase"

    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros", i: int = 0, j: int = 0) -> None:
        super().__init__(channels, stride, padding_mode)
        if not (0 <= i < self.stride and 0 <= j < self.stride):
            raise OperatorError(f"phase: ({i}, {j}) is no phase of stride {stride}: take 0 to {stride - 1}")
        self.i, self.j = i, j

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        self.check(x)
        return pad_to_multiple(x, self.stride, self.padding_mode)[..., self.i :: self.stride, self.j :: self.stride]

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        self.check(x)
        size, square = (x.shape[-2], x.shape[-1]), (self.stride, self.stride)
        index = tap_index(
            size, output_size(size, self.stride), square, square, padding_mode=self.padding_mode, outputs=outputs
        )
        weights = torch.zeros(self.stride**2, dtype=x.dtype, device=x.device)
        weights[self.i * self.stride + self.j] = 1
        return Taps(index.to(x.device), weights.view(1, 1, 1, -1))
