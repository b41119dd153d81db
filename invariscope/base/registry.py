"""Names and what they stand for: ours, those of installed packages (entry points), and those added at run time.

Nothing is imported before it is asked for, so that listing names costs no torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from invariscope.base.errors import InputError
from invariscope.base.names import unknown

_REGISTRIES: dict[str, Registry] = {}
_CARRIED: dict[str, dict[str, Any]] = {}
"""What :func:`add_all` was given for registries that are not imported yet."""


class Registry(Mapping[str, Any]):
    """A mapping from a name to an object that is imported at the first access.

    Args:
        kind: what the names are of, for messages: ``operator``.
        entries: name -> ``"module:attribute"``, or the object itself.
        error: raised, with the nearest known name, where a name is not known.
        group: entry-point group in which other installed packages name theirs: ``invariscope.operators``.
        check: called as ``check(name, object)`` on whatever comes from outside, before it is first used; it raises
            ``error`` where the object is none of this kind.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, Any],
        error: type[InputError] = InputError,
        *,
        group: str | None = None,
        check: Callable[[str, Any], None] | None = None,
    ) -> None:
        self.kind = kind
        self.group = group
        self._own = dict(entries)
        self._added: dict[str, Any] = _CARRIED.pop(group, {}) if group is not None else {}
        self._error = error
        self._check = check
        self._checked: set[str] = set()
        if group is not None:
            _REGISTRIES[group] = self

    def __getitem__(self, name: str) -> Any:
        if name in self._own:
            return _resolved(self._own[name])
        if name in self._added:
            return self._added[name]
        if name in self._clashes:
            raise self._error(self._clashes[name])
        if name not in self._outside:
            raise self._error(unknown(self.kind, name, self))
        point = self._outside[name]
        try:
            found = point.load()
        except Exception as problem:  # foreign code
            raise self._error(
                f"{self.kind} {name!r} of the package {_package(point)} cannot be imported "
                f"({type(problem).__name__}: {problem}): mend or uninstall that package"
            ) from problem
        if self._check is not None and name not in self._checked:
            self._check(name, found)
            self._checked.add(name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._added or name in self._outside

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from self._added
        yield from (name for name in self._outside if name not in self._added)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def working(self) -> dict[str, Any]:
        """Every object by its name, imported; what of another package cannot be used is said once, and left out."""
        found = {}
        for name in self:
            try:
                found[name] = self[name]
            except InputError as problem:
                if name in self._own or name in self._added:
                    raise
                tell(f"{problem} (left out)")
        return found

    @property
    def own(self) -> tuple[str, ...]:
        """The names of this package alone."""
        return tuple(self._own)

    @property
    def added(self) -> Mapping[str, Any]:
        """What was added in this process."""
        return dict(self._added)

    def add(self, name: str, target: Any) -> None:
        """Register ``target``, an object or ``"module:attribute"``, under a new name for this process.

        What has the name of what was added, such as a function that a notebook's cell defines anew, takes its place.

        Raises:
            InputError: for a name that is taken by another object, or an object that is none of this kind.
        """
        found = _resolved(target)
        if name in self._added and self._added[name] is found:
            return
        if name in self and not (name in self._added and _is_again(self._added[name], found)):
            raise self._error(f"{self.kind} {name!r} is there already: give yours another name")
        if self._check is not None:
            self._check(name, found)
        self._added[name] = found

    def remove(self, name: str) -> None:
        """Forget what was added under a name."""
        self._added.pop(name, None)

    @property
    def _outside(self) -> Mapping[str, EntryPoint]:
        """The entry points of other packages, by name; a name that is taken is told once, and left out."""
        if self.group is None:
            return {}
        for line in self._clashes.values():
            tell(f"{line} (left out)")
        return {name: found[0] for name, found in _entry_points(self.group).items() if name not in self._clashes}

    @property
    def _clashes(self) -> dict[str, str]:
        """The names of other packages that are ours, or that two of them give, with what to say of each."""
        lines = {}
        for name, found in _entry_points(self.group).items() if self.group is not None else ():
            if name in self._own or len(found) > 1:
                owners = " and ".join(sorted({*map(_package, found), *(["this one"] if name in self._own else [])}))
                lines[name] = f"{self.kind} {name!r} is given by {owners}: uninstall one of the packages"
        return lines


@cache
def tell(line: str) -> None:
    """Say something on stderr, once in a process."""
    sys.stderr.write(f"invariscope: {line}\n")


def _is_again(before: Any, now: Any) -> bool:
    """Whether two objects are one thing defined twice: equal, or of one module and name (they, or their functions)."""
    names = [
        (getattr(one, "__module__", None), getattr(one, "__qualname__", None))
        for one in (getattr(thing, "function", thing) for thing in (before, now))
    ]
    return bool(before == now) or (names[0] == names[1] and None not in names[0])


def added() -> dict[str, dict[str, Any]]:
    """What was added to every registry in this process, by its group: for worker processes, see :func:`add_all`."""
    return {group: dict(registry.added) for group, registry in _REGISTRIES.items() if registry.added}


def add_all(names: Mapping[str, Mapping[str, Any]]) -> None:
    """Add what :func:`added` gave in another process; what was checked there is not checked again."""
    for group, found in names.items():
        target = _REGISTRIES[group]._added if group in _REGISTRIES else _CARRIED.setdefault(group, {})
        target.update(found)


@cache
def _entry_points(group: str) -> dict[str, list[EntryPoint]]:
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        points.setdefault(point.name, []).append(point)
    return points


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _resolved(target: Any) -> Any:
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
