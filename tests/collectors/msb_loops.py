"""The readings of MSB as plain Python loops over windows, from the definitions and from nothing else."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor, nn

Pixel = tuple[int, int]
Sources = list[tuple[Pixel | None, float]]
"""The taps of one output: source pixel (None in zero padding) and weight, copies listed one by one."""
Sampler = Callable[[np.ndarray, int, int], Sources]
"""(map (H, W), u, v) -> what output (u, v) is made of."""

CHECKED = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.differing_executors]
)
MODES = ("zeros", "reflect", "replicate", "circular")


def source(position: int, size: int, mode: str) -> int | None:
    """Where a position of the continued axis comes from."""
    if 0 <= position < size:
        return position
    if mode == "zeros":
        return None
    if mode == "circular":
        return position % size
    if mode == "replicate":
        return 0 if position < 0 else size - 1
    return -position if position < 0 else 2 * (size - 1) - position


def grid(
    shape: tuple[int, ...], u: int, v: int, kernel: Pixel, stride: Pixel, before: Pixel, dilation: Pixel, mode: str
) -> list[Pixel | None]:
    """The source pixel of every kernel position of output (u, v), row by row."""
    found: list[Pixel | None] = []
    for i, j in itertools.product(range(kernel[0]), range(kernel[1])):
        h = source(stride[0] * u - before[0] + dilation[0] * i, shape[0], mode)
        w = source(stride[1] * v - before[1] + dilation[1] * j, shape[1], mode)
        found.append(None if h is None or w is None else (h, w))
    return found


def share_of_maximum(values: list[float]) -> list[float]:
    top = max(values)
    if top == -math.inf:
        return [0.0] * len(values)
    hits = [float(value == top) for value in values]
    return [hit / sum(hits) for hit in hits]


def at(image: np.ndarray, pixel: Pixel | None, outside: float) -> float:
    return outside if pixel is None else float(image[pixel])


def binomial(m: int) -> list[float]:
    line = [math.comb(m - 1, n) / 2 ** (m - 1) for n in range(m)]
    return [a * b for a in line for b in line]


@dataclass
class Counts:
    windows: int = 0
    flat: int = 0
    equal: int = 0
    weight: float = 0.0
    top: float = 0.0
    corrected: float = 0.0

    def readings(self) -> dict[str, float]:
        mixed = self.windows - self.flat
        if not mixed:
            return dict.fromkeys(("msb", "msb_all", "msb_weight", "msb_top", "msb_corrected"), math.nan)
        return {
            "msb": self.equal / mixed,
            "msb_all": (self.equal + self.flat) / self.windows,
            "msb_weight": self.weight / mixed,
            "msb_top": self.top / mixed,
            "msb_corrected": self.corrected / mixed,
        }


def count(x: np.ndarray, y: np.ndarray, stride: Pixel, sampler: Sampler, origin: Pixel = (0, 0)) -> Counts:
    """Every window of every image and channel, one after the other."""
    counts = Counts()
    for n, c in itertools.product(range(x.shape[0]), range(x.shape[1])):
        image = x[n, c]
        for u, v in itertools.product(range(y.shape[2]), range(y.shape[3])):
            weights: dict[Pixel, float] = defaultdict(float)
            for pixel, weight in sampler(image, u, v):
                if pixel is not None:
                    weights[pixel] += weight
            if not sum(weights.values()) > 0:
                continue
            for i, j in itertools.product(range(stride[0]), range(stride[1])):
                cell = (origin[0] + stride[0] * u + i, origin[1] + stride[1] * v + j)
                if cell[0] < image.shape[0] and cell[1] < image.shape[1]:
                    weights[cell] += 0.0
            add(counts, image, weights, float(y[n, c, u, v]))
    return counts


def add(counts: Counts, image: np.ndarray, weights: dict[Pixel, float], output: float) -> None:
    counts.windows += 1
    values = {pixel: float(image[pixel]) for pixel in weights}
    maximum = max(values.values())
    if min(values.values()) == maximum:
        counts.flat += 1
        return
    total = math.fsum(weights.values())
    on_maximum = [pixel for pixel in weights if values[pixel] == maximum]
    mass = math.fsum(weights[pixel] for pixel in on_maximum) / total
    chance = len(on_maximum) / len(weights)
    greatest = max(weights.values())
    best = [pixel for pixel in weights if math.isclose(weights[pixel], greatest, rel_tol=1e-13)]
    counts.equal += output == maximum
    counts.weight += mass
    counts.top += sum(pixel in on_maximum for pixel in best) / len(best)
    counts.corrected += (mass - chance) / (1 - chance)


def agree(frame: pd.DataFrame, counts: Counts, row: int = 0) -> None:
    measured = frame.iloc[row]
    mixed = counts.windows - counts.flat
    assert measured["n_windows"] == counts.windows
    if counts.windows:
        assert measured["flat_fraction"] * counts.windows == pytest.approx(counts.flat, abs=1e-9)
    if mixed:
        assert measured["msb"] * mixed == pytest.approx(counts.equal, abs=1e-9)
    for name, value in counts.readings().items():
        assert measured[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name


def images(draw: st.DrawFn, channels: int = 2, least: int = 1, most: int = 7) -> Tensor:
    """Two images of small integers: ties everywhere."""
    height, width = (draw(st.integers(least, most)) for _ in range(2))
    spread = draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.randint(-spread, spread + 1, (2, channels, height, width), generator=generator).double()


class Call(nn.Module):
    """A function as a network."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def pairs(low: int, high: int) -> st.SearchStrategy[Pixel]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


def downsampled(x: Tensor, y: Tensor, stride: Pixel) -> bool:
    return max(stride) > 1 and y.numel() > 0 and (y.shape[-2] < x.shape[-2] or y.shape[-1] < x.shape[-1])
