"""How it is measured: shifts, invariance scores and MSB of any network, and the engine that measures whole zoos.

Three lines in a notebook::

    from collectors import ShiftPlan, measure_invariance, measure_msb
    measure_msb(model, images)
    measure_invariance(model, images, labels, ShiftPlan.sampled(len(images), max_shift=4, kind="circular"))

Importing this package does not import torch; the first use of a name does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collectors.attack import Attack
    from collectors.attacks import PixelModel, measure_attack
    from collectors.corruptions import corrupt
    from collectors.cost import measure_cost
    from collectors.engine import collect
    from collectors.invariance import measure_invariance, measure_surface
    from collectors.msb import measure_msb
    from collectors.shifts import ShiftPlan, apply_shift
    from collectors.swap import measure_swaps
    from collectors.tasks import Options

_HOMES = {
    "Attack": "collectors.attack",
    "Options": "collectors.tasks",
    "PixelModel": "collectors.attacks",
    "ShiftPlan": "collectors.shifts",
    "apply_shift": "collectors.shifts",
    "collect": "collectors.engine",
    "measure_cost": "collectors.cost",
    "corrupt": "collectors.corruptions",
    "measure_attack": "collectors.attacks",
    "measure_invariance": "collectors.invariance",
    "measure_msb": "collectors.msb",
    "measure_surface": "collectors.invariance",
    "measure_swaps": "collectors.swap",
}

__all__ = [
    "Attack",
    "Options",
    "PixelModel",
    "ShiftPlan",
    "apply_shift",
    "collect",
    "corrupt",
    "measure_attack",
    "measure_cost",
    "measure_invariance",
    "measure_msb",
    "measure_surface",
    "measure_swaps",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
