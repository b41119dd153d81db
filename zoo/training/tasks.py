"""What a network learns: class labels of images, or a class for every pixel. A task has outputs, a loss, a score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from invariscope.base.errors import ModelError, RecipeError
from invariscope.zoo.architectures import is_segmenter
from invariscope.zoo.datasets.imageset import VOID, ImageSet
from invariscope.zoo.run import Run


class Task(Protocol):
    """What training asks of a task."""

    @property
    def outputs(self) -> int:
        """Classes that the network tells apart: its argument ``classes``."""
        ...

    def targets(self, rows: Tensor) -> Tensor:
        """The truth of some images, int64; ``(n,)`` labels or ``(n, H, W)`` masks."""
        ...

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch, a scalar."""
        ...

    def score(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """``(right, counted)``: how many decisions of a batch are right, and of how many."""
        ...


@dataclass(frozen=True)
class Classification:
    """A label per image: cross entropy of logits ``(n, classes)``; the score is the accuracy."""

    images: ImageSet
    smoothing: float = 0.0

    @property
    def outputs(self) -> int:
        """Number of classes."""
        return len(self.images.classes)

    def targets(self, rows: Tensor) -> Tensor:
        """Labels ``(n,)``."""
        return self.images.labels[rows]

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy.

        Raises:
            ModelError: when the network does not give ``(n, classes)``.
        """
        _check_shape(logits, (len(targets), self.outputs))
        return F.cross_entropy(logits, targets, label_smoothing=self.smoothing)

    def score(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Images that are right, and all images."""
        return (logits.argmax(1) == targets).sum(), torch.tensor(len(targets), device=targets.device)


@dataclass(frozen=True)
class Segmentation:
    """A class per pixel: cross entropy of logits ``(n, classes, H, W)``; the score is the pixel accuracy.

    Pixels of value 255 (void) are left out of both, and of the mean: a batch that is void throughout has loss 0.
    """

    images: ImageSet
    smoothing: float = 0.0

    @property
    def outputs(self) -> int:
        """Number of mask classes."""
        return len(self.images.mask_classes)

    def targets(self, rows: Tensor) -> Tensor:
        """Masks ``(n, H, W)``."""
        if self.images.masks is None:
            raise RecipeError(f"{self.images.name} has no masks: train a segmenter on a data set with masks")
        return self.images.masks[rows].long()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy over the pixels that are not void.

        Raises:
            ModelError: when the network does not give ``(n, classes, H, W)``.
        """
        _check_shape(logits, (len(targets), self.outputs, *targets.shape[1:]))
        total = F.cross_entropy(logits, targets, ignore_index=VOID, reduction="sum", label_smoothing=self.smoothing)
        return total / (targets != VOID).sum().clamp(min=1)

    def score(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels that are right, and all that are not void."""
        return (logits.argmax(1) == targets).sum(), (targets != VOID).sum()


def task_of(run: Run, images: ImageSet) -> Task:
    """The task of a run: segmentation for an architecture that is a segmenter, else classification.

    Raises:
        RecipeError: for a segmenter on data without masks, or a classifier on data without labels.
    """
    if is_segmenter(run.architecture):
        if images.masks is None:
            raise RecipeError(f"{run.architecture} segments, and {images.name} has no masks: take data such as shapes")
        return Segmentation(images, run.label_smoothing)
    if not images.classes:
        raise RecipeError(
            f"{run.architecture} classifies, and {images.name} has no labels: take a segmenter, or data with labels"
        )
    return Classification(images, run.label_smoothing)


def _check_shape(logits: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(logits.shape) != expected:
        raise ModelError(
            f"the network gives {tuple(logits.shape)} and its task takes {expected}: train another architecture"
        )
