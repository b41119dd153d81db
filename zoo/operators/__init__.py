"""The downsampling operators by name: a registry, the specifications (``soft(beta=4)``) and their builder.

``catalogue`` lists the operators, ``specification`` reads what asks for one, ``checking`` says what a class must do to
be one, ``base`` is what they derive from. Importing this package does not import torch; asking for an operator does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from invariscope.zoo.operators.catalogue import OPERATORS, OURS, register_operator
from invariscope.zoo.operators.specification import (
    STRIDED,
    Operatorlike,
    OperatorSpec,
    build_operator,
    operator_code_files,
    parse_operator,
    read_downsampling,
)

if TYPE_CHECKING:
    from invariscope.zoo.operators.base import Downsample

_CLASSES = {target.rpartition(":")[2]: target for target in OURS.values()} | {
    "Downsample": "invariscope.zoo.operators.base:Downsample"
}

__all__ = [
    "OPERATORS",
    "STRIDED",
    "Downsample",
    "OperatorSpec",
    "Operatorlike",
    "build_operator",
    "operator_code_files",
    "parse_operator",
    "read_downsampling",
    "register_operator",
]


def __getattr__(name: str) -> Any:
    """The class of an operator of ours, by its own name: ``invariscope.zoo.operators.TIPS``."""
    if name in _CLASSES:
        module, _, attribute = _CLASSES[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_CLASSES})
