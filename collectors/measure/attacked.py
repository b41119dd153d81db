"""What an attack made of images, and whether it kept to its budget."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from invariscope.collectors.measure.attack import Attack

OVER = 1e-5
"""Share of the budget, and absolute distance from [0, 1], by which rounding may exceed them."""


@dataclass(frozen=True, eq=False)
class Attacked:
    """What an attack made of ``N`` images.

    ``images (N, C, H, W)``: an image that is predicted wrongly, where one was found; else the last one tried, or the
    image itself. ``right (N,)``: predicted right without a perturbation; only those are attacked. ``broken (N,)``:
    predicted wrongly, with or without one. ``stuck (N,)``: attacked by ``pgd``, and without a gradient at its start.
    """

    images: Tensor
    right: Tensor
    broken: Tensor
    stuck: Tensor


def within_budget(images: Tensor, origin: Tensor, attack: Attack) -> Tensor:
    """Whether each image is in [0, 1] and no farther from its origin than the budget, up to rounding: ``(N,)``."""
    change = (images - origin).flatten(1)
    length = change.abs().amax(1) if attack.norm == "linf" else change.norm(dim=1)
    inside = ((images >= -OVER) & (images <= 1 + OVER)).flatten(1).all(1)
    return inside & (length <= attack.epsilon * (1 + OVER) + OVER * 1e-1)
