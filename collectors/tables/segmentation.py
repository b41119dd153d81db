"""The table ``segmentation``: mIoU, pixel accuracy and per-pixel consistency of networks that predict every pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invariscope.collectors.options import OWN, PassOptions, with_own_accuracy
from invariscope.collectors.schema import (
    INT,
    PLAN,
    PLAN_CONDITIONS,
    REAL,
    TEXT,
    UNSHIFTED,
    Collector,
    column,
    optional,
)

if TYPE_CHECKING:
    import pandas as pd

    from invariscope.collectors.engine.subject import Subject
    from invariscope.collectors.options import Options
    from invariscope.zoo.checkpoint import Checkpoint

COLUMNS = (
    *PLAN,
    column("score", TEXT, "", "name of the score"),
    optional("value", REAL, "1", "the score; void pixels are left out of it"),
    optional("se", REAL, "1", "standard error, images as the sampling unit"),
    optional("low", REAL, "1", "lower end of the 95 % interval"),
    optional("high", REAL, "1", "upper end of the 95 % interval"),
    column("n_images", INT, "images", "images with pixels that are not void"),
    optional("n_pairs", INT, "pairs", "pairs of shifts compared, over all images; 0 for accuracies"),
    optional("n_classes", INT, "classes", "mIoU: the data's classes in the masks or predicted, that it is the mean of"),
    optional("void_share", REAL, "1", "share of the masks' pixels that are void"),
    optional("classes_absent", TEXT, "", "classes of the data set with no pixel in the masks, comma between"),
)


def settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    """A task for the unshifted images, and one per shift kind."""
    return [{"kind": UNSHIFTED, **options[PassOptions].settings()}, *map(with_own_accuracy, options.shifts(checkpoint))]


def rows(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    """A row per score."""
    from invariscope.collectors.measure.segmentation import CHECKED_MAPS, measure_segmentation

    is_shifted = settings["kind"] != UNSHIFTED
    images = subject.prepared(settings["crop_size"] if is_shifted else None)
    return measure_segmentation(
        subject.network(settings, CHECKED_MAPS),
        images,
        plans=[subject.plan(settings, len(images))] if is_shifted else [],
        unshifted=not is_shifted or settings.get(OWN, False),
        batch_size=subject.maps_per_pass,
        fold=False,
    )


COLLECTOR = Collector(
    "mIoU and per-pixel consistency",
    COLUMNS,
    settings,
    rows,
    conditions=PLAN_CONDITIONS,
    scores="pixels",
    default=True,
    definition=2,  # intervals are Wilson's and on the logit scale
)
