"""A training step by operator, memory layout and precision: what a recipe gains by asking for them.

    python -m benchmarks.training                    # minutes on a quiet machine
    python -m benchmarks.training --only soft --rounds 9

Every operator of the registry with its defaults, in the VGG-like network of the population study on CIFAR-10; one
thread, CPU time of epochs of a few steps (augmentation, forward, backward, optimiser), all ways in turn, medians of the
ratios within rounds. Layout and precision change what is trained: a recipe that does not name them is trained in the
default layout in float32, as ever. Jobs: the wall time of four runs with one job and with two, each of one thread.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from benchmarks.results import load_now, machine, table, write_section
from benchmarks.speed import spread
from invariscope.zoo.datasets.imageset import ImageSet
from invariscope.zoo.operators import OPERATORS
from invariscope.zoo.run import Run
from invariscope.zoo.training import train_recipe
from invariscope.zoo.training.trainer import Trainer, reproducible

DEFAULT = "float32, default layout"
WAYS = {
    DEFAULT: {},
    "float32, channels-last": {"channels_last": True},
    "bfloat16, default layout": {"precision": "bf16"},
    "bfloat16, channels-last": {"channels_last": True, "precision": "bf16"},
}


@dataclass(frozen=True)
class TrainingSettings:
    """How much is measured."""

    only: str = ""
    """Operators whose name contains this."""
    rounds: int = 5
    """Epochs of each way, after one that warms up."""
    steps: int = 3
    """Steps of an epoch, of 128 images of 32 pixels."""
    width: int = 16
    """Of the network."""


def images(count: int) -> ImageSet:
    """Random images of ten classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return ImageSet("random/train", pixels, labels, tuple(map(str, range(10))))


def runs(operator: str, settings: TrainingSettings) -> dict[str, Run]:
    """The same run, by layout and precision."""
    shared = {"architecture": "vgg7", "operator": operator, "padding_mode": "circular", "batch_size": 128}
    shared |= {"model": {"width": settings.width}, "epochs": settings.rounds + 1, "wake_up": 0}
    shared |= {"augment_shift": 2, "augment_flip": True}
    return {way: Run(**shared, **asked) for way, asked in WAYS.items()}


def measured(operator: str, settings: TrainingSettings) -> dict[str, object]:
    """Ratios of CPU time, and milliseconds of a step."""
    data = images(128 * settings.steps)
    with reproducible(0):
        epochs: dict[str, Iterator[object]] = {
            way: Trainer(run, data).epochs() for way, run in runs(operator, settings).items()
        }
        spent: list[dict[str, float]] = []
        for _ in range(settings.rounds + 1):
            times = {}
            for way, trained in epochs.items():
                start = time.process_time()
                next(trained)
                times[way] = time.process_time() - start
            spent.append(times)
    kept = spent[1:]
    row: dict[str, object] = {"operator": operator}
    row["default, ms a step"] = f"{1000 * statistics.median(each[DEFAULT] for each in kept) / settings.steps:.0f}"
    for way in list(WAYS)[1:]:
        row[f"default / {way}"] = spread([each[DEFAULT] / each[way] for each in kept])
    return row


def jobs(settings: TrainingSettings) -> str:
    """Wall time of four runs with one job over that with two."""
    recipe = "defaults: {data: digits, epochs: 20, model: {width: 8}}\ngrid:\n  - {seed: [0, 1, 2, 3]}\n"
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "recipe.yaml"
        asked.write_text(recipe)
        for number in range(min(settings.rounds, 3)):
            times = []
            for count in (1, 2):
                start = time.perf_counter()
                train_recipe(asked, Path(folder) / f"{number}-{count}", jobs=count, progress=False)
                times.append(time.perf_counter() - start)
            ratios.append(times[0] / times[1])
    return f"Four small runs, wall time with one job over that with two: {spread(ratios)}."


def main() -> None:
    """Measure and write the section."""
    settings = tyro.cli(TrainingSettings, description=__doc__)
    load = load_now()
    torch.set_num_threads(1)
    rows = []
    for operator in OPERATORS:
        if settings.only in operator:
            rows.append(measured(operator, settings))
            print(rows[-1], flush=True)
    if not rows:
        raise SystemExit(f"no operator is called {settings.only}: there are {', '.join(OPERATORS)}")
    facts = f"{machine('torch')} Load {load:.1f} at the start; one thread; vgg7 of width {settings.width}, 32 pixels."
    body = "\n\n".join([facts, table(rows)])
    if settings.only:
        print(body)  # a part of the operators takes the place of none
    else:
        body = f"{body}\n\n{jobs(settings)}"
        write_section("Training by layout and precision (`python -m benchmarks.training`)", body)


if __name__ == "__main__":
    main()
