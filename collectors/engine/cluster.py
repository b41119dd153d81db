"""Workers elsewhere, by a backend of joblib: dask, or any other that is registered; through the death of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from invariscope.base import registry
from invariscope.base.errors import InputError, OutputError
from invariscope.collectors.engine.measuring import CheckpointReport, measure
from invariscope.collectors.engine.planning import Work
from invariscope.collectors.engine.serving import Job
from invariscope.collectors.engine.sharing import Claims, read_images
from invariscope.collectors.engine.workers import Lost, without
from invariscope.collectors.store.parts import Store

STOPPABLE = ("loky", "dask")
"""Backends whose workers may end themselves: they are replaced."""

CONNECT = 20
"""Seconds in which a scheduler must answer."""

FRUITLESS = 8
"""Deaths in a row, with no task begun or ended between them, after which a run gives up. A single one says little: the
claim of a worker that dies may have been taken back by the death of another."""

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


class ClusterRun:
    """Work given to the backend's workers.

    When one dies, all that were at work go down with it, as joblib has it. What they were at is known from their
    claims: each is measured again, alone, and lost if its worker dies again; then the rest goes on.
    """

    def __init__(self, job: Job, time_limit: float | None, take: Callable[[Work], Work | None]) -> None:
        self._job, self._time_limit, self._take = job, time_limit, take

    def through_deaths(
        self, pending: Sequence[Work], failed: Callable[[Lost], CheckpointReport]
    ) -> Iterator[CheckpointReport]:
        """Reports of all work, in the order in which it ends.

        Args:
            failed: what to report of a task in which a worker ended.

        Raises:
            OutputError: workers end again and again, and never begin a task.
        """
        left, claims = list(pending), Claims(self._job.folder)
        fruitless = 0
        while left:
            done: set[str] = set()
            try:
                for report in self._parallel(left):
                    done |= report.keys
                    yield report
                return
            except _deaths():
                left = _rest(left, done)
            claimed = claims.left()
            fruitless = 0 if done or claimed else fruitless + 1
            if fruitless == FRUITLESS:
                raise OutputError(
                    f"workers of the cluster ended {FRUITLESS} times in a row before they began a task: see their "
                    "logs, and whether they can import invariscope and see the tables"
                )
            for work, key in _claimed(left, claimed):
                lost = Lost(work, key, False, claimed[key])
                report = failed(lost) if lost.time_up else self._alone(lost, failed)
                left = _rest(left, report.keys)
                yield report

    def _alone(self, lost: Lost, failed: Callable[[Lost], CheckpointReport]) -> CheckpointReport:
        try:
            (report,) = self._parallel([lost.work])
            return report
        except _deaths():
            return failed(replace(lost, time_up=Claims(self._job.folder).left().get(lost.task, False)))

    def _parallel(self, pending: Sequence[Work]) -> Iterator[CheckpointReport]:
        from joblib import Parallel, delayed

        run = Parallel(
            n_jobs=-1, return_as="generator_unordered", pre_dispatch="2 * n_jobs", batch_size=1, max_nbytes=None
        )
        mine = (taken for work in pending if (taken := self._take(work)) is not None)
        with closing(run(delayed(_measure_remote)(work, self._job, self._time_limit) for work in mine)) as reports:
            yield from reports


def _measure_remote(work: Work, job: Job, time_limit: float | None) -> CheckpointReport:
    import torch

    torch.set_num_threads(job.threads)
    registry.add_all(job.added)
    images, claims = read_images(job.folder), Claims(job.folder)
    return measure(work, images, Store(job.tables), job.options, claims=claims, time_limit=time_limit)


def _rest(pending: Sequence[Work], done: set[str]) -> list[Work]:
    return [rest for work in pending if (rest := without(work, done)) is not None]


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
def connected(cluster: Cluster) -> Iterator[None]:
    """joblib's backend for the time of a run.

    Raises:
        InputError: an unknown backend, a package that is missing, a scheduler that does not answer.
    """
    from joblib import parallel_config

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
