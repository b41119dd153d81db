"""What a checkpoint is: the network, where its weights lie, what it was trained on. Importing it imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.yaml_lines import Scalar

WEIGHT_SUFFIXES = (".safetensors", ".pth.tar", ".pt", ".pth", ".th", ".tar")
"""File names that hold weights; all but the first are read by ``torch.load(weights_only=True)``."""


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
        prefix: what to strip from the keys of the weights, for example ``module.``.
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

    @cached_property
    def parts(self) -> ModelString:
        """The model string in its parts.

        Raises:
            ModelError: it is no model string.
        """
        return ModelString.parse(self.model)
