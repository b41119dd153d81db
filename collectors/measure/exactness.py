"""Is a network exactly invariant under circular shifts, and if not: which part of it breaks that."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from invariscope.base.errors import DataError, ModelError
from invariscope.base.words import counted
from invariscope.collectors.measure.passes import class_maps, evaluating, is_maps
from invariscope.collectors.measure.preconditions import SHIFT_KIND, Broken, Called, chooses, reasons
from invariscope.collectors.measure.rolling import (
    ROLLS,
    TOLERANCE,
    is_equivariant,
    is_equivariant_last,
    map_changes,
    vector_changes,
)
from invariscope.collectors.shift_kinds import SHIFT_KINDS
from invariscope.zoo.datasets.given import Given, given
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.sites import Site, find_sites

FURTHER = ((2, 3), (-1, -2))
"""Shifts of the images besides; larger ones are added by :func:`_shifts`."""

NOISE = 1
"""Images of noise that are looked at besides: plain images hide what a layer does at the border."""

IMAGES = 8
"""Images that are looked at, at most."""

SMALL = 64
"""Pixels along the sides of a small image; of larger ones two are looked at where nobody says how many."""

NAMED = 3
"""Places that a line names at most."""


@dataclass(frozen=True)
class Exactness:
    """Whether a network is exactly invariant under circular shifts, and what breaks it.

    Attributes:
        exact: ``change`` is at most 1e-6, in float64, on the images, on noise of their mean and
            standard deviation, and under the shifts that were tried.
        chooses: whether a site of the network chooses its phase by the map (APS, LPS, hard TIPS, released layers of
            that kind). Without one no network that downsamples can be exact.
        change: the largest relative change of the output, ``|f(shifted x) - f(x)| / s``, with ``s`` the standard
            deviation of the outputs over the images and noise (of maps over positions besides).
        broken: the preconditions that do not hold, each with its place; empty where ``exact``.
        n_images: on how many of the images this was tried, without the noise.
        n_shifts: under how many circular shifts: of 1 to 3 pixels, and of about a third and a half of the sides.
        untried: what was not tried, with the reason; a part that cannot be run alone is never to blame.
    """

    exact: bool
    chooses: bool
    change: float
    broken: tuple[Broken, ...]
    n_images: int
    n_shifts: int
    untried: tuple[str, ...] = ()

    def frame(self) -> pd.DataFrame:
        """A row per precondition and place: ``precondition``, ``where``, ``why``, ``remedy``."""
        return pd.DataFrame([vars(one) for one in self.broken], columns=["precondition", "where", "why", "remedy"])

    def lines(self) -> list[str]:
        """In words: the verdict, then a line per reason with its places and the remedy."""
        tried = f"{counted(self.n_images, 'image')}, {counted(self.n_shifts, 'shift')}"
        if self.exact:
            found = [f"exactly invariant under circular shifts, on these images and on noise ({tried})"]
        else:
            by = f"the output changes by {self.change:.2g}" if np.isfinite(self.change) else "an output is not finite"
            found = [f"not exactly invariant under circular shifts: {by} ({tried})"]
        grouped: dict[tuple[str, str, str], list[str]] = {}
        for one in self.broken:
            grouped.setdefault((one.precondition, one.why, one.remedy), []).append(one.where)
        for (precondition, why, remedy), places in grouped.items():
            more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
            found.append(f"broken: {precondition}: {', '.join(places[:NAMED])}{more}: {why}: {remedy}")
        return found + [f"not tried: {one}" for one in self.untried]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def explain_invariance(
    model: nn.Module, images: Given, *, kinds: Sequence[str] = ("circular",), limit: int = IMAGES
) -> Exactness:
    """Say whether a network is exactly invariant under circular shifts, and which precondition is broken where.

    A network with APS, LPS or hard TIPS gives the same output for every circular shift if every layer pads circularly
    (``padding``), nothing samples a fixed grid, the stem included (``sampling``), every site's stride divides its map
    (``size``), no two phases are equally large (``ties``), branches that are added choose one phase (``shared phase``),
    and no layer after the last map reads positions (``head``). Each is measured: every part is run again, in float64,
    on its own input rolled by a pixel, and is to blame if its output is no roll of what it was though that of all of
    its own parts is. A chooser's reason is the one whose mending makes it exact.

    Args:
        model: any network of images; a copy of it is run, in float64 on the processor.
        images: ``(N, C, H, W)`` as the network takes them, or another form of ``Given``; noise does, but has no ties.
        kinds: shift kinds that are asked about. Circular shifts by whole pixels alone are tried; a kind that loses
            pixels is a broken precondition itself, and of fractional shifts it is said that they were not tried.
        limit: look at the first so many images.

    Raises:
        ModelError: the network cannot be copied or run in float64.
        DataError: there are no images.
        ShiftError: an unknown shift kind.

    Example:
        >>> import torch, invariscope as iv
        >>> images = torch.randn(4, 3, 32, 32)
        >>> iv.explain_invariance(iv.build_model("zoo:smallcnn?operator=aps&padding_mode=circular"), images).exact
        True
        >>> found = iv.explain_invariance(iv.build_model("zoo:smallcnn?operator=aps"), images)
        >>> sorted(set(found.frame()["precondition"]))
        ['padding']
    """
    batch, _ = given(model, images)
    if len(batch) == 0 or limit < 1:
        raise DataError("there are no images to look at: give at least one")
    batch = batch[:limit]
    count = len(batch)
    lossy = [kind for kind in dict.fromkeys(kinds) if kind not in ("circular", "fractional") and SHIFT_KINDS[kind]]
    twin, batch = _twin(model), _with_noise(batch.detach().cpu().double())
    shifts = _shifts(*batch.shape[2:])
    with torch.random.fork_rng(devices=[]), evaluating(twin), torch.no_grad():
        sites = find_sites(twin, batch[:1])
        calls, before = _watched(twin, batch)
        change = float(np.max([_root_changes(twin, batch, before, roll) for roll in shifts]))
        exact = change <= TOLERANCE
        failing, alone = ({}, []) if exact else _failing(calls)
        broken = () if exact else reasons(twin, sites, calls, failing, count)
    reason = "pixels leave the image and others come in", "circular shifts alone lose nothing"
    broken += tuple(Broken(SHIFT_KIND, f"{kind} shifts", *reason) for kind in lossy)
    if "fractional" in kinds:
        alone.append("fractional shifts: circular shifts by whole pixels alone are")
    return Exactness(exact, _has_choice(twin, sites), change, tuple(broken), count, len(shifts), tuple(alone))


def explain_choices(model: nn.Module, images: Given, *, kinds: Sequence[str] = ("circular",)) -> Exactness | None:
    """:func:`explain_invariance` of a network that chooses its phases; None, at little cost, of any other.

    Raises:
        ModelError: as there.
    """
    batch, _ = given(model, images)
    if not _has_choice(model, find_sites(model, batch[:1])):
        return None
    small = max(batch[:1].shape[2:]) <= SMALL
    return explain_invariance(model, batch, kinds=kinds, limit=IMAGES if small else 2)


def try_choices(
    model: nn.Module, images: Given, *, kinds: Sequence[str] = ("circular",)
) -> tuple[Exactness | None, list[str]]:
    """:func:`explain_choices`, and nothing raised: a line that says why it could not be tried, for what shows more."""
    try:
        return explain_choices(model, images, kinds=kinds), []
    except Exception as error:  # foreign code, whose parts are run one by one
        return None, [f"whether it is exactly invariant was not tried: {' '.join(str(error).split())}"]


def _with_noise(images: Tensor) -> Tensor:
    """The images, and noise of their mean and standard deviation (1 where that is 0)."""
    noise = torch.randn(NOISE, *images.shape[1:], dtype=images.dtype, generator=torch.Generator().manual_seed(0))
    spread = float(images.std(correction=0))
    return torch.cat([images, images.mean() + (spread or 1.0) * noise])


def _shifts(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Small shifts, and odd and even ones of about a third and a half of the sides, each once."""
    half, third = (height // 2, width // 2), (height // 3, width // 3)
    large = (half, (half[0] + 1, half[1] - 1), (third[0] + 1, third[1] - 1), (third[0], third[1] + 1))
    return tuple(dict.fromkeys((*ROLLS, *FURTHER, *large)))


def _has_choice(model: nn.Module, sites: Sequence[Site]) -> bool:
    operators = (module for module in nn.Module.modules(model) if isinstance(module, Downsample))
    return any(map(chooses, operators)) or any(site.kind == "phase" for site in sites)


def _twin(model: nn.Module) -> nn.Module:
    model = getattr(model, "_orig_mod", model)
    try:
        return copy.deepcopy(model).cpu().double()
    except Exception as error:
        raise ModelError(f"the network cannot be copied in float64 ({' '.join(str(error).split())[:200]})") from error


@dataclass
class _Watch:
    """The calls of a pass, and the map that was seen last."""

    calls: list[Called] = field(default_factory=list)
    map: Tensor | None = None


def _watched(model: nn.Module, images: Tensor) -> tuple[list[Called], Tensor]:
    """Every call of a part of the network on one map, with its input and output; and the output of the whole."""
    watch, hooks = _Watch(), []
    inside = {
        id(part)
        for module in nn.Module.modules(model)
        if isinstance(module, Downsample)
        for part in module.modules()
        if part is not module
    }
    inputs: dict[int, list[Tensor]] = {}

    def enter(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        first = args[0].clone() if args and isinstance(args[0], Tensor) else torch.empty(0)
        inputs.setdefault(id(module), []).append(first)

    def leave(path: str, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        x = inputs[id(module)].pop()
        flat = watch.map if isinstance(module, nn.Linear) else None
        alone = len(args) == 1 and not any(isinstance(one, Tensor) for one in options.values())
        if isinstance(output, Tensor) and (x.ndim == 4 or flat is not None):
            watch.calls.append(Called(path, module, x, output.clone(), alone and x.ndim == 4, flat))
        if isinstance(output, Tensor) and output.ndim == 4:
            watch.map = output
        elif watch.map is not None and isinstance(output, Tensor) and not _is_flat(module, output, watch.map):
            watch.map = None

    for path, module in model.named_modules():
        if path and id(module) not in inside and not isinstance(module, torch.jit.ScriptModule):
            hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            hooks.append(
                module.register_forward_hook(
                    lambda module, args, options, output, path=path: leave(path, module, args, options, output),
                    with_kwargs=True,
                )
            )
    try:
        output = _output(model, images)
    finally:
        for hook in hooks:
            hook.remove()
    return watch.calls, output


def _is_flat(module: nn.Module, output: Tensor, map_: Tensor) -> bool:
    """Whether an output is still a map's positions, side by side: flattened, or a function of each."""
    mixes = any(isinstance(part, nn.Linear) for part in module.modules())
    return not mixes and output.numel() == map_.numel()


def _output(model: nn.Module, images: Tensor) -> Tensor:
    try:
        output = class_maps(model(images.clone()))
    except Exception as error:
        told = " ".join(str(error).split())[:200]
        raise ModelError(f"the network cannot be run in float64 ({told})") from error
    if not isinstance(output, Tensor) or output.ndim < 2:
        raise ModelError("the network's output is no tensor of logits: give a network that returns logits")
    return output.clone()


def _root_changes(model: nn.Module, images: Tensor, before: Tensor, roll: tuple[int, int]) -> list[float]:
    """Of each image; NaN, or infinite, where an output is not finite."""
    after = _output(model, images.roll(roll, (2, 3)))
    return map_changes(before, after) if is_maps(before) else vector_changes(before, after)


def _failing(calls: Sequence[Called]) -> tuple[dict[str, Called], list[str]]:
    """The parts that are not equivariant on their own input, by path: the first such call of each.

    And those that cannot be run again alone: they take what another part has left, say.
    """
    found: dict[str, Called] = {}
    untried: dict[str, str] = {}
    for call in calls:
        if not call.alone or call.path in found or call.path in untried:
            continue
        try:
            again = call.module(call.x.clone())
            if again.shape != call.y.shape or not torch.allclose(again, call.y, rtol=1e-9, equal_nan=True):
                untried[call.path] = f"{call.path}: run alone, it gives another output on the same input"
                continue
            fails = not is_equivariant(call.module, call.x, call.y) and not is_equivariant_last(call.module, call.x)
        except Exception as error:
            told = " ".join(str(error).split())[:120]
            untried[call.path] = f"{call.path}: it cannot be run alone ({type(error).__name__}: {told})"
            continue
        if fails:
            found[call.path] = call
    return found, list(untried.values())
