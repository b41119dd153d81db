"""An operator: the last pixel of each stride cell, where subsampling takes the first."""

from __future__ import annotations

import torch
from torch import Tensor

from invariscope.zoo.operators.base import Downsample, output_size
from invariscope.zoo.sampling import Taps


class FarCorner(Downsample):
    """``y[i, j] = x[min(s i + s - 1, H - 1), min(s j + s - 1, W - 1)]``."""

    name = "farcorner"

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        self.check(x)
        rows, columns = self._places(x)
        return x[..., rows[:, None], columns]

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        self.check(x)
        rows, columns = self._places(x)
        index = (rows[:, None] * x.shape[-1] + columns).flatten()
        return Taps((index if outputs is None else index[outputs])[:, None], x.new_ones(1, 1, 1, 1))

    def _places(self, x: Tensor) -> list[Tensor]:
        sizes = (x.shape[-2], x.shape[-1])
        counts = output_size(sizes, self.stride)
        steps = [torch.arange(count, device=x.device) * self.stride + self.stride - 1 for count in counts]
        return [places.clamp(max=size - 1) for places, size in zip(steps, sizes, strict=True)]
