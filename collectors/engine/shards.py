"""A share of a zoo, for one of several runs without a scheduler: every checkpoint is in exactly one share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import attrgetter

from invariscope.base.errors import InputError
from invariscope.zoo.checkpoint import Checkpoint

_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


def shard(checkpoints: Sequence[Checkpoint], text: str) -> list[Checkpoint]:
    """Share ``I/N`` of the checkpoints, I from 1 to N: every N-th of them by name, so that the order of the manifest
    does not matter and the shares differ by one checkpoint at most.

    Raises:
        InputError: a text of another form, I outside 1 to N, or more shares than checkpoints.
    """
    found = _SHARD.fullmatch(text.strip())
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise InputError(f"--shard is {text!r}: give I/N, for example 2/8 for the second of eight shares")
    if parts > len(checkpoints):
        raise InputError(f"--shard {text}: there are {len(checkpoints)} checkpoints: take at most as many shares")
    return sorted(checkpoints, key=attrgetter("name"))[part - 1 :: parts]
