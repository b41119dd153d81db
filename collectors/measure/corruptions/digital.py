"""Brightness, contrast, elastic transform, pixelation and JPEG. Images ``(N, C, H, W)`` in [0, 1], float64."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

Draws = Sequence[np.random.Generator]


def brightness(x: np.ndarray, more: float, draws: Draws) -> np.ndarray:
    """The value of HSV, the greatest channel, raised by ``more`` up to 1; hue and saturation stay."""
    value = x.max(axis=1, keepdims=True)
    raised = np.clip(value + more, 0, 1)
    return np.where(value > 0, x * raised / np.where(value > 0, value, 1), raised)


def contrast(x: np.ndarray, share: float, draws: Draws) -> np.ndarray:
    """Each channel drawn towards its mean: ``mean + share (x - mean)``."""
    mean = x.mean(axis=(2, 3), keepdims=True)
    return mean + share * (x - mean)


def elastic_transform(x: np.ndarray, constants: tuple[float, float, float], draws: Draws) -> np.ndarray:
    """A random affine map, then displacements that vary smoothly: ``(alpha, sigma, reach)`` in shares of the side.

    The affine map sends three points around the centre to points up to ``reach`` away; the displacements are uniform
    noise in [-1, 1], blurred by ``sigma`` and multiplied by ``alpha``. Both interpolate linearly.
    """
    alpha, sigma, reach = (share * min(x.shape[-2:]) for share in constants)
    return np.stack([_elastic(image, alpha, sigma, reach, draw) for image, draw in zip(x, draws, strict=True)])


def _elastic(image: np.ndarray, alpha: float, sigma: float, reach: float, draw: np.random.Generator) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, image.shape[-2:]), indexing="ij")).astype(np.float64)
    turned = _sample(image, _affine(image.shape[-2:], reach, draw, grid), "mirror")
    noise = draw.uniform(-1, 1, (2, *image.shape[-2:]))
    away = alpha * ndimage.gaussian_filter(noise, (0, sigma, sigma), mode="reflect", truncate=3)
    return _sample(turned, grid + away, "reflect")


def _affine(sides: tuple[int, ...], reach: float, draw: np.random.Generator, grid: np.ndarray) -> np.ndarray:
    """Where each pixel of the mapped image comes from: ``(2, H, W)``, rows and columns."""
    centre, part = np.array(sides) // 2, min(sides) // 3
    points = centre + part * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + draw.uniform(-reach, reach, points.shape)
    # The map back, from moved to points, is the solution of three equations for each coordinate.
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), points)
    return np.einsum("ij,ihw->jhw", back[:2], grid) + back[2][:, None, None]


def _sample(image: np.ndarray, places: np.ndarray, mode: str) -> np.ndarray:
    return np.stack([ndimage.map_coordinates(plane, places, order=1, mode=mode) for plane in image])


def pixelate(x: np.ndarray, share: float, draws: Draws) -> np.ndarray:
    """Made smaller, to a ``share`` of each side, and larger again; each pixel is a mean over the area it covers."""
    height, width = x.shape[-2:]
    small = (max(int(width * share), 1), max(int(height * share), 1))

    def there_and_back(image: Image.Image) -> Image.Image:
        return image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)

    return np.stack([_through(image, there_and_back) for image in x])


def jpeg_compression(x: np.ndarray, quality: int, draws: Draws) -> np.ndarray:
    """Written as JPEG of a quality from 1 to 100, and read again."""

    def there_and_back(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return np.stack([_through(image, there_and_back) for image in x])


def _through(image: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Through a function of pillow's images, in whole levels."""
    levels = np.round(image * 255).astype(np.uint8)
    picture = Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))
    made = np.asarray(change(picture)) / 255.0
    return made[None] if len(levels) == 1 else made.transpose(2, 0, 1)
