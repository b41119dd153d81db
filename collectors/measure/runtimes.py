"""The passes over shifted images by another runtime than torch: OpenVINO, on processors."""

from __future__ import annotations

import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from invariscope.base.errors import is_memory
from invariscope.collectors.measure.passes import agree, evaluating, is_logits, run_network
from invariscope.collectors.measure.saying import logits_of
from invariscope.zoo.optional import import_optional

LEAST_IMAGES = 64
"""Images from which on ``auto`` looks for a faster runtime: converting takes up to some seconds."""

GAIN, TIMED = 1.05, 3
"""How many times as fast the other runtime must be for ``auto``, as the median of so many batches."""

HINTS = {"fp32": "f32", "bf16": "bf16"}
"""OpenVINO's names of the precisions."""


class Unconverted(Exception):
    """Why a network is not run by another runtime, in a few words."""


class OpenVinoNetwork(nn.Module):
    """A network that OpenVINO runs: images ``(N, C, H, W)`` in float32 on the CPU to logits ``(N, classes)``.

    A recording of one pass (``torch.jit.trace``), compiled for this processor, for any ``N``. Its modules are no longer
    there to be watched.

    Args:
        model: the network, in evaluation mode, in float32 on the CPU. It is not changed.
        images: two images at least, as it takes them.
        precision: ``fp32``, or ``bf16`` for arithmetic in bfloat16 where the processor has it.
        threads: of a pass; by default torch's.
    """

    def __init__(self, model: nn.Module, images: Tensor, precision: str = "fp32", threads: int | None = None) -> None:
        super().__init__()
        openvino = import_openvino()
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            # Several workers that pin their threads would share one core.
            "ENABLE_CPU_PINNING": False,
            "PERFORMANCE_HINT": "LATENCY",
        }
        with warnings.catch_warnings(), _logger_kept():
            warnings.simplefilter("ignore")  # of recording: sizes become numbers, which `by_openvino` checks
            recorded = openvino.convert_model(model, example_input=images[:2], input=[-1, *images.shape[1:]])
        compiled = openvino.Core().compile_model(recorded, "CPU", settings)
        if compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() != HINTS[precision]:
            raise Unconverted(f"this processor has no {precision}")
        self._compiled: Any = compiled.create_infer_request()

    def forward(self, x: Tensor) -> Tensor:
        found = self._compiled.infer([x.contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(found[0].copy())


@contextmanager
def _logger_kept() -> Iterator[None]:
    """The root logger is as before after it: a conversion that fails leaves it at errors alone."""
    root = logging.getLogger()
    level, filters, handlers = root.level, list(root.filters), list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


def import_openvino() -> Any:
    """OpenVINO, without the package by which it reports to its makers, unless that is imported already.

    Raises:
        ModelError: it cannot be imported; the line says what to do.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_optional("openvino", "openvino")


def by_openvino(network: nn.Module, images: Tensor, precision: str = "fp32") -> nn.Module:
    """A network as OpenVINO runs it, checked against the network itself.

    It is checked on the images, on the first of them alone, and on what shifted passes may show: the images moved
    with a strip of zeros and of their smallest value, one colour, and noise. A branch of the network that depends on
    values and is taken by none of these is not seen. In ``bf16`` the same recording is checked in float32.

    Raises:
        ModelError: OpenVINO is not there, or the network itself fails.
        Unconverted: it cannot be converted, or says something else than the network.
    """
    import_openvino()
    if any(p.dtype != torch.float32 or p.device.type != "cpu" for p in network.parameters()):
        raise Unconverted("it is not in float32 on the processor")
    with evaluating(network), torch.no_grad():
        views = [images, images[:1], *_moved(images)]
        said = [logits_of(run_network(network, view.clone())) for view in views]
        if not all(is_logits(one) and len(one) == len(view) for one, view in zip(said, views, strict=True)):
            raise Unconverted("it does not return logits of images")
        try:
            made = OpenVinoNetwork(network, images)
            found = [made(view) for view in views]
            if precision != "fp32":
                made = OpenVinoNetwork(network, images, precision)
                made(images)
        except Unconverted:
            raise
        except Exception as problem:  # foreign code on foreign code
            if is_memory(problem):
                raise
            raise Unconverted(f"it cannot be converted ({_last_line(problem)})") from problem
        if not all(one.shape == other.shape and agree(one, other) for one, other in zip(said, found, strict=True)):
            raise Unconverted("converted, it says something else")
    return made


def _moved(images: Tensor) -> Iterator[Tensor]:
    """What passes may show beside the images: a strip of one value, one colour, noise."""
    step = max(min(images.shape[-2:]) // 8, 1)
    for value in (0.0, float(images.min())):
        moved = images.roll((step, step), (2, 3))
        moved[..., :step, :] = value
        moved[..., :step] = value
        yield moved
    yield images[:2].mean((2, 3), keepdim=True).expand_as(images[:2])
    yield torch.randn(images[:2].shape, generator=torch.Generator().manual_seed(0))


def _last_line(problem: BaseException) -> str:
    """The kind of the first error of a chain and what it says last: OpenVINO adds lines before it and errors after."""
    if (cause := problem.__cause__ or problem.__context__) is not None:
        return _last_line(cause)
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()] or [""]
    return f"{type(problem).__name__}: {' '.join(lines[-1].split())[:120]}"


def faster(one: nn.Module, other: nn.Module, images: Tensor) -> bool:
    """Whether the other network is faster by ``GAIN`` on a batch of images, in turn with the first."""
    ratios = []
    last = images.clone(memory_format=torch.channels_last)
    with evaluating(one), torch.inference_mode():
        for _ in range(TIMED + 1):
            ratios.append(_seconds(lambda: one(last)) / _seconds(lambda: other(last)))
    return statistics.median(ratios[1:]) >= GAIN


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
