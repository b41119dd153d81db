"""Runs the tasks of a zoo: what is done is skipped, a failure is a row, parts are whole, any number of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from invariscope.base.errors import InputError, TableError
from invariscope.base.progress import bar
from invariscope.collectors.engine.claims import TaskClaims
from invariscope.collectors.engine.known import Known
from invariscope.collectors.engine.measuring import CheckpointReport, Failure
from invariscope.collectors.engine.parallel import Cluster, Runner
from invariscope.collectors.engine.planning import RunPlan, forget_failures, forget_replaced, make_plan
from invariscope.collectors.engine.runlog import RunLog, run_log
from invariscope.collectors.engine.suitable import check_tasks
from invariscope.collectors.options import Options
from invariscope.collectors.schema import COLLECTORS, DESCRIPTION, NOT_APPLICABLE, TABLES
from invariscope.collectors.store.parts import Store
from invariscope.collectors.store.reader import RowFilter, TableReader
from invariscope.collectors.store.verifying import Damaged, find_damaged
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets.source import DataSource
from invariscope.zoo.manifest_models import check_models

if TYPE_CHECKING:
    from invariscope.zoo.datasets import ImageSet

__all__ = ["Cluster", "CollectOutcome", "Failure", "collect", "plan_run"]

BUSY = "the tables are being compacted: collect when that has ended"


@dataclass
class CollectOutcome:
    """What a run did: tasks measured now, tasks found done, the failures, and checkpoints that have new weights.

    ``found`` counts what another run measured meanwhile, too. ``batch_sizes`` holds the checkpoints for whose batches
    memory ran out, and the size with which each went on; ``no_functions`` those whose network gives other logits on a
    second pass or in other batches; ``remarks``, by collector and checkpoint, what must be said of the rows that were
    measured; ``by_torch`` why torch ran a checkpoint where another runtime was asked for; ``older``, by collector, how
    many of the tasks that were found done lack readings that came later; ``damaged`` the parts that were not as they
    were written, and were set aside.
    """

    measured: int = 0
    found: int = 0
    failures: list[Failure] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    batch_sizes: dict[str, int] = field(default_factory=dict)
    no_functions: list[str] = field(default_factory=list)
    remarks: dict[str, dict[str, str]] = field(default_factory=dict)
    by_torch: dict[str, str] = field(default_factory=dict)
    older: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    def add(self, report: CheckpointReport) -> None:
        """Count what came of one checkpoint."""
        self.measured += len(report.seconds)
        self.found += len(report.elsewhere)
        self.failures += report.failures.values()
        for collector, remark in report.remarks.items():
            self.remarks.setdefault(collector, {})[report.checkpoint] = remark
        if report.batch_size is not None:
            self.batch_sizes[report.checkpoint] = report.batch_size
        if report.by_torch is not None:
            self.by_torch[report.checkpoint] = report.by_torch
        if report.deterministic is False and report.checkpoint not in self.no_functions:
            self.no_functions.append(report.checkpoint)


def collect(
    checkpoints: Sequence[Checkpoint],
    images: ImageSet | DataSource,
    out: Path | str,
    options: Options | None = None,
    *,
    jobs: int = 1,
    cluster: Cluster | None = None,
    time_limit: float | None = None,
    progress: bool = True,
    command: str = "collectors.collect",
) -> CollectOutcome:
    """Measure every checkpoint on the images and write the tables of ``out``.

    Tasks whose parts are there are skipped, so a second run does nothing and a stopped run goes on; with a
    ``DataSource`` it finds that out without decoding an image. The values do not depend on ``jobs``, on the batch size
    or on the order of the checkpoints; on what runs them (device, runtime) by rounding. Several runs into one folder at
    once divide the tasks where it is on a local disk or a network's. A checkpoint whose weights were replaced since is
    measured anew, and the rows
    of the old weights are removed. Where memory runs out, the batches are halved.

    Args:
        jobs: worker processes on this machine; 1 measures in this process.
        cluster: workers elsewhere instead, by joblib's backend.
        time_limit: seconds per task, in worker processes: a task that takes longer is stopped and is a failure.
        command: how the run was asked for, for its log.

    Raises:
        DataError: the folder holds another network under the name of a checkpoint.
        OutputError: the folder cannot be written to, or its disk is full; what is there is whole.
        InputError: ``jobs`` below 1, a time limit that is not positive, a backend that cannot be used, or timings
            with several jobs.
    """
    runner = Runner(jobs, cluster, time_limit)
    options = options or Options()
    alone = [name for name in options.collect if COLLECTORS[name].alone]
    if alone and (jobs > 1 or cluster is not None):
        raise InputError(f"timings of several processes disturb each other: collect {alone[0]} alone, with one job")
    store = Store(out)
    known = Known(store)
    plan = _plan(checkpoints, images, options, store, known)
    store.prepare()
    with store.lock("run", shared=True, busy=BUSY), run_log(store, command) as log:
        store.sweep()
        TaskClaims(store).sweep()  # also where nothing is left to do
        known.save()
        damaged = []
        for item in plan.damaged:
            if (path := store.set_aside(item.table, item.part)) is not None:
                damaged.append(str(item))
                log.line(f"damaged: {item}: set aside as {path}")
        store.overlooked = frozenset()
        forget_replaced(store, plan.replaced)
        forget_failures(store, plan)
        log.line(f"options: {options}")
        log.line(f"to do: {plan.counts()}; found done: {len(plan.done)}; new weights: {len(plan.replaced)}")
        outcome = CollectOutcome(found=len(plan.done), replaced=[item.name for item in plan.replaced])
        outcome.damaged = damaged
        outcome.older = _older(store, options, plan.done)
        if plan.pending:
            _measure(plan, images, store, runner, options, outcome, log, progress)
        outcome.failures.sort(key=str)
        outcome.no_functions.sort()
        log.end(f"{outcome.measured} tasks measured, {outcome.found} were done, {len(outcome.failures)} failed")
    return outcome


def plan_run(
    checkpoints: Sequence[Checkpoint], images: ImageSet | DataSource, out: Path | str, options: Options
) -> RunPlan:
    """What :func:`collect` would do; nothing is written.

    Raises:
        DataError: as :func:`collect`.
    """
    store = Store(out)
    return _plan(checkpoints, images, options, store, Known(store))


def _older(store: Store, options: Options, done: frozenset[str]) -> dict[str, int]:
    """How many of the tasks that are done lack a reading that their collector has today, by collector."""
    found = {}
    for name in dict.fromkeys((DESCRIPTION, *options.collect)) if done else ():
        if (pair := COLLECTORS[name].renewed) is None:
            continue
        tasks: set[str] = set()
        with suppress(TableError):  # a file that is no part is told of where it is read
            for batch in TableReader(store.name).stream(name, RowFilter({}), ("task", *pair, NOT_APPLICABLE), 1 << 17):
                rows = batch.filter(pc.is_valid(batch[pair[0]])).to_pydict()
                told = zip(rows["task"], rows[pair[1]], rows[NOT_APPLICABLE], strict=True)
                tasks |= {task for task, value, why in told if value is None and pair[1] not in (why or "")}
        if count := len(tasks & done):
            found[name] = count
    return found


def _plan(
    checkpoints: Sequence[Checkpoint], images: ImageSet | DataSource, options: Options, store: Store, known: Known
) -> RunPlan:
    if isinstance(images, DataSource):
        source = images
        fingerprint = known.fingerprint(source.key, source.signatures(), lambda: source.images.fingerprint)
    else:
        fingerprint = images.fingerprint
    plan = make_plan(checkpoints, fingerprint, options, store, known, _damaged(store, known))
    check_models([work.checkpoint for work in plan.pending])
    return plan


def _damaged(store: Store, known: Known) -> list[Damaged]:
    """The damaged parts, which the store overlooks from here on."""
    damaged = find_damaged(store, known.sound)
    store.overlooked = frozenset(item.part.path for item in damaged)
    for table in TABLES:
        known.note_sound(table, store.parts(table))
    return damaged


def _measure(
    plan: RunPlan,
    images: ImageSet | DataSource,
    store: Store,
    runner: Runner,
    options: Options,
    outcome: CollectOutcome,
    log: RunLog,
    progress: bool,
) -> None:
    decoded = images.images if isinstance(images, DataSource) else images
    wanted = {task.collector for work in plan.pending for task in work.tasks}
    check_tasks([work.checkpoint for work in plan.pending], wanted, decoded)
    collectors = {task.key: task.collector for work in plan.pending for task in work.tasks}
    with bar("collect", len(collectors), progress, "task") as step:
        for report in runner.run(plan.pending, decoded, store, options):
            outcome.add(report)
            step(len(report.keys))
            for key, seconds in report.seconds.items():
                log.line(f"measured: {report.checkpoint}: {collectors[key]}: {seconds:.2f} s")
            if report.elsewhere:
                log.line(f"measured by another run: {report.checkpoint}: {len(report.elsewhere)} tasks")
            for collector, remark in report.remarks.items():
                log.line(f"remark: {report.checkpoint}: {collector}: {remark}")
            for failure in report.failures.values():
                log.line(f"failed: {failure}")
            if report.batch_size is not None:
                log.line(f"out of memory: {report.checkpoint}: went on with batches of {report.batch_size}")
            if report.by_torch is not None:
                log.line(f"not run by openvino: {report.checkpoint}: {report.by_torch}")
            if report.deterministic is False:
                log.line(f"no function of the image: {report.checkpoint}")
