"""The background of a data set: the ground that a zero shift uncovers, the same whatever part of it is measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from invariscope.base.errors import DataError
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.imageset import BACKGROUND_IMAGES, ImageSet
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages
from invariscope.zoo.datasets.source import DataSource


def framed(border: list[int], *, channels: int = 1, size: int = 5) -> ImageSet:
    """Images whose border is of one value each, round an inside of 200."""
    images = torch.full((len(border), channels, size, size), 200, dtype=torch.uint8)
    for image, value in zip(images, border, strict=True):
        image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1] = value, value, value, value
    return ImageSet("framed/test", images, torch.zeros(len(border), dtype=torch.int64), ("one",))


def test_it_is_the_median_of_the_border() -> None:
    assert framed([0, 0, 9]).background == (0.0,)
    assert framed([3, 5]).background == (4.0,)
    noise = np.random.default_rng(0).integers(0, 256, (20, 3, 6, 4), dtype=np.uint8)
    images = ImageSet("noise/test", torch.from_numpy(noise), torch.zeros(20, dtype=torch.int64), ("one",))
    for channel in range(3):
        pixels = [
            int(one[channel, y, x]) for one in noise for y in range(6) for x in range(4) if y in (0, 5) or x in (0, 3)
        ]
        assert images.background[channel] == np.median(pixels)


def test_only_the_first_images_count() -> None:
    assert framed([0] * (BACKGROUND_IMAGES // 2 + 1) + [90] * 2 * BACKGROUND_IMAGES).background == (0.0,)


def test_a_part_of_the_images_keeps_it() -> None:
    whole = framed([80, 0, 0, 0])
    assert whole.head(1).background == whole.tail(3).background == (0.0,)
    assert ImageSet.from_numpy(whole.head(1).to_numpy()).background == (0.0,)
    prepared = PreparedImages(whole.head(1), InputSpec(5, (0.5,), (0.25,)))
    assert prepared.background.tolist() == [-2.0]


@pytest.mark.parametrize("spec", ["digits", "shapes:16"])
def test_a_limit_does_not_move_it(spec: str) -> None:
    few = DataSource(spec, limit=3).images
    assert len(few) == 3
    assert few.background == load_dataset(spec, limit=BACKGROUND_IMAGES).background
    assert few.fingerprint == load_dataset(spec, limit=3).fingerprint
    with pytest.raises(DataError, match="at least one image"):
        _ = DataSource(spec, limit=0).images


def test_the_ground_of_digits_is_black() -> None:
    assert load_dataset("digits").background == (0.0,)


def test_one_of_another_number_of_channels_is_refused() -> None:
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(DataError, match=r"2 value.*3 channel"):
        ImageSet("x/test", images, torch.zeros(2, dtype=torch.int64), ("one",), background=(1.0, 2.0))
