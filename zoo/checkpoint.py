"""What a checkpoint is: the network, where its weights lie, what it was trained on. Importing it imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from invariscope.base.errors import WeightsError
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.exchange import data_files
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.outputs import Classes
from invariscope.zoo.yaml_lines import Scalar

INDEX_SUFFIX = ".index.json"
"""End of the name of a file that says in which files of the same folder the weights lie."""

WEIGHT_SUFFIXES = (
    *(".safetensors", ".pth.tar", ".pt", ".pth", ".th", ".tar", ".ckpt", ".bin", ".model"),
    *(".safetensors.index.json", ".bin.index.json"),
)
"""File names that hold weights; torch's are read by ``torch.load(weights_only=True)``."""

_KERAS = (".h5", ".keras", ".hdf5", ".pb")
_NUMPY = (".npz", ".npy", ".pkl", ".pickle", ".mat")
_ONNX = "and name that file as the model, model: onnx:FILE, without weights"
_CONVERT: dict[tuple[str, ...], str] = {
    _KERAS: f"a file of TensorFlow: export it to ONNX (tf2onnx, or model.export(FILE, format='onnx')), {_ONNX}",
    (".tflite",): f"a file of TensorFlow Lite: convert it to ONNX with tf2onnx --tflite, {_ONNX}",
    (".onnx",): "a whole network: name it as the model, model: onnx:FILE, without weights",
    _NUMPY: "no file of torch: read it and save it with torch.save(model.state_dict(), FILE)",
}


def no_weights(name: str) -> str:
    """Why a file of this name holds no weights, and what to do; empty for one that does."""
    if name.endswith(WEIGHT_SUFFIXES):
        return ""
    for suffixes, remedy in _CONVERT.items():
        if name.lower().endswith(suffixes):
            return f"weights must be a {', '.join(WEIGHT_SUFFIXES)} file, and this is {remedy}"
    return f"weights must be a {', '.join(WEIGHT_SUFFIXES)} file: convert it"


def shards(path: Path) -> list[Path]:
    """The files that an index names, in order of their names.

    Raises:
        WeightsError: it is no such index, or names a file outside of its folder.
    """
    try:
        named = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(named.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise WeightsError(f"{path} is no index of weights with a weight_map: fetch it again") from problem
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name.endswith(INDEX_SUFFIX) or no_weights(name):
            raise WeightsError(f"{path} names {name!r}: its files must be weights in its own folder")
    return [path.parent / name for name in names]


@dataclass(frozen=True)
class Checkpoint:
    """One trained network of a zoo: how to build it, where its weights are, and what it was trained on.

    Attributes:
        name: unique within the manifest.
        model: model string, for example ``zoo:resnet20?operator=tips&padding_mode=circular``.
        weights: path of the weights file.
        input: input size and normalisation.
        labels: name of the label set, where it is given.
        factors: free columns for the analysis (operator, seed, run, epoch, ...): text, numbers, true or false.
        metrics: numbers that somebody else has measured of it (validation accuracy, calibration error, ...), for the
            analysis.
        prefix: what to strip from the keys of the weights, for example ``module.``.
        key: the entry of the weights file that holds the weights, where there are several.
        rename: what to replace in the keys, pairs of texts; or ``regex`` and ``to`` with a pattern and its replacement.
        ignore: keys of the file that are no weights of the network.
        classes: which outputs of the network are the classes of the data; all of them where it is not given.
        folder: the manifest's folder, to which ``python:`` files are relative.
        line: line of the entry in the manifest, 0 for a checkpoint that was not read from one.
        manifest: the manifest's file, none for a checkpoint that was not read from one.
    """

    name: str
    model: str
    weights: Path
    input: InputSpec
    labels: str | None = None
    factors: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))
    prefix: str | None = None
    folder: Path = Path()
    line: int = field(default=0, compare=False)
    manifest: Path | None = field(default=None, compare=False)
    key: str | None = None
    rename: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    ignore: tuple[str, ...] = ()
    classes: Classes | None = None
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def parts(self) -> ModelString:
        """The model string in its parts.

        Raises:
            ModelError: it is no model string.
        """
        return ModelString.parse(self.model)

    @property
    def variant(self) -> dict[str, Any]:
        """What makes another network of the same file and model string; empty for most."""
        rename = list(map(list, self.rename.items()))
        made: dict[str, Any] = {"key": self.key, "rename": rename, "ignore": list(self.ignore)}
        made["classes"] = self.classes.settings() if self.classes else None
        return {name: value for name, value in made.items() if value}

    def files(self) -> list[Path]:
        """The weights file, and those that it names where it is an index or keeps weights beside it.

        Raises:
            WeightsError: an index that cannot be read, or names a file that is not there.
            ModelError: an ONNX file that cannot be read.
        """
        if self.parts.scheme == "onnx":
            others = data_files(self.weights)
        else:
            others = shards(self.weights) if self.weights.name.endswith(INDEX_SUFFIX) else []
        for file in others:
            if not file.is_file():
                raise WeightsError(
                    f"{self.weights} names {file.name}, which is not there: put all of its files beside it"
                )
        return [self.weights, *others]
