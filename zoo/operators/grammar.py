"""The grammar of operator specifications: a text becomes a tree whose parts know where they stand.

    operator  = name [ "(" [ argument { "," argument } ] ")" ]
    name      = WORD | "python:" FILE ":" WORD
    argument  = [ WORD "=" ] value
    value     = operator | "(" value { "," value } ")" | TEXT

FILE holds no parentheses; TEXT is a number, a word or any other text without ``( ) , =``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Never

from invariscope.base.errors import OperatorError

LONGEST = 4000
"""Characters of a specification at most: two kernels of 13 x 13 with three digits."""

DEEPEST = 8
"""Parentheses within parentheses at most."""

_EXAMPLES = "soft, soft(4), soft(beta=4, kernel=2) or mix(0.5, max, rank((0, 1, 0, 0)))"
_SHOWN = 100

_SPACE = re.compile(r"\s*")
_KEY = re.compile(r"([A-Za-z_]\w*)\s*=")
_WORD = re.compile(r"[A-Za-z_]\w*")
_FILE = re.compile(r"python:(?P<file>[^()]+?):(?P<attribute>[A-Za-z_]\w*)(?=\s*(?:[(),]|$))")
_TEXT = re.compile(r"[^(),=]+")


@dataclass(frozen=True)
class Part:
    """A part of a specification: its text, and the place of its first character."""

    text: str
    place: int


@dataclass(frozen=True)
class Text(Part):
    """A value as it is written: a number, a word, or the name of an operator."""


@dataclass(frozen=True)
class Group(Part):
    """Values in parentheses."""

    values: tuple[Part, ...]


@dataclass(frozen=True)
class Call(Part):
    """An operator, with the arguments given to it: each with its key, or None for one given by position."""

    name: str
    arguments: tuple[tuple[str | None, Part], ...]

    @property
    def file(self) -> str | None:
        """FILE of ``python:FILE:NAME``."""
        return file_of(self.name)

    def calls(self) -> Iterator[Call]:
        """This operator and all that stand inside of it."""
        yield self
        for _, value in self.arguments:
            yield from _calls(value)


def file_of(name: str) -> str | None:
    """FILE of the name ``python:FILE:NAME`` of an operator; None for another name."""
    return name.removeprefix("python:").rpartition(":")[0] if name.startswith("python:") else None


def parse(text: object) -> Call:
    """The tree of a specification.

    Raises:
        OperatorError: for what is no such text, one line with the place.
    """
    if not isinstance(text, str) or not text.strip():
        raise OperatorError(f"operator {text!r} cannot be read: write it as {_EXAMPLES}")
    if len(text) > LONGEST:
        start = shortened(text)
        raise OperatorError(f"operator {start} has {len(text)} characters, more than the {LONGEST} allowed: shorten it")
    return _Reader(text).specification()


def as_call(part: Part) -> Call | None:
    """The operator that a value is: one with arguments, or a word that is the name of one; None for another value."""
    if isinstance(part, Call):
        return part
    return Call(part.text, part.place, part.text, ()) if _WORD.fullmatch(part.text) else None


def shortened(text: str) -> str:
    """A text in quotation marks, its end left out where it is long."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _calls(part: Part) -> Iterator[Call]:
    if isinstance(part, Call):
        yield from part.calls()
    for value in part.values if isinstance(part, Group) else ():
        yield from _calls(value)


class _Reader:
    """Reads one text from left to right."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0

    def specification(self) -> Call:
        """The whole text as one operator."""
        found = as_call(self._value())
        if found is None:
            self._refuse("an operator begins with its name", at=0)
        if self._at < len(self._text):
            self._refuse(f"{self._text[self._at]!r} stands after the end of the operator")
        return found

    def _value(self) -> Part:
        self._skip()
        start = self._at
        if self._next() == "(":
            values = tuple(value for _, value in self._inside(keys=False))
            return Group(self._text[start : self._at], start, values)
        file = _FILE.match(self._text, start)
        word = file or _WORD.match(self._text, start)
        if word is not None:
            self._at = word.end()
            self._skip()
            if self._next() == "(" or file is not None:
                arguments = tuple(self._inside(keys=True)) if self._next() == "(" else ()
                name = word.group() if file is None else f"python:{file['file'].strip()}:{file['attribute']}"
                call = Call(self._text[start : self._at].strip(), start, name, arguments)
                self._skip()
                return call
            self._at = start
        plain = _TEXT.match(self._text, start)
        if plain is None or not plain.group().strip():
            self._refuse("a value is missing")
        self._at = plain.end()
        return Text(plain.group().strip(), start)

    def _inside(self, keys: bool) -> Iterator[tuple[str | None, Part]]:
        """What stands in parentheses, which begin here."""
        opened = self._at
        self._at += 1
        self._depth += 1
        if self._depth > DEEPEST:
            self._refuse(f"parentheses stand {self._depth} deep, more than the {DEEPEST} allowed")
        self._skip()
        while self._next() != ")":
            key = _KEY.match(self._text, self._at) if keys else None
            self._at = self._at if key is None else key.end()
            yield (None if key is None else key[1]), self._value()
            self._skip()
            if self._next() == ",":
                self._at += 1
                self._skip()
                if self._next() == ")" and keys:
                    self._refuse("a value is missing")
            elif not self._next():
                self._refuse(f"the parenthesis of character {opened + 1} has no end")
            elif self._next() != ")":
                self._refuse(f"{self._next()!r} stands where ',' or ')' should")
        self._at += 1
        self._depth -= 1

    def _skip(self) -> None:
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _refuse(self, fact: str, at: int | None = None) -> Never:
        place = (self._at if at is None else at) + 1
        where = f"at character {place}" if place <= len(self._text) else "at its end"
        raise OperatorError(
            f"operator {shortened(self._text)} cannot be read {where}: {fact}: write it as {_EXAMPLES}"
        ) from None
