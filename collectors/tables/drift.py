"""The table ``drift``: how far the pooled features move under shifts, before and after every downsampling site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invariscope.collectors.options import at_least
from invariscope.collectors.schema import (
    INT,
    PLAN,
    PLAN_CONDITIONS,
    PRECISION,
    TEXT,
    WATCHED,
    Collector,
    column,
    optional,
    with_errors,
)

if TYPE_CHECKING:
    import pandas as pd

    from invariscope.collectors.engine.subject import Subject
    from invariscope.collectors.options import Options
    from invariscope.zoo.checkpoint import Checkpoint


@dataclass(frozen=True)
class DriftOptions:
    """Drift: the features before and after every site, under shifts."""

    drift_images: int = 2048
    """First images of which the features are kept."""
    drift_border: bool = False
    """Measure each network once more with circular padding and circular shifts: what goes away is the border's."""

    def __post_init__(self) -> None:
        at_least(1, self, "drift_images")


_READINGS = {
    "drift_in": "squared change of the pooled map that goes in, relative to its spread over the images",
    "drift_out": "the same of the map that comes out; of the logits in the last row",
    "blame": "drift_in of the next site, or of the last map before the head, minus its own; in the last row the head's",
    "border": "what of drift_out goes away with circular padding and circular shifts, where that was asked for",
}


COLUMNS = (
    *PLAN,
    PRECISION,
    column("depth", INT, "", "index of the site in the order of the forward pass, from 0; one more for the head"),
    optional("site", TEXT, "", "module path of the site; null: the head, from the last map to the logits"),
    column("site_kind", TEXT, "", "kind of the site; logits: the head"),
    *with_errors(_READINGS),
    column("n_images", INT, "images", "images measured"),
    optional("reason", TEXT, "", "why there is no number, where there is none"),
)


def settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    """A task per shift kind and largest shift."""
    chosen = options[DriftOptions]
    own = {WATCHED: chosen.drift_images, "border": chosen.drift_border}
    return [{**shift, **own} for shift in options.shifts(checkpoint)]


def rows(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    """A row per site, and one for the head."""
    from invariscope.collectors.measure.border import with_border
    from invariscope.collectors.measure.invariance import plan_columns

    shifts = {name: value for name, value in settings.items() if name not in (WATCHED, "border")}
    sums = subject.drift(shifts)
    plan = subject.plan(shifts, len(subject.images))
    circular, reason = subject.circular_drift(shifts) if settings["border"] else (None, "it was not asked for")
    return with_border(sums, circular, reason).assign(**plan_columns(plan))


COLLECTOR = Collector(
    "drift of the features before and after every site",
    COLUMNS,
    settings,
    rows,
    DriftOptions,
    conditions=PLAN_CONDITIONS,
    scores="images",
    watches=True,
)
