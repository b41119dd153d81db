"""Frozen dataclasses of options as flags: each group nested in a command, lists with commas, errors in one line."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, make_dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from invariscope.base.errors import InputError
from invariscope.base.paths import checked_path
from invariscope.cli.common import names

if TYPE_CHECKING:
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    from invariscope.zoo.checkpoint import Checkpoint

Command = TypeVar("Command")


@dataclass(frozen=True, kw_only=True)
class CodeFlag:
    """The flag of every command that may meet the name of a Python file."""

    allow_code: bool = False
    """Run the Python files that are named python:, which is refused without; read them first."""


@dataclass(frozen=True, kw_only=True)
class ManifestFlags(CodeFlag):
    """The flags of every command that reads the manifest of a zoo which somebody else may have written."""

    allow_outside: bool = False
    """Let the manifest name files outside of the zoo's folder."""

    def read(self, zoo: Path, only: str = "*", *, listed: bool = False) -> list[Checkpoint]:
        """The checkpoints of a zoo whose names fit, as far as these flags let its manifest reach."""
        from invariscope.zoo.manifest import read_manifest

        leave = {"allow_outside": self.allow_outside, "allow_code": self.allow_code}
        return read_manifest(zoo, operators=False, listed=listed, only=only, **leave)


@dataclass(frozen=True, kw_only=True)
class ZooFlags(ManifestFlags):
    """The flags of a command that also takes a table of runs, or a pattern of a library's networks, as its zoo."""

    pretrained: bool = False
    """Of a pattern: the networks whose pretrained weights this machine's cache holds; the others are listed."""
    model: str | None = None
    """Of a table of runs: the networks' model string, with columns in braces: 'python:nets.py:Net?width={width}'."""
    weights: str | None = None
    """Of a table of runs: their weights, likewise: '{name}.pth'."""
    name: str | None = None
    """Of a table of runs: their names, likewise; by default its column name."""
    input: str | None = None
    """Of a table of runs: their input as in a manifest: '{size: 32, mean: 0.5, std: 0.25}'."""
    metrics: tuple[str, ...] = ()
    """Of a table of runs: columns, or patterns of them, that are metrics; all others are factors."""

    def read(self, zoo: Path | str, only: str = "*", *, listed: bool = False) -> list[Checkpoint]:
        """The checkpoints of a manifest, of a table of runs, or of a pattern, whose names fit."""
        from invariscope.zoo.from_csv import SUFFIXES, zoo_from_csv
        from invariscope.zoo.model_string import is_library

        checked_path(zoo)
        of_table = [one for one in ("model", "weights", "name", "input", "metrics") if getattr(self, one)]
        is_table = str(zoo).lower().endswith(SUFFIXES)
        if of_table and not is_table:
            raise InputError(f"{_flag(of_table[0])} belongs to a table of runs (.csv): {zoo} is none, leave it out")
        is_pattern = is_library(str(zoo)) and not Path(zoo).exists()
        if self.pretrained and not is_pattern:
            raise InputError(f"--pretrained belongs to a pattern such as timm:resnet*: {zoo} is none, leave it out")
        if is_pattern:
            if not self.pretrained:
                raise InputError(
                    f"{zoo} names networks and no weights: give --pretrained for those in this machine's cache"
                )
            from invariscope.zoo.from_library import zoo_from_library  # imports torch

            found = zoo_from_library(str(zoo))
            fitting = [checkpoint for checkpoint in found if fnmatchcase(checkpoint.name, only)]
            if not fitting:
                raise InputError(f"--only {only}: none of {zoo} has such a name ({found[0].name} is one)")
            return fitting
        if not is_table:
            return super().read(Path(zoo), only, listed=listed)
        how: dict[str, Any] = {"model": self.model, "weights": self.weights, "name": self.name, "metrics": self.metrics}
        how |= {"input": _settings(self.input), "allow_outside": self.allow_outside, "allow_code": self.allow_code}
        return zoo_from_csv(zoo, **how, listed=listed, only=only, operators=False)


def _settings(text: str | None) -> dict[str, Any] | None:
    """What ``--input`` says, as YAML."""
    import yaml

    if text is None:
        return None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"--input is {text!r}: write it like '{{size: 32, mean: 0.5, std: 0.25}}'")
    return found


class FlagError(Exception):
    """A value that cannot be read, for one line instead of the parser's box."""


@dataclass(frozen=True)
class _Element:
    """How one element of a list is read and written."""

    name: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]
    problem: str


LARGEST = 10**15
"""The largest whole number that a flag takes: what is more is a slip of the hand."""


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    value = float(Fraction(text))  # neither nan nor inf
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def read_whole(text: str) -> int:
    """A whole number of a flag.

    Raises:
        ValueError: with what is wrong, for the parser to put behind the flag's name.
    """
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f"{text!r} is no whole number: write it as 64")
    value = int(text) if len(text) < 20 else LARGEST + 1
    if abs(value) > LARGEST:
        raise ValueError(f"{text!r} is larger than any number of this kind: give a smaller one")
    return value


def read_number(text: str) -> float:
    """A finite number of a flag.

    Raises:
        ValueError: as :func:`read_whole`.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no finite number: write it as 0.5")
    return value


def _read_path(text: str) -> Path:
    return checked_path(text, ParsedError)


class ParsedError(InputError):
    """A value that cannot be read, for the parser to put behind the flag's name."""


_SINGLE: dict[type, tuple[str, Callable[[str], Any]]] = {
    int: ("INT", read_whole),
    float: ("FLOAT", read_number),
    Path: ("PATH", _read_path),
}


def _fraction(value: float) -> str:
    of_255 = value * 255
    return f"{round(of_255)}/255" if value and abs(of_255 - round(of_255)) < 1e-9 and value < 1 else f"{value:g}"


_ELEMENTS = {
    str: _Element("NAME", str, str, "no name"),
    int: _Element("INT", _whole, str, "no whole number"),
    float: _Element("NUMBER", _number, _fraction, "no number such as 8/255 or 0.5"),
}


def _single_rule(name: str, read: Callable[[str], Any], *, optional: bool) -> PrimitiveConstructorSpec[Any]:
    """How one whole number, finite number or path is read, or ``None`` where there may be none."""
    from tyro.constructors import PrimitiveConstructorSpec

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=name,
        instance_from_str=lambda texts: None if optional and texts[0] == "None" else read(texts[0]),
        is_instance=lambda value: (
            value is None if optional and value is None else isinstance(value, int | float | Path)
        ),
        str_from_instance=lambda value: [str(value)],
    )


def list_rules() -> ConstructorRegistry:
    """How tyro reads numbers and paths, and ``tuple[str, ...]``, ``tuple[int, ...]`` and ``tuple[float, ...]``: one
    text, commas between.

    One argument and not several, so that a list never takes a positional argument for one of its own.
    """
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        kinds = get_args(info.type)
        single = info.type if not kinds else kinds[0] if len(kinds) == 2 and kinds[1] is type(None) else None
        if single in _SINGLE:
            return _single_rule(*_SINGLE[single], optional=bool(kinds))
        if get_origin(info.type) is not tuple or len(kinds) != 2 or kinds[1] is not Ellipsis:
            return None
        element = _ELEMENTS[kinds[0]]

        def read(texts: list[str]) -> tuple[Any, ...]:
            found = []
            for text in names(texts[0]):
                try:
                    found.append(element.read(text))
                except (ValueError, ZeroDivisionError) as error:
                    raise FlagError(f"{text!r} is {element.problem}: correct it in {texts[0]!r}") from error
            return tuple(found)

        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=f"{element.name},...",
            instance_from_str=read,
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda value: [",".join(map(element.write, value))],
        )

    return registry


def with_groups(command: type[Command], groups: Mapping[str, type[Any]]) -> type[Command]:
    """A command with a field per group of options, which the parser fills with texts and numbers as they come.

    What a group refuses is refused by :func:`chosen`, in one line, and not by the parser.

    Raises:
        InputError: for an option of a group that is one of the command's own.
    """
    taken = {one.name for one in dataclasses.fields(command)}  # type: ignore[arg-type]
    made = []
    for name, group in groups.items():
        if mine := [one.name for one in dataclasses.fields(group) if one.name in taken]:
            raise InputError(f"{name}: {_flag(mine[0])} is an option of the command: give it another name")
        body = {"__doc__": group.__doc__, "__post_init__": lambda self: None, "__module__": group.__module__}
        raw = make_dataclass(group.__name__, [], bases=(group,), frozen=True, namespace=body)
        made.append((name, raw, field(default_factory=raw)))
    body = {"__doc__": command.__doc__, "__module__": command.__module__}
    return make_dataclass(command.__name__, made, bases=(command,), frozen=True, namespace=body)


def chosen(command: object, groups: Mapping[str, type[Any]]) -> list[Any]:
    """The groups of a command of :func:`with_groups`, checked.

    Raises:
        InputError: what a group refuses; an option that its line begins with is named as a flag.
    """
    made = []
    for name, group in groups.items():
        try:
            made.append(group(**vars(getattr(command, name))))
        except InputError as error:
            first, space, rest = str(error).partition(" ")
            if first not in {one.name for one in dataclasses.fields(group)}:
                raise
            raise type(error)(f"{_flag(first)}{space}{rest}") from error
    return made


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"
