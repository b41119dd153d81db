"""How an output depends on the pixels of its window: the row of the Jacobian, and its share on the maximum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.sampling import pick, take

Array = npt.NDArray[np.float64]

AT_ZERO = 1e-200
"""What stands for pixels that are 0, so that the derivative of ReLU there counts as 1."""

MOST_CHANNELS = 8
"""Channels of which rows are taken, where an output depends on other channels than its own."""


def derivative_rows(
    run: Callable[[Tensor], Tensor], x: Tensor, outputs: Tensor, pixels: Tensor, channels: Tensor
) -> Tensor:
    """``|dy_o / dx_w|`` for the pixels ``w`` of some outputs' windows, of the output's own channel: ``(n, c, M, L)``.

    Args:
        run: a site's function, ``(n, C, H, W)`` to ``(n, C, H', W')``.
        x: the map, in float64.
        outputs: ``(L,)`` flat indices of outputs whose windows have no pixel in common.
        pixels: ``(L, M)`` flat pixels of each window, -1 for none.
        channels: ``(c,)`` of the outputs; one, where an output depends on other channels than its own.
    """
    with torch.enable_grad():
        given = torch.where(x == 0, AT_ZERO, x).requires_grad_()
        wanted = run(given)[:, channels].flatten(2)[:, :, outputs]
        (gradient,) = torch.autograd.grad(wanted.sum(), given)
    index = pixels.T
    rows = pick(gradient[:, channels].flatten(2).abs(), index.clamp(min=0))
    return rows.masked_fill(index < 0, 0)


def apart(pixels: Tensor, out: tuple[int, int], generator: np.random.Generator) -> Tensor:
    """Outputs whose windows ``pixels (L, M)`` have no pixel in common: every q-th along both axes from a random one."""
    number = torch.arange(out[0] * out[1]).view(out)
    for step in range(1, max(out) + 1):
        first = [int(generator.integers(min(step, size))) for size in out]
        chosen = number[first[0] :: step, first[1] :: step].flatten()
        taken = pixels[chosen.to(pixels.device)]
        taken = taken[taken >= 0]
        if len(taken.unique()) == len(taken):
            return chosen
    return number.flatten()[:1]


def maximum_share(values: Tensor, rows: Tensor, size: Tensor) -> tuple[Array, Array]:
    """Per image the sum of the chance-corrected share of rows on the maximum, and the windows that it is over.

    ``(share - t/|W|) / (1 - t/|W|)`` with ``t`` tied maxima, over windows that are not flat and whose row is not 0.

    Args:
        values: ``(n, C, M, L)``, minus infinity where a window has no such pixel.
        rows: of the same shape, not negative.
        size: ``(L,)``, pixels of each window.
    """
    hit = values == values.amax(2, keepdim=True)
    ties, whole = hit.sum(2).double(), rows.sum(2)
    counted = (whole > 0) & (ties < size)
    share = (rows * hit).sum(2) / whole
    corrected = torch.where(counted, (share * size - ties) / (size - ties), 0.0)
    return corrected.sum((1, 2)).cpu().numpy(), counted.sum((1, 2)).double().cpu().numpy()


class Held(nn.Module):
    """An operator that is part of another, as the sum under its sampling weights, which are held fixed."""

    def __init__(self, part: Downsample) -> None:
        super().__init__()
        self.part = part
        self.shares_selection = False
        self.selection: Tensor | None = None

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        """``(N, C, H, W) -> (N, C, H', W')``."""
        taps = self.part.sampling(x.detach())
        height = -(-x.shape[2] // self.part.stride)
        return (take(x, taps.index) * taps.weights).sum(-1).unflatten(2, (height, -1))


def held(operator: Downsample, x: Tensor) -> Downsample:
    """The operator, those of its parts whose weights are of a whole image held fixed; ``x`` is an example.

    It is changed, and returned.
    """
    for parent in list(nn.Module.modules(operator)):
        for name, child in list(parent._modules.items()):
            if isinstance(child, Downsample) and child.sampling(x).weights.shape[2] == 1:
                setattr(parent, name, Held(child))
                if isinstance(parent, Downsample):
                    parent.shares_selection = False  # nothing is chosen any more
    return operator


def mixes_channels(run: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether an output of one channel depends on other channels of ``x (1, C, H, W)``."""
    with torch.enable_grad():
        given = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(run(given)[:, 0].sum(), given)
    return bool((gradient[:, 1:] != 0).any())
