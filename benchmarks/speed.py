"""CPU time of `collect` against a plain loop at that loop's best batch and against bare passes; bfloat16's effect.

    python -m benchmarks.speed                       # three quarters of an hour on a quiet machine
    python -m benchmarks.speed --only ResNet-18 --images 24 --repeats 3

Rounds of all that is measured, one after the other, on one thread by default; a ratio is taken within each round, and
stated as its median, with the least and the largest. The bare passes are timed in quarters, before each of the others.
A run of `collect` is whole: reading weights, checks of folding, scores and tables are in it. The plain loop is eager,
in the default layout, one roll and one pass per batch and shift; its best batch is found first, by a few passes.
Networks are initialised at random, their batch norms calibrated on the images.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.results import load_now, machine, table, write_section
from invariscope.collectors.engine.run import collect
from invariscope.collectors.engine.subject import Subject
from invariscope.collectors.measure.invariance import predict, score
from invariscope.collectors.measure.passes import checked_images, shift_network
from invariscope.collectors.measure.shifts import ShiftPlan
from invariscope.collectors.options import Options
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets.imageset import ImageSet
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.loading import build_model, load_checkpoint

KINDS, SHIFTS, CLASSES = ("circular", "zero"), 9, 10
MSB_SHARE = 0.256
"""Share of the images on which MSB is measured: 256 of 1,000."""

PLAIN_BATCHES = (4, 8, 16, 32, 64, 128)
"""Batches of the plain loop, of which it gets its best."""
PLAIN_ROUNDS = 3
"""Passes of each of these batches before that is chosen."""

LAYERS_IMAGES = 256
"""Images of `layers` alone: as many as it takes where nothing is said, or those of the case."""
LAYERS_LEAST = 200
"""Images of a case from which on it is timed: of fewer the check that a network is a function of the image, and what is
read of the first 16 alone, are most of it."""
MOST_PASSES = {224: 2.5}
"""Passes of an image that `layers` may take, by its pixels."""

GOALS = {(24, 224): 1.0, (200, 224): 1.3, (1000, 32): 1.3}
"""Plain loop over `collect`, by the number of images and their pixels."""


@dataclass(frozen=True)
class Network:
    """What is measured, at which numbers of images."""

    title: str
    model: str
    size: int
    images: tuple[int, ...] = ()


CASES = (
    Network("soft smallcnn", "zoo:smallcnn?operator=soft&in_channels=3", 32, (1000,)),
    Network("CIFAR ResNet-56", "zoo:resnet56?operator=strided", 32, (1000,)),
    Network("ResNet-18", "timm:resnet18?num_classes=10", 224, (24, 200)),
    Network("ConvNeXt-atto", "timm:convnext_atto?num_classes=10", 224, (24, 200)),
    Network("EfficientNet-B0", "timm:efficientnet_b0?num_classes=10", 224, (24, 200)),
    Network("ResNet-50", "timm:resnet50?num_classes=10", 224, (24, 200)),
)
MARGIN = 1e-3


@dataclass(frozen=True)
class SpeedSettings:
    """How much is measured; fewer images make the fixed costs of a checkpoint weigh more."""

    images: tuple[int, ...] = ()
    """Numbers of images, in place of those of each case."""
    repeats: int = 3
    """Rounds, of those with fewer than 200 images at 224 pixels; of the others ``large_repeats``."""
    large_repeats: int = 1
    """Rounds of 200 images at 224 pixels or more, each of minutes."""
    threads: int = 1
    """Threads of torch. CPU time is wall time with one, whatever else the machine does."""
    only: str = ""
    """Cases whose name contains this."""
    measured: tuple[Literal["plain", "layers", "msb", "bf16"], ...] = ("plain", "layers")
    """What is compared with `collect`: the plain loop, `layers` alone (with bare passes, on 200
    images at 224 pixels and 256 at 32), itself with MSB on a quarter of the images, and in bfloat16."""


@dataclass(frozen=True)
class SpeedCase:
    """One network on its images."""

    checkpoint: Checkpoint
    images: ImageSet

    def collect(self, folder: Path, msb: bool = False, precision: str = "fp32") -> None:
        """Measure into an empty folder."""
        names = ("layers", "invariance") if msb else ("invariance",)
        count = max(round(MSB_SHARE * len(self.images)), 1)
        options = Options(collect=names, shift=KINDS, n_shifts=SHIFTS, msb_images=count, precision=precision)
        self._measure(self.images, options, folder)

    def layers(self, folder: Path) -> None:
        """Measure the sites alone, rivals of MSB among the readings, into an empty folder."""
        images = self.images.head(LAYERS_IMAGES)
        options = Options(collect=("layers",), msb_images=len(images))
        self._measure(images, options, folder)

    def _measure(self, images: ImageSet, options: Options, folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            outcome = collect([self.checkpoint], images, out, options, progress=False)
        if outcome.failures:
            raise RuntimeError(str(outcome.failures[0]))

    def bare(self) -> Callable[[], None]:
        """A quarter of the forward passes of the same images x shifts, by the same network in batches as large."""
        subject = Subject(self.checkpoint, load_checkpoint(self.checkpoint), self.images)
        network = shift_network(subject.model, subject.prepared()[: checked_images(len(self.images))])
        n, size = len(self.images), subject.images_per_pass
        batch = subject.prepared()[:size].clone(memory_format=torch.channels_last)
        passes = (1 + SHIFTS * len(KINDS)) * n // 4

        def run() -> None:
            with torch.inference_mode():
                for start in range(0, passes, size):
                    network(batch[: passes - start])

        return run

    def best_plain_batch(self) -> int:
        """The batch at which the plain loop is fastest on an image, of those that the images fill."""
        subject = Subject(self.checkpoint, load_checkpoint(self.checkpoint), self.images)
        images, model = subject.prepared(), subject.model
        sizes = [size for size in PLAIN_BATCHES if size <= len(images)] or [len(images)]
        found: dict[int, list[float]] = {size: [] for size in sizes}
        with torch.no_grad():
            for _ in range(1 + PLAIN_ROUNDS):  # the first warms up
                for size in sizes:
                    batch = images[:size]
                    found[size].append(seconds(partial(model, batch)) / size)
        return min(sizes, key=lambda size: statistics.median(found[size][1:]))

    def plain(self, batch_size: int) -> Callable[[], None]:
        """A loop as published evaluations have it: eager, NCHW, one roll and one forward pass per batch and shift."""
        subject = Subject(self.checkpoint, load_checkpoint(self.checkpoint), self.images)
        images, model = subject.prepared(), subject.model
        shifts = ShiftPlan.sampled(1, max(self.checkpoint.input.size // 8, 1), SHIFTS).offsets[0].tolist()

        def run() -> None:
            with torch.no_grad():
                for start in range(0, len(images), batch_size):
                    batch = images[start : start + batch_size]
                    clean = model(batch).argmax(1)
                    for _ in KINDS:
                        for dy, dx in shifts:
                            (model(batch.roll((dy, dx), (2, 3))).argmax(1) == clean).sum().item()

        return run


def seconds(call: Callable[[], object]) -> float:
    """CPU time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def spread(ratios: list[float]) -> str:
    """Median, range and number."""
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}, n = {len(ratios)})"


def make(folder: Path, network: Network, count: int) -> SpeedCase:
    """A calibrated network and smooth random images."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    pixels = F.interpolate(coarse, network.size, mode="bicubic", align_corners=False).clamp(0, 1)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    images = ImageSet("random/test", pixels.mul(255).to(torch.uint8), labels, tuple(map(str, range(CLASSES))))
    torch.manual_seed(0)
    model = build_model(network.model)
    calibrate(model, images.images[:32].float() / 255 * 4 - 2)
    weights = folder / f"{network.title.replace(' ', '-')}-{count}.safetensors"
    save_file(model.state_dict(), weights)
    input_ = InputSpec(network.size, (0.5,), (0.25,))
    return SpeedCase(Checkpoint(weights.stem, network.model, weights, input_, folder=folder), images)


def calibrate(network: nn.Module, images: Tensor) -> None:
    """Give batch norms the statistics of the images, so that logits are of order 1 and differ between images."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(images)
    network.eval()


def speed(network: Network, case: SpeedCase, settings: SpeedSettings, folder: Path) -> dict[str, object]:
    """Ratios of CPU time of one network."""
    count, large = len(case.images), network.size > 100 and len(case.images) >= 200
    batch = Subject(case.checkpoint, nn.Identity(), case.images).images_per_pass
    calls: dict[str, Callable[[], None]] = {"collect": lambda: case.collect(folder)}
    best = 0
    if "plain" in settings.measured:
        best = case.best_plain_batch()
        calls["plain"] = case.plain(best)
    if "layers" in settings.measured and count >= LAYERS_LEAST:
        calls["layers"] = lambda: case.layers(folder)
    if "msb" in settings.measured:
        calls["msb"] = lambda: case.collect(folder, msb=True)
    if "bf16" in settings.measured:
        calls["bf16"] = lambda: case.collect(folder, precision="bf16")
    bare = case.bare()
    bare()
    rounds = []
    for _ in range(settings.large_repeats if large else settings.repeats):
        quarters, times = [], {}
        for name, call in calls.items():
            quarters.append(seconds(bare))
            times[name] = seconds(call)
        rounds.append(times | {"bare": 4 * statistics.median(quarters)})
        print(network.title, count, rounds[-1], flush=True)

    def ratio(first: str, second: str) -> str:
        if first not in calls:
            return ""
        ratios = [times[first] / times[second] for times in rounds]
        goal = GOALS.get((count, network.size)) if first == "plain" else None
        missed = goal is not None and statistics.median(ratios) < goal
        return spread(ratios) + (f": at least {goal:.1f} missed" if missed else "")

    def passes() -> str:
        if "layers" not in calls:
            return ""
        ahead = (1 + SHIFTS * len(KINDS)) * count / min(count, LAYERS_IMAGES)
        found = [times["layers"] / times["bare"] * ahead for times in rounds]
        most = MOST_PASSES.get(network.size, float("inf"))
        return spread(found) + (f": at most {most} missed" if statistics.median(found) > most else "")

    return {
        "network": network.title,
        "images": f"{count} at {network.size}",
        "batch": batch,
        "the loop's best batch": best or "",
        "plain loop at its best / collect": ratio("plain", "collect"),
        "collect / bare passes": ratio("collect", "bare"),
        "layers, passes an image": passes(),
        "with MSB / bare passes": ratio("msb", "bare"),
        "bf16 / fp32": ratio("bf16", "collect"),
        "collect, CPU seconds": f"{statistics.median(times['collect'] for times in rounds):.1f}",
    }


def agreement(case: SpeedCase) -> str:
    """Folded against unfolded predictions, and what bfloat16 does to every score."""
    model = load_checkpoint(case.checkpoint)
    images = Subject(case.checkpoint, model, case.images.head(64)).prepared()
    plan = ShiftPlan.sampled(len(images), images.size // 8, n_shifts=3)
    plain, folded, half = (
        predict(model, images, images.labels, plan, batch_size=16, **options)
        for options in ({"fold": False}, {}, {"precision": "bf16"})
    )
    sure = margins(model, images[:]) > MARGIN
    tops: list[dict[str, object]] = []
    for name, other in (("folded", folded), ("bf16", half)):
        same = plain.clean_prediction == other.clean_prediction
        tops.append(
            {
                "passes": name,
                "top-1 equal": f"{same.mean():.3f}",
                f"where the top-2 margin exceeds {MARGIN:g}": f"{same[sure].mean():.3f} of {int(sure.sum())}",
                "largest change of a probability": f"{np.abs(plain.probability - other.probability).max():.1e}",
            }
        )
    values = [score(each, plan).set_index("score")["value"] for each in (folded, half)]
    scores: list[dict[str, object]] = [{name: f"{values[1][name] - values[0][name]:+.4f}" for name in values[0].index}]
    return "\n\n".join([table(tops), "Scores in bfloat16 minus scores in fp32:", table(scores)])


def margins(model: nn.Module, images: Tensor) -> np.ndarray:
    """Distance of the two largest logits."""
    with torch.inference_mode():
        best = torch.cat([model(part).topk(2).values for part in images.split(16)])
    return (best[:, 0] - best[:, 1]).numpy()


def main() -> None:
    """Measure and write the section."""
    settings = tyro.cli(SpeedSettings, description=__doc__)
    torch.set_num_threads(settings.threads)
    load = load_now()
    facts = (
        f"{machine('torch', 'timm')} Load {load:.1f} at the start. CPU time with {settings.threads} thread(s), in "
        f"rounds; K = {SHIFTS} shifts x {len(KINDS)} kinds. At least 1.0 is asked of the plain loop's time over that "
        "of `collect` for 24 images, 1.3 for 200 at 224 pixels and for 1,000 at 32. `layers` takes every reading of a "
        f"site, the rivals of MSB too, of the first {LAYERS_IMAGES} images or all, where there are {LAYERS_LEAST}."
    )
    rows, effects = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network in CASES:
            if settings.only.lower() not in network.title.lower():
                continue
            for count in settings.images or network.images:
                case = make(folder, network, count)
                rows.append(speed(network, case, settings, folder))
                if "bf16" in settings.measured:
                    effects += [f"{network.title}, {count} images:", agreement(case)]
    if not rows:
        raise SystemExit(f"no case is called {settings.only}: there are {', '.join(one.title for one in CASES)}")
    body = "\n\n".join([facts, table(rows), *effects])
    if settings.only or settings.images:
        print(body)  # a part of the cases takes the place of none
    else:
        write_section("Speed of collect (`python -m benchmarks.speed`)", body)


if __name__ == "__main__":
    main()
