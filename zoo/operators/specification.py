"""Specifications of operators: ``soft(beta=4)`` or ``python:my_ops.py:Mine(strength=2)``, read once and carried."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariscope.base.errors import InputError, OperatorError
from invariscope.base.files import sha256_file
from invariscope.base.names import unknown
from invariscope.zoo.operators.catalogue import OPERATORS
from invariscope.zoo.operators.grammar import Call, Part, as_call, file_of, parse, shortened
from invariscope.zoo.operators.values import Specification, read_value, spell, takes_specification
from invariscope.zoo.user_code import find_code, load_user_object

if TYPE_CHECKING:
    from invariscope.zoo.operators.base import Downsample

STRIDED = "strided"
"""In the place of an operator: the published network's strided convolutions, and no operator."""


@dataclass(frozen=True)
class OperatorSpec(Specification):
    """An operator and the arguments given to it: what ``soft(beta=4)`` says.

    Attributes:
        name: in :data:`OPERATORS`, or ``python:FILE.py:NAME``.
        arguments: those that are given, by name; an operator within is a specification itself.
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
        """The Python file that gives the class; none for a name or a class."""
        return _code_file(self.name, self.folder)

    def within(self) -> Iterator[OperatorSpec]:
        """This specification and all that stand inside of it, from the outside in."""
        yield self
        for value in self.arguments.values():
            if isinstance(value, OperatorSpec):
                yield from value.within()

    @property
    def code_files(self) -> tuple[Path, ...]:
        """The Python files whose code runs, each once: its own, and those of the operators inside."""
        files = (spec.code_file for spec in self.within())
        return tuple(dict.fromkeys(file for file in files if file is not None))

    @property
    def code_sha256(self) -> str | None:
        """Digest of :attr:`code_files`, for keys and settings that must change with them; None where there are none."""
        digests = [sha256_file(file) for file in self.code_files]
        if len(digests) < 2:
            return digests[0] if digests else None
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()

    @property
    def canonical(self) -> str:
        """The one spelling of this specification: ``soft(beta=4)``.

        It holds the arguments that differ from their defaults, and always the strength, in the order of the signature;
        ``parse_operator(spec.canonical, spec.folder)`` builds the same operator, a given class apart.
        """
        strength = self.operator_class.strength_argument
        shown = []
        for parameter in self.operator_class.arguments().values():
            value = spell(self.arguments.get(parameter.name, parameter.default))
            if value != spell(parameter.default) or parameter.name == strength:
                shown.append(f"{parameter.name}={value}")
        return f"{self.name}({', '.join(shown)})" if shown else self.name

    @property
    def strength(self) -> float | None:
        """The value of the operator's one knob (beta of ``soft``, p of ``lp``, m of ``blur``); None without a knob."""
        knob = self.operator_class.strength_argument
        return None if knob is None else float(self.value(knob))

    @property
    def short(self) -> str:
        """The specification as it was written, without the paths of Python files: for names of runs and files."""
        return self._renamed({name: name.rpartition(":")[2] for name in self._code_names()})

    def value(self, argument: str) -> Any:
        """The value of an argument, given or by default."""
        return self.arguments.get(argument, self.operator_class.arguments()[argument].default)

    def seen_from(self, folder: Path) -> OperatorSpec:
        """The same operator, its Python files relative to another folder."""
        names = self._code_names()
        if not names:
            return self
        moved = {}
        for name, file in names.items():
            path = Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
            moved[name] = f"python:{path}:{name.rpartition(':')[2]}"
        arguments = {
            name: value.seen_from(folder) if isinstance(value, OperatorSpec) else value
            for name, value in self.arguments.items()
        }
        where = folder if self.code_file is not None else None
        return OperatorSpec(moved.get(self.name, self.name), arguments, where, self.given, self._renamed(moved))

    def _code_names(self) -> dict[str, Path]:
        """The names of the operators here and inside that Python files give, with these files."""
        return {spec.name: spec.code_file for spec in self.within() if spec.code_file is not None}

    def _renamed(self, names: Mapping[str, str]) -> str:
        """The text, with other names for some operators."""
        if not names:
            return str(self)
        longest_first = sorted(names, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), lambda found: names[found.group()], str(self))

    def __str__(self) -> str:
        return self.written or self.canonical

    def __hash__(self) -> int:
        return hash((self.name, tuple(sorted(self.arguments.items()))))

    def __getstate__(self) -> dict[str, Any]:
        # The class of a name or a file is found anew in another process, which may not be able to import it.
        return {key: value for key, value in self.__dict__.items() if key != "operator_class"}


Operatorlike = str | OperatorSpec | type | partial
"""What stands for an operator where one is asked for: see :func:`parse_operator`."""


def parse_operator(spec: Operatorlike, folder: str | Path | None = None) -> OperatorSpec:
    """Read a specification: ``name``, ``name(value, ...)`` or ``name(argument=value, ...)``.

    A value may be a list, ``rank((0.7, 0.1, 0.1, 0.1))``, or another operator, ``mix(0.2, max, soft(4))``; the grammar
    is that of :mod:`invariscope.zoo.operators.grammar`.

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


def operator_code_files(spec: object, folder: str | Path | None = None) -> tuple[Path, ...]:
    """The Python files that a specification runs, those of operators inside too; nothing of them is read or run here.

    None for a text that cannot be read as a specification, which runs nothing.
    """
    if isinstance(spec, OperatorSpec):
        return spec.code_files
    if not isinstance(spec, str):
        return ()
    try:
        files = [_code_file(call.name, folder) for call in parse(spec).calls()]
    except OperatorError:
        return ()
    return tuple(dict.fromkeys(file for file in files if file is not None))


def build_operator(spec: Operatorlike, channels: int, stride: int = 2, padding_mode: str = "zeros") -> Downsample:
    """The operator of a specification, for ``channels`` channels.

    A class that is not ours is checked once with the very arguments, see :func:`register_operator`.

    Raises:
        OperatorError: when the specification cannot be read, the operator refuses a value, or the check refuses it.
    """
    parsed = parse_operator(spec)
    made: Any = parsed.operator_class
    is_ours = parsed.given is None and parsed.name in OPERATORS.own
    if parsed.arguments and not is_ours:
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


def _read_specification(text: str, folder: str | Path | None) -> OperatorSpec:
    return replace(_read(parse(text), text, None if folder is None else Path(folder)), written=text)


def _read(call: Call, whole: str, folder: Path | None) -> OperatorSpec:
    """The specification of a part of a text, with those inside of it."""

    def fail(fact: object, part: Part) -> OperatorError:
        where = f", character {part.place + 1}" if part.place else ""
        return OperatorError(f"operator {shortened(whole)}{where}: {fact}")

    def inside(part: Part) -> OperatorSpec:
        found = as_call(part)
        if found is None:
            raise fail(f"{part.text!r} stands where an operator should: name one, for example max or soft(4)", part)
        return _read(found, whole, folder)

    if call.file is None and call.name not in OPERATORS:
        fact = unknown("operator", call.name, OPERATORS)
        raise fail(fact, call) if call.place else OperatorError(fact)
    base = folder if call.file is not None else None
    known = OperatorSpec(call.name, {}, base).operator_class.arguments()
    arguments: dict[str, Any] = {}
    named = False
    for position, (key, value) in enumerate(call.arguments):
        if key is not None:
            named = True
        elif named or position >= len(known):
            fact = f"{value.text!r} stands where no argument of {call.name} does"
            raise fail(f"{fact}: name it, {call.name} takes {_listed(known)}", value)
        else:
            key = list(known)[position]
        if key in arguments:
            raise fail(f"{key} is given twice, give it once", value)
        if key not in known:
            raise fail(f"{call.name} has no argument {key!r}, it takes {_listed(known)}", value)
        try:
            arguments[key] = read_value(known[key], value, inside)
        except OperatorError as problem:
            raise problem if takes_specification(known[key]) else fail(problem, value) from None
    return OperatorSpec(call.name, arguments, base, None, call.text)


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
    for name, value in arguments.items():
        if takes_specification(known[name]):
            arguments[name] = parse_operator(value)
        elif isinstance(value, list):
            arguments[name] = tuple(value)
    is_registered = operator.name in OPERATORS and OPERATORS[operator.name] is operator
    return OperatorSpec(operator.name, arguments, None, None if is_registered else operator)


def _code_file(name: str, folder: str | Path | None) -> Path | None:
    place = file_of(name)
    return None if place is None else find_code(place, Path(folder or "."))


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
