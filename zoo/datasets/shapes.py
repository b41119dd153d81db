"""Procedural scenes of coloured shapes, with labels and masks: the embedded default for segmentation."""

from __future__ import annotations

import numpy as np
import torch

from invariscope.base.errors import DataError
from invariscope.zoo.datasets.imageset import ImageSet

CLASSES = ("disk", "square", "triangle", "cross")
SIZE = 64
MOST, MOST_PIXELS = 1024, 1 << 28
"""Pixels along a side, and of all scenes together, at most: scenes are held as a whole, four bytes a pixel."""

COUNTS = {"train": 2000, "test": 500}

_SPLIT_KEYS = {"train": 0, "test": 1}
_DRAWS_PER_IMAGE = 64


def load_shapes(path: str | None, *, split: str, limit: int | None, size: int | None) -> ImageSet:
    """Scenes of one to three shapes on a textured ground: images ``(N, 3, size, size)``, masks ``(N, size, size)``.

    Mask classes are ``background`` and the four shapes, the later shape in front. The label is the class of which most
    pixels are seen. The ground has no empty margin, and shapes may leave the image. Image ``i`` of a split depends
    on ``i`` and ``size`` alone; ``shapes:32`` gives scenes of 32 pixels instead of 64.

    Raises:
        DataError: for a path that is no number (the images are computed), an unknown split, or a size below 8.
    """
    if path is not None:
        size = _side(path) if size is None else size
    if split not in COUNTS:
        raise DataError(f"shapes has the splits {' and '.join(COUNTS)}, not {split!r}: use one of them")
    side = SIZE if size is None else size
    if side < 8:
        raise DataError(f"size is {side}: shapes need at least 8 pixels")
    count = COUNTS[split] if limit is None else min(limit, COUNTS[split])
    if count * side**2 > MOST_PIXELS:
        raise DataError(f"{count} scenes of {side} x {side} pixels are more than fits: take a smaller size or --limit")
    draws = _draws(split, count)
    images = np.empty((count, 3, side, side), dtype=np.uint8)
    masks = np.empty((count, side, side), dtype=np.uint8)
    for row in range(count):
        images[row], masks[row] = _scene(draws[row], side)
    seen = np.stack([(masks == number + 1).sum((1, 2)) for number in range(len(CLASSES))], axis=1)
    return ImageSet(
        name=f"shapes/{split}",
        images=torch.from_numpy(images),
        labels=torch.from_numpy(seen.argmax(1)),
        classes=CLASSES,
        masks=torch.from_numpy(masks),
        mask_classes=("background", *CLASSES),
    )


def _side(path: str) -> int:
    if not path.isdecimal():
        raise DataError(f"shapes takes no path and was given {path!r}: write just 'shapes', or shapes:32 for a size")
    if len(path) > 5 or int(path) > MOST:
        raise DataError(f"shapes:{path[:20]}: scenes have at most {MOST} pixels along a side: take fewer")
    return int(path)


def _draws(split: str, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1), ``(count, 64)``; from a raw bit stream, the same in every numpy version."""
    words = np.random.Philox(key=_SPLIT_KEYS[split]).random_raw(count * _DRAWS_PER_IMAGE)
    return (words >> np.uint64(11)).reshape(count, _DRAWS_PER_IMAGE) / 2.0**53


def _scene(draws: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """One image ``(3, side, side)`` and its mask; coordinates run from 0 to 1, pixels are sampled at their centres."""
    draw = iter(draws)
    y, x = np.meshgrid(*[(np.arange(side) + 0.5) / side] * 2, indexing="ij")
    image = np.empty((3, side, side))
    for channel in range(3):
        level, depth, frequency, angle, phase = (next(draw) for _ in range(5))
        wave = np.cos(np.pi * angle) * x + np.sin(np.pi * angle) * y
        image[channel] = 90 + 80 * level + (15 + 25 * depth) * np.sin(2 * np.pi * ((2 + 6 * frequency) * wave + phase))
    mask = np.zeros((side, side), dtype=np.uint8)
    for _ in range(1 + int(3 * next(draw))):
        kind = int(len(CLASSES) * next(draw))
        centre_y, centre_x = 0.15 + 0.7 * next(draw), 0.15 + 0.7 * next(draw)
        radius, turn = 0.12 + 0.13 * next(draw), np.pi * next(draw)
        colour = np.array([255 * next(draw) for _ in range(3)])
        u = ((x - centre_x) * np.cos(turn) + (y - centre_y) * np.sin(turn)) / radius
        v = ((y - centre_y) * np.cos(turn) - (x - centre_x) * np.sin(turn)) / radius
        inside = _inside(CLASSES[kind], u, v)
        image[:, inside] = colour[:, None] * (0.85 + 0.15 * np.cos(3 * u[inside]))
        mask[inside] = kind + 1
    return np.clip(np.round(image), 0, 255).astype(np.uint8), mask


def _inside(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Points of a shape of radius about 1 round the origin."""
    if name == "disk":
        return u**2 + v**2 <= 1
    if name == "square":
        return np.maximum(np.abs(u), np.abs(v)) <= 0.85
    if name == "triangle":
        return (v <= 0.6) & (v >= np.sqrt(3) * np.abs(u) - 1.2)
    return (np.minimum(np.abs(u), np.abs(v)) <= 0.3) & (np.maximum(np.abs(u), np.abs(v)) <= 1)
