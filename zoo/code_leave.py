"""Whether texts of a user's name Python files, which run with leave alone."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from invariscope.base.errors import InputError
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.operators import operator_code_files
from invariscope.zoo.user_code import no_code


def refuse_code(values: Iterable[object], allow_code: bool) -> None:
    """Refuse texts that name a Python file, as a network, an operator or a data set, where code may not run.

    Raises:
        InputError: with the first of them.
    """
    for value in () if allow_code else values:
        for text in value if isinstance(value, tuple | list) else (value,):
            if not isinstance(text, str) or "python:" not in text:
                continue
            files = list(operator_code_files(text))
            if text.startswith("python:"):
                files.append(Path(text.removeprefix("python:").partition(":")[0]))
            with suppress(InputError):
                files += ModelString.parse(text).files()
            if files:
                raise InputError(no_code(repr(text), files[0]))
