"""The table ``cost``: parameters, multiply-adds, and timings beside the same network with max pooling.

Here timings are the measurement: two runs have the same parameters and multiply-adds, and no two the same seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invariscope.collectors.options import PassOptions, at_least, at_most
from invariscope.collectors.schema import INT, REAL, TEXT, Collector, column, optional

if TYPE_CHECKING:
    import pandas as pd

    from invariscope.collectors.engine.subject import Subject
    from invariscope.collectors.options import Options
    from invariscope.zoo.checkpoint import Checkpoint


@dataclass(frozen=True)
class CostOptions:
    """Cost: parameters, multiply-adds and timings; with one job."""

    cost_batch: int = 32
    """Images per timed pass."""
    cost_repeats: int = 20
    """Timed passes, each beside one of the network with max pooling."""

    def __post_init__(self) -> None:
        at_least(1, self, "cost_batch", "cost_repeats")
        at_most(10_000, self, "cost_batch", "cost_repeats")


COLUMNS = (
    column("quantity", TEXT, "", "parameters, multiply_adds, latency or training_step"),
    column("value", REAL, "unit", "the quantity; of timings the median"),
    column("unit", TEXT, "", "parameters, multiply-adds or s"),
    optional("low", REAL, "unit", "timings: first quartile"),
    optional("high", REAL, "unit", "timings: third quartile"),
    optional("relative", REAL, "1", "value as a share of the reference's; of timings measured in turn with it"),
    optional("relative_low", REAL, "1", "timings: first quartile of the ratios of each pair"),
    optional("relative_high", REAL, "1", "timings: third quartile of the ratios of each pair"),
    optional("reference", TEXT, "", "operator that the network was compared with, all else equal"),
    column("input_size", TEXT, "input pixels", "size of the input, height x width"),
    column("batch_size", INT, "images", "images of one pass"),
    optional("repeats", INT, "", "timings: passes timed"),
    optional("threads", INT, "", "timings: threads of the process"),
    optional("device", TEXT, "", "timings: device, with its name"),
)


def settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    """One task: costs depend on the size of the images alone, whatever they show."""
    chosen = options[CostOptions]
    return [
        {
            "size": checkpoint.input.size,
            "batch": chosen.cost_batch,
            "repeats": chosen.cost_repeats,
            "device": options[PassOptions].device,
        }
    ]


def rows(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    """A row per quantity."""
    from invariscope.collectors.measure.cost import measure_model_cost

    batch = settings["batch"]
    images = subject.prepared(limit=batch)[:]
    # Fewer images than a batch stand in it several times: a pass takes as long whatever they show.
    images = images.repeat(-(-batch // len(images)), 1, 1, 1)[:batch]
    checkpoint = subject.checkpoint
    return measure_model_cost(
        checkpoint.model, images, checkpoint.folder, repeats=settings["repeats"], device=settings["device"]
    )


COLLECTOR = Collector(
    "parameters, multiply-adds, and timings beside max pooling's",
    COLUMNS,
    settings,
    rows,
    CostOptions,
    of_data=False,
    alone=True,
)
