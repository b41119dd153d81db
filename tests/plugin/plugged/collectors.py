"""A collector: how large the logits are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invariscope.collectors.schema import INT, REAL, Collector, column

if TYPE_CHECKING:
    import pandas as pd

    from invariscope.collectors import Options
    from invariscope.collectors.engine.subject import Subject
    from invariscope.zoo.checkpoint import Checkpoint


@dataclass(frozen=True)
class LogitsOptions:
    """Logits: how large they are."""

    logits_images: int = 8
    """Images whose logits are looked at."""


def settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    """One task."""
    return [{"images": options[LogitsOptions].logits_images}]


def rows(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    """One row: the mean of the absolute logits."""
    import pandas as pd
    import torch

    images = subject.prepared(limit=settings["images"])[:]
    with torch.no_grad():
        size = subject.model(images).abs().mean().item()
    return pd.DataFrame({"mean_size": [size], "n_images": [len(images)]})


COLUMNS = (
    column("mean_size", REAL, "logits", "mean absolute value of the logits"),
    column("n_images", INT, "images", "images that they are of"),
)
COLLECTOR = Collector("how large the logits are", COLUMNS, settings, rows, LogitsOptions)
