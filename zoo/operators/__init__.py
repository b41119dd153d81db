"""The downsampling operators by name: a registry, the specification strings (``soft(beta=4)``) and their builder.

Importing this package does not import torch; asking for an operator does.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from invariscope.base.errors import OperatorError
from invariscope.base.names import unknown
from invariscope.base.registry import Registry

if TYPE_CHECKING:
    from invariscope.zoo.operators.base import Downsample

OPERATORS = Registry(
    "operator",
    {
        "max": "invariscope.zoo.operators.pooling:Max",
        "avg": "invariscope.zoo.operators.pooling:Avg",
        "subsample": "invariscope.zoo.operators.pooling:Subsample",
        "lp": "invariscope.zoo.operators.pooling:Lp",
        "soft": "invariscope.zoo.operators.pooling:Soft",
        "blur": "invariscope.zoo.operators.blur:Blur",
        "maxblur": "invariscope.zoo.operators.blur:MaxBlur",
        "ddac": "invariscope.zoo.operators.blur:DDAC",
        "aps": "invariscope.zoo.operators.polyphase:APS",
        "lps": "invariscope.zoo.operators.polyphase:LPS",
        "tips": "invariscope.zoo.operators.tips:TIPS",
    },
    OperatorError,
    group="invariscope.operators",
)
"""Every operator of the project, by name: ``OPERATORS["tips"]`` is its class."""

_CLASSES = {
    "Downsample": "base",
    "Max": "pooling",
    "Avg": "pooling",
    "Subsample": "pooling",
    "Lp": "pooling",
    "Soft": "pooling",
    "Blur": "blur",
    "MaxBlur": "blur",
    "DDAC": "blur",
    "APS": "polyphase",
    "LPS": "polyphase",
    "TIPS": "tips",
}

__all__ = ["OPERATORS", "OperatorSpec", "build_operator", "operator_arguments", "parse_operator", *_CLASSES]

_COMMON = ("channels", "stride", "padding_mode")
_WORDS = {"true": True, "false": False, "none": None}
_FORM = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*(?:\(\s*(?P<arguments>[^()]*?)\s*\)\s*)?")


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(importlib.import_module(f"invariscope.zoo.operators.{_CLASSES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class OperatorSpec:
    """An operator's name and the arguments given to it: what ``soft(beta=4)`` says."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def canonical(self) -> str:
        """The one spelling of this specification: ``soft(beta=4)``.

        It holds the arguments that differ from their defaults, and always the strength, in the order of the signature;
        ``parse_operator(spec.canonical)`` builds the same operator.
        """
        strength = OPERATORS[self.name].strength_argument
        shown = []
        for parameter in operator_arguments(self.name).values():
            value = self.arguments.get(parameter.name, parameter.default)
            if value != parameter.default or parameter.name == strength:
                shown.append(f"{parameter.name}={_spell(value)}")
        return f"{self.name}({', '.join(shown)})" if shown else self.name

    @property
    def strength(self) -> float | None:
        """The value of the operator's one knob (beta of ``soft``, p of ``lp``, m of ``blur``); None without a knob."""
        knob = OPERATORS[self.name].strength_argument
        if knob is None:
            return None
        return float(self.arguments.get(knob, operator_arguments(self.name)[knob].default))


def operator_arguments(name: str) -> dict[str, inspect.Parameter]:
    """The arguments that a specification of the operator can give, in the order of its positional values."""
    signature = inspect.signature(OPERATORS[name], eval_str=True)
    return {key: parameter for key, parameter in signature.parameters.items() if key not in _COMMON}


def parse_operator(spec: str | OperatorSpec) -> OperatorSpec:
    """Read ``name``, ``name(value, ...)`` or ``name(argument=value, ...)``; a specification already read is returned.

    Values without a name go to the operator's arguments in the order of :func:`operator_arguments`.

    Raises:
        OperatorError: for a text of another form, an unknown operator or argument, or a value of the wrong type.
    """
    if isinstance(spec, OperatorSpec):
        return spec
    form = _FORM.fullmatch(spec) if isinstance(spec, str) else None
    if form is None:
        raise OperatorError(f"operator {spec!r} cannot be read: write it as soft, soft(4) or soft(beta=4, kernel=2)")
    name, inside = form["name"], form["arguments"]
    if name not in OPERATORS:
        raise OperatorError(unknown("operator", name, OPERATORS))
    known = operator_arguments(name)
    arguments: dict[str, Any] = {}
    named = False
    for position, part in enumerate(inside.split(",") if inside else []):
        key, equals, text = (piece.strip() for piece in part.rpartition("="))
        if equals:
            named = True
        elif named or position >= len(known):
            raise OperatorError(
                f"operator {spec!r}: {text!r} stands where no argument of {name} does: "
                f"name it, {name} takes {_listed(known)}"
            )
        else:
            key = list(known)[position]
        if key not in known:
            raise OperatorError(f"operator {spec!r}: {name} has no argument {key!r}, it takes {_listed(known)}")
        if key in arguments:
            raise OperatorError(f"operator {spec!r}: {key} is given twice, give it once")
        arguments[key] = _read(spec, known[key], text)
    return OperatorSpec(name, arguments)


def build_operator(spec: str | OperatorSpec, channels: int, stride: int = 2, padding_mode: str = "zeros") -> Downsample:
    """The operator of a specification, for ``channels`` channels.

    Raises:
        OperatorError: when the specification cannot be read, or the operator refuses a value.
    """
    parsed = parse_operator(spec)
    operator: Downsample = OPERATORS[parsed.name](channels, stride, padding_mode, **parsed.arguments)
    return operator


def _listed(known: Mapping[str, inspect.Parameter]) -> str:
    return ", ".join(f"{key}={_spell(parameter.default)}" for key, parameter in known.items()) or "no arguments"


def _spell(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _read(spec: str, parameter: inspect.Parameter, text: str) -> Any:
    """The value that ``text`` gives to a parameter, by the parameter's annotation."""
    wanted = parameter.annotation
    value: Any = _WORDS.get(text.lower(), text)
    for kind in (int, float):
        if isinstance(value, str):
            try:
                value = kind(value)
            except ValueError:
                continue
    if isinstance(value, int) and not isinstance(value, bool) and wanted is float:
        return float(value)
    if isinstance(value, bool) and wanted is not bool:
        value = text
    if value is text or not isinstance(value, wanted):
        if wanted is str:
            return text
        kinds = getattr(wanted, "__name__", str(wanted)).replace("NoneType", "None")
        raise OperatorError(f"operator {spec!r}: {parameter.name} is {text!r}, and must be of type {kinds}")
    return value
