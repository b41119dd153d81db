"""How a manifest entry says where its weights are in their file: ``rename`` and ``ignore``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from invariscope.zoo.checkpoint import INDEX_SUFFIX
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


def whole(files: Sequence[Path]) -> list[Path]:
    """Of weights files those that are whole: not the shards that an index among them names."""
    indices = [file.name.removesuffix(INDEX_SUFFIX) for file in files if file.name.endswith(INDEX_SUFFIX)]
    stems = [name.rpartition(".") for name in indices]

    def is_shard(file: Path) -> bool:
        return any(re.fullmatch(rf"{re.escape(stem)}-\d+-of-\d+\.{end}", file.name) for stem, _, end in stems)

    return [file for file in files if not is_shard(file)]
