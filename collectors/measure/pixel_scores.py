"""Scores of per-pixel predictions, each with its standard error and 95 % interval over images; numpy only.

``N`` images, ``K`` shifts, ``C`` classes. Maps are uint8 class numbers ``(..., H, W)``; :data:`NOWHERE` stands for a
pixel that belongs to no class (void), or that a shifted view does not show.
"""

from __future__ import annotations

import itertools

import numpy as np

from invariscope.collectors.measure.scores import ScoreEstimate, jackknifed, mean_over_images
from invariscope.collectors.shift_kinds import SHIFT_KINDS

NOWHERE = 255
"""No class: the value of void pixels in masks (:data:`invariscope.zoo.datasets.imageset.VOID`)."""

MOST_CLASSES = 255
"""Classes that can be told apart in uint8 beside :data:`NOWHERE`."""


def class_counts(prediction: np.ndarray, masks: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of each image by class: ``(n, 3, C)`` int64, right, true and predicted ones, void pixels left out.

    ``prediction (n, ..., H, W)`` and ``masks``, of a shape that goes together with it. Pixels where the prediction is
    :data:`NOWHERE` are left out as well.
    """
    masks = np.broadcast_to(masks, prediction.shape)
    known = (masks != NOWHERE) & (prediction != NOWHERE)
    image = np.broadcast_to(np.arange(len(masks)).reshape(-1, *[1] * (masks.ndim - 1)), masks.shape)
    counted = []
    for which, of in ((known & (prediction == masks), masks), (known, masks), (known, prediction)):
        cell = image[which] * classes + of[which]
        counted.append(np.bincount(cell, minlength=len(masks) * classes).reshape(len(masks), classes))
    return np.stack(counted, axis=1)


def miou(counts: np.ndarray) -> tuple[ScoreEstimate, int]:
    """Mean intersection over union, and the number of classes that it is the mean of.

    ``IoU_c = right_c / (true_c + predicted_c - right_c)``, each over all pixels of all images together: the mean over
    the classes that are in the masks or were predicted somewhere. (A class in neither has no IoU; one that is predicted
    and nowhere true has 0.) Standard error: jackknife over images. One value for all images: the rule of three.

    Args:
        counts: ``(N, 3, C)`` of :func:`class_counts`.
    """
    total = counts.sum(0)
    value = float(_mean_iou(total[None])[0])
    present = int((total[1] + total[2] > 0).sum())
    return _pooled(value, _mean_iou(total - counts)), present


def pixel_accuracy(counts: np.ndarray) -> ScoreEstimate:
    """Share of the pixels of all images that were predicted right; jackknife over images.

    Args:
        counts: ``(N, 3, C)`` of :func:`class_counts`.
    """
    right, known = counts[:, 0].sum(1), counts[:, 1].sum(1)
    return _pooled(float(_share(right.sum(), known.sum())), _share(right.sum() - right, known.sum() - known))


def in_frame(prediction: np.ndarray, offsets: np.ndarray, kind: str, frame: tuple[int, int]) -> np.ndarray:
    """Predictions under shifts, brought back to the pixels of the unshifted image.

    Pixel ``p`` of a view shifted by ``d`` shows the image's pixel ``p - d`` (for ``crop``: of the larger image, in
    which the unshifted window lies at the centre). What a view does not show is :data:`NOWHERE`: nothing of a
    reversible kind; the strips that were shifted out of the others, whatever was put in their place.

    Args:
        prediction: ``(n, K, h, w)`` uint8.
        offsets: ``(n, K, 2)``.
        kind: shift kind.
        frame: height and width of the image.

    Returns:
        ``(n, K, *frame)`` uint8.
    """
    rule = SHIFT_KINDS[kind]
    sources = []
    for axis in (0, 1):
        seen, size = prediction.shape[2 + axis], frame[axis]
        start = (size - seen) // 2
        source = np.arange(size) + offsets[..., axis, None].astype(np.int64) - start
        inside = (source >= 0) & (source < seen)
        sources.append(rule.source(source, size) if rule.reversible else np.where(inside, source, seen))
    # One row and one column of nowhere more, to which all that is not seen points.
    padded = np.pad(prediction, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=NOWHERE)
    rows = np.take_along_axis(padded, sources[0][..., :, None], axis=2)
    return np.take_along_axis(rows, sources[1][..., None, :], axis=3)


def pair_shares(framed: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per image, the mean over the pairs of shifts of the share of pixels on which both views agree; and agree rightly.

    Over the pixels that both views show and that are not void; a pair without any is left out, an image without pairs
    is NaN. O(K²) maps, one pair at a time.

    Args:
        framed: ``(n, K, H, W)`` of :func:`in_frame`.
        masks: ``(n, H, W)``.

    Returns:
        Agreement ``(n,)``, and agreement with the mask ``(n,)``.
    """
    n, k = framed.shape[:2]
    framed = np.where(masks[:, None] == NOWHERE, np.uint8(NOWHERE), framed)
    seen = framed != NOWHERE
    right = seen & (framed == masks[:, None])
    sums, pairs = np.zeros((2, n)), np.zeros(n)
    for one, other in itertools.combinations(range(k), 2):
        both = seen[:, one] & seen[:, other]
        count = both.sum((1, 2))
        agree = (both & (framed[:, one] == framed[:, other])).sum((1, 2))
        agree_rightly = (right[:, one] & right[:, other]).sum((1, 2))
        sums += np.stack([agree, agree_rightly]) / np.maximum(count, 1)
        pairs += count > 0
    shares = np.divide(sums, pairs, out=np.full((2, n), np.nan), where=pairs > 0)
    return shares[0], shares[1]


def over_images(shares: np.ndarray, n_pairs: int) -> ScoreEstimate:
    """Mean of one share per image (:func:`invariscope.collectors.measure.scores.mean_over_images`), NaN of none."""
    if len(shares) == 0:
        return ScoreEstimate(np.nan, np.nan, np.nan, np.nan, n_pairs)
    return mean_over_images(shares, n_pairs)


def corrected_agreement(agreement: np.ndarray, predicted: np.ndarray, n_pairs: int) -> ScoreEstimate:
    """Chance-corrected per-pixel consistency: ``(c - chance) / (1 - chance)``, ``chance = sum_c q_c²``.

    ``c`` is the mean over images, ``q`` the distribution of the classes predicted for all pixels that are seen: where
    85 % of them are background, two shifts agree on most by chance. Jackknife over images. NaN where all pixels are
    predicted as one class; without an error where they would be without some image.

    Args:
        agreement: ``(n,)`` of :func:`pair_shares`, finite.
        predicted: ``(n, C)``, pixels of each image that were predicted as each class, over all shifts.
    """
    total, n = predicted.sum(0, dtype=np.float64), len(agreement)
    chance = _chance(total[None])[0]
    if n == 0 or not chance < 1:
        return ScoreEstimate(np.nan, np.nan, np.nan, np.nan, n_pairs)
    value = float((agreement.mean() - chance) / (1 - chance))
    if n < 2 or (agreement == agreement[0]).all():
        bound = mean_over_images(agreement)
        low, high = (float((end - chance) / (1 - chance)) for end in (bound.low, bound.high))
        return ScoreEstimate(value, bound.se, max(low, -1.0), high, n_pairs)
    rest, without = _chance(total - predicted), (agreement.sum() - agreement) / (n - 1)
    if not (rest < 1).all():
        return ScoreEstimate(value, np.nan, np.nan, np.nan, n_pairs)
    return jackknifed(value, (without - rest) / (1 - rest), (-1.0, 1.0), n_pairs)


def _chance(counts: np.ndarray) -> np.ndarray:
    """``sum_c q_c²`` of each row of class counts ``(n, C)``; NaN of none."""
    counts = counts.astype(np.float64)
    return _share((counts**2).sum(1), counts.sum(1) ** 2)


def _mean_iou(counts: np.ndarray) -> np.ndarray:
    """Mean IoU of counts ``(n, 3, C)``, each on its own: ``(n,)``, NaN where no class is there."""
    right, union = counts[:, 0], counts[:, 1] + counts[:, 2] - counts[:, 0]
    return _share(_share(right, union, absent=0.0).sum(1), (union > 0).sum(1))


def _share(part: np.ndarray, whole: np.ndarray, absent: float = np.nan) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, absent), where=whole > 0)


def _pooled(value: float, without: np.ndarray) -> ScoreEstimate:
    """An estimate in [0, 1] from its values without each image in turn."""
    n = len(without)
    if np.isnan(value) or n < 2 or np.isnan(without).any():
        return ScoreEstimate(value, np.nan, np.nan, np.nan)
    if (without == without[0]).all():
        return mean_over_images(np.full(n, value))
    return jackknifed(value, without, (0.0, 1.0), 0)
