"""What runs in the processes of this machine that measure: a server that forks workers, and the worker.

A server imports what measuring needs and then only forks: so a fresh worker takes milliseconds, and nothing that one
worker's network did to its process is in another's. A worker reads its work from the server's standard input, writes
lines of JSON to what was its standard output, and goes on until its process is used up: by a checkpoint that ran
Python of the user's. Where there is no fork, on Windows, the server is the worker, and a new one takes its place.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

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
"""Seconds between two looks of a server at its worker and at its own parent."""


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
    """One checkpoint to measure, by a process with this working folder and environment."""

    job: Job
    work: Work
    folder: str
    environment: dict[str, str]


def send(stream: BinaryIO, content: bytes) -> None:
    """Write one message with its length in front."""
    stream.write(struct.pack("<Q", len(content)) + content)
    stream.flush()


def serve(libraries: str) -> None:
    """Fork workers for as long as the process lives that started this one.

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
        _work(tell)
        return
    while True:
        server = os.getpid()
        worker = os.fork()
        if worker == 0:
            os.setsid()  # with what it starts, so that all of it can be ended
            end_with(server)
            try:
                _work(tell)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        tell({"worker": worker})
        _wait(worker, parent)
        tell({"ended": worker})


def _wait(worker: int, parent: int) -> None:
    """Until a worker has ended; ends both where the parent has."""
    while True:
        if os.waitpid(worker, os.WNOHANG)[0]:
            with suppress(ProcessLookupError, PermissionError):  # what it left running
                os.killpg(worker, signal.SIGKILL)
            return
        if os.getppid() != parent:
            with suppress(ProcessLookupError):
                os.killpg(worker, signal.SIGKILL)
            os._exit(1)
        time.sleep(_LOOK)


def _teller(channel: int) -> Callable[[dict[str, Any]], None]:
    def tell(message: dict[str, Any]) -> None:
        content = json.dumps(message).encode() + b"\n"
        while content:
            content = content[os.write(channel, content) :]

    return tell


def _work(tell: Callable[[dict[str, Any]], None]) -> None:
    """Measure what comes in, until a checkpoint has run code of the user's, or nothing comes any more."""
    import cloudpickle

    while True:
        size = _read(8)
        if not size:  # the parent has ended, or is about to end this process
            if os.name == "posix":
                signal.pause()
            return
        order: Order = cloudpickle.loads(_read(struct.unpack("<Q", size)[0]))  # of our parent alone
        if os.name != "posix":
            tell({"worker": os.getpid()})
        try:
            report = _measured(order, tell)
            tell({"report": report, "spent": os.getpid() if order.work.code_sha256 is not None else None})
        except OutputError as error:
            tell({"refused": str(error)})
        if order.work.code_sha256 is not None:
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
    told = lambda key, loads: tell({"task": key, "loads": loads})  # noqa: E731
    return measure(order.work, read_images(job.folder), Store(job.tables), job.options, told=told).as_dict()


def _read(count: int) -> bytes:
    """So many bytes of the input, or none where it has ended."""
    content = b""
    while len(content) < count:
        block = os.read(0, count - len(content))
        if not block:
            return b""
        content += block
    return content


START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import serve; serve(sys.argv[2])"


def command(schemes: frozenset[str]) -> list[str]:
    """How a server is started: with the modules that this process finds, and no others."""
    code = START.format(module=__name__)
    return [sys.executable, "-c", code, json.dumps(sys.path), ",".join(sorted(schemes))]
