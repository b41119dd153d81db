"""The state of a training run in one safetensors file, from which it goes on to the same weights, bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from invariscope.base.files import write_atomic
from invariscope.zoo.training.trainer import Trainer

_KEY = "invariscope"


class StateError(ValueError):
    """A state file that cannot be used; the message says why."""


def save_state(trainer: Trainer, path: Path, settings: Mapping[str, Any]) -> None:
    """Write all that a run needs to go on: weights, optimiser, schedule, loss scale, random numbers and epoch.

    ``settings`` is what the weights follow from; the file is of use for a run of the same settings alone. Tensors are
    the file's own, everything else is JSON in its metadata, with a SHA-256 over both; written whole or not at all.
    """
    tensors, values = _capture(trainer)
    content: dict[str, Any] = {"settings": dict(settings), "values": values}
    content["digest"] = _digest(tensors, content)
    write_atomic(path, save(tensors, {_KEY: json.dumps(content, sort_keys=True)}))


def restore_state(trainer: Trainer, path: Path, settings: Mapping[str, Any]) -> None:
    """Bring a new trainer, and torch's global random numbers, to where :func:`save_state` was called.

    Raises:
        StateError: for a file that is cut off or damaged, or of other settings, and then the trainer may be spoilt.
    """
    tensors, content = _read(path)
    if content["settings"] != json.loads(json.dumps(dict(settings))):
        raise StateError("it is of a training with other settings")
    try:
        _restore(trainer, tensors, content["values"])
    except (KeyError, TypeError, ValueError, RuntimeError) as problem:
        raise StateError(f"it does not fit the network ({str(problem).splitlines()[0]})") from problem


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            content = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest = content.pop("digest")
        intact = digest == _digest(tensors, content) and {"settings", "values"} == set(content)
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError, ValueError) as problem:
        raise StateError("it is no whole state of a training") from problem
    if not intact:
        raise StateError("it is damaged")
    return tensors, content


def _capture(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {f"model.{name}": value for name, value in trainer.weights().items()}
    tensors["random.global"] = torch.get_rng_state()
    tensors["random.order"] = trainer.order.get_state()
    if trainer.device == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    optimizer = trainer.optimizer.state_dict()
    scalars: dict[str, dict[str, Any]] = {}
    for index, entries in optimizer["state"].items():
        scalars[str(index)] = {name: value for name, value in entries.items() if not isinstance(value, Tensor)}
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value.detach().to("cpu", copy=True).contiguous()
    values = {
        "done": trainer.done,
        "groups": optimizer["param_groups"],
        "scalars": scalars,
        "schedule": trainer.schedule.state_dict(),
        "scaler": trainer.scaler.state_dict(),
    }
    return tensors, values


def _restore(trainer: Trainer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in values["scalars"].items()}
    model = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "model":
            model[rest] = value
        elif kind == "optimizer":
            index, _, entry = rest.partition(".")
            state[int(index)][entry] = value
    trainer.model.load_state_dict(model)
    trainer.optimizer.load_state_dict({"state": state, "param_groups": values["groups"]})
    for parameter, entries in trainer.optimizer.state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(
                    value
                )  # in the layout of its parameter
    trainer.schedule.load_state_dict(values["schedule"])
    trainer.scaler.load_state_dict(values["scaler"])
    trainer.order.set_state(tensors["random.order"])
    torch.set_rng_state(tensors["random.global"])
    if trainer.device == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"])
    trainer.done = int(values["done"])


def _digest(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
