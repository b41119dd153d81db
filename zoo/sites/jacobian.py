"""The sampling weights of a function of maps, from what it does to them.

They are the rows of its Jacobian at the map that went in: found by vector-Jacobian products in float64, and accepted
only where they say all of what the function did. For max, phases, mixtures and linear maps ``y = J x`` exactly (Euler's
relation), with no negative entry, and the sums of the rows do not depend on the values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invariscope.zoo.sites.uses import Size

SEEN, MOST_PROBES = 1 << 12, 8
"""Outputs to see in order to know all places of a window, in so many probes at most."""

WIDEST = 4
"""Windows that overlap up to so many of their neighbours along an axis are told apart."""

RESIDUAL = 1e-5
"""Largest relative difference between what the weights say and what the piece gave."""


class Unreadable(Exception):
    """Why a piece's weights cannot be read off what it does."""


@dataclass(frozen=True, eq=False)
class Places:
    """The places of a window: steps ``(K, 2)`` from its stride cell's corner; whether windows go round, per axis."""

    steps: Tensor
    round_: tuple[bool, bool] = (False, False)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a Jacobian: output ``l`` takes ``weights (N, C, L, K)`` of the pixels ``index (L, K)``."""

    index: Tensor
    weights: Tensor
    sums: Tensor
    places: Places
    fixed: bool
    """Whether the weights are the same for every image and channel, and do not depend on the values."""


def _rows(y: Tensor, x: Tensor, wide: int, generator: torch.Generator) -> tuple[Tensor, Tensor] | None:
    """Which output each pixel goes into, and how much of it, per set of outputs ``wide`` apart.

    ``owners (wide^2, P)``, -1 for none; ``shares (wide^2, N, C, P)``. None where pixels go into several outputs of one
    set. Every output is told from the others by a random number that it is multiplied by.
    """
    n, c, height, width = y.shape
    code = torch.rand(height * width, generator=generator, dtype=torch.float64).to(y.device) + 1
    own = torch.rand(n, c, 1, generator=generator, dtype=torch.float64).to(y.device) + 1
    order = code.argsort()
    ranked = code[order]
    coded = (own * code).view_as(y)
    all_owners, all_shares = [], []
    for row in range(wide):
        for column in range(wide):
            mask = torch.zeros_like(y)
            mask[..., row::wide, column::wide] = 1
            (share,) = torch.autograd.grad(y, x, mask, retain_graph=True)
            (mixed,) = torch.autograd.grad(y, x, mask * coded, retain_graph=True)
            share, mixed = share.flatten(2), mixed.flatten(2) / own
            size, place = share.abs().flatten(0, 1).max(0)
            lead = share.flatten(0, 1).gather(0, place[None])[0]
            found = mixed.flatten(0, 1).gather(0, place[None])[0] / lead
            taken = size > 1e-12
            near = torch.searchsorted(ranked, found.nan_to_num(1.0).contiguous()).clamp(max=len(ranked) - 1)
            before = (near - 1).clamp(min=0)
            owner = order[torch.where((found - ranked[before]).abs() < (found - ranked[near]).abs(), before, near)]
            wrong = (mixed - share * code[owner]).abs() > 1e-7 * size.clamp(min=1e-300)
            if bool((wrong & taken).any()):
                return None
            all_owners.append(torch.where(taken, owner, -1))
            all_shares.append(share)
    return torch.stack(all_owners), torch.stack(all_shares)


def _sums(owners: Tensor, shares: Tensor, outputs: int) -> Tensor:
    """Sums of the shares per output: ``(N, C, L)``."""
    total = shares.new_zeros(*shares.shape[1:3], outputs + 1)
    for owner, share in zip(owners, shares, strict=True):
        index = torch.where(owner < 0, outputs, owner)
        total.index_add_(2, index, share)
    return total[..., :outputs]


def _places(owners: Sequence[Tensor], size: Size, out: Size, stride: Size, wide: int, known: Places | None) -> Places:
    """The places of a window: one that is seen at one output, or is ``known``, is one of all of them."""
    pixel, output = [], []
    for each in owners:
        for owner in each:
            taken = owner >= 0
            pixel.append(taken.nonzero()[:, 0])
            output.append(owner[taken])
    pixels, outputs = torch.cat(pixel), torch.cat(output)
    axes, round_ = [], []
    for axis, (whole, source, made) in enumerate((
        (size[0], pixels // size[1], outputs // out[1]),
        (size[1], pixels % size[1], outputs % out[1]),
    )):  # fmt: skip
        raw = source - stride[axis] * made
        reach = wide * stride[axis]
        place = torch.where(raw > reach, raw - whole, torch.where(raw < -reach, raw + whole, raw))
        round_.append(bool((place != raw).any()))
        axes.append(place)
    steps = torch.stack(axes, 1)
    if known is not None:
        steps = torch.cat([steps, known.steps.to(steps.device)])
        round_ = [one or other for one, other in zip(round_, known.round_, strict=True)]
    steps = steps.unique(dim=0)
    for axis in (0, 1):
        if int(steps[:, axis].max() - steps[:, axis].min()) >= wide * stride[axis]:
            raise Unreadable("its windows are not those of a stride")
    return Places(steps, (round_[0], round_[1]))


def _index(places: Places, size: Size, out: Size, stride: Size) -> Tensor:
    """Pixels of every output's window: ``(L, K)``, -1 outside the map."""
    every = torch.arange(out[0] * out[1], device=places.steps.device)
    rows = stride[0] * (every // out[1])[:, None] + places.steps[None, :, 0]
    columns = stride[1] * (every % out[1])[:, None] + places.steps[None, :, 1]
    flat = (rows % size[0]) * size[1] + columns % size[1]
    inside_rows = (rows >= 0) & (rows < size[0]) | places.round_[0]
    inside_columns = (columns >= 0) & (columns < size[1]) | places.round_[1]
    return torch.where(inside_rows & inside_columns, flat, -1)


def read_rows(run: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, known: Places | None = None) -> Rows:
    """The weights of a piece, which ``run`` makes again, at the map ``x``, of which it made ``y``: ``(N, C, H, W)``.

    ``known``: the places that another batch and noise have shown, and with them that their sums do not depend on the
    values.

    Raises:
        Unreadable: where they are no sampling weights, with the reason.
    """
    if x.shape[:2] != y.shape[:2]:
        raise Unreadable("its channels are not those of the map that it takes")
    generator = torch.Generator().manual_seed(0)
    out = int(y.shape[2]), int(y.shape[3])
    probes = 0 if known is not None else min(max(SEEN // max(y.numel(), 1), 1), MOST_PROBES)
    pairs = []
    for number in range(probes + 1):
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
        with torch.enable_grad():
            given = (noise if number else x.detach().double()).requires_grad_()
            pairs.append((given, _run(run, given)))
    actual, expected = pairs[0][1].detach(), y.double()
    eps = torch.finfo(y.dtype).eps if y.is_floating_point() else 1e-6
    if actual.shape != expected.shape or not _near(actual, expected, max(256 * eps, 1e-9)):
        raise Unreadable("it gives something else when it is run again")
    why = "its outputs are no mixtures of the pixels of a window"
    for wide in range(1, WIDEST + 1):
        if wide > 2 * max(out):
            break
        found = [_rows(result, source, wide, generator) for source, result in pairs]
        told = [rows for rows in found if rows is not None]
        if len(told) < len(found):
            continue
        try:
            return _checked(told, [(source.detach(), result.detach()) for source, result in pairs], known)
        except Unreadable as problem:
            why = str(problem)
    raise Unreadable(why)


def _run(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    try:
        y = run(x)
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable("it cannot be run again") from error
    if not y.requires_grad or not y.is_floating_point():
        raise Unreadable("its derivative is not known")
    return y


def _near(one: Tensor, other: Tensor, tolerance: float) -> bool:
    scale = float(other.norm())
    return bool(torch.isfinite(one).all()) and float((one - other).norm()) <= tolerance * max(scale, 1e-30)


def stride_of(size: Size, out: Size) -> Size:
    """The stride between maps of two sizes, whatever the padding."""
    return max(round(size[0] / out[0]), 1), max(round(size[1] / out[1]), 1)


def _checked(found: Sequence[tuple[Tensor, Tensor]], at: Sequence[tuple[Tensor, Tensor]], known: Places | None) -> Rows:
    """The rows of the first owners and shares, once they all say all of what a piece did to its map and the probes."""
    (x, y), given = at[0], found[0]
    size, out = (int(x.shape[2]), int(x.shape[3])), (int(y.shape[2]), int(y.shape[3]))
    outputs = out[0] * out[1]
    sums = _sums(*given, outputs)
    for (owners, shares), (source, result) in zip(found, at, strict=True):
        if float(shares.min()) < -1e-9 * float(shares.abs().max()):
            raise Unreadable("it gives some pixels a negative weight")
        if not _near(_sums(owners, shares * source.flatten(2), outputs), result.flatten(2), RESIDUAL):
            raise Unreadable("its outputs are no mixtures of pixels")
        if not _near(_sums(owners, shares, outputs), sums, 1e-6):
            raise Unreadable("the sum of its weights depends on the values")
    if not bool((sums > 0).any()):
        raise Unreadable("it samples nothing")
    stride, wide = stride_of(size, out), round(len(given[0]) ** 0.5)
    places = _places([owners for owners, _ in found], size, out, stride, wide, known)
    index = _index(places, size, out, stride)
    every = torch.arange(outputs, device=index.device)
    sets = (every // out[1]) % wide * wide + (every % out[1]) % wide
    weights = x.new_zeros(*x.shape[:2], *index.shape)
    for number, (owner, share) in enumerate(zip(*given, strict=True)):
        here = (sets == number).nonzero()[:, 0]
        pixels = index[here].clamp(min=0)
        taken = share[:, :, pixels.flatten()].unflatten(2, pixels.shape)
        weights[:, :, here] = taken * ((owner[pixels] == here[:, None]) & (index[here] >= 0))
    mass = weights.sum(3)
    if not _near(mass, sums, 1e-6):
        raise Unreadable("its windows could not be told apart")
    first = given[1][:, :1, :1]
    fixed = all(bool(((shares - first).abs() < 1e-9).all()) for _, shares in found)
    return Rows(index, weights / mass.clamp(min=1e-300)[..., None], sums, places, fixed)
