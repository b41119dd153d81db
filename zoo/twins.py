"""Runs that would train the same network twice: their operators differ in name and compute the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from invariscope.base.errors import InputError
from invariscope.zoo.operators import OperatorSpec, build_operator

if TYPE_CHECKING:
    from torch import Tensor

    from invariscope.zoo.run import Run

CLOSE = 1e-5
"""Largest difference of what two operators give for noise between 0 and 1 up to which they compute the same."""

CHANNELS, SIDE = 4, 13


def twins(runs: Iterable[Run]) -> list[tuple[str, ...]]:
    """Names of runs that differ in operators alone, of which these compute the same on maps behind a ReLU.

    Trained from one seed they are byte-identical, and count as one network: ``avg``, ``lp(p=1)`` and ``soft(beta=0)``.
    Operators with parameters of their own, and those that choose by chance, are not looked at.
    """
    alike: dict[str, list[tuple[str, Tensor]]] = {}
    made: dict[tuple[str, str], Tensor | None] = {}
    for run in runs:
        key = (str(run.operator), run.padding_mode)
        if key not in made:
            made[key] = _said(run)
        if (said := made[key]) is not None:
            rest = {name: value for name, value in run.settings.items() if name not in ("operator", "label")}
            alike.setdefault(repr(rest), []).append((run.id, said))
    found: list[tuple[str, ...]] = []
    for group in alike.values():
        kinds: list[tuple[list[str], Tensor]] = []
        for name, said in group:
            names = next((names for names, other in kinds if _is_close(said, other)), None)
            if names is None:
                kinds.append(([name], said))
            else:
                names.append(name)
        found += [tuple(names) for names, _ in kinds if len(names) > 1]
    return found


def _said(run: Run) -> Tensor | None:
    """What a run's operator gives for noise, in training and in evaluation; None where that is no fixed function."""
    if not isinstance(run.operator, OperatorSpec):
        return None
    noise = torch.rand(2, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    try:
        operator = build_operator(run.operator, CHANNELS, 2, run.padding_mode)
        if any(True for _ in operator.parameters()):
            return None
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            first, again = (operator.train()(noise.clone()) for _ in range(2))
            said = torch.cat([first.flatten(), operator.eval()(noise.clone()).flatten()])
    except InputError:  # which training tells
        return None
    return said if torch.equal(first, again) else None


def _is_close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one - other).abs() <= CLOSE).all())
