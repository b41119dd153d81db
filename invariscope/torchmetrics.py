"""Shift scores as metrics of torchmetrics: batch by batch, on several devices, equal to :func:`measure_invariance`.

Each takes the predictions of a batch of images under the shifts of each image::

    from invariscope.torchmetrics import ShiftConsistency

    metric = ShiftConsistency()
    for images, _ in loader:
        views = torch.stack([torch.roll(images, shift, (-2, -1)) for shift in shifts], dim=1)  # (N, K, C, H, W)
        metric.update(model(views.flatten(0, 1)).unflatten(0, views.shape[:2]))  # (N, K, classes)
    metric.compute()

States are sums of whole numbers, so that batches and devices may come in any order and split. Needs the packages of
``pip install 'invariscope[torchmetrics]'``.
"""

from __future__ import annotations

from typing import Any

from invariscope.base.errors import ShiftError
from invariscope.base.extras import needs_extras

with needs_extras("invariscope.torchmetrics"):
    import torch
    from torch import Tensor

    from invariscope.zoo.optional import prepare_torchvision

    prepare_torchvision()  # which torchmetrics imports where it is installed
    from torchmetrics import Metric

__all__ = ["ShiftConsistency", "ShiftFidelity", "ShiftKappa"]


class _ShiftMetric(Metric):
    """What the metrics share: pairs of shifts counted, and those of them that agree."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    pairs: Tensor
    agreeing: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("pairs", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("agreeing", torch.tensor(0), dist_reduce_fx="sum")
        self._shifts: int | None = None

    def reset(self) -> None:
        """Forget what was counted."""
        super().reset()
        self._shifts = None

    def _predicted(self, predictions: Tensor) -> Tensor:
        """Classes ``(N, K)`` of classes or of scores ``(N, K, classes)``, after a check."""
        classes = predictions.argmax(-1) if predictions.is_floating_point() and predictions.ndim == 3 else predictions
        if classes.ndim != 2 or classes.is_floating_point():
            raise ShiftError(
                f"predictions are {str(predictions.dtype).removeprefix('torch.')} of shape {tuple(predictions.shape)}: "
                "give classes (N, K), whole numbers, or scores (N, K, classes) of N images under K shifts"
            )
        shifts = classes.shape[1]
        if shifts < 2:
            raise ShiftError(f"{shifts} shift per image: two are compared, give at least two")
        if self._shifts not in (None, shifts):
            raise ShiftError(f"{shifts} shifts per image after {self._shifts}: give every batch as many")
        self._shifts = shifts
        self.pairs += len(classes) * shifts * (shifts - 1) // 2
        return classes


class ShiftConsistency(_ShiftMetric):
    """Consistency: the probability that two different shifts of an image get the same prediction.

    ``mean over n and k < k' of p[n, k] == p[n, k']``.

    Shape:
        ``update(predictions)``: classes ``(N, K)`` or scores ``(N, K, classes)``; ``compute()``: one float64.

    Raises:
        ShiftError: another shape or type, one shift alone, or another number of shifts than before.
    """

    def update(self, predictions: Tensor) -> None:
        """Count the pairs of a batch."""
        self.agreeing += _agreeing_pairs(self._predicted(predictions))

    def compute(self) -> Tensor:
        """The share of pairs that agree."""
        return _share(self.agreeing, self.pairs)


class ShiftFidelity(_ShiftMetric):
    """Fidelity: the probability that two different shifts of an image get the same prediction and it is right.

    ``mean over n and k < k' of p[n, k] == p[n, k'] == y[n]``.

    Shape:
        ``update(predictions, target)``: classes ``(N, K)`` or scores ``(N, K, classes)``, and labels ``(N,)``;
        ``compute()``: one float64.

    Raises:
        ShiftError: as :class:`ShiftConsistency`; labels of another shape.
    """

    def update(self, predictions: Tensor, target: Tensor) -> None:
        """Count the pairs of a batch."""
        classes = self._predicted(predictions)
        if target.shape != classes.shape[:1]:
            raise ShiftError(f"labels of shape {tuple(target.shape)} for {len(classes)} images: give one per image")
        right = (classes == target[:, None]).sum(1)
        self.agreeing += (right * (right - 1)).sum() // 2

    def compute(self) -> Tensor:
        """The share of pairs that are both right."""
        return _share(self.agreeing, self.pairs)


class ShiftKappa(_ShiftMetric):
    """Kappa: consistency corrected for chance, ``(consistency - chance) / (1 - chance)``.

    ``chance = sum_c q_c²``, ``q`` the distribution of all predictions. NaN where every prediction is of one class.

    Args:
        num_classes: classes are whole numbers below it.

    Shape:
        as :class:`ShiftConsistency`.

    Raises:
        ShiftError: as :class:`ShiftConsistency`; a class that is not below ``num_classes``.
    """

    plot_lower_bound = -1.0
    counts: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.add_state("counts", torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predictions: Tensor) -> None:
        """Count the pairs and the classes of a batch."""
        classes = self._predicted(predictions)
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < self.num_classes:
            raise ShiftError(
                f"classes of {int(classes.min())} to {int(classes.max())}: num_classes is {self.num_classes}"
            )
        self.agreeing += _agreeing_pairs(classes)
        self.counts += torch.bincount(classes.flatten(), minlength=self.num_classes)

    def compute(self) -> Tensor:
        """The corrected share of pairs that agree."""
        share = _share(self.counts, self.counts.sum())
        chance, one = (share**2).sum(), (self.counts > 0).sum() <= 1
        corrected = (_share(self.agreeing, self.pairs) - chance) / (1 - chance)
        return torch.where(one, torch.full_like(corrected, torch.nan), corrected)


def _agreeing_pairs(classes: Tensor) -> Tensor:
    """``sum over n and k < k' of p[n, k] == p[n, k']``."""
    same = (classes[:, :, None] == classes[:, None, :]).sum()
    return (same - classes.numel()) // 2


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """A share in float64, float32 on devices without it."""
    exact = torch.float32 if part.device.type == "mps" else torch.float64
    return part.to(exact) / whole.to(exact)
