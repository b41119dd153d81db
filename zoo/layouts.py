"""How weights lie in their files: under which key, with which names, and what lies beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor

from invariscope.base.errors import WeightsError
from invariscope.base.names import unknown
from invariscope.zoo.bounded_regex import substitute
from invariscope.zoo.pickles import StandIn, refused

COMPILED = "_orig_mod."
"""What ``torch.compile`` puts into keys; it is taken out wherever it stands."""

_SHOWN = 4


@dataclass(frozen=True)
class Layout:
    """Where the weights are in a file, and how their keys become the network's.

    In this order: ``key`` names the entry (dots go deeper), ``_orig_mod.`` is taken out, ``prefix`` is stripped from
    the keys that have it, ``rename`` replaces, ``ignore`` drops.

    Attributes:
        rename: pairs. A text is replaced where a part of a key begins with it (after a dot, or at the start); of a
            pattern, ``regex`` true, every match is.
        ignore: keys, their last parts, or patterns such as ``*.total_ops``; after the renaming.
    """

    prefix: str | None = None
    key: str | None = None
    rename: tuple[tuple[str, str], ...] = ()
    regex: bool = False
    ignore: tuple[str, ...] = ()

    def tensors(self, content: Any, path: Path) -> dict[str, Tensor]:
        """The weights of what a file holds.

        Raises:
            WeightsError: no state dict is there, several are, or a part of this layout fits nothing in it.
        """
        state = self._entry(content, path)
        named = self._renamed(_renamed(state, lambda name: name.replace(COMPILED, ""), COMPILED, path), path)
        for pattern in self.ignore:
            found = [name for name in named if _is_ignored(name, pattern)]
            if not found:
                raise WeightsError(f"{path}: ignore: no key is {pattern!r}, the first is {next(iter(named), '')!r}")
            named = {name: value for name, value in named.items() if name not in set(found)}
        for name, value in named.items():
            _refuse_stand_in(value, path)
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise WeightsError(
                    f"{path}: {name!r} is no tensor with a name: save model.state_dict() alone, or name it under ignore"
                )
        if not named:
            raise WeightsError(f"{path}: nothing is left of the weights: ignore less")
        return named

    def _entry(self, content: Any, path: Path) -> dict[Any, Any]:
        """The entry that holds the weights."""
        content = _alone(content)
        if self.key is not None:
            return _at(content, self.key, path)
        _refuse_stand_in(content, path)
        if not isinstance(content, Mapping) or not content:
            raise WeightsError(f"{path} holds a {type(content).__name__} and no state dict: save model.state_dict()")
        inner = {name: found for name, value in content.items() if _is_state(found := _alone(value))}
        tensors = any(isinstance(value, Tensor) for value in content.values())
        if not inner or (tensors and not any(name in _WRAPPERS for name in inner)):
            return dict(content)
        inner = {name: value for name, value in inner.items() if name in _WRAPPERS} or inner
        if len(inner) == 1:
            return dict(next(iter(inner.values())))
        names = ", ".join(map(repr, inner))
        raise WeightsError(
            f"{path} holds several sets of weights: name one of {names} as key, such as key: {_first(inner)}"
        )

    def _renamed(self, state: dict[Any, Any], path: Path) -> dict[Any, Any]:
        if self.prefix:
            if not any(isinstance(name, str) and name.startswith(self.prefix) for name in state):
                first = next(iter(state))
                raise WeightsError(f"{path}: no key starts with the prefix {self.prefix!r}, the first is {first!r}")
            state = _renamed(state, lambda name: name.removeprefix(self.prefix or ""), self.prefix, path, "prefix ")
        for old, new in self.rename:
            keys = [name for name in state if isinstance(name, str)]
            changed = self._by_pattern(old, new, keys, path) if self.regex else _by_text(old, new, keys)
            if not changed:
                raise WeightsError(f"{path}: rename: no key has {old!r}, the first is {next(iter(state))!r}")
            state = _renamed(state, lambda name, made=changed: made.get(name, name), old, path)
        return state

    def _by_pattern(self, old: str, new: str, keys: list[str], path: Path) -> dict[str, str]:
        try:
            made = substitute(old, new, keys)
        except ValueError as problem:
            raise WeightsError(f"{path}: rename: {old!r} to {new!r}: {problem}") from problem
        return {key: name for key, name in zip(keys, made, strict=True) if name is not None}


def _by_text(old: str, new: str, keys: list[str]) -> dict[str, str]:
    """The keys that have a text, with the other in its place."""
    pattern = re.compile(literal(old))
    return {key: pattern.sub(lambda found: new, key) for key in keys if pattern.search(key)}


_WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "model_state", "weights", "params", "module"),
    *("model_ema", "state_dict_ema", "ema", "ema_state_dict", "ema_model", "params_ema"),
)
"""Keys under which training scripts commonly keep weights."""


def literal(text: str) -> str:
    """The pattern of a text where a part of a key begins with it."""
    return re.escape(text) if text.startswith(".") else r"(?:^|(?<=\.))" + re.escape(text)


def _refuse_stand_in(value: Any, path: Path) -> None:
    if isinstance(value, StandIn) or (isinstance(value, type) and issubclass(value, StandIn)):
        raise refused(path, value.name)


def _alone(content: Any) -> Any:
    """What a list of one element holds."""
    while isinstance(content, list | tuple) and len(content) == 1:
        content = content[0]
    return content


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(name, str) and isinstance(item, Tensor) for name, item in value.items()
    )


def _at(content: Any, key: str, path: Path) -> dict[Any, Any]:
    """The entry of a key; its dots may separate the keys of entries within entries."""
    steps = [key] if isinstance(content, Mapping) and key in content else key.split(".")
    for step in steps:
        if not isinstance(content, Mapping) or step not in content:
            known = [name for name in content if isinstance(name, str)] if isinstance(content, Mapping) else []
            raise WeightsError(f"{path}: key: {unknown('entry', step, known) if known else f'there is no {step!r}'}")
        content = _alone(content[step])
    _refuse_stand_in(content, path)
    if not _is_state(content):
        raise WeightsError(f"{path}: key: {key!r} is a {type(content).__name__} and no state dict: name another entry")
    return dict(content)


def _renamed(state: dict[Any, Any], change: Any, old: str, path: Path, what: str = "") -> dict[Any, Any]:
    made = {change(name) if isinstance(name, str) else name: value for name, value in state.items()}
    if len(made) < len(state):
        raise WeightsError(f"{path}: without the {what}{old!r} two keys are the same: give another {what or 'rename'}")
    return made


def _is_ignored(name: Any, pattern: str) -> bool:
    return isinstance(name, str) and (fnmatchcase(name, pattern) or name.endswith(f".{pattern}"))


def _first(names: Iterable[Any]) -> Any:
    return next(iter(names))


def proposal(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], layout: Layout) -> str:
    """The prefix, renaming and keys to ignore that would make weights fit, as a manifest has them; empty without any.

    Tried are prefixes that keys have, one that the network's keys have, and parts of names that stand on one side
    alone, each replaced by each; it is taken where every key and shape then fits.
    """
    changes: dict[str, str] = {}
    keys = {name: name for name in state}
    parts = {name[: dot + 1] for name in state for dot in _dots(name)}
    best = max(("", *sorted(parts)), key=lambda prefix: _fitting(wanted, _stripped(keys, prefix), state))
    if best and not layout.prefix:
        keys = _stripped(keys, best)
    else:
        best = ""
    outer = {name[: dot + 1] for name in wanted for dot in _dots(name)}
    added = max(("", *sorted(outer)), key=lambda prefix: _fitting(wanted, _with(keys, prefix), state))
    if added and not best:
        keys = _with(keys, added)
    else:
        added = ""
    for _ in range(_SHOWN):
        lacking = {part for name in wanted if name not in keys for part in name.split(".")}
        left = {part for name in keys if name not in wanted for part in name.split(".")}
        pairs = [(old, new) for old in sorted(left - lacking) for new in sorted(lacking - left)]
        if not pairs or len(pairs) > 400:
            break
        pair = max(pairs, key=lambda pair: _fitting(wanted, _replaced(keys, *pair), state))
        if _fitting(wanted, _replaced(keys, *pair), state) <= _fitting(wanted, keys, state):
            break
        before, keys = keys, _replaced(keys, *pair)
        end = _end(before, pair[0])
        changes[f"{pair[0]}{end}"] = f"{pair[1]}{end}"
    more = [name for name in keys if name not in wanted]
    if _fitting(wanted, keys, state) < sum(not name.endswith("num_batches_tracked") for name in wanted):
        return ""
    ignored = list(dict.fromkeys(name.rpartition(".")[2] for name in more))
    if any(_is_ignored(name, tail) for tail in ignored for name in keys if name in wanted):
        return ""
    rename = f"rename: {{regex: '^', to: {added}}}" if added else f"rename: {{{_listed(changes)}}}" if changes else ""
    if added and changes:
        return ""
    said = [f"prefix: {best}" if best else "", rename, f"ignore: [{', '.join(ignored[:_SHOWN])}]" if ignored else ""]
    return " and ".join(f"`{text}`" for text in said if text) if len(ignored) <= _SHOWN else ""


def _dots(name: str) -> list[int]:
    return [match.start() for match in re.finditer(r"\.", name)][:4]


def _stripped(keys: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): key for name, key in keys.items()}


def _with(keys: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {prefix + name: key for name, key in keys.items()}


def _replaced(keys: Mapping[str, str], old: str, new: str) -> dict[str, str]:
    end = _end(keys, old)
    return {re.sub(literal(f"{old}{end}"), lambda _: f"{new}{end}", name): key for name, key in keys.items()}


def _end(keys: Mapping[str, str], part: str) -> str:
    """The dot after a part of names, which the last part lacks."""
    return "" if any(name.rpartition(".")[2] == part for name in keys) else "."


def _fitting(wanted: Mapping[str, Tensor], keys: Mapping[str, str], state: Mapping[str, Tensor]) -> int:
    """How many of the network's tensors these keys would give, batch counters apart."""
    return sum(
        name in wanted and wanted[name].shape == state[key].shape
        for name, key in keys.items()
        if not name.endswith("num_batches_tracked")
    )


def _listed(changes: Mapping[str, str]) -> str:
    return ", ".join(f"{old}: {new}" for old, new in changes.items())


def rename_pairs(rename: Mapping[str, str] | Sequence[tuple[str, str]]) -> tuple[tuple[tuple[str, str], ...], bool]:
    """A renaming as a manifest has it, as pairs, and whether they are patterns: ``{regex: PATTERN, to: TEXT}``.

    Raises:
        WeightsError: the pattern is none.
    """
    pairs = tuple(rename.items()) if isinstance(rename, Mapping) else tuple(rename)
    if isinstance(rename, Mapping) and set(rename) == {"regex", "to"}:
        try:
            re.compile(rename["regex"])
        except re.error as problem:
            raise WeightsError(
                f"rename: {rename['regex']!r} is no regular expression ({problem}): correct it"
            ) from None
        return ((rename["regex"], rename["to"]),), True
    return pairs, False
