"""Noise: Gaussian, shot (Poisson) and impulse (salt and pepper). Images ``(N, C, H, W)`` in [0, 1], float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Draws = Sequence[np.random.Generator]


def gaussian_noise(x: np.ndarray, sigma: float, draws: Draws) -> np.ndarray:
    """``x + sigma z``, ``z`` standard normal."""
    return x + sigma * np.stack([draw.normal(size=x.shape[1:]) for draw in draws])


def shot_noise(x: np.ndarray, photons: float, draws: Draws) -> np.ndarray:
    """``Poisson(x photons) / photons``."""
    return np.stack([draw.poisson(image * photons) for draw, image in zip(draws, x, strict=True)]) / photons


def impulse_noise(x: np.ndarray, amount: float, draws: Draws) -> np.ndarray:
    """A share ``amount`` of the values is 0 or 1 instead, either as often; each channel on its own."""
    made = x.copy()
    for image, draw in zip(made, draws, strict=True):
        hit = draw.random(image.shape) < amount
        image[hit] = (draw.random(image.shape) < 0.5)[hit]
    return made
