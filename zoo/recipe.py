"""Training recipes: a YAML file of defaults and grids of factors, expanded to one ``Run`` per training run."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invariscope.base.errors import InputError, ModelError, OperatorError, RecipeError
from invariscope.zoo.manifest import check_zoo_model
from invariscope.zoo.model_string import Argument, ModelString
from invariscope.zoo.operators import STRIDED, OperatorSpec, read_downsampling
from invariscope.zoo.sampling import PADDING_MODES
from invariscope.zoo.user_code import find_code
from invariscope.zoo.yaml_lines import Located, Scalar, read_yaml

OPTIMIZERS = ("adamw", "sgd")

_CODE = "python:"
"""What the name of an architecture of a Python file begins with."""

DESIGNS = ("population", "rotations", "repeats")
"""Items of a design's grid that are drawn once, before anything is trained."""

RUN_FACTORS = (
    *("operator", "operator_spec", "strength", "architecture", "padding_mode", "training_data"),
    *(
        "seed",
        "run",
        "epoch",
        "draw",
        "alpha",
        "failure_weight",
        "wake_up",
        "pool",
        "hard",
        "failure",
        "undo",
        "n_params",
    ),
)
"""The factors that a manifest has of itself: no recipe can give others under these names."""

PRECISIONS = ("fp32", "bf16", "fp16")
"""Of the forward passes of training; weights, loss and optimizer stay in float32."""

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
        precision: ``fp32``, or ``bf16`` or ``fp16`` for forward passes under autocast (``fp16`` with a scaled loss).
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
        if not self.architecture.startswith(_CODE):
            return None
        return find_code(self.architecture.removeprefix(_CODE).rpartition(":")[0], self.folder or Path())

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
        target = self.architecture.removeprefix(_CODE)
        if folder is not None:
            path = Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
            target = f"{path}:{self.architecture_name}"
        return ModelString("python", target, {**arguments, "operator": str(operator)})


def read_recipe(path: str | Path) -> list[Run]:
    """Read a recipe and expand it.

    A recipe is a mapping with ``grid``, one mapping or a list of them, and optional ``defaults``. Keys are the
    fields of :class:`Run`. In a grid each value may be a list, and a grid stands for all combinations of its lists,
    the last key varying fastest. (``snapshots`` and ``evaluate_as`` are lists themselves: a list of lists varies them.)
    The Python file of an operator or architecture ``python:FILE.py:NAME`` is relative to the recipe's folder, and its
    code runs; the files of ``data`` are too, where they are there, and else to the working folder.

    Raises:
        RecipeError: for an unknown key, a value of the wrong kind, an unknown architecture or operator, or two runs
            that are the same or would have the same name; with file and line.
    """
    root, folder = read_yaml(path, RecipeError, "recipe"), Path(path).parent
    top = root.mapping("the recipe", ("defaults", "grid"), ("grid",))
    defaults: dict[str, Any] = {}
    if "defaults" in top:
        entries = top["defaults"].mapping("defaults", _FIELDS)
        defaults = {key: _value(key, item, f"defaults: {key}", folder) for key, item in entries.items()}
    grids = top["grid"].items("grid") if isinstance(top["grid"].value, list) else [top["grid"]]
    lines: dict[str, int] = {}
    runs = []
    for grid in grids:
        for run in _expand(grid, defaults, folder):
            for key in (run.id, _same(run)):
                if key in lines:
                    raise grid.fail(
                        f"the run {run.id} stands already in the grid of line {lines[key]}: "
                        "leave one out, or tell different ones apart by a `label`"
                    )
            lines |= {run.id: grid.line, _same(run): grid.line}
            runs.append(run)
    return runs


def _same(run: Run) -> str:
    """A key that two runs share when they train the same under different names (``soft(2)`` and ``soft(beta=2)``)."""
    return repr({**run.settings, "operator": operator_factors(run.operator)["operator_spec"], "label": ""})


LATER: dict[str, Any] = {entry.name: entry.default for entry in dataclasses.fields(Run) if "later" in entry.metadata}
"""The defaults of the fields that :attr:`Run.settings` leaves out where they are at it."""

_FIELDS = tuple(entry.name for entry in dataclasses.fields(Run) if entry.name != "folder")

_LISTS = ("snapshots", "evaluate_as")
"""Fields whose value is a list: a list of lists varies them."""

_IN_ID = ("architecture", "operator", "padding_mode", "seed", "label", "draw", "factors")
"""Fields that tell runs apart by name, or are not told in it."""


def _expand(grid: Located, defaults: Mapping[str, Any], folder: Path) -> list[Run]:
    drawn = [key for key in DESIGNS if isinstance(grid.value, dict) and key in grid.value]
    if drawn:
        write = f"write it out first with `invariscope draw {grid.path.name} --out RECIPE.yaml`"
        raise grid.fail(f"{drawn[0]} is a design, and training draws nothing: {write}")
    entries = grid.mapping("the grid", _FIELDS)
    levels = [_levels(key, item, folder) for key, item in entries.items()]
    varied = [key for key, level in zip(entries, levels, strict=True) if len(level) > 1 and key not in _IN_ID]
    runs = []
    for combination in itertools.product(*levels):
        values = {**defaults, **dict(zip(entries, combination, strict=True))}
        marks = [values.get("label", ""), *(f"{key}={_mark(values[key])}" for key in varied)]
        run = Run(**{**values, "label": ",".join(mark for mark in marks if mark)}, folder=folder)
        _check(run, entries, grid)
        runs.append(run)
    return runs


def _levels(key: str, item: Located, folder: Path) -> list[Any]:
    """The values of one key of a grid, one or several."""
    several = isinstance(item.value, list)
    if several and key in _LISTS:
        several = bool(item.value) and all(isinstance(entry.value, list) for entry in item.value)
    items = item.items(key) if several else [item]
    levels = [_value(key, entry, key, folder) for entry in items]
    for position, level in enumerate(levels):
        if level in levels[:position]:
            raise items[position].fail(f"{key} lists {_mark(level)} twice: remove one")
    return levels


def _value(key: str, item: Located, what: str, folder: Path) -> Any:
    match key:
        case "operator":
            return _operator(item, what, folder)
        case "architecture" | "padding_mode" | "data" | "optimizer" | "label" | "precision" | "draw":
            return item.text(what)
        case "seed" | "augment_shift" | "wake_up" | "limit":
            return item.integer(what, 0)
        case "epochs" | "batch_size":
            return item.integer(what, 1)
        case "lr" | "weight_decay" | "failure_weight" | "clip_norm":
            return item.number(what, 0)
        case "momentum" | "alpha" | "label_smoothing":
            return item.number(what, 0, 1)
        case "augment_flip" | "channels_last":
            return item.flag(what)
        case "snapshots":
            epochs = item.items(what) if item.value != [] else []
            return tuple(epoch.integer(what, 1) for epoch in epochs)
        case "evaluate_as":
            operators = item.items(what) if item.value != [] else []
            return tuple(_operator(operator, what, folder) for operator in operators)
        case _:
            return {name: _argument(entry, f"{what}.{name}", key) for name, entry in item.mapping(what).items()}


def _operator(item: Located, what: str, folder: Path) -> OperatorSpec | str:
    try:
        return read_downsampling(item.text(what), folder)
    except OperatorError as problem:
        raise item.fail(str(problem)) from None


def _argument(item: Located, what: str, key: str) -> Argument:
    """A value of ``model`` or of ``factors``."""
    value = item.scalar(what)
    if key == "factors" and what.rpartition(".")[2] in RUN_FACTORS:
        raise item.fail(f"{what} is what the recipe says of each run already: take another name")
    if value is None:
        raise item.fail(f"{what} has no value: give one or leave it out")
    return value


def _check(run: Run, entries: Mapping[str, Located], grid: Located) -> None:
    """What the type of a value does not show: names that must be known, epochs that must lie within the training."""

    def fail(key: str, message: str) -> InputError:
        return entries.get(key, grid).fail(message)

    choices = (("optimizer", OPTIMIZERS), ("padding_mode", PADDING_MODES), ("precision", PRECISIONS))
    for key, known in choices:
        if getattr(run, key) not in known:
            raise fail(key, f"{key} is {getattr(run, key)!r}, and must be one of {', '.join(known)}")
    if run.lr == 0:
        raise fail("lr", "lr is 0, and must be positive")
    if run.label_smoothing == 1:
        raise fail("label_smoothing", "label_smoothing is 1, which leaves nothing of the labels: take less")
    if run.snapshots and max(run.snapshots) > run.epochs:
        late = f"a snapshot is wanted after epoch {max(run.snapshots)} of {run.epochs}"
        raise fail("snapshots", f"{late}: name an earlier one")
    try:
        key = "architecture"
        _check_architecture(run)
        key = "operator"
        _check_network(run)
        key = "evaluate_as"
        for operator in run.evaluate_as:
            _check_network(run, operator)
    except OperatorError as problem:
        raise fail(key, str(problem)) from None
    except InputError as problem:
        raise fail("architecture", str(problem)) from None


def _check_network(run: Run, evaluate_as: OperatorSpec | str | None = None) -> None:
    network = run.network(1, 1, evaluate_as)
    if network.scheme == "zoo":
        check_zoo_model(network)


def _check_architecture(run: Run) -> None:
    """Refuse an architecture of a Python file that is not there, or that would have to find another file's operator."""
    file = run.architecture_file
    if file is None:
        return
    if not all(run.architecture.removeprefix(_CODE).rpartition(":")):
        raise ModelError(f"architecture {run.architecture!r} names no callable: write it like python:my_nets.py:build")
    if not file.is_file():
        raise ModelError(f"architecture {run.architecture!r}: there is no file {file}: correct the path")
    for operator in (run.operator, *run.evaluate_as):
        if isinstance(operator, OperatorSpec) and operator.code_files:
            raise ModelError(
                f"architecture {run.architecture!r} cannot find the file of the operator {operator}: let the "
                "architecture's file import that operator, or register it"
            )


def operator_factors(operator: OperatorSpec | str) -> dict[str, Any]:
    """The factors ``operator`` (without arguments), ``operator_spec`` and ``strength`` of an operator specification."""
    spec = read_downsampling(operator)
    if not isinstance(spec, OperatorSpec):
        return {"operator": STRIDED, "operator_spec": STRIDED, "strength": None}
    return {"operator": spec.operator_class.name, "operator_spec": spec.canonical, "strength": spec.strength}


def _short(operator: OperatorSpec | str) -> str:
    return operator.short if isinstance(operator, OperatorSpec) else operator


def _mark(value: Any) -> str:
    if isinstance(value, Mapping):
        return "+".join(f"{key}{entry}" for key, entry in value.items())
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


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
