"""Which collectors suit a zoo and a data set, found before anything is measured and without torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from invariscope.base.errors import DataError, InputError
from invariscope.collectors.schema import COLLECTORS, Scores, default_collectors
from invariscope.zoo.architectures import is_segmenter

if TYPE_CHECKING:
    from invariscope.zoo.checkpoint import Checkpoint
    from invariscope.zoo.datasets import ImageSet


LABEL_SETS = {"digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "shapes"}
"""Names of label sets that differ from one another whoever wrote them; what others stand for is not known."""


def suitable_collectors(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """What is measured where nobody says: MSB, and the scores of whole images or, of segmenters alone, of pixels."""
    only_maps = bool(checkpoints) and all(is_segmenter(checkpoint.parts) for checkpoint in checkpoints)
    return default_collectors("pixels" if only_maps else "images")


def check_tasks(checkpoints: Sequence[Checkpoint], names: Collection[str], images: ImageSet) -> None:
    """Refuse, before anything is measured, collectors that cannot measure these networks on these images.

    Networks other than those of ``zoo:`` say what they are when they run; each is then a failure of its own.

    Raises:
        InputError: scores of whole images of a segmenter, or of pixels of a classifier.
        DataError: scores of pixels on images without masks, scores of whole images on masks, and what needs labels on
            images without.
    """
    wanted: dict[Scores, list[str]] = {"images": [], "pixels": []}
    for name in names:
        if (scores := COLLECTORS[name].scores) is not None:
            wanted[scores].append(name)
    for checkpoint in checkpoints:
        if checkpoint.parts.scheme != "zoo":
            continue
        says: Scores = "pixels" if is_segmenter(checkpoint.parts) else "images"
        for name in wanted["images" if says == "pixels" else "pixels"]:
            what = "segments images" if says == "pixels" else "classifies images"
            raise InputError(
                f"{checkpoint.name} ({checkpoint.model.partition('?')[0]}) {what}, which `{name}` does not measure: "
                f"collect `{_default(says)}` instead, or measure others with --only"
            )
    if wanted["pixels"] and images.masks is None:
        need = f"{images.name} has no masks, which `{wanted['pixels'][0]}` needs"
        raise DataError(f"{need}: take data with masks, such as shapes")
    if wanted["images"] and not images.labelled and images.masks is not None:
        need = f"{images.name} has no labels, which `{wanted['images'][0]}` needs"
        raise DataError(f"{need}: collect `{_default('pixels')}`, or take data with labels")
    if not images.labelled and (lacking := [name for name in names if COLLECTORS[name].of_labels]):
        raise DataError(
            f"{images.name} has no labels, which `{lacking[0]}` needs: take data with labels, or collect "
            f"`{_default('images')}`, whose consistency needs none"
        )
    measured = images.name.partition("/")[0]
    for checkpoint in checkpoints:
        if checkpoint.labels != measured and {checkpoint.labels, measured} <= LABEL_SETS and checkpoint.classes is None:
            raise DataError(
                f"{checkpoint.name} has the labels {checkpoint.labels}, and {images.name} those of {measured}: measure "
                "others with --only, take other data, or correct labels in the manifest"
            )


def _default(scores: Scores) -> str:
    """The collector of such scores that is measured where nobody says."""
    return next(name for name in default_collectors(scores) if COLLECTORS[name].scores == scores)
