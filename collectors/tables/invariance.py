"""The table ``invariance``: accuracy, and every shift-invariance score under each shift kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invariscope.base.errors import DataError
from invariscope.collectors.options import OWN, PassOptions, with_own_accuracy
from invariscope.collectors.schema import (
    INT,
    PLAN,
    PLAN_CONDITIONS,
    PRECISION,
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

TARGET = "target_se"
"""Setting of the tasks that stop early; others do not have it, so that their keys are as they were."""


@dataclass(frozen=True)
class InvarianceOptions:
    """Invariance: accuracy and the scores under shifts."""

    target_se: float | None = None
    """Stop measuring a checkpoint under a kind of shift once the standard error of its consistency is so small, looked
    at after every 256 images: 0.005 is about one point either way. By default all images are measured."""

    def __post_init__(self) -> None:
        if self.target_se is not None and not 0 < self.target_se < 1:
            raise DataError(f"target_se is {self.target_se:g}: give a standard error between 0 and 1, such as 0.005")


COLUMNS = (
    *PLAN,
    PRECISION,
    column("score", TEXT, "", "name of the score"),
    optional("value", REAL, "1", "the score"),
    optional("se", REAL, "1", "standard error, images as the sampling unit"),
    optional("low", REAL, "1", "lower end of the 95 % interval"),
    optional("high", REAL, "1", "upper end of the 95 % interval"),
    column("n_images", INT, "images", "images measured"),
    column("n_pairs", INT, "pairs", "pairs of shifts compared, over all images; 0 for accuracy"),
)


def settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    """A task for the unshifted images, and one per shift kind."""
    target = options[InvarianceOptions].target_se
    stopping = {} if target is None else {TARGET: target}
    shifted = [{**with_own_accuracy(plan), **stopping} for plan in options.shifts(checkpoint)]
    return [{"kind": UNSHIFTED, **options[PassOptions].settings()}, *shifted]


def rows(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    """A row per score; of views of another size than the images, that of the accuracy of the view at the centre too."""
    import pandas as pd

    from invariscope.collectors.measure.invariance import accuracy_frame, plan_columns, score, unlabelled_frame

    if settings["kind"] == UNSHIFTED and not subject.images.labelled:
        return unlabelled_frame(0)
    if settings["kind"] == UNSHIFTED:
        return accuracy_frame(subject.unshifted(settings).prediction == subject.images.labels.numpy())
    passes = {name: value for name, value in settings.items() if name not in (OWN, TARGET)}
    plan, predictions = subject.predictions(passes, settings.get(TARGET))
    made = score(predictions, plan)
    if settings.get(OWN) and subject.images.labelled:
        made = pd.concat([accuracy_frame(predictions.clean_prediction == predictions.label), made], ignore_index=True)
    return made.assign(**plan_columns(plan))


def remark(rows: pd.DataFrame) -> str | None:
    """That the images have no labels."""
    lacking = (rows["score"] == "accuracy") & rows["value"].isna()
    return "no labels: accuracy and fidelity are missing" if lacking.any() else None


COLLECTOR = Collector(
    "accuracy and shift-invariance scores",
    COLUMNS,
    settings,
    rows,
    conditions=PLAN_CONDITIONS,
    options=InvarianceOptions,
    scores="images",
    default=True,
    remark=remark,
    definition=2,  # intervals are Wilson's and on the logit scale
)
