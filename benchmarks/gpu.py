"""A GPU: its tests, `collect` there against bare passes in fp32, TF32 and bfloat16, and the agreement with the CPU.

    python -m benchmarks.gpu                          # on a machine with CUDA; minutes
    python -m benchmarks.gpu --device cpu --images 2 --batch 2 --bundled 2 --repeats 1     # tries the script itself

Wall time, which is what a GPU is bought for; ratios within rounds, stated as their median with the least and largest.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import torch
import tyro
from torch import nn

from benchmarks.results import machine, table, write_section
from benchmarks.speed import KINDS, SHIFTS, Network, SpeedCase, make, spread
from invariscope.collectors.engine import measuring
from invariscope.collectors.engine.run import collect
from invariscope.collectors.engine.subject import Subject
from invariscope.collectors.measure.passes import checked_images, shift_network
from invariscope.collectors.options import Options
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.imageset import ImageSet
from invariscope.zoo.devices import check_device, prepare_device
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import read_manifest

REPOSITORY = Path(__file__).resolve().parents[1]
NUMBERS = ("fp32", "tf32", "bf16")
"""In which numbers the passes are; TF32 is float32 of which a GPU multiplies the first 10 bits."""


@dataclass(frozen=True)
class GpuSettings:
    """How much is measured."""

    device: str = "cuda"
    """The device."""
    images: int = 2000
    """Images of 224 pixels for ResNet-50."""
    bundled: int = 40
    """Checkpoints of the bundled zoo, evenly spaced."""
    repeats: int = 3
    """Rounds."""
    batch: int = 256
    """Images per pass."""


@contextlib.contextmanager
def numbers(name: str) -> Iterator[str]:
    """Run `collect` in these numbers; gives the precision to ask for."""
    allow = name == "tf32"

    def prepare(device: str) -> None:
        prepare_device(device)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allow

    kept, measuring.prepare_device = measuring.prepare_device, prepare
    try:
        prepare("cpu")
        yield "bf16" if name == "bf16" else "fp32"
    finally:
        measuring.prepare_device = kept
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def seconds(call: Callable[[], object], device: str) -> float:
    """Wall time of a call, until the device has done its part."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def scores(checkpoints: list[Checkpoint], images: ImageSet, **knobs: object) -> np.ndarray:
    """The scores that `collect` writes of the checkpoints, in one order."""
    with tempfile.TemporaryDirectory() as out:
        outcome = collect(checkpoints, images, out, Options(("invariance",), **knobs), progress=False)
        if outcome.failures:
            raise SystemExit(f"a task failed: {outcome.failures[0]}")
        frame = ds.dataset(Path(out) / "invariance").to_table().to_pandas()
    return frame.sort_values(["checkpoint", "shift_kind", "score"])["value"].to_numpy()


def bare(case: SpeedCase, settings: GpuSettings, precision: str) -> tuple[Callable[[], None], bool]:
    """As many passes of single images as `collect` makes, of one batch over and over; and whether they are folded.

    What is rounded to 10 bits may be too far from the unfolded network for its folded copy to stand for it.
    """
    subject = Subject(case.checkpoint, load_checkpoint(case.checkpoint).to(settings.device), case.images)
    first = subject.prepared()[: checked_images(len(case.images))].to(settings.device)
    network: nn.Module = shift_network(subject.model, first, precision=precision)
    batch = subject.prepared()[: settings.batch].to(settings.device, next(network.parameters()).dtype)
    batch = batch.clone(memory_format=torch.channels_last)
    passes = (1 + SHIFTS * len(KINDS)) * len(case.images)

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, passes, len(batch)):
                network(batch[: passes - start])

    return run, not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def resnet(folder: Path, settings: GpuSettings) -> list[dict[str, object]]:
    """ResNet-50 at 224: `collect` over bare passes, and images a second, by kind of number."""
    case = make(folder, Network("ResNet-50", "timm:resnet50?num_classes=10", 224), settings.images)
    knobs = {"shift": KINDS, "n_shifts": SHIFTS, "device": settings.device, "batch_size": settings.batch}
    rows: list[dict[str, object]] = []
    exact: np.ndarray | None = None
    for name in NUMBERS:
        with numbers(name) as precision:
            passes, folded = bare(case, settings, precision)
            passes()
            measured = partial(scores, [case.checkpoint], case.images, precision=precision, **knobs)
            ratios, rates = [], []
            for _ in range(settings.repeats):
                least = seconds(passes, settings.device)
                whole = seconds(measured, settings.device)
                ratios.append(whole / least)
                rates.append((1 + SHIFTS * len(KINDS)) * len(case.images) / whole)
            found = measured()
        exact = found if exact is None else exact
        rows.append(
            {
                "numbers": name,
                "batch norms folded": "yes" if folded else "no",
                "collect / bare passes, wall": spread(ratios),
                "passes of an image a second": f"{statistics.median(rates):,.0f}",
                "largest difference of a score from fp32": f"{np.abs(found - exact).max():.1e}",
            }
        )
    return rows


def bundled(settings: GpuSettings) -> list[dict[str, object]]:
    """Checkpoints of the bundled zoo on the digits: the device against the CPU."""
    every = read_manifest(REPOSITORY / "data" / "zoo")
    chosen = every[:: max(len(every) // settings.bundled, 1)][: settings.bundled]
    images = load_dataset("digits", limit=360)
    here = scores(chosen, images, device="cpu")
    rows: list[dict[str, object]] = []
    for name in NUMBERS:
        with numbers(name) as precision:
            differences = np.abs(scores(chosen, images, device=settings.device, precision=precision) - here)
        row: dict[str, object] = {"numbers": name, "checkpoints": len(chosen), "scores": len(here)}
        row |= {
            "median difference from the CPU": f"{np.median(differences):.1e}",
            "largest": f"{differences.max():.1e}",
        }
        rows.append(row)
    return rows


def main() -> None:
    """Run the tests, measure, and write the section."""
    settings = tyro.cli(GpuSettings, description=__doc__)
    check_device(settings.device)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "tests/test_cuda.py"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the tests fail:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    tests = done.stdout.strip().splitlines()[-1]
    named = torch.cuda.get_device_name() if settings.device == "cuda" else f"no GPU: tried on {settings.device}"
    with tempfile.TemporaryDirectory() as folder:
        rows = resnet(Path(folder), settings)
    facts = f"{named}. {machine('torch', 'timm')} Tests: {tests}."
    parts = [
        facts,
        f"ResNet-50 at 224, {settings.images} images, {SHIFTS} shifts x {len(KINDS)} kinds, in {settings.batch}s:",
        table(rows),
        "The bundled zoo on 360 digits, scores against those of the CPU in fp32:",
        table(bundled(settings)),
    ]
    if settings.device == "cuda":
        write_section("A GPU (`python -m benchmarks.gpu`)", "\n\n".join(parts))
    else:
        print("\n\n".join(parts))


if __name__ == "__main__":
    main()
