"""From a checkpoint to its network: model strings are built, weights are read without running any code of theirs."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zoo.architectures import ARCHITECTURES
from zoo.errors import InputError, ModelError, WeightsError, unknown
from zoo.files import sha256_file
from zoo.manifest import WEIGHT_SUFFIXES, Checkpoint
from zoo.model_string import ModelString

__all__ = ["build_model", "load_checkpoint", "load_weights", "sha256_file"]

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts commonly keep the weights."""

_SHOWN = 3
"""So many keys of a kind stand in an error message."""


def build_model(model: str, folder: str | Path | None = None) -> nn.Module:
    """Build the network of a model string, with its initial weights.

    ``zoo:NAME``, ``python:FILE.py:CALLABLE`` (the file is relative to ``folder``, and its code runs), ``timm:NAME`` or
    ``torchvision:NAME`` (which must be installed; nothing is downloaded), each with ``?name=value&name=value``.

    Raises:
        ModelError: for an unknown name or argument, a file that cannot be run, or a result that is no ``nn.Module``.
        OperatorError: for an operator of a ``zoo:`` network that cannot be built.
    """
    parts = ModelString.parse(model)
    builders = {"zoo": _zoo, "python": _python, "timm": _timm, "torchvision": _torchvision}
    builder = builders[parts.scheme](parts, Path(folder or "."))
    _check_arguments(builder, parts)
    try:
        network = builder(**parts.arguments)
    except InputError as problem:
        raise type(problem)(f"model {model!r}: {problem}") from problem
    except Exception as problem:  # the builder is foreign code, and may raise anything
        raise ModelError(f"model {model!r} cannot be built ({_one_line(problem)}): correct its arguments") from problem
    if not isinstance(network, nn.Module):
        raise ModelError(f"model {model!r} gives a {type(network).__name__}: return a torch.nn.Module")
    return network


def load_weights(path: str | Path, prefix: str | None = None) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, or from a ``.pt``, ``.pth``, ``.th`` or ``.tar`` file of torch.

    Torch files go through ``torch.load(weights_only=True)``: a pickle that would run code is refused, and nothing of it
    runs. A state dict under ``state_dict``, ``model_state_dict`` or ``model`` is unwrapped; ``prefix`` is stripped
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


def load_checkpoint(checkpoint: Checkpoint) -> nn.Module:
    """The network of a checkpoint with its trained weights, on the CPU, in evaluation mode.

    Raises:
        ModelError: when the network cannot be built.
        WeightsError: when the weights cannot be read, or do not fit the network (which keys).
    """
    network = build_model(checkpoint.model, checkpoint.folder)
    state = load_weights(checkpoint.weights, checkpoint.prefix)
    misfit = _misfit(network, state)
    if misfit:
        raise WeightsError(
            f"{checkpoint.weights} does not fit {checkpoint.model!r}: {misfit}; correct the model string or the prefix"
        )
    network.load_state_dict(state, strict=False)
    return network.eval()


def _misfit(network: nn.Module, state: Mapping[str, Tensor]) -> str:
    """What keeps a state dict from loading, in words; empty when nothing does."""
    wanted = {key: value for key, value in network.state_dict().items() if isinstance(value, Tensor)}
    # Weights saved before torch 0.4.1 lack the batch counter, which evaluation does not use.
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in wanted]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    types = [
        f"{key} {state[key].dtype} instead of {value.dtype}"
        for key, value in wanted.items()
        if key in state and state[key].is_floating_point() != value.is_floating_point()
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes, "of another type": types}
    return "; ".join(f"{_few(keys)} {kind}" for kind, keys in kinds.items() if keys)


def _few(keys: list[str]) -> str:
    shown = ", ".join(keys[:_SHOWN])
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} {'key' if len(keys) == 1 else 'keys'} ({shown}{more})"


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
        raise WeightsError(f"{path} is no whole safetensors file ({_one_line(problem)}): fetch it again") from problem


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # a hostile or truncated file makes the unpickler raise nearly anything
        names = re.findall(r"GLOBAL (\S+)", str(problem))
        if names:
            raise WeightsError(
                f"{path} is refused: its pickle calls for {names[0]}, which is no tensor and could run code; "
                "save model.state_dict() alone, best as .safetensors"
            ) from problem
        reason = _one_line(problem)
        raise WeightsError(
            f"{path} cannot be read as weights alone ({reason}): fetch it again, or save model.state_dict() anew"
        ) from problem


def _one_line(problem: BaseException) -> str:
    text = re.split(r"\n|\. ", str(problem).strip())[0]
    return f"{type(problem).__name__}: {text[:200]}"


def _check_arguments(builder: Callable[..., Any], parts: ModelString) -> None:
    try:
        parameters = inspect.signature(builder).parameters
    except ValueError:  # some callables written in C have none; the call itself will then complain
        return
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in parts.arguments:
        if name not in parameters:
            raise ModelError(f"model {str(parts)!r}: {unknown('argument', name, parameters)}")


def _zoo(parts: ModelString, folder: Path) -> Callable[..., Any]:
    return ARCHITECTURES[parts.target]


def _python(parts: ModelString, folder: Path) -> Callable[..., Any]:
    file = parts.file(folder)
    name = parts.target.rpartition(":")[2]
    if file is None or not file.is_file():
        raise ModelError(f"model {str(parts)!r}: there is no file {file}: correct the path")
    builder = getattr(_run_file(file.resolve()), name, None)
    if not callable(builder):
        raise ModelError(f"model {str(parts)!r}: {file} has no function or class {name!r}: correct the name")
    return builder


def _run_file(file: Path) -> ModuleType:
    """Run a Python file as a module of a name of its own, which pickle and dataclasses look up."""
    name = f"shiftscope_model_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ModelError(f"{file} is no Python file: give one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as problem:  # foreign code
        del sys.modules[name]
        raise ModelError(f"{file} cannot be run ({_one_line(problem)}): correct it") from problem
    return module


def _timm(parts: ModelString, folder: Path) -> Callable[..., Any]:
    timm = _optional_package("timm", "pip install 'shiftscope[timm]'")
    if not re.fullmatch(r"[\w.]+", parts.target):
        raise ModelError(f"model {str(parts)!r} names a network outside of timm: give the name of one of timm's")
    _refuse_download(parts, ("pretrained",))
    if "checkpoint_path" in parts.arguments:
        # timm would read the file itself, in its older releases by running its pickle.
        raise ModelError(
            f"model {str(parts)!r}: checkpoint_path goes past the checks of weights: name it as the weights"
        )
    return functools.partial(timm.create_model, parts.target, pretrained=False)


def _torchvision(parts: ModelString, folder: Path) -> Callable[..., Any]:
    models = _optional_package(
        "torchvision.models", "pip install torchvision, of the release that belongs to this torch"
    )
    _refuse_download(parts, ("weights", "weights_backbone", "pretrained"))
    try:
        builder = models.get_model_builder(parts.target)
    except ValueError as problem:
        raise ModelError(f"model {str(parts)!r}: {unknown('network', parts.target, models.list_models())}") from problem
    fixed = [name for name in ("weights", "weights_backbone") if name in inspect.signature(builder).parameters]
    return functools.partial(builder, **dict.fromkeys(fixed))


def _refuse_download(parts: ModelString, names: tuple[str, ...]) -> None:
    for name in names:
        if name in parts.arguments:
            raise ModelError(f"model {str(parts)!r}: {name} would download: save the weights as a file and name that")


def _optional_package(name: str, remedy: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as problem:  # RuntimeError: torchvision of another torch
        raise ModelError(f"{name} cannot be imported ({_one_line(problem)}): {remedy}") from problem
