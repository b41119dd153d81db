"""Attacks of torchattacks 3.5.1 (optional), each on the images that stood the ones before; what they claim is checked.

What the library does that is made good here: its AutoAttack takes 10 steps where the published one takes 100, so the
four attacks are built one by one; it seeds torch's own random numbers, which are put back; it takes the device from a
parameter, which a network need not have. Its random numbers depend on the images beside an image: blocks are fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from invariscope.base.errors import InputError, ModelError
from invariscope.collectors.measure.attack import Attack
from invariscope.collectors.measure.attacked import Attacked, within_budget

QUERIES_PER_STEP = 50
"""AutoAttack's standard setting takes 100 steps, and 5,000 queries of Square."""

MOST_TARGETS = 9
"""Classes that the targeted attacks aim at, one after the other: the most likely ones, as in AutoAttack."""

LEAST_CLASSES = {"apgd-t": 4}
"""The loss of the targeted APGD divides by a difference to the fourth-greatest logit."""

LEAST_SIDE = 15
"""Pixels of a side with which the library's ``square`` runs in l2: its tiles have a fifth of the side."""

_IN_TURN = ("apgd-ce", "apgd-t", "fab-t", "square")


class _Shell(nn.Module):
    """A network with a parameter."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.inner = model
        self.place = nn.Parameter(torch.zeros(1, device=device), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.inner(x.clone())
        return logits


def attack_with_library(
    model: nn.Module, origin: Tensor, labels: Tensor, attack: Attack, first: int, classes: int, made: Attacked
) -> Attacked:
    """Attack the images of ``made`` that are not broken yet; a perturbation beyond the budget does not count.

    Raises:
        InputError: the library is not installed.
        ModelError: too few classes or pixels for the attack, or the network lets no gradient through.
    """
    shell = _Shell(model, origin.device)
    shell.eval()
    for name in _IN_TURN if attack.name == "autoattack" else (attack.name,):
        least = LEAST_CLASSES.get(name, 2)
        if classes < least:
            raise ModelError(f"{name} needs {least} classes and the network has {classes}: attack it with pgd")
        if name == "square" and attack.norm == "l2" and (side := min(origin.shape[-2:])) < LEAST_SIDE:
            raise ModelError(
                f"square in l2 needs images of {LEAST_SIDE} pixels, and these have {side}: attack it with pgd"
            )
        rows = (~made.broken).nonzero().flatten()
        if len(rows):
            _run(_build(name, shell, attack, classes, first), model, origin, labels, attack, rows, made)
    return made


def _run(
    library: Callable[[Tensor, Tensor], Tensor],
    model: nn.Module,
    origin: Tensor,
    labels: Tensor,
    attack: Attack,
    rows: Tensor,
    made: Attacked,
) -> None:
    devices = [origin.device] if origin.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        try:
            images = library(origin[rows], labels[rows]).detach()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{attack.name} cannot attack this network ({reason}): take another attack") from error
    inside = within_budget(images, origin[rows], attack)
    images = torch.where(inside[:, None, None, None], images.clamp(0, 1), origin[rows])
    with torch.no_grad():
        wrong = model(images.clone()).argmax(1) != labels[rows]
    made.images[rows] = images
    made.broken[rows[wrong]] = True


def _build(name: str, shell: nn.Module, attack: Attack, classes: int, first: int) -> Any:
    """One attack of the library, seeded by the attack's seed and the block."""
    try:
        import torchattacks
    except ImportError as error:
        raise InputError(
            f"{attack.name} is an attack of the library torchattacks, which is not installed: "
            "pip install --no-deps torchattacks==3.5.1, or take pgd"
        ) from error
    settings: dict[str, Any] = {
        "norm": {"linf": "Linf", "l2": "L2"}[attack.norm],
        "eps": attack.epsilon,
        "n_restarts": attack.restarts,
        "seed": int(np.random.SeedSequence([attack.seed, first]).generate_state(1)[0]),
    }
    targets = min(classes, MOST_TARGETS + 1)
    if name == "apgd-ce":
        return torchattacks.APGD(shell, steps=attack.steps, loss="ce", **settings)
    if name == "apgd-t":
        return torchattacks.APGDT(shell, steps=attack.steps, n_classes=targets, **settings)
    if name == "fab-t":
        return torchattacks.FAB(shell, steps=attack.steps, multi_targeted=True, n_classes=targets, **settings)
    return torchattacks.Square(shell, n_queries=QUERIES_PER_STEP * attack.steps, **settings)
