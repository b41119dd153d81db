"""Corruptions against formulas, plain loops and the library imagecorruptions; and that each image has its own dice."""

from __future__ import annotations

import colorsys
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from invariscope.base.errors import DataError, InputError
from invariscope.collectors.measure.corruptions import CORRUPTIONS, SEVERITIES, blur, corrupt, digital, weather
from invariscope.collectors.measure.corruptions.constants import SETS, constants_for

STORED = Path(__file__).parent / "data" / "imagecorruptions.json"
"""Statistics of imagecorruptions 1.1.2 (numpy 2.4, scikit-image 0.26, OpenCV 5.0) on :func:`scene` of 224 pixels, at
the seeds 0, 1, ...: mean level, deviation of the levels, mean absolute change; their mean and deviation over seeds. The
library runs there with ``np.float_``, the module ``scipy.ndimage.interpolation`` and scikit-image's ``multichannel``
put back."""


def scene(side: int) -> np.ndarray:
    """A drawn colour image: a chirp, a chequerboard that fades in, a ripple. ``(1, 3, side, side)`` uint8."""
    y, x = np.mgrid[:side, :side] / side
    planes = [
        0.5 + 0.4 * np.sin(9 * x + 4 * y * y),
        0.2 + 0.6 * ((np.floor(8 * x) + np.floor(8 * y)) % 2) * y,
        np.clip(1.2 * x * y + 0.15 * np.cos(40 * x), 0, 1),
    ]
    return np.round(255 * np.clip(np.stack(planes), 0, 1)).astype(np.uint8)[None]


def draws(n: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(n)]


def test_the_fifteen_have_five_published_severities_each() -> None:
    assert len(CORRUPTIONS) == 15
    for constants in SETS.values():
        assert set(constants) == set(CORRUPTIONS)
        assert all(len(strengths) == 5 for strengths in constants.values())
    assert [constants_for(size) for size in (28, 32, 64, 95, 96, 224)] == ["cifar-10-c"] * 4 + ["imagenet-c"] * 2
    # As published: numpy's arange, which may take the end along.
    assert [len(zooms) for zooms in SETS["imagenet-c"]["zoom_blur"]] == [12, 16, 11, 13, 11]


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_corrupted_alike_wherever_it_stands(corruption: str, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, channels, 20, 24)).astype(np.uint8)
    before = images.copy()
    for severity in (1, 5):
        made = corrupt(images, corruption, severity, seed=3)
        assert made.shape == images.shape
        assert made.dtype == np.uint8
        assert (made != images).any()
        np.testing.assert_array_equal(made[3:], corrupt(images[3:], corruption, severity, seed=3, first=3))
    np.testing.assert_array_equal(images, before)
    random = corruption not in (
        "brightness", "contrast", "pixelate", "jpeg_compression", "defocus_blur", "zoom_blur",
    )  # fmt: skip
    assert (corrupt(images, corruption, 5, seed=4) != made).any() == random
    twice = corrupt(np.repeat(images[:1], 2, 0), corruption, 5)
    assert (twice[0] != twice[1]).any() == random


@pytest.mark.parametrize("constants", SETS)
def test_severities_rise(constants: str) -> None:
    """The change from the image. Of others it need not rise: fog of ImageNet-C is smoother where it is thicker."""
    images = np.repeat(scene(64), 8, 0)
    for corruption in (
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "defocus_blur",
        "contrast",
        "brightness",
    ):
        change = [
            np.abs(corrupt(images, corruption, severity, constants=constants).astype(float) - images).mean()
            for severity in SEVERITIES
        ]
        assert change == sorted(change), (corruption, change)


def test_noise_has_the_moments_of_its_formula() -> None:
    images = np.full((4, 3, 64, 64), 100, dtype=np.uint8)
    n, level = images.size, 100 / 255
    sigma = corrupt(images, "gaussian_noise", 2).astype(float) / 255 - level
    assert sigma.std() == pytest.approx(0.06, abs=4 * 0.06 / np.sqrt(2 * n))
    shot = corrupt(images, "shot_noise", 3).astype(float) / 255
    assert shot.mean() == pytest.approx(level - 0.5 / 255, abs=4 * shot.std() / np.sqrt(n))
    assert shot.var() == pytest.approx(level / 100, rel=0.03)
    impulse = corrupt(images, "impulse_noise", 4)
    for value in (0, 255):
        assert (impulse == value).mean() == pytest.approx(0.025, abs=4 * np.sqrt(0.025 / n))
    assert set(np.unique(impulse)) == {0, 100, 255}


def test_defocus_is_a_plain_sum_over_the_disk() -> None:
    image = np.random.default_rng(1).random((1, 1, 12, 12))
    kernel = blur.disk(1.5, 0.1)
    assert kernel.sum() == pytest.approx(1)
    assert np.round(kernel[6:11, 6:11] * 9).astype(int).tolist() == [
        [0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0],
    ]  # fmt: skip
    made = blur.defocus_blur(image, (1.5, 0.1), draws(1))[0, 0]
    wide = np.pad(image[0, 0], 8, mode="reflect")
    for y, x in ((0, 0), (5, 7), (11, 3)):
        assert made[y, x] == pytest.approx((wide[y : y + 17, x : x + 17] * kernel).sum(), abs=1e-12)


def test_glass_blur_is_the_published_loop() -> None:
    image = np.random.default_rng(2).random((2, 3, 9, 10))
    made = blur.glass_blur(image, (0.7, 2, 2), draws(2))
    for n in range(2):
        smooth = ndimage.gaussian_filter(image[n], (0, 0.7, 0.7), mode="nearest", truncate=4)
        pixels = np.floor(smooth * 255)
        dice = np.random.default_rng(n).integers(-2, 2, size=(2, 5, 6, 2))
        for turn in range(2):
            for i, h in enumerate(range(9 - 2, 2, -1)):
                for j, w in enumerate(range(10 - 2, 2, -1)):
                    dx, dy = dice[turn, i, j]
                    pixels[:, h, w] = pixels[:, h + dy, w + dx]
        wanted = ndimage.gaussian_filter(pixels / 255, (0, 0.7, 0.7), mode="nearest", truncate=4)
        np.testing.assert_allclose(made[n], wanted, atol=1e-12)


def test_motion_spreads_a_point_along_its_direction() -> None:
    point = np.zeros((1, 15, 15))
    point[0, 7, 7] = 1
    made = blur.along(point, 2, 1.5, 0.0)[0]
    weights = np.exp(-(np.arange(5) ** 2) / 4.5)
    np.testing.assert_allclose(made[7, 3:8], weights[::-1] / weights.sum(), atol=1e-12)
    assert made.sum() == pytest.approx(1)
    falling = blur.along(point, 2, 1.5, -90.0)[0]
    np.testing.assert_allclose(falling, made.T[::-1], atol=1e-12)


def test_zoom_is_scipys() -> None:
    image = np.random.default_rng(3).random((1, 2, 31, 31))
    for zoom in (1.0, 1.07, 1.26, 2.25, 4.0):
        part = int(np.ceil(31 / zoom))
        top = (31 - part) // 2
        large = ndimage.zoom(image[0, :, top : top + part, top : top + part], (1, zoom, zoom), order=1)
        trim = (large.shape[1] - 31) // 2
        np.testing.assert_allclose(
            blur.enlarge(image, zoom)[0], large[:, trim : trim + 31, trim : trim + 31], atol=1e-9
        )


def test_plasma_is_the_diamond_square_rule() -> None:
    """Point by point, on a map of 8, with the same dice."""
    made = weather.plasma(8, 2.0, draws(1))[0]
    dice, heights, reach, step = np.random.default_rng(0), np.zeros((8, 8)), 1e4, 8
    while step >= 2:
        half, n = step // 2, 8 // step
        for kind in ("square", "across", "down"):
            noise, old = dice.uniform(-reach, reach, (n, n)), heights.copy()
            for i in range(n):
                for j in range(n):
                    y, x = i * step, j * step
                    y, x = y + half * (kind != "across"), x + half * (kind != "down")
                    away = [(-half, -half), (-half, half), (half, -half), (half, half)]
                    if kind != "square":
                        away = [(-half, 0), (half, 0), (0, -half), (0, half)]
                    heights[y, x] = np.mean([old[(y + a) % 8, (x + b) % 8] for a, b in away]) + noise[i, j]
        step, reach = half, reach / 2
    heights -= heights.min()
    np.testing.assert_allclose(made, heights / heights.max(), atol=1e-12)


def test_brightness_raises_the_value_of_hsv() -> None:
    image = scene(12)
    image[0, :, 0, 0] = 0
    made = digital.brightness(image / 255, 0.3, draws(1))
    for y in range(12):
        for x in range(12):
            hue, saturation, value = colorsys.rgb_to_hsv(*image[0, :, y, x] / 255)
            wanted = colorsys.hsv_to_rgb(hue, saturation, min(value + 0.3, 1))
            assert made[0, :, y, x] == pytest.approx(wanted, abs=1e-12)


def test_elastic_without_displacement_is_the_affine_map() -> None:
    """The three corners of a ramp go where they were sent: a linear image stays linear inside."""
    grid = np.stack(np.mgrid[:30, :30]).astype(float)
    dice = np.random.default_rng(0)
    moved = np.array([[25, 25], [25, 5], [5, 5]]) + dice.uniform(-2.4, 2.4, (3, 2))
    made = digital.elastic_transform(grid[None], (0, 0, 0.08), draws(1))[0]
    for (row, column), source in zip(moved, [[25, 25], [25, 5], [5, 5]], strict=True):
        found = [ndimage.map_coordinates(plane, [[row], [column]], order=1)[0] for plane in made]
        assert found == pytest.approx(source, abs=1e-9)


def test_pixelate_and_jpeg_are_pillows() -> None:
    image = scene(32)
    picture = Image.fromarray(image[0].transpose(1, 2, 0))
    small = picture.resize((27, 27), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
    np.testing.assert_array_equal(corrupt(image, "pixelate", 3)[0], np.asarray(small).transpose(2, 0, 1))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    np.testing.assert_array_equal(
        corrupt(image, "jpeg_compression", 5)[0], np.asarray(Image.open(file)).transpose(2, 0, 1)
    )


def test_whole_levels_stay_whole() -> None:
    """Levels are cut to whole numbers as published, and none of the 256 slips to the one below by rounding."""
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    made = corrupt(ramp, "impulse_noise", 1)
    assert set((made.astype(int) - ramp)[(made != 0) & (made != 255)].tolist()) == {0}


FIXED = {"defocus_blur": 0.6, "zoom_blur": 0.3, "brightness": 0.05, "contrast": 0.05, "jpeg_compression": 0.05}
"""Corruptions without dice, and how far a statistic may be from the library's, in levels."""


@pytest.mark.parametrize("corruption", json.loads(STORED.read_text()))
def test_statistics_are_those_of_imagecorruptions(corruption: str) -> None:
    stored = json.loads(STORED.read_text())[corruption]
    image = scene(224)
    for severity, theirs in zip(SEVERITIES, stored, strict=True):
        seeds = 1 if theirs["sd"] is None else theirs["n"] if corruption != "glass_blur" else 1
        found = []
        for seed in range(seeds):
            made = corrupt(image, corruption, severity, seed=seed).astype(float)
            found.append([made.mean(), made.std(), np.abs(made - image).mean()])
        ours = np.mean(found, axis=0)
        if theirs["sd"] is None:
            allowed = np.full(3, FIXED.get(corruption, 0.05))
        else:
            allowed = 4 * np.array(theirs["sd"]) * np.sqrt(1 / theirs["n"] + 1 / seeds) + 0.02
        assert (np.abs(ours - theirs["mean"]) <= allowed).all(), (severity, ours, theirs, allowed)


def test_bad_input() -> None:
    images = scene(16)
    with pytest.raises(InputError, match="unknown corruption 'fogg': did you mean 'fog'"):
        corrupt(images, "fogg", 1)
    with pytest.raises(InputError, match="severity 6 of fog: severities are 1 to 5"):
        corrupt(images, "fog", 6)
    with pytest.raises(InputError, match="unknown set of constants 'cifar'"):
        corrupt(images, "fog", 1, constants="cifar")
    with pytest.raises(DataError, match=r"images are float64 of shape \(1, 3, 16, 16\): corruptions take uint8"):
        corrupt(images / 255, "fog", 1)
    with pytest.raises(DataError, match="1 or 3 channels"):
        corrupt(images[:, :2], "fog", 1)
