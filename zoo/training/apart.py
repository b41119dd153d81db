"""Runs in processes of their own, one after another in each place: nothing that one does is in the next."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import Any

from joblib.externals.loky.process_executor import ProcessPoolExecutor


def each_apart(work: Sequence[tuple[Any, ...]], jobs: int) -> Generator[Any, None, None]:
    """What each function gives for the arguments behind it, as they end; ``jobs`` at once, each in a new process.

    Closing the generator ends the processes.

    Raises:
        BrokenProcessPool: a process was killed.
    """
    stopped = Event()
    executors: list[ProcessPoolExecutor] = []

    def one(function: Callable[..., Any], *arguments: Any) -> Any:
        executor = ProcessPoolExecutor(max_workers=1)
        executors.append(executor)
        try:
            return None if stopped.is_set() else executor.submit(function, *arguments).result()
        finally:
            executor.shutdown(kill_workers=True)

    with ThreadPoolExecutor(jobs) as threads:
        futures = [threads.submit(one, *step) for step in work]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            stopped.set()
            for future in futures:
                future.cancel()
            for executor in executors:
                executor.shutdown(kill_workers=True)
