"""How it is measured: shifts, invariance scores and MSB of any network, and the engine that measures whole zoos.

Three lines in a notebook::

    from invariscope.collectors import ShiftPlan, measure_invariance, measure_msb
    measure_msb(model, images)
    measure_invariance(model, images, labels, ShiftPlan.sampled(len(images), max_shift=4, kind="circular"))

Importing this package does not import torch; the first use of a name does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invariscope.collectors.engine.run import collect
    from invariscope.collectors.measure.attack import Attack
    from invariscope.collectors.measure.attacks import PixelModel, measure_attack
    from invariscope.collectors.measure.corruptions import corrupt
    from invariscope.collectors.measure.cost import measure_cost
    from invariscope.collectors.measure.drift import measure_drift
    from invariscope.collectors.measure.exactness import explain_invariance
    from invariscope.collectors.measure.invariance import measure_invariance, measure_surface
    from invariscope.collectors.measure.msb import measure_msb
    from invariscope.collectors.measure.operator_error import operator_equivariance_error
    from invariscope.collectors.measure.shifts import ShiftPlan, apply_shift
    from invariscope.collectors.measure.swap import measure_swaps
    from invariscope.collectors.options import Options, register_collector
    from invariscope.collectors.schema import Collector
    from invariscope.collectors.shift_kinds import ShiftKind, register_shift_kind

_HOMES = {
    "Attack": "invariscope.collectors.measure.attack",
    "Collector": "invariscope.collectors.schema",
    "Options": "invariscope.collectors.options",
    "PixelModel": "invariscope.collectors.measure.attacks",
    "ShiftKind": "invariscope.collectors.shift_kinds",
    "ShiftPlan": "invariscope.collectors.measure.shifts",
    "apply_shift": "invariscope.collectors.measure.shifts",
    "collect": "invariscope.collectors.engine.run",
    "measure_cost": "invariscope.collectors.measure.cost",
    "corrupt": "invariscope.collectors.measure.corruptions",
    "explain_invariance": "invariscope.collectors.measure.exactness",
    "measure_attack": "invariscope.collectors.measure.attacks",
    "measure_drift": "invariscope.collectors.measure.drift",
    "measure_invariance": "invariscope.collectors.measure.invariance",
    "measure_msb": "invariscope.collectors.measure.msb",
    "measure_surface": "invariscope.collectors.measure.invariance",
    "measure_swaps": "invariscope.collectors.measure.swap",
    "operator_equivariance_error": "invariscope.collectors.measure.operator_error",
    "register_collector": "invariscope.collectors.options",
    "register_shift_kind": "invariscope.collectors.shift_kinds",
}

__all__ = [
    "Attack",
    "Collector",
    "Options",
    "PixelModel",
    "ShiftKind",
    "ShiftPlan",
    "apply_shift",
    "collect",
    "corrupt",
    "explain_invariance",
    "measure_attack",
    "measure_cost",
    "measure_drift",
    "measure_invariance",
    "measure_msb",
    "measure_surface",
    "measure_swaps",
    "operator_equivariance_error",
    "register_collector",
    "register_shift_kind",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from invariscope.base.extras import needs_extras

        with needs_extras(f"invariscope.collectors.{name}"):
            return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
