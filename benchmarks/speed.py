"""CPU time of `collect` against the bare forward passes and against a plain loop, as ratios; bfloat16 and its effect.

    python -m benchmarks.speed                       # hours: CIFAR ResNet-56, ResNet-18 and -50 at 224
    python -m benchmarks.speed --only ResNet-18 --measured collect msb --large-images 1000 --repeats 1

Rounds of all that is measured, one after the other, on one thread by default; a ratio is taken within each round, and
stated as its median, with the least and the largest. The bare passes are timed in quarters, before each of the others.
Networks are initialised at random, their batch norms calibrated on the images. A section of the results per network.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.results import machine, table, write_section
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

PLAIN_BATCHES = (64,)
"""Batch sizes of the plain loop besides that of `collect`."""

CASES = (
    ("CIFAR ResNet-56", "zoo:resnet56?operator=strided", 32),
    ("ResNet-18", "timm:resnet18?num_classes=10", 224),
    ("ResNet-50", "timm:resnet50?num_classes=10", 224),
)
MARGIN = 1e-3


@dataclass(frozen=True)
class SpeedSettings:
    """How much is measured; fewer images make the fixed costs of a checkpoint weigh more than they do in earnest."""

    images: int = 1000
    """Images at 32 pixels."""
    large_images: int = 250
    """Images at 224 pixels: 19 passes over 1,000 of them take a quarter of an hour."""
    repeats: int = 3
    """Pairs of measurements of each ratio."""
    threads: int = 1
    """Threads of torch. CPU time is wall time with one, whatever else the machine does."""
    only: str = ""
    """Cases whose name contains this."""
    measured: tuple[Literal["collect", "msb", "plain", "bf16"], ...] = ("collect", "msb", "plain", "bf16")
    """What is compared: collect with and without MSB against bare passes, the plain loop and bfloat16 against it."""


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
        with tempfile.TemporaryDirectory(dir=folder) as out:
            outcome = collect([self.checkpoint], self.images, out, options, progress=False)
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


def seconds(call: Callable[[], None]) -> float:
    """CPU time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def spread(ratios: list[float]) -> str:
    """Median, range and number."""
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}, n = {len(ratios)})"


@contextmanager
def cases(settings: SpeedSettings) -> Iterator[dict[str, SpeedCase]]:
    """The networks with their images, in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        yield {
            title: make(Path(name), model, size, settings)
            for title, model, size in CASES
            if settings.only.lower() in title.lower()
        }


def make(folder: Path, model: str, size: int, settings: SpeedSettings) -> SpeedCase:
    """A calibrated network and smooth random images."""
    generator = torch.Generator().manual_seed(0)
    count = settings.images if size < 100 else min(settings.images, settings.large_images)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    pixels = F.interpolate(coarse, size, mode="bicubic", align_corners=False).clamp(0, 1).mul(255).to(torch.uint8)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    images = ImageSet("random/test", pixels, labels, tuple(map(str, range(CLASSES))))
    torch.manual_seed(0)
    network = build_model(model)
    calibrate(network, pixels[:32].float() / 255 * 4 - 2)
    weights = folder / f"{size}-{sum(p.numel() for p in network.parameters())}.safetensors"
    save_file(network.state_dict(), weights)
    return SpeedCase(Checkpoint(weights.stem, model, weights, InputSpec(size, (0.5,), (0.25,)), folder=folder), images)


def calibrate(network: nn.Module, images: Tensor) -> None:
    """Give batch norms the statistics of the images, so that logits are of order 1 and differ between images."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(images)
    network.eval()


def speed(title: str, case: SpeedCase, settings: SpeedSettings, folder: Path) -> str:
    """Ratios of CPU time of one network."""
    batch = Subject(case.checkpoint, nn.Identity(), case.images).images_per_pass
    calls: dict[str, Callable[[], None]] = {"collect": lambda: case.collect(folder)}
    if "msb" in settings.measured:
        calls["msb"] = lambda: case.collect(folder, msb=True)
    if "plain" in settings.measured:
        calls |= {f"plain loop, batch {size}": case.plain(size) for size in dict.fromkeys((batch, *PLAIN_BATCHES))}
    if "bf16" in settings.measured:
        calls["bf16"] = lambda: case.collect(folder, precision="bf16")
    bare = case.bare()
    bare()
    rounds = []
    for _ in range(settings.repeats):
        quarters, times = [], {}
        for name, call in calls.items():
            quarters.append(seconds(bare))
            times[name] = seconds(call)
        rounds.append(times | {"bare": 4 * statistics.median(quarters)})
        print(title, rounds[-1], flush=True)

    def ratio(first: str, second: str) -> str:
        return spread([times[first] / times[second] for times in rounds])

    row: dict[str, object] = {"network": title, "images": len(case.images), "batch": batch}
    row["collect / bare passes"] = ratio("collect", "bare")
    if "msb" in calls:
        row["with MSB / bare passes"] = ratio("msb", "bare")
    row |= {f"{name} / collect": ratio(name, "collect") for name in calls if name.startswith("plain")}
    if "bf16" in calls:
        row["bf16 / fp32"] = ratio("bf16", "collect")
    return table([{"what": name, "measured": value} for name, value in row.items()])


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
    facts = (
        f"{machine('torch', 'timm')} CPU time with {settings.threads} thread(s), in rounds; K = {SHIFTS} shifts x "
        f"{len(KINDS)} kinds, MSB on {MSB_SHARE:.1%} of the images."
    )
    with cases(settings) as found, tempfile.TemporaryDirectory() as folder:
        for title, case in found.items():
            body = [facts, speed(title, case, settings, Path(folder))]
            if "bf16" in settings.measured:
                body.append(agreement(case))
            images = f"{len(case.images)} images at {case.checkpoint.input.size}"
            write_section(f"Speed of collect, {title}, {images} (`python -m benchmarks.speed`)", "\n\n".join(body))


if __name__ == "__main__":
    main()
