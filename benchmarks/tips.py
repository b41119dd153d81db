"""TIPS, forward and backward on CPU, against its plain formula, as ratios; and where the time goes.

    python -m benchmarks.tips                 # two minutes
    python -m benchmarks.tips --repeats 5

Both are measured in turn, again and again: by CPU time with one thread, whatever else the machine does, and by the wall
clock with two.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import profile

from benchmarks.results import load_now, machine, table, write_section
from invariscope.zoo.operators import TIPS

SHAPES = ((32, 64, 56, 56), (128, 16, 32, 32), (8, 512, 14, 14))
LAYOUTS = {"default": torch.contiguous_format, "channels-last": torch.channels_last}

LOST = """Tried, and no faster (medians of CPU milliseconds at (32, 64, 56, 56), one thread, on a loaded machine):
torch's own gradients with an in-place ReLU and means over regions as views, 67 to 87 against 69 to 81 of the layer
before this one and 70 of the hand-written gradient; two functions in place of one, whose gradients autograd adds up, 94
against 71; a sum over six dimensions for the mixture, 48 against 5 of four `addcmul_`; a mean over two axes at once, 7
against 2 one after the other; `torch.where` for the mask of the ReLU, 32 against 2; the layout changed image by image,
13 against 7, or by a channel shuffle, 34."""


@dataclass(frozen=True)
class TipsSettings:
    """How much is measured."""

    repeats: int = 21
    """Measurements of each, in turn."""
    seed: int = 0
    """Of maps and weights."""


class Plain(nn.Module):
    """The formula as it reads: convolutions, adaptive pooling, a stack of the slices."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(self.depthwise(x).relu(), 2)
        tau = self.pointwise(pooled).flatten(2).softmax(2)
        parts = torch.stack([x[..., i::2, j::2] for i in range(2) for j in range(2)], 2)
        return (parts * tau[..., None, None]).sum(2)


@dataclass
class TipsCase:
    """Both layers with the same weights, a map, and a gradient of the output."""

    plain: Plain
    layer: TIPS
    x: Tensor
    grad: Tensor

    @classmethod
    def make(cls, shape: tuple[int, ...], layout: torch.memory_format, seed: int) -> TipsCase:
        torch.manual_seed(seed)
        n, channels, height, width = shape
        plain, layer = Plain(channels), TIPS(channels)
        layer.load_state_dict(plain.state_dict())
        x = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
        return cls(plain, layer, x, torch.randn(n, channels, height // 2, width // 2).contiguous(memory_format=layout))

    def step(self, module: nn.Module, clock: Callable[[], float]) -> tuple[float, float]:
        """Seconds of a forward and of a backward pass."""
        self.x.grad = None
        module.zero_grad()
        start = clock()
        y = module(self.x)
        middle = clock()
        y.backward(self.grad)
        return middle - start, clock() - middle

    def gradients(self, module: nn.Module, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """The output, and the gradients of the map and of both weights."""
        module = module.to(dtype)
        x = self.x.detach().to(dtype).requires_grad_()
        y = module(x)
        found = [y.detach(), *torch.autograd.grad(y, [x, *module.parameters()], self.grad.to(dtype))]
        module.float()
        return found


def ratios(settings: TipsSettings) -> list[dict[str, object]]:
    """Plain over ours, by shape, layout and number of threads."""
    rows: list[dict[str, object]] = []
    for threads, clock in ((1, time.process_time), (2, time.perf_counter)):
        if threads > (os.cpu_count() or 1):
            continue
        torch.set_num_threads(threads)
        for shape in SHAPES:
            for name, layout in LAYOUTS.items():
                case = TipsCase.make(shape, layout, settings.seed)
                times = np.array(
                    [
                        [case.step(module, clock) for module in (case.plain, case.layer)]
                        for _ in range(settings.repeats + 1)
                    ][1:]
                )
                row: dict[str, object] = {"threads": threads, "map": str(shape), "layout": name}
                for title, part in zip(("forward", "backward"), np.moveaxis(times, 2, 0), strict=True):
                    row[title] = _spread(part)
                row["both"] = _spread(times.sum(2))
                plain, ours = np.median(times.sum(2), 0) * 1e3
                rows.append({**row, "plain, ms": f"{plain:.1f}", "ours, ms": f"{ours:.1f}"})
    torch.set_num_threads(1)
    return rows


def _spread(seconds: np.ndarray) -> str:
    low, middle, high = np.quantile(seconds[:, 0] / seconds[:, 1], [0.25, 0.5, 0.75])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def errors(settings: TipsSettings) -> list[dict[str, object]]:
    """Largest difference to the plain formula in float64, as a share of the largest value."""
    case = TipsCase.make(SHAPES[0], torch.contiguous_format, settings.seed)
    exact = case.gradients(case.plain, torch.float64)
    rows = []
    for name, module in (("plain", case.plain), ("ours", case.layer)):
        found = case.gradients(module)
        shares = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)]
        titles = ("output", "gradient of the map", "of the 3x3 weights", "of the 1x1 weights")
        rows.append({"float32": name, **{t: f"{share:.1e}" for t, share in zip(titles, shares, strict=True)}})
    return rows


def parts(settings: TipsSettings, shown: int = 7) -> list[dict[str, object]]:
    """CPU milliseconds of torch's operations in a forward and backward pass, the longest first."""
    case = TipsCase.make(SHAPES[0], torch.contiguous_format, settings.seed)
    rows: list[dict[str, object]] = []
    for name, module in (("plain", case.plain), ("ours", case.layer)):
        case.step(module, time.process_time)
        spent: dict[str, list[float]] = defaultdict(list)
        for _ in range(5):
            with profile() as run:
                case.step(module, time.process_time)
            for event in run.key_averages():
                spent[event.key].append(event.self_cpu_time_total / 1e3)
        order = sorted(spent, key=lambda key: -float(np.median(spent[key])))[:shown]
        text = ", ".join(f"{key.removeprefix('aten::')} {np.median(spent[key]):.1f}" for key in order)
        rows.append({"layer": name, "milliseconds by operation (medians of 5)": text})
    return rows


def main() -> None:
    """Measure and write the section."""
    settings = tyro.cli(TipsSettings, description=__doc__)
    torch.set_num_threads(1)
    load = load_now()
    body = [
        f"{machine('torch')} Load {load:.1f} at the start. Plain formula over this package's layer: medians of "
        f"ratios of measurements in turn, quartiles in brackets, n = {settings.repeats}; CPU time with one thread, "
        "wall time with two.",
        table(ratios(settings)),
        "Largest difference to the plain formula in float64, as a share of the largest value, by one random map:",
        table(errors(settings)),
        table(parts(settings)),
        LOST,
    ]
    write_section("TIPS (`python -m benchmarks.tips`)", "\n\n".join(body))


if __name__ == "__main__":
    main()
