"""What runs in the processes of this machine that measure: a server that forks workers, and the worker.

A server imports what measuring needs and then only forks: so a fresh worker takes milliseconds, and nothing that one
worker's network did to its process is in another's. A worker gets orders through its server, writes lines of JSON to
what was the server's standard output, and goes on until it is spent: by a checkpoint that ran Python of the user's.
Where there is no fork, on Windows, the server is the worker, and a new one takes its place.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from invariscope.base import registry
from invariscope.base.errors import OutputError
from invariscope.base.processes import end_with

if TYPE_CHECKING:
    from invariscope.collectors.engine.planning import Work
    from invariscope.collectors.options import Options

_IMPORTS = ("torch", "pandas", "invariscope.collectors.measure.invariance", "invariscope.zoo.loading")
_LIBRARIES = {"timm": "timm", "torchvision": "torchvision"}
"""What a server imports ahead for model strings of these schemes."""

_LOOK = 0.05
"""Seconds between two looks of a server at its worker and at its own parent, unless an order comes."""


@dataclass(frozen=True)
class Job:
    """What a worker is told beside its work: where things are, and what its process must be like."""

    tables: str
    folder: Path
    options: Options
    threads: int
    added: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Order:
    """One checkpoint to measure, by a process with this folder and environment; its number is in each answer."""

    number: int
    job: Job
    work: Work
    folder: str
    environment: dict[str, str]


def send(stream: IO[bytes], content: bytes) -> None:
    """Write one message with its length in front."""
    stream.write(struct.pack("<Q", len(content)) + content)
    stream.flush()


def serve(libraries: str) -> None:
    """Fork workers, one at a time, and hand orders on to them, while the process lives that started this one.

    An order goes through a pipe of the worker's own: one that dies before it has read it takes it along.

    Args:
        libraries: schemes of model strings whose libraries are imported ahead, with commas.
    """
    parent = os.getppid()
    channel = os.dup(1)
    os.dup2(2, 1)  # what networks print is no message
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends this process
    for name in (*_IMPORTS, *(_LIBRARIES[scheme] for scheme in libraries.split(",") if scheme in _LIBRARIES)):
        with suppress(ImportError):  # what is missing is told by the network that wants it
            importlib.import_module(name)
    tell = _teller(channel)
    if os.name != "posix":
        tell({"worker": os.getpid()})
        _work(0, tell)
        return
    while True:
        worker, orders = _forked(tell)
        tell({"worker": worker})
        _hand_on(orders, worker, parent)
        os.close(orders)
        tell({"ended": worker})


def _forked(tell: Callable[[dict[str, Any]], None]) -> tuple[int, int]:
    """A new worker, and where to write its orders."""
    source, orders = os.pipe()
    server = os.getpid()
    worker = os.fork()
    if worker:
        os.close(source)
        return worker, orders
    try:
        os.close(orders)
        os.setsid()  # with what it starts, so that all of it can be ended
        end_with(server)
        _work(source, tell)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _hand_on(orders: int, worker: int, parent: int) -> None:
    """Give a worker its orders until it has ended; end both where the parent has."""
    while not os.waitpid(worker, os.WNOHANG)[0]:
        coming = select.select([0], [], [], _LOOK)[0]
        content = _message(0) if coming else b""
        if os.getppid() != parent or (coming and not content):
            _end(worker)
            os._exit(1)
        if content:
            with suppress(BrokenPipeError), open(orders, "wb", closefd=False) as pipe:
                send(pipe, content)
    _end(worker)  # what it left running


def _end(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _teller(channel: int) -> Callable[[dict[str, Any]], None]:
    def tell(message: dict[str, Any]) -> None:
        content = json.dumps(message).encode() + b"\n"
        while content:
            content = content[os.write(channel, content) :]

    return tell


def _work(orders: int, tell: Callable[[dict[str, Any]], None]) -> None:
    """Measure what comes in, until a checkpoint has run code of the user's, or nothing comes any more."""
    import cloudpickle

    from invariscope.zoo.user_code import has_run

    while content := _message(orders):
        order: Order = cloudpickle.loads(content)  # of our parent alone
        spent = order.work.code_sha256 is not None
        try:
            report = _measured(order, tell)
            spent = spent or has_run()
            tell({"order": order.number, "report": report, "spent": spent})
        except OutputError as error:
            tell({"order": order.number, "refused": str(error)})
        if spent:
            return


def _measured(order: Order, tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    import torch

    from invariscope.collectors.engine.measuring import measure
    from invariscope.collectors.engine.sharing import read_images
    from invariscope.collectors.store.parts import Store

    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    torch.set_num_threads(order.job.threads)
    registry.add_all(order.job.added)

    job = order.job
    told = lambda key, loads: tell({"order": order.number, "task": key, "loads": loads})  # noqa: E731
    return measure(order.work, read_images(job.folder), Store(job.tables), job.options, told=told).as_dict()


def _message(source: int) -> bytes:
    """What :func:`send` wrote, or nothing where the other side has ended."""
    size = _read(source, 8)
    return _read(source, struct.unpack("<Q", size)[0]) if size else b""


def _read(source: int, count: int) -> bytes:
    content = b""
    while len(content) < count:
        block = os.read(source, count - len(content))
        if not block:
            return b""
        content += block
    return content


START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import serve; serve(sys.argv[2])"


def command(schemes: frozenset[str]) -> list[str]:
    """How a server is started: with the modules that this process finds, and no others."""
    code = START.format(module=__name__)
    return [sys.executable, "-c", code, json.dumps(sys.path), ",".join(sorted(schemes))]
