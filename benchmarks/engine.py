"""What the engine costs: a zoo of small networks measured, found done, compacted and read, with times as ratios.

Run by hand, on an idle machine: ``python benchmarks/engine.py --checkpoints 1000 --images 1000``. The work itself is
timed inside the run: forward passes and scores (the collectors' measuring functions) and the loading of data and
weights. What is left of the run's wall time is the engine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import machine, table, write_section

REPOSITORY = Path(__file__).resolve().parents[1]

MODEL = "zoo:smallcnn?operator={operator}&width={width}&in_channels=1"
OPERATORS = ("max", "avg", "subsample", "blur", "lp", "soft")
ENTRY = """
  - name: c{number:05}
    model: {model}
    weights: c{number:05}.safetensors
    input: {{size: 32, mean: 0.5, std: 0.25}}
    factors: {{operator: {operator}, seed: {number}, run: r{number}}}"""


def make_zoo(folder: Path, count: int, width: int) -> None:
    """Untrained networks, each with weights of its own."""
    import torch
    from safetensors.torch import save_file

    from invariscope.zoo.loading import build_model

    folder.mkdir(parents=True)
    text = "checkpoints:"
    for number in range(count):
        operator = OPERATORS[number % len(OPERATORS)]
        model = MODEL.format(operator=operator, width=width)
        torch.manual_seed(number)
        save_file(build_model(model).state_dict(), folder / f"c{number:05}.safetensors")
        text += ENTRY.format(number=number, model=model, operator=operator)
    (folder / "zoo.yaml").write_text(text + "\n")


@dataclass
class Clock:
    """Seconds spent inside of wrapped functions, nested calls counted once."""

    seconds: float = 0.0
    depth: int = 0

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added to this clock."""

        def timed(*args: Any, **options: Any) -> Any:
            self.depth += 1
            started = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.seconds += time.perf_counter() - started

        return timed


@contextmanager
def work_timed(clock: Clock) -> Any:
    """The measuring functions, and the loading of weights and data, on the clock."""
    import invariscope.collectors.measure.invariance
    import invariscope.collectors.measure.msb
    import invariscope.collectors.measure.passes
    import invariscope.zoo.datasets.source
    import invariscope.zoo.loading

    places = [
        (invariscope.collectors.measure.invariance, ("predict", "score", "measure_surface")),
        (invariscope.collectors.measure.msb, ("measure_msb",)),
        (invariscope.collectors.measure.passes, ("predict_unshifted", "shift_network")),
        (invariscope.zoo.loading, ("load_checkpoint",)),
        (invariscope.zoo.datasets.source, ("load_dataset",)),
    ]
    kept = [(module, name, getattr(module, name)) for module, names in places for name in names]
    for module, name, function in kept:
        setattr(module, name, clock.wrapped(function))
    try:
        yield
    finally:
        for module, name, function in kept:
            setattr(module, name, function)


def measure_run(zoo: Path, out: Path, images: int) -> tuple[float, float]:
    """Wall seconds of a whole run in this process, and of the work in it."""
    from invariscope.collectors.engine.run import collect
    from invariscope.collectors.options import Options
    from invariscope.zoo.datasets.source import DataSource
    from invariscope.zoo.manifest import read_manifest

    options = Options(msb_images=min(images, 256))
    clock = Clock()
    with work_timed(clock):
        started = time.perf_counter()
        outcome = collect(read_manifest(zoo), DataSource("digits", "train", images), out, options)
        wall = time.perf_counter() - started
    if outcome.failures:
        raise SystemExit(f"a task failed: {outcome.failures[0]}")
    return wall, clock.seconds


def measure_second(zoo: Path, out: Path, images: int) -> tuple[float, float, bool]:
    """Wall and processor seconds of the command line on a finished folder, and whether it imported torch."""
    code = "import sys; from invariscope.cli import main; code = main(sys.argv[1:]);"
    code += " print('torch' in sys.modules); sys.exit(code)"
    arguments = ["collect", str(zoo), "--data", "digits", "--split", "train", "--limit", str(images), "--out", str(out)]
    command = [sys.executable, "-c", code, *arguments, "--msb-images", str(min(images, 256))]
    before, started = os.times(), time.perf_counter()
    printed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    wall, after = time.perf_counter() - started, os.times()
    if " 0 failed" not in printed or "(0 tasks measured" not in printed:
        raise SystemExit(f"the second run was none: {printed}")
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, processor, printed.split()[-1] == "True"


def measure_load(out: Path) -> tuple[float, float]:
    """Seconds to read all tables: before compaction and after it."""
    from invariscope.analysis import load
    from invariscope.collectors.store.compaction import compact

    times = []
    for step in (lambda: None, lambda: compact(out)):
        step()
        started = time.process_time()
        load(out)
        times.append(time.process_time() - started)
    return times[0], times[1]


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=int, default=1000)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--width", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        zoo, out = Path(folder) / "zoo", Path(folder) / "tables"
        make_zoo(zoo, arguments.checkpoints, arguments.width)
        wall, work = measure_run(zoo, out, arguments.images)
        measure_second(zoo, out, arguments.images)  # hashes the weights, now that they have lain for a moment
        second, processor, torch_seen = measure_second(zoo, out, arguments.images)
        parts, compacted = measure_load(out)
    rows = {
        "run": f"{wall:.1f} s",
        "engine outside of forward passes, scores, weights and data": f"{(wall - work) / wall:.1%}",
        "second run": f"{second:.2f} s wall, {processor:.2f} s processor, torch imported: {torch_seen}",
        "reading all tables": f"{parts:.2f} s, compacted {compacted:.2f} s: {parts / compacted:.0f} times as fast",
    }
    networks = f"{arguments.checkpoints} small networks of width {arguments.width}"
    facts = f"{networks} x {arguments.images} images, one process. {machine('torch', 'pyarrow')}"
    body = table([{"what": name, "measured": value} for name, value in rows.items()])
    write_section("Engine (`python -m benchmarks.engine`)", f"{facts}\n\n{body}")


if __name__ == "__main__":
    main()
