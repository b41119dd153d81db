"""A bar on standard error for what takes longer than two seconds: one, that of the outermost measurement."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Thing = TypeVar("Thing")

SECONDS = 2.0
"""What is done by then has no bar."""

_shown: ContextVar[bool] = ContextVar("shown", default=False)
"""Whether a bar is shown already, or none is wanted."""


@contextmanager
def bar(what: str, total: int, wanted: bool = True, unit: str = "batch") -> Iterator[Callable[..., None]]:
    """Gives a function to be called after each of ``total`` steps.

    The bar comes after ``SECONDS``, on a terminal or in a notebook; not where another one is there already, where it is
    not ``wanted``, inside of :func:`quiet`, or with ``TQDM_DISABLE=1`` in the environment.
    """
    if _shown.get() or not wanted or not _is_watched():
        with quiet():
            yield lambda count=1: None
        return
    from tqdm import tqdm

    with quiet(), tqdm(total=total, desc=what, unit=unit, delay=SECONDS, leave=False, file=sys.stderr) as shown:

        def step(count: int = 1) -> None:
            shown.update(count)

        yield step


def each(what: str, things: Iterable[Thing], unit: str) -> Iterator[Thing]:
    """The things one by one, with a :func:`bar` of them."""
    every = list(things)
    with bar(what, len(every), unit=unit) as step:
        for thing in every:
            yield thing
            step()


@contextmanager
def quiet() -> Iterator[None]:
    """No bars inside."""
    token = _shown.set(True)
    try:
        yield
    finally:
        _shown.reset(token)


def _is_watched() -> bool:
    """Whether somebody sees standard error: a terminal, or a notebook's page."""
    return bool(sys.stderr is not None and (sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")))
