"""How a manifest entry says what of a file are its weights and what of its outputs are classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from invariscope.base.errors import DataError
from invariscope.zoo.checkpoint import INDEX_SUFFIX
from invariscope.zoo.outputs import Classes
from invariscope.zoo.yaml_lines import Located

_REGEX = {"regex", "to"}


def read_rename(item: Located, what: str) -> dict[str, str]:
    """Pairs of texts, or ``{regex: PATTERN, to: TEXT}``.

    Raises:
        ManifestError: with the line, and what may stand there.
    """
    pairs = item.mapping(what)
    if not pairs:
        raise item.fail(f"{what} is empty: write it like {{downsample.: shortcut.}}, or leave it out")
    for old, new in pairs.items():
        if not old or not isinstance(new.value, str):
            raise new.fail(
                f"{what}.{old} is {new.plain()!r}, and must be text: write it like {{downsample.: shortcut.}}"
            )
    if _REGEX & set(pairs) and set(pairs) != _REGEX:
        raise item.fail(f"{what}: write a pattern as {{regex: PATTERN, to: TEXT}}, and nothing beside it")
    if "regex" in pairs:
        try:
            groups = re.compile(pairs["regex"].value).groups
            if any(int(number) > groups for number in re.findall(r"\\(\d+)", pairs["to"].value)):
                raise item.fail(f"{what}.to names a group that regex has not: it has {groups}")
        except re.error as problem:
            raise pairs["regex"].fail(f"{what}.regex is no regular expression ({problem}): correct it") from None
    return {old: new.value for old, new in pairs.items()}


def read_ignore(item: Located, what: str) -> tuple[str, ...]:
    """Names of keys, or patterns of them.

    Raises:
        ManifestError: as :func:`read_rename`.
    """
    if isinstance(item.value, str):
        return (item.text(what),)
    return tuple(one.text(what) for one in item.items(what))


def read_classes(item: Located, what: str) -> Classes:
    """Numbers of outputs, one per class of the data; or ``{offset: 1, count: 1000}``.

    Raises:
        ManifestError: as :func:`read_rename`.
    """
    try:
        if isinstance(item.value, list):
            return Classes(tuple(one.integer(what, 0) for one in item.items(what)))
        if not isinstance(item.value, dict):
            raise item.fail(f"{what} is {item.plain()!r}: write {{offset: 1}}, or the number of each class's output")
        entry = item.mapping(what, ("offset", "count"))
        offset = entry["offset"].integer(f"{what}.offset", 0) if "offset" in entry else 0
        count = entry["count"].integer(f"{what}.count", 1) if "count" in entry else None
        return Classes((), offset, count)
    except DataError as problem:
        raise item.fail(f"{what}: {problem}") from None


def whole(files: Sequence[Path]) -> list[Path]:
    """Of weights files those that are whole: not the shards that an index among them names."""
    indices = [file.name.removesuffix(INDEX_SUFFIX) for file in files if file.name.endswith(INDEX_SUFFIX)]
    stems = [name.rpartition(".") for name in indices]

    def is_shard(file: Path) -> bool:
        return any(re.fullmatch(rf"{re.escape(stem)}-\d+-of-\d+\.{end}", file.name) for stem, _, end in stems)

    return [file for file in files if not is_shard(file)]
