"""Work spread over processes by joblib: on this machine or a cluster, through the death of workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariscope.base import registry
from invariscope.base.errors import InputError
from invariscope.base.processes import end_with
from invariscope.collectors.engine.measuring import CheckpointReport, Failure, measure, record_failure
from invariscope.collectors.engine.planning import Work
from invariscope.collectors.engine.sharing import Claims, read_images, scratch_folder, write_images
from invariscope.collectors.options import Options
from invariscope.collectors.store.parts import Store

if TYPE_CHECKING:
    from invariscope.zoo.datasets import ImageSet

LOCAL = "loky"
"""joblib's backend of worker processes on this machine."""

STOPPABLE = (LOCAL, "dask")
"""Backends whose workers may end themselves: they are replaced."""

CONNECT = 20
"""Seconds in which a scheduler must answer."""

RESTART = 120
"""Seconds in which workers that died must be back, where none is left."""


@dataclass(frozen=True)
class Cluster:
    """Workers elsewhere: the name of a backend of joblib, and the address of its scheduler where it has one.

    Dask's workers should have one thread each, see the zoo and the tables under the same paths, and have this package
    installed. The backend says how many workers there are.
    """

    backend: str
    scheduler: str | None = None


class Runner:
    """Measures work in this process (one job), in processes of this machine (more), or on a cluster.

    When a worker dies, all that were at work go down with it, as joblib has it. What they were at is known from their
    claims: a task whose time was up is a failure; each other one is measured again, alone, and is a failure if its
    worker dies again; then the rest goes on. Parts that are there are never measured again.

    Raises:
        InputError: ``jobs`` below 1, a time limit that is not positive or that the backend cannot keep.
    """

    def __init__(self, jobs: int, cluster: Cluster | None, time_limit: float | None) -> None:
        if jobs < 1:
            raise InputError(f"jobs is {jobs}: give a whole number of at least 1")
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
        """Reports of all work, in the order in which it ends.

        Raises:
            OutputError: the tables cannot be written to.
            InputError: the cluster cannot be reached.
        """
        if self._jobs == 1 and self._cluster is None and self._time_limit is None:
            for work in pending:
                yield measure(work, images, store, options)
            return
        threads = max((os.cpu_count() or 1) // self._jobs, 1) if self._cluster is None else 1
        with _backend(self._cluster), scratch_folder(store) as folder:
            with store.writing():
                write_images(images, folder)
            parent = os.getpid() if self._cluster is None else None
            job = _Job(store.name, folder, options, threads, self._time_limit, registry.added(), parent)
            yield from self._through_deaths(list(pending), job, store, images.name)

    def _through_deaths(self, pending: list[Work], job: _Job, store: Store, data: str) -> Iterator[CheckpointReport]:
        claims = Claims(job.folder)
        while pending:
            done: set[str] = set()
            try:
                for report in self._parallel(pending, job):
                    done |= report.keys
                    yield report
                return
            except _deaths():
                pending = _without(pending, done)
            left = claims.left()
            for work, key in _claimed(pending, left):
                time_up = left[key]
                report = self._failed(work, store, data, time_up) if time_up else self._alone(work, job, store, data)
                pending = _without(pending, report.keys)
                yield report

    def _alone(self, work: Work, job: _Job, store: Store, data: str) -> CheckpointReport:
        try:
            (report,) = self._parallel([work], job)
            return report
        except _deaths():
            (task,) = work.tasks
            return self._failed(work, store, data, Claims(job.folder).left().get(task.key, False))

    def _failed(self, work: Work, store: Store, data: str, time_up: bool) -> CheckpointReport:
        error = "TimeLimit" if time_up else "WorkerDied"
        message = "its worker process died twice, as when the system kills it for want of memory"
        if time_up:
            message = f"took longer than {self._time_limit} s and was stopped"
        (task,) = work.tasks
        failure = Failure(work.checkpoint.name, task.collector, error, message)
        record_failure(store, work, task, data, failure)
        return CheckpointReport(work.checkpoint.name, failures={task.key: failure})

    def _parallel(self, pending: Sequence[Work], job: _Job) -> Iterator[CheckpointReport]:
        from joblib import Parallel, delayed

        # A pool of one would be this process itself, which a task's end must not end.
        jobs = -1 if self._cluster else max(self._jobs, 2)
        ahead = "2 * n_jobs" if self._cluster or self._jobs > 1 else 1
        run = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch=ahead, batch_size=1, max_nbytes=None)
        with closing(run(delayed(_measure_remote)(work, job) for work in pending)) as reports:
            yield from reports


@dataclass(frozen=True)
class _Job:
    """What a worker is told beside its work."""

    tables: str
    folder: Path
    options: Options
    threads: int
    time_limit: float | None
    added: dict[str, dict[str, Any]]
    parent: int | None = None
    """The process with which a worker of this machine ends."""


def _measure_remote(work: Work, job: _Job) -> CheckpointReport:
    import torch

    if job.parent is not None:
        end_with(job.parent)
    torch.set_num_threads(job.threads)
    registry.add_all(job.added)
    return measure(
        work,
        read_images(job.folder),
        Store(job.tables),
        job.options,
        claims=Claims(job.folder),
        time_limit=job.time_limit,
    )


def _without(pending: Sequence[Work], done: set[str]) -> list[Work]:
    """The work that is left when these tasks are dealt with."""
    rest = []
    for work in pending:
        tasks = tuple(task for task in work.tasks if task.key not in done)
        if tasks:
            rest.append(replace(work, tasks=tasks))
    return rest


def _claimed(pending: Sequence[Work], claims: dict[str, bool]) -> list[tuple[Work, str]]:
    """The claimed tasks, each as work of its own."""
    return [(replace(work, tasks=(task,)), task.key) for work in pending for task in work.tasks if task.key in claims]


def _deaths() -> tuple[type[BaseException], ...]:
    """The errors by which backends tell of a worker's death."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    try:
        from distributed.scheduler import KilledWorker
    except ImportError:
        return (BrokenProcessPool,)
    return (BrokenProcessPool, KilledWorker)


@contextmanager
def _backend(cluster: Cluster | None) -> Iterator[None]:
    """joblib's backend for the time of a run.

    Raises:
        InputError: an unknown backend, a package that is missing, a scheduler that does not answer.
    """
    from joblib import parallel_config

    if cluster is None:
        with parallel_config(backend=LOCAL):
            yield
        return
    with _client(cluster):
        try:
            backend = _dask_that_tells_of_deaths() if cluster.backend == "dask" else cluster.backend
            configuration: Any = parallel_config(backend=backend)
        except (ValueError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"joblib has no backend {cluster.backend!r} here ({reason}): register it first") from error
        with configuration:
            yield


def _dask_that_tells_of_deaths() -> Any:
    """joblib's dask backend, which raises where a task's worker died instead of waiting for that task for ever.

    joblib (1.5) calls back for results alone: an error that dask itself raises stays in its future unread.
    """
    from joblib._dask import DaskDistributedBackend

    @dataclass(frozen=True)
    class Lost:
        error: BaseException

    class Backend(DaskDistributedBackend):
        def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
            # joblib runs the work of one worker in this process, which a task's end must not end.
            return max(super().configure(n_jobs, parallel, **options), 2)

        def submit(self, func: Any, callback: Any = None) -> Any:
            future = super().submit(func, callback)

            def tell(done: Any) -> None:
                if callback is not None and not done.cancelled() and done.exception() is not None:
                    callback(Lost(done.exception()))

            future.add_done_callback(tell)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            if isinstance(out, Lost):
                raise out.error
            return super().retrieve_result_callback(out)

    return Backend(wait_for_workers_timeout=RESTART)


@contextmanager
def _client(cluster: Cluster) -> Iterator[None]:
    if cluster.backend != "dask":
        if cluster.scheduler:
            raise InputError(f"the backend {cluster.backend} takes no scheduler's address: leave --scheduler out")
        yield
        return
    if not cluster.scheduler:
        raise InputError("dask needs the address of its scheduler: give --scheduler tcp://HOST:PORT")
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("dask is not installed: pip install 'invariscope[dask]'") from error
    try:
        client = Client(cluster.scheduler, timeout=CONNECT)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"no dask scheduler answers at {cluster.scheduler}: start one or correct the address"
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise InputError(f"the dask scheduler at {cluster.scheduler} has no workers: start some")
        yield
