"""A training that was killed goes on to the same bytes; a state of no use is said and left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.run import Run
from invariscope.zoo.training import Conditions, train_recipe
from invariscope.zoo.training.state import restore_state, save_state
from invariscope.zoo.training.trainer import Trainer, reproducible

QUICK = {"epochs": 4, "batch_size": 64, "model": {"width": 2}, "limit": 256, "wake_up": 1}
STEPS = 4

RUNS = {
    "adamw": Run(operator="tips", snapshots=(1,), **QUICK),
    "sgd": Run(operator="lps", optimizer="sgd", lr=0.05, augment_shift=2, augment_flip=True, clip_norm=0.5, **QUICK),
    "layout": Run(
        operator="soft(beta=2)", precision="bf16", channels_last=True, snapshots=(2,), clip_norm=1.0, **QUICK
    ),
    "plain": Run(operator="ddac(groups=2)", optimizer="sgd", momentum=0.0, lr=0.05, precision="bf16", **QUICK),
}


def kill_at(run: Run, out: Path, step: int) -> None:
    """Train in a process of its own, which is killed (-9) in the given step."""

    def train() -> None:
        take_step, taken = Trainer._step, []

        def counted(*arguments: Any) -> Any:
            taken.append(1)
            if len(taken) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return take_step(*arguments)

        Trainer._step = counted
        train_recipe([run], out, progress=False, conditions=Conditions(save_every=0))

    if sys.platform != "linux":
        pytest.skip("elsewhere a process of libraries with threads cannot be forked safely")
    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_goes_on_to_the_same_bytes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RUNS[name]
    train_recipe([run], tmp_path / "whole", progress=False)
    broken = tmp_path / "broken"
    kill_at(run, broken, 2 * STEPS + 2)
    state = broken / f".{run.id}.training"
    assert state.exists()
    assert not (broken / f"{run.snapshot_name(4)}.safetensors").exists()
    begun: list[int] = []
    monkeypatch.setattr("invariscope.zoo.training.zoos.time.monotonic", lambda: begun.append(1) or 0.0)
    report = train_recipe([run], broken, progress=False)
    assert len(begun) < 1 + run.epochs  # fewer epochs than the whole
    assert (report.trained, report.notes, report.failed) == ((run.id,), (), ())
    assert files(broken) == files(tmp_path / "whole")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    kill_at(RUNS["adamw"], folder, 2 * STEPS + 2)
    return folder


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to / f".{RUNS['adamw'].id}.training"


def spoil(state: Path, how: str) -> None:
    content = bytearray(state.read_bytes())
    match how:
        case "cut":
            state.write_bytes(content[:-100])
        case "flipped":
            content[-100] ^= 1
            state.write_bytes(content)
        case "empty":
            state.write_bytes(b"")
        case "pickle":
            state.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
        case "bare":
            with safe_open(state, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            save_file(tensors, state)
        case "list":
            save_file({}, state, {"invariscope": "[1]"})


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("cut", "it is no whole state of a training"),
        ("flipped", "it is damaged"),
        ("empty", "it is no whole state of a training"),
        ("pickle", "it is no whole state of a training"),
        ("bare", "it is no whole state of a training"),
        ("list", "it is no whole state of a training"),
    ],
)
def test_a_spoilt_state_is_noted_and_the_run_starts_anew(
    interrupted: Path, tmp_path: Path, how: str, reason: str
) -> None:
    run = RUNS["adamw"]
    state = copy(interrupted, tmp_path / "zoo")
    spoil(state, how)
    report = train_recipe([run], tmp_path / "zoo", progress=False)
    assert report.notes == (f"{state} was not used, {run.id} starts anew: {reason}",)
    train_recipe([run], tmp_path / "whole", progress=False)
    assert files(tmp_path / "zoo") == files(tmp_path / "whole")


def test_a_state_of_other_settings_is_not_used(interrupted: Path, tmp_path: Path) -> None:
    other = replace(RUNS["adamw"], lr=0.02, snapshots=())
    copy(interrupted, tmp_path / "zoo")
    for weights in (tmp_path / "zoo").glob("*.safetensors"):
        weights.unlink()
    (note,) = train_recipe([other], tmp_path / "zoo", progress=False).notes
    assert note.endswith("it is of a training with other settings")
    train_recipe([other], tmp_path / "whole", progress=False)
    assert files(tmp_path / "zoo") == files(tmp_path / "whole")


def test_a_lost_snapshot_is_made_again(interrupted: Path, tmp_path: Path) -> None:
    run = RUNS["adamw"]
    copy(interrupted, tmp_path / "zoo")
    (tmp_path / "zoo" / f"{run.snapshot_name(1)}.safetensors").unlink()
    (note,) = train_recipe([run], tmp_path / "zoo", progress=False).notes
    assert note.endswith("a snapshot from before it is gone")
    assert (tmp_path / "zoo" / f"{run.snapshot_name(1)}.safetensors").exists()


def test_a_run_that_takes_less_than_a_minute_keeps_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr("invariscope.zoo.training.zoos.save_state", lambda trainer, *_: saved.append(trainer.done))
    run = RUNS["adamw"]
    train_recipe([run], tmp_path / "minute", progress=False)
    train_recipe([run], tmp_path / "always", progress=False, conditions=Conditions(save_every=0))
    assert saved == [1, 1, 2, 3]


def test_the_optimiser_goes_on_in_the_layout_of_the_weights(tmp_path: Path) -> None:
    run = RUNS["layout"]
    images = load_dataset("digits", split="train", limit=128)
    with reproducible(run.seed):
        first, second = Trainer(run, images), Trainer(run, images)
        next(first.epochs())
        save_state(first, tmp_path / "state", {})
        restore_state(second, tmp_path / "state", {})
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        for name, value in first.optimizer.state[one].items():
            found = second.optimizer.state[other][name]
            assert found.stride() == value.stride()
            assert found.equal(value)
