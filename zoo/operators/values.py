"""The values of an operator's arguments in a specification: how a text is read, and how a value is spelled."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

from invariscope.base.errors import OperatorError
from invariscope.zoo.operators.grammar import Group, Part, shortened

SPELLED = (bool, int, float, str, types.NoneType)
"""The types of a single value that a specification can give."""

LARGEST = 1024
"""The largest whole number that an argument takes: kernels grow with its square."""

_WORDS = {"true": True, "false": False, "none": None}


class Specification:
    """A value that is itself a specification of an operator, with one spelling."""

    @property
    def canonical(self) -> str:
        """The spelling."""
        raise NotImplementedError


def spell(value: Any) -> str:
    """``4.0`` -> ``4``, ``True`` -> ``true``, ``None`` -> ``none``, ``(0.5, 0.5)``: what :func:`read_value` reads."""
    if isinstance(value, Specification):
        return value.canonical
    if isinstance(value, tuple):
        return f"({', '.join(map(spell, value))})"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def kinds_of(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """The types that an argument takes: those of its annotation, or of its default where it has none.

    An argument whose annotation holds ``OperatorSpec`` takes a specification, and nothing else.

    Raises:
        OperatorError: for an annotation, or a default without one, that no text can be read as.
    """
    wanted = parameter.annotation
    if wanted is inspect.Parameter.empty and parameter.default is None:
        return SPELLED
    if wanted is inspect.Parameter.empty:
        wanted = type(parameter.default)
    if get_origin(wanted) is Literal:
        return tuple({type(choice) for choice in get_args(wanted)})
    kinds = get_args(wanted) if get_origin(wanted) in (types.UnionType, Union) else (wanted,)
    kinds = tuple(types.NoneType if kind is None else kind for kind in kinds)
    specification = next((kind for kind in kinds if _is_specification(kind)), None)
    if specification is not None:
        return (specification,)
    if not all(kind in SPELLED or _item(kind) in SPELLED for kind in kinds):
        raise OperatorError(
            f"the argument {parameter.name!r} is annotated as {wanted}: take int, float, str, bool, None, "
            "tuple[float, ...], OperatorSpec, unions of these, or a Literal"
        )
    return kinds


def takes_specification(parameter: inspect.Parameter) -> bool:
    """Whether an argument is an operator of its own."""
    return any(map(_is_specification, kinds_of(parameter)))


def read_value(parameter: inspect.Parameter, part: Part, read_operator: Callable[[Part], Any]) -> Any:
    """The value that a part of a specification gives to an argument, by the argument's annotation.

    ``read_operator`` reads a part that is a specification itself.

    Raises:
        OperatorError: for a value of another type, or none of a ``Literal``'s.
    """
    kinds = kinds_of(parameter)
    if takes_specification(parameter):
        return read_operator(part)
    items = tuple(item for kind in kinds if (item := _item(kind)) is not None)
    if isinstance(part, Group) and items:
        return tuple(_read(f"{parameter.name}[{place}]", value, items) for place, value in enumerate(part.values))
    value = _read(parameter.name, part, kinds)
    if get_origin(parameter.annotation) is Literal and value not in get_args(parameter.annotation):
        known = ", ".join(map(spell, get_args(parameter.annotation)))
        raise OperatorError(f"{parameter.name} is {part.text!r}, and must be one of {known}")
    return value


def _read(name: str, part: Part, kinds: tuple[Any, ...]) -> Any:
    """A single value."""
    text = part.text
    value: Any = _WORDS.get(text.lower(), text)
    for kind in (int, float):
        if isinstance(value, str):
            try:
                value = kind(value)
            except ValueError:
                continue
    if type(value) is int and abs(value) > LARGEST:
        raise OperatorError(f"{name} is {shortened(text)[1:-1]}, and must be at most {LARGEST}")
    if type(value) is int and int not in kinds and float in kinds:
        value = float(value)
    if type(value) not in kinds:
        if str not in kinds or isinstance(part, Group):
            names = " | ".join(_named(kind) for kind in kinds)
            raise OperatorError(f"{name} is {text!r}, and must be of type {names}")
        value = text
    return value


def _named(kind: Any) -> str:
    item = _item(kind)
    return kind.__name__.replace("NoneType", "None") if item is None else f"tuple of {item.__name__}"


def _item(kind: Any) -> Any:
    """What a ``tuple[item, ...]`` holds; None for another type."""
    parts = get_args(kind) if get_origin(kind) is tuple else ()
    return parts[0] if len(parts) == 2 and parts[1] is Ellipsis else None


def _is_specification(kind: Any) -> bool:
    return isinstance(kind, type) and get_origin(kind) is None and issubclass(kind, Specification)
