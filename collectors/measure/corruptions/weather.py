"""Weather: snow, frost and fog. Images ``(N, C, H, W)`` in [0, 1], float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from invariscope.collectors.measure.corruptions.blur import along, enlarge

Draws = Sequence[np.random.Generator]

_GREY = np.array([0.299, 0.587, 0.114])[:, None, None]
_FROST_TINT = np.array([0.88, 1.02, 1.10])[:, None, None]
"""Red, green and blue of frost, in shares of its brightness: measured on the published photographs, on average."""


def snow(x: np.ndarray, constants: tuple[float, ...], draws: Draws) -> np.ndarray:
    """Flakes falling along a direction, twice, on a whitened image.

    ``(mean, sigma, zoom, threshold, radius, motion sigma, keep)``: normal noise is enlarged, cut below the threshold
    and blurred along -135 to -45 degrees; ``x`` becomes ``keep x + (1 - keep) max(x, 1.5 grey + 0.5)``, and the flakes
    are added as they are and turned by 180 degrees.
    """
    mean, sigma, zoom, threshold, radius, motion, keep = constants
    noise = np.stack([draw.normal(mean, sigma, (1, *x.shape[-2:])) for draw in draws])
    flakes = enlarge(noise, zoom)
    flakes = np.floor(np.clip(np.where(flakes < threshold, 0, flakes), 0, 1) * 255) / 255
    fallen = [
        along(layer, int(radius), motion, draw.uniform(-135, -45)) for layer, draw in zip(flakes, draws, strict=True)
    ]
    layer = np.round(np.stack(fallen) * 255) / 255
    grey = (x * _GREY).sum(1, keepdims=True) if x.shape[1] == 3 else x
    white = keep * x + (1 - keep) * np.maximum(x, 1.5 * grey + 0.5)
    return white + layer + layer[..., ::-1, ::-1]


def fog(x: np.ndarray, constants: tuple[float, float], draws: Draws) -> np.ndarray:
    """``(x + t p) m / (m + t)`` with ``(t, decay)``, ``p`` a :func:`plasma` and ``m`` the image's greatest value."""
    thickness, decay = constants
    greatest = x.max(axis=(1, 2, 3), keepdims=True)
    cloud = _clouds(x.shape, decay, draws)
    return (x + thickness * cloud) * greatest / (greatest + thickness)


def frost(x: np.ndarray, constants: tuple[float, float], draws: Draws) -> np.ndarray:
    """``keep x + cover f`` with ``(keep, cover)``, the published formula, and a procedural texture ``f``.

    ``f`` has a mean from 0.35 to 0.8 and a deviation of 0.13, as the published photographs: a cloud and needles, which
    are normal noise blurred along two directions.
    """
    keep, cover = constants
    textures = [_texture(cloud[0], draw) for cloud, draw in zip(_clouds(x.shape, 1.8, draws), draws, strict=True)]
    texture = np.stack(textures)[:, None]
    return keep * x + cover * np.clip(texture * _FROST_TINT if x.shape[1] == 3 else texture, 0, 1)


def _texture(cloud: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """``(H, W)``, in [0, 1]."""
    reach = max(min(cloud.shape) // 16, 2)
    needles = np.zeros_like(cloud)
    for angle in draw.uniform(0, 360, 2):
        needles += along(draw.normal(size=(1, *cloud.shape)), reach, float(reach), angle)[0]
    mixed = sum((part - part.mean()) / (part.std() or 1.0) for part in (cloud, needles))
    return np.clip(draw.uniform(0.35, 0.8) + 0.13 * mixed / np.sqrt(2), 0, 1)


def _clouds(shape: tuple[int, ...], decay: float, draws: Draws) -> np.ndarray:
    """A :func:`plasma` for each image, cut to its size: ``(N, 1, H, W)``."""
    height, width = shape[-2:]
    side = 1 << max(max(height, width) - 1, 1).bit_length()
    return plasma(side, decay, draws)[:, None, :height, :width]


def plasma(side: int, decay: float, draws: Draws) -> np.ndarray:
    """Plasma fractals by the diamond-square rule on a torus: ``(N, side, side)`` from 0 to 1, ``side`` a power of 2.

    Each midpoint is the mean of its four neighbours and uniform noise, whose reach is divided by ``decay`` from one
    scale to the next, twice finer one.
    """
    heights = np.zeros((len(draws), side, side))
    reach, step = 100.0**2, side
    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        rows = corners + np.roll(corners, -1, axis=1)
        heights[:, half::step, half::step] = _midpoints(rows + np.roll(rows, -1, axis=2), reach, draws)
        centres = heights[:, half::step, half::step]
        across = centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=2)
        down = centres + np.roll(centres, 1, axis=2) + corners + np.roll(corners, -1, axis=1)
        heights[:, ::step, half::step] = _midpoints(across, reach, draws)
        heights[:, half::step, ::step] = _midpoints(down, reach, draws)
        step, reach = half, reach / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    greatest: np.ndarray = heights.max(axis=(1, 2), keepdims=True)
    return heights / np.where(greatest > 0, greatest, 1)


def _midpoints(sums: np.ndarray, reach: float, draws: Draws) -> np.ndarray:
    noise = np.stack([draw.uniform(-reach, reach, sums.shape[1:]) for draw in draws])
    return sums / 4 + noise
