"""Operators by taps, forward and backward on CPU, against max pooling of the same windows and their plain forms.

    python -m benchmarks.taps                 # three minutes
    python -m benchmarks.taps --repeats 5

All are measured in turn, again and again, by CPU time with one thread, whatever else the machine does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks.results import load_now, machine, table, write_section
from invariscope.zoo.operators import build_operator
from invariscope.zoo.operators.means import stacked_lme
from invariscope.zoo.operators.pooling import continued, stacked_lp, stacked_soft
from invariscope.zoo.operators.smooth import Frame
from invariscope.zoo.operators.taps import Windows

SHAPES = ((64, 64, 32, 32), (64, 8, 32, 32))
LAYOUTS = {"default": torch.contiguous_format, "channels-last": torch.channels_last}
RANKS = {2: (0.4, 0.3, 0.2, 0.1), 3: (0.3, 0.2, 0.15, 0.1, 0.09, 0.06, 0.05, 0.03, 0.02)}
"""Weights that are all different, by kernel: nothing can be left out."""

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TapsSettings:
    """How much is measured."""

    repeats: int = 11
    """Measurements of each, in turn."""
    seed: int = 0
    """Of the maps."""


def _around(x: Tensor, kernel: int) -> tuple[Tensor, Windows]:
    frame = continued(x, kernel, 2, "circular")
    return frame.padded, Windows(kernel, 2, frame.size)


def _stacked(x: Tensor, kernel: int, name: str) -> Tensor:
    """Soft, lp and log-mean-exp pooling over a stack of the taps."""
    padded, windows = _around(x.relu() if name == "lp" else x, kernel)
    match name:
        case "soft":
            return stacked_soft(padded, windows, None, 4.0)
        case "lp":
            return stacked_lp(padded, windows, None, 3.0)
        case _:
            return stacked_lme(padded, Frame(windows, None), 4.0)


def steps(channels: int, kernel: int) -> dict[str, Step]:
    """What is measured, by name; max pooling first."""
    ranks = f"rank({RANKS[kernel]}, {kernel})"
    specs = {
        "max": f"max({kernel})",
        "avg": f"avg({kernel})",
        "rank": ranks,
        "quantile": f"quantile(2, {kernel})",
        "kernel": f"kernel({RANKS[kernel]}, {kernel})",
        "mix of rank and kernel": f"mix(0.3, {ranks}, kernel({RANKS[kernel]}, {kernel}))",
        "prefilter, rank": f"prefilter(0.5, {ranks})",
        "soft": f"soft(4, {kernel})",
        "lp": f"lp(3, {kernel})",
        "lme": f"lme(4, {kernel})",
    }
    found: dict[str, Step] = {name: build_operator(spec, channels, 2, "circular") for name, spec in specs.items()}
    stacked = {f"{name}, stacked": partial(_stacked, kernel=kernel, name=name) for name in ("soft", "lp", "lme")}
    return {**found, **stacked}


def seconds(step: Step, x: Tensor) -> float:
    """CPU time of a forward and a backward pass."""
    x.grad = None
    start = time.process_time()
    y = step(x)
    y.backward(torch.ones_like(y))
    return time.process_time() - start


def ratios(settings: TapsSettings) -> list[dict[str, object]]:
    """Time over that of max pooling: medians and quartiles, by map, layout and number of taps."""
    rows: list[dict[str, object]] = []
    for shape in SHAPES:
        for layout, memory_format in LAYOUTS.items():
            for kernel in RANKS:
                torch.manual_seed(settings.seed)
                x = torch.randn(shape).contiguous(memory_format=memory_format).requires_grad_()
                measured = steps(shape[1], kernel)
                times = np.array(
                    [[seconds(step, x) for step in measured.values()] for _ in range(settings.repeats + 1)][1:]
                )
                row: dict[str, object] = {"map": str(shape), "layout": layout, "taps": kernel**2}
                row["max, ms"] = f"{np.median(times[:, 0]) * 1e3:.1f}"
                for place, name in enumerate(measured):
                    if place:
                        low, middle, high = np.quantile(times[:, place] / times[:, 0], [0.25, 0.5, 0.75])
                        row[name] = f"{middle:.1f} ({low:.1f} to {high:.1f})"
                rows.append(row)
    return rows


def errors(settings: TapsSettings) -> list[dict[str, object]]:
    """Largest difference in float32 between what is computed by taps and by a stack of them."""
    torch.manual_seed(settings.seed)
    x = torch.randn(SHAPES[1]).contiguous(memory_format=torch.channels_last)
    rows = []
    for kernel in RANKS:
        measured = steps(SHAPES[1][1], kernel)
        shares = {name: measured[name](x) - measured[f"{name}, stacked"](x) for name in ("soft", "lp", "lme")}
        rows.append({"taps": kernel**2, **{name: f"{float(each.abs().max()):.1e}" for name, each in shares.items()}})
    return rows


def main() -> None:
    """Measure and write the section."""
    settings = tyro.cli(TapsSettings, description=__doc__)
    torch.set_num_threads(1)
    load = load_now()
    body = [
        f"{machine('torch')} Load {load:.1f} at the start. Forward and backward, stride 2, circular padding, one "
        f"thread, CPU time over that of max pooling of the same windows in the same layout: medians of ratios of "
        f"measurements in turn, quartiles in brackets, n = {settings.repeats}. `stacked`: over a stack of the taps.",
        table(ratios(settings)),
        "Largest difference between by taps and stacked, in float32:",
        table(errors(settings)),
    ]
    write_section("Operators by taps (`python -m benchmarks.taps`)", "\n\n".join(body))


if __name__ == "__main__":
    main()
