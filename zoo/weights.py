"""Weights files, read without running any code of theirs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from invariscope.base.errors import WeightsError, one_line
from invariscope.zoo.checkpoint import INDEX_SUFFIX, WEIGHT_SUFFIXES, no_weights, shards
from invariscope.zoo.layouts import Layout, rename_pairs
from invariscope.zoo.pickles import read_pickled

LARGEST_HEADER = 1 << 24
"""Bytes of a header at most: a million tensors without a value take 40 s to be made."""


def load_weights(
    path: str | Path,
    prefix: str | None = None,
    *,
    key: str | None = None,
    rename: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    ignore: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, from a file of torch (``.pt``, ``.pth``, ``.th``, ``.tar``, ``.ckpt``,
    ``.bin``, ``.model``), or from the shards that an ``.index.json`` names.

    Torch files go through ``torch.load(weights_only=True)``. Objects of other classes that lie beside the weights are
    read as empty ones: nothing of them is imported or called (:class:`invariscope.zoo.pickles.StandIn`). A file that
    would unpack to far more than its size is refused unread.

    Args:
        prefix: stripped from the keys that have it.
        key: the entry that holds the weights, for a file with several sets of them; dots go deeper. The only one is
            found without.
        rename: pairs of texts: the first is replaced by the second where a part of a key begins with it; or
            ``{"regex": PATTERN, "to": TEXT}``.
        ignore: keys to leave out: a name, the last part of names, or a pattern such as ``*.total_ops``.

    Raises:
        WeightsError: for a missing, truncated, hostile or foreign file, one that holds no tensors or several sets of
            them, or a prefix, key, renaming or name to ignore that nothing in it has.
    """
    path = Path(path)
    if problem := no_weights(path.name):
        raise WeightsError(f"{path}: {problem}")
    if not os.path.isfile(path):
        raise WeightsError(f"{path}: there is no such weights file: check the path")
    pairs, regex = rename_pairs(rename)
    return Layout(prefix, key, pairs, regex, tuple(ignore)).tensors(_read(path), path)


def _read(path: Path) -> Any:
    if path.name.endswith(INDEX_SUFFIX):
        return _read_shards(path)
    return _read_safetensors(path) if path.suffix == ".safetensors" else read_pickled(path)


def _read_shards(path: Path) -> dict[str, Any]:
    """The tensors of all shards; each key from the file that the index names for it."""
    content: dict[str, Any] = {}
    for file in shards(path):
        if not os.path.isfile(file):
            raise WeightsError(f"{path} names {file.name}, which is not there: put all of its files beside it")
        content |= _read(file)
    named = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    if missing := [key for key in named if key not in content]:
        raise WeightsError(f"{path}: its files lack {len(missing)} keys ({missing[0]}): fetch them again")
    return content


def _read_safetensors(path: Path) -> Any:
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > LARGEST_HEADER and header <= path.stat().st_size:
        raise WeightsError(
            f"{path}: its header has {header} bytes, more than {LARGEST_HEADER}, those of 100,000 tensors: save it anew"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as problem:
        raise WeightsError(f"{path} is no whole safetensors file ({one_line(problem)}): fetch it again") from problem


__all__ = ["WEIGHT_SUFFIXES", "load_weights"]
