"""A training that is stopped: by a signal, by the end of its parent, by a full disk; nothing runs on or is lost."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from invariscope import cli
from invariscope.base import files as base_files
from invariscope.base.processes import Stopped, stopped_by_signals
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.recipe import read_recipe
from invariscope.zoo.training import train_recipe
from invariscope.zoo.training.trainer import Trainer

RECIPE = """
defaults: {batch_size: 32, limit: 64, model: {width: 2}}
grid:
  - {seed: 0, epochs: 1}
  - {seed: [1, 2], epochs: 100000}
"""
LONG = ("smallcnn-max-zeros-s1", "smallcnn-max-zeros-s2")
QUICK = """
defaults: {batch_size: 32, limit: 64, model: {width: 2}, epochs: 4, snapshots: [1]}
grid: {seed: [0, 1]}
"""


def of_session(session: int) -> list[int]:
    """The processes of a session that are still running, from what Linux tells of them."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, owner = place.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(owner) == session and state != "Z":
            found.append(int(place.parent.name))
    return found


def wait_for(what: Callable[[], Any], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def training(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command at work in a session of its own, with one run done and two workers at work on two long ones."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    # Tests that run under nohup or in the background would pass on what is ignored there.
    code = "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    code += "signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from invariscope.cli import main; sys.exit(main(sys.argv[1:]))"
    options = ["recipe.yaml", "--out", "zoo", "--jobs", "2", "--save-every", "0"]
    command = [sys.executable, "-c", code, "train", *options]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wanted = [tmp_path / "zoo" / "smallcnn-max-zeros-s0-e001.safetensors"]
    wanted += [tmp_path / "zoo" / f".{name}.training" for name in LONG]
    try:
        assert wait_for(lambda: all(path.exists() for path in wanted) or run.poll() is not None, 120)
        assert run.poll() is None
        yield run
    finally:
        for process in of_session(run.pid):
            os.kill(process, signal.SIGKILL)
        run.communicate()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux tells of them")
@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.full) for name in ("SIGHUP", "SIGINT", "SIGKILL"))]
)
def test_workers_end_with_the_training(training: subprocess.Popen[str], tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    assert len(of_session(training.pid)) >= 3
    os.kill(training.pid, number)
    training.wait(timeout=30)
    assert wait_for(lambda: not of_session(training.pid), 10), "workers train on"
    states = {path: path.stat().st_mtime_ns for path in (tmp_path / "zoo").iterdir()}
    assert {f".{run}.training" for run in LONG} <= {path.name for path in states}
    if name == "SIGKILL":
        assert training.returncode == -number
        return
    assert training.returncode == (cli.INTERRUPTED if name == "SIGINT" else cli.SIGNALLED + number)
    error = training.stderr.read() if training.stderr else ""
    assert error == "\nstopped: what is in zoo is whole; the same command goes on from there\n"
    assert [entry.factors["seed"] for entry in read_manifest(tmp_path / "zoo")] == [0]
    train_recipe(read_recipe(tmp_path / "recipe.yaml")[:1], tmp_path / "one_job", progress=False)
    weights = "smallcnn-max-zeros-s0-e001.safetensors"
    assert (tmp_path / "zoo" / weights).read_bytes() == (tmp_path / "one_job" / weights).read_bytes()


@pytest.fixture
def heeded() -> Iterator[None]:
    """SIGHUP is not ignored, as it is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("heeded")
def test_signals_stop_and_are_as_before_afterwards() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def hang_up() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(1)

    with pytest.raises(Stopped) as caught, stopped_by_signals():
        hang_up()
    assert caught.value.number == signal.SIGHUP
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals():
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


FDOPEN = os.fdopen


class FullDisk:
    """After so many files of the zoo one write stops half-way, as where the disk is full but for small files."""

    def __init__(self, after: int) -> None:
        self.left = after

    def open(self, handle: int, mode: str) -> Any:
        self.left -= 1
        file = FDOPEN(handle, mode)
        if self.left != -1:
            return file
        write = file.write

        class Full:
            def __enter__(self) -> Full:
                return self

            def __exit__(self, *problem: object) -> None:
                file.close()

            def write(self, content: bytes) -> None:
                write(content[: len(content) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return Full()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "recipe.yaml").write_text(QUICK)
    train_recipe(read_recipe(folder / "recipe.yaml"), folder / "zoo", progress=False)
    return contents(folder / "zoo")


# What is written, per run: weights and state after epoch 1, states after 2 and 3, weights after 4; then the manifest.
@pytest.mark.parametrize(("after", "begun"), [(0, 0), (1, 0), (3, 1), (4, 1), (8, 1), (10, 0)])
def test_a_full_disk_loses_nothing(
    after: int,
    begun: int,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "recipe.yaml").write_text(QUICK)
    out = tmp_path / "zoo"
    command = ["train", str(tmp_path / "recipe.yaml"), "--out", str(out), "--save-every", "0"]
    disk = FullDisk(after)
    with monkeypatch.context() as patch:
        patch.setattr(base_files.os, "fdopen", disk.open)
        assert cli.main(command) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error == (
        f"invariscope: {out}: cannot be written to (No space left on device): make room or name another --out, and "
        "give the same command, which goes on from there\n"
    )
    written = [path.name for path in out.iterdir()]
    assert not [name for name in written if name.endswith(".part")]
    assert len([name for name in written if name.endswith(".training")]) == begun
    monkeypatch.setattr(Trainer, "_epoch", counted(Trainer._epoch, epochs := []))
    assert cli.main(command) == cli.DONE
    assert "was not used" not in capsys.readouterr().err
    assert len(epochs) == {0: 8, 1: 8, 3: 6, 4: 5, 8: 2, 10: 0}[after]
    assert contents(out) == whole


def counted(step: Callable[..., Any], epochs: list[int]) -> Callable[..., Any]:
    def epoch(trainer: Trainer, number: int) -> Any:
        epochs.append(number)
        return step(trainer, number)

    return epoch
