"""The site equivariance error of an operator by itself, on noise: no training, no images."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from invariscope.collectors.measure.equivariance import Errors, equivariance_errors
from invariscope.collectors.measure.msb import tally_sites
from invariscope.zoo.architectures import ARCHITECTURES
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.operators import Operatorlike, build_operator, parse_operator
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.operators.specification import STRIDED

IMAGES, CHANNELS, SIDE, STRIDE = 64, 4, 32, 2

INITIALISATIONS = 5
"""Of learned operators, whose readings are means over them."""


def coloured_noise(seed: int = 0) -> Tensor:
    """``relu`` of noise with amplitude ``1/f``, standardised over the batch: ``(64, 4, 32, 32)`` in float64.

    ``f`` is the radial frequency; the mean has no amplitude.
    """
    white = torch.randn(
        IMAGES, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    rows = torch.fft.fftfreq(SIDE, dtype=torch.float64)[:, None]
    columns = torch.fft.rfftfreq(SIDE, dtype=torch.float64)[None, :]
    frequency = (rows.square() + columns.square()).sqrt()
    amplitude = torch.where(frequency > 0, 1 / frequency, 0.0)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(SIDE, SIDE))
    return ((noise - noise.mean()) / noise.std()).relu()


def operator_equivariance_error(operator: Operatorlike, stride: int = STRIDE) -> float:
    """``see`` of an operator alone, with what it filters by: a property of its specification.

    On :func:`coloured_noise` with circular padding; of a learned operator the mean over five initialisations.

    Raises:
        OperatorError: a specification that cannot be read or built.
    """
    noise = coloured_noise()
    return float(np.mean([_errors(built, noise).see() for built in _built(operator, stride)]))


def error_of_network(model: ModelString, folder: Path) -> tuple[float | None, str | None]:
    """:func:`operator_equivariance_error` of the operator of a ``zoo:`` network, or why it has none.

    The stride is that of the definition, 2, whatever it is in the network: a property of the specification. An operator
    of a Python file is found from ``folder``.
    """
    if model.scheme != "zoo":
        return None, "the operator is not one of a zoo: network"
    parameter = inspect.signature(ARCHITECTURES[model.target]).parameters.get("operator")
    given = model.arguments.get("operator", parameter.default if parameter else None)
    if given is None or given == STRIDED:
        return None, "the network has no operator, and gets smaller by its convolutions"
    return _error_of(str(given), folder)


@cache
def _error_of(text: str, folder: Path) -> tuple[float | None, str | None]:
    """The error of a specification, once for all networks that have it."""
    try:
        found = operator_equivariance_error(parse_operator(text, folder))
    except Exception as problem:  # foreign code
        return None, f"{type(problem).__name__}: {' '.join(str(problem).split())}"
    return (found, None) if np.isfinite(found) else (None, "the operator's output on noise does not vary")


class OperatorReadings(NamedTuple):
    """What an operator does to coloured noise: MSB, selectivity, and the site equivariance error."""

    msb: float
    selectivity: float
    error: float


def operator_readings(operator: Operatorlike, stride: int = STRIDE) -> OperatorReadings:
    """``msb_corrected``, ``selectivity`` and ``see`` of an operator on :func:`coloured_noise`."""
    noise, found = coloured_noise(), []
    for built in _built(operator, stride):
        (tally,) = tally_sites(built, noise)
        ratios = tally.ratios()
        pooled = [float(np.divide(*(part.sum() for part in ratios[name]))) for name in ("msb_corrected", "selectivity")]
        found.append([*pooled, _errors(built, noise).see()])
    return OperatorReadings(*np.mean(found, 0).tolist())


def _errors(built: Downsample, noise: Tensor) -> Errors:
    with torch.no_grad():
        return equivariance_errors(built, noise, (built.stride, built.stride))


def _built(operator: Operatorlike, stride: int) -> list[Downsample]:
    """The operator with circular padding, in evaluation: once, or for each initialisation."""
    spec = parse_operator(operator)
    made = []
    with torch.random.fork_rng(devices=[]):
        for seed in range(INITIALISATIONS):
            torch.manual_seed(seed)
            made.append(build_operator(spec, CHANNELS, stride, "circular").double().eval())
            if not any(True for _ in made[0].parameters()):
                break
    return made
