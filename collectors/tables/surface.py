"""The table ``surface``: agreement with the unshifted prediction, and accuracy, over a grid of shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invariscope.base.errors import ShiftError
from invariscope.collectors.options import at_least
from invariscope.collectors.schema import INT, PLAN, PLAN_CONDITIONS, PRECISION, REAL, Collector, column, optional

if TYPE_CHECKING:
    import pandas as pd

    from invariscope.collectors.engine.subject import Subject
    from invariscope.collectors.options import Options
    from invariscope.zoo.checkpoint import Checkpoint


@dataclass(frozen=True)
class SurfaceOptions:
    """Surface: predictions at every shift of a grid."""

    surface_images: int = 256
    """First images on which the shift surface is measured."""
    surface_step: int = 1
    """Step of the shift surface, in input pixels."""

    def __post_init__(self) -> None:
        at_least(1, self, "surface_images", "surface_step")


COLUMNS = (
    *PLAN,
    PRECISION,
    column("dy", INT, "input pixels", "shift down"),
    column("dx", INT, "input pixels", "shift right"),
    column("agreement", REAL, "1", "share of images predicted as without the shift"),
    optional("agreement_se", REAL, "1", "its standard error over images"),
    optional(
        "accuracy", REAL, "1", "share of images predicted right under the shift; missing where there are no labels"
    ),
    optional("accuracy_se", REAL, "1", "its standard error over images"),
    column("n_images", INT, "images", "images measured"),
)


def settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    """A task per shift kind; a grid draws nothing by chance."""
    chosen = options[SurfaceOptions]
    for shift in (shifts := options.shifts(checkpoint)):
        if shift["max_shift"] % chosen.surface_step:
            raise ShiftError(
                f"{checkpoint.name}: surface_step is {chosen.surface_step} and does not divide max_shift, "
                f"{shift['max_shift']}: take a step that does, so that both ends are on the grid"
            )
    grid = {"images": chosen.surface_images, "step": chosen.surface_step}
    return [
        {**{name: value for name, value in shift.items() if name not in ("n_shifts", "seed")}, **grid}
        for shift in shifts
    ]


def rows(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    """A row per shift."""
    from invariscope.collectors.measure.invariance import measure_surface

    images = subject.prepared(settings["crop_size"], settings["images"])
    return measure_surface(
        subject.network(settings),
        images,
        subject.images.labels[: len(images)],
        settings["max_shift"],
        settings["kind"],
        step=settings["step"],
        fill=settings["fill"],
        **subject.pass_options(settings, len(images)),
    )


COLLECTOR = Collector(
    "agreement and accuracy over a grid of shifts",
    COLUMNS,
    settings,
    rows,
    SurfaceOptions,
    conditions=PLAN_CONDITIONS,
    scores="images",
)
