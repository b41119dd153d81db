"""Whether texts of a user's name Python files, which run with leave alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

from invariscope.base.errors import InputError
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.operators import operator_code_files
from invariscope.zoo.user_code import no_code


def refuse_code(values: Iterable[object], allow_code: bool) -> None:
    """Refuse texts that name a Python file, as a network, an operator or a data set, where code may not run.

    Args:
        values: texts, paths, or what holds them to any depth: whatever can be iterated, keys and values of mappings.
            Iterators inside are exhausted (:func:`kept`).

    Raises:
        InputError: with the first of them.
    """
    for text in () if allow_code else _texts(values):
        if "python:" not in text:
            continue
        files = list(operator_code_files(text))
        if text.startswith("python:"):
            files.append(Path(text.removeprefix("python:").partition(":")[0]))
        with suppress(InputError):
            files += ModelString.parse(text).files()
        if files:
            raise InputError(no_code(repr(text), files[0]))


def kept(value: Any) -> Any:
    """The value itself; of an iterator, which gives its values once, the tuple of them."""
    return tuple(value) if isinstance(value, Iterator) else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str | PathLike):
        yield str(value)
        return
    for part in chain.from_iterable(value.items()) if isinstance(value, Mapping) else _parts(value):
        yield from _texts(part)


def _parts(value: Any) -> Iterator[Any]:
    try:
        return iter(() if isinstance(value, bytes) else value)
    except TypeError:  # a number, None, an array of no axis
        return iter(())
