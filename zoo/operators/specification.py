"""Specifications of operators: ``soft(beta=4)`` or ``python:my_ops.py:Mine(strength=2)``, read once and carried."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariscope.base.errors import InputError, OperatorError
from invariscope.base.files import sha256_file
from invariscope.base.names import unknown
from invariscope.zoo.operators.catalogue import OPERATORS
from invariscope.zoo.operators.values import read_value, spell
from invariscope.zoo.user_code import find_code, load_user_object

if TYPE_CHECKING:
    from invariscope.zoo.operators.base import Downsample

STRIDED = "strided"
"""In the place of an operator: the published network's strided convolutions, and no operator."""

_FORM = re.compile(
    r"\s*(?P<name>[A-Za-z_]\w*|python:(?P<file>[^()]+):(?P<attribute>[A-Za-z_]\w*))\s*"
    r"(?:\(\s*(?P<arguments>[^()]*?)\s*\)\s*)?"
)


@dataclass(frozen=True)
class OperatorSpec:
    """An operator and the arguments given to it: what ``soft(beta=4)`` says.

    Attributes:
        name: in :data:`OPERATORS`, or ``python:FILE.py:NAME``.
        arguments: those that are given, by name.
        folder: what a Python file is relative to; by default the working folder.
        given: the class itself, where a class was given and not its name.
        written: the text that was read.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    given: type[Downsample] | None = None
    written: str = field(default="", compare=False)

    @cached_property
    def operator_class(self) -> type[Downsample]:
        """The class, which has been checked where it is not one of ours.

        Raises:
            OperatorError: for an unknown name, a file that gives no such class, or a class that is no operator.
        """
        if self.given is not None:
            return self.given
        if self.code_file is None:
            found: type[Downsample] = OPERATORS[self.name]
            return found
        try:
            changed = self.code_file.stat().st_mtime_ns if self.code_file.is_file() else 0
            root = (self.folder or Path(".")).resolve()
            return _class_of_file(self.code_file.resolve(), self.name.rpartition(":")[2], root, changed)
        except InputError as problem:
            raise OperatorError(f"operator {self.name!r}: {problem}") from problem

    @property
    def code_file(self) -> Path | None:
        """The Python file whose code runs; none for a name or a class."""
        return _code_file(self.name, self.folder)

    @property
    def code_sha256(self) -> str | None:
        """Digest of :attr:`code_file`, for keys and settings that must change with it."""
        return None if self.code_file is None else sha256_file(self.code_file)

    @property
    def canonical(self) -> str:
        """The one spelling of this specification: ``soft(beta=4)``.

        It holds the arguments that differ from their defaults, and always the strength, in the order of the signature;
        ``parse_operator(spec.canonical, spec.folder)`` builds the same operator, a given class apart.
        """
        strength = self.operator_class.strength_argument
        shown = []
        for parameter in self.operator_class.arguments().values():
            value = self.arguments.get(parameter.name, parameter.default)
            if value != parameter.default or parameter.name == strength:
                shown.append(f"{parameter.name}={spell(value)}")
        return f"{self.name}({', '.join(shown)})" if shown else self.name

    @property
    def strength(self) -> float | None:
        """The value of the operator's one knob (beta of ``soft``, p of ``lp``, m of ``blur``); None without a knob."""
        knob = self.operator_class.strength_argument
        return None if knob is None else float(self.value(knob))

    @property
    def short(self) -> str:
        """The specification as it was written, without the path of a Python file: for names of runs and files."""
        return str(self) if self.code_file is None else str(self).rpartition(":")[2]

    def value(self, argument: str) -> Any:
        """The value of an argument, given or by default."""
        return self.arguments.get(argument, self.operator_class.arguments()[argument].default)

    def seen_from(self, folder: Path) -> OperatorSpec:
        """The same operator, its Python file relative to another folder."""
        if self.code_file is None:
            return self
        file = Path(os.path.relpath(self.code_file.resolve(), folder.resolve())).as_posix()
        _, attribute = self.name.rsplit(":", 1)
        name = f"python:{file}:{attribute}"
        return OperatorSpec(name, self.arguments, folder, None, str(self).replace(self.name, name, 1))

    def __str__(self) -> str:
        return self.written or self.canonical

    def __getstate__(self) -> dict[str, Any]:
        # The class of a name or a file is found anew in another process, which may not be able to import it.
        return {key: value for key, value in self.__dict__.items() if key != "operator_class"}


Operatorlike = str | OperatorSpec | type | partial
"""What stands for an operator where one is asked for: see :func:`parse_operator`."""


def parse_operator(spec: Operatorlike, folder: str | Path | None = None) -> OperatorSpec:
    """Read a specification: ``name``, ``name(value, ...)`` or ``name(argument=value, ...)``.

    The name is one of :data:`OPERATORS`, or ``python:FILE.py:NAME``: a class of a Python file, relative to ``folder``
    (by default the working folder), whose code runs. Values without a name go to the operator's arguments in the order
    of its signature. A specification already read is returned; a class that derives from ``Downsample``, registered or
    not, or ``functools.partial(MyClass, strength=2)``, becomes one. Classes that are not ours are checked, see
    :func:`register_operator`.

    Raises:
        OperatorError: for a text of another form, an unknown operator or argument, a value of the wrong type, or a
            class that is no operator.
    """
    if isinstance(spec, OperatorSpec):
        return spec
    if isinstance(spec, type | partial):
        return _of_class(spec)
    return _read_specification(spec, folder)


def read_downsampling(spec: Operatorlike, folder: str | Path | None = None) -> OperatorSpec | str:
    """A specification as :func:`parse_operator` reads it, or ``strided`` as it is."""
    return STRIDED if spec == STRIDED else parse_operator(spec, folder)


def operator_code_file(spec: object, folder: str | Path | None = None) -> Path | None:
    """The Python file that a specification runs, none where it runs none; nothing of it is read or run here."""
    if isinstance(spec, OperatorSpec):
        return spec.code_file
    form = _FORM.fullmatch(spec) if isinstance(spec, str) else None
    return None if form is None else _code_file(form["name"], folder)


def build_operator(spec: Operatorlike, channels: int, stride: int = 2, padding_mode: str = "zeros") -> Downsample:
    """The operator of a specification, for ``channels`` channels.

    A class that is not ours is checked once with the very arguments, see :func:`register_operator`.

    Raises:
        OperatorError: when the specification cannot be read, the operator refuses a value, or the check refuses it.
    """
    parsed = parse_operator(spec)
    made: Any = parsed.operator_class
    if parsed.arguments and not made.__module__.startswith("invariscope.zoo.operators."):
        _check_with(made, tuple(sorted(parsed.arguments.items())))
    try:
        operator: Downsample = made(channels, stride, padding_mode, **parsed.arguments)
        return operator
    except OperatorError:
        raise
    except Exception as problem:  # the class may be foreign code
        line = " ".join(str(problem).split())
        raise OperatorError(
            f"operator {str(parsed)!r} cannot be built ({type(problem).__name__}: {line}): correct its arguments"
        ) from problem


@cache
def _check_with(operator: Any, arguments: tuple[tuple[str, Any], ...]) -> None:
    """Refuse a class that is not ours where it does not do with these arguments what it does with its defaults."""
    from invariscope.zoo.operators.checking import check_behaviour

    check_behaviour(operator, dict(arguments))


def _read_specification(spec: str, folder: str | Path | None) -> OperatorSpec:
    form = _FORM.fullmatch(spec) if isinstance(spec, str) else None
    if form is None:
        raise OperatorError(f"operator {spec!r} cannot be read: write it as soft, soft(4) or soft(beta=4, kernel=2)")
    name, inside = form["name"], form["arguments"]
    if form["file"] is None and name not in OPERATORS:
        raise OperatorError(unknown("operator", name, OPERATORS))
    base = Path(folder) if folder is not None and form["file"] is not None else None
    known = OperatorSpec(name, {}, base).operator_class.arguments()
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
        if key in arguments:
            raise OperatorError(f"operator {spec!r}: {key} is given twice, give it once")
        if key not in known:
            raise OperatorError(f"operator {spec!r}: {name} has no argument {key!r}, it takes {_listed(known)}")
        try:
            arguments[key] = read_value(known[key], text)
        except OperatorError as problem:
            raise OperatorError(f"operator {spec!r}: {problem}") from None
    return OperatorSpec(name, arguments, base, None, spec)


def _of_class(spec: type | partial) -> OperatorSpec:
    """The specification of a class, or of one with arguments bound to it."""
    from invariscope.zoo.operators.checking import check_operator

    operator: Any = spec.func if isinstance(spec, partial) else spec
    arguments = dict(spec.keywords) if isinstance(spec, partial) else {}
    check_operator(operator)
    known = operator.arguments()
    wrong = next((name for name in arguments if name not in known), None)
    if wrong is not None or (isinstance(spec, partial) and spec.args):
        what = f"no argument {wrong!r}" if wrong is not None else "arguments without a name bound to it"
        raise OperatorError(f"operator {operator.name!r} has {what}: bind by name, it takes {_listed(known)}")
    is_registered = operator.name in OPERATORS and OPERATORS[operator.name] is operator
    return OperatorSpec(operator.name, arguments, None, None if is_registered else operator)


def _code_file(name: str, folder: str | Path | None) -> Path | None:
    if not name.startswith("python:"):
        return None
    return find_code(name.removeprefix("python:").rpartition(":")[0], Path(folder or "."))


@cache
def _class_of_file(path: Path, name: str, root: Path, changed: int) -> type[Downsample]:
    """A class of a Python file, checked; ``changed`` is when the file was, so that it is read anew after a change."""
    from invariscope.zoo.operators.checking import check_operator

    found = load_user_object(path, name, root=root, error=OperatorError)
    check_operator(found)
    operator: type[Downsample] = found
    return operator


def _listed(known: Mapping[str, inspect.Parameter]) -> str:
    return ", ".join(f"{key}={spell(parameter.default)}" for key, parameter in known.items()) or "no arguments"
