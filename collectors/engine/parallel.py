"""Who measures: this process, processes of this machine, or a cluster."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from invariscope.base import registry
from invariscope.base.errors import InputError
from invariscope.collectors.engine.claims import TaskClaims
from invariscope.collectors.engine.cluster import STOPPABLE, Cluster, ClusterRun, connected
from invariscope.collectors.engine.measuring import CheckpointReport, Failure, measure, record_failure
from invariscope.collectors.engine.planning import Work
from invariscope.collectors.engine.serving import Job
from invariscope.collectors.engine.sharing import scratch_folder, write_images
from invariscope.collectors.engine.workers import Lost, Workers, without
from invariscope.collectors.options import Options
from invariscope.collectors.store.parts import Store
from invariscope.zoo.user_code import has_run

if TYPE_CHECKING:
    from invariscope.zoo.datasets import ImageSet

Take = Callable[[Work], Work | None]
"""Gives what of a work is this run's to measure."""


class Runner:
    """Measures work in this process (one job), in processes of this machine (more), or on a cluster.

    A checkpoint that runs Python of the user's is measured in a process of its own, also in a run of one job; and where
    this process has run some, as the loader of the images or an operator that was looked at, every checkpoint. When a
    worker dies, the task that it was at is measured again, alone, and is a failure if its worker dies again; one whose
    time was up is a failure at once. A network that dies while it is loaded fails in all its tasks. Parts that are
    there are never measured again.

    Raises:
        InputError: ``jobs`` below 1, or above 32 and four for each core; a time limit that is not positive or that
            the backend cannot keep.
    """

    def __init__(self, jobs: int, cluster: Cluster | None, time_limit: float | None) -> None:
        most = max(32, 4 * (os.cpu_count() or 1))  # more get into each other's way
        if jobs < 1:
            raise InputError(f"jobs is {jobs}: give a whole number of at least 1")
        if jobs > most:
            raise InputError(f"jobs is {jobs}: this machine has {os.cpu_count()} cores; give at most {most}")
        if time_limit is not None and not time_limit > 0:
            raise InputError(f"the time limit is {time_limit:g} s: give a number above 0")
        if time_limit is not None and cluster and cluster.backend not in STOPPABLE:
            raise InputError(
                f"the backend {cluster.backend} cannot stop a task: leave the time limit out, or use one of "
                f"{', '.join(STOPPABLE)}"
            )
        self._jobs = jobs
        self._cluster = cluster
        self._time_limit = time_limit

    def run(
        self, pending: Sequence[Work], images: ImageSet, store: Store, options: Options
    ) -> Iterator[CheckpointReport]:
        """Reports of all work, in the order in which it ends; what other runs are at comes last.

        Raises:
            OutputError: the tables cannot be written to.
            InputError: the cluster cannot be reached.
        """
        with TaskClaims(store) as claims:
            waiting = list(pending)
            while waiting:
                for report in self._run(waiting, images, store, options, claims.take):
                    claims.release(report.keys)
                    yield report
                done, waiting = claims.free()
                for work in done:
                    yield CheckpointReport(work.checkpoint.name, elsewhere=[task.key for task in work.tasks])

    def _run(
        self, pending: list[Work], images: ImageSet, store: Store, options: Options, take: Take
    ) -> Iterator[CheckpointReport]:
        elsewhere = pending
        if self._jobs == 1 and self._cluster is None and self._time_limit is None:
            elsewhere = [work for work in pending if work.code_sha256 is not None]
            for work in pending:
                if work.code_sha256 is not None:
                    continue
                if has_run():  # in a process that has run code, a network may be another
                    elsewhere.append(work)
                elif (mine := take(work)) is not None:
                    yield measure(mine, images, store, options)
        if elsewhere:
            yield from self._elsewhere(elsewhere, images, store, options, take)

    def _elsewhere(
        self, elsewhere: list[Work], images: ImageSet, store: Store, options: Options, take: Take
    ) -> Iterator[CheckpointReport]:
        left: set[str] = set()

        def taken(work: Work) -> Work | None:
            mine = take(work)
            left.update(task.key for task in (mine.tasks if mine else ()))
            return mine

        with scratch_folder(store) as folder:
            with store.writing():
                write_images(images, folder)
            job = Job(store.name, folder, options, self._threads(), registry.added())
            if self._cluster is not None:
                with connected(self._cluster):
                    run = ClusterRun(job, self._time_limit, taken)
                    yield from run.through_deaths(elsewhere, lambda lost: self._failed(lost, store, images.name))
                return
            with Workers(self._jobs, job, self._time_limit, taken) as workers:
                for report in self._through_deaths(elsewhere, workers, store, images.name):
                    left -= report.keys
                    yield report
        if left:
            raise RuntimeError(f"{len(left)} tasks were given to workers and never reported: please report this")

    def _threads(self) -> int:
        if self._cluster is not None:
            return 1
        if self._jobs == 1:
            import torch

            return torch.get_num_threads()
        return max((os.cpu_count() or 1) // self._jobs, 1)

    def _through_deaths(
        self, waiting: list[Work], workers: Workers, store: Store, data: str
    ) -> Iterator[CheckpointReport]:
        deaths: Counter[str] = Counter()
        while waiting:
            alone = [work for work in waiting if any(deaths[task.key] for task in work.tasks)]
            results = [workers.run([work for work in waiting if work not in alone])]
            results += [workers.run([work]) for work in alone]
            waiting = []
            for result in chain.from_iterable(results):
                if isinstance(result, CheckpointReport):
                    yield result
                    continue
                deaths[result.task] += 1
                rest: Work | None = result.work
                if result.time_up or deaths[result.task] > 1:
                    report = self._failed(result, store, data)
                    yield report
                    rest = without(result.work, report.keys)
                if rest is not None:
                    waiting.append(rest)

    def _failed(self, lost: Lost, store: Store, data: str) -> CheckpointReport:
        """The failure of a task in which a worker ended; of all tasks where the network could not be loaded."""
        error = "TimeLimit" if lost.time_up else "WorkerDied"
        message = "its worker process died twice, as when the system kills it for want of memory"
        if lost.time_up:
            message = f"took longer than {self._time_limit} s and was stopped"
        report = CheckpointReport(lost.work.checkpoint.name)
        for task in lost.work.tasks:
            if lost.loads or task.key == lost.task:
                stage = "load" if lost.loads else task.collector
                report.failures[task.key] = Failure(report.checkpoint, stage, error, message)
                record_failure(store, lost.work, task, data, report.failures[task.key])
        return report
