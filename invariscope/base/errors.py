"""The errors of bad input: one line each, which names the thing and what to do (exit code 2 on the command line)."""

from __future__ import annotations

import re


class InputError(ValueError):
    """Something that the user gave cannot be used; the message is one line and ends in the remedy."""


class OperatorError(InputError):
    """An operator specification that names no operator, or one that its operator refuses."""


class ModelError(InputError):
    """A model string that builds no network, or a network that does not do what is asked of it."""


class WeightsError(InputError):
    """A weights file that is missing, unreadable, unsafe, or does not fit its network."""


class ManifestError(InputError):
    """A zoo manifest that is missing or wrong; the message names file, line and entry."""


class DataError(InputError):
    """A data set that is missing, unreadable, or holds what cannot be measured."""


class OutputError(DataError):
    """A folder that cannot be written to (full, read-only, no folder), or that another run holds."""


class RecipeError(InputError):
    """A training recipe that is missing or wrong."""


class ShiftError(InputError):
    """A shift or a shift plan that cannot be applied to these images."""


class TableError(InputError):
    """Tables that are missing, incomplete or contradictory."""


def one_line(problem: BaseException) -> str:
    """The kind of an exception and the first sentence of its message."""
    text = re.split(r"\n|\. ", str(problem).strip())[0]
    return f"{type(problem).__name__}: {text[:200]}"


_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
"""What torch's allocators say, in lower case: most raise a plain RuntimeError."""


def is_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, here or in what this error was raised from."""
    while error is not None:
        text = str(error).lower()
        if isinstance(error, MemoryError) or (
            isinstance(error, RuntimeError | OSError) and any(word in text for word in _MEMORY)
        ):
            return True
        error = error.__cause__
    return False
