"""Zoo manifests: ``zoo.yaml`` beside its weights, read as a list of checkpoints and validated as a whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from invariscope.base.errors import ManifestError
from invariscope.base.files import write_atomic
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.manifest_entries import Permissions, read_entries
from invariscope.zoo.yaml_lines import read_yaml

FILE_NAME = "zoo.yaml"


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
    return read_entries(
        path,
        [
            (item, f"checkpoint {number}")
            for number, item in enumerate(top["checkpoints"].items("checkpoints"), start=1)
        ],
        Permissions(allow_outside, missing_weights, operators, allow_code, listed, only),
    )


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
    if checkpoint.parts.scheme == "onnx":
        del entry["weights"]
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
    for key in ("factors", "metrics"):
        if getattr(checkpoint, key):
            entry[key] = dict(getattr(checkpoint, key))
    return entry
