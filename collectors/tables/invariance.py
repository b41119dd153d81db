"""The table ``invariance``: accuracy, and every shift-invariance score under each shift kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    return [{"kind": UNSHIFTED, **options[PassOptions].settings()}, *map(with_own_accuracy, options.shifts(checkpoint))]


def rows(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    """A row per score; of views of another size than the images, that of the accuracy of the view at the centre too."""
    import pandas as pd

    from invariscope.collectors.measure.invariance import accuracy_frame, plan_columns, score, unlabelled_frame

    if settings["kind"] == UNSHIFTED and not subject.images.labelled:
        return unlabelled_frame(0)
    if settings["kind"] == UNSHIFTED:
        return accuracy_frame(subject.unshifted(settings).prediction == subject.images.labels.numpy())
    plan, predictions = subject.predictions({name: value for name, value in settings.items() if name != OWN})
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
    scores="images",
    default=True,
    remark=remark,
    definition=2,  # intervals are Wilson's and on the logit scale
)
