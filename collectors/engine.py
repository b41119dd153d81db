"""Runs the tasks of a zoo: what is done is skipped, a failure is a row, parts are whole, any number of jobs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from collectors.devices import prepare_device
from collectors.store import Store, task_key
from collectors.tasks import COLLECTORS, Options, Subject
from zoo.errors import DataError, InputError
from zoo.files import sha256_file
from zoo.manifest import Checkpoint
from zoo.model_string import ModelString

if TYPE_CHECKING:
    from zoo.datasets import ImageSet


@dataclass(frozen=True)
class Task:
    """One part to be: a collector, its settings, its key, and the part's slot (the key unless parts replace others)."""

    collector: str
    settings: dict[str, Any]
    key: str
    slot: str


@dataclass(frozen=True)
class Work:
    """The tasks of one checkpoint that are still to do."""

    checkpoint: Checkpoint
    sha256: str
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Failure:
    """A task that failed, in one line."""

    checkpoint: str
    stage: str
    error: str
    message: str

    def __str__(self) -> str:
        return f"{self.checkpoint}: {self.stage}: {self.error}: {self.message}"


@dataclass
class Outcome:
    """What a run did: tasks measured now, tasks found done, the failures, and checkpoints that have new weights."""

    measured: int = 0
    found: int = 0
    failures: list[Failure] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)


def collect(
    checkpoints: Sequence[Checkpoint],
    images: ImageSet,
    out: Path | str,
    options: Options | None = None,
    *,
    jobs: int = 1,
    progress: bool = True,
) -> Outcome:
    """Measure every checkpoint on the images and write the tables of ``out``.

    Tasks whose parts are there are skipped, so a second run does nothing and a stopped run goes on. The values do not
    depend on ``jobs``, on the batch size or on the order of the checkpoints. A checkpoint whose weights were replaced
    since is measured anew, and the rows of the old weights are removed.

    Raises:
        DataError: the folder cannot be written to, or holds another network under the name of a checkpoint.
        InputError: ``jobs`` below 1.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}: give a whole number of at least 1")
    options = options or Options()
    store = Store(out)
    store.prepare()
    store.sweep()
    hashes = {checkpoint.name: sha256_file(checkpoint.weights) for checkpoint in checkpoints}
    outcome = Outcome(replaced=_forget_replaced(checkpoints, hashes, store))
    store.forget_failures(hashes)
    pending, outcome.found = plan_work(checkpoints, hashes, images.fingerprint, options, store)
    total = sum(len(work.tasks) for work in pending)
    threads = max((os.cpu_count() or 1) // jobs, 1)
    with _bar(total, progress and total > 0) as bar:
        for done, failures in _run(pending, images, store.root, options, jobs, threads):
            outcome.measured += done
            outcome.failures += failures
            bar.update(done + len(failures))
    outcome.failures.sort(key=str)
    return outcome


def _forget_replaced(checkpoints: Sequence[Checkpoint], hashes: dict[str, str], store: Store) -> list[str]:
    """Remove the rows of weights that were replaced; the names of their checkpoints."""
    replaced = []
    for checkpoint in checkpoints:
        slot = _description_slot(checkpoint)
        known = store.head("checkpoints", slot)
        if known is None or known["sha256"] == hashes[checkpoint.name]:
            continue
        if known["model"] != checkpoint.model:
            raise DataError(
                f"{checkpoint.name}: {store.root} holds another network of this name ({known['model']}): "
                "rename the checkpoint, or name another --out"
            )
        store.remove("checkpoints", slot)
        store.forget(known["sha256"], known["model"])
        replaced.append(checkpoint.name)
    return replaced


def plan_work(
    checkpoints: Sequence[Checkpoint], hashes: dict[str, str], fingerprint: str, options: Options, store: Store
) -> tuple[list[Work], int]:
    """The tasks that are to do, by checkpoint, and how many are done."""
    pending, found, claimed = [], 0, set()
    names = dict.fromkeys(("checkpoints", *options.collect))
    for checkpoint in checkpoints:
        sha256 = hashes[checkpoint.name]
        tasks = []
        for name in names:
            for settings in COLLECTORS[name].settings(checkpoint, options):
                task = _task(checkpoint, sha256, fingerprint, name, settings)
                if (name, task.key) in claimed:
                    continue
                claimed.add((name, task.key))
                if store.has(name, task.key, task.slot):
                    found += 1
                else:
                    tasks.append(task)
        if tasks:
            pending.append(Work(checkpoint, sha256, tuple(tasks)))
    return pending, found


def _description_slot(checkpoint: Checkpoint) -> str:
    return task_key(name=checkpoint.name)


def _task(checkpoint: Checkpoint, sha256: str, fingerprint: str, name: str, settings: dict[str, Any]) -> Task:
    code = ModelString.parse(checkpoint.model).file(checkpoint.folder)
    identity = {"sha256": sha256, "model": checkpoint.model, "code": sha256_file(code) if code else None}
    if name == "checkpoints":
        # Describes the file and its factors, whatever it is measured on; a new description replaces the old one.
        key = task_key(**identity, collector=name, settings=settings)
        return Task(name, settings, key, slot=_description_slot(checkpoint))
    spec = checkpoint.input
    preprocessing = {"size": spec.size, "mean": list(spec.mean), "std": list(spec.std)}
    key = task_key(**identity, data=fingerprint, input=preprocessing, collector=name, settings=settings)
    return Task(name, settings, key, slot=key)


def _run(
    pending: Sequence[Work], images: ImageSet, root: Path, options: Options, jobs: int, threads: int
) -> Iterator[tuple[int, list[Failure]]]:
    if jobs == 1:
        for work in pending:
            yield _measure(work, images, root, options)
        return
    from joblib import Parallel, delayed

    # numpy arrays above 1 MB are memory-mapped by the workers rather than sent to each; tensors are not.
    parts = images.to_numpy()
    calls: Iterable[Any] = (delayed(_measure_remote)(work, parts, root, options, threads) for work in pending)
    yield from Parallel(n_jobs=jobs, return_as="generator_unordered", max_nbytes="1M")(calls)


def _measure_remote(
    work: Work, parts: dict[str, Any], root: Path, options: Options, threads: int
) -> tuple[int, list[Failure]]:
    import torch

    from zoo.datasets import ImageSet

    torch.set_num_threads(threads)
    return _measure(work, ImageSet.from_numpy(parts), root, options)


def _measure(work: Work, images: ImageSet, root: Path, options: Options) -> tuple[int, list[Failure]]:
    """All tasks of one checkpoint. Whatever a network raises is a row of ``failures``: the others must go on."""
    from zoo.loading import load_checkpoint

    store = Store(root)
    try:
        prepare_device(options.device)
        model = load_checkpoint(work.checkpoint).to(options.device)
    except Exception as error:
        failures = [_failed(store, work, task, images.name, "load", error) for task in work.tasks]
        return 0, failures
    shared = any(task.collector == "predictions" for task in work.tasks)
    subject = Subject(work.checkpoint, model, images, options.batch_size, keeps_predictions=shared)
    done, failures = 0, []
    for task in work.tasks:
        try:
            _measure_task(store, work, task, subject)
            done += 1
        except Exception as error:
            failures.append(_failed(store, work, task, images.name, task.collector, error))
    return done, failures


def _measure_task(store: Store, work: Work, task: Task, subject: Subject) -> None:
    started, clock = datetime.now(UTC), time.perf_counter()
    rows = COLLECTORS[task.collector].measure(subject, task.settings)
    columns: dict[str, Any] = {
        "checkpoint": work.checkpoint.name,
        "sha256": work.sha256,
        "model": work.checkpoint.model,
        "task": task.key,
        **versions(),
    }
    if task.collector != "checkpoints":
        columns |= {"data": subject.images.name, "data_fingerprint": subject.prepared().fingerprint}
    store.write(task.collector, task.slot, rows.assign(**columns))
    timing = {
        "task": task.key,
        "checkpoint": work.checkpoint.name,
        "collector": task.collector,
        "started": started,
        "seconds": time.perf_counter() - clock,
    }
    store.write("timings", task.key, pd.DataFrame([timing]))
    store.remove("failures", task.key)


def _failed(store: Store, work: Work, task: Task, data: str, stage: str, error: Exception) -> Failure:
    message = " ".join(str(error).split()) or "no message"
    failure = Failure(work.checkpoint.name, stage, type(error).__name__, message[:1000])
    row = {**failure.__dict__, "sha256": work.sha256, "data": data, "task": task.key, **versions()}
    store.write("failures", task.key, pd.DataFrame([row]))
    return failure


def versions() -> dict[str, str]:
    """Versions that every row carries."""
    from importlib.metadata import version

    import torch

    return {"shiftscope_version": version("shiftscope"), "torch_version": torch.__version__}


def _bar(total: int, show: bool) -> Any:
    from tqdm import tqdm

    # disable=None: quiet when standard error is not a terminal
    return tqdm(total=total, unit="task", disable=None if show else True)
