"""Parquet parts that exist whole or not at all, and the task keys that say what is done."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.schema import SCHEMA_VERSION, TABLES
from zoo.errors import DataError


def task_key(**parts: Any) -> str:
    """Key of a task: a hash of plain values (strings, numbers, lists, dicts) and of the schema version.

    Equal parts give equal keys on every machine; tensors and modules are refused (``TypeError`` from ``json``).
    """
    text = json.dumps({**parts, "schema": SCHEMA_VERSION}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Store:
    """The tables of one folder: ``ROOT/<table>/<slot>.parquet``, one part per task.

    A part's name is its task's key, so that what is done is known from the names alone. Where a new task replaces the
    old one (a checkpoint described anew), the part has a fixed name, its *slot*, and the key stands inside.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            DataError: the folder cannot be made or written to.
        """
        try:
            for table in TABLES:
                (self.root / table).mkdir(parents=True, exist_ok=True)
            probe = self.root / f".{uuid.uuid4().hex}.tmp"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise DataError(f"{self.root}: cannot write tables here ({error.strerror}): name another --out") from error

    def path(self, table: str, slot: str) -> Path:
        """The part file of a slot."""
        return self.root / table / f"{slot}.parquet"

    def has(self, table: str, key: str, slot: str | None = None) -> bool:
        """Whether the task's part is there."""
        if slot is None or slot == key:
            return self.path(table, key).exists()
        return (_head(self.path(table, slot), ("task",)) or {}).get("task") == key

    def head(self, table: str, slot: str) -> dict[str, str] | None:
        """Checkpoint, weights, model string and task key of a part's first row; ``None`` where there is no part."""
        return _head(self.path(table, slot))

    def forget(self, sha256: str, model: str) -> None:
        """Remove every measurement of a network whose description is gone, unless another name describes it too."""
        gone = {"sha256": sha256, "model": model}.items()
        if any(gone <= (_head(path) or {}).items() for path in (self.root / "checkpoints").glob("*.parquet")):
            return
        for table, schema in TABLES.items():
            if table == "checkpoints" or "sha256" not in schema.names:
                continue
            for path in (self.root / table).glob("*.parquet"):
                if gone <= (_head(path) or {}).items():
                    path.unlink(missing_ok=True)

    def forget_failures(self, hashes: Mapping[str, str]) -> None:
        """Remove the failures of weights that these checkpoints (name -> SHA-256) no longer have."""
        for path in (self.root / "failures").glob("*.parquet"):
            head = _head(path, ("checkpoint", "sha256")) or {}
            if hashes.get(head.get("checkpoint", ""), head.get("sha256")) != head.get("sha256"):
                path.unlink(missing_ok=True)

    def write(self, table: str, slot: str, rows: pd.DataFrame) -> Path:
        """Write one part, atomically: under a temporary name in the same folder, then renamed.

        Raises:
            ValueError: a column of the schema is missing, unknown, or empty where it may not be.
        """
        data = _to_arrow(table, rows)
        path = self.path(table, slot)
        # Unique per writer, so that two runs into one folder cannot write into the same temporary file.
        temporary = path.with_name(f".{slot}.{_machine()}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
        try:
            pq.write_table(data, temporary, compression="zstd")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def remove(self, table: str, slot: str) -> None:
        """Remove a part where it is there."""
        self.path(table, slot).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove temporary files that a killed run of this machine left behind, and no others."""
        for path in self.root.glob("*/.*.tmp"):
            name = path.name.split(".")
            mine = len(name) == 6 and name[2] == _machine() and name[3].isdecimal()
            if mine and not _alive(int(name[3])):
                path.unlink(missing_ok=True)


def _head(path: Path, columns: Sequence[str] = ("checkpoint", "sha256", "model", "task")) -> dict[str, str] | None:
    refusal = f"{path}: is no parquet part of these tables: delete it"
    try:
        rows = pq.read_table(path, columns=list(columns))
    except FileNotFoundError:
        return None
    except pa.ArrowInvalid as error:
        raise DataError(refusal) from error
    if not len(rows):
        raise DataError(refusal)
    return rows.slice(0, 1).to_pylist()[0]


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _to_arrow(table: str, rows: pd.DataFrame) -> pa.Table:
    schema = TABLES[table]
    missing = [name for name in schema.names if name not in rows.columns]
    extra = [name for name in rows.columns if name not in schema.names]
    if missing or extra:
        raise ValueError(f"rows for table {table}: missing columns {missing}, unknown columns {extra}")
    data = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
    return data.replace_schema_metadata(schema.metadata)
