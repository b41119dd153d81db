"""Operators whose weights are fixed by place: any non-negative kernel, a Gaussian low pass, one phase of the grid.

They do not look at the values: their chance-corrected MSB is 0, whatever they alias and wherever they sample.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from invariscope.base.errors import OperatorError
from invariscope.zoo.operators.base import Downsample, output_size
from invariscope.zoo.operators.pooling import PoolingOperator, subsample
from invariscope.zoo.operators.taps import WindowWeights
from invariscope.zoo.operators.windowed import checked_weights, clipped_places, window_pool
from invariscope.zoo.sampling import Taps, pad, tap_index

GAUSS_REACH = 3.0
"""Standard deviations at which a sampled Gaussian is cut off."""


class Kernel(PoolingOperator):
    """``sum_p k_p x_p``: one fixed weight per place of the window, row-major; even ones by default.

    See :func:`invariscope.zoo.operators.windowed.window_pool`.

    Raises:
        OperatorError: for weights that are not one per pixel of the window, are negative, or do not sum to 1.
    """

    name = "kernel"
    examples = (
        {"k": (0.1, 0.2, 0.3, 0.4), "kernel": 2},
        {"k": (0.05, 0.1, 0.0, 0.2, 0.3, 0.0, 0.15, 0.1, 0.1), "kernel": 3},
    )

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        k: tuple[float, ...] | None = None,
        kernel: int | None = None,
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.k = None if k is None else tuple(k)
        self.place_weights()

    def place_weights(self) -> Tensor:
        """``k`` in float64, with a sum of 1."""
        return checked_weights("kernel", "k", self.k, self.kernel**2)

    def window_weights(self) -> WindowWeights:
        return WindowWeights(self.kernel, places=((1.0, self.place_weights()),))

    def pool(self, x: Tensor) -> Tensor:
        return window_pool(x, self.window_weights(), self.stride, self.padding_mode)

    def weigh(self, values: Tensor, outside: Tensor) -> Tensor:
        return clipped_places(self.place_weights().to(values), outside)[None, None]


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
    examples = ({"sigma": 0.5},)
    keeps_max = True

    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros", sigma: float = 1.0) -> None:
        super().__init__(channels, stride, padding_mode)
        if not 0 < sigma < math.inf:
            raise OperatorError(f"gauss: sigma is {sigma}, and must be above 0")
        self.sigma = float(sigma)
        self.reach = math.ceil(GAUSS_REACH * self.sigma)
        """Pixels of the filter on each side of its middle."""

    def support(self) -> tuple[int, int]:
        return 2 * self.reach + 1, 2 * self.reach + 1

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

    At stride 1, where there is one phase alone, it is the map of which a stride above ``i`` and ``j`` takes the phase:
    the input moved up by ``i`` and left by ``j`` pixels.

    Raises:
        OperatorError: for an ``i`` or ``j`` outside of the stride cell.
    """

    name = "phase"
    examples = ({"i": 1}, {"i": 1, "j": 1})
    keeps_max = True

    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros", i: int = 0, j: int = 0) -> None:
        super().__init__(channels, stride, padding_mode)
        self.at_least(0, i=i, j=j)
        if self.stride > 1 and max(i, j) >= self.stride:
            raise OperatorError(f"phase: ({i}, {j}) is no phase of stride {stride}: take 0 to {stride - 1}")
        self.i, self.j = i, j

    def support(self) -> tuple[int, int]:
        return 1, 1

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        self.check(x)
        right, bottom = self._after((x.shape[-2], x.shape[-1]))
        rows, columns = output_size((x.shape[-2], x.shape[-1]), self.stride)
        padded = pad(x, 0, right, 0, bottom, self.padding_mode)
        return subsample(padded[..., self.i :, self.j :], self.stride)[..., :rows, :columns]

    def _after(self, size: tuple[int, int]) -> tuple[int, int]:
        """Pixels by which the map is continued at the right and the bottom."""
        if self.stride == 1:
            return self.j, self.i
        return -size[1] % self.stride, -size[0] % self.stride

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        self.check(x)
        size, stride = (x.shape[-2], x.shape[-1]), (self.stride, self.stride)
        right, bottom = self._after(size)
        index = tap_index(
            size,
            output_size(size, self.stride),
            (1, 1),
            stride,
            (-self.i, -self.j),
            padding_mode=self.padding_mode,
            outputs=outputs,
            after=(bottom, right),
        )
        return Taps(index.to(x.device), x.new_ones(1, 1, 1, 1))
