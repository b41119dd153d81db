"""How many images make a pass, by their pixels."""

from __future__ import annotations

BATCH_PIXELS, SMALLEST_BATCH, LARGEST_BATCH = 1 << 19, 8, 64
"""Pixels of a batch of images, where its size is not given, and the bounds of that size. Maps that stay in the caches
are fast: on one core batches of 64 take 1.2 to 1.4 times as long per image as batches of 8 for ResNet-50 at 224."""


def usual_batch(pixels: int) -> int:
    """Images per pass where no number was given, of images of so many pixels."""
    return min(max(BATCH_PIXELS // pixels, SMALLEST_BATCH), LARGEST_BATCH)


def shared_batch(pixels: int) -> int:
    """Images per pass for MSB, of images of so many pixels, whatever the batch size: a power of two.

    Another size may take another convolution kernel, whose rounding moves ties (by up to 1e-5 in ``msb_top``, seen
    between batches of 1 and of 64).
    """
    return 1 << (usual_batch(pixels).bit_length() - 1)
