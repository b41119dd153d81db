"""What is to do: the tasks of a zoo, less those whose parts are there; found without torch."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from invariscope.base.errors import DataError
from invariscope.base.files import sha256_file, signature
from invariscope.collectors.engine.known import Known
from invariscope.collectors.options import Options
from invariscope.collectors.schema import COLLECTORS, DESCRIPTION
from invariscope.collectors.store.keys import checkpoint_slot, task_key
from invariscope.collectors.store.parts import Store
from invariscope.collectors.store.verifying import Damaged
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.user_code import local_imports


@dataclass(frozen=True)
class PlannedTask:
    """One part to be: a collector, its settings, its key, and the part's slot (the key unless parts replace others)."""

    collector: str
    settings: dict[str, Any]
    key: str
    slot: str


@dataclass(frozen=True)
class Work:
    """The tasks of one checkpoint that are still to do, what its weights files were like before they were hashed, its
    code."""

    checkpoint: Checkpoint
    sha256: str
    weights: list[list[int]]
    tasks: tuple[PlannedTask, ...]
    code_sha256: str | None = None


@dataclass(frozen=True)
class Replaced:
    """A checkpoint whose weights, or whose model string, are no longer those that the tables describe."""

    name: str
    sha256: str
    model: str


@dataclass(frozen=True)
class RunPlan:
    """What a run will do: the work, by checkpoint; tasks found done; weights replaced since.

    ``done`` holds the keys of the tasks that were found, whose old failures are no more; ``damaged`` the parts that are
    not as they were written, whose tasks are to be done again.
    """

    pending: list[Work]
    done: frozenset[str]
    replaced: list[Replaced]
    hashes: Mapping[str, str]
    damaged: Sequence[Damaged] = ()

    def counts(self) -> dict[str, int]:
        """Tasks to do by collector."""
        return dict(Counter(task.collector for work in self.pending for task in work.tasks))


def make_plan(
    checkpoints: Sequence[Checkpoint],
    fingerprint: str,
    options: Options,
    store: Store,
    known: Known,
    damaged: Sequence[Damaged] = (),
) -> RunPlan:
    """The tasks of these checkpoints that are to do on the data of this fingerprint. Nothing is written.

    Raises:
        DataError: the folder holds another network under the name of a checkpoint, or something that is no part.
    """
    states = {checkpoint.name: [signature(file) for file in checkpoint.files()] for checkpoint in checkpoints}
    hashes = {checkpoint.name: known.network(checkpoint) for checkpoint in checkpoints}
    described = store.heads(DESCRIPTION, known.head)
    known.note_heads([part for part in store.parts(DESCRIPTION) if not part.compacted], described)
    replaced = _replaced(checkpoints, hashes, described, store.name)
    there = {name: _done(name, store) for name in options.collect if name != DESCRIPTION}
    there[DESCRIPTION] = {head["task"] for head in described.values()}
    pending: list[Work] = []
    done: set[str] = set()
    claimed: set[tuple[str, str]] = set()
    codes: dict[tuple[Path, Path], str] = {}
    for checkpoint in checkpoints:
        tasks = []
        code = _code(checkpoint, codes)
        for task in _tasks(checkpoint, hashes[checkpoint.name], fingerprint, options, code):
            if (task.collector, task.key) in claimed:
                continue
            claimed.add((task.collector, task.key))
            if task.key in there[task.collector]:
                done.add(task.key)
            else:
                tasks.append(task)
        if tasks:
            work = Work(checkpoint, hashes[checkpoint.name], states[checkpoint.name], tuple(tasks), code)
            pending.append(work)
    return RunPlan(pending, frozenset(done), replaced, hashes, damaged)


def _done(table: str, store: Store) -> set[str]:
    """The keys of a table's tasks that are there: of parts with fixed names they stand inside."""
    if COLLECTORS[table].replaces:
        return {head["task"] for head in store.heads(table).values()}
    return store.keys(table)


def _replaced(
    checkpoints: Sequence[Checkpoint], hashes: Mapping[str, str], described: Mapping[str, dict[str, str]], tables: str
) -> list[Replaced]:
    found = []
    for checkpoint in checkpoints:
        head = described.get(checkpoint_slot(checkpoint.name))
        same_weights = head is not None and head["sha256"] == hashes[checkpoint.name]
        if head is None or (same_weights and head["model"] == checkpoint.model):
            continue
        if head["model"] != checkpoint.model and not same_weights:
            raise DataError(
                f"{checkpoint.name}: {tables} holds another network of this name ({head['model']}): "
                "rename the checkpoint, or name another --out"
            )
        found.append(Replaced(checkpoint.name, head["sha256"], head["model"]))
    return found


def _code(checkpoint: Checkpoint, codes: dict[tuple[Path, Path], str] | None = None) -> str | None:
    """What a checkpoint's Python files hash to, if it has any; ``codes`` keeps that for the others of a plan."""
    codes = {} if codes is None else codes
    hashes = []
    for file in checkpoint.parts.files(checkpoint.folder):
        if (where := (file, checkpoint.folder)) not in codes:
            codes[where] = _code_hash(*where)
        hashes.append(codes[where])
    return "+".join(hashes) or None


def _tasks(
    checkpoint: Checkpoint, sha256: str, fingerprint: str, options: Options, code: str | None = None
) -> list[PlannedTask]:
    """The tasks of a checkpoint, whose Python files hash to ``code``."""
    identity = {"sha256": sha256, "model": checkpoint.model, "code": code}
    preprocessing = {**checkpoint.input.settings(), "size": checkpoint.input.size}
    tasks = []
    for name in dict.fromkeys((DESCRIPTION, *options.collect)):
        collector = COLLECTORS[name]
        on_data: dict[str, Any] = {"data": fingerprint, "input": preprocessing} if collector.of_data else {}
        if collector.definition > 1:  # the first definition is in no key
            on_data["definition"] = collector.definition
        for settings in collector.settings(checkpoint, options):
            key = task_key(**identity, **on_data, collector=name, settings=settings)
            slot = checkpoint_slot(checkpoint.name) if collector.replaces else key
            tasks.append(PlannedTask(name, settings, key, slot))
    # Code that a task brings along runs last: what it does to torch is in no other table.
    return sorted(tasks, key=lambda task: "code" in task.settings)


def _code_hash(file: Path, folder: Path) -> str:
    """Of a file alone its own hash; with the local files that it imports one hash over theirs, by where they lie."""
    files = local_imports(file, folder)
    if len(files) <= 1:
        return _hash_of_state(file, tuple(signature(file)))
    hashes = [_hash_of_state(one, tuple(signature(one))) for one in files]
    base = os.path.commonpath([one.parent for one in files])
    named = sorted((one.relative_to(base).as_posix(), digest) for one, digest in zip(files, hashes, strict=True))
    return hashlib.sha256(repr(named).encode()).hexdigest()


@lru_cache(maxsize=256)
def _hash_of_state(file: Path, state: tuple[int, ...]) -> str:
    return sha256_file(file)


def forget_replaced(store: Store, replaced: Sequence[Replaced]) -> None:
    """Remove the rows of weights that were replaced, unless a checkpoint of another name still has those weights.

    The measurements go before the description that tells of them, so that a run that is stopped in between finds them
    again.
    """
    if not replaced:
        return
    described = store.heads(DESCRIPTION)
    names = {item.name for item in replaced}
    kept = {(head["sha256"], head["model"]) for head in described.values() if head["checkpoint"] not in names}
    gone = {(item.sha256, item.model) for item in replaced} - kept
    store.remove_networks(gone)
    fixed = [name for name, found in COLLECTORS.working().items() if found.replaces and name != DESCRIPTION]
    for name in (*fixed, DESCRIPTION):
        store.remove(name, {checkpoint_slot(item.name) for item in replaced})


def forget_failures(store: Store, plan: RunPlan) -> None:
    """Remove the failures of tasks that are done, and of weights that these checkpoints no longer have."""
    stale = set()
    for row in store.rows("failures", ("checkpoint", "sha256", "task")):
        replaced = plan.hashes.get(row["checkpoint"], row["sha256"]) != row["sha256"]
        if replaced or row["task"] in plan.done:
            stale.add(row["task"])
    store.remove("failures", stale)
