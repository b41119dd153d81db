"""From a checkpoint to its network: model strings are built, weights are read without running any code of theirs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from invariscope.base.errors import InputError, ModelError, WeightsError
from invariscope.base.files import sha256_file
from invariscope.base.names import unknown
from invariscope.base.processes import is_asked_for
from invariscope.zoo.architectures import ARCHITECTURES
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.exchange import build_onnx
from invariscope.zoo.hub import hub_builder, hub_input
from invariscope.zoo.layouts import Layout, proposal
from invariscope.zoo.libraries import timm_builder, timm_input, torchvision_builder, torchvision_input
from invariscope.zoo.model_input import set_input
from invariscope.zoo.model_string import LIBRARIES, ModelString
from invariscope.zoo.operators import read_downsampling
from invariscope.zoo.outputs import choose_outputs
from invariscope.zoo.timm_config import config_input
from invariscope.zoo.user_code import ENDS, find_code, load_user_object, of_code, remedy, said, where
from invariscope.zoo.weights import load_weights

__all__ = ["build_model", "default_input", "load_checkpoint", "load_weights", "sha256_file"]

_SHOWN = 3
"""So many keys of a kind stand in an error message."""


def build_model(model: str | ModelString, folder: str | Path | None = None, *, download: bool = False) -> nn.Module:
    """Build the network of a model string, with its initial weights.

    ``zoo:NAME``, ``python:FILE.py:CALLABLE`` or ``python:PACKAGE.MODULE:CALLABLE`` (relative to ``folder``, see
    :func:`invariscope.zoo.user_code.load_user_object`; its code runs), ``timm:NAME`` or ``torchvision:NAME`` (which
    must be installed), ``hf:ORG/NAME`` of the Hugging Face hub's cache or ``onnx:FILE`` (relative to ``folder``, with
    its weights), each with ``?name=value&name=value``. ``timm:NAME?pretrained``,
    ``torchvision:NAME?pretrained`` and ``torchvision:NAME?weights=TAG`` have their library's pretrained weights, read
    from its cache on this machine. Weights that are not there are refused with a line that says what would be
    downloaded from where; ``download=True`` downloads them.

    Raises:
        ModelError: for an unknown name or argument, a file that cannot be run, a result that is no ``nn.Module``, or
            pretrained weights that are not on this machine.
        OperatorError: for an operator of a ``zoo:`` network that cannot be built.
    """
    parts = ModelString.of(model)
    text = str(model)
    builder = _builder(parts, Path(folder or "."), download)
    _check_arguments(builder, parts)
    try:
        with of_code() if parts.scheme == "python" else nullcontext():
            network = builder(**_arguments(parts, folder))
    except InputError as problem:
        raise type(problem)(f"model {text!r}: {problem}") from problem
    except ENDS as problem:  # the builder is foreign code, and may raise anything
        if is_asked_for(problem):
            raise
        place = f" at {where(problem)}" if where(problem) else ""
        todo = remedy(problem, "correct its arguments")
        raise ModelError(f"model {text!r} cannot be built ({said(problem)}){place}: {todo}") from problem
    if not isinstance(network, nn.Module):
        raise ModelError(f"model {text!r} gives a {type(network).__name__}: return a torch.nn.Module")
    if parts.scheme in LIBRARIES and (spec := default_input(parts)) is not None:
        set_input(network, spec)
    return network


def default_input(model: str | ModelString, folder: str | Path | None = None) -> InputSpec | None:
    """Input size and normalisation that a model string's library has on record for the network; None where it has none.

    timm: ``input_size``, ``mean`` and ``std`` of the network's pretrained configuration (of the tag that is named, or
    the default one), with or without the weights. torchvision: those of the weights' transforms. ``python:``: of the
    callable's attribute ``default_cfg``, a dict as timm's. Networks of ``zoo:`` have none, nor have those that do not
    take square images or that normalise on their own (detection). The network is not built.

    Raises:
        ModelError: for an unknown network, or a library that is not installed.
    """
    parts = ModelString.of(model)
    if parts.scheme == "timm":
        return timm_input(parts)
    if parts.scheme == "torchvision":
        return torchvision_input(parts)
    if parts.scheme == "hf":
        return hub_input(parts)
    if parts.scheme == "python":
        config = getattr(_python(parts, Path(folder or ".")), "default_cfg", None)
        return config_input(config) if isinstance(config, Mapping) else None
    return None


def load_checkpoint(checkpoint: Checkpoint) -> nn.Module:
    """The network of a checkpoint with its trained weights, on the CPU, in evaluation mode.

    Raises:
        ModelError: when the network cannot be built.
        WeightsError: when the weights cannot be read, or do not fit the network (which keys).
    """
    network = build_model(checkpoint.parts, checkpoint.folder)
    if checkpoint.parts.scheme != "onnx":  # which holds its own
        _load(network, checkpoint)
    if checkpoint.classes is not None:
        choose_outputs(network, checkpoint.classes)
    return set_input(network, checkpoint.input).eval()


def _load(network: nn.Module, checkpoint: Checkpoint) -> None:
    options: dict[str, Any] = {"key": checkpoint.key, "rename": checkpoint.rename, "ignore": checkpoint.ignore}
    state = load_weights(checkpoint.weights, checkpoint.prefix, **options)
    misfit = _misfit(network, state)
    if misfit:
        fits = proposal(network.state_dict(), state, Layout(checkpoint.prefix))
        remedy = f"with {fits} it would fit" if fits else "correct the model string or the prefix"
        raise WeightsError(f"{checkpoint.weights} does not fit {checkpoint.model!r}: {misfit}; {remedy}")
    network.load_state_dict(state, strict=False)


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


def _arguments(parts: ModelString, folder: str | Path | None) -> dict[str, Any]:
    """The builder's arguments; the operator of a ``zoo:`` network as an object, its Python file from ``folder``."""
    arguments: dict[str, Any] = dict(parts.arguments)
    if parts.scheme == "zoo" and "operator" in arguments:
        arguments["operator"] = read_downsampling(arguments["operator"], folder)
    return arguments


def _builder(parts: ModelString, folder: Path, download: bool) -> Callable[..., Any]:
    if parts.scheme == "python":
        return _python(parts, folder)
    if parts.scheme == "timm":
        return timm_builder(parts, download)
    if parts.scheme == "torchvision":
        return torchvision_builder(parts, download)
    if parts.scheme == "hf":
        return hub_builder(parts, load_weights)
    if parts.scheme == "onnx":
        return lambda: build_onnx(folder / parts.target)
    builder: Callable[..., Any] = ARCHITECTURES[parts.target]
    return builder


def _python(parts: ModelString, folder: Path) -> Callable[..., Any]:
    place, _, name = parts.target.rpartition(":")
    try:
        builder: Callable[..., Any] = load_user_object(find_code(place, folder), name, root=folder, error=ModelError)
    except ModelError as problem:
        raise ModelError(f"model {str(parts)!r}: {problem}") from problem.__cause__
    return builder
