"""YAML whose every value knows its line, so that an error in a manifest or a recipe can name it."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from invariscope.base.bounds import LARGEST_INTEGER
from invariscope.base.errors import InputError
from invariscope.base.names import unknown
from invariscope.base.paths import checked_path, unreadable

Scalar = str | int | float | bool | None

# libyaml is ten times as fast on a manifest of a thousand checkpoints; its composer recurses in C without a limit.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEPTH = 100

LARGEST_FILE = 16 << 20
"""Bytes of a file at most: a manifest of 50,000 checkpoints has as many."""

MOST_REPEATED = 100_000
"""Values that aliases and merges may add to those that are written out."""


@dataclass(frozen=True)
class Located:
    """A value of a YAML file with its line (from 1); mappings and lists hold ``Located`` values in turn.

    The accessors check the type and raise the file's error class, with file and line in front. ``what`` names the
    value in that message.
    """

    value: Any
    line: int
    path: Path
    error: type[InputError]

    def fail(self, message: str) -> InputError:
        """The error to raise about this value."""
        return self.error(f"{self.path}:{self.line}: {message}")

    def plain(self) -> Any:
        """The value without its lines."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def _wrong(self, what: str, wanted: str) -> InputError:
        found = "nothing" if self.value is None else reprlib.repr(self.plain())
        return self.fail(f"{what} is {found}, and must be {wanted}")

    def mapping(self, what: str, known: Collection[str] = (), required: Collection[str] = ()) -> dict[str, Located]:
        """Keys and values; refuses keys outside ``known`` (any, where it is empty) and misses the ``required``."""
        if not isinstance(self.value, dict):
            raise self._wrong(what, "a mapping of `key: value` lines")
        for key, item in self.value.items():
            if not isinstance(key, str):
                raise item.fail(f"{what} has the key {key!r}: keys must be text, so write it in quotes")
            if known and key not in known:
                raise item.fail(f"{what}: {unknown('key', key, known)}")
        missing = [key for key in required if key not in self.value]
        if missing:
            raise self.fail(f"{what} lacks {', '.join(map(repr, missing))}: add it")
        return self.value

    def items(self, what: str) -> list[Located]:
        """The items of a list that is not empty."""
        if not isinstance(self.value, list) or not self.value:
            raise self._wrong(what, "a list of at least one item")
        return self.value

    def text(self, what: str) -> str:
        """Text that is not empty."""
        if not isinstance(self.value, str) or not self.value.strip():
            raise self._wrong(what, "text")
        return self.value

    def flag(self, what: str) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            raise self._wrong(what, "true or false")
        return self.value

    def integer(self, what: str, minimum: int, maximum: int = LARGEST_INTEGER) -> int:
        """An integer of at least ``minimum`` and at most ``maximum``."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < minimum:
            raise self._wrong(what, f"an integer of at least {minimum}")
        if self.value > maximum:
            raise self.fail(f"{what} is {self.value:.3g}, and must be at most {maximum:g}")
        return self.value

    def number(self, what: str, minimum: float = -math.inf, maximum: float = math.inf) -> float:
        """A finite number; also ``1e-3``, which YAML 1.1 takes for text because it has no dot."""
        value = self.value
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise self._wrong(what, "a number") from None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._wrong(what, "a finite number")
        if not minimum <= value <= maximum:
            bounds = f"at least {minimum:g}" if maximum == math.inf else f"between {minimum:g} and {maximum:g}"
            raise self._wrong(what, f"a number of {bounds}")
        return float(value)

    def scalar(self, what: str) -> Scalar:
        """Text, a number, true or false, or nothing."""
        if not isinstance(self.value, Scalar):
            raise self._wrong(what, "text, a number, true or false")
        return self.value


def read_yaml(path: str | Path, error: type[InputError], what: str) -> Located:
    """The YAML document of a file, every value with its line.

    Only plain YAML: a tag that would build an object is refused, and so is a key that stands twice (YAML would
    silently take the later one).

    Raises:
        error: for a missing, unreadable, empty or malformed file; ``what`` names the kind of file in the message.
    """
    path = checked_path(path, error)
    if kind := unreadable(path, LARGEST_FILE):
        raise error(f"{path}: the {what} is {kind}: check the path")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"{path}: there is no such {what}: check the path") from None
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"{path}: the {what} cannot be read as text ({cause}): check the path") from None
    try:
        _refuse_depth(text, path, error)
        loader = _LOADER(text)
        node = loader.get_single_node()
        if node is None:
            raise error(f"{path}: the {what} is empty: fill it in")
        if _expanded(node, {}) > text.count("\n") + len(text) + MOST_REPEATED:
            raise error(f"{path}: its aliases stand for more than {MOST_REPEATED} values: write the values out")
        return _Converter(loader, path, error).convert(node)
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark or cause.context_mark
        line = mark.line + 1 if mark else 1
        raise error(f"{path}:{line}: not valid YAML ({cause.problem or cause.context}): correct the line") from None
    except (yaml.YAMLError, RecursionError) as cause:
        reason = " ".join(str(cause).split())
        raise error(f"{path}: not valid YAML ({reason}): correct the {what}") from None


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """The values that a node stands for, with all that its aliases stand for."""
    if id(node) not in known:
        known[id(node)] = 1  # of an alias that contains itself, which is refused later
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inside = node.value
        elif isinstance(node, yaml.MappingNode):
            inside = [value for _, value in node.value]
        known[id(node)] = 1 + sum(_expanded(value, known) for value in inside)
    return known[id(node)]


def _refuse_depth(text: str, path: Path, error: type[InputError]) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise error(f"{path}: not valid YAML (nested more than {_DEPTH} levels deep): correct the file")


class _Converter:
    """Node graph to ``Located``; nodes that aliases share are converted once, so that they cannot multiply."""

    def __init__(self, loader: Any, path: Path, error: type[InputError]) -> None:
        self._loader = loader
        self._path = path
        self._error = error
        self._done: dict[int, Located | None] = {}

    def convert(self, node: yaml.Node) -> Located:
        line = node.start_mark.line + 1
        if id(node) not in self._done:
            self._done[id(node)] = None
            self._done[id(node)] = Located(self._value(node), line, self._path, self._error)
        result = self._done[id(node)]
        if result is None:
            raise self._error(f"{self._path}:{line}: an alias that contains itself: write the value out")
        return result

    def _value(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [self.convert(item) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        try:
            return self._loader.construct_object(node)
        except ValueError as cause:  # for example the date 2024-13-45
            raise self._error(f"{self._path}:{node.start_mark.line + 1}: {cause}: put the value in quotes") from None

    def _mapping(self, node: yaml.MappingNode) -> dict[Any, Located]:
        written: set[str] = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._error(f"{self._path}:{line}: a key must be plain text: write it as one word")
            if key_node.value in written:
                raise self._error(f"{self._path}:{line}: the key {key_node.value!r} stands twice: remove one")
            written.add(key_node.value)
        self._loader.flatten_mapping(node)  # puts what `<<` merges in front, so that the written keys win
        result: dict[Any, Located] = {}
        for key_node, value_node in node.value:
            item = self.convert(value_node)
            line = key_node.start_mark.line + 1
            result[self._value(key_node)] = Located(item.value, line, self._path, self._error)
        return result
