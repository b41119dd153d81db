"""An entry of a zoo's list, from a manifest or a row of a table, to its checkpoints."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from invariscope.base.bounds import LARGEST_INTEGER
from invariscope.base.errors import InputError, ManifestError
from invariscope.base.paths import LONGEST_NAME
from invariscope.zoo.checkpoint import WEIGHT_SUFFIXES, Checkpoint, no_weights
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.exchange import SUFFIX
from invariscope.zoo.manifest_input import read_input
from invariscope.zoo.manifest_models import check_zoo_model
from invariscope.zoo.manifest_weights import read_classes, read_ignore, read_rename, whole
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.user_code import no_code
from invariscope.zoo.yaml_lines import Located, Scalar

PRETRAINED = "pretrained"
"""In the place of a weights file: the weights that timm or torchvision has for the network, in its local cache."""

WHOLE_FACTORS = ("seed",)
NUMBER_FACTORS = ("epoch", "strength")
"""The factors that the analysis reckons with; all others may be anything."""

ENTRY_KEYS = (
    *("name", "model", "weights", "key", "prefix", "rename", "ignore", "input", "classes", "labels", "factors"),
    "metrics",
)


_OF_WEIGHTS = ("weights", "key", "prefix", "rename", "ignore")


def read_entries(path: Path, entries: Sequence[tuple[Located, str]], permissions: Permissions) -> list[Checkpoint]:
    """The checkpoints of the entries of a list, each with what it is called until its name is known.

    Raises:
        ManifestError: for the first problem, with the number of further entries with a problem.
    """
    reader = EntryReader(path, permissions)
    checkpoints: list[Checkpoint] = []
    problems: list[ManifestError] = []
    for item, what in entries:
        try:
            checkpoints += reader.read(item, what)
        except ManifestError as problem:
            problems.append(problem)
    if problems:
        more = f" (and {len(problems) - 1} more entries with a problem)" if len(problems) > 1 else ""
        raise ManifestError(f"{problems[0]}{more}") from None
    if not checkpoints and reader.first_name is not None:
        only = permissions.only
        raise ManifestError(f"--only {only}: no checkpoint of the zoo has such a name ({reader.first_name} is one)")
    return checkpoints


@dataclass(frozen=True)
class Permissions:
    """What a list may ask for, and what is looked at: see :func:`invariscope.zoo.manifest.read_manifest`."""

    outside: bool
    missing_weights: bool
    operators: bool
    code: bool
    listed: bool = False
    only: str = "*"


class EntryReader:
    """Entries to checkpoints; remembers the names, which must differ over the whole list."""

    def __init__(self, path: Path, permissions: Permissions) -> None:
        self._path = path
        self._folder = path.parent
        self._permissions = permissions
        self._lines: dict[str, int] = {}

    def read(self, item: Located, what: str) -> list[Checkpoint]:
        """The checkpoints of one entry, which is called ``what`` until its name is known."""
        if isinstance(item.value, dict) and "name" in item.value:
            what = f"checkpoint {item.value['name'].text(f'{what}: name')!r}"
        entry = item.mapping(what, ENTRY_KEYS, ("model",))
        text, model = self._parsed(entry["model"], what)
        if model.scheme != "onnx":
            item.mapping(what, ENTRY_KEYS, ("weights",))
        elif wrong := [key for key in _OF_WEIGHTS if key in entry]:
            raise entry[wrong[0]].fail(f"{what}: {text!r} holds its weights: leave {wrong[0]} out")
        if model.scheme == "onnx":
            files, is_pattern = self._files(entry["model"], what, "model", model.target)
        else:
            files, is_pattern = self._weights(entry["weights"], what, model)
        named = [(file, self._name(entry, file, is_pattern, item, what)) for file in files]
        named = [(file, name) for file, name in named if fnmatchcase(name, self._permissions.only)]
        if not named:
            return []
        self._check_model(model, entry["model"], what)
        spec = (
            read_input(entry["input"], f"{what}: input") if "input" in entry else self._known_input(model, item, what)
        )
        labels = entry["labels"].text(f"{what}: labels") if "labels" in entry else None
        prefix = entry["prefix"].text(f"{what}: prefix") if "prefix" in entry else None
        key = entry["key"].text(f"{what}: key") if "key" in entry else None
        rename = read_rename(entry["rename"], f"{what}: rename") if "rename" in entry else {}
        ignore = read_ignore(entry["ignore"], f"{what}: ignore") if "ignore" in entry else ()
        classes = read_classes(entry["classes"], f"{what}: classes") if "classes" in entry else None
        factors = _factors(entry["factors"], f"{what}: factors") if "factors" in entry else {}
        metrics = _metrics(entry["metrics"], f"{what}: metrics") if "metrics" in entry else {}
        checkpoints = []
        for file, name in named:
            frozen = MappingProxyType(dict(factors))
            origin = (self._folder, item.line, self._path)
            more: dict[str, Any] = {"key": key, "rename": MappingProxyType(rename), "ignore": ignore}
            more |= {"classes": classes, "metrics": MappingProxyType(dict(metrics))}
            if model.scheme == "onnx" and is_pattern:
                text = f"onnx:{file.relative_to(self._folder).as_posix()}"
            checkpoints.append(Checkpoint(name, text, file, spec, labels, frozen, prefix, *origin, **more))
        return checkpoints

    @property
    def first_name(self) -> str | None:
        """A name of the list, where it has any."""
        return next(iter(self._lines), None)

    def _name(self, entry: Mapping[str, Located], file: Path, is_pattern: bool, item: Located, what: str) -> str:
        """The name of one of an entry's checkpoints, which no other has."""
        name: str = entry["name"].value if "name" in entry else ""
        if is_pattern or not name:
            name = "-".join(part for part in (name, _stem(file)) if part)
        if name in self._lines:
            raise item.fail(f"{what}: the name {name!r} stands already in line {self._lines[name]}: rename one")
        self._lines[name] = item.line
        return name

    def _parsed(self, item: Located, what: str) -> tuple[str, ModelString]:
        text = item.text(f"{what}: model")
        try:
            return text, ModelString.parse(text)
        except InputError as problem:
            raise item.fail(f"{what}: {problem}") from None

    def _check_model(self, model: ModelString, item: Located, what: str) -> None:
        self._check_code(model, item, what)
        try:
            if model.scheme == "zoo" and self._permissions.operators:
                check_zoo_model(model, self._folder)
        except InputError as problem:
            raise item.fail(f"{what}: {problem}") from None

    def _check_code(self, model: ModelString, item: Located, what: str) -> None:
        """Refuse a Python file that may not run, or is not there; before any of it does."""
        text = str(model)
        for file in model.files(self._folder):
            if not self._permissions.code and not self._permissions.listed:
                raise item.fail(no_code(f"{what}: {text!r}", file))
            named_by_path = model.scheme != "python" or model.target.rpartition(":")[0].endswith(".py")
            if named_by_path or file.is_relative_to(self._folder):  # what is installed lies where it lies
                self._check_inside(file, item, f"{what}: model")
            if not os.path.isfile(file):
                raise item.fail(f"{what}: model: there is no file {file}: correct the path")

    def _known_input(self, model: ModelString, item: Located, what: str) -> InputSpec:
        """The input that the model string's library knows, for an entry without one."""
        from invariscope.zoo.loading import default_input  # imports torch, which most manifests do not need

        if not self._permissions.code and (files := model.files(self._folder)):
            raise item.fail(f"{no_code(f'{what}: to find the input of {str(model)!r}', files[0])}; or add input")
        try:
            spec = default_input(model, self._folder)
        except InputError as problem:
            raise item.fail(f"{what}: {problem}; or add input: {{size, mean, std}}") from None
        if spec is None:
            unsaid = f"{str(model)!r} does not say which images it takes"
            raise item.fail(f"{what}: input is missing, and {unsaid}: add size, mean and std")
        return spec

    def _pretrained(self, model: ModelString, item: Located, what: str) -> Path:
        from invariscope.zoo.libraries import pretrained_file  # imports torch

        try:
            return pretrained_file(model)
        except InputError as problem:
            raise item.fail(f"{what}: weights: {problem}") from None

    def _weights(self, item: Located, what: str, model: ModelString) -> tuple[list[Path], bool]:
        """The weights files of an entry, and whether a pattern named them."""
        text = item.text(f"{what}: weights")
        if text == PRETRAINED:
            return [self._pretrained(model, item, what)], False
        if not glob.has_magic(text) and (problem := no_weights(text)):
            raise item.fail(f"{what}: weights is {text!r}: {problem}")
        return self._files(item, what, "weights", text)

    def _files(self, item: Located, what: str, key: str, text: str) -> tuple[list[Path], bool]:
        """The files of a path or a pattern, and whether it is one."""
        kind, suffixes = ("weights", WEIGHT_SUFFIXES) if key == "weights" else ("ONNX", (SUFFIX,))
        if "\0" in text or max(map(len, os.fsencode(text).split(b"/"))) > LONGEST_NAME:
            raise item.fail(f"{what}: {key} is {text[:60]!r}, which no path is: correct it")
        path = self._folder / text
        if glob.has_magic(text) and not os.path.exists(path):
            if Path(text).is_absolute() or ".." in Path(text).parts:
                self._check_inside(Path(os.path.normpath(path)), item, f"{what}: {key}")
                if "**" in text:
                    raise item.fail(f"{what}: {key}: outside of the zoo's folder a pattern has no **: name it")
            found = sorted(glob.glob(text, root_dir=self._folder, recursive=True))
            files = whole([self._folder / name for name in found if name.endswith(suffixes)])
            if not files:
                raise item.fail(f"{what}: no {kind} file matches {text!r} in {self._folder}: correct the pattern")
            for file in files:
                self._check_inside(file, item, f"{what}: {key}")
            return files, True
        self._check_inside(path, item, f"{what}: {key}")
        if not path.name.endswith(suffixes):
            raise item.fail(f"{what}: {key} is {text!r}: name a file that ends in {suffixes[0]}")
        if not os.path.isfile(path) and not self._permissions.missing_weights:
            raise item.fail(f"{what}: there is no {kind} file {path}: put it there or correct the path")
        return [path], False

    def _check_inside(self, path: Path, item: Located, what: str) -> None:
        if not self._permissions.outside and not path.resolve().is_relative_to(self._folder.resolve()):
            raise item.fail(
                f"{what}: {path} lies outside of the zoo's folder: move it inside, or give --allow-outside (in Python "
                "allow_outside=True)"
            )


def _stem(file: Path) -> str:
    suffix = max((suffix for suffix in (*WEIGHT_SUFFIXES, SUFFIX) if file.name.endswith(suffix)), key=len)
    return file.name.removesuffix(suffix)


def _factors(item: Located, what: str) -> dict[str, Scalar]:
    found = {key: value.scalar(f"{what}.{key}") for key, value in item.mapping(what).items()}
    for key, value in found.items():
        if value is None or key not in (*WHOLE_FACTORS, *NUMBER_FACTORS):
            continue
        wanted = "a whole number" if key in WHOLE_FACTORS else "a number"
        if not (_is_whole(value) if key in WHOLE_FACTORS else _is_number(value, finite=key == "epoch")):
            bound = f" of at most {LARGEST_INTEGER:g}" if isinstance(value, int | float) else ""
            raise item.value[key].fail(
                f"{what}.{key} is {value!r}, and must be {wanted}{bound}: correct it, leave it out, or give that "
                "factor another name"
            )
    return found


def _metrics(item: Located, what: str) -> dict[str, float]:
    return {key: value.number(f"{what}.{key}") for key, value in item.mapping(what).items()}


def _is_whole(value: Scalar) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INTEGER


def _is_number(value: Scalar, finite: bool) -> bool:
    """Also ``1e3``, which YAML takes for text; infinity is a strength."""
    try:
        number = math.nan if isinstance(value, bool) or value is None else float(value)
    except (ValueError, OverflowError):
        return False
    return abs(number) <= LARGEST_INTEGER if finite else not math.isnan(number)
