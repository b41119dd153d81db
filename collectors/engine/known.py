"""What a folder of tables remembers of files, so that a finished run is seen to be finished without reading them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pyarrow import fs

from invariscope.base.files import sha256_file, signature
from invariscope.collectors.store.done import HEAD
from invariscope.collectors.store.parts import Store
from invariscope.collectors.store.reader import PartFile
from invariscope.zoo.checkpoint import Checkpoint

FILE = ".known.json"

LARGEST = 1 << 28
"""Bytes of the file; a longer one is none of ours, and is made anew."""

SETTLED = 2.0
"""Seconds for which a file must have lain unchanged before its hash is kept: a change within the resolution of its
times would not be seen."""


class Known:
    """Hashes of weights, fingerprints of data sets and heads of parts, each under what betrays a change.

    For a file that is its path, size, inode and times of modification and of status change; the last cannot be set
    back, so that weights replaced by others of the same size and date are seen. Whatever is not known is read anew.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = f"{store.base}/{FILE}"
        self._entries = self._read()
        self._used: dict[str, dict[str, Any]] = _empty()

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file."""
        return self._value("weights", str(path.absolute()), [signature(path)], lambda: sha256_file(path))

    def network(self, checkpoint: Checkpoint) -> str:
        """What tells a checkpoint's weights: the hash of their file; with those of the files that it names, and how the
        weights are taken from them, where either is more than the file."""
        hashes = [self.sha256(file) for file in checkpoint.files()]
        if len(hashes) == 1 and not checkpoint.variant:
            return hashes[0]
        return hashlib.sha256(json.dumps([hashes, checkpoint.variant], sort_keys=True).encode()).hexdigest()

    def fingerprint(self, key: str, files: list[list[Any]], compute: Callable[[], str]) -> str:
        """Fingerprint of the data set that ``key`` specifies and that is read from files of these signatures."""
        return self._value("data", key, files, compute)

    def head(self, part: PartFile) -> dict[str, str] | None:
        """Head of a part, where it is known."""
        entry = self._entries["heads"].get(part.slot)
        if entry is None or entry[0] != [part.size, part.mtime_ns]:
            return None
        self._used["heads"][part.slot] = entry
        return dict(entry[1])

    def note_heads(self, parts: list[PartFile], heads: dict[str, dict[str, str]]) -> None:
        """Keep the heads of single parts."""
        for part in parts:
            if part.slot in heads and 0 < part.mtime_ns < (time.time() - SETTLED) * 1e9:
                self._used["heads"][part.slot] = [[part.size, part.mtime_ns], heads[part.slot]]

    def sound(self, table: str, part: PartFile) -> bool:
        """Whether a part was found to be as it was written, and has not changed since."""
        name = f"{table}/{part.slot}"
        if self._entries["sound"].get(name) != [part.size, part.mtime_ns]:
            return False
        self._used["sound"][name] = [part.size, part.mtime_ns]
        return True

    def note_sound(self, table: str, parts: Sequence[PartFile]) -> None:
        """Keep that these parts are as they were written."""
        settled = (time.time() - SETTLED) * 1e9
        kept = {f"{table}/{part.slot}": [part.size, part.mtime_ns] for part in parts if 0 < part.mtime_ns < settled}
        self._used["sound"] |= kept

    def save(self) -> None:
        """Write what was asked for in this run; the rest is forgotten.

        Raises:
            OutputError: the folder cannot be written to.
        """
        if self._used == self._entries:
            return
        with self._store.replacing(self._path) as file:
            file.write(json.dumps(self._used, separators=(",", ":")).encode())

    def _value(self, kind: str, key: str, files: list[list[Any]], compute: Callable[[], str]) -> str:
        entry = self._entries[kind].get(key)
        if entry is None or entry[0] != files:
            started = time.time()
            entry = [files, compute()]
            if any(changed > (started - SETTLED) * 1e9 for *_, changed in files):
                return str(entry[1])
        self._used[kind][key] = entry
        return str(entry[1])

    def _read(self) -> dict[str, dict[str, Any]]:
        empty = _empty()
        info = self._store.filesystem.get_file_info(self._path)
        if info.type != fs.FileType.File or info.size > LARGEST:
            return empty
        try:
            with self._store.filesystem.open_input_file(self._path) as file:
                found = json.loads(file.read())
        except (OSError, ValueError):  # a cache: what cannot be read is computed anew
            return empty
        return found if _is_whole(found) else empty


def _is_whole(found: Any) -> bool:
    """Whether what a file says has the shape that :meth:`Known.save` gave it."""
    if not isinstance(found, dict) or found.keys() != _empty().keys():
        return False
    if not all(isinstance(entries, dict) for entries in found.values()):
        return False
    kinds: dict[str, type] = {"weights": str, "data": str, "heads": dict}
    kept = [(entry, kind) for name, kind in kinds.items() for entry in found[name].values()]
    if not all(isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], kind) for entry, kind in kept):
        return False
    heads = [entry[1] for entry in found["heads"].values()]
    return all(head.keys() >= set(HEAD) and all(isinstance(text, str) for text in head.values()) for head in heads)


def _empty() -> dict[str, dict[str, Any]]:
    return {"weights": {}, "data": {}, "heads": {}, "sound": {}}
