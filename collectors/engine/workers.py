"""Worker processes of this machine: each measures one checkpoint at a time, and none outlives the run."""

from __future__ import annotations

import atexit
import itertools
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from invariscope.base.errors import OutputError
from invariscope.collectors.engine.measuring import CheckpointReport
from invariscope.collectors.engine.planning import Work
from invariscope.collectors.engine.serving import Job, Order, command, send

_LOOK = 0.1
"""Seconds between two looks at the time that tasks have taken."""

_NUMBERS = itertools.count(1)

SPARE = 60.0
"""Seconds for which idle servers are kept."""


@dataclass(frozen=True)
class Lost:
    """A task in which a worker ended, of work that is not reported: because its time was up, or by itself.

    ``loads``: it did not come to measure.
    """

    work: Work
    task: str
    loads: bool
    time_up: bool


@dataclass
class _Server:
    """A process that forks workers one at a time, the work that its worker is at, and since when which task.

    What it says waits in ``inbox`` until the run takes it, which alone changes the rest. ``worker`` is None while there
    is none that takes orders; ``given_to`` is the worker that has the present order, of this ``number``.
    """

    process: subprocess.Popen[bytes]
    schemes: frozenset[str]
    wake: threading.Event
    inbox: queue.SimpleQueue[dict[str, Any] | None] = field(default_factory=queue.SimpleQueue)
    worker: int | None = None
    given_to: int | None = None
    number: int = 0
    work: Work | None = None
    task: str | None = None
    loads: bool = True
    since: float = field(default=0.0)
    time_up: bool = False
    begun: bool = False

    def listen(self) -> None:
        """Put what it says into the inbox, and None where it has ended."""
        assert self.process.stdout is not None
        with suppress(ValueError, OSError):
            for line in self.process.stdout:
                self.inbox.put(json.loads(line))
                self.wake.set()
        self.inbox.put(None)
        self.wake.set()

    def stop_worker(self) -> None:
        """End the worker and what it started; its server tells of it and forks another."""
        worker, self.worker = self.worker, None
        if os.name == "posix" and worker is not None:
            for kill in (os.killpg, os.kill):  # a worker that has just begun is in no group of its own
                with suppress(ProcessLookupError, PermissionError):
                    kill(worker, signal.SIGKILL)
        else:
            self.process.kill()

    def close(self) -> None:
        """End the server with its worker."""
        if os.name == "posix":
            self.process.kill()  # first: it would fork another worker
        self.stop_worker()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()
        self.process.wait()


class _Spares:
    """Servers of the last run, kept for a minute: the next one has not to import everything again."""

    def __init__(self) -> None:
        self._servers: list[_Server] = []
        self._owner = os.getpid()
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def take(self, schemes: frozenset[str]) -> _Server | None:
        with self._lock:
            self._forget_those_of_a_parent()
            for server in self._servers:
                if server.schemes >= schemes and server.process.poll() is None:
                    self._servers.remove(server)
                    return server
        return None

    def keep(self, server: _Server) -> None:
        server.stop_worker()  # with whatever networks have left in it
        with self._lock:
            self._forget_those_of_a_parent()
            self._servers.append(server)
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(SPARE, self.close)
            self._timer.daemon = True
            self._timer.start()

    def close(self) -> None:
        with self._lock:
            self._forget_those_of_a_parent()
            for server in self._servers:
                server.close()
            self._servers.clear()

    def _forget_those_of_a_parent(self) -> None:
        if self._owner != os.getpid():  # a fork
            self._servers, self._owner = [], os.getpid()


SPARES = _Spares()


class Workers:
    """As many processes as there is work for, at most ``count``; closed at the end of the ``with`` block.

    Args:
        time_limit: seconds that a task may take. It is kept by this process: a worker that hangs in native code, or
            that was stopped from outside, is ended like any other.
        take: gives what of a work is to be measured here, when a worker is free for it; by default all of it.
    """

    def __init__(
        self,
        count: int,
        job: Job,
        time_limit: float | None,
        take: Callable[[Work], Work | None] = lambda work: work,
    ) -> None:
        self._count, self._job, self._limit, self._take = count, job, time_limit, take
        self._servers: list[_Server] = []
        self._wake = threading.Event()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for server in self._servers:
            idle = server.work is None and server.process.poll() is None
            if kind is None and idle and os.name == "posix":
                SPARES.keep(server)
            else:
                server.close()
        self._servers.clear()

    def run(self, pending: Sequence[Work]) -> Iterator[CheckpointReport | Lost]:
        """What came of each work, in the order in which it ends: its report, or the task in which its worker ended.

        Raises:
            OutputError: the tables cannot be written to.
        """
        waiting = deque(pending)
        most = min(self._count, len(waiting))
        schemes = frozenset(work.checkpoint.parts.scheme for work in pending)
        while len(self._servers) < most:
            self._servers.append(self._started(schemes))
        busy = 0
        while waiting or busy:
            for server in self._servers[:most]:
                while waiting and server.work is None and server.worker is not None:
                    if (mine := self._take(waiting.popleft())) is not None:
                        self._give(server, mine)
                        busy += 1
            if not busy and not waiting:
                return
            server, message = self._heard()
            ended = self._ended(server, message)
            if message is None:
                server.close()
                if not server.begun:
                    raise OutputError(
                        f"a worker process ended at its start (status {server.process.returncode}): measure with one "
                        "job, or mend what it wrote above"
                    )
                self._servers[self._servers.index(server)] = self._started(schemes)
            if ended is not None:
                server.work, busy = None, busy - 1
                yield ended

    def _started(self, schemes: frozenset[str]) -> _Server:
        spare = SPARES.take(schemes)
        if spare is not None:
            spare.wake = self._wake
            return spare
        process = subprocess.Popen(
            command(schemes),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for this process, which ends the others
        )
        server = _Server(process, schemes, self._wake)
        threading.Thread(target=server.listen, daemon=True).start()
        return server

    def _give(self, server: _Server, work: Work) -> None:
        import cloudpickle

        server.work, server.task, server.loads, server.time_up = work, work.tasks[0].key, True, False
        server.since, server.given_to, server.number = time.monotonic(), server.worker, next(_NUMBERS)
        order = Order(server.number, self._job, work, os.getcwd(), dict(os.environ))
        with suppress(BrokenPipeError):  # it ended, which its listener tells
            assert server.process.stdin is not None
            send(server.process.stdin, cloudpickle.dumps(order))

    def _heard(self) -> tuple[_Server, dict[str, Any] | None]:
        """The next message of any server; ends workers whose time is up."""
        while True:
            self._wake.clear()
            for server in self._servers if self._limit is not None else ():
                late = time.monotonic() - server.since > (self._limit or 0)
                if server.work is not None and late and not server.time_up:
                    server.time_up = True
                    server.stop_worker()
            for server in self._servers:
                with suppress(queue.Empty):
                    return server, server.inbox.get_nowait()
            self._wake.wait(_LOOK)

    @staticmethod
    def _ended(server: _Server, message: dict[str, Any] | None) -> CheckpointReport | Lost | None:
        """What a message says of the server's work; None where that goes on, or there is none."""
        if message is None:
            server.worker = None
        elif "worker" in message:
            server.worker, server.begun = message["worker"], True
            return None
        elif "ended" in message:
            if server.worker == message["ended"]:
                server.worker = None
            if server.given_to != message["ended"]:
                return None
        elif message.get("spent"):
            server.worker = None
        if server.work is None or (message is not None and message.get("order", server.number) != server.number):
            return None
        if message is None or "ended" in message:
            return Lost(server.work, server.task or server.work.tasks[0].key, server.loads, server.time_up)
        if "refused" in message:
            raise OutputError(message["refused"])
        if "report" in message:
            return CheckpointReport.of_dict(message["report"])
        server.task, server.loads, server.since = message["task"], message["loads"], time.monotonic()
        return None


def without(work: Work, done: set[str]) -> Work | None:
    """The work that is left when these tasks are dealt with, if any is."""
    tasks = tuple(task for task in work.tasks if task.key not in done)
    return replace(work, tasks=tasks) if tasks else None
