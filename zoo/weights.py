"""Weights files, read without running any code of theirs."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from invariscope.base.errors import WeightsError, one_line
from invariscope.zoo.checkpoint import WEIGHT_SUFFIXES

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts commonly keep the weights."""

ALLOWED_CLASSES = ("torch.optim.adam.Adam", "torch.optim.adamw.AdamW", "torch.optim.sgd.SGD")
"""Classes that training scripts leave beside the weights. They are read as empty objects: no code of theirs runs."""

UNPACKED = 2
"""So many times the size of its file may a torch file unpack to; torch itself does not compress."""


def load_weights(path: str | Path, prefix: str | None = None) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, or from a ``.pt``, ``.pth``, ``.th`` or ``.tar`` file of torch.

    Torch files go through ``torch.load(weights_only=True)``: a pickle that would run code is refused, and nothing of it
    runs; :data:`ALLOWED_CLASSES` may be named in it. A file that would unpack to far more than its size is refused
    unread. A state dict under ``state_dict``, ``model_state_dict`` or ``model`` is unwrapped; ``prefix`` is stripped
    from the keys that have it.

    Raises:
        WeightsError: for a missing, truncated, hostile or foreign file, one that holds no tensors, or a prefix that no
            key has.
    """
    path = Path(path)
    if not path.name.endswith(WEIGHT_SUFFIXES):
        raise WeightsError(f"{path}: weights must be a {', '.join(WEIGHT_SUFFIXES)} file: convert it")
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such weights file: check the path")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds a {type(content).__name__} and no state dict: save model.state_dict()")
    foreign = [key for key, value in content.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if foreign:
        raise WeightsError(f"{path}: {foreign[0]!r} is no tensor with a name: save model.state_dict() alone")
    return _strip(dict(content), prefix, path) if prefix else dict(content)


def _strip(state: dict[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    if not any(key.startswith(prefix) for key in state):
        raise WeightsError(f"{path}: no key starts with the prefix {prefix!r}, the first is {next(iter(state))!r}")
    stripped = {key.removeprefix(prefix): value for key, value in state.items()}
    if len(stripped) < len(state):
        raise WeightsError(f"{path}: without the prefix {prefix!r} two keys are the same: give another prefix")
    return stripped


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as problem:
        raise WeightsError(f"{path} is no whole safetensors file ({one_line(problem)}): fetch it again") from problem


class _Inert:
    """Stands for an allowed class, and keeps nothing of its state."""

    def __setstate__(self, state: object) -> None:
        pass


def _refuse_bomb(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > UNPACKED * path.stat().st_size:
        raise WeightsError(
            f"{path} is refused: it has {path.stat().st_size} bytes and would unpack to {unpacked}; "
            "torch does not compress, so save model.state_dict() anew"
        )


def _read_torch(path: Path) -> Any:
    inert: list[Any] = [(_Inert, name) for name in ALLOWED_CLASSES]
    try:
        _refuse_bomb(path)
        with torch.serialization.safe_globals(inert):
            return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as problem:  # a hostile or truncated file makes the unpickler raise nearly anything
        names = re.findall(r"GLOBAL (\S+)", str(problem))
        if names:
            raise WeightsError(
                f"{path} is refused: its pickle calls for {names[0]}, which is no tensor and could run code; "
                "save model.state_dict() alone, best as .safetensors"
            ) from problem
        reason = one_line(problem)
        raise WeightsError(
            f"{path} cannot be read as weights alone ({reason}): fetch it again, or save model.state_dict() anew"
        ) from problem
