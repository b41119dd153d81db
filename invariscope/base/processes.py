"""Processes that end when they should: on a signal, and with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import NoReturn

_SIGNALS = ("SIGTERM", "SIGHUP")
_EVERY = 0.5
"""Seconds between two looks at whether the parent is still there."""


class Stopped(KeyboardInterrupt):
    """The process was asked to end by a signal, whose ``number`` it is."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Ended(SystemExit):
    """Code that ran in this process asked for its end by ``os._exit``."""


@contextmanager
def no_end_by_code() -> Iterator[None]:
    """Within it ``os._exit`` raises :class:`Ended` in this process, and Ctrl-C raises :class:`Stopped`.

    So Python of the user's that asks for the end of the process ends it no more than ``sys.exit`` does, and a
    KeyboardInterrupt that it raises is told from Ctrl-C (:func:`is_asked_for`). Forks end as ever. One at a time: it is
    for a command, whose process is its own.
    """
    asked: list[int] = []

    def end(status: int) -> NoReturn:
        if os.getpid() != owner:
            leave(status)
        asked.append(status)
        raise Ended(status)

    main = threading.current_thread() is threading.main_thread()
    ours = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    owner, leave = os.getpid(), os._exit
    os._exit = end
    if ours:
        signal.signal(signal.SIGINT, _stop)
    try:
        yield
        if asked:  # in a thread
            raise Ended(asked[0])
    finally:
        os._exit = leave
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def is_asked_for(stop: BaseException) -> bool:
    """Whether a KeyboardInterrupt is of the user's, by Ctrl-C or a signal, as far as that can be told."""
    if not isinstance(stop, KeyboardInterrupt):
        return False
    return isinstance(stop, Stopped) or signal.getsignal(signal.SIGINT) not in (_stop, signal.SIG_IGN)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise :class:`Stopped`, as Ctrl-C raises KeyboardInterrupt.

    So what is open is closed and workers end. A signal that is ignored (``nohup``) or has a handler keeps it, and
    outside of the main thread nothing changes, as Python has it.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        known = (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name))
        before = {number: _stop for number in known if signal.getsignal(number) == signal.SIG_DFL}
    for number, handler in before.items():
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


@cache
def end_with(parent: int) -> None:
    """End this process, at once and without a word, when the process ``parent`` that started it has ended.

    On Windows, where a process keeps the number of a parent that has ended, this does nothing.
    """
    if os.name == "posix":
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_EVERY)
    os._exit(1)
