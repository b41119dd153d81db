"""Code of the user's cannot end a run, reach another checkpoint or outlive its time, whatever it does."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from invariscope.analysis import load
from invariscope.base.errors import InputError
from invariscope.collectors.engine.run import CollectOutcome, collect
from invariscope.collectors.engine.workers import SPARES
from invariscope.collectors.options import Options
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.weights import load_weights

OPTIONS = Options(collect=("invariance",), shift=())
ReadAll = Callable[[Path], dict[str, pd.DataFrame]]

HEAD = """
import argparse, os, sys, torch
import torch.nn.functional as F
"""

CLASS = """
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 10)

    def forward(self, x):
        {forward}
        return self.linear(F.avg_pool2d(x, 4).flatten(1))

def build():
    {build}
    return Net()
"""

FAULTS = {
    "exit_at_import": ("sys.exit('no')", "", "", "ModelError"),
    "arguments": ("argparse.ArgumentParser().parse_args(['--no-such'])", "", "", "ModelError"),
    "exit_in_build": ("", "sys.exit(0)", "", "ModelError"),
    "interrupt_in_build": ("", "raise KeyboardInterrupt", "", "ModelError"),
    "exit_in_forward": ("", "", "sys.exit(0)", "SystemExit"),
    "interrupt": ("", "", "raise KeyboardInterrupt", "KeyboardInterrupt"),
    "ends": ("", "", "os._exit(0)", "WorkerDied"),
    "ends_in_build": ("", "os._exit(7)", "", "WorkerDied"),
    "patches": ("F.avg_pool2d = lambda x, *_: torch.zeros(len(x), 64)", "", "", None),
    "closes": ("", "", "os.closerange(0, 64)", "OSError"),
    "plain": ("", "", "", None),
}


@pytest.fixture
def rogues(tmp_path: Path) -> Callable[..., list[Checkpoint]]:
    def make(*names: str) -> list[Checkpoint]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(64, 10)
        weights = tmp_path / "w.safetensors"
        save_file({"linear.weight": layer.weight, "linear.bias": layer.bias}, weights)
        checkpoints = []
        for name in names:
            at_import, build, forward, _ = FAULTS[name]
            text = HEAD + at_import + CLASS.format(build=build or "pass", forward=forward or "pass")
            (tmp_path / f"{name}.py").write_text(text)
            spec = InputSpec(32, (0.5,), (0.25,))
            checkpoints.append(Checkpoint(name, f"python:{name}.py:build", weights, spec, folder=tmp_path))
        return checkpoints

    return make


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.full)])
def test_whatever_a_network_does_is_a_failure_and_the_others_go_on(
    rogues: Callable[..., list[Checkpoint]], images: ImageSet, tmp_path: Path, read_all: ReadAll, jobs: int
) -> None:
    plain = rogues("plain")
    collect(plain, images, tmp_path / "good", OPTIONS, progress=False)
    outcome = collect(rogues(*FAULTS), images, tmp_path / "out", OPTIONS, jobs=jobs, progress=False)
    errors: dict[str, set[str]] = {}
    for failure in outcome.failures:
        errors.setdefault(failure.checkpoint, set()).add(failure.error)
    wanted = {name: {error} for name, (*_, error) in FAULTS.items() if error is not None and name != "closes"}
    assert {name: found for name, found in errors.items() if name != "closes"} == wanted
    # Without its files a worker fails, or, where it needs none that were open, measures as the plain one does.
    measured = read_all(tmp_path / "out")["invariance"].set_index("checkpoint")[["score", "value", "n_images"]]
    assert (
        "closes" in errors
        or measured.loc[["closes"]].to_numpy().tolist() == measured.loc[["plain"]].to_numpy().tolist()
    )
    stages = {failure.stage for failure in outcome.failures if failure.checkpoint == "ends_in_build"}
    assert stages == {"load"}
    rows = read_all(tmp_path / "out")["invariance"].query("checkpoint == 'plain'").reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, read_all(tmp_path / "good")["invariance"])


@pytest.mark.parametrize("stall", [0.0, 0.2])
def test_a_run_that_is_slow_to_listen_loses_no_task(
    rogues: Callable[..., list[Checkpoint]],
    images: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stall: float,
) -> None:
    add = CollectOutcome.add
    monkeypatch.setattr(CollectOutcome, "add", lambda outcome, report: (time.sleep(stall), add(outcome, report)))
    plain = rogues("plain")[0]
    checkpoints = []
    for number in range(4):
        weights = tmp_path / f"{number}.safetensors"
        save_file({name: value + number for name, value in load_weights(plain.weights).items()}, weights)
        checkpoints.append(replace(plain, name=f"n{number}", weights=weights))
    outcome = collect(checkpoints, images, tmp_path / "out", OPTIONS, progress=False)
    assert (outcome.measured, outcome.failures) == (8, [])
    assert set(load(tmp_path / "out").invariance["checkpoint"]) == {"n0", "n1", "n2", "n3"}


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_a_worker_that_is_stopped_from_outside_does_not_outlive_its_time(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path
) -> None:
    SPARES.close()  # the first workers that are seen are those of this run
    me, stopped = os.getpid(), list[int]()

    def stop_workers() -> None:
        until = time.monotonic() + 60
        while not stopped and time.monotonic() < until:
            for server in _children(me):
                for worker in _children(server):
                    os.kill(worker, signal.SIGSTOP)
                    stopped.append(worker)
            time.sleep(0.002)

    thread = threading.Thread(target=stop_workers)
    thread.start()
    outcome = collect(zoo, images, tmp_path / "out", OPTIONS, jobs=2, time_limit=3, progress=False)
    thread.join()
    assert stopped
    assert {failure.error for failure in outcome.failures} == {"TimeLimit"}
    assert not any(Path(f"/proc/{worker}").exists() for worker in stopped)


@pytest.mark.parametrize("jobs", [0, 10_000])
def test_numbers_of_jobs_have_bounds(images: ImageSet, tmp_path: Path, jobs: int) -> None:
    with pytest.raises(InputError, match=r"jobs is .*give"):
        collect([], images, tmp_path / "out", OPTIONS, jobs=jobs, progress=False)
    assert not (tmp_path / "out").exists()


def _children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task")
    try:
        return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
    except OSError:
        return []
