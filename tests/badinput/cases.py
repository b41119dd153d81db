"""The list of bad inputs, from ``cases.txt`` beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """A bad input: of what kind, how it is made from the good one, the command, and a word of the line that refuses it.

    ``codes``: the exit codes that it may end with; ``leaves``: what it has written by then is whole; ``quick``: one of
    those that every run of the tests tries.
    """

    kind: str
    make: str
    command: str
    word: str
    codes: tuple[int, ...] = (2,)
    leaves: bool = False
    quick: bool = False


def read(text: str) -> list[Case]:
    """The cases of a text: a line each, ``let NAME = TEXT`` for what commands share, and remarks."""
    found, known = [], {}
    for line in text.splitlines():
        if line.startswith("let "):
            name, _, value = line.removeprefix("let ").partition(" = ")
            known[name] = value
        elif line and not line.startswith("#"):
            kind, make, command, word, *ends = (part.strip() for part in line.removeprefix("*").split(" | "))
            for name, value in known.items():
                command = command.replace(f"{{{name}}}", value)
            codes, _, whole = (ends[0] if ends else "2").partition(" ")
            numbers = tuple(map(int, codes.split(",")))
            found.append(Case(kind, make, command, word, numbers, whole == "whole", line.startswith("*")))
    return found


CASES = read(Path(__file__).with_name("cases.txt").read_text(encoding="utf-8"))
