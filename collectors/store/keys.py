"""The keys of tasks: what is done is known by them, and parts are named by them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from invariscope.collectors.schema import COLLECTORS, SCHEMA_VERSION


def task_key(**parts: Any) -> str:
    """Key of a task: a hash of plain values (strings, numbers, lists, dicts) and of the schema version.

    Equal parts give equal keys on every machine; tensors and modules are refused (``TypeError`` from ``json``).
    """
    text = json.dumps({**parts, "schema": SCHEMA_VERSION}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def checkpoint_slot(checkpoint: str) -> str:
    """Name of the part of a checkpoint in a table whose new rows replace its old ones."""
    return task_key(name=checkpoint)


def replaces(table: str) -> bool:
    """Whether a checkpoint has one task in a table, whose part has a fixed name."""
    return table in COLLECTORS and COLLECTORS[table].replaces


def part_key(table: str) -> str:
    """The column whose value stands for one task's rows."""
    return "checkpoint" if replaces(table) else "task"
