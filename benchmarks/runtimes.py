"""A pass by batch size, layout and runtime: what `collect` takes, against a plain loop at its best batch.

    python -m benchmarks.runtimes                     # a quarter of an hour on a quiet machine
    python -m benchmarks.runtimes --only resnet56 --repeats 3

One thread, wall time per image, all ways in turn, medians. `collect` takes folded batch norms, channels-last, and a
batch by the input's pixels alone, so that no value depends on how fast a machine was: the ratios say what that costs.
OpenVINO needs the extra `openvino`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
import tyro
from torch import Tensor, nn

from benchmarks.results import load_now, machine, table, write_section
from benchmarks.speed import calibrate
from invariscope.base.errors import ModelError
from invariscope.collectors.measure.batches import usual_batch
from invariscope.collectors.measure.passes import shift_network
from invariscope.collectors.measure.runtimes import Unconverted, by_openvino
from invariscope.zoo.loading import build_model

CASES = {
    "resnet18": ("timm:resnet18?num_classes=10", 224),
    "resnet50": ("timm:resnet50?num_classes=10", 224),
    "convnext_atto": ("timm:convnext_atto?num_classes=10", 224),
    "efficientnet_b0": ("timm:efficientnet_b0?num_classes=10", 224),
    "resnet56": ("zoo:resnet56?operator=strided", 32),
    "soft": ("zoo:smallcnn?operator=soft&in_channels=3", 32),
}
LOOP = "plain loop"
"""The network as it is, in the default layout."""
WAYS = (LOOP, "folded, default layout", "folded, channels-last", "OpenVINO, fp32", "OpenVINO, bf16")


@dataclass(frozen=True)
class RuntimeSettings:
    """How much is measured."""

    only: str = ""
    """Cases whose name contains this."""
    repeats: int = 5
    """Rounds."""
    batches: tuple[int, ...] = (8, 16, 32, 64)
    """Images per pass, besides what `collect` takes."""


def ways(model: nn.Module, images: Tensor) -> dict[str, tuple[nn.Module, torch.memory_format]]:
    """The network as it is run, by name, and the layout of its images; without OpenVINO where that cannot run it."""
    folded = shift_network(model, images)
    made = {
        LOOP: (model, torch.contiguous_format),
        "folded, default layout": (folded, torch.contiguous_format),
        "folded, channels-last": (folded, torch.channels_last),
    }
    for precision in ("fp32", "bf16"):
        with contextlib.suppress(ModelError, Unconverted):
            made[f"OpenVINO, {precision}"] = by_openvino(folded, images, precision), torch.contiguous_format
    return made


def measure(model: str, size: int, settings: RuntimeSettings) -> dict[tuple[str, int], float]:
    """Milliseconds of an image, by way and batch."""
    torch.manual_seed(0)
    network = build_model(model)
    batches = sorted({*settings.batches, usual_batch(size**2)})
    images = torch.randn(max(batches), 3, size, size)
    calibrate(network, images[:16])
    found: dict[tuple[str, int], list[float]] = {}
    with torch.inference_mode():
        made = ways(network.eval(), images[:8])
        for round_ in range(settings.repeats + 1):  # the first warms up
            for batch in batches:
                for way, (run, layout) in made.items():
                    spent = seconds(run, images[:batch].clone(memory_format=layout))
                    if round_:
                        found.setdefault((way, batch), []).append(1000 * spent / batch)
    return {key: statistics.median(values) for key, values in found.items()}


def seconds(run: Callable[[Tensor], object], batch: Tensor) -> float:
    """Wall time of a pass."""
    start = time.perf_counter()
    run(batch)
    return time.perf_counter() - start


def main() -> None:
    """Measure and write the section."""
    settings = tyro.cli(RuntimeSettings, description=__doc__)
    torch.set_num_threads(1)
    if not any(settings.only in name for name in CASES):
        raise SystemExit(f"no case is called {settings.only}: there are {', '.join(CASES)}")
    load = load_now()
    every: list[dict[str, object]] = []
    summary: list[dict[str, object]] = []
    for name, (model, size) in CASES.items():
        if settings.only not in name:
            continue
        found = measure(model, size, settings)
        for batch in sorted({batch for _, batch in found}):
            row = {way: f"{found[way, batch]:.2f}" if (way, batch) in found else "" for way in WAYS}
            every.append({"network": name, "batch": batch, **row})
        own = usual_batch(size**2)
        best = min(value for (way, _), value in found.items() if way == LOOP)
        folded = [value for (way, _), value in found.items() if way.startswith("folded")]
        ours = found["folded, channels-last", own]
        ratio = {"plain loop at its best / collect's passes": f"{best / ours:.2f}"}
        ratio["collect's passes / the best layout and batch"] = f"{ours / min(folded):.2f}"
        for way in ("OpenVINO, fp32", "OpenVINO, bf16"):
            here = (way, own) in found
            ratio[f"plain loop at its best / {way}"] = f"{best / found[way, own]:.2f}" if here else "not there"
        summary.append({"network": name, "input": size, "collect's batch": own, **ratio})
        print(summary[-1], flush=True)
    packages = ["torch", "timm", *(["openvino"] if find_spec("openvino") else [])]
    facts = f"{machine(*packages)} Load {load:.1f} at the start; one thread, n = {settings.repeats}."
    body = [facts, table(summary), "Milliseconds of an image:", table(every)]
    if settings.only:
        print("\n\n".join(body))  # a part of the cases takes the place of none
    else:
        write_section("Layouts, batches and runtimes (`python -m benchmarks.runtimes`)", "\n\n".join(body))


if __name__ == "__main__":
    main()
