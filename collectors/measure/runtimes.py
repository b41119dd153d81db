"""The passes over shifted images by another runtime than torch: OpenVINO, on processors."""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from invariscope.base.errors import one_line
from invariscope.collectors.measure.passes import agree, evaluating, is_logits
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of recording: what it fixed is checked on other images
            recorded = openvino.convert_model(model, example_input=images[:2], input=[-1, *images.shape[1:]])
        self._compiled: Any = openvino.Core().compile_model(recorded, "CPU", settings).create_infer_request()

    def forward(self, x: Tensor) -> Tensor:
        found = self._compiled.infer([x.contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(found[0].copy())


def import_openvino() -> Any:
    """OpenVINO, without the package by which its import reports to its makers.

    Raises:
        ModelError: it cannot be imported; the line says what to do.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_optional("openvino", "openvino")


def by_openvino(network: nn.Module, images: Tensor, precision: str = "fp32") -> nn.Module:
    """A network as OpenVINO runs it, checked against the network on the images, together and one by itself.

    In ``bf16`` it is the same recording in float32 that is checked.

    Raises:
        ModelError: OpenVINO is not there.
        Unconverted: it cannot be converted, or says something else than the network.
    """
    import_openvino()
    if next((p for p in network.parameters() if p.dtype != torch.float32 or p.device.type != "cpu"), None) is not None:
        raise Unconverted("it is not in float32 on the processor")
    with evaluating(network), torch.no_grad():
        said = logits_of(network(images.clone()))
        if not is_logits(said):
            raise Unconverted("it does not return logits of images")
        try:
            made = OpenVinoNetwork(network, images)
            same = agree(said, made(images)) and agree(network(images[:1].clone()), made(images[:1]))
            if same and precision != "fp32":
                made = OpenVinoNetwork(network, images, precision)
                made(images)
        except Exception as problem:  # foreign code on foreign code
            raise Unconverted(f"it cannot be converted ({one_line(problem)[:160]})") from problem
    if not same:
        raise Unconverted("converted, it says something else")
    return made


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
