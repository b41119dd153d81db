"""What an attack is: its name, its budget and its effort; checked without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from invariscope.base.errors import InputError
from invariscope.base.names import unknown

NORMS = ("linf", "l2")

LIBRARY_ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square", "autoattack")
"""Attacks of the library torchattacks; ``autoattack`` is the other four, each on the images that stood the ones before
(Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks,
2020)."""

ATTACKS = ("pgd", *LIBRARY_ATTACKS)


@dataclass(frozen=True)
class Attack:
    """An attack and its budget, in units of [0, 1] pixels.

    ``steps``: gradient steps; of ``square`` 50 queries each, so that 100 steps are AutoAttack's standard setting.
    ``restarts``: random starts; 0, of ``pgd`` alone, starts once from the image itself. ``step_size`` of ``pgd``:
    ``2.5 epsilon / steps`` by default, from Madry et al.; the other attacks choose their own.

    Raises:
        InputError: an unknown attack or norm, or a setting out of range.
    """

    name: str = "pgd"
    norm: str = "linf"
    epsilon: float = 8 / 255
    steps: int = 20
    restarts: int = 1
    step_size: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in ATTACKS:
            raise InputError(unknown("attack", self.name, ATTACKS))
        if self.norm not in NORMS:
            raise InputError(unknown("norm", self.norm, NORMS))
        if not math.isfinite(self.epsilon) or self.epsilon < 0 or (self.norm == "linf" and self.epsilon > 1):
            bound = "from 0 to 1, for example 8/255" if self.norm == "linf" else "of at least 0"
            raise InputError(
                f"epsilon is {self.epsilon:g} in {self.norm}: give a number {bound}, in units of [0, 1] pixels"
            )
        if self.steps < 1:
            raise InputError(f"an attack of {self.steps} steps: take at least 1")
        least = 0 if self.name == "pgd" else 1
        if self.restarts < least:
            raise InputError(f"{self.name} with {self.restarts} restarts: take at least {least}")
        if self.step_size is not None and not (math.isfinite(self.step_size) and self.step_size > 0):
            raise InputError(f"step size is {self.step_size:g}: give a positive number, in units of [0, 1] pixels")
        if self.step_size is not None and self.name != "pgd":
            raise InputError(f"{self.name} chooses its step sizes itself: leave the step size out")

    @property
    def step(self) -> float:
        """The step size of ``pgd``."""
        return 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size
