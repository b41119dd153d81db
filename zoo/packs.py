"""Packs: many small checkpoints in one file, to be kept and passed on. They are unpacked to a zoo before use.

A pack is a safetensors file. Tensor ``i/KEY`` is ``KEY`` of its ``i``-th weights file; the metadata hold the files'
names, their metadata and the SHA-256 of what they unpack to, and the entries of the manifest. Packs are only added to
a folder, never rewritten. Nothing in a pack is run, and a pack writes into the folder that it is unpacked to alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from invariscope.base.errors import InputError, WeightsError, one_line
from invariscope.base.files import sha256_file, write_atomic, writing_to
from invariscope.base.flushing import make_folder
from invariscope.base.paths import unreadable
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets.imageset import ImageSet
from invariscope.zoo.datasets.inputs import PreparedImages
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import FILE_NAME, manifest_entry, read_manifest, write_manifest
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.user_code import has_run
from invariscope.zoo.weights import load_weights

FORMAT = "invariscope-pack-1"
LARGEST = 16_000_000
"""Bytes of tensors in a pack; a larger checkpoint has a pack of its own."""

Predict = Callable[[nn.Module, Checkpoint], Tensor]


@dataclass(frozen=True)
class Packed:
    """A weights file in a pack. ``source``: SHA-256 of the file that was packed; ``content``: of the tensors (names,
    types, shapes, bytes) and metadata that it unpacks to.
    """

    file: str
    source: str
    content: str
    metadata: dict[str, str]
    half: bool


def predicted(images: ImageSet, batch_size: int = 256) -> Predict:
    """The classes that a network predicts on these images, prepared as its checkpoint asks."""

    def predict(network: nn.Module, checkpoint: Checkpoint) -> Tensor:
        prepared = PreparedImages(images, checkpoint.input)
        starts = range(0, len(images), batch_size)
        with torch.inference_mode():
            return torch.cat([network(prepared[start : start + batch_size]).argmax(1) for start in starts])

    return predict


def pack(
    zoo: str | Path, out: str | Path, *, predict: Predict | None = None, allow_code: bool = False
) -> list[tuple[Path, list[Packed]]]:
    """Put the weights of a zoo that no pack in ``out`` holds yet into new packs there, in the manifest's order.

    Args:
        predict: gives the classes that a network predicts on some images. With it, weights are held in half precision
            where that moves none of them, for any checkpoint of the file; without it, as they are, and where Python of
            the user's that is not the network's own has run in this process.

    Returns:
        The packs written, with what each holds.

    Raises:
        ManifestError: the zoo has no manifest that can be read.
        WeightsError: weights that are no safetensors file, or two files of one name.
        OutputError: ``out`` cannot be written to; what is there is whole.
    """
    out = Path(out)
    files: dict[Path, list[Checkpoint]] = {}
    for checkpoint in read_manifest(zoo, operators=False, allow_code=allow_code, listed=predict is None):
        files.setdefault(checkpoint.weights.resolve(), []).append(checkpoint)
    _check_names(list(files))
    there = sorted(out.glob("pack-*.safetensors"))
    known = {found.source for path in there for found in contents(path)[0]}
    written, number = [], 1 + max((_number(path) for path in there), default=-1)
    sources = {path: sha256_file(path) for path in files}
    halved = _halved({path: files[path] for path in files if sources[path] not in known}, predict)
    for group in _groups([path for path in files if sources[path] not in known]):
        tensors: dict[str, Tensor] = {}
        held, entries = [], []
        for place, path in enumerate(group):
            state, found = _packed(path, sources[path], files[path], path in halved)
            tensors |= {f"{place}/{key}": value for key, value in state.items()}
            held.append(found)
            entries += [{**manifest_entry(one, path.parent), "weights": path.name} for one in files[path]]
        about = json.dumps({"files": [vars(one) for one in held], "entries": entries})
        target = out / f"pack-{number:03d}.safetensors"
        with writing_to(out):
            make_folder(out)
            write_atomic(target, save(tensors, {FORMAT: about}))  # one key: several are written in any order
        written.append((target, held))
        number += 1
    return written


def unpack(packs: str | Path, out: str | Path) -> list[Checkpoint]:
    """Write the weights of a pack, or of all packs of a folder, and their manifest to a folder; what is there stays.

    Raises:
        WeightsError: a file that is no whole pack, names a place outside, does not unpack to what was packed, or would
            replace another file; an entry whose code is not there yet.
        ManifestError: an entry that no manifest may hold.
        OutputError: ``out`` cannot be written to; what is there is whole.
    """
    packs, out = Path(packs), Path(out)
    sources = sorted(packs.glob("pack-*.safetensors")) if packs.is_dir() else [packs]
    if not sources:
        raise WeightsError(f"{packs}: there is no pack-*.safetensors in it: name a pack or a folder of packs")
    for source in sources:
        if kind := unreadable(source):
            raise WeightsError(f"{source} is {kind}: name a pack or a folder of packs")
    told = {source: contents(source) for source in sources}
    entries = [entry for _, some in told.values() for entry in some]
    _need_code(entries, out)
    with writing_to(out):
        make_folder(out)
        for source, (held, _) in told.items():
            states: dict[str, dict[str, Tensor]] = {}
            for key, value in load_weights(source).items():
                place, _, name = key.partition("/")
                states.setdefault(place, {})[name] = value
            for number, found in enumerate(held):
                _write(found, states.get(str(number), {}), out, source)
        return _with_manifest(entries, out)


def contents(path: Path) -> tuple[list[Packed], list[dict[str, Any]]]:
    """The files and the manifest entries that a pack says it holds.

    Raises:
        WeightsError: it is no whole pack.
    """
    try:
        about = _metadata(path)
        if FORMAT not in about:
            raise WeightsError(f"{path} is no pack: name a file that `invariscope pack` wrote")
        told = json.loads(about[FORMAT])
        held, entries = [Packed(**one) for one in told["files"]], told["entries"]
        if not all(map(_is_packed, held)) or not all(isinstance(one, dict) for one in entries):
            raise ValueError("its list of files or entries is of other types")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as problem:
        raise WeightsError(f"{path} is no whole pack ({one_line(problem)}): fetch it again") from problem
    for found in held:
        if Path(found.file).name != found.file or not found.file.endswith(".safetensors") or "\0" in found.file:
            raise WeightsError(f"{path} names {found.file!r}, which lies outside or is no weights file: do not use it")
    return held, entries


def _is_packed(found: Packed) -> bool:
    texts = (found.file, found.source, found.content, *found.metadata, *found.metadata.values())
    return all(isinstance(text, str) for text in texts) and isinstance(found.half, bool)


def _number(path: Path) -> int:
    found = path.name.removeprefix("pack-").removesuffix(".safetensors")
    if not found.isdecimal():
        raise WeightsError(f"{path} has the name of no pack: packs are pack-NUMBER.safetensors; move it elsewhere")
    return int(found)


def _check_names(files: Sequence[Path]) -> None:
    names: set[str] = set()
    for path in files:
        if path.suffix != ".safetensors":
            raise WeightsError(f"{path}: only .safetensors files can be packed: convert it")
        if path.name in names:
            raise WeightsError(f"{path}: another file of the zoo has this name: rename one")
        names.add(path.name)


def _groups(files: Sequence[Path]) -> Iterator[list[Path]]:
    group: list[Path] = []
    size = 0
    for path in files:
        length = path.stat().st_size
        if group and size + length > LARGEST:
            yield group
            group, size = [], 0
        group.append(path)
        size += length
    if group:
        yield group


def _packed(path: Path, source: str, users: Sequence[Checkpoint], half: bool) -> tuple[dict[str, Tensor], Packed]:
    state, metadata = load_weights(path), _metadata(path)
    held = _rounded(state) if half else state
    content = _digest(_single(held) if half else held, metadata)
    return held, Packed(path.name, source, content, metadata, half)


def _rounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.half() if value.dtype == torch.float32 else value for key, value in state.items()}


def _halved(files: Mapping[Path, Sequence[Checkpoint]], predict: Predict | None) -> set[Path]:
    """The files that may be held in half precision: all their values can, and no prediction of their networks moves.

    Networks that run Python of the user's come last, and where others' has run in this process none is asked: what that
    does to torch would be in their predictions.
    """
    found = set()
    for path, users in sorted(files.items(), key=lambda item: any(one.parts.files(one.folder) for one in item[1])):
        if predict is None or has_run():
            continue
        state = load_weights(path)
        rounded = _rounded(state)
        fits = all(torch.equal(state[key].isfinite(), value.isfinite()) for key, value in rounded.items())
        if fits and all(_stay(one, rounded, predict) for one in users):
            found.add(path)
    return found


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def _digest(state: dict[str, Tensor], metadata: dict[str, str]) -> str:
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for key, value in sorted(state.items()):
        found.update(f"\n{key} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _single(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.float() if value.dtype == torch.float16 else value for key, value in state.items()}


def _stay(checkpoint: Checkpoint, rounded: dict[str, Tensor], predict: Predict) -> bool:
    network = load_checkpoint(checkpoint)
    before = predict(network, checkpoint)
    names = network.state_dict()
    prefix = checkpoint.prefix or ""
    state = {key.removeprefix(prefix): value for key, value in _single(rounded).items()}
    network.load_state_dict({key: value for key, value in state.items() if key in names}, strict=False)
    return torch.equal(before, predict(network, checkpoint))


def _write(found: Packed, state: dict[str, Tensor], out: Path, source: Path) -> None:
    target, state = out / found.file, _single(state) if found.half else state
    if _digest(state, found.metadata) != found.content:
        raise WeightsError(f"{source}: {found.file} does not unpack to what was packed: fetch the pack again")
    if not target.exists():
        write_atomic(target, save(state, found.metadata))
    elif _content_of(target) != found.content:
        raise WeightsError(f"{target} is another file than that of {source}: unpack to another folder")


def _content_of(path: Path) -> str:
    try:
        return _digest(load_weights(path), _metadata(path))
    except WeightsError:
        return ""


def _need_code(entries: Sequence[dict[str, Any]], out: Path) -> None:
    """Ask for the code below ``out`` that entries run, before anything is written; all else is read with the manifest.

    Code that would lie elsewhere is not asked for: the manifest is refused for it.
    """
    for entry in entries:
        try:
            files = ModelString.parse(str(entry.get("model"))).files(out)
            missing = [
                file for file in files if not os.path.isfile(file) and file.resolve().is_relative_to(out.resolve())
            ]
        except (InputError, OSError, ValueError):
            continue
        if missing:
            raise WeightsError(
                f"the entry {entry.get('name')!r} of a pack runs the code of {missing[0]}, which a pack does not hold: "
                "put it there and unpack again"
            )


def _with_manifest(entries: Sequence[dict[str, Any]], out: Path) -> list[Checkpoint]:
    for entry in entries:
        if "input" not in entry:  # it would be asked of the network, whose code would run
            raise WeightsError(f"the entry {entry.get('name')!r} of a pack has no input: do not use it")
    kept = read_manifest(out, operators=False, missing_weights=True, listed=True) if (out / FILE_NAME).exists() else []
    there = {one.name: one for one in kept}
    handle, draft = tempfile.mkstemp(prefix=f".{FILE_NAME}.", suffix=".packed", dir=out)
    try:
        with os.fdopen(handle, "w") as file:
            yaml.safe_dump({"checkpoints": list(entries)}, file, sort_keys=False)
        found = read_manifest(draft, listed=True, operators=False)
    finally:
        os.unlink(draft)
    for one in found:
        same = there.get(one.name)
        if same is not None and (same.model, same.weights.name) != (one.model, one.weights.name):
            raise WeightsError(f"{out}: its manifest has another checkpoint {one.name!r}: unpack to another folder")
    together = [*kept, *(one for one in found if one.name not in there)]
    write_manifest(out, together)
    return together
