"""Zoo manifests: ``zoo.yaml`` beside its weights, read as a list of checkpoints and validated as a whole."""

from __future__ import annotations

import glob
import inspect
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from invariscope.base.errors import InputError, ManifestError, ModelError
from invariscope.base.files import write_atomic
from invariscope.base.names import unknown
from invariscope.base.paths import LONGEST_NAME
from invariscope.zoo.architectures import ARCHITECTURES, takes_strided
from invariscope.zoo.checkpoint import WEIGHT_SUFFIXES, Checkpoint, no_weights
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.manifest_input import read_input
from invariscope.zoo.manifest_weights import read_classes, read_ignore, read_rename, whole
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.operators import OperatorSpec, parse_operator
from invariscope.zoo.user_code import no_code
from invariscope.zoo.yaml_lines import Located, Scalar, read_yaml

FILE_NAME = "zoo.yaml"

PRETRAINED = "pretrained"
"""In the place of a weights file: the weights that timm or torchvision has for the network, in its local cache."""

_KINDS: Mapping[type, tuple[Any, str]] = MappingProxyType(
    {bool: (bool, "true or false"), int: (int, "a whole number"), float: ((int, float), "a number")}
)
"""What the value of an argument must be where its default is of a type, and in words."""

WHOLE_FACTORS = ("seed",)
NUMBER_FACTORS = ("epoch", "strength")
"""The factors that the analysis reckons with; all others may be anything."""

ENTRY_KEYS = ("name", "model", "weights", "key", "prefix", "rename", "ignore", "input", "classes", "labels", "factors")


def read_manifest(
    path: str | Path,
    *,
    missing_weights: bool = False,
    operators: bool = True,
    allow_outside: bool = False,
    allow_code: bool = False,
    listed: bool = False,
    only: str = "*",
) -> list[Checkpoint]:
    """Read and validate a manifest, given as its file or as the folder that holds ``zoo.yaml``.

    An entry whose ``weights`` is a pattern (``*.safetensors``) gives one checkpoint per matching file, sorted, named by
    the file's stem, with the entry's ``name`` in front where there is one. ``weights: pretrained`` is the file that
    timm or torchvision keeps in its cache. An entry for one of their networks may leave ``input`` out: it is then what
    the library has on record.

    Args:
        missing_weights: accept entries whose file does not exist.
        operators: check the operators and arguments of ``zoo:`` networks, which imports torch; :func:`check_models`
            does it later.
        allow_outside: whether weights and ``python:`` files may lie outside of the manifest's folder. A file grants
            itself nothing: ``allow_outside: true``, which older manifests have at their top, is without effect.
        allow_code: accept ``python:`` networks and operators, whose file is run. No file grants itself that.
        listed: accept them without leave too: the checkpoints are listed and no more, and nothing of theirs is run. One
            that does not say its ``input`` is refused then.
        only: a pattern; entries of other names are left out, and nothing of them is looked at or run.

    Raises:
        ManifestError: for the first problem, with file, line, entry and what would be accepted, and the number of
            further entries with a problem.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    root = read_yaml(path, ManifestError, "manifest")
    top = root.mapping("the manifest", ("checkpoints", "allow_outside"), ("checkpoints",))
    if "allow_outside" in top:
        top["allow_outside"].flag("allow_outside")
    permissions = _Permissions(allow_outside, missing_weights, operators, allow_code, listed, only)
    reader = _Reader(path, permissions)
    checkpoints: list[Checkpoint] = []
    problems: list[ManifestError] = []
    for number, item in enumerate(top["checkpoints"].items("checkpoints"), start=1):
        try:
            checkpoints += reader.read(item, number)
        except ManifestError as problem:
            problems.append(problem)
    if problems:
        more = f" (and {len(problems) - 1} more entries with a problem)" if len(problems) > 1 else ""
        raise ManifestError(f"{problems[0]}{more}") from None
    if not checkpoints:
        raise ManifestError(f"--only {only}: no checkpoint of the zoo has such a name ({reader.first_name} is one)")
    return checkpoints


def write_manifest(path: str | Path, checkpoints: Sequence[Checkpoint]) -> None:
    """Write checkpoints as a manifest (a file, or the folder for a ``zoo.yaml``), whole or not at all.

    What is written reads back as the same checkpoints, as long as their ``folder`` is the manifest's; files outside of
    it only where whoever reads it allows that.

    Raises:
        ManifestError: when two checkpoints have the same name.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    folder = path.parent.resolve()
    names: set[str] = set()
    entries = []
    for checkpoint in checkpoints:
        if checkpoint.name in names:
            raise ManifestError(f"{path}: two checkpoints are named {checkpoint.name!r}: rename one")
        names.add(checkpoint.name)
        entries.append(manifest_entry(checkpoint, folder))
    content = {"checkpoints": entries}
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=2**16, allow_unicode=True)
    write_atomic(path, text.encode())


class _Dumper(yaml.SafeDumper):
    """Writes equal values out instead of referring from one to the other."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def manifest_entry(checkpoint: Checkpoint, folder: Path) -> dict[str, Any]:
    """A checkpoint as an entry of a manifest in this folder."""
    weights = Path(os.path.relpath(checkpoint.weights.resolve(), folder)).as_posix()
    entry: dict[str, Any] = {"name": checkpoint.name, "model": checkpoint.model, "weights": weights}
    for key in ("key", "prefix"):
        if getattr(checkpoint, key) is not None:
            entry[key] = getattr(checkpoint, key)
    if checkpoint.rename:
        entry["rename"] = dict(checkpoint.rename)
    if checkpoint.ignore:
        entry["ignore"] = list(checkpoint.ignore)
    entry["input"] = checkpoint.input.settings()
    if checkpoint.classes is not None:
        entry["classes"] = checkpoint.classes.settings()
    if checkpoint.labels is not None:
        entry["labels"] = checkpoint.labels
    if checkpoint.factors:
        entry["factors"] = dict(checkpoint.factors)
    return entry


@dataclass(frozen=True)
class _Permissions:
    """What a manifest may ask for, and what is looked at: see :func:`read_manifest`."""

    outside: bool
    missing_weights: bool
    operators: bool
    code: bool
    listed: bool
    only: str


class _Reader:
    """Entries to checkpoints; remembers the names, which must differ over the whole manifest."""

    def __init__(self, path: Path, permissions: _Permissions) -> None:
        self._path = path
        self._folder = path.parent
        self._permissions = permissions
        self._lines: dict[str, int] = {}

    def read(self, item: Located, number: int) -> list[Checkpoint]:
        what = f"checkpoint {number}"
        if isinstance(item.value, dict) and "name" in item.value:
            what = f"checkpoint {item.value['name'].text(f'{what}: name')!r}"
        entry = item.mapping(what, ENTRY_KEYS, ("model", "weights"))
        text, model = self._parsed(entry["model"], what)
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
        checkpoints = []
        for file, name in named:
            frozen = MappingProxyType(dict(factors))
            origin = (self._folder, item.line, self._path)
            more: dict[str, Any] = {"key": key, "rename": MappingProxyType(rename), "ignore": ignore}
            more["classes"] = classes
            checkpoints.append(Checkpoint(name, text, file, spec, labels, frozen, prefix, *origin, **more))
        return checkpoints

    @property
    def first_name(self) -> str:
        """A name of the manifest."""
        return next(iter(self._lines))

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
            if not file.is_file():
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
        if "\0" in text or max(map(len, os.fsencode(text).split(b"/"))) > LONGEST_NAME:
            raise item.fail(f"{what}: weights is {text[:60]!r}, which no path is: correct it")
        if text == PRETRAINED:
            return [self._pretrained(model, item, what)], False
        path = self._folder / text
        if glob.has_magic(text) and not path.exists():
            if Path(text).is_absolute() or ".." in Path(text).parts:
                self._check_inside(Path(os.path.normpath(path)), item, f"{what}: weights")
                if "**" in text:
                    raise item.fail(f"{what}: weights: outside of the zoo's folder a pattern has no **: name it")
            found = sorted(glob.glob(text, root_dir=self._folder, recursive=True))
            files = whole([self._folder / name for name in found if name.endswith(WEIGHT_SUFFIXES)])
            if not files:
                raise item.fail(f"{what}: no weights file matches {text!r} in {self._folder}: correct the pattern")
            for file in files:
                self._check_inside(file, item, f"{what}: weights")
            return files, True
        self._check_inside(path, item, f"{what}: weights")
        if problem := no_weights(text):
            raise item.fail(f"{what}: weights is {text!r}: {problem}")
        if not path.is_file() and not self._permissions.missing_weights:
            raise item.fail(f"{what}: there is no weights file {path}: put it there or correct the path")
        return [path], False

    def _check_inside(self, path: Path, item: Located, what: str) -> None:
        if not self._permissions.outside and not path.resolve().is_relative_to(self._folder.resolve()):
            raise item.fail(
                f"{what}: {path} lies outside of the zoo's folder: move it inside, or give --allow-outside (in Python "
                "allow_outside=True)"
            )


def check_models(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse ``zoo:`` models that cannot be built, of checkpoints that were read with ``operators=False``.

    Raises:
        ManifestError: for the first problem, as :func:`read_manifest`.
    """
    problems = []
    for checkpoint in checkpoints:
        if checkpoint.manifest is None or checkpoint.parts.scheme != "zoo":
            continue
        try:
            check_zoo_model(checkpoint.parts, checkpoint.folder)
        except InputError as problem:
            problems.append(f"{checkpoint.manifest}:{checkpoint.line}: checkpoint {checkpoint.name!r}: {problem}")
    if problems:
        more = f" (and {len(problems) - 1} more checkpoints with a problem)" if len(problems) > 1 else ""
        raise ManifestError(f"{problems[0]}{more}")


def check_zoo_model(model: ModelString, folder: str | Path | None = None) -> None:
    """Refuse a ``zoo:`` model whose architecture, operator or arguments are not known, without building it.

    An operator of a Python file, which is found from ``folder``, runs.

    Raises:
        ModelError: for an unknown architecture, or an argument that it does not have or of another type.
        OperatorError: for an unknown operator, or an argument that it does not have.
    """
    parameters = inspect.signature(ARCHITECTURES[model.target]).parameters
    for name, value in model.arguments.items():
        _check_argument(model, name, value, parameters)
    operator = model.arguments.get("operator")
    if operator is not None and not (operator == "strided" and takes_strided(model)):
        parse_operator(operator if isinstance(operator, OperatorSpec) else str(operator), folder)


def _check_argument(model: ModelString, name: str, value: Any, parameters: Mapping[str, inspect.Parameter]) -> None:
    """Refuse an argument that an architecture lacks, and one that is of another kind than its default."""
    from invariscope.zoo.sampling import PADDING_MODES  # imports torch, as the architecture did

    if name not in parameters:
        raise ModelError(f"model {str(model)!r}: {unknown('argument', name, parameters)}")
    if name == "padding_mode" and value not in PADDING_MODES:
        raise ModelError(f"model {str(model)!r}: {unknown('padding mode', str(value), PADDING_MODES)}")
    default = parameters[name].default
    kind, article = _KINDS.get(type(default), (object, ""))
    if not isinstance(value, kind) or (isinstance(value, bool) and type(default) is not bool):
        raise ModelError(f"model {str(model)!r}: {name} is {value!r}, and must be {article}, as {default!r} is")


def _stem(file: Path) -> str:
    suffix = max((suffix for suffix in WEIGHT_SUFFIXES if file.name.endswith(suffix)), key=len)
    return file.name.removesuffix(suffix)


def _factors(item: Located, what: str) -> dict[str, Scalar]:
    found = {key: value.scalar(f"{what}.{key}") for key, value in item.mapping(what).items()}
    for key, value in found.items():
        if value is None or key not in (*WHOLE_FACTORS, *NUMBER_FACTORS):
            continue
        wanted = "a whole number" if key in WHOLE_FACTORS else "a number"
        if not (_is_whole(value) if key in WHOLE_FACTORS else _is_number(value)):
            raise item.value[key].fail(
                f"{what}.{key} is {value!r}, and must be {wanted}: correct it, leave it out, or give that factor "
                "another name"
            )
    return found


def _is_whole(value: Scalar) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: Scalar) -> bool:
    """Also ``1e3``, which YAML takes for text; infinity is a strength."""
    try:
        return not isinstance(value, bool) and value is not None and not math.isnan(float(value))
    except ValueError:
        return False
