"""Names and what they stand for, imported only when asked for, so that listing names costs no torch."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from invariscope.base.errors import InputError
from invariscope.base.names import unknown


class Registry(Mapping[str, Any]):
    """A read-only mapping from a name to an object that is imported at the first access.

    ``entries`` maps a name to ``"module:attribute"``. An unknown name raises ``error`` with the nearest known
    name; :meth:`add` refuses a name that is taken (``ValueError``).
    """

    def __init__(self, kind: str, entries: Mapping[str, str], error: type[InputError] = InputError) -> None:
        self._kind = kind
        self._targets = dict(entries)
        self._error = error

    def __getitem__(self, name: str) -> Any:
        if name not in self._targets:
            raise self._error(unknown(self._kind, name, self._targets))
        module, _, attribute = self._targets[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def add(self, name: str, target: str) -> None:
        """Register ``target`` (``"module:attribute"``) under a new name."""
        if name in self._targets:
            raise ValueError(f"{self._kind} {name!r} is already registered as {self._targets[name]}")
        self._targets[name] = target
