"""The values of an operator's arguments in a specification: how a text is read, and how a value is spelled."""

from __future__ import annotations

import inspect
import types
from typing import Any, Literal, Union, get_args, get_origin

from invariscope.base.errors import OperatorError

SPELLED = (bool, int, float, str, types.NoneType)
"""The types of value that a specification can give."""

_WORDS = {"true": True, "false": False, "none": None}


def spell(value: Any) -> str:
    """``4.0`` -> ``4``, ``True`` -> ``true``, ``None`` -> ``none``: what :func:`read_value` reads back."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def kinds_of(parameter: inspect.Parameter) -> tuple[type, ...]:
    """The types that an argument takes: those of its annotation, or of its default where it has none.

    Raises:
        OperatorError: for an annotation that no text can be read as.
    """
    wanted = parameter.annotation
    if wanted is inspect.Parameter.empty:
        return SPELLED if parameter.default is None else (type(parameter.default),)
    if get_origin(wanted) is Literal:
        return tuple({type(choice) for choice in get_args(wanted)})
    kinds = get_args(wanted) if get_origin(wanted) in (types.UnionType, Union) else (wanted,)
    kinds = tuple(types.NoneType if kind is None else kind for kind in kinds)
    if not all(kind in SPELLED for kind in kinds):
        raise OperatorError(
            f"the argument {parameter.name!r} is annotated as {wanted}: take int, float, str, bool, None, "
            "unions of these, or a Literal"
        )
    return kinds


def read_value(parameter: inspect.Parameter, text: str) -> Any:
    """The value that ``text`` gives to an argument, by the argument's annotation.

    Raises:
        OperatorError: for a value of another type, or none of a ``Literal``'s.
    """
    kinds = kinds_of(parameter)
    value: Any = _WORDS.get(text.lower(), text)
    for kind in (int, float):
        if isinstance(value, str):
            try:
                value = kind(value)
            except ValueError:
                continue
    if type(value) is int and int not in kinds and float in kinds:
        value = float(value)
    if type(value) not in kinds:
        if str not in kinds:
            names = " | ".join(kind.__name__.replace("NoneType", "None") for kind in kinds)
            raise OperatorError(f"{parameter.name} is {text!r}, and must be of type {names}")
        value = text
    if get_origin(parameter.annotation) is Literal and value not in get_args(parameter.annotation):
        known = ", ".join(map(spell, get_args(parameter.annotation)))
        raise OperatorError(f"{parameter.name} is {text!r}, and must be one of {known}")
    return value
