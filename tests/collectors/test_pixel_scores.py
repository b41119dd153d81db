"""Scores of per-pixel predictions, against loops over pixels, pairs and images that share no line with them."""

from __future__ import annotations

import itertools
import math
from types import ModuleType

import numpy as np
import pytest
import torch

from invariscope.collectors.measure.pixel_scores import (
    NOWHERE,
    class_counts,
    corrected_agreement,
    in_frame,
    miou,
    pair_shares,
    pixel_accuracy,
)
from invariscope.collectors.measure.shifts import ShiftPlan, apply_shift
from invariscope.collectors.shift_kinds import SHIFT_KINDS

CLASSES = 5


@pytest.fixture(scope="module")
def maps() -> tuple[np.ndarray, np.ndarray]:
    """Predictions that are right on about two thirds of the pixels, and masks with void ones; class 3 is nowhere."""
    generator = np.random.default_rng(0)
    masks = generator.choice([0, 1, 2, 4], size=(12, 9, 7), p=[0.5, 0.3, 0.15, 0.05]).astype(np.uint8)
    guess = generator.choice([0, 1, 2, 4], size=masks.shape).astype(np.uint8)
    prediction = np.where(generator.random(masks.shape) < 0.6, masks, guess)
    masks = np.where(generator.random(masks.shape) < 0.1, np.uint8(NOWHERE), masks)
    return prediction, masks


def slow_miou(prediction: np.ndarray, masks: np.ndarray) -> float:
    values = []
    for number in range(CLASSES):
        both = either = 0
        for said, true in zip(prediction.ravel().tolist(), masks.ravel().tolist(), strict=True):
            if true == NOWHERE:
                continue
            both += said == number and true == number
            either += said == number or true == number
        if either:
            values.append(both / either)
    return sum(values) / len(values)


def test_miou_is_that_of_a_loop_and_its_error_the_jackknife(maps: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, masks = maps
    estimate, present = miou(class_counts(prediction, masks, CLASSES))
    assert estimate.value == pytest.approx(slow_miou(prediction, masks), abs=1e-12)
    assert present == 4
    n = len(masks)
    without = [slow_miou(np.delete(prediction, i, 0), np.delete(masks, i, 0)) for i in range(n)]
    se = math.sqrt((n - 1) / n * sum((value - sum(without) / n) ** 2 for value in without))
    assert estimate.se == pytest.approx(se, abs=1e-12)
    odds = math.log(estimate.value / (1 - estimate.value))
    reach = 2.200985 * se / (estimate.value * (1 - estimate.value))
    assert estimate.high == pytest.approx(1 / (1 + math.exp(-odds - reach)), rel=1e-6)


def test_a_class_that_is_predicted_and_never_true_counts_as_zero(maps: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, masks = maps
    prediction = prediction.copy()
    counts = class_counts(prediction, masks, CLASSES)
    known = np.flatnonzero(masks[0].ravel() != NOWHERE)[0]
    prediction[0].ravel()[known] = 3
    estimate, present = miou(class_counts(prediction, masks, CLASSES))
    assert present == 5
    assert estimate.value < 0.85 * miou(counts)[0].value
    assert estimate.value == pytest.approx(slow_miou(prediction, masks), abs=1e-12)


def test_miou_is_torchmetrics(maps: tuple[np.ndarray, np.ndarray], torchvision: ModuleType) -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    prediction, masks = (torch.from_numpy(part).long() for part in maps)
    for said in (prediction, prediction.where(prediction != 2, 3)):
        metric = classification.MulticlassJaccardIndex(CLASSES, ignore_index=NOWHERE)
        expected = float(metric(said, masks))
        found = miou(class_counts(said.numpy().astype(np.uint8), maps[1], CLASSES))[0].value
        assert found == pytest.approx(expected, abs=1e-6)


def test_pixel_accuracy_pools_pixels(maps: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, masks = maps
    masks = masks.copy()
    masks[3, 1:] = NOWHERE  # an image with few pixels has little say
    estimate = pixel_accuracy(class_counts(prediction, masks, CLASSES))
    known = masks != NOWHERE
    assert estimate.value == pytest.approx((prediction == masks)[known].mean(), abs=1e-12)
    shares = [
        (np.delete(prediction, i, 0) == np.delete(masks, i, 0))[np.delete(known, i, 0)].mean()
        for i in range(len(masks))
    ]
    assert estimate.se == pytest.approx(math.sqrt(11 / 12 * np.square(shares - np.mean(shares)).sum()), abs=1e-12)


def test_all_right_has_the_rule_of_three(maps: tuple[np.ndarray, np.ndarray]) -> None:
    _, masks = maps
    right = np.where(masks == NOWHERE, np.uint8(0), masks)
    counts = class_counts(right, masks, CLASSES)
    for estimate in (miou(counts)[0], pixel_accuracy(counts)):
        assert (estimate.value, estimate.se, estimate.low, estimate.high) == (1.0, 0.0, 0.75, 1.0)


@pytest.mark.parametrize("kind", [kind for kind, rule in SHIFT_KINDS.items() if rule.steps == 1])
def test_views_come_back_to_the_pixels_that_they_show(kind: str) -> None:
    """A shifted image of pixel numbers, brought back, holds each pixel's own number where it is seen."""
    rule, window = SHIFT_KINDS[kind], (9, 7)
    frame = window if rule.keeps_size else (14, 11)
    numbers = torch.arange(frame[0] * frame[1]).reshape(1, 1, *frame)
    offsets = ShiftPlan.sampled(1, 2, n_shifts=9, kind=kind, seed=3).for_rows(0, 1)
    views = [
        apply_shift(
            numbers, offsets[:, k].astype(np.int64), kind, fill=NOWHERE, size=None if rule.keeps_size else window
        )
        for k in range(9)
    ]
    framed = in_frame(torch.stack(views, 1)[:, :, 0].numpy().astype(np.uint8), offsets, kind, frame)
    own = numbers[0, 0].numpy()
    for k, (dy, dx) in enumerate(offsets[0].tolist()):
        seen = framed[0, k] != NOWHERE
        assert (framed[0, k][seen] == own[seen]).all()
        whole = rule.reversible or not rule.keeps_size
        assert seen.sum() == (63 if whole else (9 - abs(dy)) * (7 - abs(dx)))


@pytest.mark.parametrize("kind", list(SHIFT_KINDS))
def test_pairs_are_compared_where_both_are_seen(maps: tuple[np.ndarray, np.ndarray], kind: str) -> None:
    generator = np.random.default_rng(1)
    frame, window = ((9, 7) if SHIFT_KINDS[kind].keeps_size else (13, 11)), (9, 7)
    masks = generator.choice([0, 1, NOWHERE], size=(3, *frame), p=[0.5, 0.3, 0.2]).astype(np.uint8)
    masks[2] = NOWHERE
    views = generator.integers(0, 2, size=(3, 4, *window)).astype(np.uint8)
    offsets = ShiftPlan.sampled(3, 2, n_shifts=4, kind=kind, seed=0).for_rows(0, 3)
    agreement, fidelity = pair_shares(in_frame(views, offsets, kind, frame), masks)
    start = [(frame[axis] - window[axis]) // 2 for axis in (0, 1)]

    def seen(image: int, k: int, pixel: tuple[int, int]) -> int | None:
        place = [pixel[axis] + int(offsets[image, k, axis]) - start[axis] for axis in (0, 1)]
        if SHIFT_KINDS[kind].reversible:
            place = [place[axis] % frame[axis] for axis in (0, 1)]
        inside = all(0 <= place[axis] < window[axis] for axis in (0, 1))
        return int(views[image, k, place[0], place[1]]) if inside else None

    for image in (0, 1):
        agreeing, rightly = [], []
        for one, other in itertools.combinations(range(4), 2):
            said = [
                (seen(image, one, pixel), seen(image, other, pixel), int(masks[image][pixel]))
                for pixel in itertools.product(range(frame[0]), range(frame[1]))
                if masks[image][pixel] != NOWHERE
            ]
            both = [pair for pair in said if None not in pair]
            agreeing.append(sum(a == b for a, b, _ in both) / len(both))
            rightly.append(sum(a == b == true for a, b, true in both) / len(both))
        assert agreement[image] == pytest.approx(np.mean(agreeing), abs=1e-12)
        assert fidelity[image] == pytest.approx(np.mean(rightly), abs=1e-12)
    assert np.isnan([agreement[2], fidelity[2]]).all()


def test_corrected_agreement_is_kappa_of_pixels() -> None:
    """Against explicit sums: agreement of pairs, corrected by the squares of the classes' shares, and its jackknife."""
    generator = np.random.default_rng(1)
    maps = generator.choice(3, size=(10, 4, 6, 5), p=[0.85, 0.1, 0.05]).astype(np.uint8)
    maps[:, 1] = np.where(generator.random((10, 6, 5)) < 0.7, maps[:, 0], maps[:, 1])
    masks = np.where(generator.random((10, 6, 5)) < 0.1, np.uint8(NOWHERE), np.uint8(0))

    def slow(some: np.ndarray, void: np.ndarray) -> float:
        shares, seen = [], []
        for views, hidden in zip(some, void == NOWHERE, strict=True):
            flat = views[:, ~hidden]
            seen.append(flat.ravel())
            shares.append(np.mean([(a == b).mean() for a, b in itertools.combinations(flat, 2)]))
        pixels = np.concatenate(seen)
        chance = sum((pixels == number).mean() ** 2 for number in range(3))
        return float((np.mean(shares) - chance) / (1 - chance))

    agreement = pair_shares(maps, masks)[0]
    predicted = class_counts(maps, masks[:, None], 3)[:, 2]
    estimate = corrected_agreement(agreement, predicted, 60)
    without = [slow(np.delete(maps, i, 0), np.delete(masks, i, 0)) for i in range(10)]
    assert estimate.value == pytest.approx(slow(maps, masks), abs=1e-12)
    assert estimate.se == pytest.approx(math.sqrt(0.9 * np.square(without - np.mean(without)).sum()), abs=1e-12)
    assert estimate.low < estimate.value < estimate.high
    assert agreement.mean() > 0.7
    assert estimate.value < 0.2
    assert estimate.n_pairs == 60


def test_corrected_agreement_of_one_class_or_of_exact_agreement() -> None:
    one_class = corrected_agreement(np.ones(5), np.array([[30, 0]] * 5), 5)
    assert np.isnan([one_class.value, one_class.se, one_class.low]).all()
    steady = corrected_agreement(np.ones(100), np.array([[15, 15]] * 100), 100)
    assert (steady.value, steady.se, steady.low, steady.high) == (1.0, 0.0, pytest.approx((0.97 - 0.5) / 0.5), 1.0)
    nothing = corrected_agreement(np.empty(0), np.empty((0, 2)), 0)
    assert np.isnan(nothing.value)
