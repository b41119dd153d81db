"""A training run: all that its weights follow from, its name, and the network that it trains."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invariscope.zoo.model_string import Argument, ModelString
from invariscope.zoo.operators import STRIDED, OperatorSpec, read_downsampling
from invariscope.zoo.user_code import find_code
from invariscope.zoo.yaml_lines import Scalar

OPTIMIZERS = ("adamw", "sgd")

PRECISIONS = ("fp32", "bf16", "fp16")
"""Of the forward passes of training; weights, loss and optimizer stay in float32."""

CODE = "python:"
"""What the name of an architecture of a Python file begins with."""

LONGEST_NAME = 120
"""Characters of an operator's specification, or of a label, in the name of a run: file systems take 255 in all."""

_NOT_OF_WEIGHTS = ("evaluate_as", "draw", "factors", "folder")
"""Fields that the weights do not follow from."""

_LATER = {"later": True}
"""Marks fields that weights files leave out where they have their default: files from before them stay as they are."""


@dataclass(frozen=True)
class Run:
    """One training run; its weights follow from these values (on one machine and one version of torch).

    Attributes:
        architecture: name in ``invariscope.zoo.architectures.ARCHITECTURES``, or ``python:FILE.py:NAME``: a builder
            that takes what theirs take, ``operator`` as its text.
        operator: operator specification, for example ``soft(beta=4)`` or ``python:my_ops.py:Mine``, which may be given
            as its text; ``strided`` for a published ResNet.
        padding_mode: of convolutions and operators.
        seed: gives the initial weights, the order of the images, the augmentation and the operators' noise.
        model: further arguments of the architecture, for example ``width``.
        data: data set, of which the split ``train`` is used.
        epochs: passes over the training images.
        optimizer: ``adamw`` or ``sgd`` (with Nesterov momentum).
        lr: peak of the one-cycle learning rate, which is reached after 30 % of the steps.
        weight_decay: of the optimizer; decoupled for ``adamw``.
        momentum: of ``sgd``.
        batch_size: images per step; a last, smaller batch is left out of an epoch.
        augment_shift: each training image is shifted by up to so many pixels (zero fill = mean), drawn per image.
        snapshots: epochs after which weights are kept; the last epoch always is.
        alpha: weight of the operators' ``undo`` loss: ``(1 - alpha) task + alpha undo + failure_weight failure_modes``.
        failure_weight: weight of the operators' ``failure_modes`` loss.
        wake_up: number of epochs with the task's loss alone, before the operators' losses count.
        limit: train on the first so many images; 0 for all.
        augment_flip: each training image is flipped left to right with probability one half.
        label_smoothing: of the cross entropy, from 0 to below 1.
        clip_norm: gradients are scaled down to this Euclidean norm over all parameters; 0 leaves them alone.
        precision: ``fp32``, or ``bf16`` or ``fp16`` for forward passes under autocast (``fp16`` with a scaled loss);
            which is faster, and in which layout, depends on operator and processor (``benchmarks.training``).
        channels_last: train in the memory layout NHWC, which is faster for some operators.
        evaluate_as: further operator specifications with which the same weights stand in the manifest, for example
            ``tips(hard=true)``.
        label: tells apart runs that differ in other factors than those that make up :attr:`id`.
        draw: name of a drawn operator, which stands in :attr:`id` in place of its specification and is a factor.
        factors: further factors for the manifest, which the weights do not follow from.
        folder: the recipe's, in which its Python files and its data are looked for before the working folder.
    """

    architecture: str = "smallcnn"
    operator: OperatorSpec | str = "max"
    padding_mode: str = "zeros"
    seed: int = 0
    model: Mapping[str, Argument] = field(default_factory=dict)
    data: str = "digits"
    epochs: int = 30
    optimizer: str = "adamw"
    lr: float = 0.01
    weight_decay: float = 0.01
    momentum: float = 0.9
    batch_size: int = 64
    augment_shift: int = 0
    snapshots: tuple[int, ...] = ()
    alpha: float = 0.35
    failure_weight: float = 1.0
    wake_up: int = 5
    limit: int = field(default=0, metadata=_LATER)
    augment_flip: bool = field(default=False, metadata=_LATER)
    label_smoothing: float = field(default=0.0, metadata=_LATER)
    clip_norm: float = field(default=0.0, metadata=_LATER)
    precision: str = field(default="fp32", metadata=_LATER)
    channels_last: bool = field(default=False, metadata=_LATER)
    evaluate_as: tuple[OperatorSpec | str, ...] = ()
    label: str = ""
    draw: str = ""
    factors: Mapping[str, Scalar] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "operator", read_downsampling(self.operator))
        object.__setattr__(self, "evaluate_as", tuple(read_downsampling(spec) for spec in self.evaluate_as))

    @property
    def id(self) -> str:
        """Name of the run and of its files: ``smallcnn-soft-beta4-circular-s0`` or ``smallcnn-P017-circular-s1017``."""
        operator = _slug(self.draw or _short(self.operator))
        parts = [_slug(self.architecture_name), operator, self.padding_mode, f"s{self.seed}", _slug(self.label)]
        return "-".join(part for part in parts if part)

    @property
    def architecture_name(self) -> str:
        """The architecture, without the path of a Python file."""
        return self.architecture.rpartition(":")[2]

    @property
    def architecture_file(self) -> Path | None:
        """The Python file that builds the network; none for an architecture by name."""
        if not self.architecture.startswith(CODE):
            return None
        return find_code(self.architecture.removeprefix(CODE).rpartition(":")[0], self.folder or Path())

    def snapshot_name(self, epoch: int, evaluate_as: OperatorSpec | str | None = None) -> str:
        """Name of the checkpoint after an epoch, or of that checkpoint with another operator."""
        name = f"{self.id}-e{epoch:03d}"
        return name if evaluate_as is None else f"{name}-as-{_slug(_short(evaluate_as))}"

    @property
    def snapshot_epochs(self) -> tuple[int, ...]:
        """Epochs after which weights are kept, ascending, with the last one."""
        return tuple(sorted({*self.snapshots, self.epochs}))

    @property
    def settings(self) -> dict[str, Any]:
        """What the weights follow from, as plain values; newer fields only where they are not at their default."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        values |= {"operator": str(self.operator), "snapshots": list(self.snapshots), "model": dict(self.model)}
        for name in _NOT_OF_WEIGHTS:
            del values[name]
        return {name: value for name, value in values.items() if name not in LATER or value != LATER[name]}

    def network(
        self, in_channels: int, classes: int, evaluate_as: OperatorSpec | str | None = None, folder: Path | None = None
    ) -> ModelString:
        """The run's network for images of so many channels and classes; a Python file is relative to ``folder``.

        By default it is relative to what the recipe's is.
        """
        operator = evaluate_as or self.operator
        if folder is not None and isinstance(operator, OperatorSpec):
            operator = operator.seen_from(folder)
        arguments: dict[str, Argument] = {"operator": operator, "padding_mode": self.padding_mode}
        arguments |= {"in_channels": in_channels, "classes": classes, **self.model}
        file = self.architecture_file
        if file is None:
            return ModelString("zoo", self.architecture, arguments)
        target = self.architecture.removeprefix(CODE)
        if folder is not None:
            path = Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
            target = f"{path}:{self.architecture_name}"
        return ModelString("python", target, {**arguments, "operator": str(operator)})


LATER: dict[str, Any] = {entry.name: entry.default for entry in dataclasses.fields(Run) if "later" in entry.metadata}
"""The defaults of the fields that :attr:`Run.settings` leaves out where they are at it."""


def operator_factors(operator: OperatorSpec | str) -> dict[str, Any]:
    """The factors ``operator`` (without arguments), ``operator_spec`` and ``strength`` of an operator specification."""
    spec = read_downsampling(operator)
    if not isinstance(spec, OperatorSpec):
        return {"operator": STRIDED, "operator_spec": STRIDED, "strength": None}
    return {"operator": spec.operator_class.name, "operator_spec": spec.canonical, "strength": spec.strength}


def _short(operator: OperatorSpec | str) -> str:
    return operator.short if isinstance(operator, OperatorSpec) else operator


def _slug(text: str) -> str:
    """Text for a file name: ``soft(beta=4)`` -> ``soft-beta4``, ``tips(pool=phase)`` -> ``tips-phase``.

    A minus is written out, ``soft(-4)`` -> ``soft-minus4``, and a long text ends in a digest of the whole.
    """
    whole = text
    text = re.sub(r"(?<![\w.])-(?=[\d.i])", "minus", text)
    text = re.sub(r"(\w+)=true", r"\1", text, flags=re.IGNORECASE)
    text = re.sub(r"\w+=(?=[A-Za-z])", "", text)
    text = re.sub(r"[^\w.+]+", "-", text.replace("=", "")).strip("-")
    if len(text) <= LONGEST_NAME:
        return text
    return f"{text[:LONGEST_NAME]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
