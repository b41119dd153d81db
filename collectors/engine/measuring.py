"""One checkpoint under measurement: its tasks in turn, each a part or a row of ``failures``, whatever it raises."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pandas as pd

from invariscope.base.errors import OutputError, WeightsError, is_memory
from invariscope.base.files import signature
from invariscope.base.progress import quiet
from invariscope.base.terminal import one_line_of, plain
from invariscope.collectors.engine.planning import PlannedTask, Work
from invariscope.collectors.engine.sharing import Claims
from invariscope.collectors.engine.subject import Subject
from invariscope.collectors.options import Options, PassOptions
from invariscope.collectors.schema import COLLECTORS, TABLES, WATCHED
from invariscope.collectors.store.parts import Store
from invariscope.zoo.devices import prepare_device

if TYPE_CHECKING:
    from torch import nn

    from invariscope.zoo.datasets import ImageSet


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
class CheckpointReport:
    """What came of one checkpoint's tasks: seconds by collector and task, failures by task, the batches it took.

    ``elsewhere``: tasks that another run measured meanwhile. ``remarks``: what must be said of the rows, by collector.
    ``batch_size`` is given where memory ran out: the size with which it went on. ``deterministic`` is false for a
    network that is no function of the image, and None where that was not asked. ``by_torch``: why torch ran it where
    another runtime was asked for.
    """

    checkpoint: str
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)
    remarks: dict[str, str] = field(default_factory=dict)
    batch_size: int | None = None
    deterministic: bool | None = None
    by_torch: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for another process."""
        return asdict(self)

    @classmethod
    def of_dict(cls, values: dict[str, Any]) -> CheckpointReport:
        """What :meth:`as_dict` gave."""
        failures = {key: Failure(**failure) for key, failure in values["failures"].items()}
        return cls(**{**values, "failures": failures})

    @property
    def keys(self) -> set[str]:
        """The tasks that are dealt with."""
        return self.seconds.keys() | self.failures.keys() | set(self.elsewhere)


def measure(
    work: Work,
    images: ImageSet,
    store: Store,
    options: Options,
    *,
    claims: Claims | None = None,
    time_limit: float | None = None,
    told: Callable[[str, bool], None] | None = None,
) -> CheckpointReport:
    """All tasks of one checkpoint. Whatever a network raises is a row of ``failures``: the others must go on.

    Args:
        claims: where a worker of a cluster says which task is at work.
        time_limit: seconds after which a task ends such a worker's process.
        told: in a process of its own, what is called with the key of the task that begins, and whether the network is
            still to be loaded for it. There, the end of the process that a network asks for, and a KeyboardInterrupt
            that it raises, are failures too.

    Raises:
        OutputError: the tables cannot be written to.
    """
    with store.together(), quiet():
        return _measured(work, images, store, options, claims, time_limit, told)


def _measured(
    work: Work,
    images: ImageSet,
    store: Store,
    options: Options,
    claims: Claims | None,
    time_limit: float | None,
    told: Callable[[str, bool], None] | None,
) -> CheckpointReport:
    report = CheckpointReport(work.checkpoint.name)
    subject: Subject | None = None
    broken: BaseException | None = None
    caught = Exception if told is None else BaseException
    for task in work.tasks:
        if store.has_task(task.collector, task.slot, task.key):
            report.seconds[task.key] = 0.0  # by a worker that died before it told
            continue
        stage = "load" if subject is None else task.collector
        with claims.claim(task.key, time_limit) if claims else nullcontext():
            try:
                if broken is not None:
                    raise broken
                if told:
                    told(task.key, subject is None)
                if subject is None:
                    subject = _subject(work, images, options)
                    if told:
                        told(task.key, False)
                stage = task.collector
                report.seconds[task.key] = _measure_task(store, work, task, subject, report.remarks)
            except OutputError:
                raise
            except caught as error:
                if subject is None and not is_memory(error):
                    broken = error  # what cannot be loaded is not tried again for every task
                message = one_line_of(_text(error)) or "no message"
                failure = Failure(work.checkpoint.name, stage, plain(type(error).__name__), message[:1000])
                record_failure(store, work, task, images.name, failure)
                report.failures[task.key] = failure
            store.settle()
    if subject is not None:
        report.batch_size = subject.images_per_pass if subject.halved else None
        report.deterministic = subject.known_deterministic
        report.by_torch = subject.by_torch
    return report


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:  # a class of the user's
        return f"whose text raises {type(problem).__name__}"


def _subject(work: Work, images: ImageSet, options: Options) -> Subject:
    from invariscope.zoo.loading import load_checkpoint

    passes = options[PassOptions]
    prepare_device(passes.device)
    model = load_checkpoint(work.checkpoint).to(passes.device)
    if [signature(file) for file in work.checkpoint.files()] != work.weights:
        raise WeightsError(f"{work.checkpoint.weights} was replaced during the run: run again")
    shared = any(COLLECTORS[task.collector].keeps_predictions for task in work.tasks)
    watched = max((task.settings[WATCHED] for task in work.tasks if COLLECTORS[task.collector].watches), default=0)
    size, runtime = passes.batch_size, passes.runtime
    return Subject(work.checkpoint, model, images, size, runtime, keeps_predictions=shared, watched=watched)


def _measure_task(store: Store, work: Work, task: PlannedTask, subject: Subject, remarks: dict[str, str]) -> float:
    started, clock = datetime.now(UTC), time.perf_counter()
    subject.ran = None
    rows = _rows(subject, task)
    collector = COLLECTORS[task.collector]
    if collector.remark is not None and (remark := collector.remark(rows)) is not None:
        remarks[task.collector] = remark
    columns: dict[str, Any] = {
        "checkpoint": work.checkpoint.name,
        "sha256": work.sha256,
        "model": work.checkpoint.model,
        "task": task.key,
        **versions(),
        "code_sha256": work.code_sha256,
        **builders(subject.model),
    }
    if collector.of_data:
        columns |= {"data": subject.images.name, "data_fingerprint": subject.prepared().fingerprint}
        columns["deterministic"] = subject.known_deterministic
    if "precision" in TABLES[task.collector].names:
        columns["precision"] = task.settings["precision"]
    store.write(task.collector, task.slot, rows.assign(**columns))
    seconds = time.perf_counter() - clock
    timing = {
        "task": task.key,
        "checkpoint": work.checkpoint.name,
        "collector": task.collector,
        "started": started,
        "seconds": seconds,
        "runtime": subject.ran,
    }
    store.write("timings", task.key, pd.DataFrame([timing]))
    store.delete(store.path("failures", task.key))
    return seconds


def _rows(subject: Subject, task: PlannedTask) -> pd.DataFrame:
    """The task's rows, in batches of half the size for as long as memory runs out."""
    while True:
        try:
            if COLLECTORS[task.collector].of_data:
                subject.check_deterministic()
            return COLLECTORS[task.collector].rows(subject, task.settings)
        except Exception as error:
            if not is_memory(error) or not subject.halve():
                raise


def record_failure(store: Store, work: Work, task: PlannedTask, data: str, failure: Failure) -> None:
    """Write a task's row of ``failures``."""
    row = {**failure.__dict__, "sha256": work.sha256, "data": data, "task": task.key, **versions()}
    store.write("failures", task.key, pd.DataFrame([row]))


@cache
def versions() -> dict[str, str]:
    """Versions that every row carries."""
    import torch

    return {"invariscope_version": version("invariscope"), "torch_version": torch.__version__}


def builders(model: nn.Module) -> dict[str, str | None]:
    """The version of each library that layers of the network are of; None where none is."""
    from torch import nn

    used = {type(module).__module__.partition(".")[0] for module in nn.Module.modules(model)}
    return {
        f"{name}_version": sys.modules[name].__version__ if name in used else None for name in ("timm", "torchvision")
    }
