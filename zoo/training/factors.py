"""Factors of a training run: what the manifest says of it, for the analysis to group and to ablate by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from invariscope.zoo.operators import OperatorSpec
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.run import Run, operator_factors

_OF_RUN = ("alpha", "failure_weight", "wake_up")
_OF_OPERATOR = ("pool", "hard", "failure", "undo")


def told_settings(runs: Sequence[Run]) -> tuple[str, ...]:
    """The settings of an ablation that some run of a recipe has at another value than the default.

    They are ``alpha``, ``failure_weight`` and ``wake_up`` of runs whose operator has losses of its own, and ``pool``,
    ``hard``, ``failure`` and ``undo`` of operators that have such arguments, also inside of another.
    """
    defaults = Run()
    found = set()
    for run in runs:
        for operator in (run.operator, *run.evaluate_as):
            for name, value in _settings(run, operator).items():
                default = getattr(defaults, name) if name in _OF_RUN else _default(operator, name)
                if value != default:
                    found.add(name)
    return tuple(name for name in (*_OF_RUN, *_OF_OPERATOR) if name in found)


def run_factors(run: Run, operator: OperatorSpec | str, told: Sequence[str]) -> dict[str, Any]:
    """The factors of a run whose network is built with ``operator``; of the settings of an ablation those ``told``."""
    factors = {
        **operator_factors(operator),
        "architecture": run.architecture_name,
        "padding_mode": run.padding_mode,
        "training_data": run.data,
        "seed": run.seed,
        "run": run.id,
        "draw": run.draw or None,
        **{name: value for name, value in _settings(run, operator).items() if name in told},
        **run.factors,
    }
    return {name: value for name, value in factors.items() if value is not None}


def _settings(run: Run, operator: OperatorSpec | str) -> dict[str, Any]:
    if not isinstance(operator, OperatorSpec):
        return {}
    settings: dict[str, Any] = {}
    for spec in operator.within():
        cls = spec.operator_class
        if cls.losses is not Downsample.losses:
            settings |= {name: getattr(run, name) for name in _OF_RUN}
        settings |= {name: spec.value(name) for name in _OF_OPERATOR if name in cls.arguments()}
    return settings


def _default(operator: OperatorSpec | str, name: str) -> Any:
    specs = operator.within() if isinstance(operator, OperatorSpec) else ()
    known = (spec.operator_class.arguments() for spec in specs)
    return next((arguments[name].default for arguments in known if name in arguments), None)
