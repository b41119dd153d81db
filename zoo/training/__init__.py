"""Training: from a run of a recipe to its checkpoints, and from a recipe to a zoo that can be resumed.

``tasks`` is what a network learns, ``trainer`` one run, ``state`` what it goes on from, ``zoos`` a recipe's runs and
their files. Importing this package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invariscope.zoo.training.augmentation import random_shift
    from invariscope.zoo.training.trainer import DivergedError, Snapshot, input_spec, total_loss, train_run
    from invariscope.zoo.training.zoos import METADATA_KEY, Conditions, TrainReport, train_recipe

__all__ = [
    "METADATA_KEY",
    "Conditions",
    "DivergedError",
    "Snapshot",
    "TrainReport",
    "input_spec",
    "random_shift",
    "total_loss",
    "train_recipe",
    "train_run",
]

_MODULES = {
    "augmentation": ("random_shift",),
    "trainer": ("DivergedError", "Snapshot", "input_spec", "total_loss", "train_run"),
    "zoos": ("METADATA_KEY", "Conditions", "TrainReport", "train_recipe"),
}
_LAZY = {name: f"invariscope.zoo.training.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
