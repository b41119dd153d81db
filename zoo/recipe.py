"""Training recipes: a YAML file of defaults and grids of factors, expanded to one ``Run`` per training run."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from invariscope.base.errors import InputError, ModelError, OperatorError, RecipeError
from invariscope.zoo.datasets.inputs import LARGEST_SIDE
from invariscope.zoo.manifest_models import check_zoo_model
from invariscope.zoo.model_string import Argument
from invariscope.zoo.operators import OperatorSpec, operator_code_files, read_downsampling
from invariscope.zoo.run import CODE, OPTIMIZERS, PRECISIONS, Run, operator_factors
from invariscope.zoo.sampling import PADDING_MODES
from invariscope.zoo.user_code import no_code
from invariscope.zoo.yaml_lines import Located, read_yaml

MOST_RUNS, MOST_EPOCHS = 10_000, 1_000_000
"""Runs of one grid, and epochs of a run, at most."""

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


def read_recipe(path: str | Path, *, allow_code: bool = False) -> list[Run]:
    """Read a recipe and expand it.

    A recipe is a mapping with ``grid``, one mapping or a list of them, and optional ``defaults``. Keys are the
    fields of :class:`Run`. In a grid each value may be a list, and a grid stands for all combinations of its lists,
    the last key varying fastest. (``snapshots`` and ``evaluate_as`` are lists themselves: a list of lists varies them.)
    The Python file of an operator or architecture ``python:FILE.py:NAME`` is relative to the recipe's folder, and its
    code runs; the files of ``data`` are too, where they are there, and else to the working folder.

    Args:
        allow_code: run the Python files that the recipe names, which is refused without.

    Raises:
        RecipeError: for code without leave, an unknown key, a value of the wrong kind, an unknown architecture or
            operator, or two runs that are the same or would have the same name; with file and line.
    """
    root, folder = read_yaml(path, RecipeError, "recipe"), Path(path).parent
    if not allow_code:
        refuse_code(root)
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


def refuse_code(root: Located) -> None:
    """Refuse a recipe or a design that names a Python file, before any of it runs.

    Raises:
        RecipeError: with the line of the first such name.
    """
    waiting = [root]
    while waiting:
        item = waiting.pop()
        if isinstance(item.value, dict):
            waiting += item.value.values()
        elif isinstance(item.value, list):
            waiting += item.value
        elif isinstance(item.value, str) and CODE in item.value:
            files = [str(file) for file in operator_code_files(item.value)]
            if item.value.startswith(CODE):
                files.append(item.value.removeprefix(CODE).partition(":")[0])
            if files:
                raise item.fail(no_code(repr(item.value), Path(files[0])))


def _same(run: Run) -> str:
    """A key that two runs share when they train the same under different names (``soft(2)`` and ``soft(beta=2)``)."""
    return repr({**run.settings, "operator": operator_factors(run.operator)["operator_spec"], "label": ""})


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
    if (count := math.prod(map(len, levels))) > MOST_RUNS:
        raise grid.fail(f"the grid stands for {count:,} runs, more than {MOST_RUNS:,}: leave values out")
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
        case "seed" | "wake_up" | "limit":
            return item.integer(what, 0)
        case "augment_shift":
            return item.integer(what, 0, LARGEST_SIDE)
        case "batch_size":
            return item.integer(what, 1)
        case "epochs":
            return item.integer(what, 1, MOST_EPOCHS)
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
    if not all(run.architecture.removeprefix(CODE).rpartition(":")):
        raise ModelError(f"architecture {run.architecture!r} names no callable: write it like python:my_nets.py:build")
    if not os.path.isfile(file):
        raise ModelError(f"architecture {run.architecture!r}: there is no file {file}: correct the path")
    for operator in (run.operator, *run.evaluate_as):
        if isinstance(operator, OperatorSpec) and operator.code_files:
            raise ModelError(
                f"architecture {run.architecture!r} cannot find the file of the operator {operator}: let the "
                "architecture's file import that operator, or register it"
            )


def _mark(value: Any) -> str:
    if isinstance(value, Mapping):
        return "+".join(f"{key}{entry}" for key, entry in value.items())
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
