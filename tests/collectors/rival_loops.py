"""The rival explanations as plain loops in float64, from the definitions and from nothing else."""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Callable

import numpy as np

Map = np.ndarray
Operator = Callable[[Map], Map]
"""A map ``(H, W)`` of one channel to its output ``(H', W')``."""


def rolled(image: Map, axis: int, steps: int) -> Map:
    out = np.empty_like(image)
    for i, j in itertools.product(*map(range, image.shape)):
        to = [i, j]
        to[axis] = (to[axis] + steps) % image.shape[axis]
        out[to[0], to[1]] = image[i, j]
    return out


def shifted(line: list[float], u: float) -> list[float]:
    """A periodic line shifted by ``u`` samples, by its Fourier series; the Nyquist term stays real."""
    n = len(line)
    found = [0.0] * n
    for k in range(n):
        frequency = k if k <= n // 2 else k - n
        coefficient = sum(line[m] * cmath.exp(-2j * math.pi * frequency * m / n) for m in range(n)) / n
        for m in range(n):
            if 2 * abs(frequency) == n:
                found[m] += (coefficient * math.cos(math.pi * u) * math.cos(math.pi * m)).real
            else:
                found[m] += (coefficient * cmath.exp(2j * math.pi * frequency * (m - u) / n)).real
    return found


def moved(image: Map, axis: int, u: float) -> Map:
    lines = image if axis == 1 else image.T
    out = np.array([shifted(list(line), u) for line in lines])
    return out if axis == 1 else out.T


def see(images: Map, whole: Callable[[Map], Map], stride: tuple[int, int]) -> float:
    """``images (N, C, H, W)``; ``whole`` takes one image ``(C, H, W)``, so that it can choose over its channels."""
    ratios = []
    still = [whole(image) for image in images]
    spread = sum(((channel - channel.mean()) ** 2).sum() for image in still for channel in image)
    for axis in (0, 1):
        for t in range(1, stride[axis]):
            total = 0.0
            for image, before in zip(images, still, strict=True):
                after = whole(np.stack([rolled(channel, axis, t) for channel in image]))
                each = []
                for u in range(stride[axis] + 1):
                    pairs = zip(before, after, strict=True)
                    each.append(sum(((moved(a, axis, u / stride[axis]) - b) ** 2).sum() for a, b in pairs))
                total += min(each)
            ratios.append(total / spread)
    return math.sqrt(sum(ratios) / len(ratios))


def aliasing(dense: Map, stride: tuple[int, int]) -> float:
    """``dense (N, C, H, W)``; the transform is a sum over pixels."""
    folded = whole = 0.0
    height, width = dense.shape[2:]
    for image in dense.reshape(-1, height, width):
        image = image - image.mean()
        for k, m in itertools.product(range(height), range(width)):
            value = sum(
                image[i, j] * cmath.exp(-2j * math.pi * (k * i / height + m * j / width))
                for i, j in itertools.product(range(height), range(width))
            )
            share = 0.0
            for bin_, size, step in ((k, height, stride[0]), (m, width, stride[1])):
                if step > 1:
                    distance = min(bin_, size - bin_) * 2 * step
                    share = max(share, 1.0 if distance > size else 0.5 if distance == size else 0.0)
            folded += share * abs(value) ** 2
            whole += abs(value) ** 2
    return folded / whole


def selectivity_and_position(images: Map, weights: Callable[[Map, int, int], dict], out: tuple[int, int]):
    """``weights(image, u, v)``: the window of an output as ``(place, pixel) -> weight``, every pixel of it."""
    selectivity, count = 0.0, 0
    mean: dict = {}
    uniform: dict = {}
    for image in images.reshape(-1, *images.shape[2:]):
        for u, v in itertools.product(range(out[0]), range(out[1])):
            window = weights(image, u, v)
            values = {float(image[pixel]) for _, pixel in window}
            if len(values) == 1:
                continue
            size = len(window)
            count += 1
            selectivity += (sum(w * w for w in window.values()) - 1 / size) / (1 - 1 / size)
            for (place, _), weight in window.items():
                mean[place] = mean.get(place, 0.0) + weight
                uniform[place] = uniform.get(place, 0.0) + 1 / size
    apart = sum(abs(mean[place] - uniform[place]) for place in mean) / 2
    return selectivity / count, apart / count


def jacobian_share(image: Map, pixels: list[tuple[int, int]], output: Callable[[Map], float], step: float) -> float:
    """The chance-corrected share of the derivative on the maximum of a window, by differences."""
    rows = []
    for pixel in pixels:
        up, down = image.copy(), image.copy()
        up[pixel] += step
        down[pixel] -= step
        rows.append(abs(output(up) - output(down)) / (2 * step))
    top = max(image[pixel] for pixel in pixels)
    on = [row for row, pixel in zip(rows, pixels, strict=True) if image[pixel] == top]
    chance = len(on) / len(pixels)
    return (sum(on) / sum(rows) - chance) / (1 - chance)


def drift(still: Map, moved: Map) -> float:
    """``still (N, C)``, ``moved (N, K, C)``."""
    n, shifts = moved.shape[:2]
    mean = [sum(still[m, c] for m in range(n)) / n for c in range(still.shape[1])]
    spread = sum((still[m, c] - mean[c]) ** 2 for m in range(n) for c in range(still.shape[1]))
    total = sum(
        (moved[m, k, c] - still[m, c]) ** 2 for m in range(n) for k in range(shifts) for c in range(still.shape[1])
    )
    return total / shifts / spread
