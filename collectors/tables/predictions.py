"""The table ``predictions``: what a network says of every image, unshifted and under every shift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from invariscope.collectors.schema import INT, PLAN, PLAN_CONDITIONS, PRECISION, REAL, Collector, column

if TYPE_CHECKING:
    import pandas as pd

    from invariscope.collectors.engine.subject import Subject
    from invariscope.collectors.options import Options
    from invariscope.zoo.checkpoint import Checkpoint

_WHOLE, _PROBABILITIES = pa.list_(pa.int32()), pa.list_(pa.float64())

COLUMNS = (
    *PLAN,
    PRECISION,
    column("image", INT, "", "index of the image in the data set"),
    column("label", INT, "class", "label"),
    column("clean_prediction", INT, "class", "top-1 class of the unshifted image"),
    column("clean_probability", REAL, "1", "softmax probability of that class on the unshifted image"),
    column("dy", _WHOLE, "input pixels", "shift down, per shift; 1/16 pixels for kind fractional"),
    column("dx", _WHOLE, "input pixels", "shift right, per shift; 1/16 pixels for kind fractional"),
    column("prediction", _WHOLE, "class", "top-1 class, per shift"),
    column("probability", _PROBABILITIES, "1", "softmax probability of the top-1 class, per shift"),
    column("drift_probability", _PROBABILITIES, "1", "probability of the unshifted prediction, per shift"),
)


def settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    """A task per shift kind."""
    return options.shifts(checkpoint)


def rows(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    """A row per image."""
    from invariscope.collectors.measure.invariance import plan_columns

    plan, predictions = subject.predictions(settings)
    return predictions.to_frame().assign(**plan_columns(plan))


COLLECTOR = Collector(
    "every prediction, to recompute any score from",
    COLUMNS,
    settings,
    rows,
    conditions=PLAN_CONDITIONS,
    scores="images",
    keeps_predictions=True,
)
