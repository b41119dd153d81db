"""Which collectors suit a zoo and a data set, found before anything is measured and without torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from invariscope.base.errors import DataError, InputError
from invariscope.zoo.architectures import is_segmenter

if TYPE_CHECKING:
    from invariscope.zoo.checkpoint import Checkpoint
    from invariscope.zoo.datasets import ImageSet

OF_IMAGES = ("invariance", "surface", "predictions", "swaps")
"""Collectors of what a network says of an image as a whole; `segmentation` is of what it says of each pixel."""


def default_collectors(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """What is measured where nobody says: MSB, and the scores of whole images or, of segmenters alone, of pixels."""
    only_maps = bool(checkpoints) and all(is_segmenter(checkpoint.model) for checkpoint in checkpoints)
    return ("checkpoints", "layers", "segmentation" if only_maps else "invariance")


def check_tasks(checkpoints: Sequence[Checkpoint], names: Collection[str], images: ImageSet) -> None:
    """Refuse, before anything is measured, collectors that cannot measure these networks on these images.

    Networks other than those of ``zoo:`` say what they are when they run; each is then a failure of its own.

    Raises:
        InputError: scores of whole images of a segmenter, or of pixels of a classifier.
        DataError: scores of pixels on images without masks, scores of whole images on images without labels.
    """
    of_images = [name for name in names if name in OF_IMAGES]
    of_pixels = [name for name in names if name == "segmentation"]
    for checkpoint in checkpoints:
        if not checkpoint.model.startswith("zoo:"):
            continue
        segments = is_segmenter(checkpoint.model)
        for name in of_images if segments else of_pixels:
            what, instead = ("segments images", "segmentation") if segments else ("classifies images", "invariance")
            raise InputError(
                f"{checkpoint.name} ({checkpoint.model.partition('?')[0]}) {what}, which `{name}` does not measure: "
                f"collect `{instead}` instead, or measure others with --only"
            )
    if of_pixels and images.masks is None:
        raise DataError(f"{images.name} has no masks, which `segmentation` needs: take data with masks, such as shapes")
    if of_images and not images.classes:
        need = f"{images.name} has no labels, which `{of_images[0]}` needs"
        raise DataError(f"{need}: collect `segmentation`, or take data with labels")
