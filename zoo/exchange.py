"""Networks in the exchange format ONNX, by ``onnx:FILE``: converted to torch by onnx2torch, as data.

Importing this module imports neither torch nor onnx.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariscope.base.errors import ModelError, one_line
from invariscope.base.words import counted

if TYPE_CHECKING:
    from torch import nn

SUFFIX = ".onnx"

_CHANNELS = (1, 3, 4)
_SOFTMAX = ("Softmax", "LogSoftmax")

_log = logging.getLogger(__name__)


def data_files(file: Path) -> list[Path]:
    """The files beside an ONNX file in which it keeps weights; none where onnx is not installed.

    Raises:
        ModelError: it is no ONNX file, or names a file outside of its folder.
    """
    try:
        proto = _proto(file)
    except ModelError as problem:
        if isinstance(problem.__cause__, ImportError):
            return []
        raise
    return [file.parent / name for name in _data_names(proto, file)]


def build_onnx(file: Path) -> nn.Module:
    """The network of an ONNX file, with its weights, in evaluation mode.

    It takes ``(N, C, H, W)``, also where the file takes ``(N, H, W, C)``, and gives what the file gives, without a
    softmax at its end: what is measured are logits.

    Raises:
        ModelError: onnx or onnx2torch is not installed, it is no ONNX file, lacks weights that lie beside it, has
            several inputs, takes a fixed number of images, or holds what onnx2torch does not convert.
    """
    from invariscope.zoo.optional import import_optional, prepare_torchvision

    proto = _proto(file)
    names = _data_names(proto, file)
    if missing := [name for name in names if not (file.parent / name).is_file()]:
        raise ModelError(f"{file} keeps weights in {missing[0]}, which is not there: put it beside the file")
    prepare_torchvision()  # onnx2torch imports it
    onnx, onnx2torch = import_optional("onnx", "onnx"), import_optional("onnx2torch", "onnx")
    try:
        if names:
            onnx.load_external_data_for_model(proto, str(file.parent))
        takes = _input(proto, file)
        if softmax := _without_softmax(proto):
            _log.warning("%s ends in a %s, which is left out: logits are measured", file.name, softmax)
        network: nn.Module = onnx2torch.convert(proto).eval()
    except ModelError:
        raise
    except Exception as problem:  # of many kinds: what is not known to the converter, or malformed
        raise ModelError(
            f"{file} cannot be converted by onnx2torch ({one_line(problem)}): export it with another opset (13 to 17), "
            "or write the network in torch"
        ) from problem
    _check_batch(network, takes, file)
    if len(takes) == 4 and takes[3] in _CHANNELS and takes[1] not in _CHANNELS:
        network = _channels_first(network)
    return network


def _proto(file: Path) -> Any:
    """The parsed file, without the weights that lie in other ones."""
    from invariscope.zoo.optional import import_optional

    onnx = import_optional("onnx", "onnx")
    if not file.is_file():
        raise ModelError(f"there is no ONNX file {file}: correct the path")
    try:
        proto = onnx.load(str(file), load_external_data=False)
    except Exception as problem:  # protobuf's own errors
        raise ModelError(f"{file} is no whole ONNX file ({one_line(problem)}): export it again") from problem
    if not proto.graph.node:
        raise ModelError(f"{file} is no whole ONNX file (it has no layers): export it again")
    return proto


def _data_names(proto: Any, file: Path) -> list[str]:
    found = set()
    for tensor in _tensors(proto):
        for entry in tensor.external_data:
            if entry.key == "location":
                if Path(entry.value).name != entry.value:
                    raise ModelError(f"{file} names {entry.value!r}: its weights must lie in its own folder")
                found.add(entry.value)
    return sorted(found)


def _tensors(proto: Any) -> Iterator[Any]:
    """Every tensor of a file: weights, constants, those of graphs inside of layers, and of functions."""
    graphs, nodes = [proto.graph], [node for function in proto.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            nodes += graph.node
            continue
        for attribute in nodes.pop().attribute:
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
            graphs += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _check_batch(network: nn.Module, takes: list[int], file: Path) -> None:
    """Refuse a file that takes a fixed number of images where it does not take more in fact.

    Raises:
        ModelError: two images of the size that it says are refused, or give other than two rows.
    """
    import torch

    if len(takes) != 4 or not all(takes):
        return
    try:
        with torch.no_grad():
            fits = len(network(torch.zeros(takes[0] + 1, *takes[1:]))) == takes[0] + 1
    except Exception:  # of whatever layer it is
        fits = False
    if not fits:
        raise ModelError(
            f"{file} takes {counted(takes[0], 'image')} at a time: export it with a batch axis that is open "
            "(dynamic_axes or dynamic_shapes)"
        )


def _input(proto: Any, file: Path) -> list[int]:
    """The shape that the one input of a graph says, 0 for what it leaves open."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise ModelError(f"{file} has {len(inputs)} inputs: export a network that takes images alone")
    return [dimension.dim_value for dimension in inputs[0].type.tensor_type.shape.dim]


def _without_softmax(proto: Any) -> str:
    """Take a softmax from the end of a graph; its name, empty where there is none."""
    (output, *others) = proto.graph.output
    last = next((node for node in proto.graph.node if output.name in node.output), None)
    if others or last is None or last.op_type not in _SOFTMAX:
        return ""
    kind = str(last.op_type).lower()
    before = last.input[0]
    proto.graph.node.remove(last)
    output.name = before
    return kind


def _channels_first(network: nn.Module) -> nn.Module:
    from torch import Tensor, nn

    class ChannelsFirst(nn.Module):
        """A network that takes ``(N, H, W, C)``, given ``(N, C, H, W)``."""

        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Any:
            return self.network(x.permute(0, 2, 3, 1))

    return ChannelsFirst(network).eval()
