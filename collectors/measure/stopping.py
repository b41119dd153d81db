"""When a score is known well enough: the numbers of images at which a measurement may stop, and the error it stops at.

What is looked at is the standard error of consistency, images as the sampling unit. The images are those of the whole
plan, from the first on, so that a longer measurement begins with a shorter one. That the interval holds the truth as
often where it decides when to stop was simulated: ``python -m benchmarks.stopping``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy.special import ndtri

from invariscope.collectors.measure.scores import LEVEL, RULE_OF_THREE

EVERY = 256
"""A measurement may stop after so many images, and after every so many more; not in between, whatever the batches."""


def steps(n_images: int) -> Iterator[tuple[int, int]]:
    """The parts between two looks, first image and the one after the last: ``(0, 256)``, ``(256, 512)``, ..."""
    return pairwise([*range(0, n_images, EVERY), n_images])


def error(values: np.ndarray) -> float:
    """Standard error of the mean of one value in [0, 1] per image, and at least that of the rule of three.

    ``max(s / sqrt(N), 3 / (z N))`` with the ``z`` of a 95 % interval: where all images agree, and nearly so where all
    but a few do, ``s`` knows too little of those that would not. NaN for fewer than two images.
    """
    n = len(values)
    if n < 2:
        return float("nan")
    z = float(ndtri((1 + LEVEL) / 2))
    return max(float(values.std(ddof=1)) / n**0.5, RULE_OF_THREE / (z * n))
