"""Blur: defocus, frosted glass, motion and zoom. Images ``(N, C, H, W)`` in [0, 1], float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, signal

Draws = Sequence[np.random.Generator]


def disk(radius: float, sigma: float) -> np.ndarray:
    """A disk of a radius in pixels, sum 1, blurred by a Gaussian of 3 taps (5 above radius 8), borders reflected."""
    reach = 8 if radius <= 8 else math.ceil(radius)
    half = 1 if radius <= 8 else 2
    ticks = np.arange(-reach, reach + 1)
    inside = (ticks[:, None] ** 2 + ticks**2 <= radius**2).astype(np.float64)
    taps = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    smooth = ndimage.correlate1d(inside / inside.sum(), taps, axis=0, mode="mirror")
    smoothed: np.ndarray = ndimage.correlate1d(smooth, taps, axis=1, mode="mirror")
    return smoothed


def defocus_blur(x: np.ndarray, constants: tuple[float, float], draws: Draws) -> np.ndarray:
    """Correlation with :func:`disk` of ``(radius, sigma)``, borders reflected about the outermost pixel."""
    kernel = disk(*constants)
    half = len(kernel) // 2
    padded = np.pad(x, ((0, 0), (0, 0), (half, half), (half, half)), mode="reflect")
    # The kernel is its own mirror image: correlation and convolution are the same.
    made: np.ndarray = signal.fftconvolve(padded, kernel[None, None], mode="valid", axes=(2, 3))
    return made


def gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of each plane: 4 standard deviations, the border repeated."""
    blurred: np.ndarray = ndimage.gaussian_filter(x, (0, 0, sigma, sigma), mode="nearest", truncate=4)
    return blurred


def glass_blur(x: np.ndarray, constants: tuple[float, int, int], draws: Draws) -> np.ndarray:
    """Blur, pixels taken from random neighbours, blur again: ``(sigma, reach, rounds)``.

    From the lower right to the upper left each pixel becomes the one ``(dy, dx)`` away, each from ``-reach`` to
    ``reach - 1``. The published script means to exchange the two, and copies: an exchange of numpy views does.
    """
    sigma, reach, rounds = constants
    pixels = np.floor(gaussian(x, sigma) * 255 + 1e-6)
    height, width = x.shape[-2:]
    each = np.arange(len(x))
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    shape = (rounds, len(rows), len(columns), 2)
    away = np.stack([draw.integers(-reach, reach, size=shape) for draw in draws], axis=-1)
    for of_round in away:
        for row, of_row in zip(rows, of_round, strict=True):
            for column, (dx, dy) in zip(columns, of_row, strict=True):
                pixels[:, :, row, column] = pixels[each, :, row + dy, column + dx]
    return gaussian(pixels / 255, sigma)


def motion_blur(x: np.ndarray, constants: tuple[int, float], draws: Draws) -> np.ndarray:
    """Motion by :func:`along` of ``(radius, sigma)`` in a direction from -45 to 45 degrees."""
    radius, sigma = constants
    return np.stack([along(image, radius, sigma, draw.uniform(-45, 45)) for image, draw in zip(x, draws, strict=True)])


def along(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """``sum_i w_i`` of the image moved by ``i`` pixels at an angle in degrees, ``i = 0 .. 2 radius``: ``(C, H, W)``.

    ``w_i`` is proportional to ``exp(-i² / (2 sigma²))``: one-sided, as ImageMagick's motion blur; the border repeats.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    down = np.ceil(steps * math.sin(math.radians(angle)) - 0.5).astype(int)
    right = np.ceil(steps * math.cos(math.radians(angle)) - 0.5).astype(int)
    height, width = image.shape[-2:]
    made = np.zeros_like(image)
    for weight, dy, dx in zip(weights, down, right, strict=True):
        rows = np.clip(np.arange(height) + dy, 0, height - 1)
        columns = np.clip(np.arange(width) + dx, 0, width - 1)
        made += weight * image[:, rows[:, None], columns]
    return made


def zoom_blur(x: np.ndarray, zooms: tuple[float, ...], draws: Draws) -> np.ndarray:
    """The mean of the image and of its enlargements (:func:`enlarge`)."""
    return (x + sum(enlarge(x, zoom) for zoom in zooms)) / (len(zooms) + 1)


def enlarge(x: np.ndarray, zoom: float) -> np.ndarray:
    """The centre, ``1 / zoom`` of each side, enlarged bilinearly to the image's size; corners stay corners."""
    import torch
    from torch.nn import functional as F

    sides = x.shape[-2:]
    inner = [math.ceil(side / zoom) for side in sides]
    (top, left), (height, width) = [(side - part) // 2 for side, part in zip(sides, inner, strict=True)], inner
    size = [round(part * zoom) for part in inner]
    centre = torch.from_numpy(np.ascontiguousarray(x[..., top : top + height, left : left + width]))
    large = F.interpolate(centre, size, mode="bilinear", align_corners=True).numpy()
    top, left = ((part - side) // 2 for side, part in zip(sides, size, strict=True))
    enlarged: np.ndarray = large[..., top : top + sides[0], left : left + sides[1]]
    return enlarged
