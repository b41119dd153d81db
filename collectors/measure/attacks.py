"""Adversarial accuracy: attacks on pixels in [0, 1], with the normalisation inside the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import DataError, ModelError
from invariscope.base.progress import bar
from invariscope.collectors.measure.attack import Attack
from invariscope.collectors.measure.attacked import OVER, Attacked
from invariscope.collectors.measure.passes import batches, check_inputs, checked_logits, evaluating, need_labels
from invariscope.collectors.measure.saying import said
from invariscope.collectors.measure.scores import accuracy
from invariscope.zoo.datasets.given import Given, given
from invariscope.zoo.datasets.inputs import PreparedImages, place
from invariscope.zoo.operators.polyphase import APS, LPS
from invariscope.zoo.operators.tips import TIPS

BLOCK = 32
"""Images attacked at once, whatever the batch size. The library's random numbers depend on an image's neighbours, and
the sign of a gradient near zero on rounding: blocks that are always the same give values that are always the same."""


class PixelModel(nn.Module):
    """A network behind its normalisation: ``model((x - mean) / std)`` of pixels ``x`` in [0, 1], ``(N, C, H, W)``.

    With ``order="bgr"`` the channels are reversed first.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float], order: str = "rgb") -> None:
        super().__init__()
        self.model = model
        self.order = order
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).reshape(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = x.flip(1) if self.order == "bgr" else x
        logits: Tensor = said(self.model, place((x - self.mean.to(x)) / self.std.to(x), self.model))
        return logits


def measure_attack(
    model: nn.Module,
    pixels: Given,
    labels: Tensor | np.ndarray | None,
    attack: Attack,
    *,
    block: int = BLOCK,
    progress: bool = True,
) -> pd.DataFrame:
    """Accuracy under an attack: the share of images that stay predicted right after every restart.

    Each budget is attacked afresh, whatever smaller ones did. The network is in evaluation mode meanwhile.

    Args:
        model: takes pixels in [0, 1]: a :class:`PixelModel` around a network that takes normalised images.
        pixels: ``(N, C, H, W)``, floats in [0, 1]; or another form of ``Given``, which is divided by 255.
        labels: ``(N,)`` integers; a data set and a loader have their own.
        progress: show a bar from two seconds on.
        block: images attacked at once. ``pgd`` has random numbers of each image's own, and another block moves its
            values by rounding only; the other attacks' random numbers depend on the block.

    Returns:
        The measurement columns of the table ``robustness``, one row.

    Raises:
        DataError: pixels that are not floats in [0, 1], labels that do not fit.
        ModelError: no gradient reaches the pixels (``square`` needs none), or what is returned is no logits.
    """
    pixels, labels = given(model, pixels, labels, normalise=False)
    parts = attack_images(model, pixels, labels, attack, block=block, progress=progress)
    broken, stuck = (torch.cat([getattr(part, name) for part in parts]).cpu().numpy() for name in ("broken", "stuck"))
    found = accuracy(~broken)
    row = {
        "condition_kind": "adversarial",
        "condition": attack.name,
        "severity": float(attack.epsilon),
        "norm": attack.norm,
        "steps": attack.steps,
        "restarts": attack.restarts,
        "step_size": attack.step if attack.name == "pgd" else None,
        "seed": attack.seed,
        "accuracy": found.value,
        **{name: getattr(found, name) for name in ("se", "low", "high")},
        "n_images": len(broken),
        "note": _note(model, attack, int(stuck.sum())),
    }
    return pd.DataFrame([row])


def attack_images(
    model: nn.Module,
    pixels: Tensor | PreparedImages,
    labels: Tensor | np.ndarray | None,
    attack: Attack,
    *,
    block: int = BLOCK,
    progress: bool = True,
) -> list[Attacked]:
    """The attacked images, block by block; arguments and errors as :func:`measure_attack`."""
    need_labels(labels, "an attack")
    labels = check_inputs(_floats(pixels), labels, block)
    parts = []
    with bar(attack.name, -(-len(labels) // block), progress, "block") as step, evaluating(model):
        for start, batch in zip(range(0, len(labels), block), batches(pixels, block), strict=True):
            _check_pixels(batch, start)
            origin = place(batch, model).clamp(0, 1)
            parts.append(_attack_block(model, origin, labels[start : start + block].to(origin.device), attack, start))
            step()
    right, stuck = (torch.cat([getattr(part, name) for part in parts]) for name in ("right", "stuck"))
    if bool(stuck.any()) and bool((stuck == right).all()):
        raise ModelError(
            f"{_name(model)}: the gradient of the loss is zero at every image, so that {attack.name} cannot move one: "
            "attack it with square, which needs no gradient"
        )
    return parts


def _attack_block(model: nn.Module, origin: Tensor, labels: Tensor, attack: Attack, first: int) -> Attacked:
    """Attack one block, the first of whose images is the ``first`` of the data set."""
    with torch.no_grad():
        logits = checked_logits(model, origin.clone(), int(labels.max()))
    right = logits.argmax(1) == labels
    made = Attacked(origin.clone(), right, ~right, torch.zeros_like(right))
    if attack.epsilon == 0 or not bool(right.any()):
        return made
    if attack.name == "pgd":
        for restart in range(max(attack.restarts, 1)):
            _pgd(model, origin, labels, attack, first, restart, made)
        return made
    from invariscope.collectors.measure.library_attacks import attack_with_library

    return attack_with_library(model, origin, labels, attack, first, logits.shape[1], made)


def _pgd(
    model: nn.Module, origin: Tensor, labels: Tensor, attack: Attack, first: int, restart: int, made: Attacked
) -> None:
    """Projected gradient ascent on the cross-entropy, from one start, of the images that are not broken yet.

    ``x <- P(x + a d(g))`` with ``d(g) = sign g`` in linf, ``g / ||g||`` in l2, and ``P`` onto the ball around the
    image and onto [0, 1]; an image that is predicted wrongly stops there. Madry et al., Towards deep learning models
    resistant to adversarial attacks, 2018.
    """
    rows = (~made.broken).nonzero().flatten()
    if not len(rows):
        return
    x = origin[rows]
    if attack.restarts:
        noise = torch.stack([_start(attack, first + int(row), restart, origin.shape[1:]) for row in rows])
        x = (x + attack.epsilon * noise.to(x)).clamp(0, 1)
    for step in range(attack.steps + 1):
        logits, gradient = _ascent(model, x, labels[rows])
        wrong = logits.argmax(1) != labels[rows]
        made.images[rows] = x
        made.broken[rows[wrong]] = True
        if step == 0:
            made.stuck[rows] = (gradient == 0).flatten(1).all(1)
        rows, x, gradient = rows[~wrong], x[~wrong], gradient[~wrong]
        if step == attack.steps or not len(rows):
            return
        x = _project(x + attack.step * _direction(gradient, attack.norm), origin[rows], attack)


def _ascent(model: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of each image's cross-entropy with respect to its pixels."""
    x = x.detach().requires_grad_()
    try:
        with torch.enable_grad():
            logits = model(x.clone())  # a network that writes to its input does not write to the leaf
            # In float64, where the loss of a confident network is not rounded to zero.
            loss = F.cross_entropy(logits.double(), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{_name(model)} lets no gradient through to its input ({reason}): attack it with square, which needs none"
        ) from error
    return logits.detach(), gradient


def _start(attack: Attack, image: int, restart: int, shape: torch.Size) -> Tensor:
    """A point of the unit ball by the image's own random numbers, the same for every network and budget.

    Uniform in linf; in l2 a normal direction at a radius ``u^(1/d)``, which is uniform as well.
    """
    draws = np.random.default_rng([attack.seed, image, restart])
    if attack.norm == "linf":
        return torch.from_numpy(draws.uniform(-1, 1, tuple(shape)))
    direction = draws.normal(size=tuple(shape))
    radius = draws.uniform() ** (1 / direction.size)
    return torch.from_numpy(direction * (radius / np.linalg.norm(direction)))


def _direction(gradient: Tensor, norm: str) -> Tensor:
    if norm == "linf":
        return gradient.sign()
    length = gradient.flatten(1).norm(dim=1).clamp_min(1e-30)
    return gradient / length[:, None, None, None]


def _project(x: Tensor, origin: Tensor, attack: Attack) -> Tensor:
    """The nearest point of the ball, then of [0, 1]; the second does not leave the first."""
    change = x - origin
    if attack.norm == "linf":
        change = change.clamp(-attack.epsilon, attack.epsilon)
    else:
        length = change.flatten(1).norm(dim=1)
        change = change * (attack.epsilon / length.clamp_min(attack.epsilon))[:, None, None, None]
    return (origin + change).clamp(0, 1)


def _floats(pixels: Tensor | PreparedImages) -> Tensor | PreparedImages:
    if isinstance(pixels, Tensor) and not pixels.is_floating_point():
        raise DataError(f"pixels are {pixels.dtype}: attacks take floats in [0, 1]; divide by 255")
    return pixels


def _check_pixels(batch: Tensor, start: int) -> None:
    outside = ((batch < -OVER) | (batch > 1 + OVER)).flatten(1).any(1)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise DataError(
            f"image {start + row} has pixels from {float(batch[row].min()):g} to {float(batch[row].max()):g}: attacks "
            "take pixels in [0, 1]; divide by 255, and put the normalisation into PixelModel(model, mean, std)"
        )


def hard_selections(model: nn.Module) -> int:
    """Sites at which the network keeps one of several phases as a whole: APS, LPS, and TIPS where it is hard.

    The gradient goes through the values of the phase that was chosen, and not through the choice.
    """
    return sum(
        isinstance(module, APS | LPS) or (isinstance(module, TIPS) and module.hard)
        for module in nn.Module.modules(model)
    )


def _note(model: nn.Module, attack: Attack, stuck: int) -> str | None:
    notes = []
    if attack.name != "square" and (sites := hard_selections(model)):
        notes.append(f"gradients see only the chosen phase at {sites} site{'s' * (sites > 1)}")
    if stuck:
        notes.append(f"no gradient at {stuck} image{'s' * (stuck > 1)}")
    return "; ".join(notes) or None


def _name(model: nn.Module) -> str:
    return type(model.model if isinstance(model, PixelModel) else model).__name__
