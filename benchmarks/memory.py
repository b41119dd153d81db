"""Peak anonymous memory (RssAnon) of `collect`, by the number of images and of shifts: each as a share of the least.

    python -m benchmarks.memory                      # minutes: 1,000 and 50,000 images, 9 and 81 shifts
    python -m benchmarks.memory --images 200 2000

Each measurement is a process of its own, on one thread; its images are a memory-mapped file, which is no anonymous
memory. Linux only: RssAnon is read from /proc every few milliseconds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.results import machine, table, write_section

MODEL = "zoo:smallcnn?operator=max&width=4&in_channels=3"
SIZE, CLASSES = 8, 10
INTERVAL = 0.003
"""Seconds between two readings."""


@dataclass(frozen=True)
class MemorySettings:
    """What is measured."""

    images: tuple[int, ...] = (1_000, 50_000)
    """Numbers of images."""
    shifts: tuple[int, ...] = (9, 81)
    """Numbers of shifts per image."""
    repeats: int = 3
    """Processes for each number."""


def anonymous() -> int:
    """Anonymous memory of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not state RssAnon")


@contextmanager
def watching() -> Iterator[list[int]]:
    """The peak so far, in a list of one."""
    peak, done = [anonymous()], threading.Event()

    def watch() -> None:
        while not done.wait(INTERVAL):
            peak[0] = max(peak[0], anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak[0] = max(peak[0], anonymous())


def measure(folder: Path, n_images: int, n_shifts: int) -> int:
    """Peak of one `collect` in this process: MSB, accuracy and the scores under two kinds of shifts."""
    import torch
    from safetensors.torch import save_file

    from invariscope.collectors.engine.run import collect
    from invariscope.collectors.options import Options
    from invariscope.zoo.checkpoint import Checkpoint
    from invariscope.zoo.datasets.imageset import ImageSet
    from invariscope.zoo.datasets.inputs import InputSpec
    from invariscope.zoo.loading import build_model

    torch.set_num_threads(1)
    pixels = np.memmap(folder / "images", np.uint8, "r", shape=(n_images, 3, SIZE, SIZE))
    classes = tuple(map(str, range(CLASSES)))
    names = {"name": "random/test", "classes": classes, "mask_classes": (), "fingerprint": "0"}
    images = ImageSet.from_numpy({"images": pixels, "labels": np.arange(n_images) % CLASSES, "masks": None, **names})
    torch.manual_seed(0)
    save_file(build_model(MODEL).state_dict(), folder / "weights.safetensors")
    checkpoint = Checkpoint("one", MODEL, folder / "weights.safetensors", InputSpec(SIZE, (0.5,), (0.25,)))
    options = Options(collect=("layers", "invariance"), max_shift=4, batch_size=256, n_shifts=n_shifts)
    with watching() as peak:
        outcome = collect([checkpoint], images, folder / "out", options, progress=False)
    if outcome.failures:
        raise RuntimeError(str(outcome.failures[0]))
    return peak[0]


def in_a_process(n_images: int, n_shifts: int) -> int:
    """The peak that a process of its own reports."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.memmap(Path(folder) / "images", np.uint8, "w+", shape=(n_images, 3, SIZE, SIZE))
        rng = np.random.default_rng(0)
        for start in range(0, n_images, 1000):
            part = pixels[start : start + 1000]
            part[:] = rng.integers(0, 256, part.shape)
        pixels.flush()
        command = [sys.executable, "-m", "benchmarks.memory", json.dumps([folder, n_images, n_shifts])]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def main() -> None:
    """Measure and write the section; or, with a JSON list for an argument, be one of the measuring processes."""
    if len(sys.argv) == 2 and sys.argv[1].startswith("["):
        folder, n_images, n_shifts = json.loads(sys.argv[1])
        print(measure(Path(folder), n_images, n_shifts))
        return
    import tyro

    settings = tyro.cli(MemorySettings, description=__doc__)
    peaks = {
        (n_images, n_shifts): [in_a_process(n_images, n_shifts) for _ in range(settings.repeats)]
        for n_images in settings.images
        for n_shifts in settings.shifts
    }
    least = statistics.median(next(iter(peaks.values())))
    rows: list[dict[str, object]] = []
    for (n_images, n_shifts), found in peaks.items():
        ratios = [peak / least for peak in found]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}, n = {len(ratios)})"
        size = f"{statistics.median(found) / 2**20:.0f} MiB"
        rows.append({"images": n_images, "shifts": n_shifts, "peak RssAnon": size, "of the first": spread})
    facts = f"{machine('torch')} {MODEL} at {SIZE}, circular and zero shifts, MSB on 256 images, one thread."
    write_section("Memory of collect (`python -m benchmarks.memory`)", f"{facts}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
